"""Before a stage trains on rewards: do they reward what they should, on its own problems?

The reference answer must score right, answers near it wrong, and so must the strings that policies find where a
verifier is weak. Problems that also stand in an evaluation set are named. The module knows nothing of models.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from hone.config import Dataset, RlStage
from hone.config import Preflight as Limits
from hone.record.files import write_json
from hone.record.progress import StageProgress
from hone.rewards.compose import score
from hone.rewards.verifiers import VERIFIERS, completion_with
from hone.stages.problems import benchmark_name, find_problems, load
from hone.tasks.overlap import duplicates, find_overlap
from hone.types import HoneError, Problem, RewardRule, Score, Verdict

SHOWN = 5  # rows that a message names; the report holds all
HANDFUL = 8  # tries that a thread is given at once: most verdicts take less time than handing a try over
GIVE_UP_AFTER = 5 * HANDFUL  # tries, of which more than half could not be judged
_Fault = Literal["gold", "accepted", "overlap", "near overlap"]
_FAULTS: dict[str, _Fault] = {"reference": "gold", "gold": "gold", "overlap": "overlap", "near overlap": "near overlap"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem on which a check did not hold."""

    problem: str
    check: str  # reference, gold, near, overlap, near overlap, or the name of an attack
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What the preflight of a stage found."""

    stage: str
    num_problems: int
    num_tried: int
    gold_right_share: float | None  # of the problems tried; None where they have tests but no reference answers
    wrong_accepted_share: float  # of the problems tried; of attacks, of those attacked
    unscorable_share: float  # of the verdicts
    seconds_p50: float  # of one verdict, in wall time, all cores at work
    seconds_p99: float
    seconds_max: float
    num_duplicates: int  # problems whose question stood before
    num_overlaps: int  # problems that also stand in an evaluation set, but for signs and layout
    num_near_overlaps: int  # problems that hold at least half of the 13-grams of one there
    bad_rows: tuple[str, ...]  # rows of the data set that were left out, by line, and why
    findings: tuple[Finding, ...]
    failures: tuple[str, ...]  # thresholds that are broken, a line each


@dataclass(frozen=True, slots=True)
class _Try:
    problem: Problem
    check: str
    text: str


def preflight(
    stage: RlStage, *, count: int | None = None, on_verdict: Callable[[int, int], None] = lambda done, total: None
) -> Preflight:
    """Try the rewards of a stage on `count` of its problems, by default all; compare all with evaluation sets.

    Attacks are tried on at most the stage's `preflight.count` problems.
    """
    problems, bad_rows = load(stage.problems)
    tried = random.Random(0).sample(problems, min(count or len(problems), len(problems)))
    unreadable = list(_unreadable(tried))
    without = {finding.problem for finding in unreadable}
    readable = [problem for problem in tried if problem.id not in without]
    attacked = readable[: stage.preflight.count]
    tries = [one for problem in readable for one in _gold_and_near(problem)]
    tries += [one for problem in attacked for one in _attacks(problem)]
    scored = _score_each(tries, stage.rewards.rule(), on_verdict)
    findings = (*unreadable, *_surprises(tries, scored), *_overlaps(stage, problems))

    broken = _by_fault(findings)
    num_with_gold = sum(_has_gold(problem) for problem in tried)
    gold_right = 1 - _num_problems(broken["gold"]) / num_with_gold if num_with_gold else None
    accepted = _accepted_share(broken["accepted"], len(tried), len(attacked))
    seconds = [seconds for _, seconds in scored] or [0.0]
    return Preflight(
        stage=stage.name,
        num_problems=len(problems),
        num_tried=len(tried),
        gold_right_share=gold_right,
        wrong_accepted_share=accepted,
        unscorable_share=float(np.mean([found.verdict is Verdict.UNSCORABLE for found, _ in scored] or [False])),
        seconds_p50=float(np.percentile(seconds, 50)),
        seconds_p99=float(np.percentile(seconds, 99)),
        seconds_max=max(seconds),
        num_duplicates=sum(len(same) - 1 for same in duplicates(_questions(problems))),
        num_overlaps=_num_problems(broken["overlap"]),
        num_near_overlaps=_num_problems(broken["near overlap"]),
        bad_rows=tuple(bad_rows),
        findings=findings,
        failures=tuple(_failures(stage.preflight, broken, gold_right, accepted)),
    )


def watch_preflight(stage: RlStage, console: Console, *, count: int | None = None) -> Preflight:
    """Do what `preflight` does, and show on the console how far it is."""
    with StageProgress(console, f"{stage.name}  preflight", 1) as progress:

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done)

        return preflight(stage, count=count, on_verdict=show)


def require_preflight(stage: RlStage, file: Path, console: Console) -> None:
    """Try a stage's rewards on a sample of its problems, keep the report, and refuse to start below its thresholds."""
    report = watch_preflight(stage, console, count=stage.preflight.count)
    write_json(file, asdict(report))
    console.print(f"{stage.name}  preflight: {describe(report)}", highlight=False)
    if report.failures:
        raise HoneError(f"stage {stage.name}: {'; '.join(report.failures)}. Every row is in {file}")


