"""Rows of files: JSON Lines, JSON, CSV and Parquet, folders, and data sets of the Hugging Face hub, one by one.

Rows are untrusted: they are parsed and never run. One that cannot be read comes with its place and the reason, so that
the reader can say how many are too many. The module does not know what the fields mean.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from hone.types import HoneError

MAX_ROW_BYTES = 50_000_000
HUB = "hub:"


class Row(NamedTuple):
    """A row as it was read: its number, counted from 1, and that of a line or of a row."""

    number: int
    fields: dict[str, Any]
    unit: str = "line"


class BadRow(NamedTuple):
    """A row that cannot be read, and why."""

    number: int
    why: str
    unit: str = "line"


class Refused(Exception):
    """Why a row cannot be used."""


def read_rows(
    path: str | Path, *, hub_split: str = "train", hub_config: str = ""
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a file, a folder or a data set of the hub one by one, with their lines; blank lines are none.

    Refuse what is not there, what has no rows, and the first row that cannot be read.
    """
    for row in rows_of(str(path), hub_split, hub_config):
        if isinstance(row, BadRow):
            raise HoneError(f"{path}, {row.unit} {row.number}: {row.why}")
        yield row.number, row.fields


def rows_of(path: str, hub_split: str, hub_config: str) -> Iterator[Row | BadRow]:
    file = Path(path).expanduser()
    if _HUB_FILES.fullmatch(path):
        rows = _hub_file_rows(path)
    elif path.startswith(HUB) or file.is_dir():
        rows = _library_rows(path, hub_split, hub_config)
    elif not file.is_file():
        names = [other.name for other in file.parent.iterdir()] if file.parent.is_dir() else []
        raise HoneError(f"there is no file {path}{near(file.name, names)}")
    elif file.suffix not in _READERS:
        raise HoneError(f"{path}: cannot read {file.suffix or 'a file without an ending'}; use {', '.join(_READERS)}")
    else:
        rows = _READERS[file.suffix](file)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise HoneError(f"{path}: no rows")


