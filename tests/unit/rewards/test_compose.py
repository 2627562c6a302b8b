"""The reward of an output, put together of weighted parts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.rewards.compose import score, score_all
from hone.rewards.workers import Workers
from hone.types import CustomReward, HoneError, Language, Message, Problem, RewardRule, StdinTest, Verdict


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


@pytest.mark.usefixtures("isolation")
def test_a_program_earns_the_share_of_its_tests_where_the_recipe_says_so() -> None:
    tests = (StdinTest(stdin="21\n", stdout="42\n"), StdinTest(stdin="1\n", stdout="2\n"))
    asked = Problem(id="p/1", task="p", messages=(), verifier="code", extract="code", tests=tests)
    text = "<think> so </think>\n```python\nprint(42)\n```"
    assert score(asked, text, RewardRule(format=0)).parts == {"accuracy": 0.0}
    assert score(asked, text, RewardRule(format=0, partial_credit=True)).parts == {"accuracy": 0.5}


def test_the_tolerant_format_takes_a_summary_without_tags() -> None:
    text = "so it is </think> The answer is 6."
    assert score(problem(), text, RewardRule(accuracy=0)).parts == {"format": 0.0}
    assert score(problem(), text, RewardRule(accuracy=0, format_variant="tolerant")).parts == {"format": 1.0}


def test_the_recipe_may_name_the_target_language() -> None:
    text = "<think> 查 </think> <answer> 6 </answer>"
    rule = RewardRule(accuracy=0, format=0, language=1.0, target_language="zh")
    assert score(problem("en"), text, rule).reward == 1.0


MINE = """
import time
seen = []
def length(question, response, answer):
    return len(response)
def given(question, response, answer):
    return float((question, answer) == ("what is gcd 12 18", "6"))
def cannot(question, response, answer):
    return None
def slow(question, response, answer):
    time.sleep(60)
def broken(question, response, answer):
    return 1 / 0
def nan(question, response, answer):
    return float("nan")
def huge(question, response, answer):
    return -(10**400)
def word(question, response, answer):
    return "right"
def imports(question, response, answer):
    import no_such_module
def of_numpy(question, response, answer):
    import numpy
    return numpy.float32(0.25)
def ends(question, response, answer):
    import os
    os._exit(0)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of rewards under a name of its own, since worker processes outlive a test."""
    name = f"mine_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MINE)
    (tmp_path / f"{name}_broken.py").write_text("def f(:")
    monkeypatch.syspath_prepend(tmp_path)
    pools: dict[tuple[str, ...], Workers] = {}
    monkeypatch.setattr("hone.rewards.workers._shared", pools)
    yield name
    for pool in pools.values():
        pool.close()


ASKED = Problem(
    id="gcd/12-18/en", task="gcd", answer="6", messages=(Message(role="user", content="what is gcd 12 18"),)
)
TEXT = "<think> a long thought </think> <answer> 6 </answer>"


def rule_of(*rewards: CustomReward) -> RewardRule:
    return RewardRule(accuracy=1.0, format=0.0, custom=rewards)


def test_a_reward_of_the_users_own_reads_the_response_or_the_summary(mine: str) -> None:
    whole = CustomReward(function=f"{mine}:length", weight=0.5)
    assert score(ASKED, TEXT, rule_of(whole)).parts == {"accuracy": 1.0, "length": 0.5 * len(TEXT)}
    summary = CustomReward(function=f"{mine}:length", reads="summary")
    assert score(ASKED, TEXT, rule_of(summary)).parts == {"accuracy": 1.0, "length": 1.0}
    assert score(ASKED, TEXT, rule_of(CustomReward(function=f"{mine}:given"))).reward == 2.0
    assert score(ASKED, TEXT, rule_of(CustomReward(function=f"{mine}:of_numpy"))).reward == 1.25


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("cannot", "cannot: cannot judge"),
        ("slow", "slow: timeout: took longer than 2 s"),
        ("broken", "broken: raised: ZeroDivisionError"),
        ("imports", "imports: raised: ModuleNotFoundError"),
        ("nan", "nan: returned nan, neither a number nor None"),
        ("huge", "huge: returned -1000"),
        ("word", "word: returned 'right', neither"),
        ("ends", "ends: crashed: the process ended"),
    ],
)
def test_what_a_reward_of_the_users_own_cannot_judge_is_unscorable(name: str, why: str, mine: str) -> None:
    custom = CustomReward(function=f"{mine}:{name}")
    scored = score(ASKED, TEXT, rule_of(custom, CustomReward(function=f"{mine}:length")))
    assert scored.verdict is Verdict.UNSCORABLE
    assert scored.why.startswith(why)


@pytest.mark.parametrize("function", ["no_such_module:f", "MINE:no_such_name", "MINE_broken:f"])
def test_a_reward_that_is_not_there_is_an_error_of_the_recipe(function: str, mine: str) -> None:
    function = function.replace("MINE", mine)
    with pytest.raises(HoneError, match=f"reward {function}: (ModuleNotFound|Attribute|Syntax)Error"):
        score_all([(ASKED, TEXT)], rule_of(CustomReward(function=function)))
