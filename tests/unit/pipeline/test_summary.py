"""What a run's summary calls its models, and what it adds up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from hone.config import Recipe, parse_recipe
from hone.engine.local.engine import LocalEngine
from hone.models.folders import find_model
from hone.pipeline.run import run_recipe
from hone.pipeline.summary import base_of, by_name

OPTIMIZER = {"learning_rate": 1e-3}


def recipe(**settings: Any) -> Recipe:
    stages = [
        {"name": "collect", "kind": "rejection", "start_from": "base-tiny", "samples": 2, "problems": {"count": 4},
         "sampling": {"max_tokens": 6}},
        {"name": "one", "title": "Dev1", "kind": "sft", "start_from": "base-tiny", "data": {"count": 8},
         "batch_size": 4, "optimizer": OPTIMIZER},
        {"name": "test", "kind": "evaluate", "models": ["base-tiny", "one"], "samples": 1,
         "sampling": {"max_tokens": 4}, "problems": {"count": 2}},
        {"name": "other", "kind": "evaluate", "models": ["one"], "samples": 1,
         "sampling": {"max_tokens": 4}, "problems": {"task": "gcd", "count": 2}},
    ]  # fmt: skip
    return parse_recipe({"name": "small", "seed": 4, "threads": 1, "stage": stages, **settings}, "test")


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    claims = [
        {"text": "on the other benchmark", "figure": "pass_at_1", "of": "gcd/test:one", "than": "one",
         "expect": "not lower", "margin": 2.0},
        {"text": "of a figure that nobody measures", "figure": "charm", "of": "one", "than": "base",
         "expect": "higher"},
    ]  # fmt: skip
    run = tmp_path_factory.mktemp("run")
    file = run_recipe(recipe(claim=claims), run, Console(quiet=True))
    found: dict[str, Any] = json.loads(file.read_text())
    found["rows"] = [json.loads(line) for line in (run / "one" / "metrics.jsonl").read_text().splitlines()]
    found["funnel"] = json.loads((run / "collect" / "funnel.json").read_text())
    return found


def test_the_model_that_it_starts_from_is_the_base(summary: dict[str, Any]) -> None:
    assert (summary["recipe"], summary["seed"], summary["preset"]) == ("small", 4, "")
    found = [(model["benchmark"], model["stage"], model["title"]) for model in summary["models"]]
    assert found == [("countdown-3/test", "base", ""), ("countdown-3/test", "one", "Dev1"), ("gcd/test", "one", "Dev1")]
    assert base_of(recipe()) == "base-tiny"


def test_a_recipe_from_nothing_has_no_base() -> None:
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    stages = [{"name": "one", "kind": "sft", "start_from": shape, "data": {"count": 8}, "optimizer": OPTIMIZER},
              {"name": "test", "kind": "evaluate", "models": ["one", "base-tiny"]}]  # fmt: skip
    assert base_of(parse_recipe({"name": "small", "stage": stages}, "test")) is None


def test_models_of_another_benchmark_go_by_its_name() -> None:
    models = [
        {"stage": "base", "benchmark": "a"}, {"stage": "one", "benchmark": "a"}, {"stage": "one", "benchmark": "b/test"}
    ]  # fmt: skip
    assert by_name(models) == {"base": models[0], "one": models[1], "b/test:one": models[2]}
    assert by_name([]) == {}


def test_claims_see_every_benchmark_and_what_is_not_measured_is_not_clear(summary: dict[str, Any]) -> None:
    assert [claim["verdict"] for claim in summary["claims"]] == ["holds", "not clear"]


def test_costs_are_the_sums_of_the_steps(summary: dict[str, Any]) -> None:
    stages = {stage["stage"]: stage for stage in summary["stages"]}
    assert list(stages) == ["collect", "one", "test", "other"]
    size = LocalEngine.open(find_model("base-tiny")).num_parameters
    trained = sum(row["tokens/trained"] for row in summary["rows"])
    assert len(summary["rows"]) == 2
    assert trained > 100
    assert (stages["one"]["kind"], stages["one"]["tokens_trained"], stages["one"]["tokens_sampled"]) == (
        "sft",
        trained,
        0,
    )
    assert stages["one"]["tflop"] == pytest.approx(6 * size * trained / 1e12)
    sampled = summary["funnel"]["tokens/sampled"]
    assert 8 <= sampled <= 8 * 6
    assert (stages["collect"]["tokens_sampled"], stages["collect"]["tokens_trained"]) == (sampled, 0)
    assert stages["collect"]["tflop"] == pytest.approx(2 * size * sampled / 1e12)
    assert summary["seconds"] == pytest.approx(sum(stage["seconds"] for stage in stages.values()))
    # A model's compute is that of the stage which made it; nobody counted the base's.
    assert [model["tflop"] for model in summary["models"]] == [None, stages["one"]["tflop"], stages["one"]["tflop"]]
    assert [model["num_parameters"] for model in summary["models"]] == [size] * 3
