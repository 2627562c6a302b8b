"""A study: one recipe with several seeds, in a folder each, its figures averaged and its claims decided by all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hone.config import Recipe, Study, load_study
from hone.models.loading import checksum, load_model
from hone.pipeline.manifest import read_manifest
from hone.pipeline.run import run_recipe
from hone.pipeline.study import run_study
from hone.types import HoneError

RECIPE = """
name = "small"
threads = 1

[[stage]]
name = "one"
title = "Base"
kind = "sft"
start_from = { hidden_size = 16, intermediate_size = 16, num_hidden_layers = 1, num_attention_heads = 2 }
data = { count = 8 }
batch_size = 4
optimizer = { learning_rate = 1e-3 }

[[stage]]
name = "two"
kind = "sft"
start_from = "one"
data = { count = 16 }
batch_size = 4
optimizer = { learning_rate = 1e-2 }

[[stage]]
name = "test"
kind = "evaluate"
models = ["one", "two"]
samples = 2
sampling = { max_tokens = 6 }
problems = { count = 10 }

[[claim]]
text = "training changes nothing that could be seen on so few problems"
figure = "pass_at_1"
of = "two"
than = "one"
expect = "not lower"
margin = 0.5

[[claim]]
text = "nothing is longer than the other"
figure = "completion_length_mean"
of = "two"
than = "one"
expect = "higher"
no_more_compute = true
"""


def write(folder: Path) -> Path:
    (folder / "small.toml").write_text(RECIPE)
    study = folder / "study.toml"
    study.write_text(f'name = "twice"\nrecipe = "{folder / "small.toml"}"\nseeds = [3, 5]\n')
    return study


def load(file: Path, *settings: str) -> tuple[Study, list[Recipe]]:
    found = load_study(str(file), settings)
    assert found
    return found


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("study")
    assert run_study(*load(write(place)), place / "run", Console(quiet=True)) == place / "run" / "summary.json"
    return place


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_each_seed_has_a_run_of_its_own(studied: Path) -> None:
    run = studied / "run"
    assert sorted(path.name for path in run.iterdir()) == ["seed-3", "seed-5", "study.json", "summary.json"]
    assert read(run / "study.json")["seeds"] == [3, 5]
    for seed in (3, 5):
        assert read(run / f"seed-{seed}" / "summary.json")["seed"] == seed
        assert {record.state for record in read_manifest(run / f"seed-{seed}").stages.values()} == {"done"}
    weights = {checksum(load_model(run / f"seed-{seed}" / "two" / "checkpoint")) for seed in (3, 5)}
    assert len(weights) == 2


def test_a_figure_is_the_mean_over_seeds(studied: Path) -> None:
    summary = read(studied / "run" / "summary.json")
    seeds = [read(studied / "run" / f"seed-{seed}" / "summary.json") for seed in (3, 5)]
    assert (summary["recipe"], summary["seeds"]) == ("twice", [3, 5])
    assert summary["seconds"] == pytest.approx(sum(seed["seconds"] for seed in seeds))
    assert [(model["stage"], model["title"], model["samples"]) for model in summary["models"]] == [
        ("one", "Base", 2), ("two", "", 2)
    ]  # fmt: skip
    for model, first, second in zip(summary["models"], *(seed["models"] for seed in seeds), strict=True):
        for figure in ("pass_at_1", "completion_length_mean", "format_share", "tflop"):
            assert model[f"{figure}_by_seed"] == [first[figure], second[figure]]
            assert model[figure] == pytest.approx((first[figure] + second[figure]) / 2)
        ends = [pair["completion_length_mean_ci95"] for pair in (first, second)]
        wanted = [sum(low_or_high) / 2 for low_or_high in zip(*ends, strict=True)]
        assert model["completion_length_mean_ci95"] == pytest.approx(wanted)


def test_its_claims_are_decided_by_every_seed(studied: Path) -> None:
    by_seed = [read(studied / "run" / f"seed-{seed}" / "summary.json")["claims"] for seed in (3, 5)]
    claims = read(studied / "run" / "summary.json")["claims"]
    for claim, first, second in zip(claims, *by_seed, strict=True):
        assert claim["seeds"] == first["seeds"] + second["seeds"]
    assert claims[0]["verdict"] == "holds"
    assert claims[1]["verdict"] != "holds"  # the second model was trained more


def test_a_finished_seed_is_skipped_and_one_carried_out_elsewhere_is_taken_up(studied: Path, tmp_path: Path) -> None:
    study, recipes = load(write(tmp_path))
    run_recipe(recipes[1], tmp_path / "run" / "seed-5", Console(quiet=True))
    before = (tmp_path / "run" / "seed-5" / "two" / "config.json").stat().st_mtime_ns
    run_study(study, recipes, tmp_path / "run", Console(quiet=True))
    made = [tmp_path / "run" / f"seed-{seed}" / "two" / "config.json" for seed in (3, 5)]
    times = [file.stat().st_mtime_ns for file in made]
    assert times[1] == before
    run_study(study, recipes, tmp_path / "run", Console(quiet=True))
    assert [file.stat().st_mtime_ns for file in made] == times
    timeless = [
        [{k: v for k, v in model.items() if "seconds" not in k} for model in read(run / "summary.json")["models"]]
        for run in (tmp_path / "run", studied / "run")
    ]
    assert timeless[0] == timeless[1]


def test_a_seed_made_with_other_settings_is_refused(studied: Path) -> None:
    study, recipes = load(studied / "study.toml", "two.batch_size=2")
    before = (studied / "run" / "summary.json").read_bytes()
    with pytest.raises(HoneError, match=r"seed-3: stage 'two' was made with other settings"):
        run_study(study, recipes, studied / "run", Console(quiet=True))
    assert (studied / "run" / "summary.json").read_bytes() == before


def test_a_figure_that_one_seed_could_not_measure_is_that_of_the_others(studied: Path) -> None:
    from hone.pipeline.study import _over_seeds

    measured = {"stage": "one", "language_consistency": 0.5, "language_consistency_ci95": [0.4, 0.6]}
    nothing = {"stage": "one", "language_consistency": None, "language_consistency_ci95": None}
    for seeds in ([measured, nothing], [nothing, measured]):
        found = _over_seeds(seeds)
        assert (found["stage"], found["language_consistency"]) == ("one", 0.5)
        assert found["language_consistency_ci95"] == [0.4, 0.6]
        assert found["language_consistency_by_seed"] == [seed["language_consistency"] for seed in seeds]
    assert _over_seeds([nothing, nothing])["language_consistency"] is None
