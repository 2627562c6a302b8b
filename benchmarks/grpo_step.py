"""Time of one whole GRPO step, rollout, reward and update, of Hone and of TRL's GRPOTrainer on the same tiny model.

Both draw 32 prompts x 8 completions of exactly 70 tokens at temperature 1 and take one AdamW step on them, in float32
on the CPU, in one process, in turns. The tokenizer's end token lies outside the model's vocabulary, so that neither can
draw it and no completion is shorter; both still look for it. TRL generates by transformers, without vLLM, with gradient
checkpointing off, and trains in micro-batches of about the size of ours; its own work between two steps is not counted.

`limit` is the time of the step's products with weight matrices alone, of the same shapes, on tensors made beforehand:
69 decodes of 256 rows, the prompts, and training forward and backward. Attention and everything else is left out.
It knows nothing of how well either learns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hone.algo.advantages import group_advantages
from hone.algo.packing import pack, token_weight
from hone.engine.local.engine import reuse_memory
from hone.engine.local.sampler import Sampler
from hone.engine.local.trainer import Trainer
from hone.models.decoder import Decoder, DecoderConfig
from hone.models.loading import checksum, load_model, save_model
from hone.models.tokenizer import Tokenizer, word_tokenizer
from hone.stages.rl import GrpoLoss
from hone.types import PackedBatch, Prompt, Sample, SamplingParams

MODELS = {
    "tiny": DecoderConfig(
        model_type="qwen2", vocab_size=152, hidden_size=128, intermediate_size=352, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=256,
    ),
}  # fmt: skip
NUM_PROMPTS, GROUP_SIZE, PROMPT_TOKENS, NEW_TOKENS = 32, 8, 8, 70
NUM_SEQUENCES = NUM_PROMPTS * GROUP_SIZE
MICRO_BATCH_TOKENS = 4096
LEARNING_RATE = 1e-4


def make_model(config: DecoderConfig, folder: Path) -> Tokenizer:
    """Save a model with fresh weights and a tokenizer whose end token is the first id that the model does not have."""
    model = Decoder(config)
    model.reset_parameters(seed=0)
    save_model(model, folder)
    words = [f"w{number}" for number in range(1, config.vocab_size)]
    tokenizer = word_tokenizer([*words, "<|end|>"], special=["<unk>"], eos="<|end|>", chat_template="")
    assert tokenizer.eos_id == config.vocab_size
    tokenizer.save(folder)
    return tokenizer


def make_prompts(config: DecoderConfig) -> list[str]:
    ids = np.random.default_rng(0).integers(1, config.vocab_size, (NUM_PROMPTS, PROMPT_TOKENS))
    return [" ".join(f"w{number}" for number in row) for row in ids]


def reward(completion: str) -> float:
    """Return the share of a completion's words that end in an even digit: cheap, and different inside a group."""
    words = completion.split()
    return sum(word[-1] in "02468" for word in words) / max(1, len(words))


