"""Whether two answers are equal where LaTeX must be understood: what the worker processes run for `maths`.

math-verify parses and compares; sympy computes. Both may hang, eat memory or crash on model text, so this runs only
where it can be killed, and their own time limits, which need signals, are off. What math-verify accepts too easily is
ruled out here: equations that share an empty set of solutions, and small numbers that round to the same zero.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from hone.rewards.answers import formulas, same, squeezed
from hone.rewards.notation import read

logging.disable(logging.CRITICAL)

RELATIVE_TOLERANCE = 1e-5
PRECISION = 15
_CONFIG = LatexExtractionConfig(
    boxed_match_priority=-1,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none"
    ),
)
_UNFINISHED = re.compile(r"\\(?:int|iint|oint|sum|prod|lim|det)(?![A-Za-z])|\\frac\s*\{\s*d\s*\}")
_SPLIT_NUMBER = re.compile(r"(?<![_^\d])\d+\s+\d")  # math-verify would read one number
_RELATION = re.compile(r"=|<|>|\\(?:le|ge|ne|lt|gt)(?![A-Za-z])")


_CONDITION = sympy.And | sympy.Or | sympy.Lt | sympy.Le | sympy.Gt | sympy.Ge


class UnreadableReference(ValueError):
    """The reference answer is no LaTeX that math-verify can parse; the message is the answer."""


def same_answer(gold: str, pred: str) -> bool:
    """Say whether two answers are equal; raise `UnreadableReference` where the first cannot be parsed."""
    return same(read(gold), read(pred), _same_formula)


def check(gold: str) -> None:
    """Raise `UnreadableReference` where a formula of an answer cannot be parsed."""
    for formula in formulas(read(gold)):
        _parsed_reference(formula.latex)


def _same_formula(gold: str, pred: str) -> bool:
    if squeezed(gold) == squeezed(pred):
        return True
    if _UNFINISHED.search(pred) and not _UNFINISHED.search(gold):
        return False  # the computation is left to the grader
    if "=" in pred and not _RELATION.search(gold):
        return False  # an equation where a value is asked for
    if _SPLIT_NUMBER.search(pred):
        return False
    expected = _parsed_reference(gold)
    found = _parsed(pred)
    if found is None or (_is_undefined(found) and not _is_undefined(expected)):
        return False
    if isinstance(expected, sympy.Eq) and isinstance(found, sympy.Eq):
        return _same_equation(expected, found)
    if isinstance(expected, sympy.Expr) and isinstance(found, sympy.Expr) and (expected.is_Symbol or found.is_Symbol):
        return bool(sympy.simplify(expected - found) == 0)  # math-verify compares unknowns by name alone
    if _verify(expected, found):
        return not _differ_in_size(expected, found)
    return _describe_sets(expected, found) and _verify(_solutions(expected), _solutions(found))


def _verify(gold: Any, pred: Any) -> bool:
    return bool(verify(gold, pred, numeric_precision=PRECISION, allow_set_relation_comp=True, timeout_seconds=None))


def _parsed_reference(gold: str) -> Any:
    parsed = _parsed(gold)
    if parsed is None:
        raise UnreadableReference(gold)
    return parsed


def _parsed(text: str) -> Any:
    """Return what math-verify makes of LaTeX, None where it makes nothing of it."""
    if len(parts := text.split(r"\lor")) > 1:
        conditions = [_parsed(part) for part in parts]
        return sympy.Or(*conditions) if all(isinstance(one, _CONDITION) for one in conditions) else None
    found = parse(f"${text.replace('$', ' ')}$", [_CONFIG], fallback_mode="no_fallback", parsing_timeout=None)
    return _with_imaginary_unit(found[0]) if found else None


def _with_imaginary_unit(value: Any) -> Any:
    """Read a free `i` as the imaginary unit, which math-verify leaves an unknown."""
    if not isinstance(value, sympy.Expr | sympy.MatrixBase | sympy.FiniteSet | sympy.Eq):
        return value
    return value.subs({symbol: sympy.I for symbol in value.free_symbols if symbol.name == "i"})


def _describe_sets(gold: Any, pred: Any) -> bool:
    """Say whether two conditions are about the same unknown, or one is about an unknown and the other is a set."""
    if isinstance(gold, _CONDITION) and isinstance(pred, _CONDITION):
        return bool(gold.free_symbols == pred.free_symbols)
    return isinstance(gold, _CONDITION | sympy.Set) and isinstance(pred, _CONDITION | sympy.Set)


def _solutions(value: Any) -> Any:
    """Return the set of numbers that a condition on one unknown describes; any other value as it is."""
    try:
        return value.as_set() if isinstance(value, _CONDITION) and len(value.free_symbols) == 1 else value
    except (NotImplementedError, TypeError, ValueError):  # sympy cannot solve it
        return value


def _is_undefined(value: Any) -> bool:
    return bool(getattr(value, "has", None) and value.has(sympy.nan, sympy.zoo))


def _same_equation(gold: Any, pred: Any) -> bool:
    """Say whether one equation is the other times a constant that is not zero, fractions cleared."""
    if gold.free_symbols != pred.free_symbols:
        return False
    left, right = (sympy.fraction(sympy.together(equation.lhs - equation.rhs))[0] for equation in (gold, pred))
    if left.is_zero or right.is_zero:
        return False
    ratio = sympy.simplify(left / right)
    return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)


def _differ_in_size(gold: Any, pred: Any) -> bool:
    """Say whether two numbers that count as equal are so only because both are near zero."""
    if not (_is_scalar(gold) and _is_scalar(pred)):
        return False
    left, right = gold.evalf(PRECISION), pred.evalf(PRECISION)  # unlike floats, these do not underflow
    if abs(left - right) <= RELATIVE_TOLERANCE * max(abs(left), abs(right)):
        return False
    return not sympy.simplify(gold - pred).is_zero


def _is_scalar(value: Any) -> bool:
    return isinstance(value, sympy.Expr) and value.is_number and not value.is_Matrix
