"""How answers are written: reads the many spellings of one value (`answers`), or says that it is too big to compare.

Covers numbers in every usual notation, units, lists, sets, tuples and intervals of them, names (`x = 5`) and words.
Everything else stays LaTeX. Text work alone, with bounded digits: nothing is evaluated.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from hone.rewards.answers import Formula, Group, Named, Number, Value, Word
from hone.rewards.units import ONE_LETTER, split_unit

MAX_CHARACTERS, MAX_DEPTH, MAX_DIGITS, MAX_EXPONENT, MAX_FACTORIAL, MAX_ITEMS = 2000, 30, 400, 10_000, 3000, 100
MAX_POWER_OF_TEN = 400


class OutsideLimits(ValueError):
    """The text is longer, deeper or bigger than what is compared; the message says which."""


# --- spelling ---

_SIGN_NAMES = ("times", "cdot", "le", "ge", "ne", "approx", "infty", "pi", "sqrt", "cup", "cap", "in", "pm")
_CHARACTERS: dict[int, str | None] = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width forms
    **dict.fromkeys(map(ord, "\u3000\u00a0\u2009\u202f"), " "),
    **dict.fromkeys(map(ord, "−–—"), "-"),
    **dict.fromkeys(map(ord, "’′"), "'"),
    **dict.fromkeys(map(ord, "€£¥￡￥"), r"\$"),
    **dict.fromkeys(map(ord, "\u200b\ufeff")),
    **{ord(sign): rf" \{name} " for sign, name in zip("×·≤≥≠≈∞π√∪∩∈±", _SIGN_NAMES, strict=True)},
    **{
        ord(sign): text
        for sign, text in zip("、。【】∶÷°⟨⟩", [",", ".", "[", "]", ":", "/", r"^\circ ", "(", ")"], strict=True)
    },
    **{code: f"{chr(code)}," for code in range(ord("①"), ord("⑳") + 1)},
    **{
        ord(sign): rf"\frac{{{text[0]}}}{{{text[1]}}}"
        for sign, text in zip("½¼¾⅓⅔", ["12", "14", "34", "13", "23"], strict=True)
    },
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_RAISED_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_TEXT_COMMAND = r"\\(?:text|mbox|mathrm|textbf|textit|textrm|textnormal|mathbf|mathit|operatorname|boxed|fbox)\s*"
_POWERS = [("million", "6"), ("billion", "9"), ("trillion", "{12}"), ("万", "4"), ("亿", "8")]
_SPELLINGS = [
    (re.compile(pattern), new)
    for pattern, new in [
        (r"\\!\s*", ""),
        (r"\s*\{\s*,\s*\}\s*", ","),
        (r"\\\(|\\\)|\\\[(?!\d+(?:pt|em|ex)\])|(?<!\\)\\\]|\$\$?(?!\s*\Z)(?<!\\\$)|\$\$?\s*\Z(?<!\\\$)", " "),
        (r"\\(?:left|right|[bB]igg?[lr]?|middle)(?![A-Za-z])\s*\.?(?=\s*[\\\[\](){}|.<>/]|\Z)", ""),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\\mathbb\s*([A-Z])(?![A-Za-z])", r"\\mathbb{\1}"),
        (r"\\(bar|overline|vec|overrightarrow|hat)\s+([A-Za-z])(?![A-Za-z])", r"\\\1{\2}"),
        (r"\\color\s*\{\w+\}|(?<=\\\\)\s*\[\d+(?:pt|em|ex)\]", ""),
        (r"\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}", r"\\binom{\1}{\2}"),
        (r"\\lg(?![A-Za-z])", r"\\log_{10} "),
        (r"\\(arc)?tg(?![A-Za-z])", r"\\\1tan "),
        (r"\\(arc)?ctg(?![A-Za-z])", r"\\\1cot "),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|rm|bf|it)(?![A-Za-z])|(?<!\\)(?:\\[,;: ]|~)", " "),
        (r"\\q?quad(?![A-Za-z])", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\l?brace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\frac\s*(?=[\\\w])(\\[A-Za-z]+|\w)\s*(?:(\\[A-Za-z]+|\w)|\{([^{}]*)\})", r"\\frac{\1}{\2\3}"),
        (r"\\leq(?:slant)?(?![A-Za-z])|<=", r"\\le "),
        (r"\\geq(?:slant)?(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\l?dots|\\cdots|\.\.\.", r"\\ldots "),
        (r"\\?%|(?<=[\d\s}])(?:percentage|per\s?cent|pct)\b|" + _TEXT_COMMAND + r"\{\s*(?:percent|pct)\s*\}", " % "),
        *[(rf"(?<=\d)\s*{word}(?![A-Za-z])", rf" \\times 10^{power} ") for word, power in _POWERS],
        (r"百分之\s*(\d+(?:\.\d+)?)", r"\1 % "),
        (r"(\d)\s*\^\s*\{?\s*(?:" + _TEXT_COMMAND + r"\{)?\s*(st|nd|rd|th)\s*\}{0,2}(?![A-Za-z])", r"\1\2"),
        (r"(?<=\d)\s*x\s*(?=10\s*\^)", r" \\times "),
        (r"\*\*", "^"),
        (r"(?<![A-Za-z\\])(exp|(?:arc)?(?:sin|cos|tan)|ln|log)(?=\s?\()", r"\\\1"),
        (r"\bsqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*(\d)", r"\\sqrt{\1}"),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"([_^])\{([A-Za-z0-9])\}(?!\d)", r"\1\2"),
        (r"_([A-Za-z0-9])(?=[A-Za-z])", r"_\1 "),
        (r"\\degree(?![A-Za-z])", r"^\\circ "),
        (r"(^|[(\[,])\s*\+\s*\\infty", r"\1\\infty"),
        (r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"^\s*(?:=|\\approx)", ""),
        (r"\s+", " "),
    ]
]
_DECIMAL = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_TEXT_BLOCK = re.compile(_TEXT_COMMAND + r"\{([^{}]*)\}")
_DOUBLED_COMMAND = re.compile(r"\\\\(?=[a-zA-Z])")


def _spell(text: str) -> str:
    """Return the text in one spelling: ASCII, no dollars, no spacing commands, no text blocks."""
    if not text.isascii():
        text = _RAISED_RUN.sub(lambda run: f"^{{{run.group().translate(_RAISED)}}}", text).translate(_CHARACTERS)
    text = " ".join(_trim(text).split())
    if "\\begin" not in text:
        text = _DOUBLED_COMMAND.sub(r"\\", text)
    if not _DECIMAL.fullmatch(text):
        for pattern, new in _SPELLINGS:
            text = pattern.sub(new, text)
        text = _TEXT_BLOCK.sub(_unblock, _TEXT_BLOCK.sub(_unblock, text))
    return _trim(text)


def _unblock(block: re.Match[str]) -> str:
    """Return what a text block holds; a single letter that is a unit is spelled out, since it is no unknown."""
    words = block[1].strip()
    after_number = block.string[: block.start()].rstrip()[-1:] in tuple("0123456789)}")
    return f" {ONE_LETTER[words] if after_number and words in ONE_LETTER else block[1]} "


def _trim(text: str) -> str:
    text = text.strip().strip("*").strip()
    while text and text[-1] in ".,;: " and not text.endswith("\\"):
        text = text[:-1].rstrip()
    return text


# --- limits ---

_DIGITS = re.compile(rf"\d{{{MAX_DIGITS + 1},}}")
_EXPONENT = re.compile(r"\^\s*(?:\{([^{}]*)\}|\(([^()]*)\)|(\d+))")
_NESTED_POWER = re.compile(r"\^\s*[{(][^{}()]*\d\s*\^|\^\s*[{(]\s*[{(]|\^\s*\d+\s*\^|\}\s*\^[^{}]*\}\s*\^")
_BIG_SCIENTIFIC = re.compile(r"\d[eE][-+]?\d{5,}")
_FACTORIAL = re.compile(r"(\d+)\s*!")
_NESTED_FACTORIAL = re.compile(r"![)}\s]*!|\^[^a-z]*[)}]\s*!")


def check_limits(text: str) -> None:
    """Raise `OutsideLimits` for a text that could take long to read or to compute, before anything does either."""
    if len(text) > MAX_CHARACTERS:
        raise OutsideLimits(f"longer than {MAX_CHARACTERS:,} characters")
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    if max(deepest, text.count("\\sqrt"), text.count("|"), text.count("\\frac") // 2) > MAX_DEPTH:
        raise OutsideLimits(f"nested deeper than {MAX_DEPTH}")
    if _DIGITS.search(text):
        raise OutsideLimits(f"a number of more than {MAX_DIGITS} digits")
    if _BIG_SCIENTIFIC.search(text):
        raise OutsideLimits(f"an exponent above {MAX_EXPONENT:,}")
    if _NESTED_POWER.search(text):
        raise OutsideLimits("a tower of powers")
    for exponent in _EXPONENT.findall(text):
        if any(len(digits) > 9 or int(digits) > MAX_EXPONENT for digits in re.findall(r"\d+", "".join(exponent))):
            raise OutsideLimits(f"an exponent above {MAX_EXPONENT:,}")
    if _NESTED_FACTORIAL.search(text) or any(len(n) > 9 or int(n) > MAX_FACTORIAL for n in _FACTORIAL.findall(text)):
        raise OutsideLimits(f"a factorial of more than {MAX_FACTORIAL:,}")


# --- numbers ---

_INTEGER = r"[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+|\d+"
_PLAIN = rf"(?:{_INTEGER})(?:\.\d*)?|\.\d+"
_SIGNED = rf"[-+]?\s*(?:{_PLAIN})"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:"
    rf"\(\s*(?P<inner>{_SIGNED})\s*\)"
    rf"|(?P<plain>{_PLAIN})(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{{?\s*(?P<power>[-+]?\d+)\s*\}}?|[eE](?P<e>[-+]?\d+))?"
    rf"|10\s*\^\s*\{{?\s*(?P<ten>[-+]?\d+)\s*\}}?"
    rf"|(?P<whole>\d+)?\s*\\frac\s*(?:\{{\s*(?P<top>{_SIGNED})\s*\}}|(?P<t>\d))\s*(?:\{{\s*(?P<bottom>{_SIGNED})\s*\}}|(?P<b>\d))"
    rf"|(?:(?P<units>\d+)\s+)?\(?\s*(?P<n>{_SIGNED})\s*\)?\s*/\s*\(?\s*(?P<d>{_SIGNED})\s*\)?"
    rf")"
)
_REPEATING = re.compile(r"([-+]?)(\d*)\.(\d*)\\(?:overline|dot)\s*\{(\d+)\}")
_SIMPLE = re.compile(r"[-+]?\d{1,15}")


def _number(text: str) -> Number | None:
    """Return the number that a text without unit is."""
    if _SIMPLE.fullmatch(text):
        return Number(Fraction(int(text)))
    if repeating := _REPEATING.fullmatch(text):
        sign, whole, start, period = repeating.groups()
        places = Fraction(1, 10 ** len(start))
        repeated = (int(whole + start or "0") + Fraction(int(period), 10 ** len(period) - 1)) * places
        return Number(-repeated if sign == "-" else repeated)
    percent = text.endswith("%")
    match = _NUMBER.fullmatch(text.rstrip("% "))
    if match is None:
        return None
    value, decimals = _value(match)
    if value is None:
        return None
    return Number(-value if match["sign"] == "-" else value, decimals, percent)


def _value(match: re.Match[str]) -> tuple[Fraction | None, int | None]:
    if plain := match["plain"] or match["inner"]:
        value, decimals = _decimal(plain), _places(plain)
        if power := match["power"] or match["e"]:
            scale = _power_of_ten(power)
            return (None, None) if scale is None else (value * scale, None)
        return value, decimals
    if match["ten"]:
        return _power_of_ten(match["ten"]), None
    top, bottom = match["top"] or match["t"] or match["n"], match["bottom"] or match["b"] or match["d"]
    below = _decimal(bottom)
    if not below:
        return None, None
    whole = match["whole"] or match["units"]
    return (_decimal(whole) if whole else 0) + _decimal(top) / below, None


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", ""))


def _places(text: str) -> int | None:
    return len(text.rstrip(")").strip().partition(".")[2]) if "." in text else None


def _power_of_ten(power: str) -> Fraction | None:
    return Fraction(10) ** int(power) if len(power) < 6 and abs(int(power)) <= MAX_POWER_OF_TEN else None


# --- reading ---

_AND = re.compile(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|(?<=[\d\s)}])[且或和](?=[\d\s(\\-])|;")
_OR = re.compile(r"(?<![A-Za-z\\])or(?![A-Za-z])|或|\\(?:lor|vee)(?![A-Za-z])")
_SYSTEM = re.compile(
    r"(?:\\begin\s*\{cases\}|\\\{\s*\\begin\s*\{array\}\s*\{[lcr]\}|\\\{\s*\\begin\s*\{aligned\})"
    r"([^&]*)\\end\s*\{(?:cases|array|aligned)\}"
)
_COLUMN = re.compile(r"\\begin\s*\{[pb]matrix\}([^&]*)\\end\s*\{[pb]matrix\}")
_SET_BUILDER = re.compile(
    r"\s*[A-Za-z]\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:\\mid(?![A-Za-z])|[|:])([^,|]*(?:[<>]|\\[lgn]e(?![A-Za-z]))[^,|]*)"
)
_RELATION = re.compile(r"<|>|\\(?:le|ge|ne)(?![A-Za-z])")
_EQUALS = re.compile(r"=|\\(?:approx|equiv|in|sim)(?![A-Za-z])")
_NAME = re.compile(
    r"\(?\s*+(?:[|]\s*+)?(?:\\(?!frac|sqrt|begin|sum|int|lim|sin|cos|tan|log|ln)[A-Za-z]++|[A-Za-z])"
    r"(?:[A-Za-z_0-9'{}:|,\s]|\\(?!frac|sqrt)[A-Za-z]++|\\[{}|])*+(?:\([A-Za-z0-9_,\s{}'\\]*+\))?\s*+\)?(?:\s*+:\s*+[A-Z])?"
)
_ARITHMETIC = re.compile(r"[\d\s+\-*/^().{}]|\\(?:frac|times|cdot|sqrt)")
_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
_RATIO = re.compile(r"\d+(?:\s*:\s*\d+)+")
_BASE = re.compile(r"\(?(-?[0-9A-F.]+)\)?\s*_\{?\(?(\d{1,2})\)?\}?")
_PROSE = re.compile(r"[A-Za-z]{4,}|\d\s*[apAP]\.?[mM]\b|[\u4e00-\u9fff①-⑳]|^(?:[A-DF-Za-df-hj-z]|[A-Z]{2,})$")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?")
_PM = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")


@lru_cache(maxsize=4096)
def read(text: str) -> Value:
    """Return the value of an answer as it is written; raise `OutsideLimits` where it is too big to compare."""
    if _SIMPLE.fullmatch(text):
        return Number(Fraction(int(text)))
    if len(text) > MAX_CHARACTERS:
        raise OutsideLimits(f"longer than {MAX_CHARACTERS:,} characters")
    text = _spell(text)
    check_limits(text)
    return _read(text)


def _read(text: str) -> Value:
    text = _without_braces(_trim(text))
    if (number := _number(text)) is not None:
        return number
    if (alternatives := _alternatives(text)) is not None:
        return alternatives
    if system := _SYSTEM.fullmatch(text):
        return _group("", _rows(system[1]), text)
    if (column := _COLUMN.fullmatch(text)) and len(_rows(column[1])) > 1:
        return _group("()", _rows(column[1]), text)
    items = _split_items(text)
    if len(items) > MAX_ITEMS:
        raise OutsideLimits(f"more than {MAX_ITEMS} items")
    if len(items) > 1:
        return _group("", items, text)
    text = items[0] if items else text
    if (named := _named(text)) is not None:
        return named
    if (brackets := _outer_brackets(text)) is not None:
        inside = text[1:-1] if len(brackets) == 2 and brackets != "{}" else text[2:-2]
        parts = _split_items(inside, thousands=False)
        if brackets == "()" and len(parts) == 1:
            return _read(parts[0])
        if brackets == "{}" and (condition := _SET_BUILDER.fullmatch(inside)):
            return _read(condition[1])
        if 1 <= len(parts) <= MAX_ITEMS:
            return _group(brackets, parts, text)
    return _scalar(text)


def _alternatives(text: str) -> Formula | None:
    """Read inequalities in one unknown that are joined by "or": together they describe a set."""
    parts = _OR.split(text)
    if len(parts) < 2 or "," in text or _outer_brackets(text) or not all(map(_RELATION.search, parts)):
        return None
    unknowns = {frozenset(re.findall("[A-Za-z]", _COMMAND.sub(" ", part))) for part in parts}
    return Formula(r" \lor ".join(parts)) if len(unknowns) == 1 and len(*unknowns) == 1 else None


def _rows(text: str) -> list[str]:
    rows = [row.strip(" ,;") for row in text.split("\\\\")][: MAX_ITEMS + 1]
    if len(rows) > MAX_ITEMS:
        raise OutsideLimits(f"more than {MAX_ITEMS} items")
    return [row for row in rows if row]


def _group(brackets: str, parts: list[str], latex: str) -> Group:
    items: list[Value] = []
    for part in parts:
        value = _read(part)
        items += value.items if isinstance(value, Group) and not value.brackets else [value]
    return Group(brackets, tuple(items), latex)


def _scalar(text: str) -> Value:
    if _PM.search(text):
        upper = _PM.sub(lambda sign: " +" if "pm" in sign.group() else " -", text)
        lower = _PM.sub(lambda sign: " -" if "pm" in sign.group() else " +", text)
        return Group("", (_read(_without_plus(upper)), _read(_without_plus(lower))), text)
    if base := _BASE.fullmatch(text):
        return Word(f"{base[1]}_{base[2]}")
    if _RATIO.fullmatch(text):
        return Word(text.replace(" ", ""))
    body, unit = split_unit(text)
    if unit and (number := _number(_without_braces(body))) is not None:
        return replace(number, unit=unit)
    if (number := _number(body)) is not None:
        return number
    if unit in ONE_LETTER and re.search("[A-Za-z]", _COMMAND.sub(" ", body)):
        body, unit = text, ""  # beside other unknowns it is one
    if unit and not _PROSE.search(_COMMAND.sub(" ", body)) and not (unit == "degree" and _TRIGONOMETRIC.search(body)):
        return Formula(body, unit)
    if _PROSE.search(_COMMAND.sub(" ", text)) and "=" not in text:
        return Word(" ".join(re.sub(r"[{}\\]", " ", text).split()).strip("() ."))
    return Formula(_DEGREES.sub(r"\\frac{\1\\pi}{180}", text))


def _without_plus(text: str) -> str:
    return re.sub(r"^\s*\+\s*", "", text)


def _without_braces(text: str) -> str:
    """Remove plain braces around the whole."""
    while text.startswith("{") and text.endswith("}") and _closing(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _closing(text: str, start: int) -> int:
    """Return where the bracket that opens at `start` closes, of whatever kind; -1 where it does not."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] in "([{":
            depth += 1
        elif text[place] in ")]}":
            depth -= 1
            if depth == 0:
                return place
    return -1


def _outer_brackets(text: str) -> str | None:
    """Return the pair of brackets around the whole, e.g. `[)`; None where there is none."""
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and _closing(text, 0) == len(text) - 1:
        return text[0] + text[-1]
    if text.startswith("\\{") and text.endswith("\\}") and _closing(text, 1) == len(text) - 1:
        return "{}"
    return None


def _split_items(text: str, *, thousands: bool = True) -> list[str]:
    """Split at the commas, semicolons, "and" and "or" outside all brackets; not at those between thousands."""
    if "," not in text and not _AND.search(text):
        return [text]
    text = _AND.sub(",", text)
    commas, depth = [], 0
    for place, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            commas.append(place)
    if thousands and ", " in text:
        commas = [place for place in commas if not _is_between_thousands(text, place)]
    elif thousands and len(commas) == 1 and _is_between_thousands(text, commas[0]):
        return [text]
    parts = [text[start + 1 : end].strip() for start, end in zip([-1, *commas], [*commas, len(text)], strict=True)]
    return [part for part in parts if part]


def _is_between_thousands(text: str, place: int) -> bool:
    before, after = text[max(0, place - 4) : place], text[place + 1 : place + 5]
    return bool(re.search(r"(?<!\d)[1-9]\d{0,2}$", before)) and bool(re.match(r"\d{3}(?!\d)", after))


def _named(text: str) -> Value | None:
    """Read `name = value`, a chain of equalities, or a sum with its result; None for an equation and all else."""
    parts = [part.strip() for part in _EQUALS.split(text)]
    if len(parts) < 2 or _RELATION.search(text) or not all(parts):
        return None
    before, approx, _ = text.partition("\\approx")
    if approx and not _NAME.fullmatch(before.strip()):
        return _read(before)
    first, last = parts[0], parts[-1]
    if _NAME.fullmatch(first):
        return Named(_name(first), _read(last), text)
    if len(parts) == 2 and _NAME.fullmatch(last) and _number(first) is not None:
        return Named(_name(last), _read(first), text)
    if len(parts) > 2 or not _ARITHMETIC.sub("", first):
        return _read(last)
    return None


def _name(text: str) -> str:
    return re.sub(r"[\s{}()|]|\\(?![A-Za-z])", "", text)
