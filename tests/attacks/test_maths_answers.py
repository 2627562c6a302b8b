"""Hostile answers: each is judged within its limits, never as right, and changes no other verdict."""

import resource
import tempfile
import time
from pathlib import Path

import pytest

from hone.rewards.extract import EXTRACTIONS, extract
from hone.rewards.maths import canonical, equivalent, equivalent_all
from hone.types import Verdict

SECONDS = 20.0  # far above the wall limit of 2 s: this says "it does not hang", on a busy machine too
MARK = Path(tempfile.gettempdir()) / "hone-attack-was-evaluated"
CODE = f"__import__('pathlib').Path('{MARK}').touch()"

REFUSED = {
    "tower of powers": "10^{10^{10^{10}}}",
    "tower in Python": "9**9**9**9",
    "tower of groups": "{9^9}^{9^9}",
    "huge factorial": "99999999!",
    "factorials of factorials": "((3!)!)!",
    "factorial of a power": "(10^9)!",
    "10,000 parentheses": "(" * 10_000 + "42" + ")" * 10_000,
    "1,000 parentheses": "(" * 990 + "42" + ")" * 990,
    "a megabyte of LaTeX": "\\frac{" * 160_000,
    "unclosed braces": "{" * 1000 + "42",
    "a million digits": "4" * 1_000_000,
    "5,000 digits": "4" * 5000,
    "huge exponent": "1e999999999",
    "tiny exponent": "1E-400000",
    "negative power": "10^{-999999}",
    "a thousand candidates": ",".join(map(str, range(1000))),
    "bars": "|" * 500,
    "raised tower": "9⁹^9⁹^9⁹",
    "raised digits": "9" + "⁹" * 1500,
    "a column of 300 rows": "\\begin{pmatrix}" + "1\\\\" * 300 + "\\end{pmatrix}",
    "nested roots": "\\sqrt{" * 200 + "42" + "}" * 200,
}
WRONG = {
    "empty": "",
    "lone surrogate": "\ud800",
    "NUL": "\x0042",
    "unopened braces": "}" * 1000,
    "code": CODE,
    "code in LaTeX": f"\\operatorname{{{CODE}}}",
    "lambda": "(lambda: 42)()",
    "division by zero": "\\frac{1}{0}",
    "division by zero in digits": "1/0",
    "huge matrix": "\\begin{pmatrix}" + "&".join("1" * 400) + "\\end{pmatrix}",
    "sum left to the grader": "\\sum_{k=1}^{99} k",
    "integral left to the grader": "\\int_0^{42} 1 dx",
    "a thousand factors": "\\times".join("9" * 300),
    "endless product": "\\prod_{n=1}^{\\infty} 2",
    "alternatives": "x>1 or " * 200 + "x>2",
    "millions": "9 million" * 200,
    "towers of e": "e^{e^{e^{e}}}",
    "format directives": "{0.__class__}%s%n",
}
EXPENSIVE = {  # inside the limits, and too dear for the worker: never right, and nothing else suffers
    "binomial": "\\binom{10000000}{5000000}",
    "powers of sums": "(a+b+c+d)^{300}",
    "powers of powers": "((2^{9999})^{9999})^{9999}",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_too_big_is_wrong_before_anything_computes_it(name: str) -> None:
    found = equivalent("\\sqrt{42}", REFUSED[name])
    assert found.verdict is Verdict.WRONG
    assert found.why.startswith("outside the limits")


def test_hostile_answers_are_wrong_and_their_neighbours_keep_their_verdicts() -> None:
    hostile = [("\\sqrt{42}", text) for text in [*WRONG.values(), *EXPENSIVE.values()]]
    honest = [("\\sqrt{4}", "2"), ("\\sqrt{4}", "3"), ("x+1", "1+x")]
    alone = [found.verdict for found in equivalent_all(honest)]
    mixed = equivalent_all([pair for attack in hostile for pair in (attack, *honest)])
    assert alone == ["right", "wrong", "right"]
    for place, name in enumerate([*WRONG, *EXPENSIVE]):
        attack, *neighbours = mixed[4 * place : 4 * place + 4]
        assert attack.verdict is (Verdict.WRONG if name in WRONG else Verdict.UNSCORABLE), (name, attack)
        assert [found.verdict for found in neighbours] == alone, name
    assert not MARK.exists()


def test_a_hostile_answer_does_not_hold_up_the_next() -> None:
    equivalent("\\sqrt{4}", "2")
    start = time.monotonic()
    assert equivalent("5", EXPENSIVE["binomial"]).verdict is Verdict.UNSCORABLE
    assert equivalent("\\sqrt{4}", "2").verdict is Verdict.RIGHT
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize("text", [*REFUSED.values(), *WRONG.values(), *EXPENSIVE.values()])
def test_hostile_text_raises_nowhere(text: str) -> None:
    for how in EXTRACTIONS:
        extract(text, how)
        extract(f"<think>{text}</think><answer>\\boxed{{{text}}}</answer>", how)
    canonical(text)


@pytest.mark.parametrize("gold", REFUSED.values())
def test_hostile_references_are_unscorable(gold: str) -> None:
    assert equivalent(gold, gold).verdict is Verdict.UNSCORABLE


def test_our_own_memory_stays_small() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    equivalent_all([("5", "1+" * 500_000), ("5", "9" * 10_000_000), ("5", "\\sqrt{" * 100_000)])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB


@pytest.mark.parametrize(
    "piece",
    [
        "\\alpha",
        "a ",
        "1,000,",
        "^",
        "^{2",
        "( ",
        "|",
        "1/",
        "1^ ",
        "\\{x|",
        "<",
        "1 or ",
        "²",
        "\\text{a}",
        "$1/",
        "_2",
        "\\frac1",
    ],
)
def test_no_pattern_backtracks_without_end(piece: str) -> None:
    start = time.monotonic()
    for end in ("", "!", "?=5", "\x01", "{"):
        canonical(piece * (1900 // len(piece)) + end)
    assert time.monotonic() - start < SECONDS  # exponential time would be for ever
