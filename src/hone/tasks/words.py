"""Word problems in plain English about things that people have, and worked traces in two manners for a cold start.

A problem is a story: someone has things, gets and gives some, and a question ends it. Its quantities, `num_numbers` of
them, say how hard it is: a sum for each but the first. Every value on the way is whole and from 0 to 99. Names, things
and wordings are drawn and change nothing, so two stories with the same arithmetic are the same problem, and fall in the
same split. The module knows problems, answers and how to write one down; it does not know how an answer is checked.

Traces come in two manners, as people write them: `terse` says all of it in one line, `steps` a sum after the other.
Both are true. Which of them a model gets right more often is not said here: reinforcement learning has to find it out.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hone.tasks.split import Split, split_of
from hone.types import Example, Message, Problem

NAME = "words"
MAX_VALUE = 99
HELD = (4, 40)  # what someone has to begin with
CHANGE = (2, 9)  # what is got or given
FACTORS = (2, 6)  # of boxes, of what is in each, and of friends who share
TIMES = (2, 4)
CHECK = 0.1  # how often a trace goes back over its last sum

_NAMES = ("Tom", "Ana", "Ben", "Mia", "Sam", "Lily", "Max", "Emma", "Jack", "Zoe", "Omar", "Nina")
_THINGS = (
    "apples", "books", "coins", "cards", "shells", "pencils", "stickers", "marbles", "cookies", "stamps", "toys",
    "flowers",
)  # fmt: skip
_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
_INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}
_CONTAINERS = ("boxes", "bags", "baskets")
_HELD = ("{who} has {k} {things}.", "{who} owns {k} {things}.", "There are {k} {things} on {who}'s table.")
_PACKED = ("{who} has {j} {packs} with {k} {things} in each.", "{who} buys {j} {packs} of {k} {things}.")
_GETS = ("{who} gets {k} more.", "{who} finds {k} more.", "{other} gives {who} {k} more.", "Then {who} buys {k} more.")
_GIVES = ("{who} gives {k} to {other}.", "{who} loses {k}.", "{who} sells {k} of them.", "Then {other} takes {k}.")
_NOW = ("How many {things} does {who} have now?", "How many {things} does {who} have in the end?")
_SHARED = (
    "{who} shares them equally among {k} friends. How many {things} does each friend get?",
    "{who} puts them into {k} equal piles. How many {things} are in each pile?",
)
_TIMES = ("{other} has {k} times as many. How many {things} does {other} have?",)
_TOGETHER = ("{other} has {k} more than {who}. How many {things} do they have together?",)


class Sum(NamedTuple):
    """One step, e.g. `Sum(14, "+", 9, 23)`."""

    left: int
    op: str
    right: int
    value: int

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right} = {self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A problem with the sums that solve it, and the same in one line."""

    problem: Problem
    sums: tuple[Sum, ...]
    line: str


