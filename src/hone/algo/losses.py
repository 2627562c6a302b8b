"""Losses of single tokens. What averages them is a weight made at packing time, so none of them knows a batch.

Axes: T tokens, V vocabulary, H hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """Return `-min(ratio * A, clip(ratio, 1 - low, 1 + high) * A)` [T] (DeepSeek-R1, equation 1).

    All arguments [T]; gradients flow through `logprobs` alone. The paper clips by one epsilon on both sides.
    """
    ratio = (logprobs - old_logprobs).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


def clipped(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Say of each token [T] whether the clip cuts its gradient off."""
    ratio = (logprobs - old_logprobs).exp()
    return ((ratio > 1 + clip_high) & (advantages > 0)) | ((ratio < 1 - clip_low) & (advantages < 0))


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Return `pi_ref/pi - log(pi_ref/pi) - 1` [T], never negative (DeepSeek-R1, equation 2)."""
    log_ratio = ref_logprobs - logprobs
    return log_ratio.expm1() - log_ratio  # in float32, exp(x) - x - 1 loses a small x and may fall below zero


class _TokenLogprobs(torch.autograd.Function):
    """Log-probabilities of targets, a chunk of tokens at a time, so that no [T, V] tensor is ever whole."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropy, normalisers = (hidden.new_empty(len(targets), dtype=torch.float32) for _ in range(3))
        for start in range(0, len(targets), chunk):
            rows = slice(start, start + chunk)
            logits = (hidden[rows] @ weight.T).float() / temperature
            normalisers[rows] = logits.logsumexp(-1)
            logprobs[rows] = logits.gather(-1, targets[rows, None])[:, 0] - normalisers[rows]
            # H = log Z - E[logit]
            entropy[rows] = normalisers[rows] - (logits.softmax(-1) * logits).sum(-1)
        ctx.save_for_backward(hidden, weight, targets, normalisers)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad_logprobs: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normalisers = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for start in range(0, len(targets), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            logits = (hidden[rows] @ weight.T).float() / ctx.temperature
            # d logprob / d logit = onehot - softmax
            grad = (logits - normalisers[rows, None]).exp_().mul_(-grad_logprobs[rows, None])
            grad.scatter_add_(-1, targets[rows, None], grad_logprobs[rows, None])
            grad = (grad / ctx.temperature).to(hidden.dtype)
            grad_hidden[rows] = grad @ weight
            grad_weight += grad.T @ hidden[rows]
        return grad_hidden, grad_weight, None, None, None


def token_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float = 1.0, chunk_elements: int = 1 << 22
) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities [T] of `targets` [T] and the entropies [T], in nats, float32.

    `hidden` [T, H] is projected by `weight` [V, H] to logits that are divided by `temperature`, as the sampler does.
    At most `chunk_elements` logits exist at a time. Gradients flow through the log-probabilities only.
    """
    chunk = max(1, chunk_elements // len(weight))
    return _TokenLogprobs.apply(hidden, weight, targets, temperature, chunk)  # type: ignore[no-untyped-call, no-any-return]
