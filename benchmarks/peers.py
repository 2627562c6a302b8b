"""What the benchmarks of speed share: models, prompts, completions of given lengths, the limit, and the peers.

The peers are transformers' generate and TRL, in this process, and vLLM, in one of its own that stands still while
another side is timed. It knows nothing of how well anything learns.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hone.algo.products import prepack
from hone.engine.local import sampler as sampling
from hone.engine.local.sampler import Sampler
from hone.models.decoder import Decoder
from hone.models.folders import find_model
from hone.models.tokenizer import Tokenizer
from hone.types import Prompt, Rollout, SamplingParams

MODELS = {"tiny": "base-tiny", "smollm2": "smollm2-135m-instruct"}
LIMITS = {
    "limit": "limit: products alone, by torch's own kernel",
    "fastest": "  by the loops that Hone uses",
}
VLLM_PYTHON = Path(".venv-bench/bin/python")
WORDS = ["the", "answer", "is", "so", "make", "use", "of", "numbers", "now", "try", "first", "then", "last", "small"]


def open_folder(name: str) -> Path:
    """Return the folder of a model by its short name here, or by any name that Hone knows."""
    return find_model(MODELS.get(name, name))


def make_prompts(tokenizer: Tokenizer, count: int, num_tokens: int) -> list[str]:
    """Return different prompts of common words that have exactly `num_tokens` tokens each."""
    rng = np.random.default_rng(0)
    prompts = [" ".join(rng.choice(WORDS, num_tokens)) for _ in range(count)]
    assert {len(tokenizer.encode(prompt)) for prompt in prompts} == {num_tokens}
    return prompts


def sample_lengths(
    sampler: Sampler, prompts: Sequence[Prompt], lengths: Sequence[int], seed: int
) -> list[list[Rollout]]:
    """Sample completions that have these lengths, one for each sequence, whatever end tokens are drawn."""
    wanted: dict[sampling.Running, int] = {}
    remaining, longest = iter(lengths), max(lengths)
    endless = copy(sampler.tokenizer)
    endless.eos_id = -1  # no token's

    class FixedLengths(sampling.Batch):
        def extend(self, requests: Sequence[sampling.Request]) -> list[sampling.Running]:
            self.tokenizer = endless
            fresh = super().extend(requests)
            wanted.update(zip(fresh, remaining, strict=False))
            return fresh

        def _draw_alike(self, hidden: Tensor, sequences: Sequence[sampling.Running]) -> None:
            super()._draw_alike(hidden, sequences)
            if min(lengths) < longest:
                for sequence in sequences:
                    if len(sequence.ids) == wanted[sequence]:
                        sequence.finish_reason = "length"

    with patch.object(sampling, "Batch", FixedLengths):
        groups = sampler.sample(prompts, SamplingParams(max_tokens=longest), seed=seed)
    assert [len(rollout.completion_ids) for group in groups for rollout in group] == list(lengths)
    return groups


class ForcedLengths:
    """A logits processor of transformers: the end token comes as the last of a row's `lengths`, and not before."""

    def __init__(self, lengths: Sequence[int], prompt_tokens: int, end: int) -> None:
        self.lengths, self.prompt_tokens, self.end = torch.tensor(lengths), prompt_tokens, end

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, self.end] = -torch.inf
        ends = self.lengths == input_ids.shape[1] - self.prompt_tokens + 1
        if ends.any():
            scores[ends] = -torch.inf
            scores[ends, self.end] = 0.0
        return scores


def load_transformers(folder: Path) -> Any:
    """Return transformers' model of a folder, in float32."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.inference_mode()
def generate(model: Any, prompts: Sequence[Sequence[int]], num_samples: int, num_tokens: int) -> float:
    """Draw `num_samples` completions of each prompt by transformers; return the seconds."""
    ids = torch.tensor(prompts).repeat_interleave(num_samples, 0)
    start = time.perf_counter()
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        max_new_tokens=num_tokens, min_new_tokens=num_tokens, pad_token_id=0,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    assert found.shape == (len(ids), ids.shape[1] + num_tokens)
    return seconds


class Vllm:
    """vLLM with a folder's model, on some cores ("0-1", "nobind"), compiled or eager; stopped unless it generates."""

    def __init__(self, folder: Path, cores: str, mode: str) -> None:
        worker = str(Path(__file__).parent / "vllm_worker.py")
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [str(VLLM_PYTHON), worker, str(folder), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ, "VLLM_CPU_OMP_THREADS_BIND": cores},
        )  # fmt: skip
        self._answer()
        self.start_seconds = time.perf_counter() - start
        self._signal(signal.SIGSTOP)

    def generate(self, prompts: Sequence[Sequence[int]], num_samples: int, num_tokens: int) -> float:
        """Draw `num_samples` completions of each prompt; return the seconds."""
        assert self.process.stdin is not None
        self._signal(signal.SIGCONT)
        request = {"prompts": [list(ids) for ids in prompts], "num_samples": num_samples, "num_tokens": num_tokens}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        seconds: float = self._answer()
        self._signal(signal.SIGSTOP)
        return seconds

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"vLLM ended; see why: {' '.join(map(str, self.process.args))}")  # type: ignore[arg-type]
        return json.loads(line)

    def _signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)


