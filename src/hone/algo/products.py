"""Products with weight matrices, by the fastest way that there is for them.

For float32 on a CPU these are Hone's own loops (`products.c`; benchmarks/README.md). Without a compiler, prepacked ones
are oneDNN's, which torch carries; all others are torch's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from hone.algo import kernels

ONEDNN_ROWS = 256  # what the layout of oneDNN's matrix is chosen for; it serves fewer rows as well


class Product(Protocol):
    """`x weight^T + bias` [..., C] of x [..., K], for one weight [C, K]."""

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Panels:
    """The product by the loops, with a weight [C, K] that lies in panels."""

    panels: Tensor
    columns: int  # C

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return kernels.multiply(x, self.panels, self.columns, bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x weight^T + bias` [..., C] of x [..., K] and weight [C, K]."""
    if not (kernels.usable(x) and kernels.usable(weight)):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call, no-any-return]


def prepack(weight: Tensor) -> Product:
    """Return the product with a matrix [C, K], without gradients, by a copy that lies as it is multiplied fastest.

    Where that is torch's own product, it is by the matrix itself.
    """
    weight = weight.detach()
    if kernels.usable(weight):
        return Panels(kernels.pack(weight), len(weight))
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        ordered = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ONEDNN_ROWS)
        return lambda x, bias=None: torch.ops.mkldnn._linear_pointwise(x, ordered, bias, "none", [], "")
    return lambda x, bias=None: F.linear(x, weight, bias)


class _Linear(torch.autograd.Function):
    """The product by the loops; arranging the weights for it takes as long as forty more rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return prepack(weight)(x, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        flat = grad.flatten(0, -2)
        return (
            prepack(weight.t())(grad) if to_x else None,
            flat.t() @ x.flatten(0, -2) if to_weight else None,  # torch's own is faster at long sums
            flat.sum(0) if to_bias else None,
        )
