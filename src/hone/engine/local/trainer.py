"""Turns packed batches into gradients and gradients into steps, on one device.

It knows no algorithm: a token loss is given to it, and every normaliser is in the weights of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hone.algo.losses import Direction, distribution_kl, loss_backward, token_logprobs
from hone.algo.packing import pack
from hone.engine.base import TokenBatch, TokenLoss
from hone.models.attention import Layout
from hone.models.decoder import Decoder
from hone.types import Floats, MicroBatch, PackedBatch, RunError, Sample


class Trainer:
    """AdamW over one decoder."""

    def __init__(
        self, model: Decoder, *, weight_decay: float = 0.0, max_grad_norm: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.95), micro_batch_tokens: int = 4096,
    ) -> None:  # fmt: skip
        self.model, self.max_grad_norm, self.micro_batch_tokens = model, max_grad_norm, micro_batch_tokens
        self.weight_decay, self.betas = weight_decay, betas

    @cached_property
    def optimizer(self) -> torch.optim.AdamW:
        """The optimizer, made when it is first needed: torch then loads its compiler, which takes a second."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        matrices = [p for p in trained if p.ndim > 1]
        vectors = [p for p in trained if p.ndim <= 1]  # norms and biases are not decayed
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW([group for group in groups if group["params"]], betas=self.betas, fused=True)

    def forward_backward(
        self, batch: PackedBatch, token_loss: TokenLoss, *, temperature: float = 1.0
    ) -> dict[str, float]:
        sums = Sums()
        for micro_batch in batch.micro_batches:
            tokens = self._token_batch(micro_batch)
            weights = self._tensor(micro_batch.weights)

            def loss(
                logprobs: Tensor, entropy: Tensor, rows: slice, tokens: TokenBatch = tokens, weights: Tensor = weights
            ) -> Tensor:
                found, figures = token_loss(logprobs, tokens.part(rows))
                return sums.add(found, weights[rows], {"policy/entropy": entropy, **figures})

            hidden = self._hidden(self.model, micro_batch)
            weight, targets = self.model.lm_head.weight, self._tensor(micro_batch.targets)
            hidden.backward(loss_backward(hidden.detach(), weight, targets, loss, temperature=temperature))
        return sums.means(batch.num_loss_tokens)

    def distill_backward(self, batch: PackedBatch, teacher: Decoder, direction: Direction) -> dict[str, float]:
        """Do the same with the loss of a token its divergence from the teacher, over the whole vocabulary."""
        sums = Sums()
        for micro_batch in batch.micro_batches:
            with torch.no_grad():
                taught = self._hidden(teacher, micro_batch), teacher.lm_head.weight
            hidden, weight = self._hidden(self.model, micro_batch), self.model.lm_head.weight
            kl, entropy = distribution_kl(hidden, weight, *taught, direction)
            sums.add(kl, self._tensor(micro_batch.weights), {"policy/entropy": entropy}).backward()
        return sums.means(batch.num_loss_tokens)

    def _hidden(self, model: Decoder, batch: MicroBatch) -> Tensor:
        """Return the hidden states [T, H] from which the batch's completion tokens are predicted."""
        hidden = model.flat(self._tensor(batch.input_ids), Layout.of(batch.segments))
        return hidden.index_select(0, self._tensor(batch.positions))

    def _token_batch(self, batch: MicroBatch) -> TokenBatch:
        return TokenBatch(
            advantages=self._tensor(batch.advantages),
            old_logprobs=None if batch.old_logprobs is None else self._tensor(batch.old_logprobs),
            ref_logprobs=None if batch.ref_logprobs is None else self._tensor(batch.ref_logprobs),
        )

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(next(self.model.parameters()).device)

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
        # The weight of a token carries its sample's number through the packing.
        batch = pack(samples, range(len(samples)), micro_batch_tokens=self.micro_batch_tokens)
        found: list[Floats] = [np.empty(0, np.float32)] * len(samples)
        for micro_batch in batch.micro_batches:
            logprobs = self._logprobs(model or self.model, micro_batch, temperature).cpu().numpy()
            owners = micro_batch.weights.astype(np.int64)
            for owner in np.unique(owners):
                found[owner] = logprobs[owners == owner]
        return found

    def _logprobs(self, model: Decoder, batch: MicroBatch, temperature: float) -> Tensor:
        """Return the log-probabilities [T] of the batch's completion tokens."""
        hidden, targets = self._hidden(model, batch), self._tensor(batch.targets)
        return token_logprobs(hidden, model.lm_head.weight, targets, temperature=temperature)[0]

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
            names = {key: f"{name}/{key}" for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}/{key}" in state}
            self.optimizer.state[parameter] = {key: state[full].to(parameter.device) for key, full in names.items()}


class Sums:
    """The loss and the figures of a step, summed over its tokens."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.figures: dict[str, float] = {}

    def add(self, losses: Tensor, weights: Tensor, figures: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted loss of some tokens, all [T]; refuse one that is not finite."""
        weighted = (losses * weights).sum()
        if not math.isfinite(value := weighted.item()):
            raise RunError(f"the loss is {value}")
        self.loss += value
        for name, figure in figures.items():
            self.figures[name] = self.figures.get(name, 0.0) + figure.detach().float().sum().item()
        return weighted

    def means(self, num_tokens: int) -> dict[str, float]:
        """Return `loss` and the figures' means over the tokens."""
        return {"loss": self.loss, **{name: total / max(1, num_tokens) for name, total in self.figures.items()}}
