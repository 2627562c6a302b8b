"""The values that answers have, and what makes two of them the same answer. How they are written is not known here.

Exact: numbers are fractions, and nothing is evaluated. What two formulas mean is decided by whoever compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from hone.rewards.units import units_differ

_MEANINGLESS_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_DECIMAL_COMMA = re.compile(r"([-+]?\d+),(\d+)")
_LOOSE = re.compile(r"\s|(?<!\d)\.|\.(?!\d)")  # spaces, and full stops beside a letter
ROUNDED_DECIMALS = 6  # a decimal with at least this many places stands for every number that rounds to it


@dataclass(frozen=True, slots=True)
class Number:
    """A number, e.g. `Number(Fraction(1, 2), decimals=1)` for 0.5; `decimals` is None where it has no decimal point."""

    value: Fraction
    decimals: int | None = None
    percent: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """Something that is equal to itself alone: a word, a letter, a ratio, a number in another base."""

    text: str


@dataclass(frozen=True, slots=True)
class Formula:
    """LaTeX whose meaning is not known here."""

    latex: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Several values: a list (no brackets), a set, a tuple or an interval (the brackets that it is written in)."""

    brackets: str
    items: tuple[Value, ...]
    latex: str = field(compare=False)

    @property
    def ordered(self) -> bool:
        return self.brackets not in ("", "{}")


@dataclass(frozen=True, slots=True)
class Named:
    """`name = value`."""

    name: str
    value: Value
    latex: str = field(compare=False)


Value = Number | Word | Formula | Group | Named

SameFormula = Callable[[str, str], bool]


def same(gold: Value, pred: Value, same_formula: SameFormula) -> bool:
    """Say whether two values are one answer; `same_formula(gold, pred)` decides where LaTeX must be understood."""
    if isinstance(gold, Named) or isinstance(pred, Named):
        if _is_equation(gold) and _is_equation(pred) and not _same_name(gold, pred):
            return not _is_number(gold) and not _is_number(pred) and same_formula(latex(gold), latex(pred))
        return same(_value_of(gold), _value_of(pred), same_formula)
    if isinstance(gold, Number) and isinstance(pred, Number):
        return _same_number(gold, pred)
    if isinstance(gold, Word) and isinstance(pred, Word):
        return _same_word(gold.text, pred.text)
    if isinstance(gold, Word) or isinstance(pred, Word):
        return _may_be_unknown(gold, pred) and same_formula(latex(gold), latex(pred))
    if isinstance(gold, Group) or isinstance(pred, Group):
        return _same_group(gold, pred, same_formula)
    if units_differ(gold.unit, pred.unit):
        return False
    return same_formula(latex(gold), latex(pred))


def latex(value: Value) -> str:
    """Return a value as LaTeX, without unit and name."""
    match value:
        case Number():
            number = value.value / 100 if value.percent else value.value
            if value.decimals is not None and not value.percent and len(str(number.denominator)) < 20:
                return f"{float(number):.{min(value.decimals, 15)}f}" if abs(number) < 10**15 else str(number)
            sign = "-" if number < 0 else ""
            plain = number.denominator == 1
            return (
                f"{sign}{abs(number)}" if plain else rf"{sign}\frac{{{abs(number.numerator)}}}{{{number.denominator}}}"
            )
        case Word():
            return value.text
        case Formula() | Group() | Named():
            return value.latex


def squeezed(text: str) -> str:
    """Return LaTeX without the spaces that mean nothing; those between digits stay."""
    return _MEANINGLESS_SPACE.sub("", text)


def formulas(value: Value) -> Iterator[Formula]:
    """Yield the formulas that a value is made of."""
    match value:
        case Formula():
            yield value
        case Named():
            yield from formulas(value.value)
        case Group():
            for item in value.items:
                yield from formulas(item)


def key(value: Value) -> str:
    """Return a text that values which are surely the same answer share, for majority votes."""
    match value:
        case Number():
            return str(value.value)
        case Word():
            return value.text.lower() if len(value.text) > 1 else value.text
        case Formula():
            return squeezed(value.latex)
        case Named():
            return key(value.value)
        case Group():
            keys = [key(item) for item in value.items]
            inside = ", ".join(keys if value.ordered else sorted(keys))
            return f"{value.brackets[:1]}{inside}{value.brackets[1:]}"


def _value_of(value: Value) -> Value:
    return value.value if isinstance(value, Named) else value


def _is_equation(value: Value) -> bool:
    return isinstance(value, Named) or (isinstance(value, Formula) and "=" in value.latex)


def _same_name(gold: Value, pred: Value) -> bool:
    return isinstance(gold, Named) and isinstance(pred, Named) and gold.name == pred.name


