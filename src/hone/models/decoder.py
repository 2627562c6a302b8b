"""One decoder for the Llama, Qwen2 and Qwen3 families; it serves both the sampler and the trainer.

RMSNorm, rotary positions, grouped-query attention, SwiGLU, with the families' optional biases, query and key norms
and tied embeddings. Projections that read the same input are one matrix in memory; `loading` splits them for the
Hugging Face layout. The module knows tensors only: no text, no sampling, no loss.

Axes: N sequences, S positions, T tokens, H hidden, I intermediate, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hone.algo import kernels
from hone.algo.products import Panels, Product, linear, prepack
from hone.models.attention import Layout, attend
from hone.models.cache import Cache, Prompts
from hone.types import HoneError, Segment

ModelType = Literal["llama", "qwen2", "qwen3"]
MODEL_TYPES: tuple[ModelType, ...] = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The shape of a decoder, with the names of Hugging Face's `config.json`."""

    model_type: ModelType
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: Mapping[str, Any] | None = None
    tie_word_embeddings: bool = True
    attention_bias: bool = False  # Llama's switch: biases on all four projections of the attention
    mlp_bias: bool = False

    @property
    def qkv_bias(self) -> bool:
        return self.model_type == "qwen2" or self.attention_bias

    @property
    def qk_norm(self) -> bool:
        return self.model_type == "qwen3"

    @property
    def qkv_sizes(self) -> tuple[int, int, int]:
        key = self.num_key_value_heads * self.head_dim
        return self.num_attention_heads * self.head_dim, key, key

    @property
    def cache_bytes(self) -> int:
        """Bytes that one token's keys and values take, in float32."""
        return 8 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise HoneError(
                f"model config: {self.num_attention_heads} attention heads are not a multiple of "
                f"{self.num_key_value_heads} key/value heads"
            )


class Decoder(nn.Module):
    """A causal language model: ids in, hidden states out; `logits` projects those that are asked for."""

    cos: Tensor
    sin: Tensor
    # While there are packed copies for the loops: where weights lie (`kernels.decode`), and what keeps them there.
    _packed: tuple[Tensor, list[Product | None]] | None = None

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        cos, sin = rotary_tables(config)  # which no folder stores
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def reset_parameters(self, seed: int) -> None:
        """Draw fresh weights: normal with deviation 0.02, the residual branches' outputs smaller by depth (GPT-2)."""
        generator = torch.Generator().manual_seed(seed)
        depth = math.sqrt(2 * len(self.layers))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim > 1:
                    narrow = name.endswith(("o_proj.weight", "down_proj.weight"))
                    parameter.normal_(std=0.02 / depth if narrow else 0.02, generator=generator)
                elif name.endswith("bias"):
                    parameter.zero_()

    def forward(self, ids: Tensor) -> Tensor:
        """Return hidden states [N, S, H] of right-padded `ids` [N, S]; padding after a token cannot reach it."""
        layout = Layout.of([Segment(ids.shape[1])] * len(ids))
        return self.flat(ids.flatten(), layout).unflatten(0, tuple(ids.shape))

    def flat(self, ids: Tensor, layout: Layout, prompts: Prompts | None = None) -> Tensor:
        """Return hidden states [T, H] of a flat batch of `ids` [T]; `prompts` takes its keys and values to a cache."""
        longest = 1 + int(layout.positions.max())
        if longest > self.config.max_position_embeddings:
            raise HoneError(
                f"a sequence of {longest} tokens is longer than the model's {self.config.max_position_embeddings} "
                "positions"
            )
        layout = layout.to(ids.device)
        cos, sin = self.cos[layout.positions], self.sin[layout.positions]

        def attention(index: int, qkv: Tensor) -> Tensor:
            attended = attend(qkv, cos, sin, layout, self.heads)
            if prompts is not None:  # `qkv` is turned by now
                prompts.fill(index, qkv.unflatten(-1, (-1, self.config.head_dim))[:, self.heads[0] :])
            return attended

        return self._through(ids, attention)

    def decode(self, ids: Tensor, cache: Cache) -> Tensor:
        """Return hidden states [N, H] of one new token a row, `ids` [N], after what the cache's first N rows hold."""
        step = cache.advance(len(ids))
        packed = self._packed
        if packed is None:
            cos, sin = self.cos[step.lengths], self.sin[step.lengths]
            return self._through(ids, lambda index, qkv: step.attend(index, qkv, cos, sin, self.heads))
        return kernels.decode(
            self.embed_tokens(ids), packed[0], self.norm.weight, self.cos, self.sin, cache.store, step.lengths,
            step.span, self.config.num_attention_heads, self.config.intermediate_size, self.norm.eps,
        )  # fmt: skip

    def cache(self, num_rows: int, num_positions: int) -> Cache:
        """Return an empty cache for this model."""
        sizes = self.config.num_key_value_heads, num_positions, self.config.head_dim
        return Cache(len(self.layers), num_rows, *sizes, self.norm.weight)

    def _through(self, ids: Tensor, attention: Callable[[int, Tensor], Tensor]) -> Tensor:
        x = self.embed_tokens(ids)
        for index, layer in enumerate(self.layers):
            x = layer(x, index, attention)
        return self.norm(x)

    @property
    def heads(self) -> tuple[int, int]:
        return self.config.num_attention_heads, self.config.num_key_value_heads

    def logits(self, hidden: Tensor) -> Tensor:
        """Project hidden states [..., H] to logits [..., V]."""
        return self.lm_head(hidden)

    @contextmanager
    def prepacked(self) -> Iterator[None]:
        """Multiply, inside, without gradients and by copies of the weights that lie as that is fastest (`prepack`).

        Where there are loops for it, a token is decoded by one call.
        """
        linears = [module for module in self.modules() if isinstance(module, Linear)]
        if all(linear_.packed is not None for linear_ in linears):
            yield  # inside another one
            return
        try:
            for linear_ in linears:
                linear_.packed = prepack(linear_.merged())
            if kernels.usable(self.norm.weight):
                addresses = torch.tensor([cast(Layer, layer).addresses() for layer in self.layers])
                self._packed = addresses, [linear_.packed for linear_ in linears]
            yield
        finally:
            self._packed = None
            for linear_ in linears:
                linear_.packed = None


