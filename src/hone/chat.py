"""A conversation in the terminal: answers stream as they are drawn, the thinking dimmed or folded away."""

from __future__ import annotations

import contextlib
import dataclasses
import time

from rich.console import Console
from tokenizers import models

from hone.engine.local.engine import LocalEngine
from hone.engine.opening import open_engine
from hone.models.folders import find_model
from hone.models.streaming import CompletionText, Piece, opens_thinking
from hone.types import HoneError, Message, Prompt, SamplingParams

with contextlib.suppress(ImportError):  # where there is one, `input` lets lines be edited
    import readline  # noqa: F401

COMMANDS = "/think folds the thinking away or shows it, /new begins again, /quit or Ctrl-D ends, Ctrl-C stops an answer"
# What a model writes is not trusted: no control character but tab and newline, nothing that turns the writing around.
_CONTROL = {*range(9), *range(11, 32), *range(127, 160), 0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F),
            *range(0x2066, 0x206A), 0x2028, 0x2029}  # fmt: skip
_HARMLESS = dict.fromkeys(_CONTROL, "\N{REPLACEMENT CHARACTER}")


def harmless(text: str) -> str:
    """Return a text with what could steer a terminal replaced."""
    return text.translate(_HARMLESS)


class Chat:
    """One conversation with one model. Earlier thinking is left out of what the model reads, as R1 advises."""

    def __init__(
        self, model: str, params: SamplingParams, seed: int, console: Console, *, folded: bool = False
    ) -> None:
        self.engine = open_engine(find_model(model))
        self.model, self.params, self.seed, self.console, self.folded = model, params, seed, console, folded
        self.messages: list[Message] = []

    def loop(self) -> None:
        """Take messages until the input ends."""
        self._say(f"{self.model}: {COMMANDS}")
        while True:
            try:
                text = input("you: ").strip()
            except EOFError:
                self.console.print()
                return
            except KeyboardInterrupt:
                self.console.print()
                self._say("(Ctrl-D or /quit ends)")
                continue
            if text == "/quit":
                return
            if text:
                self._obey(text)

    def _obey(self, text: str) -> None:
        if text == "/new":
            self.messages.clear()
            self._say("(a new conversation)")
        elif text == "/think":
            self.folded = not self.folded
            self._say("(thinking is folded away)" if self.folded else "(thinking is shown)")
        elif text.startswith("/") and " " not in text:
            self._say(f"({COMMANDS})")
        else:
            try:
                self.answer(text)
            except HoneError as error:
                self.console.print(str(error), style="red", highlight=False, markup=False)

    def answer(self, text: str) -> bool:
        """Answer one message and keep both in the conversation; return False where Ctrl-C cut the answer short."""
        self._name_unknown(text)
        prompt, messages = self._fit([*self.messages, Message(role="user", content=text)])
        ids = self.engine.tokenizer.encode(prompt)
        room = self.engine.num_positions - len(ids)
        params = dataclasses.replace(self.params, max_tokens=min(self.params.max_tokens, room))
        shown = _Answer(self.console, self.engine, prompt, self.folded)
        finish = "stopped"
        try:
            with shown:
                [[rollout]] = self.engine.sample(
                    [Prompt(ids=ids)], params, seed=self.seed, on_token=lambda _, token: shown.push(token)
                )
            finish = "cut at max_tokens" if rollout.finish_reason == "length" else ""
        except KeyboardInterrupt:
            pass
        self.seed += 1
        self._say(", ".join(part for part in (shown.speed(), finish) if part))
        self.messages = [*messages, Message(role="assistant", content=shown.answer)]
        return finish != "stopped"

    def _fit(self, messages: list[Message]) -> tuple[str, list[Message]]:
        """Return a prompt that leaves room for an answer, and its messages: the oldest turns go where need be."""
        tokenizer, positions = self.engine.tokenizer, self.engine.num_positions
        wanted = min(self.params.max_tokens, positions // 2)
        kept = messages
        while len(tokenizer.encode(prompt := tokenizer.render(kept))) + wanted > positions and len(kept) > 1:
            kept = kept[2:]
        length = len(tokenizer.encode(prompt))
        if not length:
            raise HoneError("the message is empty: the model has nothing to continue")
        if length >= positions:
            raise HoneError(
                f"the message comes to {length} tokens, but the model has {positions} positions; shorten it"
            )
        if len(kept) < len(messages):
            gone = (len(messages) - len(kept)) // 2
            turns = "turn no longer fits and is" if gone == 1 else f"{gone} turns no longer fit and are"
            self._say(f"(the oldest {turns} left out)", "yellow")
        return prompt, kept

    def _name_unknown(self, text: str) -> None:
        tokenizer = self.engine.tokenizer
        if not (unknown := tokenizer.unknown_words(text)):
            return
        words = isinstance(tokenizer.core.model, models.WordLevel)
        known = "; its vocabulary is numbers from 0 to 99, signs and a few words" if words else ""
        self._say(f"(not known to this model: {' '.join(unknown)}{known})", "yellow")

    def _say(self, text: str, style: str = "dim") -> None:
        self.console.print(harmless(text), style=style, highlight=False, markup=False)


class _Answer:
    """One answer on the screen, as it grows."""

    def __init__(self, console: Console, engine: LocalEngine, prompt: str, folded: bool) -> None:
        self.console, self.folded = console, folded
        self.text = CompletionText(engine.tokenizer, split=True, opened=opens_thinking(prompt))
        self.answer = ""
        self.num_tokens, self.num_thinking, self.has_thought = 0, 0, False
        self.started = self.first = self.last = time.perf_counter()
        self.waiting = console.status("[dim]thinking...[/]", spinner_style="dim")

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self._show(self.text.end())
        self._end_thinking()
        if self.answer and not self.answer.endswith("\n"):
            self.console.print()

    def push(self, token: int) -> None:
        self.last = time.perf_counter()
        if not self.num_tokens:
            self.first = self.last
        self.num_tokens += 1
        piece = self.text.push(token)
        self.num_thinking += self.text.thinking
        self._show(piece)

    def _show(self, piece: Piece) -> None:
        if piece.thinking:
            self.has_thought = True
            if self.folded:
                self.waiting.update(f"[dim]thinking... {self.num_thinking} tokens[/]")
                self.waiting.start()
            else:
                self._print(piece.thinking, "dim")
        if piece.answer:
            if not self.answer:
                self._end_thinking()
            self.answer += piece.answer
            self._print(piece.answer)

    def _end_thinking(self) -> None:
        """Close the think section, if there was one: by its length, or by an empty line before the answer."""
        self.waiting.stop()
        if self.has_thought and self.folded:
            self._print(f"thought for {self.num_thinking} tokens\n", "dim")
        elif self.has_thought:
            self._print("\n\n" if self.num_tokens > self.num_thinking else "\n")
        self.has_thought = False

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(harmless(text), end="", style=style, highlight=False, markup=False, soft_wrap=True)

    def speed(self) -> str:
        """Say how long the answer is and how fast its tokens came after the first."""
        seconds = self.last - self.first
        rate = f", {(self.num_tokens - 1) / seconds:.0f} tokens/s" if seconds > 0 else ""
        return f"{self.num_tokens} token{'' if self.num_tokens == 1 else 's'}{rate}"
