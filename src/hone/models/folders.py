"""Where a model is: embedded in the package, in a folder, or on the Hugging Face hub. Needs no torch."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from hone.types import HoneError

EMBEDDED = ("base-tiny", "student-qwen2-tiny", "student-llama-tiny")
# No pickled weights; licences, since a release carries them along.
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.md", "LICENSE*", "NOTICE*", "USE_POLICY*"]


def find_model(name: str) -> Path:
    """Return the folder of a model: an embedded one's name, a folder, or `owner/name`, had from the hub."""
    return find_here(name) or _download(name)


def find_here(name: str) -> Path | None:
    """Return the folder of a model without a network; None for `owner/name` on the Hugging Face hub."""
    if name in EMBEDDED:
        return Path(str(resources.files("hone") / "assets" / name))
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if folder.exists():
        raise HoneError(f"{folder}: no config.json there, so it is not a model folder")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return None
    raise HoneError(
        f"no model {name!r}: not an embedded one ({', '.join(EMBEDDED)}), not a folder, not owner/name on the hub"
    )


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise HoneError(f"model {name!r} is not a folder here and could not be had from the hub: {reason}") from error
