"""Rejection sampling: what a model gets right and writes well becomes supervised data (DeepSeek-R1, section 2.3.3).

Every output is kept on disk with what was found of it, whether it was taken or not, and from which weights and seed it
came. Problems go in chunks, so that an interrupted stage goes on after the last whole one. Problems that are left with
too few outputs are asked again in further rounds, so that hard ones get their share (DART-Math, Tong et al. 2024).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hone.config import Filters, RejectionStage
from hone.engine.local.engine import LocalEngine
from hone.engine.opening import open_engine
from hone.record.files import write_atomically, write_json
from hone.rewards.behaviour import measure
from hone.rewards.format import split_completion
from hone.rewards.language import language_consistency
from hone.stages.context import StageContext, cost
from hone.stages.evaluate import check_scorable, sample_groups, score_groups
from hone.stages.judge import install
from hone.stages.problems import find_problems
from hone.types import Language, Problem, RewardRule, Rollout, Score, ScoredGroup, Verdict

ROWS = "rows.parquet"
CHUNK = 64  # problems
SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("language", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("sample", pa.int32()),
        ("num_tokens", pa.int32()),
        ("verdict", pa.string()),
        ("why", pa.string()),
        ("credit", pa.float32()),  # the verifier's: the share that is right; below zero where it is unsafe
        ("edited", pa.bool_()),  # a summary was put before the answer
        ("rejected_by", pa.string()),  # the first filter that it fails; empty where it was kept
        ("policy", pa.string()),  # checksum of the weights
        ("seed", pa.int64()),
    ]
)


def run(stage: RejectionStage, context: StageContext) -> None:
    """Sample every problem several times; write all outputs, why each was kept or not, and how many were."""
    install(stage.judge, context)
    problems = find_problems(stage.problems)
    engine = open_engine(context.models[stage.start_from])
    kept: dict[str, set[str]] = defaultdict(set)  # the completions kept of each problem
    parts: list[pa.Table] = []
    with context.progress(len(problems) * stage.rounds) as progress:
        for number in range(stage.rounds):
            wanting = [problem for problem in problems if len(kept[problem.id]) < stage.keep]
            for start in range(0, len(wanting), CHUNK):
                part = context.folder / "parts" / f"{number:02d}-{start:08d}.parquet"
                if not part.is_file():
                    _sample_chunk(engine, wanting[start : start + CHUNK], kept, stage, context, part)
                parts.append(pq.read_table(part))
                for row in _taken(parts[-1]):
                    kept[row["problem_id"]].add(row["completion"])
                done = number * len(problems) + min(start + CHUNK, len(wanting))
                progress.update(done, kept=sum(map(len, kept.values())))
        progress.update(progress.total, kept=sum(map(len, kept.values())))
    table = _with_right_share(pa.concat_tables(parts))
    whys = table.filter(pa.compute.equal(table["verdict"], Verdict.UNSCORABLE.value))["why"].to_pylist()
    check_scorable(whys, len(table), stage.max_unscorable_share, f"stage {stage.name}")
    write_atomically(context.folder / ROWS, lambda temporary: pq.write_table(table, temporary))
    _write_funnel(table, len(problems), engine, context)


def _write_funnel(table: pa.Table, num_problems: int, engine: LocalEngine, context: StageContext) -> None:
    """Write how many outputs each filter took, and what sampling them cost."""
    funnel = Counter(table["rejected_by"].to_pylist())
    num_kept = funnel.pop("", 0)
    covered = len({row["problem_id"] for row in _taken(table)})
    write_json(
        context.folder / "funnel.json",
        {"outputs": len(table), "kept": num_kept, "problems": num_problems, "problems_kept": covered,
         "rejected_by": dict(funnel.most_common()),
         **cost(engine.num_parameters, sampled=sum(table["num_tokens"].to_pylist()))},
    )  # fmt: skip
    context.console.print(
        f"{context.name}  {num_kept} of {len(table)} outputs kept, on {covered} of {num_problems} problems; "
        f"rejected: {', '.join(f'{name} {count}' for name, count in funnel.most_common())}",
        highlight=False,
    )


def _taken(table: pa.Table) -> list[dict[str, Any]]:
    return table.filter(pa.compute.equal(table["rejected_by"], "")).to_pylist()  # type: ignore[no-any-return]


def _with_right_share(table: pa.Table) -> pa.Table:
    """Add the share of a problem's outputs that are right: how hard it is for the model."""
    right: dict[str, list[bool]] = defaultdict(list)
    names = table["problem_id"].to_pylist()
    for name, verdict in zip(names, table["verdict"].to_pylist(), strict=True):
        right[name].append(verdict == Verdict.RIGHT)
    shares = pa.array([sum(right[name]) / len(right[name]) for name in names], pa.float32())
    return table.append_column("right_share", shares)


