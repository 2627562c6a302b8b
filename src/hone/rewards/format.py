"""The structure of an answer: `<think> ... </think> <answer> ... </answer>`, and what is inside."""

from __future__ import annotations

import re
from dataclasses import dataclass

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_WHOLE = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parts:
    """A completion in its parts. `answer` is None where there is not exactly one pair of answer tags."""

    think: str
    answer: str | None
    well_formed: bool


def split_completion(text: str) -> Parts:
    """Take a completion apart.

    It is well formed where each of the four tags stands exactly once, in order, nothing but space lies outside them,
    and neither part is empty. Without think tags, everything before the answer counts as thinking.
    """
    match = _WHOLE.fullmatch(text)
    if match and all(text.count(tag) == 1 for tag in TAGS):
        think, answer = match.group(1).strip(), match.group(2).strip()
        return Parts(think, answer, bool(think) and bool(answer))
    before, opened, rest = text.partition("<answer>")
    inside, closed, _ = rest.partition("</answer>")
    single = text.count("<answer>") == 1 and text.count("</answer>") == 1
    think = before.partition("</think>")[0].removeprefix("<think>").strip()
    return Parts(think, inside.strip() if opened and closed and single else None, False)


def without_tags(text: str) -> str:
    """Return a completion with its tags removed, for grading that ignores them."""
    for tag in TAGS:
        text = text.replace(tag, " ")
    return text.strip()
