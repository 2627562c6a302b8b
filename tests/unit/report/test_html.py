"""The report of a run: what it shows, what it must survive, how large it may be."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from pages import HOSTILE, Page

from hone.report.answers import MAX_STEPS, marked, same_problem
from hone.report.charts import evenly, training_charts
from hone.report.html import MAX_BYTES, write_report
from hone.types import HoneError

TRACE = (
    "<think> try 3 + 8 = 11 * 8 = 88 high try 8 * 8 = 64 - 3 = 61 right check 8 * 8 = 64 - 3 = 62 right so </think> "
    "<answer> ( 8 * 8 ) - 3 </answer>"
)


def row(problem: str, sample: int, completion: str = TRACE, verdict: str = "right", **more: Any) -> dict[str, Any]:
    return {
        "step": 0, "model": "r1_zero", "problem_id": problem, "task": "countdown", "language": "en",
        "question": "use 3 8 8 make 61", "answer": "( 8 * 8 ) - 3", "sample": sample, "completion": completion,
        "num_tokens": 40, "finish_reason": "stop", "verdict": verdict, "why": "comes to 61", "reward": 1.1,
        "parts": '{"accuracy": 1.0, "format": 0.1}', "advantage": math.nan,
    } | more  # fmt: skip


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(list(rows)), path)


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_manifest(
    run: Path, settings: Mapping[str, Mapping[str, Any]] | None = None, **states: tuple[str, str]
) -> None:
    """Write a manifest with a stage of a kind and a state for each keyword, and with more of its settings."""
    more = settings or {}
    stages = {
        name: {"kind": kind, "state": state, "hash": "0123456789ab", "seconds": 90.0, "started": None, "error": None}
        for name, (kind, state) in states.items()
    }
    stage = [
        {"name": name, "kind": kind, "optimizer": {"warmup_steps": 5}, **more.get(name, {})}
        for name, (kind, _) in states.items()
    ]
    recipe = {"name": "r1-tiny", "summary": "A tiny <b>reasoner</b>.", "seed": 7, "stage": stage}
    versions = {"hone": "0.1.0", "torch": "2.13.0", "python": "3.11.9"}
    (run / "manifest.json").write_text(json.dumps({"recipe": recipe, "versions": versions, "stages": stages}))


def figures(stage: str, pass_at_1: float) -> dict[str, Any]:
    interval = [pass_at_1 - 0.02, pass_at_1 + 0.02]
    return {
        "stage": stage, "benchmark": "countdown", "num_problems": 500, "samples": 4, "pass_at_1": pass_at_1,
        "pass_at_1_ci95": interval, "cons_at_k": 0.5, "completion_length_mean": 61.5, "tries_mean": None,
        "reflection_rate": 0.42, "language_consistency": 0.9,
        "budget_curve": [{"tokens": 48, "pass_at_1": pass_at_1, "pass_at_1_ci95": interval}],
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of one training and one evaluation stage."""
    write_manifest(tmp_path, r1_zero=("rl", "done"), final=("evaluate", "done"))
    models = [figures("base", 0.243), figures("r1_zero", 0.762)]
    claims = [{"claim": "Reinforcement learning raises accuracy", "verdict": "holds", "evidence": "far apart"}]
    summary = {"recipe": "r1-tiny", "seconds": 512.0, "models": models, "claims": claims}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    stage = tmp_path / "r1_zero"
    write_lines(stage / "metrics.jsonl", ({"step": step, "reward/mean": step / 40} for step in range(1, 41)))
    write_lines(stage / "evaluations.jsonl", ({"step": step} | figures("r1_zero", 0.3) for step in (0, 40)))
    for step in range(1, 41):
        group = [row("a", i, advantage=1.5 if i else -1.5) for i in range(2)]
        write_rows(stage / f"rollouts/step-{step:06d}.parquet", group)
    for step, verdict in ((0, "wrong"), (40, "right")):
        write_rows(stage / f"evaluations/step-{step:06d}.parquet", [row("a", i, verdict=verdict) for i in range(2)])
    for model in ("base", "r1_zero"):
        write_rows(tmp_path / f"final/generations/{model}.parquet", [row("b", 0, model=model)])
    return tmp_path