class Embedding(nn.Embedding):
    """The table of the tokens' vectors."""

    def reset_parameters(self) -> None:
        if self.weight.device.type != "meta":  # as for `Linear`
            super().reset_parameters()


class Linear(nn.Linear):
    """A projection; where there is a prepacked copy of its weights it reads that one, without gradients."""

    packed: Product | None = None

    def reset_parameters(self) -> None:
        if self.weight.device.type != "meta":  # there torch would load its compiler to draw nothing: a second
            super().reset_parameters()

    def merged(self) -> Tensor:
        """Return the matrix that the projection comes to."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is None:
            return linear(x, self.weight, self.bias)
        return self.packed(x, self.bias)


class RmsNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019, equation 4)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():  # which spares a decoding step its way through autograd
            return _rms_norm(x, self.weight, self.eps)
        return _RmsNorm.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]


class _RmsNorm(torch.autograd.Function):
    """The normalisation in fewer passes over memory than autograd's own takes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return _rms_norm(x, weight, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if kernels.usable(x):
            return *kernels.rms_norm_backward(x, weight, grad, ctx.eps), None
        # y = w x s with s = (mean(x^2) + eps)^-1/2, so dx = s (g w - n mean(g w n)) with n = x s
        scale = _scale(x, ctx.eps)
        normal = x * scale
        product = grad * normal
        grad_weight = product.flatten(0, -2).sum(0)
        along = (product @ weight)[..., None] / x.shape[-1]
        return (grad * weight).addcmul_(normal, along, value=-1).mul_(scale), grad_weight, None


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return kernels.rms_norm(x, weight, eps) if kernels.usable(x) else (x * _scale(x, eps)).mul_(weight)


def _scale(x: Tensor, eps: float) -> Tensor:
    """Return one over the root mean square of x [..., H], as [..., 1]."""
    return (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_() / x.shape[-1]).add_(eps).rsqrt_()


