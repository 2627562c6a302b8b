"""Rows and files that are broken or hostile: refused with their place, never run, never half used."""

import codecs
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hone.tasks import rows
from hone.tasks.datasets import load_problems
from hone.tasks.overlap import normalise
from hone.tasks.rows import read_rows
from hone.types import HoneError

PLAIN = {"question": "question", "answer": "answer"}
CODE = {"question": "question", "tests": "tests", "verifier": "code"}
GOOD = b'{"question": "What is 2 + 2?", "answer": "4"}\n'


def refused(folder: Path, content: bytes, made: dict[str, str] = PLAIN, name: str = "train.jsonl") -> str:
    """Load a file that must be refused and return what is said, without the folder."""
    file = folder / name
    file.write_bytes(content)
    with pytest.raises(HoneError) as error:
        load_problems(str(file), **made)
    said = str(error.value)
    assert "\n" not in said
    return said.replace(f"{folder}/", "")


def assert_loaded_or_refused(file: Path, made: dict[str, str]) -> None:
    said = ""
    try:
        for problem in load_problems(str(file), **made, max_bad_rows=100).problems:
            problem.messages[0].content.encode()
    except HoneError as error:
        said = str(error)
    assert "\n" not in said


def row(**fields: Any) -> bytes:
    return json.dumps({"question": "?", "answer": "4"} | fields).encode() + b"\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (
            b'{"question": "?", "awnser": 1}\n',
            "no field 'answer'; the row has 'question', 'awnser'; did you mean 'awnser'?",
        ),
        (b"[1, 2]\n", "not an object but a list"),
        (b'"text"\n', "not an object but text"),
        (b"{question: 1}\n", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'{"question": "?", "answer": NaN}\n', "not JSON: NaN is not a JSON value"),
        (b'{"question": "?", "answer": -Infinity}\n', "not JSON: -Infinity is not a JSON value"),
        (b'{"question": "?", "answer": 1e999}\n', "the answer is inf, not text"),
        (b'{"question": "?", "answer": ' + b"9" * 5000 + b"}\n", "not JSON: Exceeds the limit"),
        (b'{"question": "\xff", "answer": "4"}\n', "not UTF-8: byte 0xff at 15"),
        (row(answer=None), "the field 'answer' is null"),
        (row(answer=""), "the answer is empty"),
        (row(answer="  "), "the answer is empty"),
        (row(answer=[]), "the answer is empty"),
        (row(answer=[["4"]]), "the answer is a list, not text"),
        (row(answer=True), "the answer is true or false, not text"),
        (row(answer={"is": 4}), "the answer is an object, not text"),
        (row(question=""), "the question is empty"),
        (row(question=[{"role": "user"}]), "the question is a list, not text"),
        (row(question="a\0b"), "a NUL character"),
        (row(answer="\ud800"), "not UTF-8, or half of a surrogate pair: '\\ud800'"),
        (row(id=["x"]), "the id is a list, not text"),
        (b'{"question": ' + b"[" * 100_000 + b"\n", "not JSON: maximum recursion depth exceeded"),
        (GOOD[:30], "the last line, perhaps cut off"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_reason(tmp_path: Path, line: bytes, why: str) -> None:
    said = refused(tmp_path, GOOD + b"\n" + line)
    assert said.startswith("train.jsonl, line 3: ")
    assert why in said


def test_the_first_bad_row_is_named_and_all_are_counted(tmp_path: Path) -> None:
    said = refused(tmp_path, GOOD + b"{}\n" + b"[]\n" + b"x\n")
    assert said.startswith("train.jsonl, line 2: no field 'question'")
    assert said.endswith("(bad rows in all: 3; max_bad_rows allows 0)")


def test_bad_rows_are_left_out_up_to_a_number(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(b"[]\n" + GOOD + b"x\n")
    loaded = load_problems(str(file), **PLAIN, max_bad_rows=2)
    assert [problem.id for problem in loaded.problems] == ["train/2"]
    assert [line.partition(", ")[2].partition(":")[0] for line in loaded.bad_rows] == ["line 1", "line 3"]
    with pytest.raises(
        HoneError, match=r"line 1: not an object but a list \(bad rows in all: 2; max_bad_rows allows 1\)"
    ):
        load_problems(str(file), **PLAIN, max_bad_rows=1)
    with pytest.raises(HoneError, match=r"line 1: not an object but a list$"):
        list(read_rows(file))
    file.write_bytes(b"[]\n")
    with pytest.raises(HoneError, match="no problem"):
        load_problems(str(file), **PLAIN, max_bad_rows=1)


def test_an_id_that_comes_again_is_refused(tmp_path: Path) -> None:
    assert "line 2: the id 'a' is that of line 1" in refused(tmp_path, row(id="a") + row(id="a"))


def test_a_field_name_cannot_write_lines_of_its_own(tmp_path: Path) -> None:
    said = refused(tmp_path, json.dumps({"x\ntrain.jsonl, line 9: fine\x1b[2J": 1, "y" * 5000: 2}).encode())
    assert "\x1b" not in said
    assert len(said) < 500


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 150_000,
        "{" * 1_000_000,
        "\\boxed" + " " * 1_000_000,
        "#" * 1_000_000,
        "a-" * 500_000,
        "\\" * 1_000_000,
        "a" + "\u0301\u0316" * 300_000,
        "\ufdfa" * 100_000,
    ],
    ids=["boxes", "braces", "spaces", "hashes", "hyphens", "backslashes", "marks", "long forms"],
)
def test_long_texts_take_linear_time(tmp_path: Path, text: str) -> None:
    """Quadratic time would be minutes here: the test then hangs."""
    rows = [{"problem": text, "solution": text}, {"problem": text, "answer": text}]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    loaded = load_problems(str(file), format="math", max_bad_rows=1, split="all")
    assert [problem.id for problem in loaded.problems][-1] == "train/2"
    assert normalise(text) == normalise(text + " ")


