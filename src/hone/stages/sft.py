"""Supervised fine-tuning: maximise the likelihood of given completions. From nothing but a shape: pretraining.

Distillation is the same loop. DeepSeek-R1's students learn the teacher's outputs and are otherwise like any supervised
model; for comparison a student learns the teacher's whole distribution, on those outputs (`logits`) or on outputs of
its own (`on-policy`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from hone.algo.packing import pack
from hone.config import Corpus, Rows, SftStage, Traces
from hone.engine.base import Engine, TokenBatch
from hone.engine.local.engine import LocalEngine
from hone.engine.local.trainer import Trainer
from hone.engine.opening import open_engine
from hone.models.decoder import Decoder, DecoderConfig
from hone.models.tiny import tiny_tokenizer
from hone.models.tokenizer import Tokenizer
from hone.record.files import append_row
from hone.stages.context import StageContext, cost, learning_rate
from hone.stages.evaluate import HeldOut
from hone.stages.rejection import ROWS, kept_rows
from hone.tasks.corpus import pages
from hone.tasks.rows import read_rows
from hone.tasks.words import traces
from hone.types import Example, HoneError, Message, PackedBatch, Prompt, Sample


def run(stage: SftStage, context: StageContext) -> None:
    """Train over the data, epoch by epoch; write the model, its metrics and its held-out evaluations."""
    engine, first = context.open(stage, lambda trainer: _start(stage, context, trainer))
    if stage.teacher:
        engine.keep_teacher(context.models[stage.teacher])
    examples = _Examples(stage, context)
    num_steps = examples.steps_per_epoch * stage.epochs
    held_out = HeldOut(stage.evaluation, stage.sampling, stage.template, context, num_steps)
    with context.progress(num_steps) as progress:
        for step in range(first, num_steps):
            started = time.perf_counter()
            samples = [to_sample(row, engine.tokenizer, stage.template) for row in examples.of_step(step)]
            if stage.objective == "on-policy":
                samples = _own(samples, engine, stage, context.draw_seed("own", step))
            num_tokens = sum(len(sample.completion_ids) for sample in samples)
            batch = pack(
                samples, [1 / num_tokens] * len(samples), micro_batch_tokens=stage.optimizer.micro_batch_tokens
            )
            figures = _backward(engine, batch, stage)
            rate = learning_rate(stage.optimizer, step, num_steps)
            norm = engine.optim_step(rate)
            if stage.objective == "on-policy":
                engine.publish()
            speed = batch.num_tokens / (seconds := time.perf_counter() - started)
            done = step + 1
            times = {"time/train_s": seconds, "throughput/train_tokens_per_s": speed}
            spent = {**_costs(engine, batch, len(samples), stage), **times}
            row = {"step": done, **figures, "policy/grad_norm": norm, "learning_rate": rate, **spent}
            append_row(context.folder / "metrics.jsonl", row)
            progress.update(done, loss=figures["loss"], tokens_per_s=speed)
            held_out.after(done, engine)
            if done % stage.checkpoint_every == 0 or done == num_steps:
                context.save_resume(engine, done)
    context.save_model(engine)


def _own(samples: Sequence[Sample], engine: Engine, stage: SftStage, seed: int) -> list[Sample]:
    """Put an output of the model itself in the place of each completion."""
    prompts = [Prompt(ids=sample.prompt_ids.tolist()) for sample in samples]
    return [
        Sample(prompt_ids=rollout.prompt_ids, completion_ids=rollout.completion_ids, advantage=1.0)
        for (rollout,) in engine.sample(prompts, stage.sampling.params(), seed=seed)
    ]


def _backward(engine: Engine, batch: PackedBatch, stage: SftStage) -> dict[str, float]:
    """Add the gradients of the stage's objective: of the tokens, or of a divergence from the teacher.

    The states that the student visits are given, as in GKD (Agarwal et al. 2024): no gradient goes through the drawing.
    """
    if stage.objective == "sft":
        return engine.forward_backward(batch, negative_log_likelihood)
    return engine.distill_backward(batch, "forward" if stage.objective == "logits" else "reverse")


def _costs(engine: LocalEngine, batch: PackedBatch, num_samples: int, stage: SftStage) -> dict[str, float]:
    """Return what a step cost, the teacher's reading included, and the length of the model's own outputs."""
    own = stage.objective == "on-policy"
    sampled = batch.num_loss_tokens if own else 0
    spent = cost(engine.num_parameters, trained=batch.num_tokens, sampled=sampled, num_frozen=engine.num_frozen)
    spent["compute/tflop"] += cost(engine.num_teacher_parameters, read=batch.num_tokens)["compute/tflop"]
    return {"completion/length_mean": batch.num_loss_tokens / num_samples, **spent} if own else spent


def negative_log_likelihood(logprobs: Tensor, batch: TokenBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Return the loss of supervised training, [T]; an example's advantage is 1."""
    return -logprobs * batch.advantages, {}


