"""From samples to the micro-batches of one optimizer step, with everything that averages the loss as token weights.

The loss of a step is `sum(weight * token_loss)`, so that splitting a step into micro-batches, or over ranks, is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hone.types import Floats, MicroBatch, PackedBatch, Sample

Aggregation = Literal["output", "token", "constant"]


def token_weight(sample: Sample, how: Aggregation, *, num_outputs: int, num_tokens: int, max_tokens: int) -> float:
    """Return the weight that each completion token of a sample has in the loss of its step.

    - `output`: averaged inside an output, then over the outputs: 1 / (num_outputs |o|) (DeepSeek-R1, equation 1).
    - `token`: averaged over all tokens of the step: 1 / num_tokens (DAPO, equation 8).
    - `constant`: 1 / (num_outputs max_tokens), which no output's own length enters (Dr. GRPO, section 3.2).

    `num_outputs` and `num_tokens` count the whole step, outputs without an advantage among them: those add nothing to
    the sum, but they are part of its average.
    """
    if how == "output":
        return 1.0 / (num_outputs * len(sample.completion_ids))
    return 1.0 / num_tokens if how == "token" else 1.0 / (num_outputs * max_tokens)


def pack(samples: Sequence[Sample], weights: Sequence[float], *, micro_batch_tokens: int) -> PackedBatch:
    """Sort samples by length and cut them into micro-batches of at most `micro_batch_tokens` places, padding included.

    A sample longer than that is a micro-batch of its own. `weights` [N]: the weight of each completion token.
    """
    order = sorted(range(len(samples)), key=lambda n: (-samples[n].num_tokens, n))
    micro_batches: list[MicroBatch] = []
    while order:
        rows = max(1, micro_batch_tokens // samples[order[0]].num_tokens)
        chosen, order = order[:rows], order[rows:]
        micro_batches.append(_micro_batch([samples[n] for n in chosen], [weights[n] for n in chosen]))
    return PackedBatch(
        micro_batches=tuple(micro_batches),
        num_tokens=sum(sample.num_tokens for sample in samples),
        num_loss_tokens=sum(len(sample.completion_ids) for sample in samples),
    )


def _micro_batch(samples: Sequence[Sample], weights: Sequence[float]) -> MicroBatch:
    width = max(sample.num_tokens for sample in samples)
    input_ids = np.zeros((len(samples), width), np.int64)
    positions = []
    for row, sample in enumerate(samples):
        input_ids[row, : sample.num_tokens] = np.concatenate([sample.prompt_ids, sample.completion_ids])
        first = row * width + len(sample.prompt_ids) - 1  # the last prompt token predicts the first completion token
        positions.append(np.arange(first, first + len(sample.completion_ids)))
    lengths = [len(sample.completion_ids) for sample in samples]
    return MicroBatch(
        input_ids=input_ids,
        positions=np.concatenate(positions),
        targets=np.concatenate([sample.completion_ids for sample in samples]),
        weights=np.repeat(np.asarray(weights, np.float32), lengths),
        advantages=np.repeat(np.asarray([sample.advantage for sample in samples], np.float32), lengths),
        old_logprobs=_flat([sample.old_logprobs for sample in samples]),
        ref_logprobs=_flat([sample.ref_logprobs for sample in samples]),
    )


def _flat(parts: Sequence[Floats | None]) -> Floats | None:
    present = [part for part in parts if part is not None]
    if present and len(present) != len(parts):
        raise ValueError("some samples of a micro-batch have logprobs and some have none")
    return np.concatenate(present) if present else None
