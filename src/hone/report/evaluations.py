"""Reads the folders that `hone eval` wrote: scores whole, verdicts and outputs as streams of which little is kept.

Knows the files and nothing of what made them. Texts of models and of data sets come out as plain strings.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from hone.report.charts import Row
from hone.types import HoneError

FORMAT = 1
_CODES = {"right": "r", "wrong": "w", "unscorable": "u"}  # of an output that was not cut; of one that was, in capitals
_NEEDED = ("model", "benchmark", "verifier", "settings", "num_problems", "samples", "num_outputs")
_TEXT_COLUMNS = ["problem_id", "index", "prompt", "completion", "finish_reason", "num_tokens"]
_BATCH_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A finished evaluation: its folder, and what its scores.json says. Nothing that is quoted has this type."""

    folder: Path
    scores: Row

    @property
    def model(self) -> str:
        """The model's name, as the user gave it."""
        return str(self.scores["model"])

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return str(self.scores["benchmark"])

    @property
    def settings(self) -> Row:
        """What was asked for, and by what version: the content of settings.json."""
        settings: Row = self.scores["settings"]
        return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an output stands: its row in generations.parquet (and line of verdicts.jsonl, from 0), and its verdict.

    `code` is `r`, `w` or `u` for right, wrong or unscorable; a capital where the output was cut.
    """

    row: int
    index: int
    code: str


def read_evaluations(folders: Sequence[Path]) -> list[Evaluation]:
    """Read the scores of evaluation folders. A folder that is none, an unfinished one or one given twice: HoneError."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (before := seen.setdefault(folder.resolve(), folder)) is not folder:
            raise HoneError(f"{folder}: given twice (as {before}); name each evaluation once")
    return [_evaluation(folder) for folder in folders]


def read_places(evaluation: Evaluation) -> dict[str, list[Place]]:
    """Return where the outputs to each problem stand, and what was found of them, in the order of the problems."""
    places: dict[str, list[Place]] = {}
    for row, verdict in enumerate(_lines(evaluation.folder / "verdicts.jsonl", ("id", "index", "verdict"))):
        code = _CODES.get(verdict["verdict"], "u")
        place = Place(row=row, index=verdict["index"], code=code.upper() if verdict.get("truncated") else code)
        places.setdefault(str(verdict["id"]), []).append(place)
    return places


def read_problems(evaluation: Evaluation, wanted: Collection[str]) -> dict[str, Row]:
    """Return the rows of the problems that are wanted, by id."""
    problems = _lines(evaluation.folder / "problems.jsonl", ("id", "question"))
    return {str(row["id"]): row for row in problems if str(row["id"]) in wanted}


def read_outputs(evaluation: Evaluation, rows: Collection[int]) -> Iterator[Row]:
    """Yield outputs with their verdicts, in order: those at `rows` of generations.parquet. Reads a batch at a time.

    Row groups without any of them are passed over. Verdicts of other generations than these: HoneError.
    """
    path = evaluation.folder / "generations.parquet"
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            outputs = _rows(file, set(rows))
            verdicts = _at(_lines(evaluation.folder / "verdicts.jsonl", ("id", "index", "verdict")), set(rows))
            for output, verdict in zip_longest(outputs, verdicts, fillvalue=Row()):
                if not _same(output, verdict):
                    raise HoneError(
                        f"{evaluation.folder}: verdicts.jsonl is not of generations.parquet; "
                        f"score it again: hone regrade {evaluation.folder}"
                    )
                yield output | verdict
    except (OSError, KeyError, pa.ArrowException) as error:
        raise HoneError(f"{path}: cannot be read: {error}") from error


def _evaluation(folder: Path) -> Evaluation:
    if not (folder / "scores.json").is_file():
        raise HoneError(_why_no_scores(folder))
    path = folder / "scores.json"
    scores = _json(path.read_text("utf-8", "replace"), f"{path}")
    if missing := [key for key in _NEEDED if scores.get(key) is None]:
        raise HoneError(f"{path}: no {missing[0]} in it; score it again: hone regrade {folder}")
    if scores.get("format") != FORMAT or not isinstance(scores["settings"], dict):
        raise HoneError(f"{path}: not of format {FORMAT}; score it again: hone regrade {folder}")
    return Evaluation(folder=folder, scores=scores)


def _why_no_scores(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: no such folder; give folders that `hone eval` wrote"
    if (folder / "journal.jsonl").is_file():
        return f"{folder}: an unfinished evaluation; run its `hone eval` again, which goes on where it stopped"
    if (folder / "generations.parquet").is_file():
        return f"{folder}: not scored yet; hone regrade {folder}"
    if (folder / "manifest.json").is_file():
        return f"{folder}: a run, not an evaluation; see it with: hone report {folder}"
    return f"{folder}: no evaluation there; give folders that `hone eval` wrote"


def _json(text: str, where: str) -> Row:
    """Parse a JSON object; NaN and infinities become None."""
    try:
        found = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise HoneError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise HoneError(f"{where}: not a JSON object")
    return found


def _lines(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                row = _json(line, f"{path}, line {number}")
                if missing := [key for key in needed if key not in row]:
                    raise HoneError(f"{path}, line {number}: no {missing[0]} in it")
                yield row
    except OSError as error:
        raise HoneError(f"{path}: cannot be read: {error.strerror}") from error


def _same(output: Row, verdict: Row) -> bool:
    return (output.get("problem_id"), output.get("index")) == (str(verdict.get("id")), verdict.get("index"))


def _at(rows: Iterator[Row], wanted: Collection[int]) -> Iterator[Row]:
    return (row for number, row in enumerate(rows) if number in wanted)


def _rows(file: Any, wanted: set[int]) -> Iterator[Row]:
    """Yield the rows of a Parquet file that are wanted, by their numbers."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    starts = [sum(sizes[:group]) for group in range(len(sizes) + 1)]
    for group, (start, end) in enumerate(pairwise(starts)):
        if wanted.isdisjoint(range(start, end)):
            continue
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=_TEXT_COLUMNS):
            here = [number for number in range(batch.num_rows) if start + number in wanted]
            if here:
                yield from batch.take(pa.array(here)).to_pylist()
            start += batch.num_rows