def test_shows_the_figures_of_the_summary(run: Path) -> None:
    page = Page(write_report(run))
    for figure in ("0.24", "0.76", "0.243", "0.762", "0.742–0.782", "61.5", "42%", "9 min", "seed 7", "holds"):
        assert figure in page.text, figure
    assert "A tiny <b>reasoner</b>." in page.text  # the summary is text, too


def test_draws_what_was_recorded_and_nothing_else(run: Path) -> None:
    charts = {chart["title"]: chart for chart in Page(write_report(run)).data["charts"]}
    assert set(charts) == {"Accuracy and reward", "Completion length", "Language consistency", "countdown"}
    accuracy, reward = charts["Accuracy and reward"]["curves"]
    assert (accuracy["x"], accuracy["y"]) == ([0, 40], [0.3, 0.3])
    assert (accuracy["low"], accuracy["high"]) == ([0.28, 0.28], [0.32, 0.32])
    assert (reward["x"][0], reward["y"][0], reward["x"][-1], reward["y"][-1]) == (1, 0.025, 40, 1.0)
    assert [(curve["name"], curve["colour"]) for curve in charts["countdown"]["curves"]] == [
        ("base", "grey"),
        ("r1_zero", "blue"),
    ]


def test_is_one_small_file_that_loads_nothing(run: Path) -> None:
    path = write_report(run, run / "elsewhere.html")
    page = Page(path)
    assert path.stat().st_size <= MAX_BYTES
    assert not [attrs for _, attrs in page.tags if {"src", "srcset", "data", "poster"} & set(attrs)]
    assert all((attrs["href"] or "").startswith("#") for _, attrs in page.tags if "href" in attrs)
    (policy,) = [attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert (policy or "").startswith("default-src 'none'")
    assert not any(tag in ("link", "img", "iframe", "object", "embed", "base") for tag, _ in page.tags)


def test_hostile_text_stays_inert(run: Path) -> None:
    clean = Page(write_report(run))
    hostile = [row("a", i, HOSTILE, question=HOSTILE, why=HOSTILE, parts=json.dumps({HOSTILE: 1.0})) for i in range(2)]
    write_rows(run / "r1_zero/rollouts/step-000040.parquet", hostile)
    write_rows(run / "r1_zero/evaluations/step-000040.parquet", hostile)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["r1_zero"]["error"] = HOSTILE
    (run / "manifest.json").write_text(json.dumps(manifest))
    page = Page(write_report(run))
    # The error stands in the table of stages and on the stage's page; nothing else became a tag.
    more = Counter((tag, attrs.get("class")) for tag, attrs in page.tags)
    more.subtract((tag, attrs.get("class")) for tag, attrs in clean.tags)
    assert {kind: count for kind, count in more.items() if count} == {("span", "error"): 1, ("p", "card error"): 1}
    assert "alert(1)</script>" not in page.source
    group = page.data["groups"]["r1_zero"]["steps"][-1]["groups"][0]
    assert group["question"] == HOSTILE
    words = "".join(run if isinstance(run, str) else run[0] for run in group["outputs"][0]["text"][0]["runs"])
    assert words == HOSTILE


def test_unfinished_run(tmp_path: Path) -> None:
    write_manifest(tmp_path, r1_zero=("rl", "running"), final=("evaluate", "pending"))
    metrics = tmp_path / "r1_zero/metrics.jsonl"
    write_lines(metrics, [{"step": 1, "reward/mean": 0.5}, {"step": 2, "reward/mean": math.nan}])
    with metrics.open("a") as lines:
        lines.write('{"step": 3, "reward/me')
    page = Page(write_report(tmp_path))
    assert "running in r1_zero; 0 of 2 stages done" in page.text
    assert "No model has been evaluated yet" in page.text
    assert [curve["x"] for curve in page.data["charts"][0]["curves"]] == [[1]]


def test_unfinished_run_shows_its_latest_evaluation(run: Path) -> None:
    (run / "summary.json").unlink()
    page = Page(write_report(run))
    assert "held-out problems of r1_zero, so far" in page.text
    assert "step 40" in page.text


def test_a_first_evaluation_stands_alone(run: Path) -> None:
    (run / "summary.json").unlink()
    write_lines(run / "r1_zero/evaluations.jsonl", [{"step": 0} | figures("r1_zero", 0.3)])
    text = Page(write_report(run)).text
    assert "0.30" in text
    assert "→" not in text
    assert text.count("step 0") == 1


@pytest.mark.parametrize("kind", ["sft", "evaluate", "rl"])
def test_run_before_its_first_step(tmp_path: Path, kind: str) -> None:
    write_manifest(tmp_path, only=(kind, "pending"))
    assert Page(write_report(tmp_path)).data == {"charts": [], "strips": {}, "groups": {}}


def test_sft_alone(tmp_path: Path) -> None:
    write_manifest(tmp_path, cold_start=("sft", "done"))
    write_lines(tmp_path / "cold_start/metrics.jsonl", [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.0}])
    assert [chart["title"] for chart in Page(write_report(tmp_path)).data["charts"]] == ["Loss"]


