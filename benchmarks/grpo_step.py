"""Time and memory of one whole GRPO step, rollout, reward and update, of Hone and of TRL's GRPOTrainer.

Both draw groups of 8 completions of given lengths at temperature 1 and take one AdamW step on them, in float32, in one
process, in turns, from the same weights. `tiny` takes 32 prompts of 8 tokens and completions of 70, `smollm2` 4 prompts
of 40 and completions of 96; `--lengths geometric` draws lengths from 8 to 512, the same for both sides, after prompts
of 200 tokens. Lengths are fixed where tokens are drawn: TRL's generate gets a logits processor
that lets the end token come at its place alone, Hone's batch is told when a sequence is done.

TRL generates by transformers, without vLLM, with gradient checkpointing off, and trains in the micro-batches named; its
own work between two steps is not counted. `limit` is the time of the step's products with weight matrices alone, of the
shapes of Hone's step, by torch's own kernel, and beside it by Hone's own. `--memory` measures the
peak of resident memory of a second step, of each side in a process of its own; `--long` training alone, at length
2,048 beside 128, with the same number of tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers import (
    LIMITS,
    Products,
    make_prompts,
    open_folder,
    peak_megabytes,
    progress,
    report,
    reset_peak,
    run_trl,
    sample_lengths,
)  # fmt: skip
from hone.algo.advantages import group_advantages
from hone.algo.packing import pack, token_weight
from hone.engine.local.engine import reuse_memory
from hone.engine.local.sampler import Sampler
from hone.engine.local.trainer import Trainer
from hone.models.loading import checksum, load_model
from hone.models.tokenizer import Tokenizer
from hone.stages.rl import GrpoLoss
from hone.types import PackedBatch, Prompt, Rollout, Sample

GROUP_SIZE, LEARNING_RATE = 8, 1e-5
LOSS = GrpoLoss(clip_low=0.2, clip_high=0.2)
SHORT, LONG, LONG_TOKENS = 128, 2048, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step consists of."""

    num_prompts: int
    prompt_tokens: int
    lengths: tuple[int, ...]  # of the completions, group by group
    micro_batch_tokens: int
    peer_micro_batch: int  # sequences that TRL trains on at once


def find_work(model: str, lengths: str) -> Work:
    num_prompts, prompt_tokens, new_tokens = (32, 8, 70) if model == "tiny" else (4, 40, 96)
    count = num_prompts * GROUP_SIZE
    if lengths == "equal":
        return Work(
            num_prompts=num_prompts, prompt_tokens=prompt_tokens, lengths=(new_tokens,) * count,
            micro_batch_tokens=4096, peer_micro_batch=min(64, count),
        )  # fmt: skip
    drawn = np.random.default_rng(0).geometric(1 / 100, count).clip(8, 512)
    drawn[0] = 512  # the longest of so few draws would be a matter of luck
    return Work(
        num_prompts=num_prompts, prompt_tokens=200, lengths=tuple(drawn.tolist()), micro_batch_tokens=4096,
        peer_micro_batch=8,
    )  # fmt: skip


def reward(ids: Sequence[int]) -> float:
    """Return the share of even tokens, the last left out: cheap, and different inside a group."""
    return sum(token % 2 == 0 for token in ids[:-1]) / len(ids)


class HoneStep:
    """One GRPO step of Hone after the other."""

    def __init__(self, folder: Path, work: Work) -> None:
        self.work, self.model, self.tokenizer = work, load_model(folder), Tokenizer.load(folder)
        self.prompts = make_prompts(self.tokenizer, work.num_prompts, work.prompt_tokens)
        self.sampler = Sampler(self.model, self.tokenizer)
        self.trainer = Trainer(self.model, micro_batch_tokens=work.micro_batch_tokens)
        self.count = 0

    def __call__(self) -> tuple[dict[str, float], PackedBatch]:
        """Take one step; return the seconds of its phases, and what it trained on."""
        start = time.perf_counter()
        prompts = [Prompt(ids=self.tokenizer.encode(text), num_samples=GROUP_SIZE) for text in self.prompts]
        groups = sample_lengths(self.sampler, prompts, self.work.lengths, seed=self.count)
        sampled = time.perf_counter()
        batch = self._pack(groups)
        self.trainer.forward_backward(batch, LOSS)
        self.trainer.optim_step(LEARNING_RATE)
        checksum(self.model)  # as publishing does
        self.count += 1
        end = time.perf_counter()
        return {"hone": end - start, "rollout": sampled - start, "update": end - sampled}, batch

    def _pack(self, groups: Sequence[Sequence[Rollout]]) -> PackedBatch:
        samples = []
        for group in groups:
            rewards = np.array([reward(rollout.completion_ids.tolist()) for rollout in group], np.float32)
            advantages = group_advantages(rewards, np.ones(len(group), np.bool_))
            samples += [
                Sample(
                    prompt_ids=rollout.prompt_ids, completion_ids=rollout.completion_ids,
                    advantage=float(advantage), old_logprobs=rollout.sampler_logprobs,
                )
                for rollout, advantage in zip(group, advantages, strict=True)
            ]  # fmt: skip
        return packed(samples, self.work.micro_batch_tokens)


