"""From samples to the micro-batches of one optimizer step, with everything that averages the loss as token weights.

The loss of a step is `sum(weight * token_loss)`, so that splitting a step into micro-batches, or over ranks, is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hone.types import Floats, Ids, MicroBatch, PackedBatch, Sample, Segment

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
    """Cut samples into micro-batches of at most `micro_batch_tokens` tokens; those of one prompt share it there.

    A sample longer than that is a micro-batch of its own. `weights` [N]: the weight of each completion token.
    """
    groups: dict[bytes, list[int]] = {}
    for number, sample in enumerate(samples):
        groups.setdefault(np.asarray(sample.prompt_ids, np.int64).tobytes(), []).append(number)
    chosen: list[list[list[int]]] = []  # micro-batches of groups of samples
    free = 0
    for group in groups.values():
        begun = False  # whether its prompt is in the micro-batch
        for number in group:
            prompt, own = len(samples[number].prompt_ids), len(samples[number].completion_ids) - 1
            if not chosen or own + (0 if begun else prompt) > free:
                chosen.append([])
                free, begun = micro_batch_tokens, False
            if not begun:
                chosen[-1].append([])
                free, begun = free - prompt, True
            chosen[-1][-1].append(number)
            free -= own
    return PackedBatch(
        micro_batches=tuple(_micro_batch(micro_batch, samples, weights) for micro_batch in chosen),
        num_tokens=sum(sample.num_tokens for sample in samples),
        num_loss_tokens=sum(len(sample.completion_ids) for sample in samples),
    )


def _micro_batch(groups: Sequence[Sequence[int]], samples: Sequence[Sample], weights: Sequence[float]) -> MicroBatch:
    ids: list[Ids] = []
    segments: list[Segment] = []
    positions: list[Ids] = []
    start = 0
    for group in groups:
        prompt = samples[group[0]].prompt_ids
        last = start + len(prompt) - 1  # the last prompt token predicts the first token of each completion
        ids.append(prompt)
        if len(group) == 1:
            length = len(samples[group[0]].completion_ids)
            ids.append(samples[group[0]].completion_ids[:-1])
            segments.append(Segment(len(prompt) + length - 1))
            positions.append(np.arange(last, last + length))
            start = last + length
            continue
        parent = len(segments)
        segments.append(Segment(len(prompt)))
        start = last + 1
        for number in group:
            own = samples[number].completion_ids[:-1]
            if len(own):
                ids.append(own)
                segments.append(Segment(len(own), parent))
            positions.append(np.concatenate([[last], np.arange(start, start + len(own))]))
            start += len(own)
    chosen = [samples[number] for group in groups for number in group]
    lengths = [len(sample.completion_ids) for sample in chosen]
    return MicroBatch(
        input_ids=np.concatenate(ids),
        segments=tuple(segments),
        positions=np.concatenate(positions),
        targets=np.concatenate([sample.completion_ids for sample in chosen]),
        weights=np.repeat(np.asarray([weights[n] for group in groups for n in group], np.float32), lengths),
        advantages=np.repeat(np.asarray([sample.advantage for sample in chosen], np.float32), lengths),
        old_logprobs=_flat([sample.old_logprobs for sample in chosen]),
        ref_logprobs=_flat([sample.ref_logprobs for sample in chosen]),
    )


def _flat(parts: Sequence[Floats | None]) -> Floats | None:
    present = [part for part in parts if part is not None]
    if present and len(present) != len(parts):
        raise ValueError("some samples of a micro-batch have logprobs and some have none")
    return np.concatenate(present) if present else None
