"""The reward of an output: named parts, each with its weight, and the verdict that masks what could not be judged."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hone.rewards.format import split_completion
from hone.rewards.language import language_consistency
from hone.rewards.verifiers import verify_all
from hone.rewards.workers import Outcome, shared_workers
from hone.types import CustomReward, HoneError, Problem, RewardRule, Score, Verdict, Verified


def score_all(cases: Sequence[tuple[Problem, str]], rule: RewardRule) -> list[Score]:
    """Score completions, in order. A part without weight is left out.

    Language consistency is read off the chain of thought; a chain without words earns nothing for it. Where a custom
    reward cannot judge, the output is unscorable.
    """
    custom = [_custom(reward, cases) for reward in rule.custom]
    judged = verify_all(cases)
    return [
        _compose(problem, text, verified, rule, [values[number] for values in custom])
        for number, ((problem, text), verified) in enumerate(zip(cases, judged, strict=True))
    ]


def score(problem: Problem, text: str, rule: RewardRule) -> Score:
    """Score one completion."""
    return score_all([(problem, text)], rule)[0]


def _compose(problem: Problem, text: str, verified: Verified, rule: RewardRule, custom: Sequence[Verified]) -> Score:
    completion = split_completion(text)
    language = language_consistency(completion.think, rule.target_language or problem.language)
    right = verified.verdict is Verdict.RIGHT
    values = {
        "accuracy": (rule.accuracy, verified.credit if rule.partial_credit else float(right)),
        "format": (rule.format, float(completion.has_form(rule.format_variant))),
        "language": (rule.language, language or 0.0),
        **{reward.name: (reward.weight, found.credit) for reward, found in zip(rule.custom, custom, strict=True)},
    }
    parts = {name: weight * value for name, (weight, value) in values.items() if weight}
    verdict, why, _ = next((found for found in custom if found.verdict is Verdict.UNSCORABLE), verified)
    return Score(reward=sum(parts.values()), parts=parts, verdict=verdict, why=why, credit=verified.credit)


def _custom(reward: CustomReward, cases: Sequence[tuple[Problem, str]]) -> list[Verified]:
    """Call a user's function on each output in the worker processes; its value is the credit."""
    calls = [
        (problem.question, text if reward.reads == "response" else split_completion(text).summary, problem.answer)
        for problem, text in cases
    ]
    return [_read_custom(reward, outcome) for outcome in shared_workers().map(reward.function, calls)]


def _read_custom(reward: CustomReward, outcome: Outcome) -> Verified:
    value = outcome.value
    if outcome.kind == "missing":
        raise HoneError(f"reward {reward.function}: {outcome.why}")
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return Verified(Verdict.RIGHT, reward.name, float(value))
    if outcome.kind == "value":
        why = "cannot judge" if value is None else f"returned {value!r:.50}, neither a number nor None"
    else:
        why = f"{outcome.kind}: {outcome.why}"
    return Verified(Verdict.UNSCORABLE, f"{reward.name}: {why}")
