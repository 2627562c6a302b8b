"""What makes two completions the same vote."""

from __future__ import annotations

from hone.rewards.extract import extract
from hone.rewards.verifiers import VERIFIERS
from hone.types import Problem


def answer_key(problem: Problem, text: str) -> str | None:
    """Return the key of a completion's answer; None where it has none, or where answers cannot be compared."""
    answer = extract(text, problem.extract)
    return None if answer is None else VERIFIERS[problem.verifier].key(answer)
