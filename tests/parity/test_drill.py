"""`hone drill`: killed at every point of every stage, a run ends as an undisturbed one; and a drill can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.config import (
    EvaluateStage,
    Recipe,
    RejectionStage,
    RewardModelStage,
    RlStage,
    SftStage,
    load_recipe,
)
from hone.pipeline.drill import KILLED, MISSED, Event, Kill, _start, compare, differences, plan_kills

RECIPE = """
name = "drilled"
threads = 1

[[stage]]
name = "collect"
kind = "rejection"
start_from = "base-tiny"
problems = { count = 66 }
samples = 1
sampling = { max_tokens = 30 }

[[stage]]
name = "cold"
kind = "sft"
start_from = { hidden_size = 32, intermediate_size = 64, num_hidden_layers = 1, num_attention_heads = 2 }
data = { count = 64 }
batch_size = 16
optimizer = { learning_rate = 1e-3 }
checkpoint_every = 2

[[stage]]
name = "zero"
kind = "rl"
start_from = "cold"
problems = { count = 16 }
sampling = { max_tokens = 12 }
steps = 4
problems_per_step = 4
group_size = 4
updates_per_step = 2
kl_coef = 0.01
reference_every = 2
optimizer = { learning_rate = 1e-3 }
evaluation = { every = 2, samples = 1, problems = { split = "validation", count = 4 } }
checkpoint_every = 2

[[stage]]
name = "test"
kind = "evaluate"
models = ["cold", "zero"]
samples = 1
sampling = { max_tokens = 12 }
problems = { split = "test", count = 4 }
"""

STAGES = ("collect", "cold", "zero", "test")


def drill(recipe: str | Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hone.cli", "drill", str(recipe), "--out", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "drilled.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def drilled(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drill the whole recipe: some twenty processes, each of which has torch to import."""
    folder = tmp_path_factory.mktemp("drill")
    found = drill(recipe, folder)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count(" held ") == len(STAGES) * 4
    return folder


def test_every_kill_of_the_matrix_was_made(drilled: Path) -> None:
    kills = json.loads((drilled / "kills.json").read_text())
    assert all(kills["reached"])
    assert [tuple(kill) for kill in kills["planned"]] == [
        ("collect", "start", ""),
        ("collect", "middle", "parts/00-00000064.parquet"),
        ("collect", "saving", "funnel.json"),
        ("collect", "between", ""),
        ("cold", "start", ""),
        ("cold", "middle", "metrics.jsonl#3"),
        ("cold", "saving", "resume/step-000004"),
        ("cold", "saving", "checkpoint"),
        ("cold", "between", ""),
        ("zero", "start", ""),
        ("zero", "middle", "metrics.jsonl#3"),
        ("zero", "saving", "resume/step-000004"),
        ("zero", "saving", "checkpoint"),
        ("zero", "between", ""),
        ("test", "start", ""),
        *[tuple(kill) for kill in kills["planned"][15:16]],  # which file comes second, the stage alone knows
        ("test", "saving", "results.json"),
        ("test", "between", ""),
    ]
    assert kills["planned"][15][:2] == ["test", "middle"]


def test_a_changed_weight_and_what_a_write_left_are_found(recipe: Path, drilled: Path) -> None:
    weights = drilled / "killed" / "zero" / "checkpoint" / "model.safetensors"
    left = drilled / "killed" / "cold" / ".checkpoint.old"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    left.mkdir()
    try:
        found = drill(recipe, drilled)  # everything is done: it compares again
    finally:
        weights.write_bytes(sound)
        left.rmdir()
    assert found.returncode == 1
    rows = {name: line for line in found.stdout.splitlines() for name in STAGES if line.startswith(f"│ {name} ")}
    assert rows["zero"].count("DIFFERS") == 4
    assert "checkpoint/model.safetensors" in rows["zero"]
    assert rows["cold"].count("DIFFERS") == 4
    assert ".checkpoint.old (left over)" in rows["cold"]
    assert [rows[name].count("held") for name in ("collect", "test")] == [4, 4]


def test_a_kill_that_is_not_reached_is_a_fault(recipe: Path, tmp_path: Path) -> None:
    cold = load_recipe(str(recipe))
    cold = cold.model_copy(update={"stage": cold.stage[1:2]})
    kill = Kill("cold", "middle", "metrics.jsonl#99")
    assert _start(cold, tmp_path, KILLED, kill) == MISSED
    (found, _) = compare(["cold"], {Kill("cold", "start"): True, kill: False}, tmp_path / KILLED, tmp_path / KILLED)
    assert found.cells() == ["held", "not reached", "-", "-"]
    assert not found.held