def test_evaluation_alone_compares_the_models_in_the_order_of_the_summary(run: Path) -> None:
    write_manifest(run, final=("evaluate", "done"))
    page = Page(write_report(run))
    assert page.data["strips"]["final"]["columns"] == ["base", "r1_zero"]
    assert "The same problem, side by side" in page.text


def test_every_stage_has_a_box_and_a_page(run: Path) -> None:
    page = Page(write_report(run))
    ids = {attrs.get("id") for _, attrs in page.tags}
    boxes = [attrs for tag, attrs in page.tags if tag == "a" and (attrs.get("class") or "").startswith("box ")]
    assert [(box["class"], box["href"]) for box in boxes] == [
        ("box rl", "#stage-r1_zero"), ("box evaluate", "#stage-final")
    ]  # fmt: skip
    links = {(attrs["href"] or "")[1:] for tag, attrs in page.tags if tag == "a"}
    assert links <= ids, links - ids
    assert "optimizer.warmup_steps" in page.text


def test_edges_have_the_look_of_what_is_read(tmp_path: Path) -> None:
    settings = {
        "zero": {"start_from": "base-tiny"},
        "collect": {"start_from": "zero"},
        "sft": {"start_from": "base-tiny", "data": {"stages": ["collect"]}},
        "helpful": {"start_from": "sft", "data": {"stages": ["collect"]}},
        "r1": {"start_from": "sft", "general": {"helpfulness": "helpful", "harmlessness": ""}},
        "test": {"models": ["base-tiny", "r1"]},
    }
    kinds = ("rl", "rejection", "sft", "reward_model", "rl", "evaluate")
    states = {name: (kind, "pending") for name, kind in zip(settings, kinds, strict=True)}
    write_manifest(tmp_path, settings, **states)
    page = Page(write_report(tmp_path))
    edges = [attrs for tag, attrs in page.tags if tag == "path" and "data-names" in attrs]
    looks = {(attrs["class"] or "").removeprefix("edge ") for attrs in edges}
    assert looks == {"weights", "rows", "reward", "measured"}
    assert "starts from sft" in " ".join(page.text.split())
    assert "is rewarded or judged by helpful" in " ".join(page.text.split())
    assert "is read by test" in " ".join(page.text.split())


def test_compute_is_that_of_the_summary_or_what_was_counted_so_far(run: Path) -> None:
    def table() -> str:
        text = Page(write_report(run)).text
        return text[text.index("tokens sampled") : text.index("Arithmetic is counted")]

    summary = json.loads((run / "summary.json").read_text())
    costs = [("r1_zero", 1_200_000, 800_000, 6.25), ("final", 300_000, 0, 0.5)]
    summary["stages"] = [
        {"stage": name, "tokens_sampled": sampled, "tokens_trained": trained, "tflop": tflop}
        for name, sampled, trained, tflop in costs
    ]
    (run / "summary.json").write_text(json.dumps(summary))
    for cells in ("1,200,000800,0006.25", "300,00000.5", "1,500,000800,0006.75"):
        assert cells in table(), cells
    (run / "summary.json").unlink()
    rows = [{"step": n, "tokens/sampled": 500, "tokens/trained": 400, "compute/tflop": 0.25} for n in (1, 2, 3)]
    write_lines(run / "r1_zero/metrics.jsonl", rows)
    assert "1,5001,2000.75" in table()
    assert "–––" in table()  # of the stage that counted nothing