def describe(report: Preflight) -> str:
    """Say in one line what a preflight found."""
    gold = "no reference answers" if report.gold_right_share is None else f"gold right {report.gold_right_share:.1%}"
    left_out = f" ({len(report.bad_rows)} bad rows left out)" if report.bad_rows else ""
    return (
        f"{report.num_tried} of {report.num_problems} problems{left_out}, {gold}, wrong accepted "
        f"{report.wrong_accepted_share:.1%}, unscorable {report.unscorable_share:.1%}, verdict "
        f"{1000 * report.seconds_p50:.2f} ms (p99 {1000 * report.seconds_p99:.1f}, "
        f"longest {1000 * report.seconds_max:.0f}), {report.num_duplicates} duplicates, {report.num_overlaps} overlaps "
        f"and {report.num_near_overlaps} near ones with evaluation sets"
    )


def _unreadable(problems: Sequence[Problem]) -> Iterator[Finding]:
    for problem in problems:
        try:
            VERIFIERS[problem.verifier].check_reference(problem)
        except HoneError as error:
            yield Finding(problem.id, "reference", str(error))


def _gold_and_near(problem: Problem) -> Iterator[_Try]:
    if _has_gold(problem):
        yield _Try(problem, "gold", completion_with(problem, problem.answer))
    for answer in VERIFIERS[problem.verifier].wrong_answers(problem):
        yield _Try(problem, "near", completion_with(problem, answer))


def _has_gold(problem: Problem) -> bool:
    """Whether the reference is an answer; a rubric or instructions only say what one must hold."""
    return bool(problem.answer) and problem.verifier not in ("rubric", "instructions")


def _attacks(problem: Problem) -> Iterator[_Try]:
    """Yield what policies have been seen to try: nothing, everything, the question, the tags alone, an exit."""
    question = problem.question
    texts = {
        "no answer": "",
        "tags alone": "<think></think><answer></answer>",
        "empty box": r"\boxed{}",
        "many boxes": " ".join(rf"\boxed{{{n}}}" for n in (*range(21), 12345.678)),
        "question echoed": question,
        "exit(0)": "import sys; sys.exit(0)",
    }
    answers = {
        "empty answer": "",
        "every number": ", ".join(map(str, range(21))),
        "question as answer": question,
        "all of the above": "all of the above",
        "exit(0) as answer": "import os; os._exit(0)",
        "empty box as answer": r"\boxed{}",
    }
    for name, text in texts.items():
        yield _Try(problem, name, text)
    for name, answer in answers.items():
        yield _Try(problem, name, completion_with(problem, answer))


def _score_each(
    tries: Sequence[_Try], rule: RewardRule, on_verdict: Callable[[int, int], None]
) -> list[tuple[Score, float]]:
    """Score each try by itself, so that each has its own time in seconds; as many at once as there are cores."""

    def timed(some: Sequence[_Try]) -> list[tuple[Score, float]]:
        scored = []
        for one in some:
            started = time.perf_counter()
            scored.append((score(one.problem, one.text, rule), time.perf_counter() - started))
        return scored

    for first in tries[:1]:
        score(first.problem, first.text, rule)  # starts the worker processes, whose start is not a verdict's time
    scored: list[tuple[Score, float]] = []
    threads = ThreadPoolExecutor(os.cpu_count())
    try:
        for found in threads.map(timed, [tries[i : i + HANDFUL] for i in range(0, len(tries), HANDFUL)]):
            scored += found
            if len(scored) == GIVE_UP_AFTER:
                _check_judging([score for score, _ in scored])
            on_verdict(len(scored), len(tries))
    finally:
        threads.shutdown(cancel_futures=True)
    return scored


