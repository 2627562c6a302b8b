"""Whether a final answer is right: one verifier a task, with three outcomes.

A reference answer that is outside its task's grammar is an error of the data set and raises; it never scores.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from hone.rewards.format import split_completion, without_tags
from hone.rewards.grammar import NotAnExpression, Value, parse
from hone.types import HoneError, Problem, Verdict

Verified = tuple[Verdict, str]


def verify(problem: Problem, text: str, *, lenient: bool = False) -> Verified:
    """Judge a completion of a problem: the verdict, and why in a few words.

    The answer is what stands in the one pair of answer tags. `lenient` ignores all tags and takes the longest end of
    the completion that is an answer at all.
    """
    verifier, reference = _VERIFIERS[problem.task], _reference(problem)
    if lenient:
        return verifier(reference, last_expression(without_tags(text)))
    answer = split_completion(text).answer
    if answer is None:
        return Verdict.WRONG, "no single answer between the tags"
    return verifier(reference, answer)


def answer_key(problem: Problem, text: str) -> str | None:
    """Return what makes two final answers the same answer, for majority votes; None where there is none.

    For Countdown that is the value and the numbers used: `8 * 8 - 3` and `( 8 * 8 ) - 3` are one answer. For a task
    whose answer is a number it is that number: `x = 5` and `5` are one answer, and `2 + 3`, which is wrong, another.
    """
    answer = split_completion(text).answer
    if answer is None:
        return None
    if problem.task != "countdown":
        number = _number(answer)
        return answer if number is None else str(number)
    try:
        found = parse(answer)
    except NotAnExpression:
        return answer
    return f"{found.value} of {found.numbers}"


def _reference(problem: Problem) -> Value:
    try:
        return parse(problem.answer)
    except NotAnExpression as error:
        raise HoneError(f"problem {problem.id}: its reference {problem.answer!r} is no number: {error}") from error


def _same_numbers_and_value(reference: Value, answer: str) -> Verified:
    """Countdown: the answer uses exactly the numbers of the reference, once each, and comes to the same value."""
    try:
        found = parse(answer)
    except NotAnExpression as error:
        return Verdict.WRONG, f"not an expression: {error}"
    if found.numbers != reference.numbers:
        return Verdict.WRONG, f"uses {' '.join(map(str, found.numbers))}"
    if found.value != reference.value:
        return Verdict.WRONG, f"comes to {found.value}"
    return Verdict.RIGHT, f"comes to {found.value}"


_NUMBER = re.compile(r"[-−]?\s*[0-9]+(?:\s*/\s*[0-9]+)?")


def _same_value(reference: Value, answer: str) -> Verified:
    """A single number: equal as a fraction. An expression still to be worked out is not an answer."""
    number = _number(answer)
    if number is None:
        return Verdict.WRONG, "not a number"
    return (Verdict.RIGHT if number == reference.value else Verdict.WRONG), f"is {number}"


def _number(answer: str) -> Fraction | None:
    """Return the number that an answer is, `x =` before it allowed; None where it is anything else."""
    answer = re.sub(r"^x\s*=", "", answer).strip()
    try:
        return parse(answer).value if _NUMBER.fullmatch(answer) else None
    except NotAnExpression:
        return None


_VERIFIERS: dict[str, Callable[[Value, str], Verified]] = {
    "countdown": _same_numbers_and_value,
    "chain": _same_value,
    "gcd": _same_value,
    "linear": _same_value,
}

_LONGEST_END = 200


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
