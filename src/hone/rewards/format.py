"""The structure of an answer: `<think> ... </think> <answer> ... </answer>`, and what is inside.

Two forms are told apart. The *strict* one is R1-Zero's: each of the four tags stands exactly once, in order, nothing
but space lies outside them, and neither part is empty. The *tolerant* one is R1's: thinking, one `</think>`, then a
summary for the user. There `<think>` may be missing, since a prompt may end in it, and the answer tags may be missing,
since a summary may give its answer in `\\boxed`; where they stand, they are one pair around something, after the
thinking.

An answer to a simple query has no thinking and no tags at all: it is *direct*.

A tag is a tag only in exactly these letters: `<Think>`, `< think >` and `<think lang="en">` are text. This module does
not know whether an answer is right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_WHOLE = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parts:
    """A completion in its parts.

    `answer` is None where there is not exactly one pair of answer tags, and where that pair stands inside the thinking.
    `summary` is what a user sees: everything after the first `</think>` or, without one, from `<answer>` on, without
    tags; all of a completion that has none; thinking that was cut has no summary. `well_formed` is the strict form,
    `readable` the tolerant one, which every well-formed completion has too, `direct` the one without tags.
    """

    think: str
    answer: str | None
    summary: str
    well_formed: bool
    readable: bool
    direct: bool

    def has_form(self, form: str) -> bool:
        """Say whether the completion is `strict`, `tolerant` or `direct`; any is `any`."""
        return {"strict": self.well_formed, "tolerant": self.readable, "direct": self.direct, "any": True}[form]


def split_completion(text: str) -> Parts:
    """Take a completion apart. Without think tags, everything before the answer counts as thinking."""
    return Parts(_thinking(text), _answer(text), _summary(text), _well_formed(text), _readable(text), _direct(text))


def without_tags(text: str) -> str:
    """Return a completion with its tags removed, for grading that ignores them."""
    for tag in TAGS:
        text = text.replace(tag, " ")
    return text.strip()


def _thinking(text: str) -> str:
    before = text.partition("<answer>")[0]
    return before.partition("</think>")[0].strip().removeprefix("<think>").strip()


def _answer(text: str) -> str | None:
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    before, _, rest = text.partition("<answer>")
    inside, closed, _ = rest.partition("</answer>")
    in_thinking = before.count("<think>") > before.count("</think>") and "</think>" in rest
    return inside.strip() if closed and not in_thinking else None


def _direct(text: str) -> bool:
    return bool(text.strip()) and not any(tag in text for tag in TAGS)


def _summary(text: str) -> str:
    if _direct(text):
        return text.strip()
    _, closed, after = text.partition("</think>")
    return without_tags(after if closed else text.partition("<answer>")[2])


def _well_formed(text: str) -> bool:
    if any(text.count(tag) != 1 for tag in TAGS):  # first, since the pattern is quadratic where tags repeat
        return False
    match = _WHOLE.fullmatch(text)
    return match is not None and all(part.strip() for part in match.groups())


def _readable(text: str) -> bool:
    before, _, after = text.partition("</think>")
    thinking = before.strip().removeprefix("<think>").strip()
    if not thinking or any(tag in thinking for tag in TAGS) or "<think>" in after or "</think>" in after:
        return False
    tagged = "<answer>" in after or "</answer>" in after
    return bool(_answer(text) if tagged else after.strip())
