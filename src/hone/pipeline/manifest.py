"""The manifest of a run: which stages it has, from what they were made, and what is done.

A stage's hash covers its resolved settings, the run's seed and the content of everything that it reads, so that equal
hashes mean equal results. The module knows nothing of how a stage works, and no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from hone.config import Recipe, Stage
from hone.record.files import write_json
from hone.types import HoneError

State = Literal["pending", "running", "done", "failed"]
FILE = "manifest.json"


class StageRecord(BaseModel):
    """What the manifest holds of one stage."""

    kind: str
    hash: str
    state: State = "pending"
    started: str | None = None
    seconds: float | None = None
    error: str | None = None


class Manifest(BaseModel):
    """`manifest.json`, whole."""

    recipe: dict[str, Any]
    versions: dict[str, str]
    stages: dict[str, StageRecord]

    def save(self, run: Path) -> None:
        write_json(run / FILE, self.model_dump(mode="json"))


def read_manifest(run: Path) -> Manifest:
    """Read the manifest of a run; refuse a folder that is none."""
    file = run / FILE
    if not file.is_file():
        raise HoneError(f"{run}: no {FILE} there, so it is not the folder of a run")
    try:
        return Manifest.model_validate_json(file.read_text("utf-8"))
    except ValueError as error:
        raise HoneError(f"{file}: damaged: {' '.join(str(error).split())[:200]}") from error


def fresh_manifest(recipe: Recipe, hashes: Mapping[str, str]) -> Manifest:
    versions = {name: metadata.version(name) for name in ("hone-r1", "torch", "numpy", "tokenizers")}
    return Manifest(
        recipe=recipe.model_dump(mode="json"),
        versions={"hone": versions.pop("hone-r1"), "python": platform.python_version(), **versions},
        stages={
            stage.name: StageRecord(kind=stage.kind, hash=hashes[stage.name]) for stage in recipe.stage
        },
    )  # fmt: skip


def stage_hashes(recipe: Recipe, folders: Mapping[str, Path | None]) -> dict[str, str]:
    """Return each stage's hash. `folders` holds the folders of the models that come from outside the run.

    Of one on the hub there is none, and the hash covers its name alone: a recipe is planned before anything is fetched.
    """
    hashes: dict[str, str] = {}
    contents = {name: hash_folder(folder) if folder else f"hub:{name}" for name, folder in folders.items()}
    for stage in recipe.stage:
        content = {
            "seed": recipe.seed,
            "stage": stage_settings(stage),
            "inputs": {name: hashes.get(name) or contents[name] for name in stage.inputs},
            "files": {path: hash_data(path) for path in stage.files},
            "functions": {function: hash_module(function) for function in stage.functions},
        }
        hashes[stage.name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return hashes


def stage_settings(stage: Stage) -> dict[str, Any]:
    return stage.model_dump(mode="json")


def hash_folder(folder: Path) -> str:
    """Return a digest of what a model folder's files hold, file names among it."""
    files = [file for file in folder.iterdir() if file.suffix in (".json", ".safetensors", ".jinja")]
    return _digest(folder, files)


def hash_data(path: str) -> str:
    """Return a digest of a data file, or of a folder of them; of a hub dataset its name alone. Refuse a wrong path."""
    if path.startswith("hub:"):
        return path
    place = Path(path).expanduser()
    files = [file for file in place.rglob("*") if file.is_file()] if place.is_dir() else [place]
    try:
        return _digest(place, files)
    except OSError as error:
        raise HoneError(f"problems.path = {path!r}: {error.strerror}: {error.filename}") from error


def _digest(place: Path, files: Sequence[Path]) -> str:
    """Return a digest of what files hold and of their names below `place`."""
    digest = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as opened:
            digest.update(file.relative_to(place).as_posix().encode())
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def hash_module(function: str) -> str:
    """Return a digest of the file where `package.module:name` stands, looked for as worker processes do.

    What the module imports does not count. Of one that is in no file there, the name alone: a preflight refuses it.
    """
    module = function.partition(":")[0]
    for folder in (*sys.path, os.getcwd()):
        package = Path(folder, *module.split("."))
        for file in (package / "__init__.py", package.with_name(f"{package.name}.py")):
            if file.is_file():
                return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return module


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
