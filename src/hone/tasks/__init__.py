"""Where problems come from: every task with its generator, and lists of different problems drawn from them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

from hone.tasks import countdown, general, numbers, words
from hone.tasks.split import Split
from hone.types import HoneError, Problem


class Generator(Protocol):
    """Yields problems of one split without end; the same problem may come again."""

    def __call__(
        self, rng: random.Random, *, split: Split, num_numbers: int, chinese_share: float
    ) -> Iterator[Problem]: ...


GENERATORS: dict[str, Generator] = {
    "countdown": countdown.generate,
    "chain": numbers.generate_chain,
    "gcd": numbers.generate_gcd,
    "linear": numbers.generate_linear,
    "general": general.generate,
    "words": words.generate,
}
# A list is given up after this many draws in a row without a new problem: at least the first figure, and the second
# for each problem found. One that has not come by then makes up less than a thousandth of the draws.
PATIENCE, PATIENCE_A_PROBLEM = 20_000, 50


def problems(
    task: str, *, split: Split, count: int, seed: int, num_numbers: int = 3, chinese_share: float = 0.4
) -> list[Problem]:
    """Return the first `count` different problems of a seed, those that differ only in language being the same.

    A shorter list is the beginning of a longer one. Refuse where the split holds fewer.
    """
    if task not in GENERATORS:
        raise HoneError(f"there is no task {task!r}; the tasks are {', '.join(GENERATORS)}")
    return list(_drawn(task, split, count, seed, num_numbers, chinese_share))


@lru_cache(maxsize=4)  # a stage asks for its problems twice, once for the preflight
def _drawn(
    task: str, split: Split, count: int, seed: int, num_numbers: int, chinese_share: float
) -> tuple[Problem, ...]:
    rng = random.Random(f"{seed}/{task}/{split}/{num_numbers}")
    draws = GENERATORS[task](rng, split=split, num_numbers=num_numbers, chinese_share=chinese_share)
    found: dict[str, Problem] = {}
    misses = 0
    while len(found) < count:
        problem = next(draws)
        name = without_language(problem.id)
        if name not in found:
            found[name], misses = problem, 0
        elif (misses := misses + 1) >= max(PATIENCE, PATIENCE_A_PROBLEM * len(found)):
            raise HoneError(
                f"{task}: {count} different {split} problems were asked for, but only "
                f"{len(found)} were found; ask for at most that many"
            )
    return tuple(found.values())


def without_language(problem_id: str) -> str:
    """Return what two wordings of the same problem share: `gcd/12-18/zh` is `gcd/12-18`."""
    return problem_id.rpartition("/")[0]
