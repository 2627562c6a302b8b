"""Benchmarks by name: spellings, rows of the hub and of files, tags, prompts, references that can be checked."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from hone.rewards.extract import EXTRACTIONS
from hone.rewards.verifiers import VERIFIERS, verify
from hone.tasks import GENERATORS
from hone.tasks.benchmarks import BENCHMARKS, BUILT_IN_PROBLEMS, find_benchmark, load_benchmark
from hone.tasks.formats import mapping_for
from hone.types import HoneError, Problem, Verdict

DATA = Path(__file__).parents[3].parent / "shared" / "data"
STEPS = "Please reason step by step, and put your final answer within \\boxed{}."


def only(folder: Path, name: str, row: dict[str, Any]) -> Problem:
    """Load the one row of a file by a benchmark's name."""
    file = folder / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n", "utf-8")
    benchmark, (problem,), source = load_benchmark(name, str(file))
    assert (problem.task, source) == (benchmark.name, str(file))
    return problem


def test_the_table_is_sound() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert bool(benchmark.hub) != bool(benchmark.task)
        assert 4 <= benchmark.samples <= 64  # the paper's k
        assert benchmark.verifier in VERIFIERS
        if benchmark.hub:
            assert mapping_for(benchmark.format, **benchmark.fields).extract in EXTRACTIONS
            assert benchmark.num_problems
            assert benchmark.licence
    assert {benchmark.task for benchmark in BENCHMARKS.values() if benchmark.task} == set(GENERATORS)
    assert BENCHMARKS["aime2024"].samples == BENCHMARKS["aime2025"].samples == 64
    assert [name for name, benchmark in BENCHMARKS.items() if benchmark.is_dated] == ["livecodebench"]


