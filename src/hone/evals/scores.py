"""From outputs to figures: each output is judged and measured, a problem's outputs vote, figures get intervals.

A figure is the mean over problems of the mean over a problem's outputs. Unscorable outputs are counted and left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hone.evals.statistics import means_and_intervals, pass_at_k, standard_error
from hone.rewards.behaviour import measure
from hone.rewards.extract import extract
from hone.rewards.format import split_completion
from hone.rewards.instructions import followed
from hone.rewards.language import language_consistency
from hone.rewards.readability import has_summary
from hone.rewards.verifiers import VERIFIERS, verify_all
from hone.types import Problem, RunError, Verdict, Verified

Row = dict[str, Any]
# Figures of every evaluation, by the name of what is measured in an output.
FIGURES = {
    "lenient_pass_at_1": "lenient",
    "completion_length_mean": "num_tokens",
    "completion_length_finished_mean": "finished_tokens",
    "tries_mean": "tries",
    "reflection_rate": "reflects",
    "verification_rate": "verifies",
    "language_consistency": "language",
    "format_share": "format",
    "summary_share": "summary",
    "truncated_share": "truncated",
    "repetition_share": "repeats",
    "loop_share": "loops",
    "longest_paragraph_mean": "longest_paragraph",
    "code_block_share": "has_code",
}
INSTRUCTIONS = {"instruction_accuracy": "strict", "instruction_accuracy_loose": "loose"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An output as it is judged: its text, its tokens, and whether it was cut; None where that is not known."""

    text: str
    num_tokens: int | None
    truncated: bool | None


def judge(cases: Sequence[tuple[Problem, Answered]], verified: Sequence[Verified] | None = None) -> list[Row]:
    """Return what was found in each output, in order, as plain values; `verified` where verdicts are known already."""
    texts = [(problem, output.text) for problem, output in cases]
    if verified is None:
        verified = verify_all(texts)
    answers = [extract(text, problem.extract) for problem, text in texts]
    lenient = _lenient(texts, answers, verified)
    return [
        _row(problem, output, answer, found, loose)
        for (problem, output), answer, found, loose in zip(cases, answers, verified, lenient, strict=True)
    ]


def _lenient(
    texts: Sequence[tuple[Problem, str]], answers: Sequence[str | None], verified: Sequence[Verified]
) -> list[bool]:
    """Judge again with the form ignored, where that gives another answer; a program is not run again."""
    found = [verdict.verdict is Verdict.RIGHT for verdict in verified]
    again = [
        number
        for number, ((problem, text), answer) in enumerate(zip(texts, answers, strict=True))
        if not problem.tests
        and problem.verifier not in ("instructions", "judge")
        and VERIFIERS[problem.verifier].loosely(text) != answer
    ]
    for number, verdict in zip(again, verify_all([texts[number] for number in again], lenient=True), strict=True):
        found[number] = verdict.verdict is Verdict.RIGHT
    return found


def _row(problem: Problem, output: Answered, answer: str | None, verified: Verified, lenient: bool) -> Row:
    parts = split_completion(output.text)
    behaviour = measure(problem, output.text)
    row: Row = {
        "verdict": verified.verdict.value,
        "extracted": answer if problem.verifier not in ("instructions", "code") else None,
        "why": verified.why,
        "credit": verified.credit,
        "lenient": lenient,
        "num_tokens": output.num_tokens,
        "finished_tokens": None if output.truncated else output.num_tokens,
        "truncated": output.truncated,
        "format": parts.readable or (problem.extract == "summary" and parts.direct),
        "summary": has_summary(output.text),
        "language": language_consistency(parts.think, problem.language),
        "tries": behaviour.tries,
        "reflects": behaviour.reflects,
        "verifies": behaviour.verifies,
        "repeats": behaviour.repetition,
        "loops": behaviour.loops,
        "longest_paragraph": behaviour.longest_paragraph,
        "has_code": behaviour.code_blocks > 0,
        "sums": behaviour.sums,
        "slips": behaviour.slips,
    }
    if problem.verifier == "instructions" and verified.verdict is not Verdict.UNSCORABLE:
        kinds = followed(problem.answer, answer or "", problem.question)
        row["lenient"] = all(loose for _, _, loose in kinds)
        row["strict"] = float(np.mean([strict for _, strict, _ in kinds]))
        row["loose"] = float(np.mean([loose for _, _, loose in kinds]))
        row["instructions"] = len(kinds)
    return row


