"""The conversation in the terminal: what is shown, what is kept, what it survives."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading

import pytest
import tokenizers
from rich.console import Console

from hone.chat import Chat, harmless
from hone.types import HoneError, SamplingParams

QUESTION = "use 3 8 8 make 61"


class Talk:
    """A chat with the embedded base, and what its terminal has shown."""

    def __init__(self, *, max_tokens: int = 60, folded: bool = False) -> None:
        self.screen = io.StringIO()
        params = SamplingParams(max_tokens=max_tokens, temperature=0.6, top_p=0.95)
        console = Console(file=self.screen, width=100, color_system=None)
        self.chat = Chat("base-tiny", params, 0, console, folded=folded)

    @property
    def shown(self) -> str:
        return self.screen.getvalue()

    def said(self) -> list[tuple[str, str]]:
        return [(message.role, message.content) for message in self.chat.messages]

    def type(self, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))
        self.chat.loop()


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_an_answer_is_shown_and_kept_without_its_thinking(talk: Talk) -> None:
    assert talk.chat.answer(QUESTION)
    [(_, question), (role, answer)] = talk.said()
    assert (question, role) == (QUESTION, "assistant")
    assert answer.startswith("<answer>")
    thinking, _, rest = talk.shown.partition("\n\n")
    assert thinking.startswith("try ")
    assert rest.startswith(answer)
    assert "tokens/s" in rest
    assert "think>" not in talk.shown


def test_thinking_can_be_folded_away() -> None:
    plain, folded = Talk(), Talk(folded=True)
    plain.chat.answer(QUESTION)
    folded.chat.answer(QUESTION)
    first, answer, _ = folded.shown.split("\n", 2)
    assert first.startswith("thought for ")
    assert int(first.split()[2]) == len(plain.shown.partition("\n\n")[0].split()) + 1  # and the opening tag
    assert folded.said() == plain.said()
    assert answer.strip() == folded.said()[1][1].strip()


def test_the_next_turn_reads_the_earlier_ones(talk: Talk) -> None:
    talk.chat.answer(QUESTION)
    first = talk.said()[1][1]
    talk.chat.answer("use 3 8 5 make 43")
    assert [role for role, _ in talk.said()] == ["user", "assistant"] * 2
    assert talk.said()[:2] == [("user", QUESTION), ("assistant", first)]
    prompt, _ = talk.chat._fit(talk.chat.messages)
    assert f"User: {QUESTION} Assistant: {first.strip()} <|end|> User: use 3 8 5 make 43" in prompt


def test_commands(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    talk.type(monkeypatch, "", QUESTION, "/new", "/think", QUESTION, "/what", "/quit", "unread")
    assert [role for role, _ in talk.said()] == ["user", "assistant"]
    assert "a new conversation" in talk.shown
    assert "thinking is folded away" in talk.shown
    assert "thought for " in talk.shown
    assert talk.shown.count("/quit or Ctrl-D ends") == 2  # at the start, and in answer to /what
    assert sys.stdin.read() == "unread\n"


def test_the_end_of_input_ends_it(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    talk.type(monkeypatch, "stranger")
    assert "not known to this model: stranger; its vocabulary is numbers" in talk.shown


def test_ctrl_c_stops_the_answer_alone_and_keeps_what_was_said() -> None:
    talk = Talk(max_tokens=1000)
    talk.chat.engine.tokenizer.eos_id = -1  # so that the answer would not end
    done = threading.Event()

    def interrupt() -> None:
        while talk.shown.count(" ") < 20 and not done.wait(0.01):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        assert not talk.chat.answer(QUESTION)
    finally:
        done.set()
        thread.join()
    assert talk.shown.rstrip().endswith("stopped")
    [_, (role, answer)] = talk.said()
    assert role == "assistant"
    assert len(answer.split()) < 900
    assert answer in talk.shown
    talk.chat.engine.tokenizer.eos_id = talk.chat.engine.tokenizer.core.token_to_id("<|end|>")
    assert talk.chat.answer(QUESTION)


def test_an_answer_is_cut_at_max_tokens() -> None:
    talk = Talk(max_tokens=3)
    talk.chat.answer(QUESTION)
    assert "3 tokens" in talk.shown
    assert "cut at max_tokens" in talk.shown
    assert talk.said()[1] == ("assistant", "")  # it was still thinking


def test_the_oldest_turns_make_room_with_one_notice() -> None:
    talk = Talk(max_tokens=10)
    long = " ".join(["8"] * 300)
    for _ in range(3):
        talk.chat.answer(long)
    assert len(talk.said()) == 6
    assert "no longer fit" not in talk.shown
    talk.chat.answer(long)
    assert talk.shown.count("the oldest turn no longer fits and is left out") == 1
    assert len(talk.said()) == 6


def test_a_message_that_does_not_fit_is_refused_and_forgotten(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    talk.chat.answer(QUESTION)
    before = talk.said()
    with pytest.raises(HoneError, match="1026 tokens, but the model has 1024 positions; shorten it"):
        talk.chat.answer(" ".join(["8"] * 1024))
    assert talk.said() == before
    talk.type(monkeypatch, " ".join(["8"] * 1024), QUESTION)
    assert "shorten it" in talk.shown
    assert len(talk.said()) == len(before) + 2


def test_a_long_message_leaves_what_room_there_is() -> None:
    talk = Talk(max_tokens=1000)
    talk.chat.engine.tokenizer.eos_id = -1
    talk.chat.answer(" ".join(["8"] * 1012))
    assert "10 tokens" in talk.shown
    assert "cut at max_tokens" in talk.shown


def test_what_a_model_writes_cannot_steer_the_terminal(talk: Talk) -> None:
    core = talk.chat.engine.tokenizer.core
    evil = tokenizers.Tokenizer.from_str(core.to_str().replace('"try"', '"\\u001b[2J\\r\\u009b31m\\u202etry"'))
    talk.chat.engine.tokenizer.core = evil
    talk.chat.answer(QUESTION)
    assert "\N{REPLACEMENT CHARACTER}[2J" in talk.shown
    assert not set("\x1b\r\x9b\u202e") & set(talk.shown)


def test_harmless_text_stays_as_it_is() -> None:
    text = "Grüße,\tΣ\n日本語 🙂 [bold]x[/bold]"
    assert harmless(text) == text
    assert harmless("a\x1b]0;title\x07b\x7f\x00") == "a�]0;title�b��"


def test_folding_counts_as_it_thinks() -> None:
    """On a terminal, the count is there while the thinking lasts."""
    screen = io.StringIO()
    console = Console(file=screen, width=100, force_terminal=True)
    params = SamplingParams(max_tokens=400, temperature=0)
    chat = Chat("base-tiny", params, 0, console, folded=True)
    chat.engine.tokenizer.eos_id = -1
    chat.answer("use 3 8 8 5 make 2")
    assert "thinking... " in screen.getvalue()
    assert "thought for " in screen.getvalue()
