"""Three more tasks whose answer is one number: arithmetic chains, greatest common divisors, linear equations.

As in Countdown every number in a question, on the way and in an answer is whole and from 0 to 99, so that each is one
token for a small model. The module knows the problems and their answers; it does not know how an answer is checked.

Each generator yields problems of one split without end. The split goes by the problem's canonical form, which its id
holds between the task and the language; what counts as the same problem is said at each generator.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

from hone.tasks.split import Split, split_of
from hone.types import Language, Message, Problem

MAX_VALUE = 99
CHAIN_LARGEST = 20  # the numbers of a chain are 1 to this
GCD_SMALLEST = 2
LINEAR_FACTORS = (2, 9)  # a in a x + b = c
LINEAR_LARGEST = 20  # x is 0 to this, b 1 to this or as much below zero

_QUESTION: dict[str, dict[Language, str]] = {
    "chain": {"en": "compute {}", "zh": "计算 {}"},
    "gcd": {"en": "gcd of {}", "zh": "{} 的 最大公约数"},
    "linear": {"en": "solve {}", "zh": "解 {}"},
}
# Every word of the questions, symbols among them, that is not a number from 0 to 99.
QUESTION_WORDS = ("compute", "计算", "gcd", "of", "的", "最大公约数", "solve", "解", "x", "=", "+", "-", "*")

Term = tuple[str, tuple[int, ...]]  # a sign and the factors of a product: - 2 * 3 is ("-", (2, 3))


def generate_chain(
    rng: random.Random, *, split: Split, num_numbers: int = 3, chinese_share: float = 0.4
) -> Iterator[Problem]:
    """Yield arithmetic chains of `num_numbers` numbers with + - * and the usual precedence.

    Every product and every running total is from 0 to 99. Two chains are the same problem where they add and subtract
    the same products, in whatever order: 7 + 3 * 2 - 4 is 2 * 3 - 4 + 7. Chains that only come to the same value,
    such as 2 + 2 and 3 + 1, are different problems, and so are 1 * 7 + 2 and 7 + 2.
    """
    while True:
        numbers = rng.choices(range(1, CHAIN_LARGEST + 1), k=num_numbers)
        operations = rng.choices("+-*", k=num_numbers - 1)
        terms = chain_terms(numbers, operations)
        value = _chain_value(terms)
        if value is None:
            continue
        name = chain_canonical(terms)
        if split_of(name) == split:
            words = [str(numbers[0])]
            for op, number in zip(operations, numbers[1:], strict=True):
                words += [op, str(number)]
            yield _problem(rng, "chain", name, " ".join(words), value, chinese_share)


def generate_gcd(
    rng: random.Random, *, split: Split, num_numbers: int = 3, chinese_share: float = 0.4
) -> Iterator[Problem]:
    """Yield two different numbers from 2 to 99 whose greatest common divisor is asked for.

    Half of the pairs are drawn as multiples of one divisor, so that about two answers in three are greater than 1. A
    pair is the same problem in either order. `num_numbers` is not used: there are always two.
    """
    while True:
        divisor = rng.randint(2, MAX_VALUE // 2) if rng.random() < 0.5 else 1
        smallest = max(1, GCD_SMALLEST // divisor)
        a, b = (divisor * rng.randint(smallest, MAX_VALUE // divisor) for _ in range(2))
        if a == b:
            continue
        name = gcd_canonical(a, b)
        if split_of(name) == split:
            yield _problem(rng, "gcd", name, f"{a} {b}", math.gcd(a, b), chinese_share)


def generate_linear(
    rng: random.Random, *, split: Split, num_numbers: int = 3, chinese_share: float = 0.4
) -> Iterator[Problem]:
    """Yield equations `a x + b = c` or `a x - b = c` with one solution, which is whole; the answer is the value of x.

    Equations are the same problem where a, b and c are the same: 2 x + 4 = 10 and its multiple 4 x + 8 = 20 are two
    problems. `num_numbers` is not used: there are always three.
    """
    while True:
        a, x = rng.randint(*LINEAR_FACTORS), rng.randint(0, LINEAR_LARGEST)
        sign, b = rng.choice("+-"), rng.randint(1, LINEAR_LARGEST)
        c = a * x + b if sign == "+" else a * x - b
        if a * x > MAX_VALUE or not 0 <= c <= MAX_VALUE:
            continue
        name = f"{a}x{sign}{b}={c}"
        if split_of(name) == split:
            yield _problem(rng, "linear", name, f"{a} x {sign} {b} = {c}", x, chinese_share)


def chain_terms(numbers: Sequence[int], operations: Sequence[str]) -> list[Term]:
    """Group a chain into its signed products: 7 + 3 * 2 - 4 is `[("+", (7,)), ("+", (3, 2)), ("-", (4,))]`."""
    terms: list[Term] = [("+", (numbers[0],))]
    for op, number in zip(operations, numbers[1:], strict=True):
        if op == "*":
            sign, factors = terms[-1]
            terms[-1] = (sign, (*factors, number))
        else:
            terms.append((op, (number,)))
    return terms


def chain_canonical(terms: Sequence[Term]) -> str:
    """Write the products of a chain in one order, those that are added first: 7 + 3 * 2 - 4 is `2*3+7-4`."""
    ordered = sorted((sign, sorted(factors)) for sign, factors in terms)  # "+" sorts before "-"
    text = "".join(sign + "*".join(map(str, factors)) for sign, factors in ordered)
    return text.removeprefix("+")


def gcd_canonical(a: int, b: int) -> str:
    return f"{min(a, b)}-{max(a, b)}"


def _chain_value(terms: Sequence[Term]) -> int | None:
    """Return what a chain comes to; None where a product or a running total leaves 0 to 99."""
    value = 0
    for sign, factors in terms:
        product = math.prod(factors)
        value = value + product if sign == "+" else value - product
        if product > MAX_VALUE or not 0 <= value <= MAX_VALUE:
            return None
    return value


def _problem(rng: random.Random, task: str, name: str, question: str, answer: int, chinese_share: float) -> Problem:
    language: Language = "zh" if rng.random() < chinese_share else "en"
    return Problem(
        id=f"{task}/{name}/{language}",
        task=task,
        messages=(Message(role="user", content=_QUESTION[task][language].format(question)),),
        answer=str(answer),
        language=language,
    )
