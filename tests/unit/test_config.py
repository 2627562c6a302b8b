"""A wrong recipe is refused by name, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.config import Dataset, Rewards, RlStage, load_recipe
from hone.types import CustomReward, HoneError, RewardRule

GOOD = """
name = "good"
[[stage]]
name = "zero"
kind = "rl"
start_from = "base-tiny"
steps = 2
optimizer = { learning_rate = 1e-3 }
"""


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    return str(file)


def test_a_recipe_is_read_with_the_defaults_of_its_model(tmp_path: Path) -> None:
    stage = load_recipe(write(tmp_path, GOOD)).stage[0]
    assert isinstance(stage, RlStage)
    assert (stage.steps, stage.group_size, stage.clip_low, stage.aggregation) == (2, 16, 0.2, "output")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("steps = 2", "stepz = 2"), "stage 'zero'.stepz: no such key; did you mean 'steps'?"),
        (("steps = 2", "steps = 0"), "stage 'zero'.steps: Input should be greater than or equal to 1"),
        (("steps = 2", "steps = 2\nproblems_per_step = 3\nupdates_per_step = 5"), "do not divide into"),
        (("steps = 2", 'steps = 2\nproblems = { split = "test" }'), "Input should be 'train'"),
        (
            ("steps = 2", 'steps = 2\nevaluation = { problems = { split = "train" } }'),
            "Input should be 'validation' or 'test'",
        ),
        (("steps = 2", "steps = 2\nproblems = { count = 8 }"), "fewer than problems_per_step = 32"),
        (("steps = 2", "steps = 2\nsampling = { temperature = 0 }"), "would all be the same"),
        (('start_from = "base-tiny"', 'start_from = "zero"'), "needs 'zero', which does not come before it"),
        (('kind = "rl"', 'kind = "rlhf"'), "stage 'zero'"),
        (("[[stage]]", "[[stage"), "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(change: tuple[str, str], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(HoneError, match="recipe ") as refusal:
        load_recipe(write(tmp_path, GOOD.replace(*change)))
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


DATASET = 'problems = { path = "rows.csv", question = "q", answer = "a", split = "train" }'


def test_a_dataset_keeps_its_validation_split_for_the_held_out_evaluations(tmp_path: Path) -> None:
    stage = load_recipe(write(tmp_path, GOOD.replace("steps = 2", f"steps = 2\n{DATASET}"))).stage[0]
    assert isinstance(stage, RlStage)
    assert isinstance(stage.problems, Dataset)
    assert isinstance(stage.evaluation.problems, Dataset)
    assert (stage.problems.split, stage.evaluation.problems.split) == ("train", "validation")
    assert stage.evaluation.problems.path == "rows.csv"
    assert stage.files == ("rows.csv", "rows.csv")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (DATASET.replace("train", "all"), "no held-out problems: give evaluation.problems, or problems.split"),
        (DATASET.replace("question", "questoin"), "no such key; did you mean 'question'?"),
        (DATASET.replace('answer = "a"', 'task = "gcd"'), "problems.task: no such key"),
        (DATASET.replace('answer = "a"', 'verifier = "maths"'), "problems.verifier: Input should be"),
        (DATASET + "\nevaluation = 5", "evaluation: Input should be a valid dictionary"),
        (
            'rewards = { custom = [{ function = "mine.brevity" }] }',
            "rewards.custom.0.function: 'mine.brevity' is not of the form package.module:name",
        ),
        ('rewards = { custom = [{ function = "mine:format" }] }', "two rewards are named 'format'"),
    ],
)
def test_a_wrong_dataset_or_reward_is_refused_in_one_line(line: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(HoneError) as refusal:
        load_recipe(write(tmp_path, GOOD.replace("steps = 2", f"steps = 2\n{line}")))
    assert complaint in str(refusal.value)
    assert "did you mean 'task'" not in str(refusal.value)
    assert " more)" not in str(refusal.value)  # it is one fault, though the held-out problems repeat it


def test_rewards_become_the_rule_that_scores() -> None:
    rewards = Rewards.model_validate({"language": 0.5, "custom": [{"function": "mine:brevity", "reads": "summary"}]})
    custom = CustomReward(function="mine:brevity", weight=1.0, reads="summary")
    assert rewards.rule() == RewardRule(accuracy=1.0, format=1.0, language=0.5, custom=(custom,))


def test_a_stage_cannot_start_from_a_later_one_or_from_an_evaluation(tmp_path: Path) -> None:
    evaluation = '[[stage]]\nname = "test"\nkind = "evaluate"\nmodels = ["zero"]\n'
    assert len(load_recipe(write(tmp_path, GOOD + evaluation)).stage) == 2
    backwards = GOOD.replace('start_from = "base-tiny"', 'start_from = "test"') + evaluation
    with pytest.raises(HoneError, match="does not come before it"):
        load_recipe(write(tmp_path, backwards))
    after = GOOD + evaluation + GOOD[GOOD.index("[[stage]]") :].replace('"zero"', '"two"').replace("base-tiny", "test")
    with pytest.raises(HoneError, match="'test' makes none"):
        load_recipe(write(tmp_path, after))


def test_settings_change_the_recipe_and_stages(tmp_path: Path) -> None:
    settings = ("seed=7", "zero.steps=9", "zero.optimizer.learning_rate=0.5", "zero.aggregation=token")
    recipe = load_recipe(write(tmp_path, GOOD), settings)
    stage = recipe.stage[0]
    assert isinstance(stage, RlStage)
    assert (recipe.seed, stage.steps, stage.optimizer.learning_rate, stage.aggregation) == (7, 9, 0.5, "token")


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("seed", "write it as key=value"),
        ("zeri.steps=3", "no stage 'zeri'; did you mean 'zero'?"),
        ("sead=3", "did you mean 'seed'?"),
        ("zero.group_size=1", "greater than or equal to 2"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(HoneError) as refusal:
        load_recipe(write(tmp_path, GOOD), (setting,))
    assert complaint in str(refusal.value)


def test_an_unknown_recipe_is_answered_with_the_shipped_ones() -> None:
    with pytest.raises(HoneError, match="r1-zero-tiny"):
        load_recipe("r1-zero-tinny")