def consensus(problem: Problem, rows: Sequence[Row]) -> bool | None:
    """Say whether the answer that most outputs give is right (cons@k); None where answers cannot be compared.

    Answers are the same where they are equivalent, not where they are written alike. Of answers given equally often,
    the one given first counts. Outputs that are unscorable or without an answer do not vote; where none votes, the
    consensus is wrong.
    """
    verifier = VERIFIERS[problem.verifier]
    if verifier.key("1") is None or all(row["verdict"] == Verdict.UNSCORABLE for row in rows):
        return None
    votes: list[str] = []  # the key of each answer, in the order of the outputs
    texts: dict[str, str] = {}  # an answer of each key
    for row in rows:
        if row["extracted"] is None or row["verdict"] == Verdict.UNSCORABLE:
            continue
        # All right answers are equivalent to the reference, and so to one another.
        key = "right" if row["verdict"] == Verdict.RIGHT else f"wrong {verifier.key(row['extracted'])}"
        votes.append(key)
        texts.setdefault(key, row["extracted"])
    counts = Counter(votes)
    num_right = counts.pop("right", 0)
    if not num_right or num_right > sum(counts.values()):
        return num_right > 0
    if problem.verifier == "math":
        counts = _merged(problem, counts, texts)
    if max(counts.values()) != num_right:
        return num_right > max(counts.values())
    rivals = {key for key, count in counts.items() if count == num_right}
    return next(key for key in votes if key == "right" or key in rivals) == "right"


def _merged(problem: Problem, counts: Counter[str], texts: Mapping[str, str]) -> Counter[str]:
    """Add up the wrong answers that differ in writing alone, under the key that was given first."""
    merged: Counter[str] = Counter()
    for key, count in counts.items():
        others = list(merged)
        verdicts = verify_equal(problem, [(texts[other], texts[key]) for other in others])
        merged[next((other for other, same in zip(others, verdicts, strict=True) if same), key)] += count
    return merged


