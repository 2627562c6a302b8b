"""Group-relative advantages: how much better an output is than the others of its group."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hone.types import Floats


def group_advantages(rewards: Floats, scorable: NDArray[np.bool_], *, divide_by_std: bool = True) -> Floats:
    """Return `(r_i - mean(r)) / std(r)` [G] over the scorable outputs of one group (DeepSeek-R1, section 2.2.1).

    `rewards` [G] and `scorable` [G]. Outputs that could not be scored take no part and get 0; so does every output of
    a group whose rewards are equal. `divide_by_std=False` leaves the difference as it is (Dr. GRPO).
    """
    advantages = np.zeros(len(rewards), np.float32)
    if not has_signal(rewards, scorable):
        return advantages
    scored = rewards[scorable].astype(np.float64)
    centred = scored - scored.mean()
    advantages[scorable] = centred / scored.std() if divide_by_std else centred
    return advantages


def has_signal(rewards: Floats, scorable: NDArray[np.bool_]) -> bool:
    """Say whether a group tells its outputs apart: at least two different rewards among the scorable ones."""
    scored = rewards[scorable]
    return bool(len(scored)) and bool(scored.max() - scored.min() > 1e-6)
