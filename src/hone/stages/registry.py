"""Which function carries out which kind of stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hone.stages import evaluate, rejection, release, reward_model, rl, sft
from hone.stages.context import StageContext

RUNNERS: dict[str, Callable[[Any, StageContext], None]] = {
    "sft": sft.run,
    "rl": rl.run,
    "rejection": rejection.run,
    "reward_model": reward_model.run,
    "evaluate": evaluate.run,
    "release": release.run,
}
