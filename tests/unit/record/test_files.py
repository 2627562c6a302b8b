"""Writes are whole or not at all, and a full disk is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.record.files import append_row, keep_rows, read_rows, write_folder, write_json, write_text
from hone.types import RunError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"old": 1})
    with pytest.raises(TypeError):
        write_json(file, {"new": object()})
    assert file.read_text() == '{\n  "old": 1\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, lambda path: write_text(path / "weights", "old"))

    def fail(path: Path) -> None:
        write_text(path / "weights", "new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, fail)
    assert (folder / "weights").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, lambda path: write_text(path / "only-in-old", ""))
    write_folder(folder, lambda path: write_text(path / "only-in-new", ""))
    assert [entry.name for entry in folder.iterdir()] == ["only-in-new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_rows_are_appended_and_a_cut_last_line_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    append_row(file, {"step": 1})
    append_row(file, {"step": 2})
    with file.open("a") as opened:
        opened.write('{"step": 3, "los')
    assert read_rows(file) == [{"step": 1}, {"step": 2}]
    keep_rows(file, lambda row: row["step"] < 2)
    append_row(file, {"step": 2, "again": True})
    assert read_rows(file) == [{"step": 1}, {"step": 2, "again": True}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match="no space left on the disk; nothing written before is lost"):
        append_row(tmp_path / "metrics.jsonl", {"step": 1})
