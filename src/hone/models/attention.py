"""Causal attention over flat batches, in which sequences lie one after the other without padding.

A `Layout` says which tokens belong together. A run of tokens sees itself causally and, where it continues another run
(a completion its prompt), all of that one: so the prompt of a group is computed once, for all its completions. It knows
tensors only, neither where keys are kept nor what a token means.

Axes: T tokens, A attention heads, K key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hone.algo import kernels
from hone.types import Segment


@dataclass(frozen=True, slots=True)
class Layout:
    """How the tokens of a flat batch belong together."""

    positions: Tensor  # [T] each token's position in its sequence
    runs: Tensor  # [3, R] the first tokens, the lengths and the parents (-1: none) of the runs, on the CPU

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Layout:
        """Lay runs out one after the other, in their order.

        Raises `ValueError` where a parent does not come before its runs, or continues another one itself.
        """
        lengths = torch.tensor([segment.length for segment in segments])
        parents = torch.tensor([-1 if segment.parent is None else segment.parent for segment in segments])
        if (parents >= torch.arange(len(parents))).any() or (parents[parents[parents >= 0]] >= 0).any():
            raise ValueError("a run continues a later one, or one that continues another")
        first = torch.where(parents < 0, 0, lengths[parents])
        starts = lengths.cumsum(0) - lengths
        positions = torch.arange(int(lengths.sum())) + (first - starts).repeat_interleave(lengths)
        return cls(positions, torch.stack((starts, lengths, parents)))

    def to(self, device: torch.device) -> Layout:
        """Return the layout with its positions on a device."""
        return Layout(self.positions.to(device), self.runs)


def attend(qkv: Tensor, cos: Tensor, sin: Tensor, layout: Layout, heads: tuple[int, int]) -> Tensor:
    """Return what each token attends to, [T, A * D], from its projections `qkv` [T, (A + 2K) * D].

    `cos` and `sin` [T, D/2] are the rotary angles of the tokens; `heads` are A and K. `qkv` is turned in place.
    Raises `ValueError` where the layout is of other tokens, or `qkv` has gaps in memory.
    """
    if len(qkv) != len(layout.positions) or not qkv.is_contiguous():
        raise ValueError(f"projections of {len(qkv)} tokens for a layout of {len(layout.positions)}, or with gaps")
    if kernels.usable(qkv):
        return _Attend.apply(qkv, cos, sin, layout, heads)  # type: ignore[no-untyped-call]
    return attend_by_segment(qkv, cos, sin, layout, heads)


def attend_by_segment(qkv: Tensor, cos: Tensor, sin: Tensor, layout: Layout, heads: tuple[int, int]) -> Tensor:
    """Do the same by torch's public attention, run after run: without the loops in C, and as the test's witness."""
    num_q, num_kv = heads
    parts = qkv.unflatten(-1, (num_q + 2 * num_kv, -1))
    if torch.is_grad_enabled():
        parts = torch.cat((turned(parts[:, : num_q + num_kv], cos, sin), parts[:, num_q + num_kv :]), 1)
    else:
        turn_(parts[:, : num_q + num_kv], cos, sin)
    q, k, v = parts.split((num_q, num_kv, num_kv), 1)
    out: list[Tensor] = []
    runs = layout.runs.t().tolist()
    for start, length, parent in runs:
        own, mask = slice(start, start + length), None
        seen = [own]
        if parent >= 0:
            from torch.nn.attention.bias import causal_lower_right  # seconds to import: it takes torch's compiler along

            seen = [slice(runs[parent][0], runs[parent][0] + runs[parent][1]), own]
            mask = causal_lower_right(length, runs[parent][1] + length)
        keys, values = (torch.cat([x[part] for part in seen]).transpose(0, 1)[None] for x in (k, v))
        attended = F.scaled_dot_product_attention(
            q[own].transpose(0, 1)[None], keys, values, attn_mask=mask, is_causal=mask is None,
            enable_gqa=num_q != num_kv,
        )  # fmt: skip
        out.append(attended[0].transpose(0, 1).flatten(1))
    return torch.cat(out)


class _Attend(torch.autograd.Function):
    """The rotation and the attention, with the gradients of all projections in one tensor."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, layout: Layout, heads: tuple[int, int]) -> Tensor:
        turn_(_turning(qkv, heads), cos, sin)  # nobody else reads the projections: no copy
        out, normalisers = kernels.attention(qkv, layout.runs, heads)
        ctx.save_for_backward(qkv, out, normalisers, cos, sin)
        ctx.runs, ctx.heads = layout.runs, heads
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        qkv, out, normalisers, cos, sin = ctx.saved_tensors
        found = kernels.attention_backward(qkv, ctx.runs, out, normalisers, grad, ctx.heads)
        turn_(_turning(found, ctx.heads), cos, -sin)
        return found, None, None, None, None


def _turning(qkv: Tensor, heads: tuple[int, int]) -> Tensor:
    """Return the queries and keys [T, A + K, D] of projections."""
    return qkv.unflatten(-1, (heads[0] + 2 * heads[1], -1))[:, : sum(heads)]


def turn_(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn head vectors [T, heads, D] in place by their tokens' angles [T, D/2]; i is paired with i + D/2."""
    if kernels.usable(x):
        kernels.turn_(x, cos, sin)
        return
    first, second = x.chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    crossed = first * sin
    first.mul_(cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).add_(crossed)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Do the same into a new tensor, for autograd."""
    first, second = x.chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
