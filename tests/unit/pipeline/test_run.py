"""Stages are skipped while their hash holds, never overwritten silently, and run again only when asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from hone.config import Recipe, parse_recipe
from hone.pipeline.manifest import read_manifest
from hone.pipeline.run import dependents, make_plan, run_recipe
from hone.types import HoneError

SHAPE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def recipe(count: int = 8) -> Recipe:
    sft = {"kind": "sft", "data": {"count": count}, "batch_size": 4, "optimizer": {"learning_rate": 1e-3}}
    test = {
        "name": "test", "kind": "evaluate", "models": ["one"], "samples": 1,
        "sampling": {"max_tokens": 4}, "problems": {"split": "test", "count": 2},
    }  # fmt: skip
    stages = [{**sft, "name": "one", "start_from": SHAPE}, {**sft, "name": "two", "start_from": "one"}, test]
    return parse_recipe({"name": "small", "threads": 1, "stage": stages}, "test")


@pytest.fixture
def done(tmp_path: Path) -> Path:
    run_recipe(recipe(), tmp_path, Console(quiet=True))
    return tmp_path


def made_at(run: Path) -> dict[str, int]:
    return {name: (run / name / "config.json").stat().st_mtime_ns for name in ("one", "two", "test")}


def test_a_wrong_file_of_a_later_stage_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("q,a\n1 + 1,2\n")
    raw = recipe().model_dump(mode="json")
    raw["stage"][2]["problems"] = {"path": str(tmp_path / "rows.csv"), "question": "qq", "answer": "a"}
    with pytest.raises(HoneError, match=r"rows\.csv, line 2: no field 'qq'"):
        run_recipe(parse_recipe(raw, "test"), tmp_path / "run", Console(quiet=True))
    assert not (tmp_path / "run" / "one").exists()


def test_a_wrong_file_of_preferences_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "why", "chosen": "so"}\n')
    raw = recipe().model_dump(mode="json")
    liking = {"name": "liking", "kind": "reward_model", "start_from": "one", "optimizer": {"learning_rate": 1e-3}}
    raw["stage"].append({**liking, "data": {"path": str(tmp_path / "pairs.jsonl")}})
    with pytest.raises(HoneError, match=r"pairs\.jsonl, line 1: "):
        run_recipe(parse_recipe(raw, "test"), tmp_path / "run", Console(quiet=True))
    assert not (tmp_path / "run" / "one").exists()


def test_a_finished_run_is_recorded_and_skipped(done: Path) -> None:
    manifest = read_manifest(done)
    assert {name: record.state for name, record in manifest.stages.items()} == dict.fromkeys(
        ("one", "two", "test"), "done"
    )
    assert json.loads((done / "summary.json").read_text())["models"][0]["num_problems"] == 2
    before = made_at(done)
    run_recipe(recipe(), done, Console(quiet=True))
    assert made_at(done) == before


def test_a_changed_recipe_is_refused_and_nothing_is_lost(done: Path) -> None:
    before = made_at(done)
    with pytest.raises(HoneError, match=r"stage 'one' was made with other settings.*--from one"):
        run_recipe(recipe(count=12), done, Console(quiet=True))
    assert made_at(done) == before
    assert make_plan(recipe(count=12), done).changed == ("one", "two", "test")


def test_from_runs_a_stage_and_its_dependents_again(done: Path) -> None:
    before = made_at(done)
    run_recipe(recipe(), done, Console(quiet=True), from_stage="two")
    after = made_at(done)
    assert [after[name] > before[name] for name in ("one", "two", "test")] == [False, True, False]
    assert dependents(recipe(), "one") == ["one", "two", "test"]
    with pytest.raises(HoneError, match="no such stage"):
        run_recipe(recipe(), done, Console(quiet=True), from_stage="three")


def test_a_folder_that_is_in_use_is_refused(done: Path) -> None:
    import fcntl

    with (done / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(HoneError, match="another process is working"):
            run_recipe(recipe(), done, Console(quiet=True))
