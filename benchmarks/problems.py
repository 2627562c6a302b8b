"""How many training problems a second each task's generator gives on one core; the figure is Countdown's.

Times are processor time of this one thread, so that what else runs on the machine counts as little as it can.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from itertools import islice

from hone.tasks import GENERATORS

NUM_RUNS, NUM_PROBLEMS, NUM_NUMBERS = 5, 20_000, 3
FIGURE_TASK = "countdown"


def problems_per_second(task: str, seed: int) -> float:
    """Time one run of a task's generator."""
    draws = GENERATORS[task](random.Random(seed), split="train", num_numbers=NUM_NUMBERS, chinese_share=0.4)
    start = time.thread_time()
    for _ in islice(draws, NUM_PROBLEMS):
        pass
    return NUM_PROBLEMS / (time.thread_time() - start)


def main() -> None:
    print(f"training problems a second, {NUM_RUNS} runs of {NUM_PROBLEMS:,} problems")
    print(f"{'task':<12}{'median':>10}{'lowest':>10}{'highest':>10}")
    medians: dict[str, float] = {}
    for task in GENERATORS:
        speeds = [problems_per_second(task, seed) for seed in range(NUM_RUNS)]
        medians[task] = statistics.median(speeds)
        print(f"{task:<12}{medians[task]:>10,.0f}{min(speeds):>10,.0f}{max(speeds):>10,.0f}")
    result = {
        "figure": round(medians[FIGURE_TASK]),
        "unit": "problems/s",
        "peer": None,
        "peer_figure": None,
        "ratio": None,
        "limit_share": None,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