def test_a_reward_model_and_alarms_have_their_places(tmp_path: Path) -> None:
    write_manifest(tmp_path, helpful=("reward_model", "done"), r1=("rl", "running"))
    lines = [{"step": step, "loss": 0.7 - step / 10, "accuracy": 0.5 + step / 10} for step in (1, 2)]
    write_lines(tmp_path / "helpful/metrics.jsonl", lines)
    results = {"accuracy_held_out": 0.912, "accuracy_held_out_ci95": [0.86, 0.95], "num_pairs": 610}
    (tmp_path / "helpful/results.json").write_text(json.dumps(results))
    write_lines(tmp_path / "r1/alarms.jsonl", [{"step": 19, "why": HOSTILE}])
    scores = [{"step": step, "reward/helpful": 0.5, "general/right_share": 0.4} for step in (1, 2)]
    write_lines(tmp_path / "r1/metrics.jsonl", scores)
    page = Page(write_report(tmp_path))
    assert "held-out 0.91" in page.text
    assert "0.860 – 0.950" in page.text
    assert HOSTILE in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    titles = [chart["title"] for chart in page.data["charts"]]
    assert titles == ["Loss", "Ranked right", "General prompts"]  # the scores are not drawn among the rewards again


def test_the_answers_of_all_models_stand_in_the_order_of_the_stage(run: Path) -> None:
    names = ["base-tiny", *(f"model_{n:02d}" for n in range(20, 8, -1))]
    settings = {"r1_zero": {"start_from": "base-tiny"}, "final": {"models": names}}
    write_manifest(run, settings, r1_zero=("rl", "done"), final=("evaluate", "done"))
    for name in names:
        rows = [row(f"en-{n}", 0, model=name, verdict="wrong") for n in range(9)]
        write_rows(run / f"final/generations/{name}.parquet", [*rows, row("zh-1", 0, model=name, language="zh")])
    for old in ("base", "r1_zero"):
        (run / f"final/generations/{old}.parquet").unlink()
    path = write_report(run)
    assert path.stat().st_size <= MAX_BYTES
    strip = Page(path).data["strips"]["final"]
    assert strip["columns"] == ["base", *names[1:]]
    assert [len(problem["answers"]) for problem in strip["problems"]] == [13] * 6
    assert {problem["language"] for problem in strip["problems"]} == {"en", "zh"}


def test_released_folders_are_named(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"release": {"models": ["r1"]}}, r1=("rl", "done"), release=("release", "done"))
    (tmp_path / "release/release/r1").mkdir(parents=True)
    assert "release/release/r1" in Page(write_report(tmp_path)).text


def test_what_rejection_sampled_is_shown_with_what_became_of_it(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"collect": {"problems": {"task": "countdown"}}}, collect=("rejection", "done"))
    reasons = ["", "language", "enough", "wrong"]
    rows = [
        {"problem_id": f"p{n}", "language": "en", "prompt": HOSTILE, "completion": TRACE, "sample": sample,
         "num_tokens": 40, "verdict": "right", "why": "", "rejected_by": reason}
        for n in range(40) for sample, reason in enumerate(reasons)
    ]  # fmt: skip
    write_rows(tmp_path / "collect/rows.parquet", rows)
    page = Page(write_report(tmp_path))
    groups = page.data["groups"]["collect"]
    assert (groups["num_stored"], groups["num_shown"], len(groups["steps"])) == (40, 24, 6)
    assert [output["rejected"] for output in groups["steps"][0]["groups"][0]["outputs"]] == reasons
    assert "24 of 40 problems are here" in page.text


