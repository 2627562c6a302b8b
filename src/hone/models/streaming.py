"""A completion's text while it is drawn: tokens in, text out, cut at stop texts, the thinking told from the answer.

What has been given out is never taken back, so whatever may still turn out to be part of a character, a stop text or a
tag is held back until it is clear. The text does not depend on when it is asked for: all at once it is the same. The
module does not know who reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hone.models.tokenizer import Tokenizer
from hone.rewards.format import TAGS

OPENING, CLOSING = TAGS[:2]


class Piece(NamedTuple):
    """What has been added to a completion."""

    thinking: str
    answer: str


class Detokenizer:
    """Turns ids into text one at a time, by decoding the last few only."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.start, self.end = 0, 0  # ids[:end] have been given out; from start on they are the context of the next

    def push(self, token: int) -> str:
        """Return the text that a token adds: none while it ends inside a character of several tokens."""
        self.ids.append(token)
        fresh = self.rest()
        if fresh.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self.start, self.end = self.end, len(self.ids)
        return fresh

    def rest(self) -> str:
        """Return the text that is held back, after the last token."""
        decode = self.tokenizer.decode
        return decode(self.ids[self.start :])[len(decode(self.ids[self.start : self.end])) :]


class StopCut:
    """Passes text on up to the first stop text."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop, self.held, self.reached = stop, "", False

    def push(self, text: str, last: bool) -> str:
        if self.reached:
            return ""
        text = self.held + text
        found = [place for place in map(text.find, self.stop) if place >= 0]
        self.reached = bool(found)
        keep = min(found) if found else len(text) if last else len(text) - _begun(text, self.stop)
        self.held = text[keep:]
        return text[:keep]


class ThinkSplit:
    """Tells the think section from the answer; a section stands at the beginning or, where the prompt opened it, began
    before it. Without one, all is answer. Space at the start of either part and at the end of the thinking is left out.
    """

    def __init__(self, opened: bool) -> None:
        self.opened, self.held = opened, ""
        self.begun, self.thinking = False, opened
        self.blank = True  # nothing of the present part has been given out

    def push(self, text: str, last: bool) -> Piece:
        self.held += text
        if not self.begun and not self._begin(last):
            return Piece("", "")
        thought = self._think(last) if self.thinking else ""
        if self.thinking:
            return Piece(thought, "")
        answer, self.held = self._without_leading_space(self.held), ""
        return Piece(thought, answer)

    def _begin(self, last: bool) -> bool:
        """Say whether it is clear by now how the completion begins."""
        start = self.held.lstrip()
        if OPENING.startswith(start) and start != OPENING and not last:
            return False
        self.begun = True
        if start.startswith(OPENING):
            self.thinking, self.held = True, start[len(OPENING) :]
        return True

    def _think(self, last: bool) -> str:
        thought, closed, after = self.held.partition(CLOSING)
        if not closed and not last:
            thought = thought[: len(thought) - _begun(thought, (CLOSING,))]
        kept = thought.rstrip()
        self.held = after if closed else self.held[len(kept) :]
        fresh = self._without_leading_space(kept)
        if closed:
            self.thinking, self.blank = False, True
        return fresh

    def _without_leading_space(self, text: str) -> str:
        text = text.lstrip() if self.blank else text
        self.blank = self.blank and not text
        return text


class CompletionText:
    """The text of one completion: each token pushed returns the piece that it adds.

    With `split`, a think section is told apart; else all is answer. `thinking` says whether the last token was part of
    one.
    """

    def __init__(self, tokenizer: Tokenizer, *, stop: Sequence[str] = (), split: bool, opened: bool = False) -> None:
        self._tokens, self._cut = Detokenizer(tokenizer), StopCut(stop)
        self._split = ThinkSplit(opened) if split else None

    @property
    def thinking(self) -> bool:
        return self._split is not None and self._split.thinking

    def push(self, token: int) -> Piece:
        return self._pass_on(self._tokens.push(token), last=False)

    def end(self) -> Piece:
        """Return what was held back."""
        return self._pass_on(self._tokens.rest(), last=True)

    def _pass_on(self, text: str, *, last: bool) -> Piece:
        text = self._cut.push(text, last)
        return self._split.push(text, last) if self._split else Piece("", text)


def opens_thinking(prompt: str) -> bool:
    """Say whether a prompt ends inside a think section, as R1's template does."""
    return prompt.rstrip().endswith(OPENING)


def _begun(text: str, marks: Iterable[str]) -> int:
    """Return the length of the longest end of the text that one of the marks begins with."""
    longest = max(map(len, marks), default=0) - 1
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(mark.startswith(text[-n:]) for mark in marks)), 0)
