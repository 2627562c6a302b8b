"""Which training rows hold evaluation texts, and the training data without them: what `hone decontaminate` does.

Two rows are a pair where a text of one is, normalised, a text of the other, or where both hold the same 13 words in a
row (`tasks.overlap` says what words are and what a template is). Training rows pass by one at a time; only the
evaluation texts are held.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow.parquet as pq

from hone.record.files import write_atomically
from hone.tasks.benchmarks import load_benchmark
from hone.tasks.overlap import NGRAM, Index, Overlap, words_of
from hone.tasks.rows import HUB, BadRow, kind_of, rows_of
from hone.types import HoneError

# The fields that hold a row's text, in the order in which they are looked for.
FIELDS = (
    "problem", "question", "prompt", "messages", "conversations", "question_content", "description", "instruction",
    "text", "Problem", "Question",
)  # fmt: skip
_IDS = ("id", "unique_id", "task_id", "question_id", "key", "Record ID")
ROWS_BETWEEN_REPORTS = 1000
NGRAM_KIND = f"{NGRAM}-gram"


class Place(NamedTuple):
    """Where a row stands."""

    file: str
    line: int
    id: str | int | None


class Found(NamedTuple):
    """What was looked through and found; `exact` and `ngram` count pairs of rows."""

    num_train: int
    num_eval: int
    exact: int
    ngram: int
    num_train_held: int  # training rows that are in a pair
    num_eval_held: int


def decontaminate(
    train: str,
    evaluations: Sequence[str],
    out: Path,
    clean: Path | None = None,
    *,
    field: str = "",
    min_share: float = 0.0,
    on_rows: Callable[[int], None] = lambda done: None,
) -> Found:
    """Write a JSON line for each pair of a training and an evaluation row, and to `clean` the rows that are in none.

    `evaluations` are files, sets of the hub or benchmarks by name. `field` names what holds the texts, `a|b` where rows
    have the one or the other; by default it is one of `FIELDS`. A pair by n-grams needs `min_share` of the evaluation
    text's n-grams, 0: a single one. Both files are there whole or not at all.
    """
    _refuse_overwriting([train, *evaluations], out, clean)
    names = tuple(field.split("|")) if field else FIELDS
    places: list[Place] = []  # of the row of each evaluation text
    index = Index(_numbered(evaluations, names, places))
    found: list[Found] = []

    def write(report: Path, kept: Path | None) -> None:
        with ExitStack() as files:
            lines = files.enter_context(report.open("w", encoding="utf-8"))
            rest = files.enter_context(kept.open("w", encoding="utf-8")) if kept else None
            found.append(_compare(train, names, index, places, min_share, lines, rest, on_rows))

    try:
        if clean is None:
            write_atomically(out, lambda report: write(report, None))
        else:
            write_atomically(out, lambda report: write_atomically(clean, lambda kept: write(report, kept)))
    except OSError as error:
        raise HoneError(f"{error.filename or out}: {error.strerror or error}") from error
    return found[0]


def count_rows(path: str) -> int:
    """Return about how many rows a file has, for a progress bar; 0 where only reading them would tell."""
    file = Path(path).expanduser()
    if path.startswith(HUB) or not file.is_file():
        return 0
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as opened:
            return int(opened.metadata.num_rows)
    with file.open("rb") as opened:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: opened.read(1 << 20), b""))


def _compare(
    train: str,
    names: tuple[str, ...],
    index: Index,
    places: Sequence[Place],
    min_share: float,
    lines: TextIO,
    rest: TextIO | None,
    on_rows: Callable[[int], None],
) -> Found:
    pairs: Counter[str] = Counter()
    num_train = num_held = 0
    held: set[Place] = set()
    for place, fields in _rows(train, "train"):
        overlaps: dict[Place, Overlap] = {}  # the closest with each evaluation row
        for text in _texts(place, fields, names, ("user", "assistant")):
            for overlap in index.overlaps("", words_of(text), min_share):
                other = places[int(overlap.eval_id)]
                if other not in overlaps or _closeness(overlap) > _closeness(overlaps[other]):
                    overlaps[other] = overlap
        for other, overlap in overlaps.items():
            kind = NGRAM_KIND if overlap.kind == "n-gram" else "exact"
            pairs[kind] += 1
            lines.write(_json_line({
                "train": place._asdict(), "eval": other._asdict(), "kind": kind, "shared": overlap.words,
                "share": round(overlap.share, 4),
            }))  # fmt: skip
        held |= overlaps.keys()
        num_train += 1
        num_held += bool(overlaps)
        if rest and not overlaps:
            try:
                rest.write(_json_line(fields))
            except ValueError as error:
                raise HoneError(f"{train}, line {place.line}: cannot be written as JSON: {error}") from error
        if num_train % ROWS_BETWEEN_REPORTS == 0:
            on_rows(num_train)
    on_rows(num_train)
    return Found(
        num_train=num_train, num_eval=len(set(places)), exact=pairs["exact"], ngram=pairs[NGRAM_KIND],
        num_train_held=num_held, num_eval_held=len(held),
    )  # fmt: skip


def _closeness(overlap: Overlap) -> tuple[bool, float]:
    return overlap.kind != "n-gram", overlap.share


def _numbered(
    evaluations: Sequence[str], names: tuple[str, ...], places: list[Place]
) -> Iterator[tuple[str, str]]:  # fmt: skip
    """Yield the evaluation texts, each under its number, and note the place of its row."""
    for evaluation in evaluations:
        for place, texts in _evaluation(evaluation, names):
            for text in texts:
                places.append(place)
                yield str(len(places) - 1), text


def _evaluation(evaluation: str, names: tuple[str, ...]) -> Iterator[tuple[Place, list[str]]]:
    if evaluation.startswith(HUB) or Path(evaluation).expanduser().exists() or Path(evaluation).suffix:
        for place, fields in _rows(evaluation, "test"):
            yield place, _texts(place, fields, names, ("user",))
    else:
        benchmark, problems, source = load_benchmark(evaluation)
        for number, problem in enumerate(problems, start=1):
            yield Place(f"{benchmark.name} ({source})", number, problem.id), [problem.question]


def _rows(path: str, hub_split: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    for row in rows_of(path, hub_split, ""):
        if isinstance(row, BadRow):
            raise HoneError(f"{path}, {row.unit} {row.number}: {row.why}")
        name = next((row.fields[key] for key in _IDS if isinstance(row.fields.get(key), str | int)), None)
        yield Place(path, row.number, name), row.fields


def _texts(place: Place, fields: Mapping[str, Any], names: tuple[str, ...], roles: tuple[str, ...]) -> list[str]:
    """Return the texts of a row: its field, or the messages in it that are of these roles, each by itself.

    A system prompt says nothing about a row, and neither does an answer about what was evaluated.
    """
    name = next((name for name in names if fields.get(name) is not None), None)
    if name is None:
        has = ", ".join(repr(key[:40]) for key in list(fields)[:12])
        raise HoneError(
            f"{place.file}, line {place.line}: no field {' or '.join(map(repr, names))}; the row has {has}; name the "
            "one that holds the text with --field"
        )
    value = fields[name]
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise HoneError(f"{place.file}, line {place.line}: {name!r} is {kind_of(value)}, neither text nor messages")
    texts: list[str] = []
    for message in value:
        match message:
            case {"role": str(role), "content": content} | {"from": str(role), "value": content}:
                if _ROLES.get(role, role) in roles:
                    texts += _contents(content)
            case _:
                raise HoneError(f"{place.file}, line {place.line}: {name!r} holds {kind_of(message)}, not a message")
    return texts


_ROLES = {"human": "user", "gpt": "assistant"}


def _contents(content: Any) -> list[str]:
    """Return the text of a message: one, or parts of which some are text."""
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else ()
    values = (part.get("text") or part.get("value") for part in parts if isinstance(part, dict))
    return [value for value in values if isinstance(value, str)]


def _json_line(value: Mapping[str, Any]) -> str:
    line = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    try:
        line.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can write
        line = json.dumps(value, allow_nan=False, default=str)
    return line + "\n"


def _refuse_overwriting(inputs: Sequence[str], out: Path, clean: Path | None) -> None:
    """Refuse a file to write that is one to read, or both at once."""
    written = {"--out": out} | ({"--clean": clean} if clean else {})
    read = {Path(path).expanduser().resolve() for path in inputs if not path.startswith(HUB)}
    for option, path in written.items():
        if path.resolve() in read:
            raise HoneError(f"{option} {path} is a file that is read, which would be lost; name another")
        if path.is_dir():
            raise HoneError(f"{option} {path} is a folder; name a file")
    if clean is not None and clean.resolve() == out.resolve():
        raise HoneError(f"--out and --clean are both {out}; name two files")
    if clean is not None and clean.suffix != ".jsonl":
        raise HoneError(f"--clean {clean}: it is written as JSON lines; name a .jsonl file")
