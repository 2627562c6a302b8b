"""The preflight: sound problems pass, and each kind of fault is found and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from hone.config import RlStage, parse_recipe
from hone.rewards.verifiers import VERIFIERS
from hone.rewards.workers import Workers
from hone.stages.preflight import describe, preflight, require_preflight
from hone.types import HoneError, Problem

ROWS = [{"question": f"What is {n} plus {n * n}?", "answer": str(n + n * n)} for n in range(3, 23)]


def stage(problems: dict[str, object], **settings: object) -> RlStage:
    table = {
        "name": "zero", "kind": "rl", "start_from": "base-tiny", "steps": 4, "problems_per_step": 2, "group_size": 2,
        "optimizer": {"learning_rate": 1e-3}, "problems": problems, **settings,
    }  # fmt: skip
    made = parse_recipe({"name": "test", "stage": [table]}, "test").stage[0]
    assert isinstance(made, RlStage)
    return made


def dataset(folder: Path, rows: list[dict[str, str]], **settings: object) -> dict[str, object]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"question": "question", "answer": "answer", "verifier": "math", "extract": "boxed"}
    return {"path": str(file), "split": "train", **fields, **settings}


@pytest.mark.parametrize("task", ["countdown", "chain", "gcd", "linear"])
def test_the_generated_tasks_pass(task: str) -> None:
    found = preflight(stage({"task": task, "count": 200}))
    assert (found.num_problems, found.num_tried) == (200, 200)
    assert (found.gold_right_share, found.wrong_accepted_share, found.unscorable_share) == (1.0, 0.0, 0.0)
    assert (found.num_duplicates, found.num_overlaps) == (0, 0)
    assert found.failures == ()


def test_messages_that_a_rubric_judges_pass() -> None:
    found = preflight(stage({"task": "general", "count": 60}))  # a rubric is no answer to its message
    assert found.gold_right_share in (1.0, None)
    assert (found.wrong_accepted_share, found.unscorable_share) == (0.0, 0.0)
    assert found.failures == ()


def test_sound_rows_pass(tmp_path: Path) -> None:
    found = preflight(stage(dataset(tmp_path, ROWS)))
    assert found.gold_right_share == 1.0
    assert found.wrong_accepted_share == 0.0
    assert found.findings == ()
    assert 0 < found.seconds_p50 <= found.seconds_p99 <= found.seconds_max


def test_a_reference_that_cannot_be_read_is_found_and_named(tmp_path: Path) -> None:
    rows = [{**row, "answer": "((("} if number % 2 else row for number, row in enumerate(ROWS)]
    found = preflight(stage(dataset(tmp_path, rows)))
    assert found.gold_right_share is not None
    assert found.gold_right_share < 1
    bad = [finding for finding in found.findings if finding.check == "reference"]
    assert bad
    assert all("(((" in finding.detail for finding in bad)
    assert len(found.failures) == 1
    assert bad[0].problem in found.failures[0] or "more" in found.failures[0]
    assert "gold cannot be parsed" in found.failures[0]


def test_a_verifier_that_takes_anything_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Credulous(type(VERIFIERS["number"])):  # type: ignore[misc]
        def judge_all(self, cases: list[tuple[Problem, str]]) -> object:
            return super().judge_all([(problem, problem.answer) for problem, _ in cases])

    monkeypatch.setitem(VERIFIERS, "number", Credulous())
    found = preflight(stage({"task": "gcd", "count": 20}))
    assert found.gold_right_share == 1.0
    assert found.wrong_accepted_share == 1.0
    assert {"near", "question as answer", "all of the above", "exit(0) as answer"} <= {f.check for f in found.findings}
    assert "a wrong answer is taken for right" in found.failures[0]


def test_an_attack_counts_among_the_problems_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hollow(type(VERIFIERS["number"])):  # type: ignore[misc]
        def judge_all(self, cases: list[tuple[Problem, str]]) -> object:
            return super().judge_all([(problem, answer or problem.answer) for problem, answer in cases])

    monkeypatch.setitem(VERIFIERS, "number", Hollow())
    found = preflight(stage({"task": "gcd", "count": 200}, preflight={"count": 2, "max_wrong_accepted": 0.5}))
    assert found.num_tried == 200
    assert {finding.check for finding in found.findings} >= {"no answer", "empty answer"}
    assert found.wrong_accepted_share == 1.0
    assert "(100.0%, max_wrong_accepted = 50.0%)" in found.failures[0]


def test_problems_that_stand_in_an_evaluation_set_are_named(tmp_path: Path) -> None:
    problems = dataset(tmp_path, ROWS)
    other = tmp_path / "eval.jsonl"
    leaked = [{"question": row["question"].upper().replace("?", " ?"), "answer": row["answer"]} for row in ROWS[:10]]
    other.write_text("".join(json.dumps(row) + "\n" for row in leaked))
    against = {"path": str(other), "question": "question", "answer": "answer", "verifier": "math"}
    clean = preflight(stage(problems))
    found = preflight(stage(problems, preflight={"against": [against]}))
    assert clean.num_overlaps == 0
    assert 0 < found.num_overlaps <= 10
    assert "also in an evaluation set: rows/" in found.failures[0]
    assert preflight(stage(problems, preflight={"against": [against], "max_overlap": 10})).failures == ()


def test_a_reward_that_judges_nothing_is_given_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "silent_reward.py").write_text("def f(question, response, answer):\n    return None\n")
    monkeypatch.syspath_prepend(tmp_path)
    pools: dict[tuple[str, ...], Workers] = {}
    monkeypatch.setattr("hone.rewards.workers._shared", pools)
    custom = {"custom": [{"function": "silent_reward:f"}]}
    done: list[int] = []
    with pytest.raises(
        HoneError, match="40 of the first 40 verdicts could not be given, most because: f: cannot judge"
    ):
        preflight(stage({"task": "gcd", "count": 50}, rewards=custom), on_verdict=lambda number, _: done.append(number))
    for pool in pools.values():
        pool.close()
    assert max(done) < 40


def test_rows_that_were_left_out_are_named(tmp_path: Path) -> None:
    rows = [*ROWS, {"question": "What is 1?"}]
    found = preflight(stage(dataset(tmp_path, rows, max_bad_rows=1)))
    (left_out,) = found.bad_rows
    assert "rows.jsonl, line 21: no field 'answer'" in left_out
    assert "(1 bad rows left out)" in describe(found)


def test_questions_that_come_twice_are_counted(tmp_path: Path) -> None:
    found = preflight(stage(dataset(tmp_path, ROWS + ROWS)))
    assert found.num_duplicates == found.num_problems / 2


def test_a_stage_refuses_to_start_and_keeps_the_report(tmp_path: Path) -> None:
    rows = [{**row, "answer": "((("} for row in ROWS]
    report = tmp_path / "preflight.json"
    with pytest.raises(HoneError, match=r"stage zero: the reference answer is not right on rows/\d+"):
        require_preflight(stage(dataset(tmp_path, rows)), report, Console(quiet=True))
    kept = json.loads(report.read_text())
    assert kept["gold_right_share"] == 0.0
    assert all(finding["check"] == "reference" for finding in kept["findings"])
