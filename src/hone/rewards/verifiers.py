"""Whether a final answer is right: one verifier a kind of answer, with three outcomes.

A problem names its verifier, and where in a completion its answer stands. A reference answer that its verifier cannot
read is an error of the data set: the preflight finds it (`check_reference` raises), and no answer to it can be scored.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Protocol

from hone.rewards.arithmetic import Expression, Number
from hone.rewards.code import Code
from hone.rewards.extract import extract
from hone.rewards.instructions import Instructions
from hone.rewards.judge import Judge
from hone.rewards.maths import canonical, check_reference, equivalent_all
from hone.rewards.rubric import Rubric
from hone.types import HoneError, Problem, Verdict, Verified


class Verifier(Protocol):
    """Judges answers of one kind."""

    def check_reference(self, problem: Problem) -> None:
        """Raise `HoneError` where the reference answer, or a test, cannot be read."""

    def judge_all(self, cases: Sequence[tuple[Problem, str]]) -> list[Verified]:
        """Judge extracted answers, in order; one that is empty was not given."""
        ...

    def loosely(self, text: str) -> str | None:
        """Return the answer of a completion whose form is ignored."""
        ...

    def key(self, answer: str) -> str | None:
        """Return what makes two answers the same one; None where answers of this kind cannot be compared."""
        ...

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Return answers that are wrong for certain, close to the right one, for the preflight."""
        ...


class Maths:
    """A formula, number, set, interval, tuple, matrix or equation, equal as mathematics."""

    def check_reference(self, problem: Problem) -> None:
        try:
            check_reference(problem.answer)
        except HoneError as error:
            raise HoneError(f"problem {problem.id}: {error}") from error

    def judge_all(self, cases: Sequence[tuple[Problem, str]]) -> list[Verified]:
        return equivalent_all([(problem.answer, answer) for problem, answer in cases])

    def loosely(self, text: str) -> str | None:
        return extract(text, "auto")

    def key(self, answer: str) -> str:
        return canonical(answer)

    def wrong_answers(self, problem: Problem) -> list[str]:
        return [f"({problem.answer}) + 1", f"{problem.answer}, 12345", "12345.678"]


class Choice:
    """The letter of a multiple choice."""

    def check_reference(self, problem: Problem) -> None:
        if problem.answer not in string.ascii_uppercase or len(problem.answer) != 1:
            raise HoneError(f"problem {problem.id}: its reference {problem.answer!r} is no letter A to Z")

    def judge_all(self, cases: Sequence[tuple[Problem, str]]) -> list[Verified]:
        return [self._judge(problem, answer) for problem, answer in cases]

    def loosely(self, text: str) -> str | None:
        return extract(text, "choice")

    def key(self, answer: str) -> str:
        return _letter(answer)

    def wrong_answers(self, problem: Problem) -> list[str]:
        return [letter for letter in "ABCD" if letter != problem.answer] + ["A, B, C, D"]

    def _judge(self, problem: Problem, answer: str) -> Verified:
        try:
            self.check_reference(problem)
        except HoneError as error:
            return Verified(Verdict.UNSCORABLE, f"gold: {error}")
        letter = _letter(answer)
        right = letter == problem.answer
        return Verified(Verdict.RIGHT if right else Verdict.WRONG, f"chose {letter[:20] or 'nothing'}", float(right))


def _letter(answer: str) -> str:
    return answer.strip(" ().（）").upper()


VERIFIERS: dict[str, Verifier] = {
    "number": Number(),
    "expression": Expression(),
    "math": Maths(),
    "choice": Choice(),
    "code": Code(),
    "rubric": Rubric(),
    "judge": Judge(),  # `stages.judge` opens the one that a stage names
    "instructions": Instructions(),
}


def verify_all(cases: Sequence[tuple[Problem, str]], *, lenient: bool = False) -> list[Verified]:
    """Judge completions, in order; those of one kind together, so that worker processes share the work.

    `lenient` ignores where the answer should stand and takes what looks like one.
    """
    answers = [
        VERIFIERS[problem.verifier].loosely(text) if lenient else extract(text, problem.extract)
        for problem, text in cases
    ]
    found: dict[int, Verified] = {}
    for kind in dict.fromkeys(problem.verifier for problem, _ in cases):
        numbers = [number for number, (problem, _) in enumerate(cases) if problem.verifier == kind]
        judged = VERIFIERS[kind].judge_all([(cases[number][0], answers[number] or "") for number in numbers])
        found |= zip(numbers, judged, strict=True)
    for number, (problem, _) in enumerate(cases):
        if answers[number] is None and found[number].verdict is Verdict.WRONG:
            found[number] = Verified(Verdict.WRONG, f"no answer: {MISSING[problem.extract]}")
    return [found[number] for number in range(len(cases))]


def verify(problem: Problem, text: str, *, lenient: bool = False) -> Verified:
    """Judge one completion."""
    return verify_all([(problem, text)], lenient=lenient)[0]


# What is said where a completion holds no answer of the form that its problem asks for.
MISSING = {
    "tags": "no single pair of answer tags",
    "boxed": r"no \boxed{} after the thinking",
    "phrase": "nothing like 'the answer is'",
    "choice": "no letter is chosen",
    "code": "no fenced block",
    "auto": "no number or formula",
    "summary": "nothing after the thinking",
}
_FORMS = {
    "tags": "<answer> {} </answer>",
    "boxed": r"So it is \boxed{{{}}}.",
    "phrase": "The answer is {}",
    "choice": "The answer is ({}).",
    "code": "```python\n{}\n```",
    "auto": r"\boxed{{{}}}",
    "summary": "{}",
}


def completion_with(problem: Problem, answer: str) -> str:
    """Return a completion that gives `answer` where the problem's extraction looks for it, after some thinking."""
    return "<think> so </think> " + _FORMS[problem.extract].format(answer)