def _is_number(value: Value) -> bool:
    return isinstance(value, Named) and isinstance(value.value, Number)


def _same_number(gold: Number, pred: Number) -> bool:
    if units_differ(gold.unit, pred.unit):
        return False
    if gold.percent != pred.percent:  # 50% is 1/2, and people write 50 for it where per cents are asked for
        percent, other = (gold, pred) if gold.percent else (pred, gold)
        return other.value in (percent.value, percent.value / 100)
    return gold.value == pred.value or _rounds_to(gold, pred) or _rounds_to(pred, gold)


def _rounds_to(rounded: Number, exact: Number) -> bool:
    if rounded.decimals is None or rounded.decimals < ROUNDED_DECIMALS or not rounded.value:
        return False
    if exact.decimals is not None and exact.decimals <= rounded.decimals:
        return False
    return abs(rounded.value - exact.value) <= Fraction(1, 2 * 10**rounded.decimals)


def _may_be_unknown(gold: Value, pred: Value) -> bool:
    """Say whether one is a letter and the other a formula in it."""
    word, formula = (gold, pred) if isinstance(gold, Word) else (pred, gold)
    assert isinstance(word, Word)
    return isinstance(formula, Formula) and len(word.text) == 1 and word.text in formula.latex


def _same_word(gold: str, pred: str) -> bool:
    if len(gold) == 1 or len(pred) == 1:
        return gold == pred
    return _LOOSE.sub("", gold).lower() == _LOOSE.sub("", pred).lower()


def _same_group(gold: Value, pred: Value, same_formula: SameFormula) -> bool:
    if not isinstance(gold, Group) or not isinstance(pred, Group):
        return _same_as_single(gold, pred, same_formula)
    if len(gold.items) != len(pred.items) and (_is_set_of_one(gold) or _is_set_of_one(pred)):
        gold, pred = (group.items[0] if _is_set_of_one(group) else group for group in (gold, pred))
        return same(gold, pred, same_formula)
    if gold.brackets and pred.brackets and gold.brackets != pred.brackets:
        return False
    golds, preds = _comparable(gold.items), _comparable(pred.items)
    if not pred.ordered and len(preds) > len(golds):
        preds = tuple(dict.fromkeys(preds))  # a solution that is given twice is given
    if len(golds) != len(preds):
        return False
    named = [any(isinstance(item, Named) for item in items) for items in (golds, preds)]
    if gold.ordered or pred.ordered or named[0] != named[1]:
        return all(same(left, right, same_formula) for left, right in zip(golds, preds, strict=True))
    return _same_in_any_order(golds, list(preds), same_formula)


def _same_as_single(gold: Value, pred: Value, same_formula: SameFormula) -> bool:
    """Compare a group with what is none: a set of one, one answer in two notations, a decimal comma, an interval."""
    group, single, swapped = (gold, pred, False) if isinstance(gold, Group) else (pred, gold, True)
    assert isinstance(group, Group)
    if isinstance(single, Number):
        comma = _DECIMAL_COMMA.fullmatch(group.latex)
        if comma and not group.brackets and single.decimals:
            return Fraction(f"{comma[1]}.{comma[2]}") == single.value
    if _is_set_of_one(group) or (len(group.items) == 1 and not group.brackets) or (swapped and _is_repetition(group)):
        return same(single, group.items[0], same_formula) if swapped else same(group.items[0], single, same_formula)
    return isinstance(single, Formula) and bool(group.brackets) and same_formula(latex(gold), latex(pred))


def _is_set_of_one(group: Group) -> bool:
    return group.brackets == "{}" and len(group.items) == 1


def _is_repetition(group: Group) -> bool:
    """Say whether a list is one number in several notations, e.g. `1/2 or 0.5`."""
    numbers = {(item.value, item.percent, item.unit) for item in group.items if isinstance(item, Number)}
    return not group.brackets and len(numbers) == 1 and all(isinstance(item, Number) for item in group.items)


def _comparable(items: tuple[Value, ...]) -> tuple[Value, ...]:
    """Drop the names where all items have one and the same (x = 1, x = 2), or where some have none."""
    names = {item.name if isinstance(item, Named) else "" for item in items}
    return tuple(_value_of(item) for item in items) if len(names) == 1 or "" in names else items


def _same_in_any_order(golds: tuple[Value, ...], preds: list[Value], same_formula: SameFormula) -> bool:
    for gold in golds:
        found = next((i for i, pred in enumerate(preds) if same(gold, pred, same_formula)), None)
        if found is None:
            return False
        del preds[found]
    return True
