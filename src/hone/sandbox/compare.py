"""Whether what a program printed or returned is what was expected. Runs outside every box, on plain data alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from hone.sandbox.inside.wire import json_key

TOLERANCE = 1e-6  # relative or absolute, as code contests state it most often
_REAL = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_MAX_NUMBER = 400  # characters


def same_output(expected: str, printed: bytes) -> str:
    """Compare what was printed with what was expected, line by line; return what differs, empty where nothing does.

    Blank lines at the end do not count, nor does white space around and between the tokens of a line. Tokens are equal
    as text; where the expected one has a decimal point or an exponent, numbers within 1e-6 of it, relative or
    absolute, are equal as well. Bytes that are not UTF-8 equal nothing.
    """
    wanted, found = _lines(expected), _lines(printed.decode("utf-8", "surrogateescape"))
    for number, (want, got) in enumerate(zip(wanted, found, strict=False), start=1):
        if want != got and not _same_line(want.split(), got.split()):
            return f"line {number} is {_short(got)}, not {_short(want)}"
    if len(wanted) != len(found):
        return f"{len(found)} lines, not {len(wanted)}"
    return ""


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _same_line(wanted: list[str], found: list[str]) -> bool:
    return len(wanted) == len(found) and all(map(_same_token, wanted, found))


def _same_token(wanted: str, found: str) -> bool:
    if wanted == found:
        return True
    if max(len(wanted), len(found)) > _MAX_NUMBER or not _REAL.fullmatch(wanted) or not _NUMBER.fullmatch(found):
        return False
    return _close(float(wanted), float(found))


def _close(wanted: float, found: float) -> bool:
    return math.isclose(wanted, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _short(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return repr(text if len(text) <= 40 else text[:37] + "...")


def same_value(expected: Any, value: Any) -> bool:
    """Compare a returned value with JSON data.

    Tuples equal lists, and a number equals an expected float within 1e-6, relative or absolute. True equals 1, as in
    Python. The value is as `wire.decode` gives it `as_json`, so that its keys are text.
    """
    if isinstance(expected, Mapping):
        if not isinstance(value, dict) or len(expected) != len(value):
            return False
        wanted = {json_key(key): part for key, part in expected.items()}
        return wanted.keys() == value.keys() and all(same_value(part, value[key]) for key, part in wanted.items())
    if isinstance(expected, list | tuple):
        alike = isinstance(value, list | tuple) and len(expected) == len(value)
        return alike and all(map(same_value, expected, value))
    if isinstance(expected, float) and type(value) in (int, float):
        both_nan = math.isnan(expected) and value != value
        return both_nan or expected == value or (_is_finite(value) and _close(expected, value))
    return type(value) in (type(None), bool, int, float, str) and bool(expected == value)


def _is_finite(value: float) -> bool:
    return abs(value) < 1 << 1000 if isinstance(value, int) else math.isfinite(value)
