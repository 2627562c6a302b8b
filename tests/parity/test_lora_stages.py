"""Stages that train adapters: the base stays as it is, the loss falls, and a killed run ends as an undisturbed one."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from hone.config import Recipe, parse_recipe
from hone.models.folders import find_model
from hone.models.loading import load_model
from hone.models.lora import PROJECTIONS
from hone.pipeline.run import run_recipe
from hone.types import HoneError

SFT = {
    "name": "warm", "kind": "sft", "start_from": "base-tiny", "data": {"count": 32, "variant": "curated"}, "epochs": 3,
    "batch_size": 16, "optimizer": {"learning_rate": 5e-3}, "lora": {"rank": 4, "alpha": 8}, "checkpoint_every": 2,
}  # fmt: skip
RL = {
    "name": "zero", "kind": "rl", "start_from": "warm", "problems": {"count": 16}, "sampling": {"max_tokens": 16},
    "steps": 3, "problems_per_step": 4, "group_size": 4, "updates_per_step": 2, "kl_coef": 0.01, "reference_every": 2,
    "optimizer": {"learning_rate": 1e-3}, "lora": {"rank": 2, "alpha": 4}, "checkpoint_every": 2,
    "evaluation": {"every": 3, "samples": 1, "problems": {"split": "validation", "count": 2}},
}  # fmt: skip


def recipe(**settings: Any) -> Recipe:
    return parse_recipe({"name": "lora", "threads": 1, "stage": [{**SFT, **settings}, RL]}, "lora")


def run(folder: Path) -> dict[str, object]:
    run_recipe(recipe(), folder, Console(quiet=True))
    rows = {name: (folder / name / "metrics.jsonl").read_text().splitlines() for name in ("warm", "zero")}
    return {
        "weights": {name: (folder / name / "checkpoint" / "model.safetensors").read_bytes() for name in rows},
        "metrics": [
            {key: value for key, value in json.loads(row).items() if not key.startswith(("time/", "throughput/"))}
            for lines in rows.values()
            for row in lines
        ],
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(folder)


def test_the_loss_falls_and_only_the_projections_change(undisturbed: tuple[Path, dict[str, object]]) -> None:
    folder, _ = undisturbed
    rows = [json.loads(line) for line in (folder / "warm" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows]
    assert sum(losses[-2:]) < sum(losses[:2])
    assert all(row["policy/grad_norm"] > 0 for row in rows)
    before = load_model(find_model("base-tiny")).state_dict()
    for stage in ("warm", "zero"):
        after = load_model(folder / stage / "checkpoint").state_dict()
        assert after.keys() == before.keys()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {name for name in before if name.split(".")[-2] in PROJECTIONS and name.endswith("weight")}
        before = after


def test_a_frozen_parameter_costs_four_operations_a_token(undisturbed: tuple[Path, dict[str, object]]) -> None:
    model = load_model(find_model("base-tiny"))
    frozen = sum(parameter.numel() for parameter in model.parameters())
    projections = [getattr(layer, name) for layer in model.layers for name in PROJECTIONS]
    adapters = sum(4 * (matrix.in_features + matrix.out_features) for matrix in projections)
    for line in (undisturbed[0] / "warm" / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        operations = row["tokens/trained"] * (4 * frozen + 6 * adapters)
        assert row["compute/tflop"] == pytest.approx(operations / 1e12, rel=1e-9)


def test_a_step_of_rl_has_the_sampler_agree_with_the_trainer(undisturbed: tuple[Path, dict[str, object]]) -> None:
    rows = [json.loads(line) for line in (undisturbed[0] / "zero" / "metrics.jsonl").read_text().splitlines()]
    assert max(row["sampler/mismatch_kl"] for row in rows) < 1e-8
    assert len({row["weights"] for row in rows}) == len(rows)


@pytest.mark.parametrize(("call", "count"), [
    ("hone.engine.local.engine:LocalEngine.optim_step", 5),  # the first stage, after its checkpoint of step 4
    ("hone.engine.local.engine:LocalEngine.optim_step", 6 + 5),  # the second, after its checkpoint of step 2
    ("hone.stages.context:StageContext.save_model", 2),
])  # fmt: skip
def test_a_killed_run_ends_as_an_undisturbed_one(
    call: str, count: int, undisturbed: tuple[Path, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, path = call.partition(":")
    kind, name = path.split(".")
    owner = getattr(importlib.import_module(module), kind)
    real, calls = getattr(owner, name), iter(range(1, 100))

    def deadly(*arguments: Any) -> Any:
        if next(calls) == count:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(owner, name, deadly)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert run(tmp_path) == undisturbed[1]


def test_a_new_model_has_nothing_to_adapt() -> None:
    with pytest.raises(HoneError, match="stage 'warm': lora: a model made from nothing"):
        recipe(start_from={"hidden_size": 32})