class _Plot:
    """What has been told so far: sentences, the value that someone holds, its arithmetic as a name and in one line.

    A name holds the numbers in the order in which they are told, `&` for more than someone's own, both together.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        who, other = rng.sample(_NAMES, 2)
        self.words = {"who": who, "other": other, "things": rng.choice(_THINGS), "packs": rng.choice(_CONTAINERS)}
        self.sentences: list[str] = []
        self.sums: list[Sum] = []
        self.value, self.name, self.line = 0, "", ""

    def begin(self, value: int) -> None:
        self.value, self.name, self.line = value, str(value), str(value)

    def tell(self, wordings: Sequence[str], **numbers: int) -> None:
        self.sentences.append(self.rng.choice(wordings).format(**self.words, **numbers))

    def compute(self, op: str, right: int) -> None:
        left = self.value
        self.value = _OPERATIONS[op](left, right)
        self.sums.append(Sum(left, op, right, self.value))
        inner = f"({self.line})" if op in "*/" and ("+" in self.line or "-" in self.line) else self.line
        self.line = f"{inner} {op} {right}"


def _held(plot: _Plot) -> None:
    plot.begin(plot.rng.randint(*HELD))
    plot.tell(_HELD, k=plot.value)


def _packed(plot: _Plot) -> None:
    plot.begin(plot.rng.randint(*FACTORS))
    each = plot.rng.randint(*FACTORS)
    plot.name += f"*{each}"
    plot.tell(_PACKED, j=plot.value, k=each)
    plot.compute("*", each)


def _changes(plot: _Plot) -> None:
    op, k = plot.rng.choice("+-"), plot.rng.randint(*CHANGE)
    plot.name += f"{op}{k}"
    plot.tell(_GETS if op == "+" else _GIVES, k=k)
    plot.compute(op, k)


def _asks_now(plot: _Plot) -> None:
    plot.tell(_NOW)


def _asks_share(plot: _Plot) -> None:
    k = plot.rng.choice([k for k in range(FACTORS[0], FACTORS[1] + 1) if plot.value % k == 0] or [1])
    plot.name += f":{k}"
    plot.tell(_SHARED, k=k)
    plot.compute("/", k)


def _asks_times(plot: _Plot) -> None:
    k = plot.rng.randint(*TIMES)
    plot.name += f"*{k}"
    plot.tell(_TIMES, k=k)
    plot.compute("*", k)


def _asks_together(plot: _Plot) -> None:
    k, own, line = plot.rng.randint(*CHANGE), plot.value, plot.line
    plot.name += f"&{k}"
    plot.tell(_TOGETHER, k=k)
    plot.compute("+", k)
    plot.compute("+", own)
    plot.line = f"{line} + {line} + {k}"


_Part = tuple[Callable[[_Plot], None], int]  # what it tells, and how many numbers it brings
_OPENINGS: tuple[_Part, ...] = ((_held, 1), (_held, 1), (_packed, 2))
_QUESTIONS: tuple[_Part, ...] = (
    (_asks_now, 0), (_asks_now, 0), (_asks_share, 1), (_asks_times, 1), (_asks_together, 1),
)  # fmt: skip


def stories(rng: random.Random, *, split: Split, num_numbers: int = 3) -> Iterator[Story]:
    """Yield stories of one split without end. The same arithmetic may come again in other words."""
    while True:
        (opens, brings), (asks, asks_with) = rng.choice(_OPENINGS), rng.choice(_QUESTIONS)
        num_changes = num_numbers - brings - asks_with
        if num_changes < 0:
            continue
        plot = _Plot(rng)
        for tell in (opens, *[_changes] * num_changes, asks):
            tell(plot)
        if all(0 < step.value <= MAX_VALUE and step.right != 1 for step in plot.sums) and split_of(plot.name) == split:
            yield _story(plot)


def _story(plot: _Plot) -> Story:
    problem = Problem(
        id=f"{NAME}/{plot.name}/en", task=NAME, answer=str(plot.value),
        messages=(Message(role="user", content=" ".join(plot.sentences)),),
    )  # fmt: skip
    return Story(problem=problem, sums=tuple(plot.sums), line=f"{plot.line} = {plot.value}")


def generate(
    rng: random.Random, *, split: Split, num_numbers: int = 3, chinese_share: float = 0.0
) -> Iterator[Problem]:
    """Yield the problems of stories; `chinese_share` is not used: there are none in Chinese."""
    for story in stories(rng, split=split, num_numbers=num_numbers):
        yield story.problem


def traces(seed: int, *, count: int, num_numbers: Sequence[int]) -> list[Example]:
    """Return worked training problems, different ones, as many of each size in `num_numbers` as of the others."""
    rng = random.Random(f"{seed}/{NAME}/traces")
    draws = [stories(rng, split="train", num_numbers=size) for size in num_numbers]
    found: dict[str, Example] = {}
    while len(found) < count:
        story = next(draws[len(found) % len(draws)])
        found.setdefault(story.problem.id, _worked(rng, story))
    return list(found.values())


def _worked(rng: random.Random, story: Story) -> Example:
    """Write down how a story is solved, in either manner, sometimes with the last sum checked, and the answer."""
    thoughts = rng.choice((terse, steps))(story)
    if rng.random() < CHECK:
        thoughts += f" Check: {_inverse(story.sums[-1])}."
    return Example(
        prompt=story.problem.question,
        completion=f"<think> {thoughts} </think> <answer> {story.problem.answer} </answer>",
    )


def terse(story: Story) -> str:
    """Write `40 - 9 + 4 = 35.`"""
    return f"{story.line}."


def steps(story: Story) -> str:
    """Write `40 - 9 = 31. 31 + 4 = 35.`"""
    return " ".join(f"{step}." for step in story.sums)


def _inverse(step: Sum) -> Sum:
    """Undo a sum: 14 + 9 = 23 is checked by 23 - 9 = 14."""
    return Sum(step.value, _INVERSE[step.op], step.right, step.left)
