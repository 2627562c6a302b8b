"""Problems out of rows: of a JSON Lines, JSON, CSV or Parquet file, a folder, or a data set of the Hugging Face hub.

A mapping says which field of a row is what. Rows are untrusted: they are parsed and never run, and one that cannot be
used is refused with its place and the reason. The module does not know whether a reference answer is one that its
verifier can read, or whether a program passes its tests.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import itertools
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from hone.tasks.overlap import normalise
from hone.tasks.split import Split, split_of
from hone.types import AssertTest, CallTest, CodeTest, HoneError, Language, Message, Problem, StdinTest

MAX_ROW_BYTES = 50_000_000
LETTERS = "ABCDEFGHIJ"
HUB = "hub:"

# LeetCode's judge has these names, and the rows' tests build and compare lists and trees with them.
LEETCODE_SETUP = """\
from bisect import *
from collections import *
from copy import *
from functools import *
from heapq import *
from itertools import *
from math import *
from operator import *
from string import *
from typing import *
import bisect, collections, copy, datetime, functools, heapq, itertools, math, operator, random, re, string
from bisect import bisect_left, bisect_right, insort
from builtins import abs, pow
from copy import deepcopy
from random import choice, randint


class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next


class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val = val
        self.left = left
        self.right = right


def list_node(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head


def is_same_list(first, second):
    while first and second and first.val == second.val:
        first, second = first.next, second.next
    return first is None and second is None


def tree_node(values):
    nodes = [None if value is None else TreeNode(value) for value in values]
    children = iter(nodes[1:])
    for node in nodes:
        if node is not None:
            node.left = next(children, None)
            node.right = next(children, None)
    return nodes[0] if nodes else None


def is_same_tree(first, second):
    if first is None or second is None:
        return first is second
    return (
        first.val == second.val
        and is_same_tree(first.left, second.left)
        and is_same_tree(first.right, second.right)
    )
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Which field of a row is what, and how the question is put and the answer checked.

    A field is named by its key, by `outer.inner` within an object, by `first|second` where rows have the one or the
    other (and by `first|` where they may have none), and by `first+second` where both belong together.
    """

    question: str = ""
    answer: str = ""  # the reference or, for code, a right program
    solution: str = ""  # a worked solution that ends in the answer, for rows without `answer`
    id: str = "id|task_id|unique_id|"  # without one, the name of the file and the line
    choices: str = ""  # a list, or an object of letters
    tests: str = ""
    setup: str = ""  # code that precedes the program
    test_setup: str = ""  # code that precedes each test and may use the program's names
    entry_point: str = ""  # the function that the tests call
    preamble: str = ""  # code, not a field, that precedes every program
    code_question: bool = False  # the question is a program's head: what it has before the entry point is set up
    shown_tests: int = 0  # how many tests the question shows, so that the names of functions are known
    verifier: str = "math"
    extract: str = "boxed"
    prompt: str = ""  # {question} and {choices} are filled in; by default it asks for what `extract` looks for
    language: Literal["auto", "en", "zh"] = "auto"


_CODE = Mapping(verifier="code", extract="code")
_CHOICE = Mapping(verifier="choice", extract="choice")
PRESETS = {
    "gsm8k": Mapping(question="question|problem|Body+Question", answer="answer|Answer"),
    "math": Mapping(question="problem|question", answer="answer|final_answer", solution="solution"),
    "aime": Mapping(question="problem|Problem|question", answer="answer|Answer"),
    "deepscaler": Mapping(question="problem", answer="answer", solution="solution"),
    "choices": replace(
        _CHOICE,
        question="question|problem|Question",
        answer="answer|answerKey|Answer",
        choices="choices|options|A+B+C+D",
    ),
    "mbpp": replace(
        _CODE,
        question="prompt|text",
        answer="code|canonical_solution|",
        tests="test_list|tests",
        test_setup="test_setup_code|test_imports|setup|imports|",
        shown_tests=1,
    ),
    "humaneval": replace(
        _CODE,
        question="prompt",
        answer="prompt+canonical_solution|",
        tests="test|tests",
        entry_point="entry_point",
        code_question=True,
        prompt="Complete this Python function.\n\n```python\n{question}\n```\n\n"
        "Answer with the whole function in one ```python block.",
    ),
    "leetcode": replace(
        _CODE,
        question="prompt|problem|question",
        answer="canonical_solution|completion|solution|",
        tests="tests|test",
        preamble=LEETCODE_SETUP,
    ),
    "codecontests": replace(
        _CODE, question="prompt|description", tests="tests|public_tests+private_tests+generated_tests"
    ),
    "codeforces": replace(_CODE, question="prompt|description", tests="tests|official_tests"),
    # The hub's private tests are pickled, which is code: they are left alone.
    "livecodebench": replace(
        _CODE,
        question="prompt|question_content+starter_code|question",
        id="id|question_id|task_id|",
        tests="tests|public_test_cases|input_output",
        entry_point="metadata.func_name|",
        preamble=LEETCODE_SETUP,
    ),
}

_ASKS: dict[str, dict[Language, str]] = {
    "boxed": {
        "en": "\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
        "zh": "\n\n请逐步推理，并把最终答案写在 \\boxed{} 中。",
    },
    "choice": {
        "en": '\n\nEnd with the letter of the right choice, as in "The answer is (X)".',
        "zh": "\n\n最后写出正确选项的字母，格式为“答案：X”。",
    },
    "code": {
        "en": "\n\nAnswer with a Python program in one ```python block.",
        "zh": "\n\n请把 Python 程序写在一个 ```python 代码块中。",
    },
}


class Loaded(NamedTuple):
    """The problems of a data set, and a line for each row that was left out."""

    problems: list[Problem]
    bad_rows: list[str]


class _Row(NamedTuple):
    """A row as it was read: its number, counted from 1, and that of a line or of a row."""

    number: int
    fields: dict[str, Any]
    unit: str = "line"


class _BadRow(NamedTuple):
    """A row that cannot be read, and why."""

    number: int
    why: str
    unit: str = "line"


class _Refused(Exception):
    """Why a row cannot be used."""


def mapping_for(format: str = "", **given: str) -> Mapping:
    """Return the mapping of a known format, with the settings that are given and not empty instead of its own."""
    if format and format not in PRESETS:
        raise HoneError(f"no format {format!r}{_near(format, PRESETS)}; the formats are {', '.join(PRESETS)}")
    own = {"code": _CODE, "choice": _CHOICE}.get(given.get("verifier", ""), Mapping())
    settings: dict[str, Any] = {name: text for name, text in given.items() if text}
    made = replace(PRESETS.get(format, own), **settings)
    needed = {"code": ("tests",), "choice": ("choices", "answer")}.get(made.verifier, ("answer",))
    for name in ("question", *needed):
        if not getattr(made, name):
            raise HoneError(f"the mapping does not say which field holds the {name}; name it, or a format")
    if made.prompt and "{question}" not in made.prompt:
        raise HoneError("the prompt has no {question}, so no problem would be asked")
    if made.language not in ("auto", "en", "zh"):
        raise HoneError(f"no language {made.language!r}; the languages are en, zh and auto")
    return made


def load_problems(
    path: str,
    *,
    format: str = "",
    split: Split | Literal["all"] = "all",
    count: int = 0,
    seed: int = 0,
    max_bad_rows: int = 0,
    hub_split: str = "train",
    hub_config: str = "",
    **given: str,
) -> Loaded:
    """Return the problems of a data set; `format` and what else is given make the mapping (`mapping_for`).

    `split` keeps those whose normalised question belongs to it. Of `count` problems `seed` says which and in which
    order, a shorter list being the beginning of a longer one; without a count all come, as they stand. Refuse more than
    `max_bad_rows` rows that cannot be used, fewer problems than `count`, and none at all.
    """
    mapping = mapping_for(format, **given)
    task = path.removeprefix(HUB) if path.startswith(HUB) else Path(path).stem
    problems: list[Problem] = []
    bad_rows: list[str] = []
    num_bad = 0
    seen: dict[str, int] = {}
    for row in _rows(path, hub_split, hub_config):
        try:
            problem = _problem(row, mapping, task)
            if problem.id in seen:
                raise _Refused(f"the id {_shown(problem.id)} is that of {row.unit} {seen[problem.id]}")
        except (_Refused, RecursionError) as refused:
            num_bad += 1
            if not bad_rows or num_bad <= max_bad_rows:
                bad_rows.append(f"{path}, {row.unit} {row.number}: {refused}")
            continue
        seen[problem.id] = row.number
        if split in ("all", split_of(normalise(problem.question))):
            problems.append(problem)
    if num_bad > max_bad_rows:
        raise HoneError(f"{bad_rows[0]} (bad rows in all: {num_bad}; max_bad_rows allows {max_bad_rows})")
    if not problems or count > len(problems):
        which = "" if split == "all" else f" of the split {split!r}"
        wanted = f"{count} problems were asked for, but there are only {len(problems)}" if problems else "no problem"
        raise HoneError(f"{path}: {wanted}{which}")
    if count:
        random.Random(f"{seed}/{task}").shuffle(problems)
        del problems[count:]
    return Loaded(problems, bad_rows)


def read_rows(
    path: str | Path, *, hub_split: str = "train", hub_config: str = ""
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a file, a folder or a data set of the hub one by one, with their lines; blank lines are none.

    Refuse what is not there, what has no rows, and the first row that cannot be read.
    """
    for row in _rows(str(path), hub_split, hub_config):
        if isinstance(row, _BadRow):
            raise HoneError(f"{path}, {row.unit} {row.number}: {row.why}")
        yield row.number, row.fields


def _rows(path: str, hub_split: str, hub_config: str) -> Iterator[_Row | _BadRow]:
    file = Path(path).expanduser()
    if path.startswith(HUB) or file.is_dir():
        rows = _library_rows(path, hub_split, hub_config)
    elif not file.is_file():
        names = [other.name for other in file.parent.iterdir()] if file.parent.is_dir() else []
        raise HoneError(f"there is no file {path}{_near(file.name, names)}")
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


def _json_lines(file: Path) -> Iterator[_Row | _BadRow]:
    with file.open("rb") as lines:
        for number in itertools.count(1):
            line = lines.readline(MAX_ROW_BYTES)
            if not line:
                return
            too_long = False
            while len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
                line, too_long = lines.readline(MAX_ROW_BYTES), True
            if too_long:
                yield _BadRow(number, f"longer than {MAX_ROW_BYTES:,} bytes")
            elif (text := line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip():
                yield _parsed(number, text)


def _parsed(number: int, line: bytes) -> _Row | _BadRow:
    try:
        fields = _from_json(line.decode())
    except UnicodeDecodeError as error:
        return _BadRow(number, f"not UTF-8: byte {line[error.start]:#04x} at {error.start + 1}")
    except _Refused as refused:
        cut_off = "" if line.endswith(b"\n") else "; the last line, perhaps cut off"
        return _BadRow(number, f"{refused}{cut_off}")
    return _Row(number, fields) if isinstance(fields, dict) else _BadRow(number, f"not an object but {_kind(fields)}")


def _json_array(file: Path) -> Iterator[_Row | _BadRow]:
    """Yield the objects of a list, read whole; a file that does not begin with a bracket is read as JSON Lines."""
    with file.open("rb") as opened:
        if not opened.read(1000).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            yield from _json_lines(file)
            return
    try:
        values = _from_json(file.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, _Refused) as error:
        raise HoneError(f"{file}: {error}") from error
    for number, fields in enumerate(values, start=1):
        if isinstance(fields, dict):
            yield _Row(number, fields, "row")
        else:
            yield _BadRow(number, f"not an object but {_kind(fields)}", "row")


def _csv(file: Path) -> Iterator[_Row | _BadRow]:
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
                yield _BadRow(number, f"not CSV: {error}")
                continue
            if not values:
                continue
            if not header:
                header = values
                if len(set(header)) < len(header):
                    raise HoneError(f"{file}: two columns of one name in the header")
            elif len(values) != len(header):
                yield _BadRow(number, f"{len(values)} fields where the header has {len(header)}")
            else:
                yield _Row(number, dict(zip(header, values, strict=True)))


def _parquet(file: Path) -> Iterator[_Row | _BadRow]:
    try:
        with pq.ParquetFile(file) as opened:
            numbers = itertools.count(1)
            for batch in opened.iter_batches(batch_size=1000):
                for fields in batch.to_pylist():
                    yield _Row(next(numbers), fields, "row")
    except (pa.ArrowException, OSError) as error:
        raise HoneError(f"{file}: not a Parquet file that can be read: {_one_line(error)}") from error


_READERS: dict[str, Callable[[Path], Iterator[_Row | _BadRow]]] = {
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".csv": _csv,
    ".parquet": _parquet,
}


_HUB_NAME = re.compile(rf"{HUB}[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")  # no path to a folder here


def _library_rows(path: str, split: str, config: str) -> Iterator[_Row | _BadRow]:
    """Yield the rows of a folder or of a data set of the hub. Code that comes with it is never run."""
    if path.startswith(HUB) and not _HUB_NAME.fullmatch(path):
        raise HoneError(f"{path}: not hub:owner/name")
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise HoneError(f"{path}: a folder or the hub needs `datasets`: pip install 'hone-r1[hub]'") from error
    folder = Path(path).expanduser()
    try:
        if path.startswith(HUB):
            rows = datasets.load_dataset(path.removeprefix(HUB), config or None, split=split)
        elif (folder / "state.json").is_file():
            rows = datasets.load_from_disk(str(folder))
        elif (folder / "dataset_dict.json").is_file():
            rows = datasets.load_from_disk(str(folder / split))
        else:
            rows = datasets.load_dataset(str(folder), config or None, split=split, streaming=True)
        for number, fields in enumerate(rows, start=1):
            yield _Row(number, dict(fields), "row")
    except (datasets.exceptions.DatasetsError, pa.ArrowException, OSError, RuntimeError, ValueError) as error:
        raise HoneError(f"{path}: cannot be loaded: {_one_line(error)}") from error


def _problem(row: _Row | _BadRow, mapping: Mapping, task: str) -> Problem:
    if isinstance(row, _BadRow):
        raise _Refused(row.why)
    fields = row.fields
    question = _text(_find(fields, mapping.question), "question").strip()
    choices: list[str] = []
    tests: tuple[CodeTest, ...] = ()
    setup = ""
    if mapping.verifier == "code":
        tests, setup = _program(fields, mapping, question)
        answer = _text(_find(fields, f"{mapping.answer}|"), "answer", optional=True)
        shown = [test.code for test in tests if isinstance(test, AssertTest)][: mapping.shown_tests]
        question = "\n".join([question, *shown])
    elif mapping.verifier == "choice":
        choices, answer = _choices(fields, mapping)
    else:
        answer = _reference(fields, mapping)
    language = mapping.language if mapping.language != "auto" else "zh" if _HAN.search(question) else "en"
    message = _message(mapping, language, question, choices)
    problem = Problem(
        id=_id(row, mapping, task),
        task=task,
        messages=(Message(role="user", content=message),),
        answer=answer,
        verifier=mapping.verifier,
        extract=mapping.extract,
        language=language,
        tests=tests,
        setup=setup,
        asked=question if question != message else "",
    )
    _refuse_unwritable(problem)
    return problem


_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{question\}|\{choices\}")


def _message(mapping: Mapping, language: Language, question: str, choices: list[str]) -> str:
    """Fill in the prompt. What is filled in is never searched for placeholders; doubled braces are single ones."""
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    plain = "{question}\n\n{choices}" if choices else "{question}"
    prompt = mapping.prompt or plain + _ASKS.get(mapping.extract, {}).get(language, "")
    texts = {"{{": "{", "}}": "}", "{question}": question, "{choices}": listed}
    return _PLACEHOLDER.sub(lambda found: texts[found.group()], prompt)


def _id(row: _Row, mapping: Mapping, task: str) -> str:
    found = _find(row.fields, mapping.id)
    if found is None:
        return f"{task}/{row.number}"
    name = _text(found, "id").strip()
    return f"{task}/{name}" if name.isdecimal() else name


def _reference(fields: dict[str, Any], mapping: Mapping) -> str:
    """Return the reference answer: the field, or what a worked solution ends in (`#### 72`, `\\boxed{72}`)."""
    worked = _find(fields, f"{mapping.solution}|")
    found = _find(fields, f"{mapping.answer}|" if worked else mapping.answer)
    if found is None:
        answer = _final_answer(_text(worked, "solution"))
        if not answer:
            raise _Refused("no answer, and the solution has neither \\boxed{} nor ####")
        return answer
    if len(found) == 1 and isinstance(found[0], list):
        return ", ".join(_text([value], "answer").strip() for value in found[0]) or _empty("answer")
    answer = _text(found, "answer").strip()
    return _final_answer(answer) or answer


_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def _final_answer(text: str) -> str:
    """Return what follows the last ####, or else what is in the last box; nothing where there is neither."""
    if "####" in text:
        return text.rpartition("####")[2].strip()
    start = max((found.end() for found in _BOX.finditer(text)), default=None)
    depth = 1
    for found in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL) if start is not None else ():
        depth += {"{": 1, "}": -1}.get(found.group(), 0)
        if depth == 0:
            return text[start:][: found.start()].strip()
    return ""


def _choices(fields: dict[str, Any], mapping: Mapping) -> tuple[list[str], str]:
    """Return the choices, and the letter of the right one: named by its label, its text or its index from 0."""
    found = _find(fields, mapping.choices)
    given = found[0] if found is not None and len(found) == 1 else found
    if isinstance(given, str):
        given = _from_json(given)
    match given:
        case {"text": list(values), "label": list(names)} if len(values) == len(names):
            labels = [str(name) for name in names]
        case dict():
            labels = sorted(name for name, value in given.items() if value is not None)
            values = [given[name] for name in labels]
        case list():
            labels, values = list(LETTERS[: len(given)]), given
        case _:
            raise _Refused(f"the choices are {_kind(given)}")
    choices = [_text([value], "choice").strip() for value in values]
    if not 2 <= len(choices) <= len(LETTERS):
        raise _Refused(f"{len(choices)} choices; from 2 to {len(LETTERS)} can be asked for")
    answer = _text(_find(fields, mapping.answer), "answer").strip()
    for names in (labels, [str(index) for index in range(len(choices))], choices):
        if names.count(answer) == 1:
            return choices, LETTERS[names.index(answer)]
    raise _Refused(f"the answer {_shown(answer)} is none of the choices {', '.join(labels)}")


def _program(fields: dict[str, Any], mapping: Mapping, question: str) -> tuple[tuple[CodeTest, ...], str]:
    """Return the tests of a program and the code that precedes it."""
    function = _text(_find(fields, mapping.entry_point or "|"), "entry point", optional=True)
    owner = "Solution." if "class Solution" in question else ""
    tests = list(_tests(_find(fields, mapping.tests), function, owner))
    if not tests:
        raise _Refused("no tests")
    before = _lines(_find(fields, f"{mapping.test_setup}|"), "test setup")
    setup = [mapping.preamble, _lines(_find(fields, mapping.setup or "|"), "setup")]
    if mapping.code_question:
        head, found, _ = question.partition(f"def {function}(")
        setup.append(head if found else "")
    for number, test in enumerate(tests):
        if isinstance(test, AssertTest):
            call = f"\n\ncheck({function})\n" if function and "def check(" in test.code else ""
            tests[number] = AssertTest(code="\n".join([before, test.code] if before else [test.code]) + call)
    return tuple(tests), "\n".join(part for part in setup if part)


def _tests(value: Any, function: str, owner: str) -> Iterator[CodeTest]:
    """Yield the tests of any form that is known.

    Python code or a list of it; `{"functional": code}`; `{"input", "output"}` or a list of them, or `{"inputs": [...],
    "outputs": [...]}`, with `fn_name` where a function is called; and JSON text of these. `owner` is the function's
    class with a dot.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = _from_json(value)
    match value:
        case str() if value.strip():
            yield AssertTest(code=value)
        case list():
            for one in value:
                yield from _tests(one, function, owner)
        case {"functional": str(code)}:
            yield AssertTest(code=code)
        case {"input_output": inner}:
            yield from _tests(inner, function, owner)
        case {"inputs": inputs, "outputs": outputs} | {"input": inputs, "output": outputs}:
            called = "" if value.get("testtype") == "stdin" else value.get("fn_name") or function
            if called and not (isinstance(called, str) and called.isidentifier()):
                raise _Refused("the function that the tests call has no Python name")
            if not (isinstance(inputs, list) and isinstance(outputs, list)):
                inputs, outputs = [inputs], [outputs]
            if len(inputs) != len(outputs):
                raise _Refused(f"{len(inputs)} inputs of tests but {len(outputs)} outputs")
            for given, wanted in zip(inputs, outputs, strict=True):
                yield _call(owner + called, given, wanted) if called else _run(given, wanted)
        case _:
            raise _Refused(f"the tests hold {_kind(value)} of no known form")


def _run(given: Any, wanted: Any) -> StdinTest:
    return StdinTest(stdin=_lines([given], "input of a test"), stdout=_lines([wanted], "output of a test"))


def _call(function: str, given: Any, wanted: Any) -> CallTest:
    """Return a call. As text there is a JSON value a line; as a list, the result stands in a list of its own."""
    if isinstance(given, str) and isinstance(wanted, str):
        args = [_from_json(line) for line in given.split("\n") if line.strip()]
        return CallTest(function=function, args=tuple(args), expected=_from_json(wanted))
    if not isinstance(given, list):
        raise _Refused(f"the arguments of {function} are {_kind(given)}, not a list")
    expected = wanted[0] if isinstance(wanted, list) and len(wanted) == 1 else wanted
    return CallTest(function=function, args=tuple(given), expected=expected)


def _find(fields: dict[str, Any], names: str) -> list[Any] | None:
    """Return the values of the first alternative that the row has; None where it may have none."""
    for alternative in names.split("|"):
        if not alternative:
            return None
        values = [_value(fields, name) for name in alternative.split("+")]
        if all(value is not None for value in values):
            return values
    wanted = [name for alternative in names.split("|") for name in alternative.split("+")]
    for name in wanted:
        if name in fields:
            raise _Refused(f"the field {_shown(name)} is null")
    has = ", ".join(_shown(name) for name in list(fields)[:12])
    raise _Refused(f"no field {' or '.join(map(repr, wanted))}; the row has {has}{_near(wanted[0], fields)}")


def _value(fields: dict[str, Any], name: str) -> Any:
    """Return a field, or one within a field that is an object or the JSON text of one; None where there is none."""
    if name in fields or "." not in name:
        return fields.get(name)
    outer, _, inner = name.partition(".")
    value = fields.get(outer)
    if isinstance(value, str) and value.startswith("{"):
        value = _from_json(value)
    return _value(value, inner) if isinstance(value, dict) else None


def _text(values: list[Any] | None, role: str, *, optional: bool = False) -> str:
    """Return the values of a field as text; refuse what is neither text nor a number, and what is empty."""
    parts: list[str] = []
    for value in values or ():
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            parts.append(str(int(value)) if value == int(value) else str(value))
        else:
            raise _Refused(f"the {role} is {_kind(value)}, not text")
    text = "\n".join(parts)
    return text if text.strip() or optional else _empty(role)


def _lines(values: list[Any] | None, role: str) -> str:
    """Return text that a field may also hold as a list of lines, or leave out."""
    flat = [line for value in values or () for line in (value if isinstance(value, list) else [value])]
    return _text(flat, role, optional=True)


def _empty(role: str) -> NoReturn:
    raise _Refused(f"the {role} is empty")


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _Refused(f"not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise _Refused(f"not JSON: {_one_line(error)}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _refuse_unwritable(problem: Problem) -> None:
    """Refuse text that cannot be written down as UTF-8, and a NUL in what people, models and compilers read."""
    read = [problem.id, problem.messages[0].content, problem.answer, problem.setup]
    data: list[str] = []
    for test in problem.tests:
        match test:
            case StdinTest(stdin=stdin, stdout=stdout):
                data += [stdin, stdout]
            case CallTest(function=function, args=args, expected=expected):
                data.append(json.dumps([function, args, expected], ensure_ascii=False, default=str))
            case AssertTest(code=code):
                read.append(code)
    if any("\0" in text for text in read):
        raise _Refused("a NUL character")
    try:
        "".join(read + data).encode()
    except UnicodeEncodeError as error:
        raise _Refused(f"not UTF-8, or half of a surrogate pair: {error.object[error.start]!r}") from error


def _kind(value: Any) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    names |= {int: "a number", float: "a number", type(None): "null"}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return names.get(type(value), f"a {type(value).__name__}")


def _shown(text: str) -> str:
    """Return untrusted text as it can stand in a message."""
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names)[:1000], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
