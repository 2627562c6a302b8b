"""Outputs of a policy with what was judged of them, as Parquet: one row an output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hone.record.files import write_atomically
from hone.types import Floats, PackedBatch, ScoredGroup

SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("model", pa.string()),
        ("problem_id", pa.string()),
        ("task", pa.string()),
        ("language", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("sample", pa.int32()),
        ("completion", pa.string()),
        ("num_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("verdict", pa.string()),
        ("why", pa.string()),
        ("reward", pa.float32()),
        ("parts", pa.string()),
        ("advantage", pa.float32()),
    ]
)


def write_generations(
    path: Path, groups: Sequence[ScoredGroup], *, step: int, model: str, advantages: Sequence[Floats] | None = None
) -> None:
    """Write groups with, in training, the advantages [G] of each group."""
    rows = list(_rows(groups, step, model, advantages))
    table = pa.Table.from_pylist(rows, SCHEMA)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))


def write_batch(path: Path, batch: PackedBatch) -> None:
    """Write the arrays of a batch, `NUMBER/FIELD` each, to look at and to replay."""
    arrays = {
        f"{number}/{field.name}": value
        for number, micro_batch in enumerate(batch.micro_batches)
        for field in fields(micro_batch)
        if (value := getattr(micro_batch, field.name)) is not None
    }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)

    write_atomically(path, write)


def _rows(
    groups: Sequence[ScoredGroup], step: int, model: str, advantages: Sequence[Floats] | None
) -> Iterator[dict[str, object]]:
    for number, group in enumerate(groups):
        for sample, (rollout, score) in enumerate(zip(group.rollouts, group.scores, strict=True)):
            yield {
                "step": step,
                "model": model,
                "problem_id": group.problem.id,
                "task": group.problem.task,
                "language": group.problem.language,
                "question": group.problem.messages[-1].content,
                "answer": group.problem.answer,
                "sample": sample,
                "completion": rollout.text,
                "num_tokens": len(rollout.completion_ids),
                "finish_reason": rollout.finish_reason,
                "verdict": str(score.verdict),
                "why": score.why,
                "reward": score.reward,
                "parts": json.dumps(dict(score.parts)),
                "advantage": float(advantages[number][sample]) if advantages else float("nan"),
            }