def to_sample(example: Example, tokenizer: Tokenizer, template: str) -> Sample:
    """Turn a row of supervised data into a training sequence that ends with the end token."""
    prompt = tokenizer.render([Message(role="user", content=example.prompt)], template)
    return Sample(
        prompt_ids=np.asarray(tokenizer.encode(prompt), np.int64),
        completion_ids=np.asarray([*tokenizer.encode(example.completion), tokenizer.eos_id], np.int64),
        advantage=1.0,
    )


class _Examples:
    """What a stage learns from, in batches; any step's can be asked for without those before it.

    Generated pages have a seed a batch; rows that are there are shuffled anew in every epoch.
    """

    def __init__(self, stage: SftStage, context: StageContext) -> None:
        self.stage, self.context = stage, context
        self.rows = None if isinstance(stage.data, Corpus) else _read(stage.data, context)
        self.count = stage.data.count if isinstance(stage.data, Corpus) else len(self.rows or ())
        self.steps_per_epoch = -(-self.count // stage.batch_size)

    def of_step(self, step: int) -> list[Example]:
        epoch, index = divmod(step, self.steps_per_epoch)
        start = index * self.stage.batch_size
        end = min(start + self.stage.batch_size, self.count)
        if self.rows is not None:
            order = self.context.random("epoch", epoch).permutation(self.count)
            return [self.rows[number] for number in order[start:end]]
        data = self.stage.data
        assert isinstance(data, Corpus)
        return list(
            pages(
                self.context.draw_seed("data", index), count=end - start, variant=data.variant,
                four_numbers_share=data.four_numbers_share, chinese_share=data.chinese_share,
                documents_share=data.documents_share, general_share=data.general_share,
            )
        )  # fmt: skip


def _read(data: Rows | Traces, context: StageContext) -> list[Example]:
    """Return worked problems, the rows that a rejection stage kept, or those of a file; refuse none at all."""
    if isinstance(data, Traces):
        return traces(data.seed, count=data.count, num_numbers=data.num_numbers)
    if data.stages:
        kept = [row for stage in data.stages for row in kept_rows(context.folder.parent / stage / ROWS)]
        rows = [Example(prompt=row["prompt"], completion=row["completion"]) for row in kept]
    else:
        rows = [_example(row, f"{data.path}, row {number}") for number, row in read_rows(data.path)]
    if not rows:
        raise HoneError(f"stage {context.name}: {' and '.join(data.stages) or data.path} has no rows to learn from")
    return rows


def _example(row: Mapping[str, Any], where: str) -> Example:
    match row:
        case {"prompt": str(prompt), "completion": str(completion)}:
            return Example(prompt=prompt, completion=completion)
        case {
            "messages": [{"role": "user", "content": str(prompt)}, {"role": "assistant", "content": str(completion)}]
        }:
            return Example(prompt=prompt, completion=completion)
    raise HoneError(f"{where}: neither {{prompt, completion}} nor {{messages}} of a user and an assistant")


def _start(stage: SftStage, context: StageContext, trainer: Callable[[Decoder], Trainer]) -> LocalEngine:
    if isinstance(stage.start_from, str):
        return open_engine(context.models[stage.start_from], trainer=trainer)
    tokenizer = tiny_tokenizer()
    shape = stage.start_from.model_dump()
    head_dim = shape["hidden_size"] // shape["num_attention_heads"]
    model = Decoder(DecoderConfig(vocab_size=tokenizer.vocab_size, head_dim=head_dim, **shape))
    model.reset_parameters(context.seed)
    return LocalEngine(model, tokenizer, trainer=trainer(model))