def verify_equal(problem: Problem, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Say of pairs of answers to a problem whether they are equivalent, by its verifier."""
    cases = [(replace(problem, answer=one), other) for one, other in pairs]
    return [found.verdict is Verdict.RIGHT for found in VERIFIERS[problem.verifier].judge_all(cases)]


@dataclass(slots=True)
class _Tally:
    """One problem: sums over its outputs, never the outputs."""

    id: str
    tags: Mapping[str, str]
    consensus: bool | None
    num_outputs: int
    num_scored: int
    num_right: int
    means: dict[str, float | None]
    within: list[int]  # right outputs within each budget of tokens
    sums: int
    slips: int
    instructions: int


@dataclass(slots=True)
class Scores:
    """Collects judged problems, one after the other; `figures` says what they come to."""

    budgets: Sequence[int] = ()
    _tallies: list[_Tally] = field(default_factory=list)

    def add(self, problem: Problem, rows: Sequence[Row], *, consensus: bool | None) -> None:
        """Take in a problem with what `judge` found in its outputs."""
        scored = [row for row in rows if row["verdict"] != Verdict.UNSCORABLE]
        right = [row for row in scored if row["verdict"] == Verdict.RIGHT]
        names = {**FIGURES, **INSTRUCTIONS}
        tally = _Tally(
            id=problem.id,
            tags=problem.tags,
            consensus=consensus,
            num_outputs=len(rows),
            num_scored=len(scored),
            num_right=len(right),
            means={name: _mean(row.get(key) for row in rows) for name, key in names.items()},
            within=[sum(row["num_tokens"] <= budget for row in right) for budget in self.budgets],
            sums=sum(row["sums"] for row in rows),
            slips=sum(row["slips"] for row in rows),
            instructions=max((row.get("instructions", 0) for row in rows), default=0),
        )
        self._tallies.append(tally)

    def figures(self) -> dict[str, Any]:
        """Return every figure with its 95% interval as NAME_ci95; refuse outputs of which none could be scored."""
        tallies = self._tallies
        if not any(tally.num_scored for tally in tallies):
            raise RunError("none of the outputs could be scored; verdicts.jsonl says why, one by one")
        samples = max(tally.num_outputs for tally in tallies)
        ks = _powers(samples)
        columns: dict[str, Sequence[float | None]] = {
            "pass_at_1": [_share(tally.num_right, tally.num_scored) for tally in tallies],
            "cons_at_k": [None if tally.consensus is None else float(tally.consensus) for tally in tallies],
            **{name: [tally.means[name] for tally in tallies] for name in (*FIGURES, *INSTRUCTIONS)},
            **{f"pass@{k}": [_pass(tally, k) for tally in tallies] for k in ks},
            **{
                f"within {budget}": [_share(tally.within[place], tally.num_scored) for tally in tallies]
                for place, budget in enumerate(self.budgets)
            },
        }
        # Of instructions the share is taken over all of them, as the official code does, not over prompts.
        weights = {name: [tally.instructions for tally in tallies] for name in INSTRUCTIONS}
        found = means_and_intervals(columns, weights=weights)
        right = np.array([value for value in columns["pass_at_1"] if value is not None])
        curve = [
            {"k": k, "pass_at_k": found.pop(f"pass@{k}"), "pass_at_k_ci95": found.pop(f"pass@{k}_ci95")} for k in ks
        ]
        sums = sum(tally.sums for tally in tallies)
        figures: dict[str, Any] = {
            "num_problems": len(tallies),
            "samples": samples,
            "num_outputs": sum(tally.num_outputs for tally in tallies),
            "num_unscorable": sum(tally.num_outputs - tally.num_scored for tally in tallies),
            "pass_at_1": found.pop("pass_at_1"),
            "pass_at_1_ci95": found.pop("pass_at_1_ci95"),
            "pass_at_1_standard_error": standard_error(right),
            "pass_at_k": curve[-1]["pass_at_k"],
            "pass_at_k_ci95": curve[-1]["pass_at_k_ci95"],
            "pass_at_k_curve": curve,
            "cons_at_k": found.pop("cons_at_k"),
            "cons_at_k_ci95": found.pop("cons_at_k_ci95"),
        }
        if not any(tally.instructions for tally in tallies):
            for name in INSTRUCTIONS:
                del found[name], found[f"{name}_ci95"]
        figures["budget_curve"] = [
            {
                "tokens": budget,
                "pass_at_1": found.pop(f"within {budget}"),
                "pass_at_1_ci95": found.pop(f"within {budget}_ci95"),
            }
            for budget in self.budgets
        ]
        return figures | found | {"slip_share": sum(tally.slips for tally in tallies) / sums if sums else None}

    def groups(self) -> dict[str, dict[str, Any]]:
        """Return pass@1 by each value of each tag: `{"level": {"3": {num_problems, pass_at_1, pass_at_1_ci95}}}`."""
        found: dict[str, dict[str, Any]] = {}
        tallies = self._tallies
        for tag in dict.fromkeys(tag for tally in tallies for tag in tally.tags):
            found[tag] = {}
            for value in sorted({tally.tags[tag] for tally in tallies if tag in tally.tags}):
                inside = [tally for tally in tallies if tally.tags.get(tag) == value]
                shares = [_share(tally.num_right, tally.num_scored) for tally in inside]
                found[tag][value] = {"num_problems": len(inside), **means_and_intervals({"pass_at_1": shares})}
        return found

    def problems(self) -> list[dict[str, Any]]:
        """Return one row a problem, in the order that they were added."""
        return [
            {
                "id": tally.id,
                "num_right": tally.num_right,
                "num_scored": tally.num_scored,
                "samples": tally.num_outputs,
                "consensus_right": tally.consensus,
                "completion_length_mean": tally.means["completion_length_mean"],
                "tags": dict(tally.tags),
            }
            for tally in self._tallies
        ]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _pass(tally: _Tally, k: int) -> float | None:
    """Return pass@k of a problem; None where fewer than k of its outputs were scored."""
    return pass_at_k(tally.num_scored, tally.num_right, k) if tally.num_scored >= k else None


def _powers(samples: int) -> list[int]:
    """Return 1, 2, 4, ... and the number of samples itself."""
    return sorted({1 << power for power in range(samples.bit_length())} | {samples})
