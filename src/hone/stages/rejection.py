"""Rejection sampling: what a model gets right and writes well becomes supervised data (DeepSeek-R1, section 2.3.3).

Every output is kept on disk with what was found of it, whether it was taken or not, and from which weights and seed it
came. Problems go in chunks, so that an interrupted stage goes on after the last whole one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hone.config import Filters, RejectionStage
from hone.engine.local.engine import LocalEngine
from hone.record.files import write_atomically, write_json
from hone.rewards.behaviour import measure
from hone.rewards.format import split_completion
from hone.rewards.language import language_consistency
from hone.stages.context import StageContext
from hone.stages.evaluate import check_scorable, sample_and_score
from hone.stages.problems import find_problems
from hone.types import Problem, Rollout, Score, ScoredGroup, Verdict

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
        ("rejected_by", pa.string()),  # the first filter that it fails; empty where it was kept
        ("right_share", pa.float32()),  # of the problem's outputs: how hard it is for the model
        ("policy", pa.string()),  # checksum of the weights
        ("seed", pa.int64()),
    ]
)


def run(stage: RejectionStage, context: StageContext) -> None:
    """Sample every problem several times; write all outputs, why each was kept or not, and how many were."""
    problems = find_problems(stage.problems)
    engine = LocalEngine.open(context.models[stage.start_from])
    parts: list[pa.Table] = []
    num_kept = 0
    with context.progress(len(problems)) as progress:
        for start in range(0, len(problems), CHUNK):
            part = context.folder / "parts" / f"{start:08d}.parquet"
            if not part.is_file():
                _sample_chunk(engine, problems[start : start + CHUNK], stage, context, part)
            parts.append(pq.read_table(part))
            num_kept += parts[-1]["rejected_by"].to_pylist().count("")
            progress.update(min(start + CHUNK, len(problems)), kept=num_kept)
    table = pa.concat_tables(parts)
    funnel = Counter(table["rejected_by"].to_pylist())
    whys = table.filter(pa.compute.equal(table["verdict"], Verdict.UNSCORABLE.value))["why"].to_pylist()
    check_scorable(whys, len(table), stage.max_unscorable_share, f"stage {stage.name}")
    write_atomically(context.folder / ROWS, lambda temporary: pq.write_table(table, temporary))
    kept = table.filter(pa.compute.equal(table["rejected_by"], ""))
    covered = len(set(kept["problem_id"].to_pylist()))
    write_json(
        context.folder / "funnel.json",
        {"outputs": len(table), "kept": funnel.pop("", 0), "problems": len(problems), "problems_kept": covered,
         "rejected_by": dict(funnel.most_common())},
    )  # fmt: skip
    context.console.print(
        f"{context.name}  {len(kept)} of {len(table)} outputs kept, on {covered} of {len(problems)} problems; "
        f"rejected: {', '.join(f'{name} {count}' for name, count in funnel.most_common())}",
        highlight=False,
    )


def kept_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows that a rejection stage kept."""
    table = pq.read_table(file)
    return table.filter(pa.compute.equal(table["rejected_by"], "")).to_pylist()  # type: ignore[no-any-return]


def rejected_by(problem: Problem, rollout: Rollout, score: Score, filters: Filters) -> str:
    """Return the first thing that speaks against an output, as one word; empty where nothing does."""
    parts, behaviour = split_completion(rollout.text), measure(problem, rollout.text)
    language = language_consistency(parts.think, problem.language)
    found = {
        "unscorable": score.verdict is Verdict.UNSCORABLE,
        "wrong": score.verdict is Verdict.WRONG,
        "cut": rollout.finish_reason == "length",
        "format": not {"strict": parts.well_formed, "tolerant": parts.readable, "any": True}[filters.format],
        "language": language is None or language < filters.min_language,
        "repetition": behaviour.repetition > filters.max_repetition,
        "loop": behaviour.loops,
        "paragraph": behaviour.longest_paragraph > filters.max_paragraph,
        "code": behaviour.code_blocks > 0 and not filters.code_blocks,
    }
    return next((name for name, holds in found.items() if holds), "")


def _sample_chunk(
    engine: LocalEngine, problems: Sequence[Problem], stage: RejectionStage, context: StageContext, part: Path
) -> None:
    seed = context.draw_seed("sample", part.stem)
    groups = sample_and_score(
        engine, problems, stage.sampling, template=stage.template, samples=stage.samples, seed=seed
    )
    policy = engine.publish()
    rows = [row for group in groups for row in _judge_group(group, stage)]
    table = pa.Table.from_pylist([{**row, "policy": policy, "seed": seed} for row in rows], SCHEMA)
    write_atomically(part, lambda temporary: pq.write_table(table, temporary))


def _judge_group(group: ScoredGroup, stage: RejectionStage) -> list[dict[str, Any]]:
    """Judge the outputs of a problem, in the order in which they were drawn; the same text again is a duplicate."""
    kept: set[str] = set()
    rows = []
    for sample, (rollout, score) in enumerate(zip(group.rollouts, group.scores, strict=True)):
        reason = rejected_by(group.problem, rollout, score, stage.filters)
        if not reason and rollout.text in kept:
            reason = "duplicate"
        elif not reason and len(kept) == stage.keep:
            reason = "enough"
        elif not reason:
            kept.add(rollout.text)
        rows.append(
            {
                "problem_id": group.problem.id,
                "language": group.problem.language,
                "prompt": group.problem.messages[-1].content,
                "completion": rollout.text,
                "sample": sample,
                "num_tokens": len(rollout.completion_ids),
                "verdict": str(score.verdict),
                "why": score.why,
                "rejected_by": reason,
                "right_share": sum(one.verdict is Verdict.RIGHT for one in group.scores) / len(group.scores),
            }
        )
    return rows
