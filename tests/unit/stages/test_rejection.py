"""Rejection sampling: what is kept and why not, where rows come from, and learning from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from hone.config import Filters, RejectionStage, SftStage, parse_recipe
from hone.models.folders import find_model
from hone.stages import rejection, sft
from hone.stages.context import StageContext
from hone.stages.evaluate import check_scorable
from hone.types import HoneError, Message, Problem, Rollout, RunError, Score, ScoredGroup, Verdict

RIGHT = "<think> try 2 + 3 = 5 right so </think> <answer> 2 + 3 </answer>"
PROBLEM = Problem(
    id="countdown/2-3=5/en", task="countdown", messages=(Message(role="user", content="use 2 3 make 5"),),
    answer="2 + 3", verifier="expression",
)  # fmt: skip


def stages(**settings: object) -> tuple[RejectionStage, SftStage]:
    tables = [
        {"name": "collect", "kind": "rejection", "start_from": "base-tiny", "problems": {"count": 20}, "samples": 4,
         "sampling": {"max_tokens": 60}, **settings},
        {"name": "cold", "kind": "sft", "start_from": "base-tiny", "data": {"stage": "collect"}, "batch_size": 4,
         "epochs": 4, "optimizer": {"learning_rate": 1e-3}},
    ]  # fmt: skip
    first, second = parse_recipe({"name": "test", "stage": tables}, "test").stage
    assert isinstance(first, RejectionStage)
    assert isinstance(second, SftStage)
    return first, second


def context(run: Path, name: str) -> StageContext:
    models = {"base-tiny": find_model("base-tiny")}
    return StageContext(name=name, folder=run / name, seed=0, models=models, console=Console(quiet=True))


def rollout(text: str, finish_reason: str = "stop") -> Rollout:
    return Rollout(
        prompt_ids=np.array([2]), completion_ids=np.array([3]), sampler_logprobs=np.zeros(1, np.float32), text=text,
        finish_reason=finish_reason, policy_version=0,  # type: ignore[arg-type]
    )  # fmt: skip


def scored(verdict: Verdict = Verdict.RIGHT) -> Score:
    return Score(reward=1.0, parts={}, verdict=verdict)


@pytest.mark.parametrize(
    ("text", "filters", "reason"),
    [
        (RIGHT, {}, ""),
        ("try right so <answer> 2 + 3 </answer>", {}, "format"),
        ("try right so <answer> 2 + 3 </answer>", {"format": "any"}, ""),
        ("so it is </think> 2 + 3", {"format": "tolerant"}, ""),
        (RIGHT.replace("try", "试"), {}, "language"),
        (RIGHT.replace("try", "试"), {"min_language": 0.5}, ""),
        (RIGHT.replace("right", "right " + "try 2 + 3 = 6 high " * 4), {}, "repetition"),
        (
            RIGHT.replace("right", "right " + "try again " * 30),
            {"max_repetition": 1.0, "max_paragraph": 60},
            "paragraph",
        ),
        (RIGHT.replace("right", "right\n```\nx\n```\n"), {}, "code"),
        (RIGHT.replace("right", "right\n```\nx\n```\n"), {"code_blocks": True}, ""),
        (RIGHT + " so so so so so so so so so so" * 12, {"max_repetition": 1.0, "format": "any"}, "loop"),
    ],
)
def test_the_first_thing_against_an_output_is_named(text: str, filters: dict[str, object], reason: str) -> None:
    assert rejection.rejected_by(PROBLEM, rollout(text), scored(), Filters.model_validate(filters)) == reason


def test_what_is_not_right_or_was_cut_is_never_kept() -> None:
    wrong, unscorable = scored(Verdict.WRONG), scored(Verdict.UNSCORABLE)
    assert rejection.rejected_by(PROBLEM, rollout(RIGHT), wrong, Filters()) == "wrong"
    assert rejection.rejected_by(PROBLEM, rollout(RIGHT), unscorable, Filters()) == "unscorable"
    assert rejection.rejected_by(PROBLEM, rollout(RIGHT, "length"), scored(), Filters()) == "cut"


def test_at_most_so_many_different_outputs_of_a_problem_are_kept() -> None:
    texts = [RIGHT, RIGHT, RIGHT.replace("try", "try try"), RIGHT.replace("so", "so so")]
    group = ScoredGroup(problem=PROBLEM, rollouts=tuple(map(rollout, texts)), scores=(scored(),) * 4)
    rows = rejection._judge_group(group, stages(keep=2)[0])
    assert [row["rejected_by"] for row in rows] == ["", "duplicate", "", "enough"]


def test_rows_say_where_they_come_from_and_an_interrupted_stage_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejection, "CHUNK", 8)
    stage, _ = stages()
    rejection.run(stage, context(tmp_path / "whole", "collect"))
    table = pq.read_table(tmp_path / "whole" / "collect" / "rows.parquet")
    assert len(table) == 20 * 4
    row = table.to_pylist()[0]
    assert len(row["policy"]) >= 8
    assert row["seed"] == context(tmp_path, "collect").draw_seed("sample", "00000000")
    funnel = json.loads((tmp_path / "whole" / "collect" / "funnel.json").read_text())
    assert funnel["kept"] + sum(funnel["rejected_by"].values()) == funnel["outputs"] == 80
    assert funnel["kept"] == len(rejection.kept_rows(tmp_path / "whole" / "collect" / "rows.parquet")) > 0

    interrupted = context(tmp_path / "interrupted", "collect")
    sample = rejection._sample_chunk
    monkeypatch.setattr(rejection, "_sample_chunk", stop_after(sample, 2))
    with pytest.raises(KeyboardInterrupt):
        rejection.run(stage, interrupted)
    monkeypatch.setattr(rejection, "_sample_chunk", stop_after(sample, 1))  # one chunk is left
    rejection.run(stage, interrupted)
    assert pq.read_table(tmp_path / "interrupted" / "collect" / "rows.parquet").equals(table)


def stop_after(sample: object, count: int) -> object:
    calls: list[int] = []

    def stopping(*arguments: object) -> None:
        if len(calls) == count:
            raise KeyboardInterrupt
        calls.append(1)
        sample(*arguments)  # type: ignore[operator]

    return stopping


def test_a_model_learns_from_what_was_kept(tmp_path: Path) -> None:
    collect, cold = stages(problems={"count": 40})
    rejection.run(collect, context(tmp_path, "collect"))
    sft.run(cold, context(tmp_path, "cold"))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "cold" / "metrics.jsonl").read_text().splitlines()]
    kept = len(rejection.kept_rows(tmp_path / "collect" / "rows.parquet"))
    an_epoch = -(-kept // 4)
    assert len(losses) == 4 * an_epoch
    assert np.mean(losses[-an_epoch:]) < 0.8 * np.mean(losses[:an_epoch])


def test_every_epoch_has_every_row_once_in_another_order(tmp_path: Path) -> None:
    rows = [{"prompt": f"use {n}", "completion": str(n)} for n in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = {"name": "s", "kind": "sft", "start_from": "base-tiny", "data": {"path": str(tmp_path / "rows.jsonl")},
             "batch_size": 4, "optimizer": {"learning_rate": 1e-3}}  # fmt: skip
    stage = parse_recipe({"name": "test", "stage": [table]}, "test").stage[0]
    assert isinstance(stage, SftStage)
    assert stage.files == (str(tmp_path / "rows.jsonl"),)
    examples = sft._Examples(stage, context(tmp_path, "s"))
    epochs = [[row.prompt for step in range(3) for row in examples.of_step(3 * epoch + step)] for epoch in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(row["prompt"] for row in rows)
    assert epochs[0] != epochs[1]


def test_nothing_to_learn_from_and_unscorable_verdicts_stop_a_stage(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"messages": [{"role": "user", "content": "use 1"}]}\n')
    table = {"name": "s", "kind": "sft", "start_from": "base-tiny", "data": {"path": str(tmp_path / "rows.jsonl")},
             "optimizer": {"learning_rate": 1e-3}}  # fmt: skip
    stage = parse_recipe({"name": "test", "stage": [table]}, "test").stage[0]
    assert isinstance(stage, SftStage)
    with pytest.raises(HoneError, match=r"row 1: neither \{prompt, completion\} nor"):
        sft._Examples(stage, context(tmp_path, "s"))
    with pytest.raises(RunError, match="6% of the verdicts are unscorable"):
        check_scorable(["took longer than 2 s"] * 6, 100, stages()[0].max_unscorable_share, "stage collect")
