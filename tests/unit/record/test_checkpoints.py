"""The newest sound checkpoint wins; a damaged one is named and left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.record.checkpoints import KEEP, newest_checkpoint, save_checkpoint


def save(folder: Path, step: int) -> None:
    save_checkpoint(folder, step, lambda path: (path / "weights").write_text(f"step {step}") and None)


def test_without_a_checkpoint_a_stage_begins_at_nothing(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "resume") == (0, None, [])


def test_the_newest_is_taken_and_old_ones_are_dropped(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path, step)
    step, folder, damaged = newest_checkpoint(tmp_path)
    assert (step, damaged) == (15, [])
    assert folder is not None
    assert (folder / "weights").read_text() == "step 15"
    assert len(list(tmp_path.iterdir())) == KEEP


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda path: (path / "weights").write_text("step"), "weights is damaged"),
        (lambda path: (path / "weights").unlink(), "weights is missing"),
        (lambda path: (path / "seal.json").unlink(), "no seal.json there"),
        (lambda path: (path / "seal.json").write_text('{"wei'), "seal.json is damaged"),
    ],
)
def test_a_damaged_one_is_named_and_left_out(harm: object, complaint: str, tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    harm(tmp_path / "step-000010")  # type: ignore[operator]
    step, _, damaged = newest_checkpoint(tmp_path)
    assert step == 5
    assert [complaint in line for line in damaged] == [True]