def run_trl(
    folder: Path, prompts: Sequence[str], lengths: Sequence[int], reward: Callable[[Sequence[int]], float], *,
    micro_batch: int, learning_rate: float, num_steps: int, out: Path, after_step: Callable[[float], None],
) -> None:  # fmt: skip
    """Train by TRL on completions of these lengths; after each step call `after_step` with its seconds."""
    import datasets
    import transformers
    import trl

    warnings.filterwarnings("ignore", category=FutureWarning)
    datasets.disable_progress_bars()

    class Clock(transformers.TrainerCallback):  # type: ignore[name-defined, misc]
        start = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            after_step(time.perf_counter() - self.start)

    def rewards(completion_ids: list[list[int]], **_: Any) -> list[float]:
        assert [len(ids) for ids in completion_ids] == list(lengths)
        return [reward(ids) for ids in completion_ids]

    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    model = load_transformers(folder)
    forced = ForcedLengths(lengths, len(tokenizer(prompts[0]).input_ids), tokenizer.eos_token_id)
    plain = model.generate
    model.generate = lambda *args, **kwargs: plain(*args, **kwargs, logits_processor=[forced])
    config = trl.GRPOConfig(
        output_dir=str(out), max_steps=num_steps, learning_rate=learning_rate, loss_type="grpo", beta=0.0,
        per_device_train_batch_size=micro_batch, gradient_accumulation_steps=len(lengths) // micro_batch,
        num_generations=len(lengths) // len(prompts), max_completion_length=max(lengths), temperature=1.0,
        use_cpu=True, bf16=False, gradient_checkpointing=False,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=model, processing_class=tokenizer, reward_funcs=rewards, args=config, callbacks=[Clock()],
        train_dataset=datasets.Dataset.from_dict({"prompt": list(prompts)}),
    )  # fmt: skip
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()


class Products:
    """The products with a model's weight matrices alone, of the shapes that the model has them.

    By torch's own kernel, or by the loops that the model uses (`hone.algo.products`). No
    attention, norm, softmax, sampling or optimizer: nothing that computes a step by these products is faster.
    """

    def __init__(self, model: Decoder, *, fastest: bool) -> None:
        self.prepack = prepack if fastest else (lambda weight: partial(functional.linear, weight=weight))
        self.head = model.lm_head.weight.detach()
        self.body = [
            module.weight.detach()
            for module in model.modules()
            if isinstance(module, nn.Linear) and module is not model.lm_head
        ]
        self.chunk = max(1, (1 << 23) // len(self.head))  # rows whose logits exist at a time in training

    @torch.inference_mode()
    def decode(self, rows: Sequence[int]) -> float:
        """Return the seconds of decoding steps with so many rows each."""
        weights = [*self.body, self.head]
        products = [self.prepack(weight) for weight in weights]
        start = time.perf_counter()
        for count in rows:
            for weight, product in zip(weights, products, strict=True):
                product(_buffer(count, weight.shape[1]))
        return time.perf_counter() - start

    @torch.inference_mode()
    def prefill(self, tokens: int, prompts: int) -> float:
        """Return the seconds of prompts of so many tokens in all, with logits after the last token of each."""
        body, head = [self.prepack(weight) for weight in self.body], self.prepack(self.head)
        start = time.perf_counter()
        for weight, product in zip(self.body, body, strict=True):
            product(_buffer(tokens, weight.shape[1]))
        head(_buffer(prompts, self.head.shape[1]))
        return time.perf_counter() - start

    @torch.inference_mode()
    def train(self, tokens: int, targets: int) -> float:
        """Return the seconds of one micro-batch of so many tokens, forward and backward."""
        start = time.perf_counter()
        for weight in self.body:
            self._train(weight, [tokens])
        self._train(self.head, [min(self.chunk, targets - first) for first in range(0, targets, self.chunk)])
        return time.perf_counter() - start

    def _train(self, weight: Tensor, rows: Sequence[int]) -> None:
        forward, backward = self.prepack(weight), self.prepack(weight.t())
        for count in rows:
            x, grad = _buffer(count, weight.shape[1]), _buffer(count, len(weight))
            forward(x)
            backward(grad)
            grad.t() @ x


def _buffer(rows: int, columns: int, store: dict[tuple[int, int], Tensor] = {}) -> Tensor:  # noqa: B006
    """Return random numbers, the same ones for the same shape."""
    if (rows, columns) not in store:
        store[rows, columns] = torch.randn(rows, columns)
    return store[rows, columns]


def report(
    title: str, rounds: Sequence[dict[str, float]], num_tokens: int, labels: dict[str, str], *, unit: str, peer: str
) -> None:
    """Print a table and, as the last line, the figures as JSON; `hone`, `limit` and `peer` are names in the rounds."""
    median = {name: statistics.median(row[name] for row in rounds) for name in labels}
    print(f"{title}; medians of {len(rounds)} paired runs")
    print(f"{'':52}{'seconds':>9}{'tokens/s':>11}{'x Hone':>8}  pairs")
    for name, label in labels.items():
        ratios = sorted(row[name] / row["hone"] for row in rounds)
        times = f"{statistics.median(ratios):8.2f}  {ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"{label:52}{median[name]:9.3f}{num_tokens / median[name]:11,.1f}{times}")
    figures = {
        "figure": round(num_tokens / median["hone"], 1), "unit": unit, "peer": labels[peer],
        "peer_figure": round(num_tokens / median[peer], 1),
        "ratio": round(statistics.median(row[peer] / row["hone"] for row in rounds), 3),
        "limit_share": round(statistics.median(row["limit"] / row["hone"] for row in rounds), 3),
    }  # fmt: skip
    print(json.dumps(figures))


def progress(number: int, row: dict[str, float]) -> None:
    print(f"pair {number}:", *(f"{name} {seconds:.2f} s" for name, seconds in row.items()), file=sys.stderr, flush=True)


def reset_peak() -> None:
    """Forget this process's peak of resident memory."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")


def peak_megabytes() -> float:
    """Return this process's peak of resident memory."""
    status = Path("/proc/self/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
