"""Checkpoints to resume from: numbered folders, each with a seal over its files, the newest sound one wins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from hone.record.files import remove, write_folder

KEEP = 2
_SEAL = "seal.json"


def save_checkpoint(folder: Path, step: int, fill: Callable[[Path], None]) -> None:
    """Write `step-NNNNNN` whole or not at all, then drop all but the newest two."""

    def fill_and_seal(path: Path) -> None:
        fill(path)
        digests = {file.name: _digest(file) for file in sorted(path.iterdir())}
        (path / _SEAL).write_text(json.dumps(digests), "utf-8")

    write_folder(folder / f"step-{step:06d}", fill_and_seal)
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        remove(old)


def newest_checkpoint(folder: Path) -> tuple[int, Path | None, list[str]]:
    """Return the newest sound checkpoint's step and folder (0, None without one), and a line for each damaged one.

    A damaged checkpoint is left out: since every step follows from the seed, going on from an earlier one ends with the
    same weights.
    """
    damaged = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        if problem := _problem(path):
            damaged.append(f"{path}: {problem}; going on from the checkpoint before it")
            continue
        return int(path.name.removeprefix("step-")), path, damaged
    return 0, None, damaged


def _problem(path: Path) -> str | None:
    seal = path / _SEAL
    if not seal.is_file():
        return f"no {_SEAL} there"
    try:
        digests: dict[str, str] = json.loads(seal.read_text("utf-8"))
    except ValueError:
        return f"{_SEAL} is damaged"
    for name, digest in digests.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if _digest(path / name) != digest:
            return f"{name} is damaged"
    return None


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
