"""The whole of R1 by its quick preset: every stage makes what the next one reads, and what must be learned is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hone.config import load_recipe


@pytest.mark.slow
def test_the_quick_preset_carries_out_the_whole_recipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hone.cli", "run", "r1-tiny", "--set", "preset=quick", "--out", str(tmp_path)]
    subprocess.run(command, check=True)
    recipe = load_recipe("r1-tiny", ("preset=quick",))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {name: record["state"] for name, record in manifest["stages"].items()} == {
        stage.name: "done" for stage in recipe.stage
    }
    summary = json.loads((tmp_path / "summary.json").read_text())
    verdicts = {claim["claim"]: claim["verdict"] for claim in summary["claims"]}
    assert len(verdicts) == len(recipe.claim)
    # Eight steps are enough for these; the others need the whole recipe.
    assert verdicts["(a) pure RL raises accuracy"] == "holds"
    assert verdicts["(d) R1 is more readable than R1-Zero: a summary for the reader"] == "holds"
    measured = {model["stage"]: model for model in summary["models"] if model["benchmark"] == "countdown-3/test"}
    assert measured["all_scenario_rl"]["language_consistency"] > measured["base"]["language_consistency"]
    released = tmp_path / "release" / "release"
    assert {folder.name for folder in released.iterdir()} == set(recipe.stage[-1].inputs[:-2])
    assert (tmp_path / "report.html").stat().st_size < 8_000_000
