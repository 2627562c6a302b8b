"""Killed anywhere and run again, a run ends with the same weights, bit for bit, as one that was never disturbed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = """
name = "resume"
threads = 1

[[stage]]
name = "warm"
kind = "sft"
start_from = { hidden_size = 32, intermediate_size = 64, num_hidden_layers = 1, num_attention_heads = 2 }
data = { count = 64 }
batch_size = 16
optimizer = { learning_rate = 1e-3 }
checkpoint_every = 2

[[stage]]
name = "zero"
kind = "rl"
start_from = "warm"
problems = { count = 16 }
sampling = { max_tokens = 12 }
rewards = { accuracy = 1.0, format = 1.0, language = 1.0 }
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
models = ["warm", "zero"]
samples = 1
sampling = { max_tokens = 12 }
problems = { split = "test", count = 4 }
"""

# Runs the recipe in a process of its own that kills itself, as `kill -9` would, in the midst of the named call.
DRIVER = """
import os, signal, sys
from pathlib import Path
import torch
from hone.config import load_recipe
from hone.pipeline.run import run_recipe
from hone.record.progress import make_console

recipe, run, target, count = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if target != "never":
    import importlib
    module, _, path = target.partition(":")
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real, calls = getattr(owner, name), 0
    def deadly(*args, **kwargs):
        global calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(owner, name, deadly)
run_recipe(load_recipe(recipe), run, make_console())
"""

KILL_POINTS = {
    "in a rollout": ("hone.engine.local.sampler:Batch._draw", 40),
    "in an update": ("torch.optim:AdamW.step", 9),  # 4 of the first stage, then the third step's first
    "between a gradient and its step": ("torch.nn.utils:clip_grad_norm_", 8),
    "while saving a checkpoint": ("hone.engine.local.engine:save_file", 4),
    "while flushing to the disk": ("hone.record.files:_sync_one", 60),
    "before a stage's model is written": ("hone.stages.context:StageContext.save_model", 2),
    "between stages": ("hone.stages.rl:run", 1),
    "in the evaluation": ("hone.stages.evaluate:write_generations", 4),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "resume.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    run = tmp_path_factory.mktemp("undisturbed")
    assert drive(recipe, run) == 0
    return outcome(run)


def drive(recipe: Path, run: Path, target: str = "never", count: int = 0) -> int:
    command = [sys.executable, "-c", DRIVER, str(recipe), str(run), target, str(count)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def outcome(run: Path) -> dict[str, object]:
    """What must not depend on how often a run was killed: weights, metrics but for times, results."""
    weights = {name: (run / name / "checkpoint" / "model.safetensors").read_bytes() for name in ("warm", "zero")}
    rows = [json.loads(line) for line in (run / "zero" / "metrics.jsonl").read_text().splitlines()]
    metrics = [{key: row[key] for key in row if not key.startswith(("time/", "throughput/"))} for row in rows]
    evaluations = (run / "zero" / "evaluations.jsonl").read_text()
    return {
        "weights": weights,
        "metrics": metrics,
        "evaluations": evaluations,
        "results": (run / "test" / "results.json").read_text(),
    }


@pytest.mark.parametrize("point", KILL_POINTS)
def test_a_killed_run_ends_as_an_undisturbed_one(
    point: str, recipe: Path, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    assert drive(recipe, tmp_path, *KILL_POINTS[point]) == -signal.SIGKILL
    assert drive(recipe, tmp_path) == 0
    assert outcome(tmp_path) == undisturbed


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_serves(
    recipe: Path, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    drive(recipe, tmp_path, "hone.stages.context:StageContext.save_model", 2)
    newest = tmp_path / "zero" / "resume" / "step-000004" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    command = [sys.executable, "-c", DRIVER, str(recipe), str(tmp_path), "never", "0"]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "step-000004: model.safetensors is damaged; going on from the checkpoint before it" in again.stderr
    assert outcome(tmp_path) == undisturbed
