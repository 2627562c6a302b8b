"""The tiny model must learn by GRPO; with the sign of its advantages flipped it must not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from hone.config import parse_recipe
from hone.pipeline.run import run_recipe
from hone.stages import rl

STEPS = 8


def train(run: Path) -> list[dict[str, Any]]:
    """Train the embedded base for a few steps; return its held-out evaluations, on validation problems."""
    stage = {
        "name": "zero", "kind": "rl", "start_from": "base-tiny", "problems": {"count": 400}, "steps": STEPS,
        "problems_per_step": 24, "group_size": 8, "updates_per_step": 2, "sampling": {"max_tokens": 120},
        "optimizer": {"learning_rate": 5e-4}, "checkpoint_every": STEPS,
        "evaluation": {"every": STEPS, "samples": 2, "problems": {"count": 150}},
    }  # fmt: skip
    run_recipe(parse_recipe({"name": "learn", "stage": [stage]}, "test"), run, Console(quiet=True))
    return [json.loads(line) for line in (run / "zero" / "evaluations.jsonl").read_text().splitlines()]


def test_the_policy_learns(tmp_path: Path) -> None:
    before, after = train(tmp_path)
    assert after["pass_at_1_ci95"][0] > before["pass_at_1_ci95"][1]
    assert after["format_share"] > before["format_share"]
    rows = [json.loads(line) for line in (tmp_path / "zero" / "metrics.jsonl").read_text().splitlines()]
    assert max(row["sampler/mismatch_kl"] for row in rows) < 1e-6


def test_with_the_sign_flipped_it_unlearns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rl.group_advantages
    monkeypatch.setattr(rl, "group_advantages", lambda *args, **options: -np.asarray(real(*args, **options)))
    before, after = train(tmp_path)
    assert after["pass_at_1"] < before["pass_at_1"]
    assert after["format_share"] < before["format_share"]
