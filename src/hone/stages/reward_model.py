"""Reward models: which of two responses is better (helpfulness), or whether one is safe (harmlessness).

Every pair that was looked at is kept on disk with its scores and judgements and why it was left out, if it was. Pairs
are made in chunks, so that an interrupted stage asks its judge about none of them twice. A part of the prompts, by
their hash, is never trained on: accuracy is measured there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hone.config import RewardModelStage
from hone.engine.local.reward_model import (
    Comparison,
    RewardModel,
    RewardTrainer,
    load_states,
    pairwise_loss,
    pointwise_loss,
    save_with_states,
)
from hone.record.checkpoints import newest_checkpoint, save_checkpoint
from hone.record.files import append_row, keep_rows, write_atomically, write_folder, write_json
from hone.rewards.judge import Judge
from hone.stages.context import StageContext, cost, learning_rate
from hone.stages.rejection import ROWS
from hone.tasks.preferences import is_held_out, prompt_key, read_pairs
from hone.types import Floats, HoneError, Message, Verdict

PAIRS, RESPONSES = "pairs.parquet", "responses.parquet"
CHUNK = 64  # prompts
SAFE = 0.5  # the score from which a response is safe: a verifier's credit of 0 (below, it is unsafe)
_LOSSES = {"pairwise": pairwise_loss, "pointwise": pointwise_loss}
_SIDES = ("chosen", "rejected")

_PROMPT = [
    ("prompt_key", pa.string()),
    ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    ("language", pa.string()),
    ("held_out", pa.bool_()),
    ("dropped_by", pa.string()),  # same, long, unjudged, margin; empty where it was kept
]


def _response_fields(prefix: str) -> list[tuple[str, pa.DataType]]:
    return [
        (f"{prefix}response", pa.string()),
        (f"{prefix}score", pa.float32()),  # from 0 to 1; null where no judgement could be read
        (f"{prefix}problem_id", pa.string()),
        (f"{prefix}source", pa.string()),  # the rejection stage or the file
        (f"{prefix}policy", pa.string()),  # checksum of the weights that wrote it
        (f"{prefix}seed", pa.int64()),
    ]


_JUDGEMENT = pa.struct([("first", pa.string()), *((side, pa.float32()) for side in _SIDES)])
PAIRS_SCHEMA = pa.schema(
    [*_PROMPT, *(field for side in _SIDES for field in _response_fields(f"{side}_")),
     ("judgements", pa.list_(_JUDGEMENT))]
)  # fmt: skip
RESPONSES_SCHEMA = pa.schema([*_PROMPT, *_response_fields(""), ("safe", pa.bool_())])


def run(stage: RewardModelStage, context: StageContext) -> None:
    """Make the pairs or the labelled responses, train on those of most prompts, measure on those of the others."""
    model, trainer, first = _open(stage, context)
    rows = _rows(stage, context, model)
    train, held_out = _examples(rows, stage, model, held_out=False), _examples(rows, stage, model, held_out=True)
    steps_per_epoch = -(-len(train) // stage.batch_size)
    num_steps = steps_per_epoch * stage.epochs
    with context.progress(num_steps) as progress:
        for step in range(first, num_steps):
            started = time.perf_counter()
            epoch, index = divmod(step, steps_per_epoch)
            order = context.random("epoch", epoch).permutation(len(train))
            batch = [train[n].comparison for n in order[index * stage.batch_size : (index + 1) * stage.batch_size]]
            loss, scores = trainer.learn(batch, _LOSSES[stage.objective])
            rate = learning_rate(stage.optimizer, step, num_steps)
            norm = trainer.optim_step(rate)
            num_tokens = sum(len(ids) for comparison in batch for ids in comparison.sequences)
            seconds, done = time.perf_counter() - started, step + 1
            row = {
                "step": done, "loss": loss, "accuracy": float(_right(scores, batch).mean()), "policy/grad_norm": norm,
                "learning_rate": rate, "time/train_s": seconds, "throughput/train_tokens_per_s": num_tokens / seconds,
                **cost(model.num_parameters, trained=num_tokens),
            }  # fmt: skip
            append_row(context.folder / "metrics.jsonl", row)
            progress.update(done, loss=loss, accuracy=row["accuracy"])
            if done % stage.checkpoint_every == 0 or done == num_steps:
                save_checkpoint(context.resume, done, lambda folder: save_with_states(model, trainer, folder))
    _finish(stage, context, model, rows, train, held_out)


def _open(stage: RewardModelStage, context: StageContext) -> tuple[RewardModel, RewardTrainer, int]:
    """Return the model, its trainer and the step to go on from."""
    if stage.judge and stage.objective == "pointwise":
        raise HoneError(
            f"stage {stage.name}: a judge compares two responses; a pointwise model is trained on verdicts or a file"
        )
    step, folder, damaged = newest_checkpoint(context.resume)
    for line in damaged:
        context.console.print(line, style="yellow", highlight=False)
    keep_rows(context.folder / "metrics.jsonl", lambda row: bool(folder) and row["step"] <= step)
    model = RewardModel.begin(folder or context.models[stage.start_from], stage.reads)
    trainer = RewardTrainer(
        model.model,
        weight_decay=stage.optimizer.weight_decay,
        max_grad_norm=stage.optimizer.max_grad_norm,
        micro_batch_tokens=stage.optimizer.micro_batch_tokens,
    )
    if folder:
        load_states(trainer, folder)
    return model, trainer, step


def _finish(
    stage: RewardModelStage, context: StageContext, model: RewardModel, rows: Sequence[dict[str, Any]],
    train: Sequence[Example], held_out: Sequence[Example],
) -> None:  # fmt: skip
    """Measure, store the model with the mean of its scores, and say how good it is."""
    scores, held_out_scores = _scores(model, train), _scores(model, held_out)
    if stage.objective == "pairwise":
        sequences = [ids.tobytes() for example in train for ids in example.comparison.sequences]
        model.mean = float(np.mean(list(dict(zip(sequences, scores.ravel().tolist(), strict=True)).values())))
    write_folder(context.checkpoint, model.save)
    accuracy, interval = accuracy_of(held_out_scores, held_out)
    dropped = Counter(row["dropped_by"] for row in rows)
    what = "pairs" if stage.objective == "pairwise" else "responses"
    write_json(
        context.folder / "results.json",
        {
            "objective": stage.objective,
            "reads": stage.reads,
            "accuracy_held_out": accuracy,
            "accuracy_held_out_ci95": interval,
            "accuracy_train": accuracy_of(scores, train)[0],
            f"num_{what}": len(train) + len(held_out),
            "num_held_out": len(held_out),
            "num_prompts_held_out": len({example.prompt for example in held_out}),
            **{f"num_dropped_by_{why}": dropped[why] for why in ("margin", "unjudged", "same", "long")},
            "score_mean": model.mean,
        },
    )
    context.console.print(
        f"{context.name}  right on {accuracy:.3f} [{interval[0]:.3f}, {interval[1]:.3f}] of {len(held_out)} held-out "
        f"{what}; trained on {len(train)}",
        highlight=False,
    )


# --- what is learned from, and how well ---


class Example(NamedTuple):
    """What is trained on or measured by, and the prompt that it belongs to."""

    comparison: Comparison
    prompt: str


def _examples(
    rows: Sequence[dict[str, Any]], stage: RewardModelStage, model: RewardModel, *, held_out: bool
) -> list[Example]:
    """Return what was kept, of the prompts to train on or of those held out; refuse none, or one class alone."""
    kept = [row for row in rows if not row["dropped_by"] and row["held_out"] == held_out]
    where = "held out" if held_out else "to train on"
    if not kept:
        raise HoneError(f"stage {stage.name}: no {_WHAT[stage.objective]} {where}; {_why_none(rows, stage)}")
    prefixes = [f"{side}_" for side in _SIDES] if stage.objective == "pairwise" else [""]
    labels = [row["safe"] if stage.objective == "pointwise" else True for row in kept]
    if stage.objective == "pointwise" and len(set(labels)) == 1:
        only = "safe" if labels[0] else "unsafe"
        raise HoneError(
            f"stage {stage.name}: all {len(kept)} responses {where} are {only}; a pointwise model needs both classes"
        )
    counts = Counter(labels)
    return [
        Example(
            Comparison(
                sequences=tuple(
                    model.encode(_messages(row), row[f"{prefix}response"], stage.template) for prefix in prefixes
                ),
                label=float(label),
                weight=len(kept) / (len(counts) * counts[label]),  # the classes weigh the same together
            ),
            row["prompt_key"],
        )
        for row, label in zip(kept, labels, strict=True)
    ]


_WHAT = {"pairwise": "pairs", "pointwise": "responses"}


def _why_none(rows: Sequence[dict[str, Any]], stage: RewardModelStage) -> str:
    kept = sum(not row["dropped_by"] for row in rows)
    if kept:
        return f"the {kept} that there are have too few prompts for held_out_share = {stage.held_out_share:g}"
    whys = Counter(row["dropped_by"] for row in rows).most_common()
    reasons = {
        "margin": f"scores that differ by no more than margin = {stage.margin:g}", "same": "the same text twice",
        "long": "longer than the model's positions", "unjudged": "no judgement that could be read",
    }  # fmt: skip
    found = ", ".join(f"{count} with {reasons[why]}" for why, count in whys)
    return f"of {len(rows)} none is left: {found}" if rows else "no prompt has two different responses"


def _scores(model: RewardModel, examples: Sequence[Example]) -> Floats:
    """Return the scores [N, K] of the examples' sequences."""
    sequences = [ids for example in examples for ids in example.comparison.sequences]
    return model.score(sequences).reshape(len(examples), -1)


