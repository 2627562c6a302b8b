"""What a stage's hash covers: the content of all that the stage reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.config import parse_recipe
from hone.pipeline.manifest import hash_data, hash_module, stage_hashes
from hone.types import HoneError


def hash_of(path: str, function: str = "mine:brevity") -> str:
    stage = {
        "name": "zero", "kind": "rl", "start_from": "base", "steps": 1, "optimizer": {"learning_rate": 1e-3},
        "problems": {"path": path, "question": "q", "answer": "a", "split": "train"},
        "rewards": {"custom": [{"function": function}]},
    }  # fmt: skip
    model = Path("model")
    model.mkdir(exist_ok=True)
    return stage_hashes(parse_recipe({"name": "test", "stage": [stage]}, "test"), {"base": model})["zero"]


def test_what_a_file_and_a_reward_hold_is_part_of_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows, module = Path("rows.csv"), Path("mine.py")
    rows.write_text("q,a\n1,2\n")
    module.write_text("def brevity(*_): return 1\n")
    first = hash_of("rows.csv")
    assert hash_of("rows.csv") == first
    rows.write_text("q,a\n1,3\n")
    second = hash_of("rows.csv")
    module.write_text("def brevity(*_): return 2\n")
    assert len({first, second, hash_of("rows.csv")}) == 3


def test_a_path_from_the_home_folder_is_found_as_the_rows_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.csv").write_text("q,a\n")
    assert hash_data("~/rows.csv") == hash_data(str(tmp_path / "rows.csv"))
    with pytest.raises(HoneError, match=r"No such file or directory: .*rose\.csv"):
        hash_data("~/rose.csv")


def test_a_folder_is_hashed_by_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("1")
    before = hash_data(str(tmp_path))
    (tmp_path / "a.parquet").rename(tmp_path / "b.parquet")
    assert hash_data(str(tmp_path)) != before


def test_a_module_is_found_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "deep").mkdir(parents=True)
    (tmp_path / "own" / "__init__.py").write_text("raise SystemExit('run')\n")
    (tmp_path / "own" / "deep" / "rewards.py").write_text("raise SystemExit('run too')\n")
    assert hash_module("own.deep.rewards:f") == hash_module("own.deep.rewards:g")
    assert hash_module("own.deep.rewards:f") != hash_module("own:f")
    assert hash_module("hone.rewards.format:f") != hash_module("hone.rewards.maths:f")
    assert hash_module("own.nowhere:f") == "own.nowhere"
