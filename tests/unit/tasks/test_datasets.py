"""Rows of files, folders and hub data sets become problems."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.tasks.datasets import load_problems
from hone.tasks.formats import LEETCODE_SETUP, mapping_for
from hone.tasks.rows import read_rows
from hone.tasks.split import split_of
from hone.types import AssertTest, CallTest, HoneError, Problem, StdinTest

DATA = Path(__file__).parents[3].parent / "shared" / "data"
PLAIN = {"question": "q", "answer": "a", "extract": "tags"}


def write(folder: Path, *rows: Any, name: str = "set.jsonl") -> str:
    file = folder / name
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def only(folder: Path, row: dict[str, Any], **made: str) -> Problem:
    (problem,) = load_problems(write(folder, row), **made).problems
    return problem


def test_a_row_becomes_a_problem(tmp_path: Path) -> None:
    made = {"question": "ask", "answer": "gold", "verifier": "number", "extract": "tags", "prompt": "Q: {question}"}
    problem = only(tmp_path, {"ask": " What is 2 + 2? ", "gold": 4}, **made)
    assert problem.messages[0].content == "Q: What is 2 + 2?"
    assert problem.question == "What is 2 + 2?"  # by which it is compared and split
    assert (problem.id, problem.task, problem.answer) == ("set/1", "set", "4")
    assert (problem.verifier, problem.extract, problem.language) == ("number", "tags", "en")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": "x/7"}, "x/7"),
        ({"task_id": 601}, "set/601"),  # a bare number says nothing outside its file
        ({"unique_id": "test/1.json"}, "test/1.json"),
        ({"id": None}, "set/1"),
        ({}, "set/1"),
    ],
)
def test_ids(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    assert only(tmp_path, {"q": "?", "a": "1"} | row, **PLAIN).id == expected


def test_ids_without_a_field_count_lines_not_rows(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"q": "one", "a": 1}\r\n\r\n{"q": "two", "a": 2}')
    loaded = load_problems(str(file), **PLAIN)
    assert [(problem.id, problem.answer) for problem in loaded.problems] == [("set/1", "1"), ("set/3", "2")]


@pytest.mark.parametrize(
    ("given", "answer"),
    [("72", "72"), (72, "72"), (72.0, "72"), (0.5, "0.5"), (-3, "-3"), (["1", "2"], "1, 2"), (["$5$"], "$5$")],
)
def test_kinds_of_answers(tmp_path: Path, given: Any, answer: str) -> None:
    assert only(tmp_path, {"q": "?", "a": given}, **PLAIN).answer == answer


@pytest.mark.parametrize(
    ("format", "row", "answer"),
    [
        ("gsm8k", {"question": "?", "answer": "2 + 2 = <<2+2=4>>4\n#### 1,234"}, "1,234"),
        ("gsm8k", {"problem": "?", "answer": "72", "solution": "no"}, "72"),
        ("gsm8k", {"Body": "There are 2.", "Question": "How many?", "Answer": 2.0}, "2"),
        ("math", {"problem": "?", "solution": r"\boxed{1}, no: \boxed{\frac{1}{2}}."}, r"\frac{1}{2}"),
        ("math", {"problem": "?", "solution": r"so \boxed{\left\{ 1 \right\}} is"}, r"\left\{ 1 \right\}"),
        ("math", {"problem": "?", "answer": "3", "solution": r"\boxed{4}"}, "3"),
        ("math", {"problem": "?", "answer": None, "solution": r"\fbox{4}"}, "4"),
        ("deepscaler", {"problem": "?", "answer": r"\boxed{5}", "solution": ""}, "5"),
        ("aime", {"Problem": "?", "Answer": 204}, "204"),
    ],
)
def test_answers_of_known_formats(tmp_path: Path, format: str, row: dict[str, Any], answer: str) -> None:
    assert only(tmp_path, row, format=format).answer == answer


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        (["red", "green", "blue"], "B", "B"),
        (["red", "green", "blue"], 2, "C"),  # an index, from 0
        (["red", "green", "blue"], "red", "A"),
        ({"A": "red", "B": "green", "C": "blue"}, "C", "C"),
        ({"B": "green", "A": "red", "C": "blue", "D": None}, "A", "A"),
        ({"text": ["red", "green", "blue"], "label": ["1", "2", "3"]}, "3", "C"),
        ('["red", "green", "blue"]', "1", "B"),
    ],
)
def test_choices(tmp_path: Path, choices: Any, answer: Any, letter: str) -> None:
    problem = only(tmp_path, {"question": "Which?", "choices": choices, "answer": answer}, format="choices")
    assert (problem.answer, problem.verifier, problem.extract) == (letter, "choice", "choice")
    assert problem.messages[0].content.startswith("Which?\n\nA. red\nB. green\nC. blue\n\n")


def test_choices_in_fields_of_their_own(tmp_path: Path) -> None:
    row = {"Question": "哪个？", "A": "一", "B": "二", "C": "三", "D": "四", "Answer": "D"}
    problem = only(tmp_path, row, format="choices")
    assert (problem.answer, problem.language) == ("D", "zh")
    assert "D. 四" in problem.messages[0].content
    assert "答案" in problem.messages[0].content  # asked for in the language of the question


def test_what_is_filled_in_is_not_searched_for_placeholders(tmp_path: Path) -> None:
    prompt = "{question} \\boxed{{}} \\boxed{} {other} {question.__class__}"
    problem = only(
        tmp_path, {"q": "{choices} {question} {{x}} {0.__class__}", "a": 1}, question="q", answer="a", prompt=prompt
    )
    expected = "{choices} {question} {{x}} {0.__class__} \\boxed{} \\boxed{} {other} {question.__class__}"
    assert problem.messages[0].content == expected


def test_fields_within_fields_and_alternatives(tmp_path: Path) -> None:
    row = {"reward_model": {"ground_truth": "34"}, "meta": '{"text": "inside"}', "a.b": "dotted"}
    assert only(tmp_path, row, question="meta.text", answer="reward_model.ground_truth").answer == "34"
    assert only(tmp_path, row, question="none|meta.text", answer="a.b").answer == "dotted"


CODE_ROWS: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    (
        "mbpp",
        {"text": "Add.", "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"], "test_setup_code": ""},
        (AssertTest(code="assert add(1, 2) == 3"), AssertTest(code="assert add(0, 0) == 0")),
    ),
    (
        "mbpp",
        {"prompt": "Add.", "test_list": ["assert add(1) == 3"], "test_imports": ["import math", "import re"]},
        (AssertTest(code="import math\nimport re\nassert add(1) == 3"),),
    ),
    (
        "humaneval",
        {"prompt": "def f(x):\n", "test": "def check(candidate):\n    assert candidate(1)\n", "entry_point": "f"},
        (AssertTest(code="def check(candidate):\n    assert candidate(1)\n\n\ncheck(f)\n"),),
    ),
    (
        "leetcode",
        {"prompt": "class Solution:", "tests": {"functional": "check(Solution().f)"}},
        (AssertTest(code="check(Solution().f)"),),
    ),
    (
        "codecontests",
        {
            "description": "?",
            "public_tests": {"input": ["1\n"], "output": ["2\n"]},
            "private_tests": {"input": ["3\n"], "output": ["4\n"]},
            "generated_tests": {"input": [], "output": []},
        },
        (StdinTest(stdin="1\n", stdout="2\n"), StdinTest(stdin="3\n", stdout="4\n")),
    ),
    (
        "codecontests",
        {"prompt": "?", "tests": {"inputs": ["1"], "outputs": ["2"]}},
        (StdinTest(stdin="1", stdout="2"),),
    ),
    (
        "codeforces",
        {"prompt": "?", "tests": [{"input": "1", "output": "2"}, {"input": "", "output": ""}]},
        (StdinTest(stdin="1", stdout="2"), StdinTest(stdin="", stdout="")),
    ),
    (
        "livecodebench",
        {"prompt": "?", "tests": {"input_output": '{"inputs": ["1"], "outputs": ["2"], "fn_name": null}'}},
        (StdinTest(stdin="1", stdout="2"),),
    ),
    (
        "livecodebench",
        {"prompt": "?", "input_output": '{"inputs": [[1, [2]], [3, []]], "outputs": [[5], 6], "fn_name": "f"}'},
        (CallTest(function="f", args=(1, [2]), expected=5), CallTest(function="f", args=(3, []), expected=6)),
    ),
    (
        "livecodebench",
        {"prompt": "class Solution:", "tests": {"inputs": [[1]], "outputs": [[5]], "fn_name": "f"}},
        (CallTest(function="Solution.f", args=(1,), expected=5),),
    ),
    (
        "codeforces",
        {"prompt": "?", "tests": {"inputs": [["2", "", "7"]], "outputs": [["a", "b"]]}},  # lists of lines
        (StdinTest(stdin="2\n\n7", stdout="a\nb"),),
    ),
    (
        "livecodebench",
        {
            "question_content": "Twice.",
            "starter_code": "class Solution:\n    def twice(self, values, times):",
            "public_test_cases": '[{"input": "[1, 2]\\n3", "output": "[2, 4]", "testtype": "functional"}]',
            "metadata": '{"func_name": "twice"}',
        },
        (CallTest(function="Solution.twice", args=([1, 2], 3), expected=[2, 4]),),
    ),
    (
        "livecodebench",
        {
            "question_content": "Twice.",
            "starter_code": "",
            "public_test_cases": '[{"input": "1\\n", "output": "2\\n", "testtype": "stdin"}]',
            "metadata": "{}",
        },
        (StdinTest(stdin="1\n", stdout="2\n"),),
    ),
]


@pytest.mark.parametrize(("format", "row", "tests"), CODE_ROWS)
def test_tests_of_programs(tmp_path: Path, format: str, row: dict[str, Any], tests: tuple[Any, ...]) -> None:
    problem = only(tmp_path, row, format=format)
    assert problem.tests == tests
    assert (problem.verifier, problem.extract) == ("code", "code")


def test_mbpp_shows_one_test_and_humaneval_sets_up_what_comes_before(tmp_path: Path) -> None:
    row = {"text": "Add.", "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]}
    shown = only(tmp_path, row, format="mbpp").messages[0].content
    assert "add(1, 2)" in shown
    assert "add(0, 0)" not in shown
    prompt = "import math\n\ndef given(x):\n    return x\n\ndef wanted(x):\n    "
    row = {"prompt": prompt, "canonical_solution": "    return given(x)\n", "test": "pass", "entry_point": "wanted"}
    problem = only(tmp_path, row, format="humaneval")
    assert problem.setup == "import math\n\ndef given(x):\n    return x\n\n"
    assert "def wanted" in problem.answer
    assert problem.answer.endswith("return given(x)\n")


def test_the_leetcode_setup_builds_lists_and_trees(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(LEETCODE_SETUP, names)  # noqa: S102  our own text
    assert names["is_same_list"](names["list_node"]([1, 2]), names["ListNode"](1, names["ListNode"](2)))
    assert not names["is_same_list"](names["list_node"]([1, 2]), names["list_node"]([1]))
    root = names["tree_node"]([1, None, 2, 3])
    assert (root.val, root.left, root.right.val, root.right.left.val) == (1, None, 2, 3)
    assert names["is_same_tree"](root, names["tree_node"]([1, None, 2, 3]))
    assert not names["is_same_tree"](root, names["tree_node"]([1, 2, None, 3]))
    assert names["pow"](3, 4, 5) == 1  # the builtin, not that of math
    assert names["bisect_left"]([1, 2], 2) == names["bisect"].bisect_left([1, 2], 2) == 1


ROWS = [{"q": f"What is {number} + 1?", "a": number + 1} for number in range(200)]


def test_split_is_by_the_normalised_question(tmp_path: Path) -> None:
    file = write(tmp_path, *ROWS)
    parts = {split: load_problems(file, **PLAIN, split=split).problems for split in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == 200
    assert all(parts.values())
    assert {problem.id for problem in parts["test"]} == {
        f"set/{number + 1}" for number in range(200) if split_of(f"what is {number} + 1") == "test"
    }


def test_a_shorter_list_is_the_beginning_of_a_longer_one(tmp_path: Path) -> None:
    file = write(tmp_path, *ROWS)
    long = load_problems(file, **PLAIN, count=50, seed=3).problems
    assert load_problems(file, **PLAIN, count=20, seed=3).problems == long[:20]
    assert load_problems(file, **PLAIN, count=50, seed=4).problems != long
    assert len({problem.id for problem in long}) == 50
    assert len(load_problems(file, **PLAIN, count=500).problems) == 200
    assert [problem.id for problem in load_problems(file, **PLAIN).problems][:2] == ["set/1", "set/2"]


def test_a_split_without_a_problem_is_refused(tmp_path: Path) -> None:
    assert split_of("what is 0 + 1") == "train"
    with pytest.raises(HoneError, match=r"no problem of the split 'test' among [1-9]"):
        load_problems(write(tmp_path, ROWS[0]), **PLAIN, split="test")


def test_csv_parquet_and_json_give_what_jsonl_gives(tmp_path: Path) -> None:
    rows = [{"id": "1", "q": 'a "quoted", one\nin two lines', "a": "7"}, {"id": "2", "q": "苹果", "a": "8"}]
    lines = load_problems(write(tmp_path, *rows), **PLAIN)
    (tmp_path / "set.json").write_text("\n " + json.dumps(rows), encoding="utf-8")
    (tmp_path / "set.csv").write_text(
        '\ufeffid,q,a\r\n1,"a ""quoted"", one\nin two lines",7\r\n\r\n2,苹果,8\r\n', encoding="utf-8", newline=""
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    for ending in ("json", "csv", "parquet"):
        assert load_problems(str(tmp_path / f"set.{ending}"), **PLAIN) == lines, ending
    assert [number for number, _ in read_rows(tmp_path / "set.csv")] == [2, 5]
    assert [number for number, _ in read_rows(tmp_path / "set.parquet")] == [1, 2]
    assert list(read_rows(tmp_path / "set.jsonl")) == list(enumerate(rows, start=1))


def test_folders_are_read_by_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"q": "one", "a": "1"}, {"q": "two", "a": "2"}]
    plain = tmp_path / "plain"
    plain.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), plain / "train.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "several"))
    for name in ("plain", "saved", "several"):
        problems = load_problems(str(tmp_path / name), **PLAIN).problems
        assert [(one.id, one.answer) for one in problems] == [(f"{name}/1", "1"), (f"{name}/2", "2")]
    for name in ("plain", "several"):
        with pytest.raises(HoneError, match="cannot be loaded"):
            load_problems(str(tmp_path / name), **PLAIN, hub_split="tset")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "gms8k"}, "no format 'gms8k'; did you mean 'gsm8k'"),
        ({"answer": "a"}, "which field holds the question"),
        ({"question": "q"}, "which field holds the answer"),
        ({"question": "q", "verifier": "code", "answer": "a"}, "which field holds the tests"),
        ({"question": "q", "answer": "a", "verifier": "choice"}, "which field holds the choices"),
        ({"format": "math", "prompt": "{qestion}"}, "no {question}"),
        ({"format": "math", "language": "fr"}, "no language 'fr'"),
    ],
)
def test_wrong_mappings(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(HoneError, match=message):
        mapping_for(**arguments)


def test_what_is_given_wins_over_the_format() -> None:
    made = mapping_for("gsm8k", question="ask", extract="tags", prompt="", verifier="number")
    assert (made.question, made.answer, made.extract, made.verifier) == ("ask", "answer|Answer", "tags", "number")


REAL: dict[str, tuple[str, int]] = {
    "gsm8k_train": ("gsm8k", 7473),
    "gsm8k_test": ("gsm8k", 1319),
    "svamp": ("gsm8k", 1000),
    "mgsm_zh": ("gsm8k", 250),
    "cmath": ("gsm8k", 600),
    "math_train": ("math", 7470),
    "math_test5000": ("math", 5000),
    "math500": ("math", 500),
    "math_cot_samples": ("math", 82),
    "olympiadbench": ("math", 675),
    "aime2024": ("aime", 30),
    "amc23": ("aime", 40),
    "ceval_val_sample": ("choices", 416),
    "cmmlu_sample": ("choices", 402),
    "mbpp": ("mbpp", 974),
    "mbpp_sanitized": ("mbpp", 399),
    "humaneval": ("humaneval", 164),
    "leetcode_train": ("leetcode", 1889),
    "code_contests_test": ("codecontests", 130),
    "codeforces_test": ("codeforces", 332),
    "livecodebench_sample": ("livecodebench", 1),
}


@pytest.mark.skipif(
    not DATA.is_dir(), reason="the real data sets lie in shared/data beside the project, which is absent"
)
@pytest.mark.parametrize("name", REAL)
def test_real_sets(name: str) -> None:
    format, num_problems = REAL[name]
    bad_lines = [887, 1010, 5329, 5331] if name == "math_train" else []  # they have no answer
    loaded = load_problems(str(DATA / f"{name}.jsonl"), format=format, max_bad_rows=len(bad_lines))
    assert len(loaded.problems) == num_problems
    assert [line.split(": ")[0] for line in loaded.bad_rows] == [f"{DATA / name}.jsonl, line {at}" for at in bad_lines]
    chinese = sum(problem.language == "zh" for problem in loaded.problems) / num_problems
    assert chinese > 0.95 if name in ("mgsm_zh", "cmath", "ceval_val_sample", "cmmlu_sample") else chinese == 0