def test_a_study_shows_means_seeds_and_where_its_runs_are(tmp_path: Path) -> None:
    study = {"name": "r1-tiny-study", "summary": "Three seeds.", "recipe": "r1-tiny", "seeds": [0, 1, 2]}
    (tmp_path / "study.json").write_text(json.dumps(study))
    assert "0 of 3 runs of r1-tiny finished" in Page(write_report(tmp_path)).text
    for seed in (0, 1):
        (tmp_path / f"seed-{seed}").mkdir()
        write_manifest(tmp_path / f"seed-{seed}", final=("evaluate", "done"))
    write_report(tmp_path / "seed-0")
    model = figures("r1_zero", 0.762) | {"title": "R1-Zero", "pass_at_1_by_seed": [0.71, 0.79, None]}
    claim = {"claim": "it rises", "verdict": "not clear", "evidence": "so", "seeds": ["holds", "holds", "not clear"]}
    summary = {"recipe": "r1-tiny-study", "seeds": [0, 1, 2], "seconds": 900.0, "models": [model], "claims": [claim]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = Page(write_report(tmp_path))
    for text in ("2 of 3 runs of r1-tiny finished", "0.762", "0.71", "0.79", "by seed", "15 min", "not begun"):
        assert text in page.text, text
    links = {attrs["href"] for tag, attrs in page.tags if tag == "a" and "seed" in (attrs["href"] or "")}
    assert links == {"seed-0/report.html"}
    (tmp_path / "elsewhere").mkdir()
    moved = Page(write_report(tmp_path, tmp_path / "elsewhere/study.html"))
    assert any(attrs.get("href") == "../seed-0/report.html" for _, attrs in moved.tags)


def test_the_hero_goes_from_the_base_to_r1_and_not_to_a_student(run: Path) -> None:
    named = [("base", "", 0.21), ("zero", "R1-Zero", 0.52), ("sft", "Dev3", 0.63), ("rl", "R1", 0.84), ("s", "S", 0.15)]
    models = [figures(name, score) | {"title": title} for name, title, score in named]
    (run / "summary.json").write_text(json.dumps({"recipe": "r1-tiny", "seconds": 1.0, "models": models}))
    text = Page(write_report(run)).text
    top = text[: text.index("The stages")]
    assert "0.21→0.84" in top
    colours = [attrs["style"] for tag, attrs in Page(run / "report.html").tags if attrs.get("class") == "dot"]
    assert colours == [f"background:var(--{colour})" for colour in ("grey", "amber", "violet", "blue", "teal")]
    words = top.split()
    assert {"R1-Zero", "Dev3", "R1"} <= set(words)
    assert "S" not in words


def test_groups_are_bounded(run: Path) -> None:
    page = Page(write_report(run))
    steps = [step["step"] for step in page.data["groups"]["r1_zero"]["steps"]]
    assert len(steps) == MAX_STEPS
    assert (steps[0], steps[-1]) == (1, 40)
    assert "30 of 40 stored steps are here" in page.text


def test_a_large_run_still_fits(run: Path) -> None:
    long = [row(f"p{i}", j, TRACE * 20) for i in range(4) for j in range(16)]
    for step in range(1, 41):
        write_rows(run / f"r1_zero/rollouts/step-{step:06d}.parquet", long)
    path = write_report(run)
    assert path.stat().st_size <= MAX_BYTES
    page = Page(path)
    assert "characters left out" in page.source
    assert 1 < len(page.data["groups"]["r1_zero"]["steps"]) < MAX_STEPS


def test_marks() -> None:
    think, answer = marked("countdown", "en", TRACE.replace("right so", "对 so"), 1000)
    assert (think["part"], answer["part"]) == ("think", "answer")
    kinds = [(run[0], run[1]) for run in think["runs"] if isinstance(run, list)]
    assert kinds == [
        ("<think>", "tag"), ("try", "try"), ("high", "reflection"), ("try", "try"), ("check", "verification"),
        ("64 - 3 = 62", "slip"), ("对", "foreign"), ("</think>", "tag"),
    ]  # fmt: skip
    assert answer["runs"] == [["<answer>", "tag"], " ( 8 * 8 ) - 3 ", ["</answer>", "tag"]]


def test_overlapping_marks_are_cut_and_no_character_is_lost() -> None:
    (part,) = marked("countdown", "en", "试 1 + 1 = 3 * 2 = 7", 1000)
    assert part["part"] == "outside"
    assert part["runs"] == [["试", "foreign try"], " ", ["1 + 1 = 3 * 2 = 7", "slip"]]


def test_problems_are_chosen_by_their_story_and_counted(tmp_path: Path) -> None:
    first = {"a": "wrong", "b": "wrong", "c": "right", "d": "wrong", "e": "right"}
    last = {"a": "wrong", "b": "right", "c": "right", "d": "right", "e": "unscorable"}
    columns = []
    for step, verdicts in ((0, first), (10, last)):
        path = tmp_path / f"step-{step:06d}.parquet"
        languages = {"d": "zh"}
        rows = [row(name, 0, verdict=verdict, language=languages.get(name, "en")) for name, verdict in verdicts.items()]
        write_rows(path, [*rows, row("a", 1, verdict="right")])  # only first samples count
        columns.append((f"step {step}", path))
    strip = same_problem(columns, 1000)
    assert strip is not None
    assert strip["tally"] == {"learned": 2, "stays wrong": 1, "right from the start": 1, "lost": 1}
    stories = [problem["story"] for problem in strip["problems"]]
    assert stories == ["learned", "learned", "stays wrong", "lost", "right from the start"]
    assert [problem["language"] for problem in strip["problems"]][:2] == ["en", "zh"]


def test_evenly_keeps_both_ends() -> None:
    assert evenly(range(1, 41), 4) == [1, 14, 27, 40]
    assert evenly([1, 2], 4) == [1, 2]
    assert evenly([1, 2, 3], 1) == [3]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match=r"no manifest\.json"):
        write_report(tmp_path)


