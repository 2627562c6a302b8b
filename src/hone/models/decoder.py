"""One decoder for the Llama, Qwen2 and Qwen3 families; it serves both the sampler and the trainer.

RMSNorm, rotary positions, grouped-query attention, SwiGLU, with the families' optional biases, query and key norms
and tied embeddings. Projections that read the same input are one matrix in memory; `loading` splits them for the
Hugging Face layout. The module knows tensors only: no text, no sampling, no loss.

Axes: N sequences, S positions, H hidden, A attention heads, K key/value heads, D head size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hone.types import HoneError

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

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.reset_rotary()

    def reset_rotary(self) -> None:
        """Compute the rotary tables, which no folder stores; needed after building on the meta device."""
        cos, sin = rotary_tables(self.config)
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

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Return hidden states [N, S, H] of right-padded `ids` [N, S]; padding after a token cannot reach it.

        With a cache, the keys and values of the S positions are written to its rows 0 to N from position 0.
        """
        length = ids.shape[1]
        if length > self.config.max_position_embeddings:
            raise HoneError(
                f"a sequence of {length} tokens is longer than the model's {self.config.max_position_embeddings} "
                "positions"
            )
        x = self.embed_tokens(ids)
        rotary = self.cos[:length], self.sin[:length]
        for index, layer in enumerate(self.layers):
            x = layer(x, rotary, cache and cache.layer(index))
        return self.norm(x)

    def decode(self, ids: Tensor, lengths: Tensor, cache: Cache) -> Tensor:
        """Return hidden states [N, H] of one new token a row, `ids` [N], each at position `lengths` [N] of its row."""
        x = self.embed_tokens(ids)
        rotary = self.cos[lengths, None], self.sin[lengths, None]
        span = int(lengths.max()) + 1
        mask = torch.where(torch.arange(span) <= lengths[:, None], 0.0, -math.inf).to(x.dtype)[:, None, None]
        rows = torch.arange(len(ids))
        for index, layer in enumerate(self.layers):
            x = layer.decode(x, rotary, cache.layer(index), rows, lengths, span, mask)  # type: ignore[operator]
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Project hidden states [..., H] to logits [..., V]."""
        return self.lm_head(hidden)


class Layer(nn.Module):
    """Attention and SwiGLU, each behind a norm and around a residual."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.sizes = config.qkv_sizes
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.qkv_proj = nn.Linear(config.hidden_size, sum(self.sizes), bias=config.qkv_bias)
        self.o_proj = nn.Linear(self.sizes[0], config.hidden_size, bias=config.attention_bias)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps) if config.qk_norm else None
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: tuple[Tensor, Tensor] | None) -> Tensor:
        q, k, v = self._qkv(x, rotary)  # [N, A or K, S, D]
        if cache is not None:
            cache[0][: len(x), :, : x.shape[1]] = k
            cache[1][: len(x), :, : x.shape[1]] = v
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        return self._mlp(x + self.o_proj(attended.transpose(1, 2).flatten(2)))

    def decode(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: tuple[Tensor, Tensor],
        rows: Tensor, lengths: Tensor, span: int, mask: Tensor,
    ) -> Tensor:  # fmt: skip
        q, k, v = self._qkv(x[:, None], (rotary[0][:, None], rotary[1][:, None]))
        keys, values = cache
        keys[rows, :, lengths] = k[:, :, 0]
        values[rows, :, lengths] = v[:, :, 0]
        keys, values = keys[: len(x), :, :span], values[: len(x), :, :span]
        # The heads that share a key are rows of one small product, so that keys are read once.
        q = q.view(len(x), self.kv_heads, -1, self.head_dim)
        scores = (q @ keys.transpose(-1, -2)) * self.head_dim**-0.5 + mask
        attended = scores.softmax(-1) @ values
        return self._mlp(x + self.o_proj(attended.reshape(len(x), -1)))

    def _qkv(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.qkv_proj(self.input_layernorm(x)).split(self.sizes, -1)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(-2, -3) for part in parts)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return rotate(q, *rotary), rotate(k, *rotary), v

    def _mlp(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(self.post_attention_layernorm(x)).chunk(2, -1)
        return x + self.down_proj(F.silu(gate) * up)


class Cache:
    """Preallocated keys and values of `num_rows` sequences of up to `num_positions` tokens, for all layers."""

    def __init__(self, config: DecoderConfig, num_rows: int, num_positions: int, like: Tensor) -> None:
        shape = (
            config.num_hidden_layers, 2, num_rows, config.num_key_value_heads, num_positions, config.head_dim
        )  # fmt: skip
        # Zeros: a masked place has weight 0, and 0 times what memory happened to hold may be NaN.
        self.store = like.new_zeros(shape)

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the keys and the values of one layer, each [rows, K, positions, D]."""
        return self.store[index, 0], self.store[index, 1]

    def rows_from(self, first: int) -> Cache:
        """Return a view of the same cache whose row 0 is row `first`."""
        view = Cache.__new__(Cache)
        view.store = self.store[:, :, first:]
        return view

    def spread(self, source: int, to: slice, span: int) -> None:
        """Copy the first `span` positions of one row into all the rows `to`."""
        self.store[:, :, to, :, :span] = self.store[:, :, source, None, :, :span]

    def move(self, source: Tensor, to: Tensor, span: int) -> None:
        """Copy the first `span` positions of the rows `source` [N] into the rows `to` [N]."""
        self.store[:, :, to, :, :span] = self.store[:, :, source, :, :span]


class _Rotate(torch.autograd.Function):
    """The rotation in two passes over the data each way; its gradient is the rotation back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    turned = torch.empty_like(x)
    low, high = turned.chunk(2, -1)
    torch.mul(first, cos, out=low).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=high).addcmul_(first, sin)
    return turned


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn head vectors [..., S, D] by their positions' angles, [S, D/2]; element i is paired with i + D/2."""
    return _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]


def rotary_tables(config: DecoderConfig) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [positions, D/2] of the rotary angles, scaled as `rope_scaling` says."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = _scale_frequencies(1.0 / config.rope_theta**exponents, config.rope_scaling)
    angles = torch.outer(torch.arange(config.max_position_embeddings, dtype=torch.float32), frequencies)
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