def packed(samples: Sequence[Sample], micro_batch_tokens: int) -> PackedBatch:
    lengths = [len(sample.completion_ids) for sample in samples]
    counts = {"num_outputs": len(lengths), "num_tokens": sum(lengths), "max_tokens": max(lengths)}
    weights = [token_weight(sample, "output", **counts) for sample in samples]
    return pack(samples, weights, micro_batch_tokens=micro_batch_tokens)


def limit(products: Products, work: Work, batch: PackedBatch) -> float:
    """Return the seconds of the products of one step: prompts, decoding steps with fewer and fewer rows, training."""
    rows = [sum(length > step for length in work.lengths) for step in range(1, max(work.lengths))]
    seconds = products.prefill(work.num_prompts * work.prompt_tokens, work.num_prompts) + products.decode(rows)
    return seconds + sum(products.train(one.input_ids.size, len(one.targets)) for one in batch.micro_batches)


def compare(folder: Path, work: Work, num_rounds: int, title: str) -> None:
    """Run pairs of steps and report them."""
    step = HoneStep(folder, work)
    limits = {"limit": Products(step.model, fastest=False), "fastest": Products(step.model, fastest=True)}
    rounds: list[dict[str, float]] = []

    def pair(trl_seconds: float) -> None:
        seconds, batch = step()
        bounds = {name: limit(products, work, batch) for name, products in limits.items()}
        rounds.append({**seconds, "trl": trl_seconds, **bounds})
        progress(len(rounds) - 1, rounds[-1])

    trl_steps(folder, step.prompts, work, num_rounds + 1, pair)
    labels = {
        "hone": "Hone", "rollout": "  its rollout", "update": "  its reward and update",
        "trl": f"TRL {version('trl')}, transformers {version('transformers')}", **LIMITS,
    }  # fmt: skip
    report(title, rounds[1:], sum(work.lengths), labels, unit="completion tokens/s", peer="trl")


def trl_steps(
    folder: Path, prompts: Sequence[str], work: Work, num_steps: int, after_step: Callable[[float], None]
) -> None:
    with tempfile.TemporaryDirectory() as out:
        run_trl(
            folder, prompts, work.lengths, reward, micro_batch=work.peer_micro_batch, learning_rate=LEARNING_RATE,
            num_steps=num_steps, out=Path(out), after_step=after_step,
        )  # fmt: skip


