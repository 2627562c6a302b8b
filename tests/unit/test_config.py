"""A wrong recipe is refused by name, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.config import Dataset, Rewards, RlStage, SftStage, load_recipe, load_study, parse_recipe, shipped_recipes
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


# --- presets ---

PRESETS = """
[presets.quick]
"zero.steps" = 3
"zero.problems.count" = 40
seed = 9

[presets.long]
"zero.steps" = 300

[presets.broken]
"zeri.steps" = 1
"""


def test_a_preset_is_applied_before_the_other_settings(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD + PRESETS)
    plain, quick = load_recipe(file), load_recipe(file, ("preset=quick",))
    assert isinstance(plain.stage[0], RlStage)
    assert isinstance(quick.stage[0], RlStage)
    assert (plain.preset, plain.seed, plain.stage[0].steps) == ("", 0, 2)
    assert (quick.preset, quick.seed, quick.stage[0].steps, quick.stage[0].problems.count) == ("quick", 9, 3, 40)
    # Wherever it stands among the settings.
    for settings in (("preset=quick", "zero.steps=5"), ("zero.steps=5", "preset=quick")):
        stage = load_recipe(file, settings).stage[0]
        assert isinstance(stage, RlStage)
        assert (stage.steps, stage.problems.count) == (5, 40)


@pytest.mark.parametrize(
    ("text", "preset", "complaint"),
    [
        (GOOD + PRESETS, "slow", "has no preset 'slow': it has quick, long, broken"),
        (GOOD, "quick", "has no preset 'quick': it has none"),
        (GOOD + PRESETS, "broken", "preset broken, zeri.steps: no stage 'zeri'; did you mean 'zero'?"),
        (GOOD + '[presets.quick]\n"zero.steps" = 0\n', "quick", "stage 'zero'.steps: Input should be greater"),
    ],
)
def test_a_wrong_preset_is_refused_by_name(text: str, preset: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(HoneError) as refusal:
        load_recipe(write(tmp_path, text), (f"preset={preset}",))
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_preset_of_a_shipped_recipe_fits(name: str) -> None:
    import tomllib
    from importlib import resources

    raw = tomllib.loads((resources.files("hone") / "recipes" / f"{name}.toml").read_text("utf-8"))
    for preset in raw.get("presets", {}):
        recipe = load_recipe(name, (f"preset={preset}",))
        assert recipe.preset == preset
        assert recipe.stage != load_recipe(name).stage


# --- studies ---


def study(tmp_path: Path, text: str = "seeds = [1, 2]") -> str:
    file = tmp_path / "study.toml"
    file.write_text(f'name = "twice"\nrecipe = "{write(tmp_path, GOOD + PRESETS)}"\n{text}\n')
    return str(file)


def test_a_study_is_its_recipe_once_a_seed_with_the_same_settings(tmp_path: Path) -> None:
    found = load_study(study(tmp_path), ("preset=quick", "zero.steps=4"))
    assert found
    assert (found[0].name, found[0].seeds) == ("twice", (1, 2))
    assert [(recipe.name, recipe.seed, recipe.preset) for recipe in found[1]] == [
        ("good", 1, "quick"),
        ("good", 2, "quick"),
    ]
    settled = load_recipe(write(tmp_path, GOOD), ("zero.steps=4", "zero.problems.count=40"))
    assert [recipe.stage for recipe in found[1]] == [settled.stage] * 2
    assert load_study(write(tmp_path, GOOD)) is None  # a recipe is none


def test_a_study_named_where_a_recipe_is_wanted_is_refused(tmp_path: Path) -> None:
    file = study(tmp_path)
    with pytest.raises(HoneError, match=r"study\.toml is a study of several runs of .*recipe\.toml: name that recipe"):
        load_recipe(file)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seeds = [1]", "seeds: Tuple should have at least 2 items"),
        ("seeds = [1, 2]\nsteps = 3", "steps: no such key"),
        ('seeds = [1, 2]\nsumary = "x"', "sumary: no such key; did you mean 'summary'?"),
    ],
)
def test_a_wrong_study_is_refused_by_name(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(HoneError, match=r"study .*study\.toml: ") as refusal:
        load_study(study(tmp_path, text))
    assert complaint in str(refusal.value)


# --- inputs, teachers, claims ---

OPTIMIZER = {"learning_rate": 1e-3}
EARLIER: list[dict[str, Any]] = [
    {"name": "zero", "kind": "rl", "start_from": "base-tiny", "steps": 2, "optimizer": OPTIMIZER},
    {"name": "collect", "kind": "rejection", "start_from": "zero"},
    {"name": "liking", "kind": "reward_model", "start_from": "zero", "data": {"stages": ["collect"]},
     "optimizer": OPTIMIZER},
    {"name": "test", "kind": "evaluate", "models": ["zero", "base-tiny"]},
]  # fmt: skip
SFT = {"kind": "sft", "start_from": "zero", "data": {"stages": ["collect"]}, "optimizer": OPTIMIZER}
RL = {"kind": "rl", "start_from": "zero", "steps": 4, "optimizer": OPTIMIZER}
REWARD_MODEL = {"kind": "reward_model", "start_from": "zero", "data": {"stages": ["collect"]}, "optimizer": OPTIMIZER}
REJECTION = {"kind": "rejection", "start_from": "zero"}
EVALUATE = {"kind": "evaluate", "models": ["zero"]}
RELEASE = {"kind": "release", "models": ["zero"], "evaluations": ["test"]}


def with_last(last: dict[str, Any], **recipe: Any) -> dict[str, Any]:
    return {"name": "inputs", "stage": [*EARLIER, {"name": "last", **last}], **recipe}


@pytest.mark.parametrize(
    "last",
    [
        SFT,
        {**SFT, "objective": "logits", "teacher": "zero"},
        {**SFT, "objective": "on-policy", "teacher": "base-tiny"},
        {**RL, "general": {"helpfulness": "liking", "harmlessness": "some/folder"}},
        {**RL, "judge": {"model": "zero"}},
        {**RL, "judge": {"model": "collect", "endpoint": "http://localhost:8000/v1"}},  # a name that the server knows
        REWARD_MODEL,
        {**REWARD_MODEL, "data": {"path": "pairs.jsonl"}},
        REJECTION,
        EVALUATE,
        RELEASE,
    ],
)
def test_a_stage_takes_inputs_of_the_right_kind(last: dict[str, Any]) -> None:
    assert len(parse_recipe(with_last(last), "test").stage) == 5


@pytest.mark.parametrize(
    ("last", "complaint"),
    [
        ({**SFT, "data": {"stages": ["zero"]}}, "'last' takes rows of 'zero', which is no rejection stage"),
        ({**SFT, "data": {"stages": ["collect", "test"]}}, "'last' takes rows of 'test', which is no rejection stage"),
        ({**SFT, "data": {"stages": ["rows.jsonl"]}}, "'last' takes rows of 'rows.jsonl', which is no rejection stage"),
        ({**SFT, "start_from": "liking"}, "'last' needs a language model, but 'liking' makes none"),
        ({**SFT, "start_from": "test"}, "'last' needs a language model, but 'test' makes none"),
        ({**SFT, "objective": "logits", "teacher": "liking"}, "'last' needs a language model, but 'liking' makes none"),
        ({**SFT, "objective": "logits", "teacher": "test"}, "'last' needs a language model, but 'test' makes none"),
        # Its rows are taken too, and still it makes no model.
        ({**SFT, "start_from": "collect"}, "'last' needs a language model, but 'collect' makes none"),
        ({**REWARD_MODEL, "start_from": "collect"}, "'last' needs a language model, but 'collect' makes none"),
        (
            {**REWARD_MODEL, "data": {"stages": ["liking"]}},
            "'last' takes rows of 'liking', which is no",
        ),
        ({**RL, "general": {"helpfulness": "zero"}}, "'last' is rewarded by 'zero', which is no reward model"),
        ({**RL, "general": {"helpfulness": "liking", "harmlessness": "collect"}}, "'last' is rewarded by 'collect'"),
        (
            {**RL, "start_from": "liking", "general": {"helpfulness": "liking"}},
            "'last' needs a language model, but 'liking' makes none",
        ),
        ({**RL, "judge": {"model": "liking"}}, "'last' needs a language model, but 'liking' makes none"),
        ({**RL, "start_from": "liking"}, "'last' needs a language model, but 'liking' makes none"),
        ({**REJECTION, "judge": {"model": "test"}}, "'last' needs a language model, but 'test' makes none"),
        ({**REJECTION, "start_from": "collect"}, "'last' needs a language model, but 'collect' makes none"),
        ({**EVALUATE, "models": ["zero", "liking"]}, "'last' needs a language model, but 'liking' makes none"),
        ({**RELEASE, "models": ["collect"]}, "'last' needs a language model, but 'collect' makes none"),
        ({**RELEASE, "evaluations": ["zero"]}, "'last' takes figures of 'zero', which is no evaluate stage"),
        ({**RELEASE, "evaluations": ["nowhere"]}, "'last' takes figures of 'nowhere', which is no evaluate stage"),
        ({**RL, "general": {"helpfulness": "last"}}, "'last' needs 'last', which does not come before it"),
    ],
)
def test_an_input_of_the_wrong_kind_is_refused_by_name(last: dict[str, Any], complaint: str) -> None:
    with pytest.raises(HoneError) as refusal:
        parse_recipe(with_last(last), "recipe inputs")
    assert f"recipe inputs: stage {complaint}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"teacher": "zero"}, "objective = 'sft' has no teacher"),
        ({"objective": "logits"}, "objective = 'logits' needs a teacher"),
        ({"objective": "on-policy"}, "objective = 'on-policy' needs a teacher"),
        ({"data": {"stages": ["collect"], "path": "rows.jsonl"}}, "name rejection stages or a path, one of the two"),
        ({"data": {"stages": []}}, "name rejection stages or a path, one of the two"),
        ({"data": {"stage": "collect"}}, "no such key; did you mean 'stages'?"),
    ],
)
def test_wrong_teaching_is_refused_by_name(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(HoneError, match="test: stage 'last'") as refusal:
        parse_recipe(with_last({**SFT, **change}), "test")
    assert complaint in str(refusal.value)


def test_a_stages_inputs_are_all_that_it_reads() -> None:
    teacher = parse_recipe(with_last({**SFT, "objective": "logits", "teacher": "base-tiny"}), "test").stage[-1]
    assert isinstance(teacher, SftStage)
    assert teacher.inputs == ("zero", "collect", "base-tiny")
    rl = parse_recipe(with_last({**RL, "general": {"helpfulness": "liking"}, "judge": {"model": "base-tiny"}}), "test")
    assert rl.stage[-1].inputs == ("zero", "liking", "base-tiny")
    assert parse_recipe(with_last(RELEASE), "test").stage[-1].inputs == ("zero", "test")


CLAIM = {"text": "it rises", "figure": "pass_at_1", "of": "zero", "than": "base", "expect": "higher"}


@pytest.mark.parametrize("change", [{}, {"than": "base-tiny"}, {"of": "gcd/test:zero", "than": "gcd/test:base"}])
def test_a_claim_is_about_models_that_are_measured(change: dict[str, Any]) -> None:
    recipe = parse_recipe(with_last(EVALUATE, claim=[{**CLAIM, **change}]), "test")
    assert (recipe.claim[0].margin, recipe.claim[0].no_more_compute) == (0.0, False)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"of": "collect"}, "claim 'it rises': no evaluate stage measures 'collect'"),
        ({"than": "gcd/test:nobody"}, "claim 'it rises': no evaluate stage measures 'nobody'"),
        ({"expect": "better"}, "claim.0.expect: Input should be 'higher', 'lower', 'not lower' or 'not higher'"),
        ({"margin": -1}, "claim.0.margin: Input should be greater than or equal to 0"),
        ({"figures": "x"}, "claim.0.figures: no such key; did you mean 'figure'?"),
    ],
)
def test_a_wrong_claim_is_refused_by_name(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(HoneError) as refusal:
        parse_recipe(with_last(EVALUATE, claim=[{**CLAIM, **change}]), "test")
    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    ("general", "complaint"),
    [
        ({}, "general.helpfulness: Field required"),
        ({"helpfulness": "liking", "share": 1.0}, "general.share: Input should be less than 1"),
        ({"helpfulness": "liking", "last_share": 0.0}, "general.last_share: Input should be greater than 0"),
        # Of 32 questions all would be general, or none; of 4 steps none would have them.
        ({"helpfulness": "liking", "share": 0.99}, "general.share"),
        ({"helpfulness": "liking", "share": 0.01}, "general.share"),
        ({"helpfulness": "liking", "last_share": 0.1}, "general.last_share"),
        ({"helpfulness": "liking", "on_hacking": "ignore"}, "general.on_hacking: Input should be 'warn' or 'stop'"),
    ],
)
def test_wrong_general_prompts_are_refused_by_name(general: dict[str, Any], complaint: str) -> None:
    with pytest.raises(HoneError) as refusal:
        parse_recipe(with_last({**RL, "general": general}), "test")
    assert complaint in str(refusal.value)