def _check_judging(scores: Sequence[Score]) -> None:
    """Give up on rewards that judge next to nothing: one that hangs takes two seconds a try."""
    whys = Counter(score.why for score in scores if score.verdict is Verdict.UNSCORABLE)
    if whys.total() > GIVE_UP_AFTER / 2:
        why, _ = whys.most_common(1)[0]
        raise HoneError(f"{whys.total()} of the first {GIVE_UP_AFTER} verdicts could not be given, most because: {why}")


def _surprises(tries: Sequence[_Try], scored: Sequence[tuple[Score, float]]) -> Iterator[Finding]:
    """Yield reference answers that are not right, and everything else that is."""
    for one, (found, _) in zip(tries, scored, strict=True):
        if (found.verdict is Verdict.RIGHT) != (one.check == "gold"):
            yield Finding(one.problem.id, one.check, f"{found.verdict}: {found.why}: {one.text[:200]!r}")


def _overlaps(stage: RlStage, problems: Sequence[Problem]) -> list[Finding]:
    """Compare the training problems with the stage's held-out ones and the evaluation sets that it names.

    Generated problems are left out: their splits are disjoint by construction. Sharing half of the 13-grams is reported
    and does not count, because most such pairs are siblings from one template, with other numbers; it comes last.
    """
    found = [
        Finding(
            overlap.train_id,
            "near overlap" if overlap.kind == "n-gram" else "overlap",
            f"{overlap.kind} with {benchmark_name(held_out)} {overlap.eval_id}, {overlap.share:.0%}: "
            f"{overlap.words[:200]!r}",
        )
        for held_out in (stage.evaluation.problems, *stage.preflight.against)
        if isinstance(held_out, Dataset)
        for overlap in find_overlap(_questions(problems), _questions(find_problems(held_out)))
    ]
    return sorted(found, key=lambda finding: finding.check == "near overlap")


def _questions(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    return [(problem.id, problem.question) for problem in problems]


def _by_fault(findings: Sequence[Finding]) -> dict[_Fault, list[Finding]]:
    """Sort findings by what they say: of the reference answer, of a wrong one, of an evaluation set."""
    faults: dict[_Fault, list[Finding]] = {"gold": [], "accepted": [], "overlap": [], "near overlap": []}
    for finding in findings:
        faults[_FAULTS.get(finding.check, "accepted")].append(finding)
    return faults


def _accepted_share(accepted: Sequence[Finding], num_tried: int, num_attacked: int) -> float:
    """Return on which share of the problems a wrong answer was accepted.

    Attacks count among the problems attacked, so that trying more problems hides no hole.
    """
    attacks = [finding for finding in accepted if finding.check != "near"]
    return max(_num_problems(accepted) / num_tried, _num_problems(attacks) / max(num_attacked, 1))


def _failures(
    limits: Limits, broken: Mapping[_Fault, Sequence[Finding]], gold_right: float | None, accepted: float
) -> Iterator[str]:
    """Yield a line for each threshold that is broken."""
    if broken["gold"] and (gold_right is None or gold_right < limits.min_gold_right):
        yield _failure(
            "the reference answer is not right on", broken["gold"],
            f"right on {gold_right or 0:.1%}, min_gold_right = {limits.min_gold_right:.1%}",
        )  # fmt: skip
    if accepted > limits.max_wrong_accepted:
        yield _failure(
            "a wrong answer is taken for right on", broken["accepted"],
            f"{accepted:.1%}, max_wrong_accepted = {limits.max_wrong_accepted:.1%}",
        )  # fmt: skip
    if (num_overlaps := _num_problems(broken["overlap"])) > limits.max_overlap:
        yield _failure(
            "also in an evaluation set:", broken["overlap"],
            f"{num_overlaps} problems, max_overlap = {limits.max_overlap}",
        )  # fmt: skip


def _failure(fault: str, findings: Sequence[Finding], figures: str) -> str:
    """Name some of the problems that have a fault, and say of the first of them what was found."""
    names = sorted({finding.problem for finding in findings})
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    first = min(findings, key=lambda finding: finding.problem)
    return f"{fault} {', '.join(names[:SHOWN])}{more} ({figures}); {first.problem}: {first.detail}"


def _num_problems(findings: Sequence[Finding]) -> int:
    return len({finding.problem for finding in findings})
