"""Products with weight matrices, by the fastest kernel that torch carries for them.

On a CPU that is oneDNN's: on small batches twice as fast as the product that torch chooses by itself, on large ones a
tenth (benchmarks/README.md). Other devices and types take torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

PREPACKED_ROWS = 256  # what the layout of a prepacked matrix is chosen for; it serves fewer rows as well


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x weight^T + bias` [..., N] of x [..., K] and weight [N, K]."""
    if not _has_onednn(x):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call, no-any-return]


def prepack(weight: Tensor) -> Tensor | None:
    """Return a copy of a matrix in the layout in which oneDNN multiplies fastest; None where it cannot be used."""
    if not _has_onednn(weight):
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), PREPACKED_ROWS)
    return packed


def linear_prepacked(x: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what `linear` returns, without gradients, by a matrix that `prepack` rearranged."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return found


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear_prepacked(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        flat = grad.flatten(0, -2)
        return (
            linear_prepacked(grad, weight.t()) if to_x else None,
            flat.t() @ x.flatten(0, -2) if to_weight else None,
            flat.sum(0) if to_bias else None,
        )


def _has_onednn(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
