"""Atomic writes: under a temporary name, flushed to the disk, then renamed.

A reader, or the same command after a crash, sees a file or folder whole, or the one before it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hone.types import HoneError, RunError

_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def clear_when_full(path: Path) -> Iterator[None]:
    """Say in one line where a write fails since the disk is full."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors passes the system's words on, but not its number.
        if getattr(error, "errno", None) in _OUT_OF_SPACE or os.strerror(errno.ENOSPC) in str(error):
            raise RunError(
                f"{path}: no space left on the disk; nothing written before is lost: make room and run the same command"
            ) from error
        raise


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file or a folder under a temporary name, then put it in the place of `path`."""
    temporary = path.with_name(f".{path.name}.tmp")
    with clear_when_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)
        try:
            write(temporary)
            _sync(temporary)
        except BaseException:
            remove(temporary)
            raise
        old = path.with_name(f".{path.name}.old")
        if path.is_dir():
            # A folder cannot be replaced in one step: between the two renames the old one lies under `.old`.
            remove(old)
            path.rename(old)
            temporary.rename(path)
        else:
            temporary.replace(path)
        remove(old)  # of now, or of a crash between the two renames
        _sync_one(path.parent)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the system releases however the process ends; refuse where another one holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / ".lock").open("w")
    except OSError as error:
        raise HoneError(f"{folder}: nothing can be written there: {error.strerror}; give another --out") from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HoneError(f"{folder}: another process is working in this folder") from None
        yield


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: _write(temporary, text))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` put files into a new folder, then put it in the place of `path`."""

    def write(temporary: Path) -> None:
        temporary.mkdir()
        fill(temporary)

    write_atomically(path, write)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one JSON line to a file, flushed to the disk."""
    with clear_when_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file; a last line that a crash cut short does not count."""
    if not path.is_file():
        return []
    lines = path.read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def keep_rows(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drop the rows that a resumed stage is about to write again."""
    if path.is_file():
        rows: Sequence[dict[str, Any]] = [row for row in read_rows(path) if keep(row)]
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _sync(path: Path) -> None:
    if path.is_dir():
        for entry in path.rglob("*"):
            _sync_one(entry)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
