"""Evaluation folders as `hone eval` writes them, with outputs given by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

SCHEMA = pa.schema(
    [("problem_id", pa.string()), ("index", pa.int32()), ("prompt", pa.string()), ("completion", pa.string()),
     ("finish_reason", pa.string()), ("num_tokens", pa.int32()), ("seed", pa.int64()), ("model", pa.string()),
     ("model_hash", pa.string())]
)  # fmt: skip


def problem(name: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name, "task": "math", "question": f"What is {name}?", "messages": [{"role": "user", "content": name}],
        "answer": "4", "verifier": "math", "extract": "boxed", "language": "en", "tags": {}, "tests": [], "setup": "",
    } | more  # fmt: skip


def output(verdict: str = "right", completion: str = "<think>2 + 2</think>\\boxed{4}", **more: Any) -> dict[str, Any]:
    return {"verdict": verdict, "completion": completion, "extracted": "4", "why": "equal", "truncated": False,
            "num_tokens": 12, "prompt": "asked"} | more  # fmt: skip


def write_evaluation(
    folder: Path,
    outputs: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    model: str = "tiny",
    benchmark: str = "math-500",
    problems: Iterable[Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    row_group_size: int | None = None,
) -> Path:
    """Write a folder in which each problem has these outputs; figures that are not given follow from the verdicts."""
    folder.mkdir(parents=True)
    samples = max(len(found) for found in outputs.values())
    asked: dict[str, Any] = {
        "format": 1, "model": model, "model_hash": "0123456789abcdef", "benchmark": benchmark, "data": "built in",
        "decoding": {"temperature": 0.6, "top_p": 0.95, "max_tokens": 32768, "template": "chat"}, "samples": samples,
        "seed": 0, "prompt": "Put your final answer within \\boxed{}.", "protocol": "zero-shot, 64 samples",
        "hone": "0.1.0", "num_problems": len(outputs),
    } | dict(settings or {})  # fmt: skip
    flat = [(name, index, row) for name, found in outputs.items() for index, row in enumerate(found)]
    table = pa.Table.from_pylist(
        [
            {"problem_id": name, "index": index, "prompt": row["prompt"], "completion": row["completion"],
             "seed": index, "finish_reason": "length" if row["truncated"] else "stop", "num_tokens": row["num_tokens"],
             "model": model, "model_hash": asked["model_hash"]}
            for name, index, row in flat
        ],
        schema=SCHEMA.with_metadata({"hone": json.dumps(asked)}),
    )  # fmt: skip
    parquet.write_table(table, folder / "generations.parquet", row_group_size=row_group_size)
    kept = ("verdict", "extracted", "why", "num_tokens", "truncated")
    _write_lines(
        folder / "verdicts.jsonl",
        ({"id": name, "index": index} | {key: row[key] for key in kept} for name, index, row in flat),
    )
    _write_lines(folder / "problems.jsonl", problems or [problem(name) for name in outputs])
    (folder / "settings.json").write_text(json.dumps(asked), "utf-8")
    rate = sum(row["verdict"] == "right" for *_, row in flat) / len(flat)
    found: dict[str, Any] = {
        "format": 1, "model": model, "model_hash": asked["model_hash"], "benchmark": benchmark,
        "verifier": "hone 0.1.0: math, boxed", "settings": asked, "num_problems": len(outputs), "samples": samples,
        "num_outputs": len(flat), "num_unscorable": sum(row["verdict"] == "unscorable" for *_, row in flat),
        "pass_at_1": rate, "pass_at_1_ci95": [max(0, rate - 0.05), min(1, rate + 0.05)],
        "pass_at_1_standard_error": 0.02, "pass_at_k": rate, "pass_at_k_ci95": [rate, rate], "pass_at_k_curve": [],
        "cons_at_k": rate, "cons_at_k_ci95": [rate, rate], "completion_length_mean": 120.0,
        "completion_length_mean_ci95": [110.0, 130.0], "truncated_share": 0.0, "truncated_share_ci95": [0.0, 0.0],
        "format_share": 1.0, "format_share_ci95": [1.0, 1.0], "language_consistency": None, "groups": {},
        "problems": [],
    } | dict(scores or {})  # fmt: skip
    (folder / "scores.json").write_text(json.dumps(found), "utf-8")
    return folder


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
