"""Preference pairs: the forms that public files have, what is refused, and which prompts are held out."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from hone.tasks.preferences import Pair, is_held_out, prompt_key, read_pairs
from hone.types import HoneError, Message

DATA = Path(__file__).parents[3].parent / "shared" / "data"
RESPONSES = {"chosen": "good", "rejected": "bad"}


def write(folder: Path, *rows: Any) -> str:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def only(folder: Path, row: dict[str, Any]) -> Pair:
    (pair,) = read_pairs(write(folder, row))
    return pair


def turns(*contents: str) -> tuple[Message, ...]:
    """Return a conversation in which user and assistant take turns."""
    return tuple(Message(role="assistant" if n % 2 else "user", content=content) for n, content in enumerate(contents))


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Why? "}, turns("Why? ")),
        ({"prompt": "Human: Hi\n\nAssistant: Hello.\n\nHuman: Why?\nReally"}, turns("Hi", "Hello.", "Why?\nReally")),
        ({"prompt": "\n\nHuman: Why?\n\nAssistant:"}, turns("Why?")),
        ({"prompt": "Human: a\n\nHuman: b"}, turns("a\n\nb")),  # some transcripts have one speaker twice in a row
        ({"prompt": "Human: a\n\nHuman sacrifice: b"}, turns("a\n\nHuman sacrifice: b")),
        ({"prompt": "say 'Human: x'\n\nHuman: y"}, turns("say 'Human: x'\n\nHuman: y")),  # no transcript
        ({"messages": [{"role": "user", "content": "Why?"}]}, turns("Why?")),
        (
            {"conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Why?"}]},
            (Message(role="system", content="Be kind."), Message(role="user", content="Why?")),
        ),
        (
            {"prompt": [{"from": who, "value": said} for who, said in (("human", "a"), ("gpt", "b"), ("human", "c"))]},
            turns("a", "b", "c"),
        ),
    ],
)
def test_prompts(row: dict[str, Any], prompt: tuple[Message, ...], tmp_path: Path) -> None:
    pair = only(tmp_path, {**row, **RESPONSES})
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, "good", "bad")


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({side: f"\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: {side}" for side in RESPONSES}, "abc"),
        (
            {
                side: [{"role": "user", "content": "a"}, {"role": "assistant", "content": side}]
                for side in RESPONSES
            },
            "a",
        ),
        ({"prompt": "a"} | {side: [{"role": "assistant", "content": side}] for side in RESPONSES}, "a"),
        ({"prompt": "a"} | {side: {"from": "gpt", "value": side} for side in RESPONSES}, "a"),
        (
            {"prompt": "a"}
            | {
                side: [{"role": "user", "content": "a"}, {"role": "assistant", "content": side}]
                for side in RESPONSES
            },
            "a",
        ),
    ],
)  # fmt: skip
def test_responses_that_come_with_their_conversation(row: dict[str, Any], prompt: str, tmp_path: Path) -> None:
    pair = only(tmp_path, row)
    assert (pair.prompt, pair.chosen, pair.rejected) == (turns(*prompt), "chosen", "rejected")


def test_ids_and_languages(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"prompt": "Why?", **RESPONSES}, {"id": "x/7", "prompt": "为什么?", **RESPONSES},
        {"id": 8, "prompt": "Why?", "chosen": "", "rejected": "bad"},
    )  # fmt: skip
    pairs = read_pairs(path)
    assert [pair.id for pair in pairs] == ["pairs/1", "x/7", "8"]
    assert [pair.language for pair in pairs] == ["en", "zh", "en"]
    assert pairs[2].chosen == ""  # a response may be empty, as some are that people preferred


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "Why?", "chosen": "good"}, "no rejected"),
        ({"prompt": "Why?", "rejected": "bad"}, "no chosen"),
        ({"question": "Why?", **RESPONSES}, "chosen does not end with a message of the assistant"),
        ({"prompt": "Why?", "messages": [], **RESPONSES}, "both prompt and messages"),
        ({"prompt": " ", **RESPONSES}, "the prompt is empty"),
        ({"prompt": [], **RESPONSES}, "the prompt does not end with a message of the user"),
        ({"prompt": "Human: a\n\nAssistant: b", **RESPONSES}, "the prompt does not end with a message of the user"),
        ({"prompt": 3, **RESPONSES}, "prompt is neither text nor messages but a number"),
        ({"prompt": ["a"], **RESPONSES}, "prompt, message 1: neither {role, content} nor {from, value}"),
        ({"prompt": [{"role": "user", "content": None}], **RESPONSES}, "prompt, message 1: neither"),
        ({"prompt": [{"role": "tool", "content": "a"}], **RESPONSES}, "message 1: the role 'tool' is not known"),
        ({"prompt": "a", "chosen": None, "rejected": "bad"}, "chosen is neither text nor messages but null"),
        ({"prompt": "a", "chosen": "good", "rejected": ["bad"]}, "rejected, message 1: neither"),
        ({"prompt": "a", "chosen": [{"role": "user", "content": "b"}], "rejected": "c"}, "chosen does not end with"),
        (
            {"chosen": "Human: a\n\nAssistant: x", "rejected": "Human: b\n\nAssistant: y"},
            "chosen and rejected differ before their last answer",
        ),
        (
            {
                "prompt": "a", "rejected": "bad",
                "chosen": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "x"}],
            },
            "chosen repeats another prompt",
        ),
    ],
)  # fmt: skip
def test_a_row_that_is_no_pair_is_refused_by_file_and_line(row: dict[str, Any], why: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "Why?", **RESPONSES}, row)
    with pytest.raises(HoneError) as refused:
        read_pairs(path)
    assert str(refused.value).startswith(f"{path}, line 2: ")
    assert why in str(refused.value)


def test_a_line_that_is_cut_off_is_refused_by_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "Why?", **RESPONSES})
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"prompt": "Why')
    with pytest.raises(HoneError, match=r"pairs.jsonl, line 2: not JSON"):
        read_pairs(path)


def test_a_prompt_is_the_same_whatever_its_space_and_another_with_another_speaker() -> None:
    assert prompt_key(turns("a  b\n")) == prompt_key(turns("a b"))
    others = [turns("a b"), turns("a", "b"), turns("a", "b", "c"), (Message(role="system", content="a b"),)]
    assert len({prompt_key(prompt) for prompt in others}) == len(others)


def test_the_share_of_prompts_is_held_out_and_a_larger_share_holds_a_smaller_one() -> None:
    keys = [prompt_key(turns(f"question {number}")) for number in range(2000)]
    fifth = {key for key in keys if is_held_out(key, 0.2)}
    half = {key for key in keys if is_held_out(key, 0.5)}
    assert 340 <= len(fifth) <= 460  # 400, and more than three standard deviations of 18 on both sides
    assert fifth < half
    assert is_held_out("f" * 16, 1 - 1e-9) is False
    assert is_held_out("0" * 16, 1e-9) is True


@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data on this machine")
@pytest.mark.parametrize(
    ("name", "count", "turns_most", "languages"),
    [
        ("pref_dpo_en_demo", 300, 13, {"en"}),
        ("pref_dpo_zh_demo", 300, 2, {"zh", "en"}),
        ("pref_hh_harmless_test", 960, 35, {"en"}),
    ],
)
def test_real_files(name: str, count: int, turns_most: int, languages: set[str]) -> None:
    pairs = read_pairs(str(DATA / f"{name}.jsonl"))
    assert len(pairs) == count
    assert max(len(pair.prompt) for pair in pairs) == turns_most
    assert {pair.language for pair in pairs} <= languages
    assert all(pair.prompt[-1].role == "user" for pair in pairs)
    roles = [[message.role for message in pair.prompt if message.role != "system"] for pair in pairs]
    assert all(a != b for one in roles for a, b in itertools.pairwise(one))  # the speakers take turns
    assert not any("\n\nHuman:" in message.content for pair in pairs for message in pair.prompt)