def kept_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows that a rejection stage kept."""
    return _taken(pq.read_table(file))


def rejected_by(problem: Problem, rollout: Rollout, score: Score, filters: Filters) -> str:
    """Return the first thing that speaks against an output, as one word; empty where nothing does."""
    parts, behaviour = split_completion(rollout.text), measure(problem, rollout.text)
    language = language_consistency(parts.think, problem.language)
    found = {
        "unscorable": score.verdict is Verdict.UNSCORABLE,
        "wrong": score.verdict is Verdict.WRONG,
        "cut": rollout.finish_reason == "length",
        "format": not parts.has_form(filters.format),
        "language": language is not None and language < filters.min_language,
        "repetition": behaviour.repetition > filters.max_repetition,
        "loop": behaviour.loops,
        "paragraph": behaviour.longest_paragraph > filters.max_paragraph,
        "code": behaviour.code_blocks > 0 and not filters.code_blocks,
    }
    return next((name for name, holds in found.items() if holds), "")


def add_summary(text: str, sentences: Mapping[Language, str], language: Language) -> str:
    """Put a sentence for the reader before an answer that has nothing but its thinking before it."""
    parts = split_completion(text)
    if language not in sentences or not parts.readable or parts.answer is None or parts.summary != parts.answer:
        return text
    before, tag, after = text.rpartition("<answer>")
    return f"{before.rstrip()} {sentences[language]} {tag}{after}"


def _sample_chunk(
    engine: LocalEngine, problems: Sequence[Problem], kept: Mapping[str, set[str]], stage: RejectionStage,
    context: StageContext, part: Path,
) -> None:  # fmt: skip
    seed = context.draw_seed("sample", part.stem)
    groups = sample_groups(
        engine, problems, stage.sampling,
        template=stage.template, samples=stage.samples, seed=seed, shots=stage.shots,
    )  # fmt: skip
    policy = engine.publish()
    rows = [
        row
        for group in score_groups(groups, RewardRule())
        for row in _judge_group(group, kept.get(group.problem.id, set()), stage)
    ]
    table = pa.Table.from_pylist([{**row, "policy": policy, "seed": seed} for row in rows], SCHEMA)
    write_atomically(part, lambda temporary: pq.write_table(table, temporary))


def _judge_group(group: ScoredGroup, before: Set[str], stage: RejectionStage) -> list[dict[str, Any]]:
    """Judge the outputs of a problem, in the order in which they were drawn; the same text again is a duplicate.

    `before` holds what earlier rounds kept of the problem.
    """
    kept = set(before)
    rows = []
    for sample, (rollout, score) in enumerate(zip(group.rollouts, group.scores, strict=True)):
        reason = rejected_by(group.problem, rollout, score, stage.filters)
        text = rollout.text if reason else add_summary(rollout.text, stage.summary, group.problem.language)
        if not reason and text in kept:
            reason = "duplicate"
        elif not reason and len(kept) == stage.keep:
            reason = "enough"
        elif not reason:
            kept.add(text)
        rows.append(
            {
                "problem_id": group.problem.id,
                "language": group.problem.language,
                "prompt": group.problem.messages[-1].content,
                "completion": text,
                "sample": sample,
                "num_tokens": len(rollout.completion_ids),
                "verdict": str(score.verdict),
                "why": score.why,
                "credit": score.credit,
                "edited": text != rollout.text,
                "rejected_by": reason,
            }
        )
    return rows
