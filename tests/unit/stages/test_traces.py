"""Worked problems as the data of a supervised stage: read by their table, refused by name, each seen once an epoch."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hone.config import SftStage, Traces, parse_recipe
from hone.models.folders import find_model
from hone.models.tokenizer import Tokenizer
from hone.stages import sft
from hone.stages.context import StageContext
from hone.tasks.words import traces
from hone.types import HoneError


def stage(**data: Any) -> SftStage:
    table = {
        "name": "cold_start", "kind": "sft", "start_from": "student-qwen2-tiny", "data": data, "batch_size": 4,
        "optimizer": {"learning_rate": 1e-3},
    }  # fmt: skip
    made = parse_recipe({"name": "test", "stage": [table]}, "test").stage[0]
    assert isinstance(made, SftStage)
    return made


def test_a_table_with_a_task_is_worked_problems() -> None:
    data = stage(task="words", count=10, num_numbers=[2, 3]).data
    assert data == Traces(task="words", count=10, num_numbers=(2, 3))
    assert parse_recipe(json.loads(json.dumps({"name": "again", "stage": [stage(task="words").model_dump()]})), "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"task": "word"}, "data.task: Input should be 'words'"),
        ({"task": "words", "counts": 3}, "counts: no such key; did you mean 'count'"),
        ({"task": "words", "num_numbers": []}, "data.num_numbers"),
        ({"task": "words", "num_numbers": [1]}, "data.num_numbers.0"),
    ],
)
def test_wrong_tables_of_worked_problems_are_refused_by_name(data: dict[str, Any], message: str) -> None:
    with pytest.raises(HoneError, match=message.replace(".", r"\.")):
        stage(**data)


def test_a_stage_trains_on_every_worked_problem_once(tmp_path: Path) -> None:
    folder = find_model("student-qwen2-tiny")
    context = StageContext(
        name="cold_start", folder=tmp_path, seed=0, models={"student-qwen2-tiny": folder},
        console=Console(file=io.StringIO()),
    )  # fmt: skip
    made = stage(task="words", count=10, num_numbers=[2, 3], seed=5)
    sft.run(made, context)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    tokenizer = Tokenizer.load(folder)
    samples = [sft.to_sample(row, tokenizer, "chat") for row in traces(5, count=10, num_numbers=(2, 3))]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert sum(row["tokens/trained"] for row in rows) == sum(sample.num_tokens for sample in samples)
