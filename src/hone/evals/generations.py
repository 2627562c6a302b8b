"""The outputs of an evaluation on disk: a journal while they are drawn, then one Parquet file that is never rewritten.

A folder holds `settings.json`, `problems.jsonl`, and `journal.jsonl` or `generations.parquet`. A process that is killed
loses at most the line that it was writing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hone.evals.outputs import Output
from hone.record.files import clear_when_full, write_atomically, write_json, write_text
from hone.types import AssertTest, CallTest, CodeTest, HoneError, Message, Problem, StdinTest

SETTINGS, PROBLEMS, JOURNAL, GENERATIONS = "settings.json", "problems.jsonl", "journal.jsonl", "generations.parquet"
FORMAT = 1
_ROWS = 64  # outputs that are held at once
_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("index", pa.int32()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("finish_reason", pa.string()),
        ("num_tokens", pa.int32()),
        ("seed", pa.int64()),
        ("model", pa.string()),
        ("model_hash", pa.string()),
    ]
)

Settings = Mapping[str, Any]


def begin(folder: Path, settings: Settings, problems: Sequence[Problem]) -> None:
    """Make the folder of an evaluation, or take up one that is there; refuse one that measures something else."""
    path = folder / SETTINGS
    if path.is_file():
        there = read_settings(folder)
        differing = [key for key in (*settings, *there) if there.get(key) != settings.get(key) and key != "hone"]
        if differing:
            key = differing[0]
            raise HoneError(
                f"{folder}: it holds an evaluation with other settings ({key}: {there.get(key)!r} there, "
                f"{settings.get(key)!r} now); name another folder by --out"
            )
        return
    if folder.exists() and any(entry.name != ".lock" for entry in folder.iterdir()):
        raise HoneError(f"{folder}: it holds something else than an evaluation; name another folder by --out")
    _write_problems(folder, problems)
    write_json(path, dict(settings))  # last: a folder with it is whole


def begin_copy(folder: Path, out: Path, problems: Sequence[Problem]) -> None:
    """Make an evaluation of the same outputs in another folder, with `problems` that are judged otherwise."""
    settings = read_settings(folder)
    if not has_outputs(folder):
        next(read_outputs(folder))  # says why
    begin(out, settings, problems)
    _write_problems(out, problems)
    write_atomically(out / GENERATIONS, lambda temporary: _link(folder / GENERATIONS, temporary))


def _link(file: Path, to: Path) -> None:
    """Give a file that is never rewritten a second name; copy it where the file system cannot."""
    try:
        to.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, to)


def _write_problems(folder: Path, problems: Sequence[Problem]) -> None:
    lines = (json.dumps(as_row(problem), ensure_ascii=False) + "\n" for problem in problems)
    write_text(folder / PROBLEMS, "".join(lines))


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what an evaluation measures and how; refuse a folder that holds none."""
    path = folder / SETTINGS
    if not path.is_file():
        raise HoneError(f"{folder}: no evaluation there ({SETTINGS} is missing)")
    try:
        settings = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise HoneError(f"{path}: damaged: {error}") from error
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise HoneError(f"{path}: not settings of an evaluation in format {FORMAT}")
    return settings


