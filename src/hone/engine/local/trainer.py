"""Turns packed batches into gradients and gradients into steps, on one device.

It knows no algorithm: a token loss is given to it, and every normaliser is in the weights of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hone.algo.losses import Direction, distribution_kl, token_logprobs
from hone.algo.packing import pack
from hone.engine.base import TokenBatch, TokenLoss
from hone.models.decoder import Decoder
from hone.types import Floats, MicroBatch, PackedBatch, RunError, Sample


class Trainer:
    """AdamW over one decoder."""

    def __init__(
        self, model: Decoder, *, weight_decay: float = 0.0, max_grad_norm: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.95), micro_batch_tokens: int = 4096,
    ) -> None:  # fmt: skip
        self.model, self.max_grad_norm, self.micro_batch_tokens = model, max_grad_norm, micro_batch_tokens
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim <= 1]  # norms and biases are not decayed
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], betas=betas, fused=True)

    def forward_backward(
        self, batch: PackedBatch, token_loss: TokenLoss, *, temperature: float = 1.0
    ) -> dict[str, float]:
        def losses(micro_batch: MicroBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
            logprobs, entropy = _forward(self.model, micro_batch, temperature)
            found, figures = token_loss(logprobs, token_batch(micro_batch))
            return found, {"policy/entropy": entropy, **figures}

        return self._backward(batch, losses)

    def distill_backward(self, batch: PackedBatch, teacher: Decoder, direction: Direction) -> dict[str, float]:
        """Do the same with the loss of a token its divergence from the teacher, over the whole vocabulary."""

        def losses(micro_batch: MicroBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
            with torch.no_grad():
                taught = _hidden(teacher, micro_batch), teacher.lm_head.weight
            hidden, weight = _hidden(self.model, micro_batch), self.model.lm_head.weight
            kl, entropy = distribution_kl(hidden, weight, *taught, direction)
            return kl, {"policy/entropy": entropy}

        return self._backward(batch, losses)

    def _backward(
        self, batch: PackedBatch, losses: Callable[[MicroBatch], tuple[Tensor, Mapping[str, Tensor]]]
    ) -> dict[str, float]:
        """Add the gradients of the weighted losses; return `loss` and the figures' means over the tokens."""
        sums: dict[str, float] = {}
        loss = 0.0
        for micro_batch in batch.micro_batches:
            found, figures = losses(micro_batch)
            weighted = (found * torch.from_numpy(micro_batch.weights)).sum()
            if not math.isfinite(value := weighted.item()):
                raise RunError(f"the loss is {value}")
            weighted.backward()  # type: ignore[no-untyped-call]
            loss += value
            for name, figure in figures.items():
                sums[name] = sums.get(name, 0.0) + figure.detach().float().sum().item()
        return {"loss": loss, **{name: total / max(1, batch.num_loss_tokens) for name, total in sums.items()}}

    def optim_step(self, learning_rate: float) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm).item()
        if not math.isfinite(norm):
            raise RunError(f"the norm of the gradients is {norm}")
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @torch.inference_mode()
    def logprobs(
        self, samples: Sequence[Sample], *, temperature: float = 1.0, model: Decoder | None = None
    ) -> list[Floats]:
        """Return the log-probabilities [T] of each sample's completion, under another model where one is given."""
        # The weight of a token carries its sample's number through the sorting.
        batch = pack(samples, range(len(samples)), micro_batch_tokens=self.micro_batch_tokens)
        found: list[Floats] = [np.empty(0, np.float32)] * len(samples)
        for micro_batch in batch.micro_batches:
            logprobs = _forward(model or self.model, micro_batch, temperature)[0].numpy()
            owners = micro_batch.weights.astype(np.int64)
            for owner in np.unique(owners):
                found[owner] = logprobs[owners == owner]
        return found

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer's state as named tensors."""
        return {
            f"{name}/{key}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up the state that `state` returned."""
        for name, parameter in self.model.named_parameters():
            keys = ("step", "exp_avg", "exp_avg_sq")
            self.optimizer.state[parameter] = {key: state[f"{name}/{key}"] for key in keys if f"{name}/{key}" in state}


def _forward(model: Decoder, batch: MicroBatch, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities and the entropies [T] of the batch's completion tokens."""
    hidden, targets = _hidden(model, batch), torch.from_numpy(batch.targets)
    return token_logprobs(hidden, model.lm_head.weight, targets, temperature=temperature)


def _hidden(model: Decoder, batch: MicroBatch) -> Tensor:
    """Return the hidden states [T, H] from which the batch's completion tokens are predicted."""
    hidden: Tensor = model(torch.from_numpy(batch.input_ids)).flatten(0, 1)
    return hidden.index_select(0, torch.from_numpy(batch.positions))


def token_batch(batch: MicroBatch) -> TokenBatch:
    """Return the flat arrays of a micro-batch as tensors."""
    return TokenBatch(
        advantages=torch.from_numpy(batch.advantages),
        old_logprobs=None if batch.old_logprobs is None else torch.from_numpy(batch.old_logprobs),
        ref_logprobs=None if batch.ref_logprobs is None else torch.from_numpy(batch.ref_logprobs),
    )
