"""Losses of single tokens, and of whole responses (reward models). What averages them is a weight from outside, for
tokens one made at packing time, so none of them knows a batch.

Axes: N responses, T tokens, V vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hone.algo import kernels
from hone.algo.products import prepack


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


def token_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float = 1.0, chunk_elements: int = 1 << 23
) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities [T] of `targets` [T] and the entropies [T], in nats, float32, without gradients.

    `hidden` [T, H] is projected by `weight` [V, H] to logits that are divided by `temperature`, as the sampler does.
    At most `chunk_elements` logits exist at a time, so that no [T, V] tensor is ever whole.
    """
    found = hidden.new_empty((2, len(targets)), dtype=torch.float32)
    with torch.no_grad():
        product = prepack(weight)
        for rows in _chunks(len(targets), len(weight), chunk_elements):
            found[0, rows], found[1, rows], _ = _figures(product(hidden[rows] / temperature).float(), targets[rows])
    return found[0], found[1]


# Returns the loss, a sum, of some tokens by their log-probabilities [T] and their entropies [T]; the slice says which.
ChunkLoss = Callable[[Tensor, Tensor, slice], Tensor]


def loss_backward(
    hidden: Tensor, weight: Tensor, targets: Tensor, loss: ChunkLoss, *,
    temperature: float = 1.0, chunk_elements: int = 1 << 23,
) -> Tensor:  # fmt: skip
    """Return the gradient [T, H] of a loss of log-probabilities for `hidden` [T, H]; add that of `weight` [V, H] to it.

    As `token_logprobs` does, but each chunk's gradients are taken while its logits are there, so that they are computed
    once: the loss is a sum over tokens, and needs of the others nothing but weights that were fixed before.
    """
    grad_hidden = torch.empty_like(hidden)
    with torch.no_grad():
        product, product_backward = prepack(weight), prepack(weight.t())
        for rows in _chunks(len(targets), len(weight), chunk_elements):
            scaled = hidden[rows] / temperature
            logits = product(scaled).float()
            logprobs, entropies, normalisers = _figures(logits, targets[rows])
            with torch.enable_grad():
                (grad,) = torch.autograd.grad(loss(logprobs.requires_grad_(), entropies, rows), logprobs)
            _to_gradients_(logits, normalisers, targets[rows], grad)
            grad_logits = logits.to(hidden.dtype)
            grad_hidden[rows] = product_backward(grad_logits) / temperature
            if weight.requires_grad:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                weight.grad.addmm_(grad_logits.t(), scaled)
    return grad_hidden


def _chunks(count: int, vocabulary: int, chunk_elements: int) -> Iterator[slice]:
    size = max(1, chunk_elements // vocabulary)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _figures(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the targets' log-probabilities, the entropies, and log sum exp of the logits [T, V], each [T]."""
    if kernels.usable(logits):
        return kernels.token_figures(logits, targets)
    normalisers = logits.logsumexp(-1)
    logprobs = logits - normalisers[:, None]
    entropies = -torch.linalg.vecdot(logprobs.exp(), logprobs)
    return logprobs.gather(-1, targets[:, None])[:, 0], entropies, normalisers


def _to_gradients_(logits: Tensor, normalisers: Tensor, targets: Tensor, grads: Tensor) -> None:
    """Turn logits [T, V] into their gradients, of those of the log-probabilities [T]: d logprob = onehot - softmax."""
    if kernels.usable(logits):
        kernels.logit_gradients_(logits, normalisers, targets, grads)
    else:
        probs = logits.sub_(normalisers[:, None]).exp_()
        probs.mul_(-grads[:, None]).scatter_add_(-1, targets[:, None], grads[:, None])


def _log_softmaxes(
    hidden: Tensor, weight: Tensor, teacher_hidden: Tensor, teacher_weight: Tensor, chunk: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield tokens, `chunk` at a time, with their log-probabilities [T, V] by the student and by the teacher."""
    student, teacher = prepack(weight), prepack(teacher_weight)
    for start in range(0, len(hidden), chunk):
        rows = slice(start, start + chunk)
        yield (
            rows,
            student(hidden[rows]).float().log_softmax(-1),
            teacher(teacher_hidden[rows]).float().log_softmax(-1),
        )


Direction = Literal["forward", "reverse"]


class _DistributionKl(torch.autograd.Function):
    """Divergences of two whole distributions, a chunk of tokens at a time, so that no [T, V] tensor is ever whole."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, teacher_hidden: Tensor, teacher_weight: Tensor,
        reverse: bool, chunk: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        kl, entropy = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(2))
        for rows, student, teacher in _log_softmaxes(hidden, weight, teacher_hidden, teacher_weight, chunk):
            gap = student - teacher
            kl[rows] = (student.exp() * gap).sum(-1) if reverse else -(teacher.exp() * gap).sum(-1)
            entropy[rows] = -(student.exp() * student).sum(-1)
        ctx.save_for_backward(hidden, weight, teacher_hidden, teacher_weight, kl)
        ctx.reverse, ctx.chunk = reverse, chunk
        ctx.mark_non_differentiable(entropy)
        return kl, entropy

    @staticmethod
    def backward(ctx: Any, grad_kl: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, teacher_hidden, teacher_weight, kl = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for rows, student, teacher in _log_softmaxes(hidden, weight, teacher_hidden, teacher_weight, ctx.chunk):
            if ctx.reverse:  # d KL(p || q) / d logit = p (log p - log q - KL)
                grad = student.exp() * (student - teacher - kl[rows, None])
            else:  # d KL(q || p) / d logit = p - q
                grad = student.exp() - teacher.exp()
            grad = (grad * grad_kl[rows, None]).to(hidden.dtype)
            grad_hidden[rows] = grad @ weight
            grad_weight += grad.T @ hidden[rows]
        return grad_hidden, grad_weight, None, None, None, None


def distribution_kl(
    hidden: Tensor, weight: Tensor, teacher_hidden: Tensor, teacher_weight: Tensor, direction: Direction, *,
    chunk_elements: int = 1 << 22,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the divergences [T] of a student from its teacher, and the student's entropies [T], in nats, float32.

    `forward`: KL(teacher || student) (Hinton 2015); `reverse`: KL(student || teacher) (GKD, Agarwal 2024).
    Hidden states [T, H] are projected by weights [V, H] to logits; each model has its own H, and logits beyond the
    smaller V are padding, left out of both. At most `chunk_elements` logits of either exist at a time. Gradients flow
    through the student's divergences only.
    """
    shared = min(len(weight), len(teacher_weight))
    chunk = max(1, chunk_elements // shared)
    student, teacher = (hidden, weight[:shared]), (teacher_hidden, teacher_weight[:shared])
    return _DistributionKl.apply(*student, *teacher, direction == "reverse", chunk)  # type: ignore[no-untyped-call, no-any-return]


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return `-log sigmoid(chosen - rejected)` [N] of the scores of better and worse responses, each [N].

    Bradley and Terry 1952; as the loss of a reward model, Ouyang et al. 2022, equation 1.
    """
    return -F.logsigmoid(chosen - rejected)


def binary_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Return `-y log sigmoid(s) - (1 - y) log sigmoid(-s)` [N], `labels` [N] being 1 or 0 (Bishop 2006, eq. 4.90)."""
    return -labels * F.logsigmoid(scores) - (1 - labels) * F.logsigmoid(-scores)
