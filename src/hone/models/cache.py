"""Keys and values of sequences under way, and the attention of one new token a row over them.

Axes: N rows, T tokens, A attention heads, K key/value heads, D head size, P positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hone.algo import kernels
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
        shortest, longest = (int(edge) for edge in lengths.aminmax())
        if longest >= self.store.shape[-2]:
            raise IndexError(f"a row of the cache is full: it has {longest} tokens")
        self.lengths[:num_rows] += 1
        if shortest == longest or kernels.usable(self.store):  # whose loop goes by the lengths themselves
            return Step(self, lengths, longest + 1, None)
        hidden = torch.arange(longest + 1, device=lengths.device) > lengths[:, None]
        mask = torch.zeros(hidden.shape, device=lengths.device).masked_fill_(hidden, -math.inf)
        return Step(self, lengths, longest + 1, mask[:, None, None])

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


@dataclass(frozen=True, slots=True)
class Step:
    """One new token in each of N rows, at the positions `lengths` [N], attending to the `span` positions so far.

    `mask` [N, 1, 1, span] hides what lies behind a row's own position; None where all rows have the same, or where the
    loops in C attend.
    """

    cache: Cache
    lengths: Tensor
    span: int
    mask: Tensor | None

    def attend(self, layer: int, qkv: Tensor, cos: Tensor, sin: Tensor, heads: tuple[int, int]) -> Tensor:
        """Keep the keys and values of `qkv` [N, (A + 2K) * D]; return what the queries attend to, [N, A * D]."""
        store = self.cache.store[layer]
        if kernels.usable(qkv):
            return kernels.attend(qkv, cos, sin, store[0], store[1], self.lengths, self.span, heads)
        num_q, num_kv = heads
        num_rows = len(qkv)
        parts = qkv.unflatten(-1, (num_q + 2 * num_kv, -1))
        turn_(parts[:, : num_q + num_kv], cos, sin)
        kv = parts[:, num_q:].unflatten(1, (2, num_kv))  # [N, 2, K, D]
        if self.mask is None:
            store[:, :num_rows, :, self.span - 1] = kv.transpose(0, 1)
        else:
            store[:, torch.arange(num_rows, device=qkv.device), :, self.lengths] = kv
        keys, values = store[:, :num_rows, :, : self.span]
        # The heads that share a key are rows of one small product, so that keys are read once.
        queries = (parts[:, :num_q] * parts.shape[-1] ** -0.5).unflatten(1, (num_kv, -1))
        scores = queries @ keys.transpose(-1, -2)
        if self.mask is not None:
            scores += self.mask
        return (scores.softmax(-1) @ values).flatten(1)
