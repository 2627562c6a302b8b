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

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
FULL_ENOUGH = 0.75  # runs share a padded call while the shortest has this share of the longest


@dataclass(frozen=True, slots=True)
class Bucket:
    """Runs of similar length, computed as one padded batch: `rows` are flat indices [N, S].

    Where nothing is padded, `rows` are consecutive from `start` and the arrays are mere views; else `source` are the
    real places of the flattened rows and `target` their tokens.
    """

    rows: Tensor
    start: int | None
    source: Tensor
    target: Tensor

    def take(self, x: Tensor) -> Tensor:
        """Return the bucket's part [N, heads, S, D] of x [T, heads, D]."""
        if self.start is None:
            return x[self.rows].transpose(1, 2)
        return x[self.start : self.start + self.rows.numel()].unflatten(0, tuple(self.rows.shape)).transpose(1, 2)

    def put(self, x: Tensor, found: Tensor) -> None:
        """Write the bucket's part, [N, heads, S, ...], into x [T, heads, ...]."""
        flat = found.transpose(1, 2).flatten(0, 1)
        if self.start is None:
            x.index_copy_(0, self.target, flat.index_select(0, self.source))
        else:
            x[self.start : self.start + len(flat)] = flat


@dataclass(frozen=True, slots=True)
class Layout:
    """How the tokens of a flat batch belong together.

    `continued`: pairs of the tokens that continue a run and those of that run, as slices.
    """

    segments: tuple[Segment, ...]
    positions: Tensor  # [T] each token's position in its sequence
    buckets: tuple[Bucket, ...]
    continued: tuple[tuple[slice, slice], ...]

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Layout:
        """Lay runs out one after the other, in their order."""
        starts = [0]
        for segment in segments:
            starts.append(starts[-1] + segment.length)
        first = [0 if one.parent is None else segments[one.parent].length for one in segments]
        positions = torch.cat([torch.arange(p, p + one.length) for p, one in zip(first, segments, strict=True)])
        return cls(tuple(segments), positions, _buckets(segments, starts), _continued(segments, starts))

    def to(self, device: torch.device) -> Layout:
        """Return the layout with its positions on a device; buckets are for the CPU alone."""
        return self if device.type == "cpu" else Layout(self.segments, self.positions.to(device), (), self.continued)


def _buckets(segments: Sequence[Segment], starts: Sequence[int]) -> tuple[Bucket, ...]:
    order = sorted(range(len(segments)), key=lambda n: (-segments[n].length, n))
    found = []
    while order:
        longest = segments[order[0]].length
        size = sum(segments[n].length >= FULL_ENOUGH * longest for n in order)
        chosen, order = sorted(order[:size]), order[size:]
        lengths = torch.tensor([segments[n].length for n in chosen])[:, None]
        first = torch.tensor([starts[n] for n in chosen])[:, None]
        places = torch.arange(longest)
        rows = first + torch.minimum(places, lengths - 1)  # padding repeats the last token: any real one would do
        source = (places < lengths).flatten().nonzero()[:, 0]
        whole = bool((rows.flatten() == torch.arange(rows.numel()) + starts[chosen[0]]).all())
        found.append(Bucket(rows, starts[chosen[0]] if whole else None, source, rows.flatten()[source]))
    return tuple(found)


def _continued(segments: Sequence[Segment], starts: Sequence[int]) -> tuple[tuple[slice, slice], ...]:
    found: list[tuple[slice, slice]] = []
    for number, segment in enumerate(segments):
        if segment.parent is None:
            continue
        keys = slice(starts[segment.parent], starts[segment.parent + 1])
        queries = slice(starts[number], starts[number + 1])
        if found and found[-1][1] == keys and found[-1][0].stop == queries.start:
            queries = slice(found.pop()[0].start, queries.stop)
        found.append((queries, keys))
    return tuple(found)


def attend(qkv: Tensor, cos: Tensor, sin: Tensor, layout: Layout, heads: tuple[int, int]) -> Tensor:
    """Return what each token attends to, [T, A * D], from its projections `qkv` [T, (A + 2K) * D].

    `cos` and `sin` [T, D/2] are the rotary angles of the tokens; `heads` are A and K. `qkv` is turned in place.
    """
    if qkv.device.type == "cpu":
        return _Attend.apply(qkv, cos, sin, layout, heads)  # type: ignore[no-untyped-call]
    return attend_by_segment(qkv, cos, sin, layout, heads)