def _right(scores: Floats, comparisons: Sequence[Comparison]) -> Floats:
    """Say of each comparison [N] whether it is decided rightly: 1, 0, or 0.5 for a tie."""
    if scores.shape[1] == 2:
        ahead = scores[:, 0] - scores[:, 1]
    else:
        ahead = scores[:, 0] * np.array([2 * comparison.label - 1 for comparison in comparisons], np.float32)
    return (1 + np.sign(ahead)) / 2


def accuracy_of(scores: Floats, examples: Sequence[Example]) -> tuple[float, list[float]]:
    """Return the accuracy and its 95% interval: the mean over prompts, the classes counting the same.

    Comparisons of one prompt are not independent, so the standard error is that over prompts.
    """
    right = _right(scores, [example.comparison for example in examples])
    classes: dict[float, dict[str, list[float]]] = {}
    for value, example in zip(right.tolist(), examples, strict=True):
        classes.setdefault(example.comparison.label, {}).setdefault(example.prompt, []).append(value)
    prompts = [[float(np.mean(values)) for values in by_prompt.values()] for by_prompt in classes.values()]
    mean = float(np.mean([np.mean(values) for values in prompts]))
    variance = sum(np.var(values, ddof=1) / len(values) for values in prompts if len(values) > 1)
    error = 1.96 * float(np.sqrt(variance)) / len(prompts)
    return mean, [max(0.0, mean - error), min(1.0, mean + error)]