def test_a_broken_line_before_the_last_is_refused(run: Path) -> None:
    lines = run / "r1_zero/metrics.jsonl"
    lines.write_text("{broken\n" + lines.read_text())
    with pytest.raises(HoneError, match=r"metrics\.jsonl, line 1"):
        write_report(run)


def test_rewards_of_the_users_own_are_drawn_by_name() -> None:
    rows = [{"step": step, "reward/mean": 1.0, "reward/accuracy": 0.5, "reward/brevity": 0.1} for step in (1, 2)]
    (chart,) = [chart for chart in training_charts(rows, [], 10) if chart["title"] == "Reward by part"]
    assert [curve["name"] for curve in chart["curves"]] == ["accuracy", "brevity"]


def test_a_preflight_that_failed_and_what_was_kept_are_shown(tmp_path: Path) -> None:
    write_manifest(tmp_path, collect=("rejection", "done"), zero=("rl", "failed"))
    for name in ("collect", "zero"):
        (tmp_path / name).mkdir()
    funnel = {
        "outputs": 80,
        "kept": 11,
        "problems": 20,
        "problems_kept": 8,
        "rejected_by": {"wrong": 60, "language": 9},
    }
    (tmp_path / "collect" / "funnel.json").write_text(json.dumps(funnel))
    findings = [{"problem": f"rows/{n}", "check": "gold", "detail": HOSTILE} for n in range(60)]
    preflight = {
        "stage": "zero", "num_problems": 90, "num_tried": 60, "gold_right_share": 0.5, "wrong_accepted_share": 0.0,
        "unscorable_share": 0.01, "seconds_p50": 0.0002, "seconds_p99": 0.01, "seconds_max": 0.2, "num_duplicates": 3,
        "num_overlaps": 0, "num_near_overlaps": 0, "bad_rows": [], "findings": findings,
        "failures": ["the reference answer is not right on rows/0"],
    }  # fmt: skip
    (tmp_path / "zero" / "preflight.json").write_text(json.dumps(preflight))
    page = Page(write_report(tmp_path))
    assert "11 of 80 outputs kept, on 8 of 20 problems" in page.text
    assert "75.0%" in page.text
    assert "the reference answer is not right on rows/0" in page.text
    assert "rows/49" in page.text
    assert "rows/50" not in page.text
    assert ("details", {"class": "card", "open": None}) in page.tags
    assert not [attributes for tag, attributes in page.tags if tag == "img"]