def test_the_page_says_what_the_table_says() -> None:
    page = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:3] == "| `"]
    assert [row[0].strip("`") for row in rows] == list(BENCHMARKS)
    for row, benchmark in zip(rows, BENCHMARKS.values(), strict=True):
        size = benchmark.num_problems or BUILT_IN_PROBLEMS
        assert row[1] == benchmark.title
        assert f"`{benchmark.hub or benchmark.task}`" in row[2]
        assert row[2].endswith(f", {benchmark.hub_split}") or benchmark.task or benchmark.hub_files
        assert row[3:] == [f"{size:,}", str(benchmark.samples), benchmark.verifier, benchmark.licence]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("MATH-500", "math500"),
        ("math_500", "math500"),
        ("HuggingFaceH4/MATH-500", "math500"),
        ("AIME 2024", "aime2024"),
        ("aime24", "aime2024"),
        ("AIME-2025", "aime2025"),
        ("AMC 2023", "amc23"),
        ("GSM8K", "gsm8k"),
        ("mgsm_zh", "mgsm-zh"),
        ("GPQA", "gpqa-diamond"),
        ("C-Eval", "ceval"),
        ("google-research-datasets/mbpp", "mbpp"),
        ("mbpp_sanitized", "mbpp-sanitized"),
        ("LiveCodeBench", "livecodebench"),
        ("lcb", "livecodebench"),
        ("IFEval", "ifeval"),
        ("countdown-3", "countdown"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    assert find_benchmark(spelling).name == name


def test_an_unknown_name_is_refused_with_the_closest() -> None:
    with pytest.raises(HoneError, match=r"no benchmark 'math50'; did you mean math500"):
        find_benchmark("math50")
    with pytest.raises(HoneError, match=r"did you mean aime2025 or aime2024"):
        find_benchmark("aime2026")
    with pytest.raises(HoneError, match=r"no benchmark 'zzz'; there are math500, .*general"):
        load_benchmark("zzz")


# Rows as the hub has them, with the answer, the tags, and how the message ends.
HUB_ROWS: list[tuple[str, dict[str, Any], str, dict[str, str], str]] = [
    (
        "math500",
        {"problem": "?", "solution": "", "answer": "3", "subject": "Algebra", "level": 2, "unique_id": "t/1.json"},
        "3", {"subject": "Algebra", "level": "2"}, f"?\n{STEPS}",
    ),
    ("math500", {"problem": "?", "solution": r"\boxed{7}", "level": "Level 4", "type": "Geometry"}, "7",
     {"subject": "Geometry", "level": "4"}, STEPS),
    ("aime2024", {"id": 60, "problem": "?", "answer": "204", "url": "", "year": "2024"}, "204", {}, STEPS),
    ("aime2025", {"id": "0", "problem": "?", "answer": "70"}, "70", {}, STEPS),
    ("amc23", {"id": 0, "question": "?", "answer": 27.0, "url": ""}, "27", {}, STEPS),
    ("gsm8k", {"question": "?", "answer": "6 * 7\n#### 42"}, "42", {}, STEPS),
    ("olympiadbench", {"id": 1, "question": "?", "final_answer": ["2", "3"], "subfield": "Algebra"}, "2, 3",
     {"subject": "Algebra"}, STEPS),
    ("mgsm-zh", {"question": "多少？", "answer": None, "answer_number": 18, "equation_solution": None}, "18", {},
     "多少？\n请通过逐步推理来解答问题，并把最终答案放置于\\boxed{}中。"),
    ("cmath", {"grade": 3, "question": "多少？", "golden": "9", "reasoning_step": 1}, "9", {"level": "3"},
     "\\boxed{}中。"),
    ("svamp", {"ID": "chal-1", "Body": "Two.", "Question": "How many?", "Answer": "2.0", "Type": "Addition"}, "2.0",
     {"subject": "Addition"}, f"Two.\nHow many?\n{STEPS}"),
    ("mmlu", {"question": "?", "subject": "anatomy", "choices": ["w", "x", "y", "z"], "answer": 2}, "C",
     {"subject": "anatomy"}, "?\n\nA) w\nB) x\nC) y\nD) z"),
    ("ceval", {"hub_config": "law", "id": 3, "question": "哪？", "A": "一", "B": "二", "C": "三", "D": "四",
               "answer": "D", "explanation": ""}, "D", {"subject": "law"}, "哪？\n\nA) 一\nB) 二\nC) 三\nD) 四"),
    ("cmmlu", {"hub_config": "anatomy", "Question": "哪？", "A": "一", "B": "二", "C": "三", "D": "四", "Answer": "B"},
     "B", {"subject": "anatomy"}, "D) 四"),
    ("ifeval", {"key": 1000, "prompt": "Write.", "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
                "kwargs": [{"num_words": None, "keywords": None}, {"num_words": None, "keywords": ["a"]}]},
     '{"instruction_id_list": ["punctuation:no_comma", "keywords:existence"], "kwargs": [{}, {"keywords": ["a"]}]}',
     {}, "Write."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "answer", "tags", "end"), HUB_ROWS)
def test_rows_of_the_hub(
    tmp_path: Path, name: str, row: dict[str, Any], answer: str, tags: dict[str, str], end: str
) -> None:
    problem = only(tmp_path, name, row)
    assert problem.answer == answer
    assert dict(problem.tags) == tags
    assert problem.messages[0].content.endswith(end)
    VERIFIERS[problem.verifier].check_reference(problem)


def test_ids_of_several_configurations_differ(tmp_path: Path) -> None:
    row = {"id": 3, "question": "哪？", "A": "一", "B": "二", "answer": "A"}
    ids = [only(tmp_path, "ceval", {"hub_config": config, **row, "C": "c", "D": "d"}).id for config in ("law", "art")]
    assert ids == ["ceval/law/3", "ceval/art/3"]


def test_the_choices_of_gpqa_stand_in_an_order_of_their_own(tmp_path: Path) -> None:
    texts = {"Correct Answer": " 2\n", "Incorrect Answer 1": "0", "Incorrect Answer 2": "1", "Incorrect Answer 3": "3"}
    letters = set()
    for number in range(40):
        row = {"Record ID": f"rec{number}", "Question": f"Which {number}?", "High-level domain": "Physics"} | texts
        problem = only(tmp_path, "gpqa-diamond", row)
        assert f"\n{problem.answer}) 2" in problem.messages[0].content
        assert (problem.id, problem.tags["subject"]) == (f"rec{number}", "Physics")
        assert only(tmp_path, "gpqa-diamond", row) == problem
        letters.add(problem.answer)
    assert letters == set("ABCD")
    assert "'Answer: $LETTER' (without quotes)" in problem.messages[0].content
    assert verify(problem, f"<think>A</think>So.\nAnswer: {problem.answer}").verdict is Verdict.RIGHT


def test_a_row_without_tags_has_none(tmp_path: Path) -> None:
    assert dict(only(tmp_path, "math500", {"problem": "?", "answer": "1", "subject": None, "level": ["x"]}).tags) == {}
    assert dict(only(tmp_path, "math500", {"problem": "?", "answer": "1", "subject": "", "level": "Level ?"}).tags) == {
        "level": "?"
    }


@pytest.mark.parametrize(
    ("names", "arguments", "why"),
    [
        ("punctuation:no_comma", [{}], "the instructions are text"),
        (["a:b"], {}, "their arguments an object"),
        (["a:b"], [{}, {}], "1 instructions and 2 objects"),
        ([], [], "0 instructions"),
        ([7], [{}], "is not text"),
        (["a:b"], [7], "not an object"),
    ],
)
def test_wrong_instructions(tmp_path: Path, names: Any, arguments: Any, why: str) -> None:
    with pytest.raises(HoneError, match=f"rows.jsonl, line 1: .*{why}"):
        only(tmp_path, "ifeval", {"prompt": "?", "instruction_id_list": names, "kwargs": arguments})


def test_malformed_rows_are_named_by_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"problem": "?", "answer": "1"}\n{"problem": "?"}\n')
    for name, data in (("math500", str(file)), (str(file), None)):
        with pytest.raises(HoneError, match=r"mine.jsonl, line 2: no field"):
            load_benchmark(name, data)