# --- where responses come from ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response with its score, from 0 to 1, and what it came from."""

    text: str
    score: float
    problem_id: str
    source: str
    policy: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A prompt with its responses, and which of them may be compared, by their numbers."""

    messages: tuple[Message, ...]
    language: str
    responses: tuple[Response, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def key(self) -> str:
        return prompt_key(self.messages)


def _rows(stage: RewardModelStage, context: StageContext, model: RewardModel) -> list[dict[str, Any]]:
    """Return every pair, or every response, that was looked at; what an earlier attempt made is read, not made anew."""
    file = context.folder / (PAIRS if stage.objective == "pairwise" else RESPONSES)
    if not file.is_file():
        asked = _asked_of_file(stage.data.path) if stage.data.path else _asked_of_stages(stage.data.stages, context)
        if stage.objective == "pairwise":
            table = _make_pairs(asked, stage, context, model)
        else:
            rows = [row for one in asked for row in _labelled(one, stage, model)]
            table = pa.Table.from_pylist(rows, RESPONSES_SCHEMA)
        write_atomically(file, lambda temporary: pq.write_table(table, temporary))
    return pq.read_table(file).to_pylist()  # type: ignore[no-any-return]


def _asked_of_stages(names: Sequence[str], context: StageContext) -> list[Asked]:
    """Return the distinct outputs of rejection stages, kept or not, by prompt; what no verdict was found of is none.

    A verifier's credit runs from -1 (unsafe) to 1, a score from 0 to 1.
    """
    prompts: dict[str, dict[str, Response]] = {}
    languages: dict[str, str] = {}
    for name in names:
        for row in pq.read_table(context.folder.parent / name / ROWS).to_pylist():
            if row["verdict"] == Verdict.UNSCORABLE:
                continue
            response = Response(
                text=row["completion"], score=(row["credit"] + 1) / 2, problem_id=row["problem_id"], source=name,
                policy=row["policy"], seed=row["seed"],
            )  # fmt: skip
            prompts.setdefault(row["prompt"], {}).setdefault(response.text, response)
            languages.setdefault(row["prompt"], row["language"])
    return [
        Asked(
            messages=(Message(role="user", content=prompt),),
            language=languages[prompt],
            responses=tuple(found.values()),
            pairs=tuple((a, b) for b in range(len(found)) for a in range(b)),
        )
        for prompt, found in prompts.items()
    ]


def _asked_of_file(path: str) -> list[Asked]:
    """Return the pairs of a file by prompt: the chosen response has score 1, the other one 0."""
    prompts: dict[str, list[Response]] = {}
    of_prompt = {}
    for pair in read_pairs(path):
        key = prompt_key(pair.prompt)
        of_prompt.setdefault(key, pair)
        prompts.setdefault(key, []).extend(
            Response(text=text, score=score, problem_id=pair.id, source=path)
            for text, score in ((pair.chosen, 1.0), (pair.rejected, 0.0))
        )
    return [
        Asked(
            messages=of_prompt[key].prompt,
            language=of_prompt[key].language,
            responses=tuple(responses),
            pairs=tuple((n, n + 1) for n in range(0, len(responses), 2)),
        )
        for key, responses in prompts.items()
    ]


# --- pairs ---


class Judgement(NamedTuple):
    """One judgement of two responses: which of them the judge saw first, and its scores in their own order."""

    first: int
    scores: tuple[float, float] | None


class Candidate(NamedTuple):
    """Two responses to one prompt that may become a pair, and what speaks against it, if anything does."""

    asked: Asked
    responses: tuple[Response, Response]
    dropped_by: str


def _make_pairs(
    asked: Sequence[Asked], stage: RewardModelStage, context: StageContext, model: RewardModel
) -> pa.Table:
    from hone.stages.judge import open_judge

    judge = open_judge(stage.judge, context) if stage.judge else None
    parts = []
    for start in range(0, len(asked), CHUNK):
        part = context.folder / "parts" / f"{start:08d}.parquet"
        if not part.is_file():
            candidates = [
                candidate
                for one in asked[start : start + CHUNK]
                for candidate in _candidates(one, stage, context, model)
            ]
            table = pa.Table.from_pylist(_judged(candidates, judge, stage, context, model, start), PAIRS_SCHEMA)
            write_atomically(part, lambda temporary, table=table: pq.write_table(table, temporary))  # type: ignore[misc]
        parts.append(pq.read_table(part))
    return pa.concat_tables(parts) if parts else PAIRS_SCHEMA.empty_table()


def _candidates(
    asked: Asked, stage: RewardModelStage, context: StageContext, model: RewardModel
) -> Iterator[Candidate]:
    """Yield a prompt's pairs at random, until enough of them can be used; with a judge, enough that it is asked of."""
    wanted = stage.pairs_per_problem
    for number in context.random("pairs", asked.key).permutation(len(asked.pairs)):
        first, second = (asked.responses[n] for n in asked.pairs[number])
        why = _unfit(asked, (first, second), stage, model)
        if not why and stage.judge is None and abs(first.score - second.score) <= stage.margin:
            why = "margin"
        yield Candidate(asked, (first, second), why)
        wanted -= not why
        if not wanted:
            return


