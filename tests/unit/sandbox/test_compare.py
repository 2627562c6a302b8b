"""What counts as the same output and the same value."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hone.sandbox.compare import same_output, same_value
from hone.sandbox.inside.wire import WireError, decode, encode

SAME = [
    ("42\n", b"42"),
    ("42", b"42\n\n\n"),
    ("a b\nc\n", b"a b   \r\nc\t\n"),
    ("a b", b"  a   b"),
    ("0.5", b"0.5000001"),
    ("0.0", b"-0.0000001"),
    ("1e3", b"1000"),
    ("1000000.0", b"1000000.5"),
    ("3.0", b"3"),
    ("\u00e9\u4e2d", "\u00e9\u4e2d".encode()),
    ("", b""),
    ("", b"\n \n"),
]
DIFFERENT = [
    ("42\n", b"42 43"),
    ("42\n", b"42\n43"),
    ("a\nb", b"a b"),
    ("a\n\nb", b"a\nb"),
    ("3", b"3.0"),  # a whole number is exact
    ("3", b"03"),
    ("0.5", b"0.50001"),
    ("0.5", b"nan"),
    ("0.5", b"0x0.8"),
    ("0.5", b"5_0e-2"),
    ("nan", b"inf"),
    ("YES", b"yes"),
    ("42", b""),
    ("\ufffd", b"\xff"),  # what is no UTF-8 equals nothing
    ("0." + "1" * 500, b"0.1"),
]


@pytest.mark.parametrize(("expected", "printed"), SAME)
def test_the_same_output(expected: str, printed: bytes) -> None:
    assert same_output(expected, printed) == ""


@pytest.mark.parametrize(("expected", "printed"), DIFFERENT)
def test_another_output(expected: str, printed: bytes) -> None:
    assert same_output(expected, printed) != ""


def test_the_difference_is_named() -> None:
    assert same_output("1\n2\n", b"1\n3\n") == "line 2 is '3', not '2'"
    assert same_output("1\n2\n", b"1\n") == "1 lines, not 2"
    assert "\\udcff" in same_output("1", b"\xff")


def returned(value: object) -> Any:
    """Return a value as this process gets it from a box."""
    return decode(encode(value, max_bytes=10_000)[0], as_json=True)[0]


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        ([1, 2], (1, 2)),
        ((1, [2]), [1, (2,)]),
        (3, 3.0),
        (3.0, 3),
        (0.1 + 0.2, 0.3),
        (True, 1),
        (math.nan, math.nan),
        (math.inf, math.inf),
        ({"1": [1]}, {1: (1,)}),
        ({1: 2}, {1: 2}),
        ({"null": 0, "true": 1}, {None: 0, True: 1}),
        (None, None),
        ("a", "a"),
    ],
)
def test_the_same_value(expected: Any, value: object) -> None:
    assert same_value(expected, returned(value))


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        ([1, 2], [1, 2, 3]),
        ([1], 1),
        (3, 3.0000001),  # a whole number is exact
        (0.3, 0.301),
        (0.3, math.nan),
        (1.0, 10**400),
        ("1", 1),
        (None, 0),
        (None, False),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, [["a", 1]]),
        ("ab", ["a", "b"]),
    ],
)
def test_another_value(expected: Any, value: object) -> None:
    assert not same_value(expected, returned(value))


def test_what_is_no_json_is_refused() -> None:
    for value in ({1, 2}, frozenset({1}), {(1, 2): 3}):
        with pytest.raises(WireError, match="JSON does not have"):
            returned(value)