class LongTraining:
    """Training steps on the same number of tokens in sequences of one length or another."""

    def __init__(self, folder: Path) -> None:
        self.model = load_model(folder)
        self.trainer = Trainer(self.model, micro_batch_tokens=LONG)
        self.rng = np.random.default_rng(0)

    def __call__(self, length: int) -> float:
        """Take a step on sequences of `length` tokens; return the seconds."""
        ids = self.rng.integers(0, self.model.config.vocab_size, (LONG_TOKENS // length, length))
        old = np.zeros(length - 1, np.float32)
        samples = [
            Sample(prompt_ids=row[:1], completion_ids=row[1:], advantage=1.0, old_logprobs=old) for row in ids
        ]  # fmt: skip
        start = time.perf_counter()
        self.trainer.forward_backward(packed(samples, LONG), LOSS)
        self.trainer.optim_step(LEARNING_RATE)
        return time.perf_counter() - start

    def attention_factor(self) -> float:
        """Return how many times the operations of SHORT a token costs at LONG, half of the attention masked."""
        config = self.model.config
        matrices = sum(p.numel() for p in self.model.parameters() if p.ndim > 1)
        attention = config.num_hidden_layers * config.num_attention_heads * config.head_dim
        return (matrices + LONG * attention) / (matrices + SHORT * attention)


def compare_lengths(arguments: argparse.Namespace, folder: Path) -> None:
    """Train at both lengths in turns, then measure the peak memory of each in a process of its own."""
    training = LongTraining(folder)
    rounds = []
    for number in range(arguments.rounds + 1):
        rounds.append({"short": training(SHORT), "long": training(LONG)})
        progress(number, rounds[-1])
    seconds = {name: statistics.median(row[name] for row in rounds[1:]) for name in ("short", "long")}
    ratio = statistics.median(row["short"] / row["long"] for row in rounds[1:])
    factor = training.attention_factor()
    print(f"training on {LONG_TOKENS} tokens, {arguments.model}; medians of {arguments.rounds} paired runs")
    for name, length in (("short", SHORT), ("long", LONG)):
        peak = measured_peak(arguments, name)
        print(f"length {length:5}: {LONG_TOKENS / seconds[name]:10,.1f} tokens/s, peak {peak:8,.0f} MB")
    print(f"the attention's arithmetic allows {1 / factor:.3f} of the tokens/s, measured {ratio:.3f}")
    figures = {
        "figure": round(LONG_TOKENS / seconds["long"], 1), "unit": "tokens/s", "peer": f"Hone at length {SHORT}",
        "peer_figure": round(LONG_TOKENS / seconds["short"], 1), "ratio": round(ratio, 3),
        "limit_share": round(ratio * factor, 3),
    }  # fmt: skip
    print(json.dumps(figures))


def compare_memory(arguments: argparse.Namespace, work: Work) -> None:
    peaks = {side: measured_peak(arguments, side) for side in ("hone", "trl")}
    ratio = peaks["hone"] / peaks["trl"]
    print(f"peak resident memory of a GRPO step, {arguments.model}, {len(work.lengths)} sequences")
    print(f"Hone {peaks['hone']:,.0f} MB, micro-batches of {work.micro_batch_tokens} tokens")
    print(f"TRL  {peaks['trl']:,.0f} MB, micro-batches of {work.peer_micro_batch} sequences")
    figures = {
        "figure": round(peaks["hone"]), "unit": "MB", "peer": f"TRL {version('trl')}",
        "peer_figure": round(peaks["trl"]), "ratio": round(ratio, 3), "limit_share": None,
    }  # fmt: skip
    print(json.dumps(figures))


def measured_peak(arguments: argparse.Namespace, side: str) -> float:
    """Return the peak memory of one side in megabytes, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.grpo_step", *sys.argv[1:], "--peak-of", side]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(folder: Path, work: Work, side: str) -> None:
    """Take two steps of one side; print the peak of the second, when the optimizer's state exists."""
    if side == "trl":
        prompts = make_prompts(Tokenizer.load(folder), work.num_prompts, work.prompt_tokens)
        steps = iter((reset_peak, lambda: None))
        trl_steps(folder, prompts, work, 2, lambda _: next(steps)())
    else:
        reuse_memory()
        step = HoneStep(folder, work) if side == "hone" else LongTraining(folder)
        once = partial(step) if side == "hone" else partial(step, SHORT if side == "short" else LONG)
        once()
        reset_peak()
        once()
    print(peak_megabytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny, smollm2, or a folder with the work of smollm2")
    parser.add_argument("--lengths", choices=("equal", "geometric"), default="equal")
    parser.add_argument("--rounds", type=int, default=5, help="paired runs, after pair 0 to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro-batch-tokens", type=int, help="tokens that Hone trains on at once")
    parser.add_argument("--peer-micro-batch", type=int, help="sequences that TRL trains on at once")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--long", action="store_true", help=f"compare training at lengths {SHORT} and {LONG}")
    parser.add_argument("--peak-of", choices=("hone", "trl", "short", "long"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = open_folder(arguments.model)
    work = find_work(arguments.model, arguments.lengths)
    given = {name: getattr(arguments, name) for name in ("micro_batch_tokens", "peer_micro_batch")}
    work = replace(work, **{name: value for name, value in given.items() if value})
    if arguments.peak_of:
        print_peak(folder, work, arguments.peak_of)
    elif arguments.memory:
        compare_memory(arguments, work)
    elif arguments.long:
        reuse_memory()
        compare_lengths(arguments, folder)
    else:
        reuse_memory()
        total = sum(work.lengths)
        sizes = f"{len(work.lengths)} completions of {total / len(work.lengths):.1f} tokens on average"
        compare(folder, work, arguments.rounds, f"one GRPO step, {arguments.model}, {sizes}")


if __name__ == "__main__":
    main()