def _unfit(asked: Asked, responses: Sequence[Response], stage: RewardModelStage, model: RewardModel) -> str:
    """Return why the model cannot learn from responses, as one word; empty where it can."""
    texts = [response.text for response in responses]
    if len({model.read(text) for text in texts}) < len(texts):
        return "same"
    longest = max(len(model.encode(asked.messages, text, stage.template)) for text in texts)
    return "long" if longest > model.max_tokens else ""


def _judged(
    candidates: Sequence[Candidate], judge: Judge | None, stage: RewardModelStage, context: StageContext,
    model: RewardModel, chunk: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the rows of candidates, each judged several times with its sides swapped at random, if there is a judge."""
    if judge is None:
        return [_pair_row(candidate, [], stage) for candidate in candidates]
    firsts = context.random("sides", chunk).integers(2, size=(len(candidates), stage.judgements)).tolist()
    cases = []
    for candidate, first_of in zip(candidates, firsts, strict=True):
        if not candidate.dropped_by:
            texts = [model.read(response.text) for response in candidate.responses]
            cases += [(_question(candidate.asked), texts[first], texts[1 - first]) for first in first_of]
    replies = iter(judge.compare(cases))
    return [
        _pair_row(
            candidate,
            [] if candidate.dropped_by else [_in_own_order(first, next(replies)) for first in first_of],
            stage,
        )
        for candidate, first_of in zip(candidates, firsts, strict=True)
    ]


def _in_own_order(first: int, scores: tuple[float, float] | None) -> Judgement:
    return Judgement(first, scores[::-1] if scores and first else scores)  # type: ignore[arg-type]


def _pair_row(candidate: Candidate, judgements: Sequence[Judgement], stage: RewardModelStage) -> dict[str, Any]:
    """Return a row whose `chosen` has the higher score: the mean of the judgements, or without any its own."""
    read = [judgement.scores for judgement in judgements if judgement.scores]
    scores: list[float | None] = [response.score for response in candidate.responses]
    why = candidate.dropped_by
    order = (0, 1) if candidate.responses[0].score >= candidate.responses[1].score else (1, 0)
    if judgements and not read:
        scores, why = [None, None], "unjudged"
    elif judgements:
        means = np.mean(read, axis=0).tolist()
        order = (0, 1) if means[0] >= means[1] else (1, 0)
        scores, why = means, "margin" if abs(means[0] - means[1]) <= stage.margin else ""
    row = _prompt_row(candidate.asked, stage, why)
    for side, number in zip(_SIDES, order, strict=True):
        row |= _response_row(candidate.responses[number], scores[number], f"{side}_")
    row["judgements"] = [
        {
            "first": _SIDES[order.index(judgement.first)],
            **{side: judgement.scores and judgement.scores[n] for side, n in zip(_SIDES, order, strict=True)},
        }
        for judgement in judgements
    ]
    return row


# --- single responses ---


def _labelled(asked: Asked, stage: RewardModelStage, model: RewardModel) -> Iterator[dict[str, Any]]:
    """Yield a row for each response, labelled safe or not; the same text again is left out."""
    seen: set[str] = set()
    for response in asked.responses:
        text = model.read(response.text)
        why = "same" if text in seen else _unfit(asked, [response], stage, model)
        seen.add(text)
        row = _prompt_row(asked, stage, why) | _response_row(response, response.score, "")
        yield row | {"safe": response.score >= SAFE}


def _prompt_row(asked: Asked, stage: RewardModelStage, dropped_by: str) -> dict[str, Any]:
    return {
        "prompt_key": asked.key,
        "messages": [{"role": message.role, "content": message.content} for message in asked.messages],
        "language": asked.language,
        "held_out": is_held_out(asked.key, stage.held_out_share),
        "dropped_by": dropped_by,
    }


def _response_row(response: Response, score: float | None, prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}response": response.text,
        f"{prefix}score": score,
        f"{prefix}problem_id": response.problem_id,
        f"{prefix}source": response.source,
        f"{prefix}policy": response.policy,
        f"{prefix}seed": response.seed,
    }


def _messages(row: dict[str, Any]) -> list[Message]:
    return [Message(**message) for message in row["messages"]]


def _question(asked: Asked) -> str:
    """Return what a judge is shown of a prompt: a single question as it is, a conversation turn by turn."""
    if len(asked.messages) == 1:
        return asked.messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in asked.messages)