class _SwiGlu(torch.autograd.Function):
    """silu(gate) * up of one tensor [..., 2I], and the gradient of both in one (Shazeer 2020, equation 6)."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        return _gated(gate_up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        if kernels.usable(gate_up):
            return kernels.swiglu_backward(gate_up, grad)
        gate, up = gate_up.chunk(2, -1)
        found = torch.empty_like(gate_up)
        to_gate, to_up = found.chunk(2, -1)
        torch.mul(grad, F.silu(gate), out=to_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=to_gate)
        return found


def _gated(gate_up: Tensor) -> Tensor:
    if kernels.usable(gate_up):
        return kernels.swiglu(gate_up)
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up [..., I] of `gate_up` [..., 2I]."""
    if not torch.is_grad_enabled():
        return _gated(gate_up)
    return _SwiGlu.apply(gate_up)  # type: ignore[no-untyped-call]


class Layer(nn.Module):
    """Attention and SwiGLU, each behind a norm and around a residual."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.sizes, self.head_dim = config.qkv_sizes, config.head_dim
        self.input_layernorm = RmsNorm(hidden, eps)
        self.qkv_proj = Linear(hidden, sum(self.sizes), bias=config.qkv_bias)
        self.o_proj = Linear(self.sizes[0], hidden, bias=config.attention_bias)
        self.q_norm = RmsNorm(self.head_dim, eps) if config.qk_norm else None
        self.k_norm = RmsNorm(self.head_dim, eps) if config.qk_norm else None
        self.post_attention_layernorm = RmsNorm(hidden, eps)
        self.gate_up_proj = Linear(hidden, 2 * config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = Linear(config.intermediate_size, hidden, bias=config.mlp_bias)

    def forward(self, x: Tensor, index: int, attention: Callable[[int, Tensor], Tensor]) -> Tensor:
        x = x + self.o_proj(attention(index, self._normed(self.qkv_proj(self.input_layernorm(x)))))
        return x + self.down_proj(swiglu(self.gate_up_proj(self.post_attention_layernorm(x))))

    def addresses(self) -> list[int]:
        """Return where the weights lie, those of projections in panels, in the order of `decode.c`; 0 for none."""

        def at(norm: RmsNorm | None) -> list[int]:
            return [0 if norm is None else norm.weight.data_ptr()]

        def both(linear_: Linear) -> list[int]:
            assert isinstance(linear_.packed, Panels)
            return [linear_.packed.panels.data_ptr(), 0 if linear_.bias is None else linear_.bias.data_ptr()]

        return [
            *at(self.input_layernorm), *both(self.qkv_proj), *at(self.q_norm), *at(self.k_norm), *both(self.o_proj),
            *at(self.post_attention_layernorm), *both(self.gate_up_proj), *both(self.down_proj),
        ]  # fmt: skip

    def _normed(self, qkv: Tensor) -> Tensor:
        """Normalise the heads' queries and keys, as Qwen3 does."""
        if self.q_norm is None or self.k_norm is None:
            return qkv
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)) for part in qkv.split(self.sizes, -1))
        return torch.cat((self.q_norm(q), self.k_norm(k), v), -2).flatten(-2)


def rotary_tables(config: DecoderConfig) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [positions, D/2] of the rotary angles, scaled as `rope_scaling` says.

    On the CPU, in a model that is built on the meta device too.
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
    frequencies = _scale_frequencies(1.0 / config.rope_theta**exponents, config.rope_scaling)
    angles = torch.outer(torch.arange(config.max_position_embeddings, dtype=torch.float32, device="cpu"), frequencies)
    return angles.cos(), angles.sin()


def _scale_frequencies(frequencies: Tensor, scaling: Mapping[str, Any] | None) -> Tensor:
    kind = (scaling or {}).get("rope_type", "default")
    if scaling is None or kind == "default":
        return frequencies
    if kind == "linear":
        return frequencies / scaling["factor"]
    if kind == "llama3":
        # Llama 3.1: long waves are stretched by `factor`, short ones kept, those between blended.
        factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        blend = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * (blend + (1 - blend) / factor)
    raise HoneError(f"model config: rope type {kind!r} is not supported (default, linear, llama3 are)")
