"""Writes are whole or not at all, and a full disk is one clear line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB, where the system lets us make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_weights_that_do_not_fit_on_the_disk_leave_the_old_ones(small_disk: Path) -> None:
    def save(size: int) -> None:
        write_folder(small_disk / "model", lambda path: save_file({"w": torch.ones(size)}, path / "weights"))

    save(1000)
    with pytest.raises(RunError, match="no space left on the disk"):
        save(100_000)
    assert [entry.name for entry in small_disk.iterdir()] == ["model"]
    assert (small_disk / "model" / "weights").stat().st_size > 4000
