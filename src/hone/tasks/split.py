"""Which split a problem belongs to, decided by a hash of its canonical form.

The same problem lands in the same split in every language, on every machine and for every seed, so training and
held-out problems are disjoint by construction.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "validation", "test"]
_UPPER_BOUNDS: tuple[tuple[Split, int], ...] = (("train", 64), ("validation", 80), ("test", 100))


def split_of(canonical: str) -> Split:
    """Return the split of a problem: 64% train, 16% validation, 20% test."""
    bucket = int.from_bytes(hashlib.blake2b(canonical.encode(), digest_size=4).digest(), "big") % 100
    return next(split for split, bound in _UPPER_BOUNDS if bucket < bound)
