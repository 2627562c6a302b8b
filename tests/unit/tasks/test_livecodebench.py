"""LiveCodeBench's release format: private tests are read and never unpickled, dates are windows of days."""

import base64
import json
import os
import pickle
import zlib
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from hone.tasks import livecodebench
from hone.tasks.datasets import load_problems
from hone.tasks.livecodebench import Window, unpack_tests
from hone.tasks.rows import Refused
from hone.types import CallTest, HoneError, Problem, StdinTest

STDIN = [{"input": "3\n1 2\n", "output": "3\n", "testtype": "stdin"}]
CALLS = [{"input": "[1, 2]\n3", "output": "[3, 6]", "testtype": "functional"}]
# The private tests of the release's first row, as its authors' tracker shows them.
RELEASED = (
    "eJxrYJmaz8gABhEZQEZ0tVJmXkFpiZKVgpJhTF5iUnJMnpKOglJ+aQlUNNI1GCJUklpcUlJZkAoSLC5JycxTqtVRQNJuDNWOILAYhCCIMdI0Ji85"
    "MQloWjKQSE5KjMlLSgSam5SciG64nz+y2WACJESMJWYY7ibFG8T5KnaKHgAcinnp"
)


def packed(pickled: bytes) -> str:
    return base64.b64encode(zlib.compress(pickled)).decode()


def as_released(tests: Any, protocol: int = 4) -> str:
    return packed(pickle.dumps(json.dumps(tests), protocol=protocol))


def row(**fields: Any) -> dict[str, Any]:
    return {
        "question_title": "Twice", "question_content": "Double them.", "platform": "leetcode", "question_id": "3026",
        "contest_id": "weekly", "contest_date": "2024-08-03T00:00:00", "starter_code": "", "difficulty": "hard",
        "public_test_cases": json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}]),
        "private_test_cases": as_released(STDIN), "metadata": "{}",
    } | fields  # fmt: skip


def load(folder: Path, *rows: dict[str, Any], **window: str) -> list[Problem]:
    file = folder / "release.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")
    return load_problems(str(file), format="livecodebench", name="livecodebench", **window).problems


def test_the_released_text_is_read() -> None:
    tests = unpack_tests(RELEASED)
    assert [test["input"] for test in tests] == ["1\nabc\n", "3\nabc\nabc\nabc\n", "5\ncab\nacb\ncba\nbac\nbca\n",
        "6\nabc\nabc\nabc\nabc\nabc\nabc\n"]  # fmt: skip
    assert tests[0] == {"input": "1\nabc\n", "output": "YES\n", "testtype": "stdin"}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("tests", [STDIN, [{"input": "Ω😀\\u0041\n" * 200, "output": "汉"}], []])
def test_every_protocol_is_read(protocol: int, tests: Any) -> None:
    assert unpack_tests(as_released(tests, protocol)) == tests
    unescaped = pickle.dumps(json.dumps(tests, ensure_ascii=False), protocol=protocol)
    assert unpack_tests(packed(unescaped)) == tests


def test_a_long_text_and_plain_json_are_read() -> None:
    tests = [{"input": "x" * 200_000, "output": "y"}]
    assert unpack_tests(as_released(tests)) == tests
    assert unpack_tests(json.dumps(STDIN)) == STDIN
    wrapped = "\n".join(as_released(STDIN)[start : start + 20] for start in range(0, 400, 20))
    assert unpack_tests(wrapped) == STDIN


