"""Keys and values of sequences under way, and the attention of one new token a row over them.

Axes: N rows, T tokens, A attention heads, K key/value heads, D head size, P positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hone.models.attention import turn_


class Cache:
    """Keys and values of `num_rows` sequences of up to `num_positions` tokens, for all layers."""

    def __init__(
        self, num_layers: int, num_rows: int, num_kv_heads: int, num_positions: int, head_dim: int, like: Tensor
    ) -> None:
        # Zeros, since a masked place has weight 0, and 0 times what memory happened to hold may be NaN. On the CPU
        # they come from numpy, whose zeros take no memory before they are written.
        shape = (num_layers, 2, num_rows, num_kv_heads, num_positions, head_dim)
        lazy = like.device.type == "cpu" and like.dtype == torch.float32
        self.store = torch.from_numpy(np.zeros(shape, np.float32)) if lazy else like.new_zeros(shape)
        self.lengths = torch.zeros(num_rows, dtype=torch.long, device=like.device)

    def prompts(self, places: Sequence[tuple[slice, slice]]) -> Prompts:
        """Begin rows anew with prompts of a flat batch; each place is a prompt's tokens and the rows that it begins."""
        for tokens, rows in places:
            self.lengths[rows] = tokens.stop - tokens.start
        return Prompts(self, places)

    def advance(self, num_rows: int) -> Step:
        """Make room for one more token in each of the first `num_rows` rows; raise `IndexError` where there is none."""
        lengths = self.lengths[:num_rows].clone()
        longest = int(lengths.max())
        if longest >= self.store.shape[-2]:
            raise IndexError(f"a row of the cache is full: it has {longest} tokens")
        self.lengths[:num_rows] += 1
        return Step(self, lengths, longest + 1)

    def move(self, source: int, to: int) -> None:
        """Copy a row into another."""
        span = int(self.lengths[source])
        self.store[:, :, to, :, :span] = self.store[:, :, source, :, :span]
        self.lengths[to] = span


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts on their way into a cache, layer by layer."""

    cache: Cache
    places: Sequence[tuple[slice, slice]]

    def fill(self, layer: int, kv: Tensor) -> None:
        """Keep one layer's keys and values [T, 2K, D] of the flat batch."""
        store = self.cache.store[layer]
        both = kv.unflatten(1, (2, -1)).permute(1, 2, 0, 3)  # [2, K, T, D]
        for tokens, rows in self.places:
            store[:, rows, :, : tokens.stop - tokens.start] = both[:, None, :, tokens]


@dataclass(frozen=True)
class Step:
    """One new token in each of N rows, at the positions `lengths` [N], attending to the `span` positions so far."""

    cache: Cache
    lengths: Tensor
    span: int

    @cached_property
    def mask(self) -> Tensor:
        """What hides, [N, 1, 1, span], what lies behind a row's own position."""
        hidden = torch.arange(self.span, device=self.lengths.device) > self.lengths[:, None]
        return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -math.inf)[:, None, None]

    def attend(self, layer: int, qkv: Tensor, cos: Tensor, sin: Tensor, heads: tuple[int, int]) -> Tensor:
        """Keep the keys and values of `qkv` [N, (A + 2K) * D]; return what the queries attend to, [N, A * D]."""
        store = self.cache.store[layer]
        num_q, num_kv = heads
        num_rows = len(qkv)
        parts = qkv.unflatten(-1, (num_q + 2 * num_kv, -1))
        turn_(parts[:, : num_q + num_kv], cos, sin)
        kv = parts[:, num_q:].unflatten(1, (2, num_kv))  # [N, 2, K, D]
        store[:, torch.arange(num_rows, device=qkv.device), :, self.lengths] = kv
        keys, values = store[:, :num_rows, :, : self.span]
        # The heads that share a key are rows of one small product, so that keys are read once.
        queries = (parts[:, :num_q] * parts.shape[-1] ** -0.5).unflatten(1, (num_kv, -1))
        return ((queries @ keys.transpose(-1, -2) + self.mask).softmax(-1) @ values).flatten(1)
