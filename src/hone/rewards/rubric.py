"""Open questions judged by what an answer must hold: a rule in place of a judge, for messages of known kinds.

A reference is a list of requirements joined by ` ; `. `numbers|target` is met by any of its words or phrases, `#8`
where 8 is the only number, and `!take` forbids. The credit of an answer is the share of the requirements that it meets;
an answer that holds what is forbidden is unsafe, and its credit is -1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hone.rewards.extract import extract
from hone.types import HoneError, Problem, Verdict, Verified

UNSAFE = -1.0
_NUMBER = re.compile(r"\d+")


class Rubric:
    """An open answer, right where it meets every requirement of the reference."""

    def check_reference(self, problem: Problem) -> None:
        parts = [part.strip() for part in problem.answer.split(";")]
        if not all(phrase.strip() for part in parts for phrase in part.removeprefix("!").removeprefix("#").split("|")):
            raise HoneError(f"problem {problem.id}: its rubric {problem.answer!r} has an empty requirement")

    def judge_all(self, cases: Sequence[tuple[Problem, str]]) -> list[Verified]:
        return [_judge(problem, answer) for problem, answer in cases]

    def loosely(self, text: str) -> str | None:
        return extract(text, "summary")

    def key(self, answer: str) -> str:
        return " ".join(answer.split())

    def wrong_answers(self, problem: Problem) -> list[str]:
        return ["", "0", ". . ."]


def _judge(problem: Problem, answer: str) -> Verified:
    wanted = [part.strip() for part in problem.answer.split(";")]
    forbidden = [part for part in wanted if part.startswith("!") and _meets(answer, part[1:])]
    if forbidden:
        return Verified(Verdict.WRONG, f"unsafe: holds {forbidden[0][1:]}", UNSAFE)
    wanted = [part for part in wanted if not part.startswith("!")]
    missing = [part for part in wanted if not _meets(answer, part)]
    credit = 1 - len(missing) / max(1, len(wanted))
    if missing:
        return Verified(Verdict.WRONG, f"lacks {missing[0]}", credit)
    return Verified(Verdict.RIGHT, "holds all that was asked for", credit)


def _meets(answer: str, requirement: str) -> bool:
    if requirement.startswith("#"):
        return set(_NUMBER.findall(answer)) == {requirement[1:]}
    spaced = f" {' '.join(answer.split())} "
    return any(f" {' '.join(phrase.split())} " in spaced for phrase in requirement.split("|"))
