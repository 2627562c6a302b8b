"""How many verdicts a second the maths verifier gives on one core for plain numbers, beside math-verify's own.

Both judge the same pairs of text, a reference and an extracted answer: whole numbers with and without thousands
separators, decimals and fractions, half of them wrong. math-verify parses and verifies with its time limits off, which
is its faster way. Every run has numbers of its own, so that no cache helps. Processor time of this one thread.
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import time
from collections.abc import Callable

from math_verify import parse, verify

from hone.rewards.maths import equivalent_all
from hone.types import Verdict

NUM_RUNS, NUM_PAIRS, NUM_PEER_PAIRS = 7, 20_000, 1_000
Pair = tuple[str, str]


def draw_pairs(num_pairs: int, seed: int) -> list[Pair]:
    """Return pairs of a reference and an answer in another notation; every second answer is wrong."""
    rng = random.Random(seed)
    pairs = []
    for place in range(num_pairs):
        number = rng.randrange(1_000, 100_000_000)
        answer = number + place % 2
        spelling = rng.choice(
            [f"{answer}", f"{answer:,}", f"{answer}.0", f"\\frac{{{2 * answer}}}{{2}}", f"${answer}$"]
        )
        pairs.append((str(number), spelling))
    return pairs


def ours(pairs: list[Pair]) -> int:
    """Return how many pairs Hone finds right."""
    return sum(found.verdict is Verdict.RIGHT for found in equivalent_all(pairs))


def peers(pairs: list[Pair]) -> int:
    """Return how many pairs math-verify finds right."""
    right = 0
    for gold, pred in pairs:
        answer = f"${pred}$" if "\\" in pred else pred  # it looks for LaTeX between dollars alone
        parsed = [parse(text, parsing_timeout=None) for text in (gold, answer)]
        right += verify(*parsed, timeout_seconds=None)
    return right


def verdicts_per_second(judge: Callable[[list[Pair]], int], pairs: list[Pair]) -> float:
    """Time one run, and make sure that half of the answers are right."""
    start = time.thread_time()
    right = judge(pairs)
    seconds = time.thread_time() - start
    if right != len(pairs) // 2:
        raise AssertionError(f"{judge.__name__}: {right} of {len(pairs)} right, not half")
    return len(pairs) / seconds


def main() -> None:
    logging.disable(logging.WARNING)
    ours(draw_pairs(100, seed=-1))
    peers(draw_pairs(100, seed=-1))
    runs = [
        (
            verdicts_per_second(ours, draw_pairs(NUM_PAIRS, seed)),
            verdicts_per_second(peers, draw_pairs(NUM_PEER_PAIRS, seed + NUM_RUNS)),
        )
        for seed in range(NUM_RUNS)
    ]
    print(f"verdicts a second on one core, plain numbers, {NUM_RUNS} paired runs")
    print(f"{'':<14}{'median':>10}{'lowest':>10}{'highest':>10}")
    for name, speeds in zip(("Hone", "math-verify"), zip(*runs, strict=True), strict=True):
        print(f"{name:<14}{statistics.median(speeds):>10,.0f}{min(speeds):>10,.0f}{max(speeds):>10,.0f}")
    result = {
        "figure": round(statistics.median(ours_ for ours_, _ in runs)),
        "unit": "verdicts/s",
        "peer": "math-verify 0.9.0 parse + verify",
        "peer_figure": round(statistics.median(peer for _, peer in runs)),
        "ratio": round(statistics.median(ours_ / peer for ours_, peer in runs), 1),
        "limit_share": None,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
