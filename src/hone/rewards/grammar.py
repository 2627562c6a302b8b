"""A small grammar for arithmetic on whole numbers: + - * / and parentheses, exact, with bounded work.

sum     = product (("+" | "-") product)*
product = factor (("*" | "/") factor)*
factor  = number | "-" factor | "(" sum ")"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARACTERS, MAX_DEPTH, MAX_DIGITS = 500, 20, 12
_TOKEN = re.compile(r"\s*(?:([0-9]+)|([-+*/()×÷−]))")
_SPELLINGS = {"×": "*", "÷": "/", "−": "-"}


class NotAnExpression(ValueError):
    """The text is outside the grammar, divides by zero, or exceeds a limit; the message says which."""


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression comes to, and the numbers that it is written with, sorted."""

    value: Fraction
    numbers: tuple[int, ...]


def parse(text: str) -> Value:
    """Return the value of an arithmetic expression; raise `NotAnExpression` where it is none."""
    if len(text) > MAX_CHARACTERS:
        raise NotAnExpression(f"longer than {MAX_CHARACTERS} characters")
    parser = _Parser(_tokens(text))
    value = parser.sum(0)
    if parser.tokens:
        raise NotAnExpression(f"{parser.tokens[-1]!r} is out of place")
    return Value(value, tuple(sorted(parser.numbers)))


def _tokens(text: str) -> list[str]:
    """Split into tokens, last one first, so that taking the next one is a pop."""
    tokens, place, text = [], 0, text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise NotAnExpression(f"{text[place:].lstrip()[0]!r} is not arithmetic")
        number, symbol = match.groups()
        tokens.append(number or _SPELLINGS.get(symbol, symbol))
        place = match.end()
    return tokens[::-1]


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.numbers: list[int] = []

    def sum(self, depth: int) -> Fraction:
        value = self.product(depth)
        while self.tokens and self.tokens[-1] in "+-":
            value = value + self.product(depth) if self.tokens.pop() == "+" else value - self.product(depth)
        return value

    def product(self, depth: int) -> Fraction:
        value = self.factor(depth)
        while self.tokens and self.tokens[-1] in "*/":
            if self.tokens.pop() == "*":
                value *= self.factor(depth)
            elif divisor := self.factor(depth):
                value /= divisor
            else:
                raise NotAnExpression("division by zero")
        return value

    def factor(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise NotAnExpression(f"nested deeper than {MAX_DEPTH}")
        if not self.tokens:
            raise NotAnExpression("it ends too early")
        token = self.tokens.pop()
        if token == "-":
            return -self.factor(depth + 1)
        if token == "(":
            value = self.sum(depth + 1)
            if not self.tokens or self.tokens.pop() != ")":
                raise NotAnExpression("a parenthesis is not closed")
            return value
        if not token.isdigit():
            raise NotAnExpression(f"{token!r} is out of place")
        if len(token) > MAX_DIGITS:
            raise NotAnExpression(f"a number of more than {MAX_DIGITS} digits")
        self.numbers.append(int(token))
        return Fraction(int(token))
