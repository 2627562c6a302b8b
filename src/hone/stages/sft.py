"""Supervised fine-tuning: maximise the likelihood of given completions. From nothing but a shape: pretraining."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from hone.algo.packing import pack
from hone.config import Sampling, SftStage
from hone.engine.base import TokenBatch
from hone.engine.local.engine import LocalEngine
from hone.engine.local.trainer import Trainer
from hone.models.decoder import Decoder, DecoderConfig
from hone.models.tiny import tiny_tokenizer
from hone.models.tokenizer import Tokenizer
from hone.record.files import append_row
from hone.stages.context import StageContext, learning_rate
from hone.stages.evaluate import HeldOut
from hone.tasks.corpus import pages
from hone.types import Example, Message, Sample


def run(stage: SftStage, context: StageContext) -> None:
    """Train over the data, epoch by epoch; write the model, its metrics and its held-out evaluations."""
    engine, first = context.open(stage.optimizer, lambda trainer: _start(stage, context, trainer))
    steps_per_epoch = -(-stage.data.count // stage.batch_size)
    num_steps = steps_per_epoch * stage.epochs
    held_out = HeldOut(stage.evaluation, Sampling(), stage.template, context, num_steps)
    with context.progress(num_steps) as progress:
        for step in range(first, num_steps):
            started = time.perf_counter()
            samples = _batch(stage, context, engine.tokenizer, step % steps_per_epoch)
            num_tokens = sum(len(sample.completion_ids) for sample in samples)
            batch = pack(
                samples, [1 / num_tokens] * len(samples), micro_batch_tokens=stage.optimizer.micro_batch_tokens
            )
            figures = engine.forward_backward(batch, negative_log_likelihood)
            rate = learning_rate(stage.optimizer, step, num_steps)
            norm = engine.optim_step(rate)
            speed = batch.num_tokens / (seconds := time.perf_counter() - started)
            done = step + 1
            times = {"time/train_s": seconds, "throughput/train_tokens_per_s": speed}
            row = {"step": done, **figures, "policy/grad_norm": norm, "learning_rate": rate, **times}
            append_row(context.folder / "metrics.jsonl", row)
            progress.update(done, loss=figures["loss"], tokens_per_s=speed)
            held_out.after(done, engine)
            if done % stage.checkpoint_every == 0 or done == num_steps:
                context.save_resume(engine, done)
    context.save_model(engine)


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


def _batch(stage: SftStage, context: StageContext, tokenizer: Tokenizer, index: int) -> list[Sample]:
    """Return one batch; it has a seed of its own, so that a resumed run need not go through those before it."""
    rows = min(stage.batch_size, stage.data.count - index * stage.batch_size)
    found = pages(
        context.draw_seed("data", index), count=rows, variant=stage.data.variant,
        four_numbers_share=stage.data.four_numbers_share, chinese_share=stage.data.chinese_share,
    )  # fmt: skip
    return [to_sample(page, tokenizer, stage.template) for page in found]


def _start(stage: SftStage, context: StageContext, trainer: Callable[[Decoder], Trainer]) -> LocalEngine:
    if isinstance(stage.start_from, str):
        return LocalEngine.open(context.models[stage.start_from], trainer=trainer)
    tokenizer = tiny_tokenizer()
    shape = stage.start_from.model_dump()
    head_dim = shape["hidden_size"] // shape["num_attention_heads"]
    model = Decoder(DecoderConfig(vocab_size=tokenizer.vocab_size, head_dim=head_dim, **shape))
    model.reset_parameters(context.seed)
    return LocalEngine(model, tokenizer, trainer=trainer(model))
