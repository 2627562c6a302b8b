"""Low-rank adapters (LoRA, Hu et al. 2021): a frozen matrix W gets a trainable update `scale * B A` of small rank.

They are put on every projection of a decoder's layers. Projections that are one matrix in memory (queries, keys and
values; gate and up) share one A. The module knows neither training nor files.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hone.models.decoder import Decoder, Linear

PROJECTIONS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


class LoraLinear(Linear):
    """A linear map with an adapter: `x W^T + b + scale * (x A^T) B^T` (equation 3); W and b are those of `linear`."""

    def __init__(self, linear: Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.scale = linear.in_features, linear.out_features, alpha / rank
        self.weight, self.bias = linear.weight, linear.bias
        device = linear.weight.device
        drawn = nn.init.kaiming_uniform_(torch.empty(rank, linear.in_features), a=math.sqrt(5), generator=generator)
        self.lora_a = nn.Parameter(drawn.to(device))
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))  # at first nothing

    def forward(self, x: Tensor) -> Tensor:
        whole = super().forward(x)
        if self.packed is not None:  # which is of the merged matrix
            return whole
        return whole + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scale

    def merged(self) -> Tensor:
        """Return `W + scale * B A`, the one matrix that does the same."""
        return self.weight + self.scale * (self.lora_b @ self.lora_a)


def add_lora(model: Decoder, *, rank: int, alpha: float, seed: int) -> None:
    """Freeze a decoder and put an adapter on every projection; at first its output is what it was."""
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for layer in model.layers:
        for name in PROJECTIONS:
            setattr(layer, name, LoraLinear(getattr(layer, name), rank, alpha, generator))


def adapters(model: Decoder) -> dict[str, Tensor]:
    """Return the adapters' matrices by name; none of a decoder without."""
    return {name: tensor for name, tensor in model.state_dict().items() if "lora_" in name}


def merged(model: Decoder) -> Decoder:
    """Return a decoder of the usual matrices that does the same; those that differ are new, the others shared."""
    matrices = {
        f"{name}.weight": module.merged().detach()
        for name, module in model.named_modules()
        if isinstance(module, LoraLinear)
    }
    return _with_matrices(model, matrices)


def without_adapters(model: Decoder) -> Decoder:
    """Return the decoder as it was before `add_lora`; its matrices are shared."""
    return _with_matrices(model, {})


def _with_matrices(model: Decoder, matrices: dict[str, Tensor]) -> Decoder:
    with torch.device("meta"):
        plain = Decoder(model.config)
    state = {name: tensor for name, tensor in model.state_dict().items() if "lora_" not in name}
    plain.load_state_dict(state | matrices, assign=True)
    if model.config.tie_word_embeddings:
        plain.lm_head.weight = plain.embed_tokens.weight
    return plain.requires_grad_(False)
