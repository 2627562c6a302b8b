"""The reward of an output, put together of weighted parts."""

import pytest

from hone.rewards.compose import score
from hone.types import Language, Problem, RewardRule, Verdict


def problem(language: Language = "en") -> Problem:
    return Problem(id="gcd/12-18/en", task="gcd", messages=(), answer="6", language=language)


RULE = RewardRule(accuracy=1.0, format=0.5, language=0.25)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think> check </think> <answer> 6 </answer>", {"accuracy": 1.0, "format": 0.5, "language": 0.25}),
        ("<think> check </think> <answer> 7 </answer>", {"accuracy": 0.0, "format": 0.5, "language": 0.25}),
        ("check <answer> 6 </answer>", {"accuracy": 1.0, "format": 0.0, "language": 0.25}),
        # 1 English word to 1 / 1.6 = 0.625 Chinese ones: 0.25 / 1.625.
        ("<think> check 查 </think> <answer> 6 </answer>", {"accuracy": 1.0, "format": 0.5, "language": 0.153846}),
        ("<think> 查 </think> <answer> 6 </answer>", {"accuracy": 1.0, "format": 0.5, "language": 0.0}),
        # A chain without words earns nothing for language, nor does an empty one for its format.
        ("<think> 6 </think> <answer> 6 </answer>", {"accuracy": 1.0, "format": 0.5, "language": 0.0}),
        ("<think> </think> <answer> 6 </answer>", {"accuracy": 1.0, "format": 0.0, "language": 0.0}),
        # Language is read off the chain of thought, not off the answer.
        ("<think> 6 </think> <answer> six </answer>", {"accuracy": 0.0, "format": 0.5, "language": 0.0}),
        ("", {"accuracy": 0.0, "format": 0.0, "language": 0.0}),
    ],
)
def test_each_part_is_its_value_times_its_weight_and_the_reward_their_sum(text: str, parts: dict[str, float]) -> None:
    scored = score(problem(), text, RULE)
    assert scored.parts == pytest.approx(parts, abs=1e-6)
    assert scored.reward == pytest.approx(sum(parts.values()), abs=1e-6)
    assert (scored.verdict is Verdict.RIGHT) == (parts["accuracy"] > 0)


def test_the_target_language_is_the_problems() -> None:
    text = "<think> 查 </think> <answer> 6 </answer>"
    assert score(problem("zh"), text, RULE).parts["language"] == 0.25
    assert score(problem("en"), text, RULE).parts["language"] == 0.0


def test_a_part_without_weight_is_left_out() -> None:
    text = "<think> check </think> <answer> 6 </answer>"
    assert score(problem(), text, RewardRule(accuracy=2.0, format=0.0)).parts == {"accuracy": 2.0}
    assert score(problem(), text, RewardRule(accuracy=0, format=0)).reward == 0.0


def test_the_verdict_and_its_reason_are_kept_whatever_the_weights() -> None:
    scored = score(problem(), "<answer> 7 </answer>", RewardRule(accuracy=0.0))
    assert (scored.verdict, scored.why) == (Verdict.WRONG, "is 7")
