"""Evaluations from beginning to end: stored once, judged again at will, killed and resumed, refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hone.evals.grading import Grader
from hone.evals.scores import Answered
from hone.models.folders import find_model
from hone.types import AssertTest, HoneError, Message, Problem, RunError

DATA = Path(__file__).parents[3].parent / "shared" / "data"
COUNTDOWN = ("eval", "base-tiny", "--benchmark", "countdown", "--count", "6", "--samples", "3", "--max-tokens", "48")


def hone(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hone.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **options)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation") / "e"
    done = hone(*COUNTDOWN, "--out", str(folder))
    assert done.returncode == 0, done.stderr
    assert "temperature 0.6, top-p 0.95, at most 48 tokens, k = 3, zero-shot" in done.stdout
    return folder


def test_outputs_are_stored_with_all_that_made_them(evaluation: Path) -> None:
    file = pq.read_table(evaluation / "generations.parquet")
    settings = json.loads((evaluation / "settings.json").read_text())
    assert json.loads(file.schema.metadata[b"hone"]) == settings
    rows = file.to_pylist()
    problems = [row["id"] for row in read_lines(evaluation / "problems.jsonl")]
    assert [(row["problem_id"], row["index"]) for row in rows] == [(name, i) for name in problems for i in range(3)]
    assert len({row["seed"] for row in rows}) == 18
    assert {row["finish_reason"] for row in rows} <= {"stop", "length"}
    assert all(0 < row["num_tokens"] <= 48 and row["prompt"].startswith("User:") for row in rows)
    assert {row["model_hash"] for row in rows} == {settings["model_hash"]}
    assert not (evaluation / "journal.jsonl").exists()


def test_scores_follow_from_the_verdicts(evaluation: Path) -> None:
    scores = json.loads((evaluation / "scores.json").read_text())
    verdicts = read_lines(evaluation / "verdicts.jsonl")
    right: Counter[str] = Counter()
    for row in verdicts:
        right[row["id"]] += row["verdict"] == "right"
    assert scores["pass_at_1"] == pytest.approx(sum(right.values()) / 18)
    assert scores["pass_at_k"] == pytest.approx(sum(count > 0 for count in right.values()) / 6)
    assert scores["verifier"].startswith("hone ")
    assert {row["id"]: row["num_right"] for row in scores["problems"]} == dict(right)


def test_the_same_command_draws_nothing_again_and_regrading_gives_the_same(evaluation: Path, tmp_path: Path) -> None:
    before = (evaluation / "generations.parquet").read_bytes()
    scores = json.loads((evaluation / "scores.json").read_text())
    again = hone(*COUNTDOWN, "--out", str(evaluation))
    assert again.returncode == 0, again.stderr
    assert (evaluation / "generations.parquet").read_bytes() == before
    assert json.loads((evaluation / "scores.json").read_text()) == scores
    beside = hone("regrade", str(evaluation), "--out", str(tmp_path / "beside"))
    assert beside.returncode == 0, beside.stderr
    assert json.loads((tmp_path / "beside" / "scores.json").read_text()) == scores


def test_another_extraction_is_another_score_and_says_so(evaluation: Path, tmp_path: Path) -> None:
    done = hone("regrade", str(evaluation), "--extract", "boxed", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["pass_at_1"] == 0  # nothing is boxed there
    assert scores["verifier"].endswith("expression, boxed")
    page = tmp_path / "page.html"
    done = hone("report", "--compare", str(evaluation), "--out", str(page))
    assert done.returncode == 0, done.stderr
    compared = hone("compare", str(evaluation), str(tmp_path))
    assert compared.returncode == 0, compared.stderr
    assert "warning: verifier differs" in compared.stdout


def test_killed_midway_it_goes_on_and_comes_to_the_same(evaluation: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hone.cli", *COUNTDOWN, "--out", str(tmp_path / "e")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    journal = tmp_path / "e" / "journal.jsonl"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (journal.exists() and journal.stat().st_size):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    with journal.open("ab") as file:
        file.write(b'{"problem_id": "cut sho')  # a kill in the midst of a line
    kept = journal.read_text().splitlines()[:-1]
    assert len(kept) > 0
    done = hone(*COUNTDOWN, "--out", str(tmp_path / "e"))
    assert done.returncode == 0, done.stderr
    if len(kept) < 18:
        assert f"{len(kept)} outputs are there, {18 - len(kept)} are not" in done.stderr
    whole, resumed = (pq.read_table(f / "generations.parquet").to_pylist() for f in (evaluation, tmp_path / "e"))
    assert resumed == whole


def test_other_settings_in_the_same_folder_are_refused(evaluation: Path, tmp_path: Path) -> None:
    done = hone(*COUNTDOWN[:-1], "40", "--out", str(evaluation))
    assert done.returncode == 2
    assert "it holds an evaluation with other settings (decoding:" in done.stderr
    (tmp_path / "thesis.txt").write_text("mine")
    done = hone(*COUNTDOWN, "--out", str(tmp_path))
    assert (done.returncode, (tmp_path / "thesis.txt").read_text()) == (2, "mine")
    assert "holds something else than an evaluation" in done.stderr


ROW = {"id": 1, "problem": "1 + 1", "answer": 2, "responses": [r"\boxed{2}", "3"]}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (ROW | {"responses": "2"}, "line 2: a row is {id, problem, answer, responses: [text, ...]}"),
        (ROW | {"responses": []}, "line 2: a row is"),
        (ROW | {"responses": ["2", None]}, "line 2: a row is"),
        ({"id": 2, "problem": "1"}, "line 2: a row is {id, problem, answer, responses: [text, ...]}, not {'id': int"),
        (ROW, "the id '1' stands in two rows"),
    ],
)
def test_malformed_rows_of_outputs_are_refused_by_their_line(row: Any, wanted: str, tmp_path: Path) -> None:
    file = tmp_path / "outputs.jsonl"
    file.write_text(json.dumps(ROW) + "\n" + json.dumps(row) + "\n")
    done = hone("eval", "--generations", str(file), "--out", str(tmp_path / "e"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert wanted in done.stderr


def test_outputs_made_elsewhere_are_scored(tmp_path: Path) -> None:
    file = tmp_path / "outputs.jsonl"
    responses = ["The answer is $x^2$.", "\ud83d 1"]
    more = {"id": "b", "problem": "多少", "answer": "x^2", "responses": responses, "level": "Level 2"}
    file.write_text(json.dumps(ROW) + "\n" + json.dumps(more) + "\n")
    done = hone("eval", "--generations", str(file), "--out", str(tmp_path / "e"))
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "e" / "scores.json").read_text())
    assert (scores["pass_at_1"], scores["pass_at_k"], scores["cons_at_k"]) == (0.5, 1, 1)
    assert scores["groups"]["level"]["2"]["num_problems"] == 1
    verdicts = read_lines(tmp_path / "e" / "verdicts.jsonl")
    assert [(row["id"], row["index"], row["verdict"], row["extracted"]) for row in verdicts[:2]] == [
        ("1", 0, "right", "2"), ("1", 1, "wrong", "3"),
    ]  # fmt: skip


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets lie in shared/data beside the project")
def test_published_scores_and_majorities_are_met(tmp_path: Path) -> None:
    file = DATA / "math_cot_samples.jsonl"
    done = hone("eval", "--generations", str(file), "--out", str(tmp_path / "e"))
    assert done.returncode == 0, done.stderr
    published = {str(row["id"]): row for row in read_lines(file)}
    verdicts = read_lines(tmp_path / "e" / "verdicts.jsonl")
    agreeing = sum((row["verdict"] == "right") == published[row["id"]]["scores"][row["index"]] for row in verdicts)
    assert agreeing / len(verdicts) >= 0.99
    # By hand: the published answers, without space and cents, the first of the most frequent ones.
    right = 0
    for row in published.values():
        answers = [pred.replace(" ", "").replace("\\$", "") for pred in row["preds"]]
        winner = Counter(answers).most_common(1)[0][0]
        right += row["scores"][answers.index(winner)]
    scores = json.loads((tmp_path / "e" / "scores.json").read_text())
    assert scores["cons_at_k"] == pytest.approx(right / len(published))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["eval", "base-tiny", "--benchmark", "math5000"], "no benchmark 'math5000'; did you mean math500"),
        (["eval"], "a MODEL is wanted, or --generations FILE"),
        (["eval", "base-tiny", "--generations", "x.jsonl"], "give one of them"),
        (["eval", "--generations", "missing.jsonl"], "missing.jsonl"),
        (["eval", "http://127.0.0.1:9/v1"], "127.0.0.1:9"),
        (["regrade", "."], "no evaluation there"),
        (["compare", ".", ".."], "no evaluation"),
        (["report", "--compare", "."], "no evaluation"),
        (["report", "a", "b"], "2 folders: a report is of one run; evaluations are compared with --compare"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], wanted: str, tmp_path: Path) -> None:
    done = hone(*arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert wanted in done.stderr


def test_a_model_without_a_chat_template_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(find_model("base-tiny"), model)
    (model / "chat_template.jinja").unlink()
    done = hone("eval", str(model), "--count", "4", "--out", str(tmp_path / "e"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the model has no chat template" in done.stderr
    assert not (tmp_path / "e").exists()


def test_another_verifier_that_is_none_or_asks_a_model_is_refused(evaluation: Path, tmp_path: Path) -> None:
    for verifier in ("judge", "maths"):
        done = hone("regrade", str(evaluation), "--verifier", verifier, "--out", str(tmp_path / "x"))
        assert done.returncode == 2
        assert f"no verifier '{verifier}' for an evaluation; there are number, expression, math" in done.stderr


def test_a_damaged_file_of_outputs_is_named(evaluation: Path, tmp_path: Path) -> None:
    for name in ("settings.json", "problems.jsonl"):
        (tmp_path / name).write_bytes((evaluation / name).read_bytes())
    (tmp_path / "generations.parquet").write_bytes((evaluation / "generations.parquet").read_bytes()[:-40])
    done = hone("regrade", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path / 'generations.parquet'}: damaged" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_said_in_one_line_and_loses_nothing(evaluation: Path, tmp_path: Path) -> None:
    for name in ("settings.json", "problems.jsonl"):
        (tmp_path / name).write_bytes((evaluation / name).read_bytes())
    (tmp_path / "journal.jsonl").symlink_to("/dev/full")
    done = hone(*COUNTDOWN, "--out", str(tmp_path))
    assert done.returncode == 1
    assert "no space left on the disk; nothing written before is lost" in done.stderr
    assert "Traceback" not in done.stderr


def answered(text: str) -> Answered:
    return Answered(text=text, num_tokens=1, truncated=False)


def test_programs_are_run_in_the_sandbox_of_a_process_that_grades(isolation: None) -> None:
    asked = (Message(role="user", content="Add two numbers."),)
    test = AssertTest(code="assert add(2, 3) == 5")
    problem = Problem(id="p", task="t", messages=asked, verifier="code", extract="code", tests=(test,))
    outputs = [answered(f"```python\ndef add(a, b):\n    return a {sign} b\n```") for sign in "+-"]
    with Grader(1) as grader:
        (graded,) = grader.grade([(problem, outputs)])
    assert [row["verdict"] for row in graded.rows] == ["right", "wrong"]
    assert graded.consensus is None


def test_a_fault_in_a_process_that_grades_is_one_clear_line() -> None:
    asked = (Message(role="user", content="?"),)
    problem = Problem(id="p", task="t", messages=asked, answer="1", verifier="math")
    broken = Problem(id="q", task="t", messages=asked, verifier="code", extract="code")
    with Grader(1) as grader:
        with pytest.raises(HoneError, match="problem q: it has no tests"):
            list(grader.grade([(problem, [answered("1")]), (broken, [answered("1")])]))
        process = grader._idle.get()
        process.kill()
        process.wait()
        grader._idle.put(process)
        with pytest.raises(RunError, match="the process that graded p ended"):
            list(grader.grade([(problem, [answered("1")])]))
