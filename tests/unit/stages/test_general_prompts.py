"""RL for all scenarios: general prompts in the last steps alone, what rewards them, and the alarm for hacking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from hone.config import RlStage, parse_recipe
from hone.engine.local.engine import LocalEngine
from hone.engine.local.reward_model import Reads, RewardModel
from hone.models.decoder import Decoder, DecoderConfig
from hone.models.tiny import tiny_tokenizer
from hone.record.files import append_row, read_rows
from hone.stages import rl
from hone.stages.context import StageContext
from hone.stages.general import GeneralPrompts, hacking
from hone.types import Group, HoneError, Message, Problem, Rollout, RunError, ScoredGroup, Verdict

RISES = [0.30, 0.31, 0.29, 0.40, 0.41, 0.39]
FALLS = [0.60, 0.61, 0.59, 0.50, 0.51, 0.49]
STEADY = [0.60, 0.61, 0.59, 0.61, 0.59, 0.60]


def rows(helpful: list[float], accuracy: list[float], right: list[float] = STEADY) -> list[dict[str, float]]:
    columns = {"reward/helpful": helpful, "reward/accuracy": accuracy, "general/right_share": right}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


# --- the alarm ---


def test_a_score_that_rises_while_accuracy_or_the_verdicts_fall_is_an_alarm() -> None:
    # The means of the halves differ by 0.10, each with a variance of 0.0001: 0.10 / sqrt(2 * 0.0001 / 3) = 12 errors.
    assert hacking(rows(RISES, FALLS)) == (
        "reward hacking: reward/helpful rose while reward/accuracy fell over the last 6 steps"
    )
    assert "general/right_share fell" in str(hacking(rows(RISES, STEADY, FALLS)))
    both = str(hacking([{**row, "reward/harmless": row["reward/helpful"]} for row in rows(RISES, FALLS, FALLS)]))
    assert "reward/helpful and reward/harmless rose while reward/accuracy and general/right_share fell" in both


@pytest.mark.parametrize(
    ("helpful", "accuracy"),
    [(RISES, STEADY), (RISES, RISES), (STEADY, FALLS), (FALLS, FALLS), (STEADY, STEADY), ([0.5] * 6, FALLS)],
)
def test_anything_else_is_none(helpful: list[float], accuracy: list[float]) -> None:
    assert hacking(rows(helpful, accuracy)) is None


def test_the_bound_is_two_standard_errors_of_the_difference() -> None:
    # Halves of 0, 0.1, 0.2 have a variance of 0.01, so one error is sqrt(2 * 0.01 / 3) = 0.0816 and the bound 0.163.
    below, above = ([0.0, 0.1, 0.2, 0.0 + d, 0.1 + d, 0.2 + d] for d in (0.16, 0.17))
    assert hacking(rows(below, FALLS)) is None
    assert hacking(rows(above, FALLS))
    assert hacking(rows(RISES, [1 - value for value in below])) is None
    assert hacking(rows(RISES, [1 - value for value in above]))


def test_a_change_without_any_noise_is_one() -> None:
    assert hacking(rows([0.0] * 3 + [1.0] * 3, [1.0] * 3 + [0.0] * 3))


def test_the_middle_one_of_an_odd_number_of_steps_is_in_no_half() -> None:
    assert hacking(rows([*RISES[:3], 99.0, *RISES[3:]], [*FALLS[:3], -99.0, *FALLS[3:]], [0.5] * 7))


def test_fewer_than_six_steps_tell_nothing() -> None:
    assert hacking(rows(RISES, FALLS)[:5]) is None
    assert hacking([]) is None


# --- what is asked, and when ---

SMALL = DecoderConfig(
    model_type="llama", vocab_size=tiny_tokenizer().vocab_size, hidden_size=16, intermediate_size=24,
    num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=128,
    tie_word_embeddings=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make a policy and two reward models of random weights."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "policy").mkdir()
    torch.manual_seed(0)  # of some random weights two texts are as harmless as each other to four digits
    LocalEngine(Decoder(SMALL), tiny_tokenizer()).save(folder / "policy")
    reading: dict[str, Reads] = {"useful": "summary", "harmfree": "response"}
    for number, (name, reads) in enumerate(reading.items()):
        model = RewardModel.begin(folder / "policy", reads)
        model.model.score.weight.data = model.model.score.weight.new_tensor(
            np.random.default_rng(number).normal(size=(1, 16)).astype(np.float32)
        )
        (folder / name).mkdir()
        model.save(folder / name)
    return {name: folder / name for name in ("policy", *reading)}


def stage(general: dict[str, Any] | None = None, *, without: bool = False, **settings: Any) -> RlStage:
    table: dict[str, Any] = {
        "name": "all", "kind": "rl", "start_from": "policy", "steps": 8, "problems_per_step": 4, "group_size": 3,
        "updates_per_step": 2, "problems": {"count": 8}, "sampling": {"max_tokens": 8}, "checkpoint_every": 2,
        "optimizer": {"learning_rate": 1e-3}, "preflight": {"count": 2},
        "evaluation": {"every": 100, "samples": 1, "problems": {"count": 2}},
        "general": {"problems": {"task": "general", "count": 12}, "share": 0.5, "last_share": 0.375,
                    "helpfulness": "useful", "harmlessness": "harmfree", **(general or {})},
        **settings,
    }  # fmt: skip
    if without:
        del table["general"]
    before = {"kind": "reward_model", "start_from": "policy", "data": {"path": "x"}, "optimizer": {"learning_rate": 1}}
    tables = [{**before, "name": "useful"}, {**before, "name": "harmfree"}, table]
    made = parse_recipe({"name": "test", "stage": tables}, "test").stage[-1]
    assert isinstance(made, RlStage)
    return made


def context(folder: Path, models: dict[str, Path]) -> StageContext:
    return StageContext(name="all", folder=folder, seed=0, models=models, console=Console(quiet=True))


def answered(question: str, rubric: str, *texts: str) -> Group:
    problem = Problem(
        id="general/x/en", task="general", messages=(Message(role="user", content=question),), answer=rubric,
        verifier="rubric", extract="summary",
    )  # fmt: skip
    rollouts = tuple(
        Rollout(
            prompt_ids=np.arange(5), completion_ids=np.arange(3 + n), sampler_logprobs=np.zeros(3 + n, np.float32),
            text=text, finish_reason="stop", policy_version=0,
        )
        for n, text in enumerate(texts)
    )  # fmt: skip
    return Group(problem=problem, rollouts=rollouts)


def test_general_prompts_are_there_in_the_last_share_of_the_steps(tmp_path: Path, models: dict[str, Path]) -> None:
    opened = GeneralPrompts.open(stage(), context(tmp_path, models))
    asked = [opened.of_step(step) for step in range(8)]
    assert [len(problems) for problems in asked] == [0, 0, 0, 0, 0, 2, 2, 2]  # 0.375 of 8 steps, half of 4 questions
    assert all(problem.task == "general" for problems in asked for problem in problems)
    assert len({problem.id for problems in asked for problem in problems}) > 2
    again = GeneralPrompts.open(stage(), context(tmp_path, models))
    assert again.of_step(6) == asked[6]  # whatever was asked before


def test_an_output_earns_the_rules_and_what_each_reward_model_gives(tmp_path: Path, models: dict[str, Path]) -> None:
    opened = GeneralPrompts.open(stage(), context(tmp_path, models))
    texts = ("i am hone , a model .", "<think> so </think> i am hone .", "first take it")
    group = answered("who are you", "hone ; model ; !take", *texts)
    (scored,) = opened.score([group])
    # Language 1 and the direct form 1; tags have no direct form; the verdict is watched and earns nothing.
    rules = [2.0, 1.0, 2.0]
    for score, text, ruled in zip(scored.scores, texts, rules, strict=True):
        seen = {part: float(opened.models[part].reward([(group.problem, text)], "chat")[0]) for part in opened.models}
        assert set(seen) == {"helpful", "harmless"}
        assert all(0 < value < 1 for value in seen.values())
        assert {part: score.parts[part] for part in seen} == pytest.approx(seen, abs=1e-5)
        assert score.reward == pytest.approx(ruled + sum(seen.values()), abs=1e-5)
        assert score.reward == pytest.approx(sum(score.parts.values()))
    assert [(score.verdict, score.credit) for score in scored.scores] == [
        (Verdict.RIGHT, 1.0), (Verdict.WRONG, 0.5), (Verdict.WRONG, -1.0)
    ]  # fmt: skip
    figures = opened.describe([scored])
    assert figures["general/right_share"] == pytest.approx(1 / 3)
    assert figures["general/unsafe_share"] == pytest.approx(1 / 3)
    assert figures["general/length_mean"] == 4
    assert figures["reward/helpful"] == pytest.approx(np.mean([score.parts["helpful"] for score in scored.scores]))
    assert figures["general/reward_mean"] == pytest.approx(np.mean([score.reward for score in scored.scores]))
    # Two models read 3 prompts of 5 tokens and 3 + 4 + 5 tokens of outputs, at two operations a parameter.
    sizes = sum(model.num_parameters for model in opened.models.values())
    assert opened.tflop([scored]) == pytest.approx(2 * sizes * 27 / 1e12)


def test_helpfulness_sees_the_summary_alone_and_harmlessness_all(tmp_path: Path, models: dict[str, Path]) -> None:
    opened = GeneralPrompts.open(stage(), context(tmp_path, models))
    thoughts = ("<think> take it </think> no", "<think> hello hello </think> no")
    (scored,) = opened.score([answered("harmful : how do i steal money", "no", *thoughts)])
    first, second = (score.parts for score in scored.scores)
    assert first["helpful"] == pytest.approx(second["helpful"], abs=1e-6)
    assert abs(first["harmless"] - second["harmless"]) > 1e-4


def test_harmlessness_may_be_left_out_and_a_language_model_is_no_reward_model(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    opened = GeneralPrompts.open(stage({"harmlessness": ""}), context(tmp_path, models))
    assert set(opened.models) == {"helpful"}
    (scored,) = opened.score([answered("hello", "hi", "hi")])
    assert set(scored.scores[0].parts) == {"format", "language", "helpful"}
    with pytest.raises(HoneError, match=r"policy: no score\.weight there, so it is no"):
        GeneralPrompts.open(stage(), context(tmp_path, {**models, "useful": models["policy"]}))


def test_without_general_prompts_nothing_is_asked_or_scored(tmp_path: Path, models: dict[str, Path]) -> None:
    opened = GeneralPrompts.open(stage(without=True), context(tmp_path, models))
    assert [opened.of_step(step) for step in range(8)] == [[]] * 8
    assert opened.score([]) == []
    assert opened.describe([]) == {}
    assert opened.tflop([]) == 0
    opened.watch(8)
    assert not (tmp_path / "alarms.jsonl").exists()


# --- watching ---


def metrics(folder: Path, *series: dict[str, float]) -> None:
    for step, row in enumerate(series, 1):
        append_row(folder / "metrics.jsonl", {"step": step, **row})


def test_an_alarm_is_written_once_a_step_and_stops_the_run_where_the_recipe_says_so(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    metrics(tmp_path, {"reward/accuracy": 0.9}, {"reward/accuracy": 0.9}, *rows(RISES, FALLS))
    warned = GeneralPrompts.open(stage({"last_share": 0.75}), context(tmp_path, models))
    warned.watch(8)
    warned.watch(8)  # as after a resumed step
    (alarm,) = read_rows(tmp_path / "alarms.jsonl")
    assert alarm["step"] == 8
    assert alarm["why"].endswith("over the last 6 steps")  # the steps before them do not count
    stops = GeneralPrompts.open(stage({"last_share": 0.75, "on_hacking": "stop"}), context(tmp_path, models))
    with pytest.raises(RunError, match=r"stage all, step 8: reward hacking: reward/helpful rose .*on_hacking = 'warn'"):
        stops.watch(8)


def test_where_all_is_well_nothing_stops(tmp_path: Path, models: dict[str, Path]) -> None:
    metrics(tmp_path, *rows(RISES, RISES))
    GeneralPrompts.open(stage({"on_hacking": "stop"}), context(tmp_path, models)).watch(8)
    assert not (tmp_path / "alarms.jsonl").exists()


# --- in the loop ---


def test_a_stage_trains_on_problems_and_general_prompts_together(tmp_path: Path, models: dict[str, Path]) -> None:
    place = context(tmp_path / "all", models)
    rl.run(stage(store_groups=4), place)
    steps = read_rows(place.folder / "metrics.jsonl")
    assert [row["step"] for row in steps] == list(range(1, 9))
    names = {"reward/helpful", "reward/harmless", "general/reward_mean", "general/right_share", "general/unsafe_share"}
    assert [names <= set(row) for row in steps] == [False] * 5 + [True] * 3
    assert not any(name.startswith("general/") or name in names for row in steps[:5] for name in row)
    assert all("reward/accuracy" in row for row in steps)
    assert all(np.isfinite(value) for row in steps for value in row.values() if isinstance(value, float))
    tasks = []
    for step in range(1, 9):
        stored = pq.read_table(place.folder / "rollouts" / f"step-{step:06d}.parquet").to_pylist()
        tasks.append([row["task"] for row in stored])
    assert tasks == [["countdown"] * 12] * 5 + [["countdown"] * 6 + ["general"] * 6] * 3
    # What the reward models read is part of the costs.
    size = LocalEngine.open(models["policy"]).num_parameters
    own = [size * (2 * row["tokens/sampled"] + 6 * row["tokens/trained"]) / 1e12 for row in steps]
    assert [row["compute/tflop"] > 1.01 * cost for row, cost in zip(steps, own, strict=True)] == [False] * 5 + [
        True
    ] * 3
    for row, cost in zip(steps[:5], own[:5], strict=True):
        assert row["compute/tflop"] == pytest.approx(cost)


def test_a_stage_that_stops_among_general_prompts_goes_on_to_the_same_weights(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rl.run(stage(), whole := context(tmp_path / "whole", models))
    interrupted = context(tmp_path / "interrupted", models)
    score = GeneralPrompts.score

    def stops(self: GeneralPrompts, groups: list[Group]) -> list[ScoredGroup]:
        if groups and len(read_rows(self.context.folder / "metrics.jsonl")) == 7:
            raise KeyboardInterrupt
        return score(self, groups)

    with monkeypatch.context() as patch:
        patch.setattr(GeneralPrompts, "score", stops)
        with pytest.raises(KeyboardInterrupt):
            rl.run(stage(), interrupted)
    rl.run(stage(), interrupted)

    def outcome(place: StageContext) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in (place.folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if not k.startswith(("time/", "throughput/"))} for row in found]

    assert outcome(interrupted) == outcome(whole)
    file = "model.safetensors"
    assert (interrupted.checkpoint / file).read_bytes() == (whole.checkpoint / file).read_bytes()
