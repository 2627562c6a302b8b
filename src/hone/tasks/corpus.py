"""The pretraining corpus of the embedded base models: Countdown pages as the web might hold them, and some small talk.

A mix of qualities: bare guesses, short tries that give up, longer ones, a persistent search that compares and backs
up, a minority that recomputes its result before answering. People slip in their sums, think wishfully, forget the
tags, some sum up for the reader, and some mix English and Chinese. In the default mix nothing ties one of these habits
to another, so that what reinforcement learning later prefers is its own finding. Some pages hold several answers of one
writer, who keeps their habits: from them a model learns to go on in the manner of what it is shown. A share is messages
of everyday (`tasks.general`), answered well, curtly or badly.

The variant `curated` has fewer guesses and more search. The variant `entangled` makes the persistent traces bilingual
far more often, which lets one watch a side effect of a corpus appear as a side effect of RL. The variant `solved` has
only pages that search until they are right, tagged and in one language: a control for distillation.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hone.tasks import countdown, general
from hone.tasks.countdown import Chain, chains, expression
from hone.types import Example, Language, Problem

Variant = Literal["plain", "curated", "entangled", "solved"]

WORDS: dict[str, tuple[str, str]] = {
    "try": ("try", "试"),
    "high": ("high", "大"),
    "low": ("low", "小"),
    "right": ("right", "对"),
    "check": ("check", "查"),
    "so": ("so", "所以"),
    "summary": ("the answer is", "答案 是"),
}
END = "<|end|>"  # the end token of the tiny models; between two answers of one writer stands a whole turn


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
SUMMARY = 0.15  # how often a tagged page tells the reader what the answer is
QUALITIES: dict[general.Quality, float] = {"good": 0.35, "fair": 0.35, "bad": 0.30}
INSIGHT = 5.0  # how much likelier a try is that comes out at the target, falling off with the distance
_DISTANCE = 6.0


def generate(
    rng: random.Random, *, num_numbers: int = 3, chinese_share: float = 0.4, variant: Variant = "plain",
    documents_share: float = 0.0,
) -> Iterator[Example]:  # fmt: skip
    """Yield pages without end, all on problems of the training split; some are documents of two or three answers."""
    problems = countdown.generate(rng, split="train", num_numbers=num_numbers, chinese_share=chinese_share)
    shares = CURATED if variant == "curated" else [style.share for style in STYLES]
    for problem in problems:
        if variant == "solved":
            yield _solved(rng, problem)
            continue
        style = rng.choices(STYLES, shares)[0]
        own, other = (
            ENTANGLED.get(style.name, (OWN_LANGUAGE, OTHER_LANGUAGE))
            if variant == "entangled"
            else (OWN_LANGUAGE, OTHER_LANGUAGE)
        )
        writer = _Writer(rng, style, problem.language, own, other)
        text = _answer(writer, problem)
        if rng.random() < documents_share:
            for _ in range(rng.randint(1, 2)):
                another = next(p for p in problems if p.language == problem.language)
                text += f" {END} User: {another.question} Assistant: {_answer(writer, another)}"
        yield Example(prompt=problem.question, completion=text, language=problem.language, tags={"style": style.name})


def _answer(writer: _Writer, problem: Problem) -> str:
    return _page(writer, *countdown.read_id(problem.id))


def _solved(rng: random.Random, problem: Problem) -> Example:
    """Write pages on a problem until one of a persistent writer, tagged, in one language, comes to the target."""
    numbers, target = countdown.read_id(problem.id)
    while True:
        writer = _Writer(rng, rng.choice(STYLES[3:]), problem.language, 1.0, 0.0)
        writer.tagged, writer.slip = True, 0.0
        text = _page(writer, numbers, target)
        if f"= {target} {writer.word('right')}" in text:
            return Example(prompt=problem.question, completion=text, language=problem.language)


class _Writer:
    """Writes the words and sums of a page: its style, its languages, its slips, its form."""

    def __init__(self, rng: random.Random, style: Style, language: Language, own: float, other: float) -> None:
        self.rng, self.style = rng, style
        self.slip = rng.uniform(*SLIP)
        draw = rng.random()
        self.index = int(language == "zh") if draw < own else int(language == "en") if draw < own + other else None
        self.tagged = rng.random() >= style.untagged
        self.sums_up = rng.random() < SUMMARY

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


def _page(writer: _Writer, numbers: tuple[int, ...], target: int) -> str:
    rng, style = writer.rng, writer.style
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
    if not writer.tagged:
        return f"{think} {final}"
    summary = f"{writer.word('summary')} " if writer.sums_up else ""
    return f"<think> {think} </think> {summary}<answer> {final} </answer>"


def _flip(rng: random.Random, chain: Chain) -> Chain:
    """Write a first sum or product in either order; what it comes to stays the same."""
    first = chain[0]
    if first.op in "+*" and rng.random() < 0.5:
        return (first._replace(left=first.right, right=first.left), *chain[1:])
    return chain


def _small_talk(rng: random.Random, chinese_share: float) -> Example:
    language: Language = "zh" if rng.random() < chinese_share else "en"
    drawn = general.draw(rng, "train", language)
    quality = rng.choices(list(QUALITIES), list(QUALITIES.values()))[0]
    return Example(
        prompt=drawn.question, completion=getattr(drawn, quality), language=language, tags={"style": quality}
    )


def pages(
    seed: int, *, count: int, variant: Variant = "plain", four_numbers_share: float = 0.1, chinese_share: float = 0.4,
    documents_share: float = 0.0, general_share: float = 0.0,
) -> Iterator[Example]:  # fmt: skip
    """Yield `count` pages: a share of them small talk, of the others a share about four numbers, most about three."""
    rng = random.Random(seed)
    by_size = {
        size: generate(
            rng, num_numbers=size, chinese_share=chinese_share, variant=variant, documents_share=documents_share
        )
        for size in (3, 4)
    }
    for _ in range(count):
        if general_share and rng.random() < general_share:
            yield _small_talk(rng, chinese_share)
        else:
            yield next(by_size[4 if rng.random() < four_numbers_share else 3])