def _json_lines(file: Path) -> Iterator[Row | BadRow]:
    with file.open("rb") as lines:
        for number in itertools.count(1):
            line = lines.readline(MAX_ROW_BYTES)
            if not line:
                return
            too_long = False
            while len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
                line, too_long = lines.readline(MAX_ROW_BYTES), True
            if too_long:
                yield BadRow(number, f"longer than {MAX_ROW_BYTES:,} bytes")
            elif (text := line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip():
                yield _parsed(number, text)


def _parsed(number: int, line: bytes) -> Row | BadRow:
    try:
        fields = from_json(line.decode())
    except UnicodeDecodeError as error:
        return BadRow(number, f"not UTF-8: byte {line[error.start]:#04x} at {error.start + 1}")
    except Refused as refused:
        cut_off = "" if line.endswith(b"\n") else "; the last line, perhaps cut off"
        return BadRow(number, f"{refused}{cut_off}")
    return Row(number, fields) if isinstance(fields, dict) else BadRow(number, f"not an object but {kind_of(fields)}")


def _json_array(file: Path) -> Iterator[Row | BadRow]:
    """Yield the objects of a list, read whole; a file that does not begin with a bracket is read as JSON Lines."""
    with file.open("rb") as opened:
        if not opened.read(1000).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            yield from _json_lines(file)
            return
    try:
        values = from_json(file.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, Refused) as error:
        raise HoneError(f"{file}: {error}") from error
    for number, fields in enumerate(values, start=1):
        if isinstance(fields, dict):
            yield Row(number, fields, "row")
        else:
            yield BadRow(number, f"not an object but {kind_of(fields)}", "row")


def _csv(file: Path) -> Iterator[Row | BadRow]:
    csv.field_size_limit(MAX_ROW_BYTES)  # of the whole process: the module has no other place for it
    # Bytes that are not UTF-8 become surrogates, which are refused row by row.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        rows = csv.reader(lines, strict=True)
        header: list[str] = []
        while True:
            number = rows.line_num + 1
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(number, f"not CSV: {error}")
                continue
            if not values:
                continue
            if not header:
                header = values
                if len(set(header)) < len(header):
                    raise HoneError(f"{file}: two columns of one name in the header")
            elif len(values) != len(header):
                yield BadRow(number, f"{len(values)} fields where the header has {len(header)}")
            else:
                yield Row(number, dict(zip(header, values, strict=True)))


def _parquet(file: Path) -> Iterator[Row | BadRow]:
    try:
        with pq.ParquetFile(file) as opened:
            numbers = itertools.count(1)
            for batch in opened.iter_batches(batch_size=1000):
                for fields in batch.to_pylist():
                    yield Row(next(numbers), fields, "row")
    except (pa.ArrowException, OSError) as error:
        raise HoneError(f"{file}: not a Parquet file that can be read: {_one_line(error)}") from error


_READERS: dict[str, Callable[[Path], Iterator[Row | BadRow]]] = {
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".csv": _csv,
    ".parquet": _parquet,
}


_HUB_NAME = re.compile(rf"{HUB}[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")  # no path to a folder here
_HUB_FILES = re.compile(rf"{HUB}[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*/[\w./,-]+\.(?:jsonl|json|csv|parquet)")
# Where the hub keeps its own conversion of a set that comes as a program.
_CONVERTED = "refs/convert/parquet"


def _hub_file_rows(path: str) -> Iterator[Row | BadRow]:
    """Yield the rows of files of a data set of the hub, hub:owner/name/first.jsonl,second.jsonl, one file at a time."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    owner, name, files = path.removeprefix(HUB).split("/", 2)
    for file in files.split(","):
        try:
            copy = Path(hf_hub_download(f"{owner}/{name}", file, repo_type="dataset"))
        except (EntryNotFoundError, OSError, ValueError) as error:
            raise HoneError(f"{path}: {file} cannot be loaded: {_one_line(error)}") from error
        if copy.suffix not in _READERS:
            raise HoneError(f"{path}: cannot read {file}; use {', '.join(_READERS)}")
        for row in _READERS[copy.suffix](copy):
            yield row._replace(unit=f"{file}, {row.unit}")


def _library_rows(path: str, split: str, config: str) -> Iterator[Row | BadRow]:
    """Yield the rows of a folder or of a data set of the hub. Code that comes with it is never run.

    The configuration `*` gives the rows of all of them, each with the name of its own as `hub_config`.
    """
    if path.startswith(HUB) and not _HUB_NAME.fullmatch(path):
        raise HoneError(f"{path}: not hub:owner/name")
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise HoneError(f"{path}: a folder or the hub needs `datasets`: pip install 'hone-r1[hub]'") from error
    folder = Path(path).expanduser()
    try:
        if path.startswith(HUB):
            rows = _hub_rows(path.removeprefix(HUB), split, config)
        elif (folder / "state.json").is_file():
            rows = datasets.load_from_disk(str(folder))
        elif (folder / "dataset_dict.json").is_file():
            rows = datasets.load_from_disk(str(folder / split))
        else:
            rows = datasets.load_dataset(str(folder), config or None, split=split, streaming=True)
        for number, fields in enumerate(rows, start=1):
            yield Row(number, dict(fields), "row")
    except (datasets.exceptions.DatasetsError, pa.ArrowException, OSError, RuntimeError, ValueError) as error:
        raise HoneError(f"{path}: cannot be loaded: {_one_line(error)}") from error


def _hub_rows(name: str, split: str, config: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a data set of the hub; of one that comes as a program, from the hub's own conversion."""
    try:
        yield from _hub_rows_at(name, split, config, None)
    except RuntimeError as error:
        if "script" not in str(error):
            raise
        yield from _hub_rows_at(name, split, config, _CONVERTED)


def _hub_rows_at(name: str, split: str, config: str, revision: str | None) -> Iterator[dict[str, Any]]:
    import datasets

    if config != "*":
        yield from datasets.load_dataset(name, config or None, split=split, revision=revision)
        return
    for one in datasets.get_dataset_config_names(name, revision=revision):
        for fields in datasets.load_dataset(name, one, split=split, revision=revision):
            yield {"hub_config": one, **fields}


def from_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise Refused(f"not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON: {_one_line(error)}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def kind_of(value: Any) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    names |= {int: "a number", float: "a number", type(None): "null"}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return names.get(type(value), f"a {type(value).__name__}")


def near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names)[:1000], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