def test_a_file_is_a_benchmark(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"problem": f"{n}?", "answer": n, "level": n}) + "\n" for n in range(5)))
    benchmark, problems, source = load_benchmark(str(file))
    assert (benchmark.name, source, len(problems)) == ("mine", str(file), 5)
    assert (problems[3].answer, dict(problems[3].tags), problems[3].id) == ("3", {"level": "3"}, "mine/4")
    assert problems[3].messages[0].content == f"3?\n{STEPS}"
    some = load_benchmark(str(file), count=2, seed=1)[1]
    assert some == load_benchmark(str(file), count=4, seed=1)[1][:2]
    with pytest.raises(HoneError, match=r"leave --data other\.jsonl out"):
        load_benchmark(str(file), "other.jsonl")
    with pytest.raises(HoneError, match="there is no file"):
        load_benchmark(str(tmp_path / "none.jsonl"))


def test_built_in_tasks() -> None:
    benchmark, problems, source = load_benchmark("countdown-4", count=5, seed=1)
    assert (benchmark.name, source, len(problems)) == ("countdown-4", "built in", 5)
    assert all(len(problem.id.split("/")[1].split("=")[0].split("-")) == 4 for problem in problems)
    assert len(load_benchmark("gcd")[1]) == 200
    validation = load_benchmark("gcd", split="validation")[1]
    assert not {problem.id for problem in validation} & {problem.id for problem in load_benchmark("gcd")[1]}
    with pytest.raises(HoneError, match="built-in task, so it has no data"):
        load_benchmark("gcd", "rows.jsonl")
    with pytest.raises(HoneError, match="gcd has no dates"):
        load_benchmark("gcd", since="2024-08")


def test_an_unreachable_hub_names_the_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("livecodebench", "math500"):
        with pytest.raises(HoneError) as error:
            load_benchmark(name)
        said = str(error.value)
        assert said.endswith("where you have the set as a file, name it: --data FILE")
        assert "\n" not in said


class FakeHub(types.ModuleType):
    """The three calls of `datasets` that are used, for a set that comes as a program and has two configurations."""

    class exceptions:
        class DatasetsError(Exception):
            pass

    @staticmethod
    def get_dataset_config_names(name: str, revision: str | None = None) -> list[str]:
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found cmmlu.py")
        return ["art", "law"]

    @staticmethod
    def load_dataset(name: str, config: str, split: str, revision: str) -> list[dict[str, Any]]:
        assert (name, split, revision) == ("haonan-li/cmmlu", "test", "refs/convert/parquet")
        return [{"Question": f"{config}？", "A": "1", "B": "2", "C": "3", "D": "4", "Answer": "C"}]


def test_all_configurations_of_a_set_that_comes_as_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub cannot be reached from a test, so its library is stood in for here; what is read from it is real."""
    monkeypatch.setitem(sys.modules, "datasets", FakeHub("datasets"))
    _, problems, source = load_benchmark("cmmlu")
    assert source == "haonan-li/cmmlu"
    assert [(one.question, one.answer, one.tags["subject"]) for one in problems] == [
        ("art？", "C", "art"),
        ("law？", "C", "law"),
    ]


# The file, how many problems it holds, and those whose reference cannot be checked.
REAL: dict[str, tuple[str, int, list[str]]] = {
    "math500": ("math500", 500, []),
    "aime2024": ("aime2024", 30, []),
    "amc23": ("amc23", 40, []),
    "gsm8k": ("gsm8k_test", 1319, []),
    "olympiadbench": ("olympiadbench", 675, ["olympiadbench/2045"]),  # `$t(0,4]$`
    "mgsm-zh": ("mgsm_zh", 250, []),
    "cmath": ("cmath", 600, []),
    "svamp": ("svamp", 1000, []),
    "ceval": ("ceval_val_sample", 416, []),
    "cmmlu": ("cmmlu_sample", 402, []),
    "humaneval": ("humaneval", 164, []),
    "mbpp": ("mbpp", 974, []),
    "mbpp-sanitized": ("mbpp_sanitized", 399, []),
    "livecodebench": ("livecodebench_sample", 1, []),
    "code-contests": ("code_contests_test", 130, []),
    "ifeval": ("ifeval", 540, []),
}


@pytest.mark.skipif(
    not DATA.is_dir(), reason="the real data sets lie in shared/data beside the project, which is absent"
)
@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str) -> None:
    file, num_problems, unreadable = REAL[name]
    _, problems, _ = load_benchmark(name, str(DATA / f"{file}.jsonl"))
    assert len(problems) == num_problems
    assert len({problem.id for problem in problems}) == num_problems

    def is_sound(problem: Problem) -> bool:
        try:
            VERIFIERS[problem.verifier].check_reference(problem)
        except HoneError:
            return False
        return True

    assert [problem.id for problem in problems if not is_sound(problem)] == unreadable
    subjects = {problem.tags.get("subject") for problem in problems}
    expected = {"math500": 7, "ceval": 52, "cmmlu": 67, "olympiadbench": 4}
    assert subjects == {None} if name not in expected else len(subjects - {None}) == expected[name]
    if name == "math500":
        assert {problem.tags["level"] for problem in problems} == set("12345")
