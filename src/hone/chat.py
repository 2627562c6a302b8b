"""A conversation in the terminal: answers stream as they are drawn, the thinking dimmed."""

from __future__ import annotations

import time

from rich.console import Console

from hone.engine.local.engine import LocalEngine
from hone.models.folders import find_model
from hone.rewards.format import split_completion
from hone.types import HoneError, Message, Prompt, SamplingParams


class Chat:
    """One conversation with one model."""

    def __init__(self, model: str, params: SamplingParams, seed: int, console: Console) -> None:
        self.engine = LocalEngine.open(find_model(model))
        self.model, self.params, self.seed, self.console = model, params, seed, console
        self.messages: list[Message] = []

    def loop(self) -> None:
        """Take messages until the input ends, or `/quit`; `/new` begins another conversation."""
        self.console.print(f"{self.model}: /new begins again, /quit or Ctrl-D ends", style="dim", highlight=False)
        while True:
            try:
                text = self.console.input("[bold]you[/] ").strip()
            except (EOFError, KeyboardInterrupt):
                return
            if text == "/quit":
                return
            if text == "/new":
                self.messages.clear()
            elif text:
                try:
                    self.answer(text)
                except HoneError as error:
                    self.messages.pop()
                    self.console.print(str(error), style="red", highlight=False, markup=False)

    def answer(self, text: str) -> None:
        """Answer one message and keep both in the conversation."""
        self.messages.append(Message(role="user", content=text))
        tokenizer = self.engine.tokenizer
        ids = tokenizer.encode(tokenizer.render(self.messages))
        if unknown := tokenizer.unknown_words(text):
            known = "its vocabulary is numbers from 0 to 99, signs and a few words"
            self.console.print(
                f"(not known to this model: {' '.join(unknown)}; {known})", style="yellow", highlight=False
            )
        shown = _Stream(self.console)
        drawn: list[int] = []

        def on_token(_: int, token: int) -> None:
            drawn.append(token)
            shown.update(tokenizer.decode(drawn))

        started = time.perf_counter()
        [[rollout]] = self.engine.sample([Prompt(ids=ids)], self.params, seed=self.seed, on_token=on_token)
        self.seed += 1
        speed = len(rollout.completion_ids) / (time.perf_counter() - started)
        cut = ", cut at max_tokens" if rollout.finish_reason == "length" else ""
        shown.end()
        self.console.print(
            f"{len(rollout.completion_ids)} tokens, {speed:.0f} tokens/s{cut}", style="dim", highlight=False
        )
        self.messages.append(Message(role="assistant", content=split_completion(rollout.text).answer or rollout.text))


class _Stream:
    """Prints what has been added to a growing text, dimmed while it is inside the think section."""

    def __init__(self, console: Console) -> None:
        self.console, self.printed = console, 0

    def update(self, text: str) -> None:
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return  # a character of several tokens is not whole yet
        fresh, self.printed = text[self.printed :], len(text)
        thinking = "<think>" in text and "</think>" not in text
        self.console.print(
            fresh, end="", style="dim" if thinking else "", highlight=False, markup=False, soft_wrap=True
        )

    def end(self) -> None:
        self.console.print()