def test_where_a_run_is_killed_follows_from_what_it_wrote() -> None:
    events = [
        Event("dev1", "file", "config.json"),
        *[Event("dev1", "row", f"metrics.jsonl#{step}") for step in (1, 2, 3, 4, 5)],
        Event("dev1", "file", "rollouts/step-000001.parquet"),
        Event("dev1", "folder", "resume/step-000002"),
        Event("dev1", "folder", "resume/step-000005"),
        Event("dev1", "folder", "checkpoint"),
        Event("out", "file", "config.json"),
        Event("out", "folder", "release/dev1"),
        Event("out", "folder", "release/dev2"),
        Event("bare", "file", "config.json"),
    ]
    assert plan_kills(["dev1", "out", "bare"], events) == [
        Kill("dev1", "start"), Kill("dev1", "middle", "metrics.jsonl#3"), Kill("dev1", "saving", "resume/step-000005"),
        Kill("dev1", "saving", "checkpoint"), Kill("dev1", "between"),
        Kill("out", "start"), Kill("out", "middle", "release/dev2"), Kill("out", "saving", "release/dev2"),
        Kill("out", "between"),
        Kill("bare", "start"), Kill("bare", "between"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "undisturbed", "killed", "same"),
    [
        ("metrics.jsonl", '{"loss": 1, "time/train_s": 2}\n', '{"loss": 1, "time/train_s": 3}\n', True),
        ("metrics.jsonl", '{"loss": 1, "time/train_s": 2}\n', '{"loss": 2, "time/train_s": 2}\n', False),
        ("metrics.jsonl", '{"loss": NaN, "time/a": 2}\n', '{"loss": NaN, "time/a": 3}\n', True),
        ("metrics.jsonl", '{"loss": 1}\n', '{"loss": 1}\n{"lo', False),
        ("metrics.jsonl", '{"loss": 1}\n', '{"loss": 1}\n{"loss": 1}\n', False),
        ("metrics.jsonl", '{"loss": 1}\n', '{"lo{"loss": 1}\n', False),
        ("preflight.json", '{"a": [{"seconds_p50": 1}]}', '{"a": [{"seconds_p50": 2}]}', True),
        ("results.json", '{"pass_at_1": 0.25}', '{"pass_at_1": 0.5}', False),
        ("README.md", "| seconds | a |\n|---|---|\n| 1 | 2 |", "| seconds | a |\n|---|---|\n| 3 | 2 |", True),
        ("README.md", "| seconds | a |\n|---|---|\n| 1 | 2 |", "| seconds | a |\n|---|---|\n| 1 | 3 |", False),
        ("README.md", "It took 1", "It took 2", False),
        ("model.safetensors", "01", "02", False),
    ],
)  # fmt: skip
def test_only_times_may_differ(name: str, undisturbed: str, killed: str, same: bool, tmp_path: Path) -> None:
    for part, text in (("one", undisturbed), ("other", killed)):
        (tmp_path / part).mkdir()
        (tmp_path / part / name).write_text(text)
    assert differences(tmp_path / "one", tmp_path / "other") == (() if same else (name,))


def test_tables_are_compared_by_content_and_files_that_are_missing_or_too_many_are_named(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, value, codec in ((one, 2.0, "snappy"), (other, 3.0, "none")):
        (folder / "parts").mkdir(parents=True)
        pq.write_table(pa.table({"x": [1.0, float("nan")]}), folder / "parts" / "same.parquet", compression=codec)
        pq.write_table(pa.table({"x": [1.0, value]}), folder / "parts" / "changed.parquet", compression=codec)
    (one / "lost.json").write_text("{}")
    (other / ".rows.parquet.tmp").write_text("")
    assert (one / "parts" / "same.parquet").read_bytes() != (other / "parts" / "same.parquet").read_bytes()
    assert differences(one, other) == (
        ".rows.parquet.tmp (left over)",
        "lost.json (missing)",
        f".rows.parquet.tmp (not in {one})",
        "parts/changed.parquet",
    )


def test_an_unknown_stage_and_a_drill_of_other_stages_are_refused(recipe: Path, drilled: Path, tmp_path: Path) -> None:
    wrong = drill(recipe, tmp_path, "--stage", "dev1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no such stage; the recipe has collect, cold, zero, test" in wrong.stderr
    other = drill(recipe, drilled, "--stage", "cold")
    assert other.returncode == 2
    assert "a drill of other stages was here before" in other.stderr


def less(recipe: Recipe) -> list[str]:
    """Return settings that leave every stage a fraction of its work: the restarts, some hundred, take longer."""
    found = []
    for stage in recipe.stage:
        if isinstance(stage, RlStage):
            found += [f"{stage.name}.steps=4", f"{stage.name}.problems_per_step=4", f"{stage.name}.preflight.count=8"]
        if isinstance(stage, RlStage | SftStage) and stage.evaluation:
            found.append(f"{stage.name}.evaluation.problems.count=4")
        if isinstance(stage, SftStage | RewardModelStage):
            found += [f"{stage.name}.epochs=1", f"{stage.name}.checkpoint_every=2"]
        if isinstance(stage, RejectionStage):
            found.append(f"{stage.name}.problems.count=96")
        if isinstance(stage, EvaluateStage):
            found += [f"{stage.name}.problems.count=4", f"{stage.name}.samples=1"]
    return found


@pytest.mark.slow
def test_the_whole_recipe_is_killed_at_every_point(tmp_path: Path) -> None:
    settings = ["preset=quick", "threads=1", *less(load_recipe("r1-tiny", ("preset=quick",)))]
    found = drill("r1-tiny", tmp_path, *[part for setting in settings for part in ("--set", setting)])
    assert found.returncode == 0, found.stdout + found.stderr
    assert "not reached" not in found.stdout
