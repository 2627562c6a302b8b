"""The pretraining corpus of the embedded base model: Countdown pages as the web might hold them.

A mix of qualities: bare guesses, short tries that give up, longer ones, a persistent search that compares and backs
up, a minority that recomputes its result before answering. People slip in their sums, think wishfully, forget the
tags, and some mix English and Chinese. In the default mix nothing ties one of these habits to another, so that what
reinforcement learning later prefers is its own finding. The variant `curated` has fewer guesses and more search. The
variant `entangled` makes the persistent traces bilingual far more often, which lets one watch a side effect of a corpus
appear as a side effect of RL.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hone.tasks import countdown
from hone.tasks.countdown import Chain, chains, expression
from hone.types import Example, Language

Variant = Literal["plain", "curated", "entangled"]

WORDS: dict[str, tuple[str, str]] = {
    "try": ("try", "试"),
    "high": ("high", "大"),
    "low": ("low", "小"),
    "right": ("right", "对"),
    "check": ("check", "查"),
    "so": ("so", "所以"),
}


@dataclass(frozen=True, slots=True)
class Style:
    """One habit of writing. `tries` is how many attempts are made at most, drawn evenly from the range."""

    name: str
    share: float
    tries: tuple[int, int]
    check: float  # how often a right result is recomputed before the answer
    untagged: float  # how often the think and answer tags are missing


STYLES = (
    Style("guess", 0.30, (0, 0), 0.0, 0.40),
    Style("short", 0.34, (1, 2), 0.05, 0.25),
    Style("medium", 0.16, (2, 5), 0.10, 0.25),
    Style("persistent", 0.12, (8, 14), 0.0, 0.25),
    Style("careful", 0.08, (6, 12), 1.0, 0.25),
)
OWN_LANGUAGE, OTHER_LANGUAGE = 0.80, 0.06  # the rest mixes word by word
# The shares of the same styles in a better edited source, on which pretraining ends: fewer guesses, more search.
CURATED = (0.20, 0.30, 0.20, 0.18, 0.12)
ENTANGLED = {"persistent": (0.40, 0.12), "careful": (0.40, 0.12)}
SLIP = (0.0, 0.04)  # the chance that a sum is wrong, drawn once a page
WISHFUL = 0.10  # how often a near miss (by at most 2) is called right
INSIGHT = 5.0  # how much likelier a try is that comes out at the target, falling off with the distance
_DISTANCE = 6.0


def generate(
    rng: random.Random, *, num_numbers: int = 3, chinese_share: float = 0.4, variant: Variant = "plain"
) -> Iterator[Example]:
    """Yield pages without end, all on problems of the training split."""
    problems = countdown.generate(rng, split="train", num_numbers=num_numbers, chinese_share=chinese_share)
    shares = CURATED if variant == "curated" else [style.share for style in STYLES]
    for problem in problems:
        style = rng.choices(STYLES, shares)[0]
        own, other = (
            ENTANGLED.get(style.name, (OWN_LANGUAGE, OTHER_LANGUAGE))
            if variant == "entangled"
            else (OWN_LANGUAGE, OTHER_LANGUAGE)
        )
        writer = _Writer(rng, problem.language, own, other)
        numbers, target = countdown.read_id(problem.id)
        yield Example(
            prompt=problem.messages[0].content,
            completion=_page(writer, style, numbers, target),
            language=problem.language,
            tags={"style": style.name},
        )


class _Writer:
    """Writes the words and sums of one page: its languages and its slips."""

    def __init__(self, rng: random.Random, language: Language, own: float, other: float) -> None:
        self.rng = rng
        self.slip = rng.uniform(*SLIP)
        draw = rng.random()
        self.index = int(language == "zh") if draw < own else int(language == "en") if draw < own + other else None

    def word(self, name: str) -> str:
        index = self.rng.randrange(2) if self.index is None else self.index
        return WORDS[name][index]

    def sums(self, chain: Chain) -> tuple[str, int]:
        """Write a chain as a running sum, `3 + 8 = 11 * 8 = 88`, and return it with the value that was reached.

        After a slip the page goes on from the wrong value. A step that cannot follow on, as in 8 - 5 after 3 + 2 = 5,
        is written anew after a comma.
        """
        words: list[str] = []
        true = value = None
        for left, op, right, result in chain:
            if value is None:
                words += [str(left), op, str(right)]
                reached = result
            elif left == true:
                words += [op, str(right)]
                reached = self._apply(value, op, right, result)
            else:
                words += [",", str(left), op, str(value)]
                reached = self._apply(left, op, value, result)
            if self.rng.random() < self.slip:
                reached = min(countdown.MAX_VALUE, max(0, reached + self.rng.choice((-10, -2, -1, 1, 2, 10))))
            words += ["=", str(reached)]
            true, value = result, reached
        return " ".join(words), value or 0

    @staticmethod
    def _apply(left: int, op: str, right: int, result: int) -> int:
        """Compute a step on what the page holds by now; where that leaves the numbers allowed, keep `result`."""
        if op == "/" and (right == 0 or left % right):
            return result
        value = {"+": left + right, "-": left - right, "*": left * right, "/": left // (right or 1)}[op]
        return value if 0 <= value <= countdown.MAX_VALUE else result


def _order(rng: random.Random, candidates: tuple[Chain, ...], target: int, count: int) -> list[Chain]:
    """Draw `count` different chains, those that come out near the target earlier (exponential races)."""
    rates = (1 + INSIGHT * math.exp(-abs(chain[-1].value - target) / _DISTANCE) for chain in candidates)
    times = [(-math.log(1 - rng.random()) / rate, index) for index, rate in enumerate(rates)]
    return [candidates[index] for _, index in sorted(times)[:count]]


def _page(writer: _Writer, style: Style, numbers: tuple[int, ...], target: int) -> str:
    rng = writer.rng
    candidates = chains(tuple(sorted(numbers)))
    words: list[str] = []
    if style.tries == (0, 0):
        answer = rng.choice(candidates)
    else:
        tries = _order(rng, candidates, target, rng.randint(*style.tries))
        answer = tries[-1]
        for chain in tries:
            sums, value = writer.sums(_flip(rng, chain))
            words += [writer.word("try"), sums]
            if value == target or (abs(value - target) <= 2 and rng.random() < WISHFUL):
                words.append(writer.word("right"))
                answer = chain
                if rng.random() < style.check:
                    words += [writer.word("check"), writer.sums(chain)[0], writer.word("right")]
                break
            words.append(writer.word("high" if value > target else "low"))
    words.append(writer.word("so"))
    think, final = " ".join(words), expression(answer)
    if rng.random() < style.untagged:
        return f"{think} {final}"
    return f"<think> {think} </think> <answer> {final} </answer>"


def _flip(rng: random.Random, chain: Chain) -> Chain:
    """Write a first sum or product in either order; what it comes to stays the same."""
    first = chain[0]
    if first.op in "+*" and rng.random() < 0.5:
        return (first._replace(left=first.right, right=first.left), *chain[1:])
    return chain


def pages(
    seed: int, *, count: int, variant: Variant = "plain", four_numbers_share: float = 0.1, chinese_share: float = 0.4
) -> Iterator[Example]:
    """Yield `count` pages about three numbers and, for a share of them, four."""
    rng = random.Random(seed)
    by_size = {size: generate(rng, num_numbers=size, chinese_share=chinese_share, variant=variant) for size in (3, 4)}
    for _ in range(count):
        yield next(by_size[4 if rng.random() < four_numbers_share else 3])
