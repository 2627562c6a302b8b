"""The grammar of arithmetic: what it takes, what it comes to, and what it refuses."""

import random
from fractions import Fraction

import pytest

from hone.rewards.grammar import NotAnExpression, parse


@pytest.mark.parametrize(
    ("text", "value", "numbers"),
    [
        ("7", 7, (7,)),
        ("007", 7, (7,)),
        ("7 + 3 * 2 - 4", 9, (2, 3, 4, 7)),
        ("( 7 + 3 ) * 2 - 4", 16, (2, 3, 4, 7)),
        ("10 - 3 - 2", 5, (2, 3, 10)),  # from the left
        ("16 / 4 / 2", 2, (2, 4, 16)),
        ("16 / 4 * 2", 8, (2, 4, 16)),
        ("2 - 3 * 4 / 6 + 1", 1, (1, 2, 3, 4, 6)),
        ("7 / 2", Fraction(7, 2), (2, 7)),
        ("1 / 3 + 1 / 3 + 1 / 3", 1, (1, 1, 1, 3, 3, 3)),  # exact
        ("- 3", -3, (3,)),
        ("2 - - 3", 5, (2, 3)),
        ("- ( 2 + 3 ) * 4", -20, (2, 3, 4)),
        ("2 * - 3", -6, (2, 3)),
        ("8*8-3", 61, (3, 8, 8)),
        ("\t( 8\n* 8 )  - 3 ", 61, (3, 8, 8)),
        ("8 × 8 − 3", 61, (3, 8, 8)),
        ("9 ÷ 3", 3, (3, 9)),
        ("( ( ( 5 ) ) )", 5, (5,)),
        ("0 / 5", 0, (0, 5)),
        ("999999999999", 999_999_999_999, (999_999_999_999,)),
    ],
)
def test_an_expression_comes_to_its_value_and_names_its_numbers(
    text: str, value: int | Fraction, numbers: tuple[int, ...]
) -> None:
    parsed = parse(text)
    assert parsed.value == value
    assert parsed.numbers == numbers


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "ends too early"),
        ("   ", "ends too early"),
        ("+", "'\\+' is out of place"),
        ("+ 3", "'\\+' is out of place"),
        ("3 +", "ends too early"),
        ("3 + * 4", "'\\*' is out of place"),
        ("3 4", "'4' is out of place"),
        ("3 ( 4 )", "'\\(' is out of place"),
        ("( 3 + 4", "a parenthesis is not closed"),
        ("( 3 4 )", "a parenthesis is not closed"),
        ("3 + 4 )", "'\\)' is out of place"),
        (")", "'\\)' is out of place"),
        ("( )", "'\\)' is out of place"),
        ("1 / 0", "division by zero"),
        ("1 / ( 2 - 2 )", "division by zero"),
        ("0 / 0", "division by zero"),
        ("2 ** 3", "'\\*' is out of place"),
        ("2 // 3", "'/' is out of place"),
        ("2 ^ 3", "'\\^' is not arithmetic"),
        ("2 % 3", "'%' is not arithmetic"),
        ("3.5", "'.' is not arithmetic"),
        ("1e3", "'e' is not arithmetic"),
        ("1_000", "'_' is not arithmetic"),
        ("1,000", "',' is not arithmetic"),
        ("0x10", "'x' is not arithmetic"),
        ("x", "'x' is not arithmetic"),
        ("3 = 3", "'=' is not arithmetic"),
        ("3²", "is not arithmetic"),
        ("²", "is not arithmetic"),
        ("½", "is not arithmetic"),
        ("٣", "is not arithmetic"),  # Arabic-Indic three
        ("３", "is not arithmetic"),  # full-width three
        ("三", "is not arithmetic"),
        ("3 + \x00", "is not arithmetic"),
        ("1000000000000", "a number of more than 12 digits"),
        ("0" * 13, "a number of more than 12 digits"),
        ("1 + " * 130 + "1", "longer than 500 characters"),
        (" " * 501, "longer than 500 characters"),
        ("- " * 21 + "1", "nested deeper than 20"),
        ("(" * 21 + "1" + ")" * 21, "nested deeper than 20"),
        ("(" * 400, "nested deeper than 20"),
    ],
)
def test_what_is_no_expression_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(NotAnExpression, match=why):
        parse(text)


def test_what_is_just_within_the_limits_is_taken() -> None:
    assert parse("(" * 20 + "1" + ")" * 20).value == 1
    assert parse("- " * 20 + "1").value == 1
    assert parse("1" + "+1" * 249).value == 250  # 499 characters


def test_the_longest_fractions_stay_exact() -> None:
    # 29 factors of twelve digits a side, 463 characters in all.
    text = "*".join(["999999999989"] * 18) + "/" + "/".join(["999999999989"] * 18)
    assert parse(text).value == 1


def test_it_agrees_with_exact_arithmetic_on_random_expressions() -> None:
    rng = random.Random(0)

    def grow(depth: int) -> tuple[str, Fraction | None]:
        """Return an expression in full parentheses with its value, None where it divides by zero."""
        if depth == 0:
            number = rng.randint(0, 9)
            return str(number), Fraction(number)
        (left_text, left), (right_text, right), op = grow(depth - 1), grow(depth - 1), rng.choice("+-*/")
        text = f"({left_text} {op} {right_text})"
        if left is None or right is None or (op == "/" and right == 0):
            return text, None
        return text, {"+": left + right, "-": left - right, "*": left * right, "/": left / (right or 1)}[op]

    refused = 0
    for _ in range(500):
        text, value = grow(rng.randint(1, 4))
        if value is None:
            refused += 1
            with pytest.raises(NotAnExpression, match="division by zero"):
                parse(text)
        else:
            assert parse(text).value == value
    assert 20 < refused < 250