@pytest.mark.parametrize("bom", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_utf16_is_refused(tmp_path: Path, bom: bytes) -> None:
    assert "not UTF-8: byte" in refused(tmp_path, bom + GOOD.decode().encode("utf-16-le"))


@pytest.mark.parametrize("content", [b"", b"\n \n", codecs.BOM_UTF8])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    assert refused(tmp_path, content) == "train.jsonl: no rows"


def test_a_row_that_is_too_long_is_skipped_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 100)
    long = row(question="?" * 350)
    exact = row(question="?" * (100 - len(row(question=""))))
    assert len(exact) == 100
    file = tmp_path / "train.jsonl"
    file.write_bytes(exact + long + GOOD)
    loaded = load_problems(str(file), **PLAIN, max_bad_rows=1)
    assert [problem.id for problem in loaded.problems] == ["train/1", "train/3"]
    assert loaded.bad_rows[0].endswith("line 2: longer than 100 bytes")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trian.jsonl", "there is no file trian.jsonl; did you mean 'train.jsonl'?"),
        ("none/x.jsonl", "there is no file none/x.jsonl"),
        ("notes.txt", "notes.txt: cannot read .txt; use .jsonl, .json, .csv, .parquet"),
    ],
)
def test_wrong_paths(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "train.jsonl").write_bytes(GOOD)
    (tmp_path / "notes.txt").write_bytes(GOOD)
    with pytest.raises(HoneError) as error:
        load_problems(str(tmp_path / name), **PLAIN)
    assert str(error.value).replace(f"{tmp_path}/", "") == said


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.jsonl")  # opening it would wait for ever
    with pytest.raises(HoneError, match="there is no file"):
        load_problems(str(tmp_path / "train.jsonl"), **PLAIN)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"question,answer\nWhat?,4,5\n", "line 2: 3 fields where the header has 2"),
        (b"question,answer\nWhat?\n", "line 2: 1 fields where the header has 2"),
        (b'question,answer\n"What?,4\nmore\n', "line 2: not CSV: unexpected end of data"),
        (b"question,answer\nWh\xffat?,4\n", "line 2: not UTF-8"),
        (b"question,answer\nWh\0at?,4\n", "line 2: a NUL character"),
        (b"question,answer\nWhat?,\n", "line 2: the answer is empty"),
        (b"question,answer\n", "no rows"),
        (b"\nquestion,answer,answer\nWhat?,4,5\n", "two columns of one name"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refused(tmp_path, content, name="train.csv")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", GOOD])
def test_bad_parquet(tmp_path: Path, content: bytes) -> None:
    assert "not a Parquet file that can be read" in refused(tmp_path, content, name="train.parquet")


@pytest.mark.parametrize(
    ("content", "said"), [(b"[" + GOOD, "not JSON"), (b'["x"]', "row 1: not an object"), (b"[]", "no rows")]
)
def test_bad_json(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refused(tmp_path, content, name="train.json")


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ([], "no tests"),
        ("", "the tests hold text of no known form"),
        (None, "the field 'tests' is null"),
        (7, "the tests hold a number of no known form"),
        ({"code": "x"}, "the tests hold an object of no known form"),
        ({"inputs": ["1", "2"], "outputs": ["1"]}, "2 inputs of tests but 1 outputs"),
        ({"inputs": [{}], "outputs": ["1"]}, "the input of a test is an object, not text"),
        ({"inputs": "[1", "outputs": "2", "fn_name": "f"}, "not JSON"),
        ({"inputs": [7], "outputs": ["1"], "fn_name": "f"}, "the arguments of f are a number, not a list"),
        ({"inputs": [[7]], "outputs": [1], "fn_name": True}, "the function that the tests call has no Python name"),
        ({"inputs": [[7]], "outputs": [1], "fn_name": "f;g"}, "the function that the tests call has no Python name"),
        ('[{"input": ', "not JSON"),
        ("[" * 5000, "not JSON: maximum recursion depth"),
    ],
)
def test_bad_tests_of_a_program(tmp_path: Path, tests: Any, why: str) -> None:
    assert f"line 1: {why}" in refused(tmp_path, row(tests=tests), CODE)


