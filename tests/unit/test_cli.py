"""The command line: help at once and with an example, exit codes, one clear line for what is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hone.config import load_recipe
from hone.pipeline.run import make_plan

COMMANDS = (
    "run", "plan", "status", "report", "eval", "preflight", "verify", "sandbox run", "sandbox selftest",
    "chat", "serve", "export", "doctor",
)  # fmt: skip
SMALL = """
name = "small"
threads = 1
[[stage]]
name = "zero"
kind = "rl"
start_from = "base-tiny"
problems = { count = 8 }
sampling = { max_tokens = 24 }
steps = STEPS
problems_per_step = 4
group_size = 4
updates_per_step = 2
optimizer = { learning_rate = RATE }
evaluation = { every = 1000, samples = 1, problems = { count = 4 } }
checkpoint_every = 1
[[stage]]
name = "test"
kind = "evaluate"
models = ["base-tiny", "zero"]
samples = 1
problems = { count = 4 }
"""


def hone(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "hone.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **options)  # type: ignore[call-overload, no-any-return]


def small(folder: Path, steps: int = 1, rate: float = 1e-3) -> str:
    file = folder / "small.toml"
    file.write_text(SMALL.replace("STEPS", str(steps)).replace("RATE", str(rate)))
    return str(file)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    found = hone(*command.split(), "--help")
    assert found.returncode == 0
    assert f"Example: hone {command}" in found.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "r1-zero-tiny"], ["status", "RUN"]])
def test_help_plan_and_status_import_no_torch(arguments: list[str], tmp_path: Path) -> None:
    if "RUN" in arguments:
        make_plan(load_recipe(small(tmp_path)), tmp_path / "run").manifest.save(tmp_path / "run")
        arguments = ["status", str(tmp_path / "run")]
    code = (
        "import sys; from hone.cli import app\n"
        f"try: app({arguments!r})\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "no-such-recipe"], "error: no recipe 'no-such-recipe': not a file, and the shipped ones are"),
        (["plan", "r1-zero-tiny", "--set", "r1_zero.stepz=3"], "no such key; did you mean 'steps'?"),
        (["status", "."], "no manifest.json there"),
        (["report", "."], "no manifest.json there"),
        (["eval", "no-such-model"], "error: no model 'no-such-model'"),
        (["eval", "base-tiny", "--benchmark", "chess"], "error: no benchmark 'chess'; there are math500, "),
        (["eval", "base-tiny", "--split", "train"], "error: --split train: figures on problems to train on"),
        (["chat", "no-such-model", "--prompt", "x"], "error: no model"),
        (["run"], "Missing argument"),
        (["preflight", "base-tiny"], "no stage of kind rl"),
        (["verify", "--in", "no-such.jsonl", "--out", "out"], "error: there is no file no-such.jsonl"),
        (["verify", "--in", "bad.jsonl", "--out", "out"], "bad.jsonl, line 2: no field 'pred'; the row has 'gold'"),
        (
            ["verify", "--in", "good.jsonl", "--out", "out", "--extract", "boxes"],
            "no way of extraction is called 'boxes'",
        ),
        (["verify", "--in", "good.jsonl", "--out", "./good.jsonl"], "the file of --in, which would be lost"),
        (["run", "r1-zero-tiny", "--out", "good.jsonl/run"], "good.jsonl/run: nothing can be written there"),
        (["sandbox", "run", "--in", "bad.jsonl", "--out", "out"], "bad.jsonl, line 1: 'tests' is no list of tests"),
        (["sandbox", "run", "--in", "tests.jsonl", "--out", "out"], "tests.jsonl, line 1: a test is an assert,"),
    ],
)
def test_a_usage_error_is_one_clear_line_and_exit_2(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text('{"gold": "1", "pred": "1"}\n')
    (tmp_path / "bad.jsonl").write_text('{"gold": "1", "pred": "1"}\n{"gold": "1"}\n')
    (tmp_path / "tests.jsonl").write_text('{"program": "", "tests": [{"stdin": "1"}]}\n')
    found = hone(*arguments, cwd=tmp_path)
    assert found.returncode == 2
    assert complaint in found.stderr
    assert "Traceback" not in found.stderr


def test_a_run_ends_with_a_table_a_summary_and_a_report(tmp_path: Path) -> None:
    found = hone("run", small(tmp_path), "--out", "out", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "pass@1" in found.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [model["stage"] for model in summary["models"]] == ["base", "zero"]
    assert {claim["verdict"] for claim in summary["claims"]} <= {"holds", "does not hold", "not clear"}
    assert "report: out/report.html" in found.stdout
    assert (tmp_path / "out" / "report.html").stat().st_size < 6_000_000
    assert "done" in hone("status", "out", cwd=tmp_path).stdout
    changed = hone("run", small(tmp_path, steps=2), "--out", "out", cwd=tmp_path)
    assert changed.returncode == 2
    assert "made with other settings" in changed.stderr


def test_a_diverging_run_stops_with_the_step_and_the_batch(tmp_path: Path) -> None:
    found = hone("run", small(tmp_path, steps=3, rate=1e30), "--out", "out", cwd=tmp_path)
    assert found.returncode == 1
    assert re.search(r"failed: stage zero, step 1: the (loss|norm of the gradients) is (nan|inf)", found.stderr)
    assert (tmp_path / "out" / "zero" / "failed-step-000001.npz").is_file()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["stages"]["zero"]["state"] == "failed"


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    recipe = small(tmp_path, steps=500)
    command = [sys.executable, "-m", "hone.cli", "run", recipe, "--out", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "out" / "zero" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["stages"]["zero"]["state"] == "running"


def test_chat_answers_and_names_words_it_does_not_know(tmp_path: Path) -> None:
    found = hone("chat", "base-tiny", "--prompt", "use 3 8 8 make 61", cwd=tmp_path)
    assert found.returncode == 0
    assert "tokens/s" in found.stdout
    assert "not known to this model: stranger" in hone("chat", "base-tiny", "--prompt", "stranger", cwd=tmp_path).stdout


def test_doctor_finds_a_sound_installation() -> None:
    found = hone("doctor")
    assert found.returncode == 0, found.stdout
    assert "the embedded model base-tiny" in found.stdout


def test_verify_writes_a_verdict_for_each_row(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "gold": "1/2", "pred": r"So it is \\boxed{0.5}."},
        {"id": "b", "gold": "1/2", "pred": "0.51"},
        {"id": "c", "gold": "", "pred": "5"},
        {"gold": 7, "pred": "\ud800 7"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = hone("verify", "--in", "rows.jsonl", "--out", "out/verdicts.jsonl", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    verdicts = [json.loads(line) for line in (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()]
    assert [(row["id"], row["verdict"]) for row in verdicts[:3]] == [
        ("a", "right"),
        ("b", "wrong"),
        ("c", "unscorable"),
    ]
    assert set(verdicts[0]) == {"id", "verdict", "why", "seconds"}
    assert all(0 <= row["seconds"] < 60 for row in verdicts)
    assert "4 rows: " in found.stdout


@pytest.mark.usefixtures("isolation")
def test_sandbox_run_writes_a_verdict_for_each_program(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "program": "print(2 * int(input()))", "tests": [{"stdin": "21\n", "stdout": "42\n"}]},
        {"id": "b", "program": "def f(n): return n", "tests": ["assert f(1) == 1", "assert f(1) == 2"]},
        {"id": "c", "program": "def f(n): return n", "tests": [{"function": "f", "args": [[1]], "expected": [1]}]},
        {"id": "d", "program": "while True: pass", "tests": [{"stdin": "", "stdout": ""}]},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = hone("sandbox", "run", "--in", "rows.jsonl", "--out", "out.jsonl", "--seconds", "1", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    verdicts = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["verdict"], row["passed"]) for row in verdicts] == [
        ("a", "passed", 1.0), ("b", "failed", 0.5), ("c", "passed", 1.0), ("d", "timeout", 0.0),
    ]  # fmt: skip
    assert {"why", "seconds", "peak_mb"} <= set(verdicts[0])
    assert all(row["isolated"] for row in verdicts)


def test_programs_run_without_isolation_only_by_explicit_wish_and_it_is_said(tmp_path: Path) -> None:
    row = {"id": "a", "program": "print(2 * int(input()))", "tests": [{"stdin": "21\n", "stdout": "42\n"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    found = hone("sandbox", "run", "--in", "rows.jsonl", "--out", "out.jsonl", "--unsafe", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "without isolation" in found.stderr
    verdict = json.loads((tmp_path / "out.jsonl").read_text())
    assert (verdict["verdict"], verdict["isolated"]) == ("passed", False)


def test_preflight_answers_by_its_exit_code(tmp_path: Path) -> None:
    sound = hone("preflight", small(tmp_path), cwd=tmp_path)
    assert sound.returncode == 0, sound.stderr
    assert "gold right 100.0%, wrong accepted 0.0%" in sound.stdout
    (tmp_path / "rows.csv").write_text("q,a\n" + "".join(f"what is {n},(((\n" for n in range(30)))
    problems = '{ path = "rows.csv", question = "q", answer = "a", split = "train" }'
    file = tmp_path / "unsound.toml"
    file.write_text(SMALL.replace("{ count = 8 }", problems, 1).replace("STEPS", "1").replace("RATE", "1e-3"))
    unsound = hone("preflight", str(file), cwd=tmp_path)
    assert unsound.returncode == 1
    assert "the reference answer is not right on rows/" in unsound.stdout
    refused = hone("run", str(file), "--set", "zero.evaluation.problems.task=countdown", "--out", "out", cwd=tmp_path)
    assert refused.returncode == 2
    assert "error: stage zero: the reference answer is not right on rows/" in refused.stderr
    assert (tmp_path / "out" / "zero" / "preflight.json").is_file()


def test_a_recipe_on_a_csv_with_a_reward_of_the_users_own(tmp_path: Path) -> None:
    """The rows are questions that the embedded base can read; the module lies where the command is run."""
    rows = "".join(f"use {a} {b} make {a + b},{a} + {b}\n" for a in range(1, 9) for b in range(a, 9))
    (tmp_path / "rows.csv").write_text("question,answer\n" + rows)
    (tmp_path / "mine.py").write_text(
        "def brevity(question, response, answer):\n    return 1 / (1 + len(response.split()))\n"
    )
    problems = '{ path = "rows.csv", question = "question", answer = "answer", verifier = "expression", '
    problems += 'extract = "tags", prompt = "{question}", split = "train" }'
    recipe = SMALL.replace("{ count = 8 }", problems, 1).replace("STEPS", "1").replace("RATE", "1e-3")
    recipe = recipe.replace("steps = 1", 'steps = 1\nrewards = { custom = [{ function = "mine:brevity" }] }')
    recipe = recipe.replace("{ every = 1000, samples = 1, problems = { count = 4 } }", "{ every = 1000, samples = 1 }")
    (tmp_path / "mine.toml").write_text(recipe)
    found = hone("run", "mine.toml", "--out", "out", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    metrics = json.loads((tmp_path / "out" / "zero" / "metrics.jsonl").read_text())
    assert 0 < metrics["reward/brevity"] < 0.5
    assert metrics["verdict/unscorable_share"] == 0
    (tmp_path / "rows.csv").write_text("question,answer\n" + rows[: rows.rindex("\n", 0, -1) + 1])
    changed = hone("plan", "mine.toml", "--out", "out", cwd=tmp_path)
    assert "made with other settings" in changed.stdout
    misnamed = hone("preflight", "mine.toml", "--set", 'zero.rewards.custom=[{function="mine:brvty"}]', cwd=tmp_path)
    assert misnamed.returncode == 2
    assert "error: reward mine:brvty: AttributeError: module 'mine' has no attribute 'brvty'" in misnamed.stderr
