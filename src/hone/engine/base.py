"""The verbs of an engine. A stage is written against these Protocols and does not know what is behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from hone.algo.losses import Direction
from hone.types import Floats, PackedBatch, Prompt, Rollout, Sample, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Completion tokens on the engine's device; every tensor is [T]."""

    advantages: Tensor
    old_logprobs: Tensor | None
    ref_logprobs: Tensor | None

    def part(self, rows: slice) -> TokenBatch:
        """Return some of the tokens."""
        return TokenBatch(
            advantages=self.advantages[rows],
            old_logprobs=None if self.old_logprobs is None else self.old_logprobs[rows],
            ref_logprobs=None if self.ref_logprobs is None else self.ref_logprobs[rows],
        )


# Returns the loss of each token [T], which the engine weighs and sums, and figures of each token [T] to be averaged.
TokenLoss = Callable[[Tensor, TokenBatch], tuple[Tensor, Mapping[str, Tensor]]]


class Engine(Protocol):
    """A policy that can be sampled and trained."""

    @property
    def policy_version(self) -> int:
        """Count the publications of weights to the sampler."""
        ...

    @property
    def num_parameters(self) -> int:
        """Count the policy's parameters."""
        ...

    @property
    def num_teacher_parameters(self) -> int:
        """Count the teacher's parameters; 0 without one."""
        ...

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams, *, seed: int) -> list[list[Rollout]]:
        """Return `num_samples` rollouts for each prompt, in order, from the weights published last."""
        ...

    def logprobs(self, samples: Sequence[Sample], *, temperature: float = 1.0) -> list[Floats]:
        """Return the log-probabilities [T] of each sample's completion under the trainer's weights."""
        ...

    def forward_backward(
        self, batch: PackedBatch, token_loss: TokenLoss, *, temperature: float = 1.0
    ) -> dict[str, float]:
        """Add the gradients of `sum(weights * token_loss)`; return `loss` and token means, `policy/entropy` among them.

        Raises `RunError` where the loss is not finite, before it reaches the gradients.
        """
        ...

    def optim_step(self, learning_rate: float) -> float:
        """Clip the gradients, step, clear them; return their norm before clipping.

        Raises `RunError` where the norm is not finite, before it reaches the weights.
        """
        ...

    def publish(self) -> str:
        """Hand the trainer's weights to the sampler under a new version; return their checksum."""
        ...

    def keep_reference(self) -> None:
        """Keep the trainer's weights as they are now as the reference policy."""
        ...

    def ref_logprobs(self, samples: Sequence[Sample], *, temperature: float = 1.0) -> list[Floats]:
        """Return the log-probabilities [T] of each sample's completion under the reference policy."""
        ...

    def keep_teacher(self, folder: Path) -> None:
        """Read the model to distil from; refuse, with `HoneError`, one of another vocabulary or end token."""
        ...

    def distill_backward(self, batch: PackedBatch, direction: Direction) -> dict[str, float]:
        """Do as `forward_backward` does, with the loss of a token the divergence of policy and teacher there.

        Both are taken over the whole vocabulary: `forward` is KL(teacher || policy), `reverse` KL(policy || teacher).
        """
        ...

    def save(self, folder: Path, *, with_states: bool = False) -> None:
        """Write weights and tokenizer into a folder that exists; with its states, all that resuming needs."""
        ...
