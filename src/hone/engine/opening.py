"""Decides which engine a model folder is opened with: our decoder's, or the one of transformers for all others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hone.engine.local.engine import LocalEngine
from hone.engine.local.trainer import Trainer
from hone.engine.transformers import TransformersEngine
from hone.models.decoder import Decoder
from hone.models.loading import read_config, read_raw_config
from hone.types import HoneError


def open_engine(folder: Path, *, trainer: Callable[[Any], Trainer] | None = None) -> LocalEngine:
    """Read a model folder and, where it is a checkpoint, the states that go with it; `trainer` makes what trains it.

    Raises `HoneError` with both reasons where neither our decoder nor transformers implements the model.
    """
    refusal = _refusal(folder)
    if refusal is None:
        return LocalEngine.open(folder, trainer=trainer)
    try:
        model = TransformersEngine.load(folder)
    except HoneError as error:
        raise HoneError(f"{refusal}; {error}") from error
    return TransformersEngine.begin(model, folder, trainer=trainer)


def _refusal(folder: Path) -> HoneError | None:
    """Return why our decoder cannot be the model of a folder, if so. A damaged `config.json` is refused here."""
    read_raw_config(folder)
    try:
        with torch.device("meta"):
            Decoder(read_config(folder))
    except HoneError as error:
        return error
    return None
