"""Text while it is drawn: the same whatever the pieces are, cut at stop texts, the thinking told from the answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from hone.models.streaming import CompletionText, Detokenizer, Piece, StopCut, ThinkSplit, opens_thinking
from hone.models.tokenizer import Tokenizer


def byte_tokenizer() -> Tokenizer:
    """Every byte is a token, as in a byte-level vocabulary without merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = tokenizers.Tokenizer(models.BPE({symbol: n for n, symbol in enumerate([*alphabet, "<eos>"])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<eos>"])
    return Tokenizer(core, eos="<eos>", pad=None, chat_template=None)


TOKENIZER = byte_tokenizer()


def completion(text: str, *, stop: tuple[str, ...] = (), split: bool = True, opened: bool = False) -> Piece:
    """Return a text that went through token by token."""
    stream = CompletionText(TOKENIZER, stop=stop, split=split, opened=opened)
    pieces = [stream.push(token) for token in TOKENIZER.encode(text)]
    pieces.append(stream.end())
    return Piece("".join(piece.thinking for piece in pieces), "".join(piece.answer for piece in pieces))


@pytest.mark.parametrize(
    ("text", "opened", "thinking", "answer"),
    [
        ("<think>\n2 + 2\n</think>\n\nFour.", False, "2 + 2", "Four."),
        ("2 + 2\n</think>\n\nFour.", True, "2 + 2", "Four."),  # the prompt ended in <think>
        ("<think>2 + 2</think>Four.", True, "2 + 2", "Four."),  # and the model wrote it once more
        ("  <think> 2 </think> <answer> 4 </answer>", False, "2", "<answer> 4 </answer>"),
        ("Four.", False, "", "Four."),
        ("The tag <think> opens </think> a thought.", False, "", "The tag <think> opens </think> a thought."),
        ("<think></think>Four.", False, "", "Four."),
        ("<think>cut off  ", False, "cut off", ""),
        ("<think>a < b </thin k></think>b", False, "a < b </thin k>", "b"),
        ("<think>a</think>b</think>c", False, "a", "b</think>c"),
        ("<thi", False, "", "<thi"),
        ("cut off", True, "cut off", ""),
        ("", False, "", ""),
        (" \n ", False, "", ""),
    ],
)
def test_a_think_section_is_told_from_the_answer(text: str, opened: bool, thinking: str, answer: str) -> None:
    assert completion(text, opened=opened) == Piece(thinking, answer)


def test_thinking_arrives_before_it_is_over() -> None:
    split = ThinkSplit(opened=False)
    assert [split.push(text, False) for text in ("<th", "ink> a", " b </", "think> c", " d")] == [
        ("", ""), ("a", ""), (" b", ""), ("", "c"), ("", " d"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "stop", "answer"),
    [
        ("one two three", ("two",), "one "),
        ("one two three", ("three", "two"), "one "),
        ("one two", ("two three",), "one two"),  # begun, and not ended
        ("aab", ("ab",), "a"),
        ("ababac", ("abac",), "ab"),
        ("one", (), "one"),
        ("日本語です", ("本",), "日"),
    ],
)
def test_text_ends_before_the_first_stop_text(text: str, stop: tuple[str, ...], answer: str) -> None:
    assert completion(text, stop=stop, split=False).answer == answer


def test_a_stop_text_is_held_back_and_nothing_else() -> None:
    cut = StopCut(("END",))
    assert [cut.push(text, False) for text in ("a E", "N", "X", "E", "ND", "b")] == ["a ", "", "ENX", "", "", ""]
    assert cut.reached


def test_a_stop_text_ends_thinking_too() -> None:
    assert completion("<think>a wait b</think>c", stop=("wait",)) == Piece("a", "")


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40))
def test_tokens_add_up_to_the_text(text: str) -> None:
    assert completion(text, split=False).answer == text


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "</", "think>", "a", " ", "\n", "STOP", "ST"])), st.booleans()
)
def test_the_pieces_do_not_matter(parts: list[str], opened: bool) -> None:
    text = "".join(parts)
    cut, split = StopCut(("STOP",)), ThinkSplit(opened)
    assert completion(text, stop=("STOP",), opened=opened) == split.push(cut.push(text, True), True)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 255), max_size=30))
def test_any_bytes_give_some_text_and_no_error(ids: list[int]) -> None:
    stream = Detokenizer(TOKENIZER)
    text = "".join(map(stream.push, ids)) + stream.rest()
    assert text.replace("\N{REPLACEMENT CHARACTER}", "") == TOKENIZER.decode(ids).replace(
        "\N{REPLACEMENT CHARACTER}", ""
    )


def test_words_keep_the_space_between_them() -> None:
    tokenizer = Tokenizer.load(Path(__file__).parents[3] / "src/hone/assets/base-tiny")
    stream = Detokenizer(tokenizer)
    ids = tokenizer.encode("<think> try 8 * 8 </think>")
    assert [stream.push(token) for token in [*ids, tokenizer.eos_id]] == [
        "<think>",
        " try",
        " 8",
        " *",
        " 8",
        " </think>",
        "",
    ]


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|Assistant|><think>\n", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("Assistant:", False),
    ],
)
def test_a_prompt_may_open_the_think_section(prompt: str, opened: bool) -> None:
    assert opens_thinking(prompt) is opened
