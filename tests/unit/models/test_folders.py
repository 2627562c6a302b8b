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
    (stage / "config.json").write_text("{}")  # of the stage
    assert find_here(str(stage)) == find_here(str(stage / "checkpoint")) == stage / "checkpoint"


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match=r"no config\.json there, so it is not a model folder"):
        find_here(str(tmp_path))