def attend_by_segment(qkv: Tensor, cos: Tensor, sin: Tensor, layout: Layout, heads: tuple[int, int]) -> Tensor:
    """Do the same by torch's public attention, run after run: for other devices, and as the test's witness."""
    from torch.nn.attention.bias import causal_lower_right  # seconds to import: it takes torch's compiler along

    num_q, num_kv = heads
    parts = qkv.unflatten(-1, (num_q + 2 * num_kv, -1))
    if torch.is_grad_enabled():
        parts = torch.cat((turned(parts[:, : num_q + num_kv], cos, sin), parts[:, num_q + num_kv :]), 1)
    else:
        turn_(parts[:, : num_q + num_kv], cos, sin)
    q, k, v = parts.split((num_q, num_kv, num_kv), 1)
    out: list[Tensor] = []
    begins: list[slice] = []
    start = 0
    for segment in layout.segments:
        begins.append(slice(start, start + segment.length))
        own = [begins[-1]] if segment.parent is None else [begins[segment.parent], begins[-1]]
        keys, values = (torch.cat([x[part] for part in own]).transpose(0, 1)[None] for x in (k, v))
        queries = q[begins[-1]].transpose(0, 1)[None]
        mask = causal_lower_right(segment.length, keys.shape[2])
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=num_q != num_kv)
        out.append(attended[0].transpose(0, 1).flatten(1))
        start += segment.length
    return torch.cat(out)


class _Attend(torch.autograd.Function):
    """The rotation and the attention, with the gradients of all projections in one tensor.

    The parts of a continued run's attention, over itself and over what it continues, are joined by their normalisers;
    the joint result and normaliser then give each part's own gradients (Liu et al. 2023, Ring Attention). Memory is
    linear in the length.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, layout: Layout, heads: tuple[int, int]) -> Tensor:
        num_q, num_kv = heads
        parts = qkv.unflatten(-1, (num_q + 2 * num_kv, -1))
        turn_(parts[:, : num_q + num_kv], cos, sin)  # nobody else reads the projections: no copy
        q, k, v = parts.split((num_q, num_kv, num_kv), 1)
        out, normalisers = torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(q.shape[:2])
        for bucket in layout.buckets:
            found, norm = _flash(bucket.take(q), bucket.take(k), bucket.take(v), 0.0, True)
            bucket.put(out, found)
            bucket.put(normalisers, norm)
        for queries, keys in layout.continued:
            found, norm = _flash(_batch(q[queries]), _batch(k[keys]), _batch(v[keys]), 0.0, False)
            _join(out[queries], normalisers[queries], found[0].transpose(0, 1), norm[0].transpose(0, 1))
        ctx.save_for_backward(qkv, out, normalisers, cos, sin)
        ctx.layout, ctx.heads = layout, heads
        return out.flatten(1)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        qkv, out, normalisers, cos, sin = ctx.saved_tensors
        num_q, num_kv = ctx.heads
        q, k, v = qkv.unflatten(-1, (num_q + 2 * num_kv, -1)).split((num_q, num_kv, num_kv), 1)
        grad_out = grad_out.unflatten(-1, (num_q, -1))
        grad_qkv = torch.empty_like(qkv)
        parts = grad_qkv.unflatten(-1, (num_q + 2 * num_kv, -1))
        grads = parts.split((num_q, num_kv, num_kv), 1)
        for bucket in ctx.layout.buckets:
            inputs = [bucket.take(x) for x in (grad_out, q, k, v, out)]
            if bucket.start is None:
                inputs[0] = _without_padding(inputs[0], bucket)
            found = _flash_backward(*inputs, bucket.take(normalisers[..., None])[..., 0], 0.0, True)
            for grad, part in zip(grads, found, strict=True):
                bucket.put(grad, part)
        for queries, keys in ctx.layout.continued:
            inputs = [_batch(x) for x in (grad_out[queries], q[queries], k[keys], v[keys], out[queries])]
            found = _flash_backward(*inputs, normalisers[queries].transpose(0, 1)[None], 0.0, False)
            for grad, part, where in zip(grads, found, (queries, keys, keys), strict=True):
                grad[where] += part[0].transpose(0, 1)
        turn_(parts[:, : num_q + num_kv], cos, -sin)
        return grad_qkv, None, None, None, None


def _batch(x: Tensor) -> Tensor:
    """Return tokens [T, heads, D] as a batch of one, [1, heads, T, D]."""
    return x.transpose(0, 1)[None]


def _without_padding(grad: Tensor, bucket: Bucket) -> Tensor:
    """Zero the gradients [N, A, S, D] of padded places, which repeat a real token's."""
    real = torch.zeros(bucket.rows.numel()).index_fill_(0, bucket.source, 1).view(len(bucket.rows), 1, -1, 1)
    return grad * real


def _join(out: Tensor, normalisers: Tensor, more: Tensor, more_normalisers: Tensor) -> None:
    """Add to attention [T, A, D] over some keys, and its log-normalisers [T, A], that over more keys; in place."""
    joint = torch.logaddexp(normalisers, more_normalisers)
    out.mul_((normalisers - joint).exp_()[..., None]).addcmul_(more, (more_normalisers - joint).exp_()[..., None])
    normalisers.copy_(joint)


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
