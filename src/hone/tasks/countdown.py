"""Countdown: make a target from a few small numbers with + - * /, each used once.

Every value on the way is a whole number from 0 to 99, so that each is one token for a small model. The module knows
the problems and every way to solve them; it does not know how an answer is checked (`rewards`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from hone.tasks.split import Split, split_of
from hone.types import Language, Message, Problem

NAME = "countdown"
SMALLEST, LARGEST = 1, 10
MAX_VALUE = 99
_RANGE = LARGEST - SMALLEST + 1
_QUESTION = {"en": "use {numbers} make {target}", "zh": "用 {numbers} 得 {target}"}


class Step(NamedTuple):
    """One operation, e.g. `Step(8, "*", 8, 64)` for 8 * 8 = 64."""

    left: int
    op: str
    right: int
    value: int


Chain = tuple[Step, ...]  # each step but the first uses the value of the one before it and one fresh number


def combine(a: int, b: int) -> list[Step]:
    """Return every operation on two numbers whose value is allowed; + and * in one order only."""
    big, small = max(a, b), min(a, b)
    steps = [Step(a, "+", b, a + b), Step(a, "*", b, a * b), Step(big, "-", small, big - small)]
    if small and big % small == 0:
        steps.append(Step(big, "/", small, big // small))
    return [step for step in steps if 0 <= step.value <= MAX_VALUE]


@lru_cache(maxsize=4096)
def chains(numbers: tuple[int, ...]) -> tuple[Chain, ...]:
    """Return every chain that uses each of the sorted `numbers` once: about 40 for three numbers, 600 for four."""
    found: dict[tuple[Step, ...], None] = {}

    def grow(chain: Chain, value: int, rest: tuple[int, ...]) -> None:
        if not rest:
            found[chain] = None
        for i, number in enumerate(rest):
            for step in combine(value, number):
                grow((*chain, step), step.value, rest[:i] + rest[i + 1 :])

    for i in range(len(numbers)):
        for j in range(i + 1, len(numbers)):
            rest = numbers[:i] + numbers[i + 1 : j] + numbers[j + 1 :]
            for step in combine(numbers[i], numbers[j]):
                grow((step,), step.value, rest)
    return tuple(found)


def expression(chain: Chain) -> str:
    """Write a chain as one expression: `((8, *, 8, 64), (64, -, 3, 61))` is `( 8 * 8 ) - 3`."""
    text, value = f"{chain[0].left} {chain[0].op} {chain[0].right}", chain[0].value
    for step in chain[1:]:
        inner = f"( {text} )"
        # Where both sides have the same value, either reading is the same expression.
        text = f"{inner} {step.op} {step.right}" if step.left == value else f"{step.left} {step.op} {inner}"
        value = step.value
    return text


def question(numbers: tuple[int, ...], target: int, language: Language) -> str:
    return _QUESTION[language].format(numbers=" ".join(map(str, numbers)), target=target)


def canonical(numbers: tuple[int, ...], target: int) -> str:
    return f"{'-'.join(map(str, sorted(numbers)))}={target}"


def read_id(problem_id: str) -> tuple[tuple[int, ...], int]:
    """Return the numbers and the target of a problem: `countdown/3-8-8=61/en` is `((3, 8, 8), 61)`."""
    numbers, _, target = problem_id.split("/")[1].partition("=")
    return tuple(map(int, numbers.split("-"))), int(target)


def generate(
    rng: random.Random, *, split: Split, num_numbers: int = 3, chinese_share: float = 0.4
) -> Iterator[Problem]:
    """Yield solvable problems of one split without end, the numbers in random order.

    A problem is drawn by drawing a solution, so that those with more solutions come more often.
    """
    draw = rng.random
    while True:
        # Draws are scaled by hand because `randint` would take a third of the time of this loop, which feeds corpora.
        numbers = tuple([SMALLEST + int(draw() * _RANGE) for _ in range(num_numbers)])
        chain = _draw_chain(draw, numbers)
        if chain is None or chain[-1].value == 0:
            continue
        target = chain[-1].value
        name = canonical(numbers, target)
        if split_of(name) != split:
            continue
        language: Language = "zh" if draw() < chinese_share else "en"
        yield Problem(
            id=f"{NAME}/{name}/{language}",
            task=NAME,
            messages=(Message(role="user", content=question(numbers, target, language)),),
            answer=expression(chain),
            verifier="expression",
            language=language,
        )


def _draw_chain(draw: Callable[[], float], numbers: tuple[int, ...]) -> Chain | None:
    """Combine the numbers in their (random) order with random operations; None where a value is not allowed."""
    value, steps = numbers[0], []
    for right in numbers[1:]:
        left, op = value, "+-*/"[int(draw() * 4)]
        if op in "-/" and left < right:
            left, right = right, left
        if op == "+":
            value = left + right
        elif op == "-":
            value = left - right
        elif op == "*":
            value = left * right
        elif right and left % right == 0:
            value = left // right
        else:
            return None
        if value > MAX_VALUE:
            return None
        steps.append(Step(left, op, right, value))
    return tuple(steps)