def read_problems(folder: Path) -> list[Problem]:
    """Return the problems of an evaluation, in order."""
    path = folder / PROBLEMS
    try:
        return [as_problem(json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    except FileNotFoundError as error:
        raise HoneError(f"{folder}: no evaluation there ({PROBLEMS} is missing)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise HoneError(f"{path}: damaged: {error!r}") from error


class Journal:
    """The outputs drawn so far, in the order in which they came. A context manager; one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self.done: set[tuple[str, int]] = set()

    def __enter__(self) -> Journal:
        if self.path.is_file():
            with self.path.open("r+b") as file:
                end = 0
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    row = json.loads(line)
                    self.done.add((row["problem_id"], row["index"]))
                    end += len(line)
                file.truncate(end)  # of the line that a crash cut short
        self._file = self.path.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        with clear_when_full(self.path):
            self._file.close()

    def add(self, output: Output) -> None:
        """Write an output down; it outlives the process from here on."""
        line = json.dumps(asdict(output)).encode() + b"\n"  # ASCII: half a surrogate pair does no harm here
        with clear_when_full(self.path):
            self._file.write(line)
            self._file.flush()
        self.done.add((output.problem_id, output.index))


def has_outputs(folder: Path) -> bool:
    """Say whether all outputs are drawn and stored."""
    return (folder / GENERATIONS).is_file()


def finish(folder: Path, problems: Sequence[Problem], settings: Settings) -> None:
    """Put the journal's outputs into Parquet, in the order of the problems; memory does not grow with their number."""
    journal = folder / JOURNAL
    order = {problem.id: number for number, problem in enumerate(problems)}
    places: dict[tuple[int, int], int] = {}
    with journal.open("rb") as file:
        offset = 0
        for line in file:
            row = json.loads(line)
            places[order[row["problem_id"]], row["index"]] = offset
            offset += len(line)

        def outputs() -> Iterator[Output]:
            for _, place in sorted(places.items()):
                file.seek(place)
                yield Output(**json.loads(file.readline()))

        write_outputs(folder, outputs(), settings)
    journal.unlink()


def write_outputs(folder: Path, outputs: Iterable[Output], settings: Settings) -> None:
    """Write the outputs, those of one problem together, as `generations.parquet`."""
    schema = _SCHEMA.with_metadata({"hone": json.dumps(dict(settings), ensure_ascii=False)})

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for rows in _batches(outputs, _ROWS):
                table = [_clean(asdict(output)) | {k: settings[k] for k in ("model", "model_hash")} for output in rows]
                writer.write_batch(pa.RecordBatch.from_pylist(table, schema))

    write_atomically(folder / GENERATIONS, write)


def read_outputs(folder: Path) -> Iterator[tuple[str, list[Output]]]:
    """Yield each problem's id with all of its outputs, one problem after the other."""
    path = folder / GENERATIONS
    if not path.is_file():
        why = "its outputs are not all drawn: run the same hone eval again" if (folder / JOURNAL).is_file() else "none"
        raise HoneError(f"{folder}: no {GENERATIONS} there ({why})")
    try:
        with pq.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(_ROWS) for row in batch.to_pylist())
            for problem_id, group in groupby(rows, key=lambda row: row["problem_id"]):
                yield problem_id, [Output(**{key: row[key] for key in _FIELDS}) for row in group]
    except (pa.ArrowException, KeyError) as error:
        raise HoneError(f"{path}: damaged: {' '.join(str(error).split())[:200]}") from error


_FIELDS = tuple(field.name for field in fields(Output))


def _batches(outputs: Iterable[Output], size: int) -> Iterator[list[Output]]:
    batch: list[Output] = []
    for output in outputs:
        batch.append(output)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _clean(row: dict[str, Any]) -> dict[str, Any]:
    """Replace half surrogate pairs, which an endpoint may send and UTF-8 cannot hold."""
    return {k: v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for k, v in row.items()}


def as_row(problem: Problem) -> dict[str, Any]:
    """Return a problem as JSON values."""
    return asdict(problem) | {"question": problem.question}


def as_problem(row: dict[str, Any]) -> Problem:
    """Return the problem of such a row."""
    row.pop("question")
    messages = tuple(Message(**message) for message in row.pop("messages"))
    return Problem(**row | {"messages": messages, "tests": tuple(_as_test(test) for test in row.pop("tests"))})


def _as_test(row: dict[str, Any]) -> CodeTest:
    match row:
        case {"stdin": _}:
            return StdinTest(**row)
        case {"function": _}:
            return CallTest(**row | {"args": tuple(row["args"])})
    return AssertTest(**row)
