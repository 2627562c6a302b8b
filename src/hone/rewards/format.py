"""The structure of an answer: `<think> ... </think> <answer> ... </answer>`, and what is inside."""

from __future__ import annotations

import re
from dataclasses import dataclass

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_WHOLE = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parts:
    """A completion in its parts.

    `answer` is None where there is not exactly one pair of answer tags, and where that pair stands inside the thinking.
    """

    think: str
    answer: str | None
    well_formed: bool


def split_completion(text: str) -> Parts:
    """Take a completion apart.

    It is well formed where each of the four tags stands exactly once, in order, nothing but space lies outside them,
    and neither part is empty. Without think tags, everything before the answer counts as thinking.
    """
    once = all(text.count(tag) == 1 for tag in TAGS)  # first, since the pattern is quadratic where tags repeat
    if once and (match := _WHOLE.fullmatch(text)):
        think, answer = match.group(1).strip(), match.group(2).strip()
        return Parts(think, answer, bool(think) and bool(answer))
    before, opened, rest = text.partition("<answer>")
    inside, closed, _ = rest.partition("</answer>")
    single = text.count("<answer>") == 1 and text.count("</answer>") == 1
    in_thinking = before.count("<think>") > before.count("</think>") and "</think>" in rest
    think = before.partition("</think>")[0].strip().removeprefix("<think>").strip()
    return Parts(think, inside.strip() if opened and closed and single and not in_thinking else None, False)


def without_tags(text: str) -> str:
    """Return a completion with its tags removed, for grading that ignores them."""
    for tag in TAGS:
        text = text.replace(tag, " ")
    return text.strip()
