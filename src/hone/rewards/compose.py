"""The reward of an output: named parts, each with its weight, and the verdict that masks what could not be judged."""

from __future__ import annotations

from collections.abc import Mapping

from hone.rewards.format import split_completion
from hone.rewards.language import language_consistency
from hone.rewards.verifiers import verify
from hone.types import Problem, Score, Verdict


def score(problem: Problem, text: str, weights: Mapping[str, float]) -> Score:
    """Score a completion. `weights` holds those of `accuracy`, `format` and `language`.

    A part without weight is left out. Language consistency is read off the chain of thought; a chain without words
    earns nothing for it.
    """
    verdict, why = verify(problem, text)
    completion = split_completion(text)
    values = {
        "accuracy": float(verdict is Verdict.RIGHT),
        "format": float(completion.well_formed),
        "language": language_consistency(completion.think, problem.language) or 0.0,
    }
    parts = {name: weight * values[name] for name, weight in weights.items() if weight}
    return Score(reward=sum(parts.values()), parts=parts, verdict=verdict, why=why)
