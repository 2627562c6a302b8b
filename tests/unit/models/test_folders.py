"""Where a model is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hone.models.folders import find_here, find_model
from hone.types import HoneError


def test_a_stage_of_a_run_stands_for_the_model_that_it_made(tmp_path: Path) -> None:
    stage = tmp_path / "reasoning_rl"
    shutil.copytree(find_model("base-tiny"), stage / "checkpoint")
    assert find_here(str(stage)) == find_here(str(stage / "checkpoint")) == stage / "checkpoint"
    (stage / "checkpoint" / "config.json").unlink()
    with pytest.raises(HoneError, match=r"reasoning_rl: no config\.json there"):
        find_here(str(stage))
