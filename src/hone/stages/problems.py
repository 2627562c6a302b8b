"""The problems that a stage's settings describe, generated or read from a file. No torch here, for `hone preflight`."""

from __future__ import annotations

from pathlib import Path

from hone.config import Dataset, Problems
from hone.tasks import problems as generate
from hone.tasks.datasets import Loaded, load_problems
from hone.types import Problem


def load(problems: Problems | Dataset) -> Loaded:
    """Make or read the problems that a recipe describes, with a line for each row that was left out.

    Refuse more malformed rows than the recipe tolerates, by file and line.
    """
    if isinstance(problems, Dataset):
        return load_problems(**problems.model_dump())
    made = generate(
        problems.task, split=problems.split, count=problems.count, seed=problems.seed,
        num_numbers=problems.num_numbers, chinese_share=problems.chinese_share,
    )  # fmt: skip
    return Loaded(made, [])


def find_problems(problems: Problems | Dataset) -> list[Problem]:
    """Return the problems alone."""
    return load(problems).problems


def benchmark_name(problems: Problems | Dataset) -> str:
    """Return the name under which figures on these problems are reported, e.g. `countdown-3/test`."""
    if isinstance(problems, Dataset):
        return f"{Path(problems.path).stem}/{problems.split}"
    numbers = f"-{problems.num_numbers}" if problems.task in ("countdown", "chain", "words") else ""
    return f"{problems.task}{numbers}/{problems.split}"
