"""The verifiers of the generated tasks, whose answers are arithmetic on whole numbers, read by an exact grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from hone.rewards.format import without_tags
from hone.rewards.grammar import NotAnExpression, Value, parse
from hone.types import HoneError, Problem, Verdict, Verified

_LONGEST_END = 200
_NUMBER = re.compile(r"[-−]?\s*[0-9]+(?:\s*/\s*[0-9]+)?")


class _Arithmetic:
    """What the two kinds of answer share: a reference that the grammar reads."""

    def check_reference(self, problem: Problem) -> None:
        _reference(problem)

    def judge_all(self, cases: Sequence[tuple[Problem, str]]) -> list[Verified]:
        return [self._judge(problem, answer) for problem, answer in cases]

    def loosely(self, text: str) -> str:
        return last_expression(without_tags(text))

    def _judge(self, problem: Problem, answer: str) -> Verified:
        try:
            reference = _reference(problem)
        except HoneError as error:
            return Verified(Verdict.UNSCORABLE, f"gold: {error}")
        return self._compare(reference, answer)

    def _compare(self, reference: Value, answer: str) -> Verified:
        raise NotImplementedError


class Number(_Arithmetic):
    """A single number: equal as a fraction. An expression still to be worked out is not an answer."""

    def key(self, answer: str) -> str:
        """`x = 5` and `5` are one answer, and `2 + 3`, which is wrong, another."""
        number = _number(answer)
        return answer if number is None else str(number)

    def wrong_answers(self, problem: Problem) -> list[str]:
        value = _reference(problem).value
        return [str(value + 1), str(value + 2), f"{value} + 0"]

    def _compare(self, reference: Value, answer: str) -> Verified:
        number = _number(answer)
        if number is None:
            return Verified(Verdict.WRONG, "not a number")
        right = number == reference.value
        return Verified(Verdict.RIGHT if right else Verdict.WRONG, f"is {number}", float(right))


class Expression(_Arithmetic):
    """Countdown: the answer uses exactly the numbers of the reference, once each, and comes to the same value."""

    def key(self, answer: str) -> str:
        """`8 * 8 - 3` and `( 8 * 8 ) - 3` have the same value and numbers, and are one answer."""
        try:
            found = parse(answer)
        except NotAnExpression:
            return answer
        return f"{found.value} of {found.numbers}"

    def wrong_answers(self, problem: Problem) -> list[str]:
        return [f"( {problem.answer} ) + 1", str(_reference(problem).value), f"( {problem.answer} ) + 0"]

    def _compare(self, reference: Value, answer: str) -> Verified:
        try:
            found = parse(answer)
        except NotAnExpression as error:
            return Verified(Verdict.WRONG, f"not an expression: {error}")
        if found.numbers != reference.numbers:
            return Verified(Verdict.WRONG, f"uses {' '.join(map(str, found.numbers))}")
        right = found.value == reference.value
        return Verified(Verdict.RIGHT if right else Verdict.WRONG, f"comes to {found.value}", float(right))


def last_expression(text: str) -> str:
    """Return the longest end of a text, at most 200 characters, that parses as an expression; empty where none does."""
    words = text[-_LONGEST_END:].split()
    around_cut = text[-_LONGEST_END - 1 : 1 - _LONGEST_END]
    if len(text) > _LONGEST_END and not any(character.isspace() for character in around_cut):
        words = words[1:]  # what is left of a word that was cut in two
    for start in range(len(words)):
        end = " ".join(words[start:])
        try:
            parse(end)
        except NotAnExpression:
            continue
        return end
    return ""


def _reference(problem: Problem) -> Value:
    try:
        return parse(problem.answer)
    except NotAnExpression as error:
        raise HoneError(f"problem {problem.id}: its reference {problem.answer!r} is no number: {error}") from error


def _number(answer: str) -> Fraction | None:
    """Return the number that an answer is, `x =` before it allowed; None where it is anything else."""
    answer = re.sub(r"^x\s*=", "", answer).strip()
    try:
        return parse(answer).value if _NUMBER.fullmatch(answer) else None
    except NotAnExpression:
        return None