@pytest.mark.parametrize("room", [500, 200, 150, 100, 50, 0])
def test_tests_nested_deeply_end_nothing(tmp_path: Path, room: int) -> None:
    depth = sys.getrecursionlimit() - room
    file = tmp_path / "train.jsonl"
    file.write_bytes(b'{"question": "?", "tests": ' + b"[" * depth + b'"assert f()"' + b"]" * depth + b"}\n")
    assert_loaded_or_refused(file, CODE)


@pytest.mark.parametrize(
    ("choices", "answer", "why"),
    [
        (["one", "two"], "C", "the answer 'C' is none of the choices A, B"),
        (["one", "two"], 2, "the answer '2' is none of the choices A, B"),
        (["same", "same"], "same", "the answer 'same' is none of the choices A, B"),
        (["one"], "A", "1 choices; from 2 to 10 can be asked for"),
        (["x"] * 11, "A", "11 choices; from 2 to 10 can be asked for"),
        ({}, "A", "0 choices"),
        ({"A": None}, "A", "0 choices"),
        (["one", None], "A", "the choice is null, not text"),
        (7, "A", "the choices are a number"),
    ],
)
def test_bad_choices(tmp_path: Path, choices: Any, answer: Any, why: str) -> None:
    assert f"line 1: {why}" in refused(tmp_path, row(choices=choices, answer=answer), {"format": "choices"})


def test_code_beside_a_data_set_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(HoneError, match="cannot be loaded"):
        load_problems(str(folder), **PLAIN)
    (folder / "train.jsonl").write_bytes(b"{not json\n")
    with pytest.raises(HoneError, match="cannot be loaded"):
        load_problems(str(folder), **PLAIN)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", ["hub:", "hub:/etc", "hub:../../x", "hub:a/b/c", "hub:owner/", "hub:a b"])
def test_a_wrong_name_of_the_hub_is_refused_before_it_is_looked_for(path: str) -> None:
    with pytest.raises(HoneError, match="not hub:owner/name"):
        load_problems(path, **PLAIN)


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for path in (str(tmp_path), "hub:owner/name"):
        with pytest.raises(HoneError, match=r"pip install 'hone-r1\[hub\]'"):
            load_problems(path, **PLAIN)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200)
    | st.text(alphabet='{}[]":,\\question answer\n1\ud800', max_size=200).map(
        lambda text: text.encode(errors="surrogatepass")
    )
)
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_any_bytes_are_problems_or_one_clear_line(tmp_path: Path, ending: str, content: bytes) -> None:
    file = tmp_path / f"any.{ending}"
    file.write_bytes(content)
    assert_loaded_or_refused(file, PLAIN)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["input", "inputs", "output", "outputs", "fn_name", "A", "text", "label"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=_VALUES, answer=_VALUES, more=_VALUES)
@pytest.mark.parametrize("format", ["gsm8k", "math", "choices", "codeforces", "mbpp", "livecodebench"])
def test_any_values_are_problems_or_one_clear_line(
    tmp_path: Path, format: str, question: Any, answer: Any, more: Any
) -> None:
    file = tmp_path / "any.jsonl"
    fields = dict.fromkeys(("question", "problem", "prompt"), question)
    fields |= {"answer": answer, "solution": more, "choices": more, "tests": more, "entry_point": answer}
    file.write_text(json.dumps(fields))
    assert_loaded_or_refused(file, {"format": format})
