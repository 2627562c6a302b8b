"""Checks files of answers and of programs, row by row: what `hone verify` and `hone sandbox run` do."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hone.rewards.extract import extract
from hone.rewards.maths import equivalent
from hone.sandbox import Limits, Sandbox
from hone.tasks.rows import read_rows
from hone.types import AssertTest, CallTest, CodeTest, HoneError, RunError, StdinTest, Verdict, Verified

Row = Mapping[str, Any]


def verify_rows(rows: Sequence[Row], how: str) -> Iterator[dict[str, Any]]:
    """Judge rows `{id, gold, pred}`, in order: `{id, verdict, why, seconds}`; as many at once as there are cores."""
    extract("", how)  # refuses an unknown way before anything is written

    def judge(row: Row) -> dict[str, Any]:
        started = time.perf_counter()
        answer = extract(row["pred"], how)
        missing = Verified(Verdict.WRONG, "no answer in it")
        verified = missing if answer is None else equivalent(row["gold"], answer)
        seconds = time.perf_counter() - started
        return {"id": row["id"], "verdict": verified.verdict.value, "why": verified.why, "seconds": round(seconds, 6)}

    def judged() -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            yield from threads.map(judge, rows)

    return judged()


def run_programs(rows: Sequence[Row], limits: Limits, *, unsafe: bool = False) -> Iterator[dict[str, Any]]:
    """Run rows `{id, program, tests}`, in order: `{id, verdict, why, seconds, peak_mb, passed, isolated}`."""
    with Sandbox(limits, unsafe=unsafe) as sandbox:
        results = sandbox.check_all((row["program"], row["tests"], row["setup"]) for row in rows)
        for row, result in zip(rows, results, strict=True):
            yield {
                "id": row["id"], "verdict": result.outcome.value, "why": result.why,
                "seconds": round(result.seconds, 6), "peak_mb": result.peak_mb, "passed": result.share,
                "isolated": result.isolated,
            }  # fmt: skip


def answer_rows(file: Path) -> list[Row]:
    """Read rows `{id, gold, pred}`, text or numbers; refuse any other by its line."""
    return [
        {"id": row.get("id", line), **{key: _answer(row, key, file, line) for key in ("gold", "pred")}}
        for line, row in read_rows(file)
    ]


def program_rows(file: Path) -> list[Row]:
    """Read rows `{id, program, tests}`, and `setup` where it is given; refuse any other by its line."""
    return [_program_row(row, file, line) for line, row in read_rows(file)]


def write_verdicts(verdicts: Iterable[dict[str, Any]], out: Path, on_row: Callable[[int], None]) -> Counter[str]:
    """Write each verdict as a JSON line as it comes, so that an interrupt loses none; return how many of each."""
    counts: Counter[str] = Counter()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", encoding="ascii") as file:
            for number, verdict in enumerate(verdicts, 1):
                file.write(json.dumps(verdict) + "\n")
                file.flush()
                counts[verdict["verdict"]] += 1
                on_row(number)
    except OSError as error:
        raise RunError(f"{out}: {error.strerror}; the verdicts written before it are sound") from error
    return counts


def _program_row(row: Row, file: Path, line: int) -> Row:
    tests = row.get("tests")
    if not isinstance(tests, list) or not tests:
        raise HoneError(f"{file}, line {line}: 'tests' is no list of tests")
    return {
        "id": row.get("id", line),
        "program": _text(row, "program", file, line),
        "tests": tuple(_test(test, file, line) for test in tests),
        "setup": _text({"setup": "", **row}, "setup", file, line),
    }


def _answer(row: Row, key: str, file: Path, line: int) -> str:
    value = row.get(key)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else _text(row, key, file, line)


def _text(row: Row, key: str, file: Path, line: int) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        what = "no" if key not in row else "not a string as"
        raise HoneError(f"{file}, line {line}: {what} field {key!r}; the row has {', '.join(map(repr, row))}")
    return value


def _test(test: Any, file: Path, line: int) -> CodeTest:
    match test:
        case str():
            return AssertTest(code=test)
        case {"stdin": str(stdin), "stdout": str(stdout)}:
            return StdinTest(stdin=stdin, stdout=stdout)
        case {"function": str(function), "args": list(args), "expected": expected}:
            return CallTest(function=function, args=tuple(args), expected=expected)
    raise HoneError(
        f"{file}, line {line}: a test is an assert, {{stdin, stdout}} or {{function, args, expected}}, "
        f"not {json.dumps(test)[:80]}"
    )