class HoneStep:
    """One GRPO step of Hone after the other."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, prompts: Sequence[str]) -> None:
        self.model, self.tokenizer, self.prompts = load_model(folder), tokenizer, prompts
        self.sampler = Sampler(self.model, tokenizer)
        self.trainer = Trainer(self.model)
        self.params = SamplingParams(max_tokens=NEW_TOKENS)
        self.count = 0

    def __call__(self) -> dict[str, float]:
        """Take one step; return the seconds of its phases."""
        start = time.perf_counter()
        prompts = [Prompt(ids=self.tokenizer.encode(text), num_samples=GROUP_SIZE) for text in self.prompts]
        groups = self.sampler.sample(prompts, self.params, seed=self.count)
        sampled = time.perf_counter()
        batch = self._pack(groups)
        packed = time.perf_counter()
        self.trainer.forward_backward(batch, GrpoLoss(clip_low=0.2, clip_high=0.2))
        self.trainer.optim_step(LEARNING_RATE)
        checksum(self.model)  # as publishing does
        self.count += 1
        end = time.perf_counter()
        return {"rollout": sampled - start, "reward": packed - sampled, "update": end - packed, "step": end - start}

    @staticmethod
    def _pack(groups: Sequence[Sequence[Any]]) -> PackedBatch:
        samples = []
        for group in groups:
            rewards = np.array([reward(rollout.text) for rollout in group], np.float32)
            advantages = group_advantages(rewards, np.ones(len(group), np.bool_))
            for rollout, advantage in zip(group, advantages, strict=True):
                assert len(rollout.completion_ids) == NEW_TOKENS
                samples.append(
                    Sample(
                        prompt_ids=rollout.prompt_ids, completion_ids=rollout.completion_ids,
                        advantage=float(advantage), old_logprobs=rollout.sampler_logprobs,
                    )
                )  # fmt: skip
        assert len(samples) == NUM_SEQUENCES
        counts = {"num_outputs": NUM_SEQUENCES, "num_tokens": NUM_SEQUENCES * NEW_TOKENS, "max_tokens": NEW_TOKENS}
        weights = [token_weight(sample, "output", **counts) for sample in samples]
        return pack(samples, weights, micro_batch_tokens=MICRO_BATCH_TOKENS)


def run_trl(
    folder: Path, prompts: Sequence[str], *, micro_batch: int, num_steps: int, after_step: Callable[[float], None]
) -> None:
    """Train by TRL; after each step call `after_step` with its seconds, on TRL's own time."""
    import datasets
    import transformers
    import trl

    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()

    class Clock(transformers.TrainerCallback):  # type: ignore[name-defined, misc]
        start = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            after_step(time.perf_counter() - self.start)

    def rewards(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        assert len(completions) == NUM_SEQUENCES
        assert all(len(ids) == NEW_TOKENS for ids in completion_ids)
        return [reward(completion) for completion in completions]

    config = trl.GRPOConfig(
        output_dir=str(folder / "trl"), max_steps=num_steps, learning_rate=LEARNING_RATE, loss_type="grpo", beta=0.0,
        per_device_train_batch_size=micro_batch, gradient_accumulation_steps=NUM_SEQUENCES // micro_batch,
        num_generations=GROUP_SIZE, max_completion_length=NEW_TOKENS, temperature=1.0,
        use_cpu=True, bf16=False, gradient_checkpointing=False,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        processing_class=transformers.PreTrainedTokenizerFast.from_pretrained(folder),
        reward_funcs=rewards, args=config, callbacks=[Clock()],
        train_dataset=datasets.Dataset.from_dict({"prompt": list(prompts)}),
    )  # fmt: skip
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()


def matrix_products(config: DecoderConfig) -> list[tuple[Tensor, Tensor, Tensor, int]]:
    """Return the products with weight matrices of one step: two factors, where the product goes, and how often."""
    hidden, middle, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads = config.num_attention_heads * config.head_dim
    head = (hidden, config.vocab_size)
    block = [(hidden, sum(config.qkv_sizes)), (heads, hidden), (hidden, 2 * middle), (middle, hidden)]

    def product(rows: int, inner: int, columns: int, times: int) -> tuple[Tensor, Tensor, Tensor, int]:
        return torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns), times

    def forward(rows: int, head_rows: int, times: int) -> list[tuple[Tensor, Tensor, Tensor, int]]:
        return [product(rows, *shape, times * layers) for shape in block] + [product(head_rows, *head, times)]

    def backward(rows: int, head_rows: int, times: int) -> list[tuple[Tensor, Tensor, Tensor, int]]:
        shapes = [(rows, *shape, times * layers) for shape in block] + [(head_rows, *head, times)]
        to_input = [product(n, out, inner, often) for n, inner, out, often in shapes]
        return to_input + [product(inner, n, out, often) for n, inner, out, often in shapes]

    width = PROMPT_TOKENS + NEW_TOKENS
    whole, rest = divmod(NUM_SEQUENCES, MICRO_BATCH_TOKENS // width)
    sizes = [(MICRO_BATCH_TOKENS // width, whole)] + ([(rest, 1)] if rest else [])
    training = [
        one
        for rows, times in sizes
        for one in forward(rows * width, rows * NEW_TOKENS, times) + backward(rows * width, rows * NEW_TOKENS, times)
    ]
    decoding = forward(NUM_SEQUENCES, NUM_SEQUENCES, NEW_TOKENS - 1)
    return forward(NUM_PROMPTS * PROMPT_TOKENS, NUM_PROMPTS, 1) + decoding + training


def time_products(products: Sequence[tuple[Tensor, Tensor, Tensor, int]]) -> float:
    start = time.perf_counter()
    for left, right, out, times in products:
        for _ in range(times):
            torch.mm(left, right, out=out)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--rounds", type=int, default=5, help="paired runs, after pair 0 to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-micro-batch", type=int, default=64, help="sequences that TRL trains on at once")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    reuse_memory()
    config = MODELS[arguments.model]
    products = matrix_products(config)
    rounds: list[dict[str, float]] = []

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer, prompts = make_model(config, folder), make_prompts(config)
        hone_step = HoneStep(folder, tokenizer, prompts)

        def pair(trl_seconds: float) -> None:
            rounds.append({**hone_step(), "trl": trl_seconds, "limit": time_products(products)})
            names = {"Hone": "step", "TRL": "trl", "limit": "limit"}
            seconds = ", ".join(f"{who} {rounds[-1][name]:.2f} s" for who, name in names.items())
            print(f"pair {len(rounds) - 1} of {arguments.rounds}: {seconds}", file=sys.stderr, flush=True)

        run_trl(
            folder, prompts,
            micro_batch=arguments.peer_micro_batch, num_steps=arguments.rounds + 1, after_step=pair,
        )  # fmt: skip
    report(rounds[1:])


def report(rounds: Sequence[dict[str, float]]) -> None:
    """Print the table and, as the last line, the figures as JSON."""
    peer = f"TRL {version('trl')} GRPOTrainer, transformers {version('transformers')} generate"
    seconds = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
    num_tokens = NUM_SEQUENCES * NEW_TOKENS
    ratio = statistics.median(row["trl"] / row["step"] for row in rounds)
    limit_share = statistics.median(row["limit"] / row["step"] for row in rounds)
    print(f"one GRPO step, {NUM_SEQUENCES} completions of {NEW_TOKENS} tokens; medians of {len(rounds)} paired runs")
    print(f"{'':44}{'seconds':>9}{'tokens/s':>11}{'x Hone':>8}")
    rows = [
        ("Hone", "step"), ("  rollout", "rollout"), ("  reward and packing", "reward"), ("  update", "update"),
        (peer[:43], "trl"), ("limit: its matrix products alone", "limit"),
    ]  # fmt: skip
    for label, name in rows:
        rate = f"{num_tokens / seconds[name]:11,.0f}" if name in ("step", "trl", "limit") else " " * 11
        print(f"{label:44}{seconds[name]:9.3f}{rate}{seconds[name] / seconds['step']:8.2f}")
    print("TRL's time over Hone's, pair by pair:", *(f"{row['trl'] / row['step']:.2f}" for row in rounds))
    figures = {
        "figure": round(num_tokens / seconds["step"], 1), "unit": "completion tokens/s", "peer": peer,
        "peer_figure": round(num_tokens / seconds["trl"], 1), "ratio": round(ratio, 3),
        "limit_share": round(limit_share, 3),
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