class Runs:
    """A pickle of it is a program that calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_something_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    hostile = pickle.dumps(Runs(os.system, f"touch {mark}"), protocol=protocol)
    # The names of the function come first as texts, then the instruction that looks it up.
    with pytest.raises(Refused, match=r"holds (STACK_)?GLOBAL; only a text is read, and nothing is run"):
        unpack_tests(packed(hostile))
    with pytest.raises(HoneError, match=r"release.jsonl, line 1: the pickle of the private tests holds"):
        load(tmp_path, row(private_test_cases=packed(hostile)))
    assert not mark.exists()
    pickle.loads(hostile)  # noqa: S301  the test's own: it would have run
    assert mark.exists()


@pytest.mark.parametrize(
    ("pickled", "why"),
    [
        (pickle.dumps(7), "BININT1"),
        (pickle.dumps([json.dumps(STDIN)]), "EMPTY_LIST"),
        (pickle.dumps({"a": "b"}), "EMPTY_DICT"),
        (pickle.dumps(b"bytes"), "SHORT_BINBYTES"),
        (pickle.dumps(("a", "b")), "TUPLE2"),
        (pickle.dumps(None), "holds NONE"),
        (pickle.dumps(2**100_000), "LONG4"),
        (b"I" + b"9" * 100_000 + b"\n.", "holds INT"),
        (b"\x80\x04\x8c\x01a\x8c\x01b.", "not one text"),
        (b"\x80\x04.", "not one text"),
        (pickle.dumps("[]") + b"more", "not one text"),
        (b"\x80\x04\x8d" + (2**60).to_bytes(8, "little") + b"x.", "cut off"),
        (pickle.dumps("[]")[:-1], "cut off"),
        (b"V" + b"a" * 100, "cut off"),
        (b"", "cut off"),
        (b"\x80\x04X\x02\x00\x00\x00\xff\xff.", "not UTF-8"),
        (b"V\\ud8\n.", "not UTF-8"),
        (b"\xff", "the byte 0xff"),
        (pickle.dumps("{}"), "an object, not a list"),
        (pickle.dumps("print(1)"), "not JSON"),
        (pickle.dumps("[" * 100_000), "not JSON"),
        (pickle.dumps("[NaN]"), "NaN is not a JSON value"),
    ],
)  # fmt: skip
def test_other_pickles_are_refused(pickled: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        unpack_tests(packed(pickled))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (as_released(STDIN)[:-3], "not base64"),
        ("import os; os.system('x')", "not base64"),
        ("é" * 8, "not base64"),
        (base64.b64encode(b"no zlib here").decode(), "not zlib data"),
        (base64.b64encode(zlib.compress(pickle.dumps("[]"))[:-6]).decode(), "cut off|no end"),
    ],
)
def test_what_is_not_packed_is_refused(text: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        unpack_tests(text)


def test_a_bomb_is_refused_without_being_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert livecodebench.MAX_UNPACKED_BYTES < 1_000_000_000
    monkeypatch.setattr(livecodebench, "MAX_UNPACKED_BYTES", 100_000)
    bomb = pickle.dumps("[" + " " * 50_000_000 + "]")
    assert len(packed(bomb)) < 100_000
    with pytest.raises(Refused, match="unpack to more than 100,000 bytes"):
        unpack_tests(packed(bomb))


def test_a_release_row_that_reads_and_prints(tmp_path: Path) -> None:
    (problem,) = load(tmp_path, row())
    assert problem.id == "livecodebench/3026"
    assert problem.tests == (StdinTest(stdin="1\n", stdout="2\n"), StdinTest(stdin="3\n1 2\n", stdout="3\n"))
    assert (problem.question, dict(problem.tags)) == ("Double them.", {"level": "hard"})
    asked = problem.messages[0].content
    assert asked.startswith("You will be given a question")
    assert "Question: Double them.\n\nRead the inputs from stdin" in asked
    assert asked.endswith("```python\n# YOUR CODE HERE\n```")


def test_a_release_row_that_is_called(tmp_path: Path) -> None:
    starter = "class Solution:\n    def twice(self, values: List[int], times: int) -> List[int]:\n        "
    functional = row(
        starter_code=starter, metadata='{"func_name": "twice"}', public_test_cases=json.dumps(CALLS),
        private_test_cases=as_released([{"input": "[]\n0", "output": "[]", "testtype": "functional"}]),
    )  # fmt: skip
    (problem,) = load(tmp_path, functional)
    assert problem.tests == (
        CallTest(function="Solution.twice", args=([1, 2], 3), expected=[3, 6]),
        CallTest(function="Solution.twice", args=([], 0), expected=[]),
    )
    assert "You will use the following starter code" in problem.messages[0].content
    assert f"```python\n{starter}\n```" in problem.messages[0].content
    assert "{" not in problem.messages[0].content.replace("{question}", "")


def test_starter_code_is_shown_by_any_prompt(tmp_path: Path) -> None:
    file = tmp_path / "release.jsonl"
    file.write_text(json.dumps(row(starter_code="def f(x):")) + "\n")
    (problem,) = load_problems(str(file), format="livecodebench", prompt="Q: {question}").problems
    assert problem.messages[0].content == "Q: Double them.\ndef f(x):"


def test_windows_are_of_days(tmp_path: Path) -> None:
    dates = ("2024-07-31T23:59:00", "2024-08-01T00:00:00", "2025-01-31T12:00:00", "2025-02-01T00:00:00")
    rows = [row(question_id=str(number), contest_date=text) for number, text in enumerate(dates)]
    rows[0]["private_test_cases"] = "outside the window nothing is unpacked"

    def ids(**window: str) -> list[str]:
        return [problem.id.rpartition("/")[2] for problem in load(tmp_path, *rows, **window)]

    assert ids(since="2024-08-01", until="2025-01-31") == ids(since="2024-08", until="2025-01") == ["1", "2"]
    assert ids(since="2024-08-02") == ["2", "3"]
    assert ids(since="2024-08", until="2024-08-01") == ["1"]
    with pytest.raises(HoneError, match="no problem in the window; 4 outside"):
        ids(since="2026-01")
    with pytest.raises(HoneError, match="line 1: the private tests are not base64"):
        ids()


@pytest.mark.parametrize(
    ("since", "until", "why"),
    [("2024", None, "'2024' is no date"), (None, "yesterday", "no date"), ("2024-02-30", None, "no date"),
     ("2024-02", "2024-01", "holds no day")],
)  # fmt: skip
def test_wrong_windows(since: str | None, until: str | None, why: str) -> None:
    with pytest.raises(HoneError, match=why):
        Window.of(since, until)


def test_dates_of_rows() -> None:
    window = Window.of("2024-02-29", "2024-12")
    assert window == Window(date(2024, 2, 29), date(2024, 12, 31))
    assert Window.of(None, "2024-02").until == date(2024, 2, 29)
    assert window.holds(datetime(2024, 12, 31, 23, 59))
    assert window.holds(date(2024, 2, 29))
    assert not window.holds("2024-02-28")
    for value in ("soon", 20240801, None):
        with pytest.raises(Refused, match="the date is"):
            window.holds(value)


def test_rows_without_a_date_have_no_window(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match="no field 'contest_date'"):
        load(tmp_path, {key: value for key, value in row().items() if key != "contest_date"}, since="2024-08")
