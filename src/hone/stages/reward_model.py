"""Reward models: which of two responses is better (helpfulness), or whether one is safe (harmlessness).

A part of the prompts, by their hash, is never trained on: accuracy is measured there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

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
from hone.record.files import append_row, keep_rows, write_folder, write_json
from hone.stages.context import StageContext, cost, learning_rate
from hone.stages.pairs import SIDES, find_rows
from hone.types import Floats, HoneError, Message

_WHAT = {"pairwise": "pairs", "pointwise": "responses"}
_LOSSES = {"pairwise": pairwise_loss, "pointwise": pointwise_loss}


def run(stage: RewardModelStage, context: StageContext) -> None:
    """Make the pairs or the labelled responses, train on those of most prompts, measure on those of the others."""
    model, trainer, first = _open(stage, context)
    rows = find_rows(stage, context, model)
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
    what = _WHAT[stage.objective]
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
    prefixes = [f"{side}_" for side in SIDES] if stage.objective == "pairwise" else [""]
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
                    model.encode(
                        [Message(**message) for message in row["messages"]], row[f"{prefix}response"], stage.template
                    )
                    for prefix in prefixes
                ),
                label=float(label),
                weight=len(kept) / (len(counts) * counts[label]),  # the classes weigh the same together
            ),
            row["prompt_key"],
        )
        for row, label in zip(kept, labels, strict=True)
    ]


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
    right: Floats = (1 + np.sign(ahead)) / 2
    return right


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
