"""The split of a problem: fixed for ever, in its shares, and disjoint for every task, seed and language."""

import hashlib
import random
from collections import Counter
from itertools import islice

import pytest

from hone.tasks import GENERATORS, without_language
from hone.tasks.split import Split, split_of

ENGLISH_ONLY = {"words"}
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def bucket(text: str) -> int:
    return int(hashlib.blake2b(text.encode(), digest_size=4).hexdigest(), 16) % 100


@pytest.mark.parametrize(
    ("canonical", "split"),
    # Recorded once: a change here would let held-out problems of published models into training.
    [("3-8-8=61", "test"), ("12-18", "train"), ("3x+4=19", "train"), ("2*3+7-4", "train"), ("1-5-9=45", "validation")],
)
def test_the_split_of_a_problem_never_changes(canonical: str, split: Split) -> None:
    assert split_of(canonical) == split


def test_the_bounds_between_the_splits_are_at_64_and_80_of_100() -> None:
    by_bucket = {bucket(str(i)): split_of(str(i)) for i in range(2000)}
    assert sorted(by_bucket) == list(range(100))
    assert {b for b, split in by_bucket.items() if split == "train"} == set(range(64))
    assert {b for b, split in by_bucket.items() if split == "validation"} == set(range(64, 80))
    assert {b for b, split in by_bucket.items() if split == "test"} == set(range(80, 100))


def test_the_splits_have_their_shares() -> None:
    counts = Counter(split_of(f"{i}={i * i}") for i in range(20_000))
    # Four standard deviations of 20,000 draws: at most 4 * sqrt(0.64 * 0.36 / 20,000) = 0.0136.
    for split, share in (("train", 0.64), ("validation", 0.16), ("test", 0.20)):
        assert abs(counts[split] / 20_000 - share) < 0.0136


@pytest.mark.parametrize("task", GENERATORS)
def test_training_and_held_out_problems_are_disjoint_whatever_seed_and_language(task: str) -> None:
    seen: dict[str, set[str]] = {split: set() for split in SPLITS}
    languages: dict[str, set[str]] = {}
    for seed, split in enumerate(SPLITS):
        draws = GENERATORS[task](random.Random(seed), split=split, num_numbers=3, chinese_share=0.5)
        for problem in islice(draws, 10_000):
            seen[split].add(without_language(problem.id))
            languages.setdefault(without_language(problem.id), set()).add(problem.language)
    assert min(map(len, seen.values())) > 200
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    # The same problem was met in both languages, so that the disjointness above is one across languages.
    if task not in ENGLISH_ONLY:
        assert sum(len(found) == 2 for found in languages.values()) > 200


@pytest.mark.parametrize("task", ["countdown", "gcd"])
def test_the_order_of_the_numbers_does_not_change_the_split(task: str) -> None:
    orders: dict[str, set[tuple[str, ...]]] = {}
    draws = GENERATORS[task](random.Random(0), split="test", num_numbers=3, chinese_share=0.0)
    for problem in islice(draws, 10_000):
        numbers = tuple(word for word in problem.messages[0].content.split() if word.isdecimal())
        orders.setdefault(problem.id, set()).add(numbers)
    assert sum(len(found) > 1 for found in orders.values()) > 100
