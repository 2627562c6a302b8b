"""What a chain of thought does: tries, backs up, verifies, slips, repeats itself. Defined here alone, for each task.

For Countdown, whose traces have a few fixed words:
- a *try* begins at `try` / `试`;
- an output *reflects* where it finds a result too high or too low (`high` / `大`, `low` / `小`) and then tries again;
- an output *verifies* where it recomputes after `check` / `查` before it answers;
- a *slip* is a sum `a op b = c`, in running form too (`3 + 8 = 11 * 8 = 88`), that is not true; the end
  of a longer expression (`3 * 2 = 13` in `7 + 3 * 2 = 13`) is not judged.
For every other text, an output reflects where it uses one of the reflective words that the paper counts, and verifies
where it uses one of verification. These are figures about words, not about what a model has in mind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hone.rewards.format import split_completion
from hone.rewards.readability import code_blocks, ends_in_loop, longest_paragraph, repetition
from hone.types import Problem

Kind = Literal["try", "reflection", "verification", "slip"]

_TRY = re.compile(r"(?<!\S)(?:try|试)(?!\S)")
_BACK_UP = re.compile(r"(?<!\S)(?:high|low|大|小)(?!\S)(?=\s+(?:try|试)(?!\S))")
_CHECK = re.compile(r"(?<!\S)(?:check|查)(?!\S)(?=\s+[0-9])")
_SUM = re.compile(
    r"(?P<more>[-+*/]\s*)?(?<![\d.])(?P<left>[0-9]{1,6})\s*(?P<op>[-+*/])\s*(?P<right>[0-9]{1,6})"
    r"\s*=\s*(?P<result>[0-9]{1,6})(?!\d|\.\d)"
)
# DeepSeek-R1 [v2], the reflective words whose count rises in training, with Chinese ones added.
_REFLECTIVE = re.compile(
    r"\b(?:wait|mistake|however|but|retry|error|verify|wrong|evaluate|check)\b|等等|不对|(?<![不没])错|(?<!不)但|重新|检查|验证",
    re.IGNORECASE,
)
_VERIFYING = re.compile(
    r"\b(?:verify|verifies|verifying|check|checks|checking|double-check)\b|检查|验证|验算", re.IGNORECASE
)

_PATTERNS: dict[str, dict[Kind, re.Pattern[str]]] = {
    "countdown": {"try": _TRY, "reflection": _BACK_UP, "verification": _CHECK}
}
_OF_WORDS: dict[Kind, re.Pattern[str]] = {"reflection": _REFLECTIVE, "verification": _VERIFYING}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of text that shows a behaviour, for highlighting."""

    start: int
    end: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The figures of one output."""

    tries: int
    reflects: bool
    verifies: bool
    sums: int
    slips: int
    repetition: float  # share of its windows of eight words that stood in it before
    loops: bool  # it ends by repeating itself to the letter
    longest_paragraph: float  # words
    code_blocks: int


def spans(problem_task: str, text: str) -> list[Span]:
    """Return the behaviours in a text in the order in which they stand."""
    patterns = _PATTERNS.get(problem_task, _OF_WORDS)
    found = [Span(*match.span(), kind) for kind, pattern in patterns.items() for match in pattern.finditer(text)]
    found += [Span(start, end, "slip") for start, end, true in _sums(text) if not true]
    return sorted(found, key=lambda span: (span.start, span.end))


def measure(problem: Problem, text: str) -> Behaviour:
    """Return the figures of one output of a problem."""
    patterns = _PATTERNS.get(problem.task, _OF_WORDS)
    sums = _sums(text)
    return Behaviour(
        tries=len(patterns["try"].findall(text)) if "try" in patterns else 0,
        reflects=patterns["reflection"].search(text) is not None,
        verifies=patterns["verification"].search(text) is not None,
        sums=len(sums),
        slips=sum(not true for _, _, true in sums),
        repetition=repetition(text),
        loops=ends_in_loop(text),
        longest_paragraph=longest_paragraph(text),
        code_blocks=code_blocks(split_completion(text).think),
    )


def _sums(text: str) -> list[tuple[int, int, bool]]:
    """Return every sum `a op b = c` as (start, end, is it true); the result of one may begin the next."""
    found: list[tuple[int, int, bool]] = []
    place = 0
    while match := _SUM.search(text, place):
        place = match.start("result")
        if match["more"]:
            continue
        left, op, right, result = int(match["left"]), match["op"], int(match["right"]), int(match["result"])
        true = {
            "+": left + right == result,
            "-": left - right == result,
            "*": left * right == result,
            "/": right != 0 and left == result * right,
        }[op]
        found.append((match.start(), match.end(), true))
    return found
