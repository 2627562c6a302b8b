"""Units after numbers, in English and Chinese: where they begin, and which of them differ. Nothing is converted."""

from __future__ import annotations

import re

SAME_UNIT = {
    spelling: names.split()[0]
    for names in (
        "meter meters metre metres 米",
        "centimeter cm centimeters centimetre centimetres 厘米 公分",
        "millimeter mm millimeters millimetre millimetres 毫米",
        "decimeter dm 分米",
        "kilometer km kilometers kilometre kilometres 千米 公里",
        "inch in inches 英寸",
        "foot ft feet 英尺",
        "yard yd yards 码",
        "mile mi miles 英里",
        "gram grams 克",
        "milligram mg milligrams 毫克",
        "kilogram kg kilograms 千克 公斤",
        "ton tons tonne tonnes 吨",
        "pound lb lbs pounds 磅",
        "ounce oz ounces 盎司",
        "liter liters litre litres 升",
        "milliliter ml mL milliliters millilitres 毫升",
        "second sec secs seconds 秒 秒钟",
        "minute min mins minutes 分钟",
        "hour hr hrs hours 小时",
        "day days 天",
        "week weeks 周 星期",
        "month months 月 个月",
        "year yr yrs years 年",
        "dollar dollars usd USD 美元",
        "cent cents 美分",
        "yuan 元 块 人民币 rmb RMB",
        "degree degrees deg 度",
        "km/h kmh kmph kilometers/hour kilometres/hour 千米/时 千米/小时 公里/小时",
        "m/s meters/second metres/second 米/秒",
        "mph mi/h miles/hour",
        "radian rad radians 弧度",
        "hertz Hz",
        "kilohertz kHz",
        "kilojoule kJ",
        "kilowatt kW",
        "kilopascal kPa",
        "mole mol moles 摩尔",
    )
    for spelling in names.split()
}
ONE_LETTER = {"m": "meter", "g": "gram", "s": "second", "h": "hour", "L": "liter", "l": "liter", "t": "ton"}
_KNOWN = frozenset(SAME_UNIT.values())
_NOT_UNITS = frozenset(
    (
        *("and", "or", "not", "but", "if", "when", "else", "for", "all", "is", "are", "was", "to", "than", "maybe"),
        *("times", "plus", "minus", "over", "more", "less", "mod", "squared", "cubed", "infinity", "pi"),
        *("half", "dozen", "hundred", "thousand", "million", "billion", "trillion"),
    )
)
_HAN_NUMBERS = re.compile(r"[一二三四五六七八九十百千万亿半折成或和]")
_WORD = r"[A-Za-z][A-Za-z/.]*"
_WITH_UNIT = re.compile(
    r"(?P<number>.*(?:[\d)}%i]|\\pi|\\infty))\s*"
    r"(?:\^\s*\{?\s*\\circ\s*\}?\s*(?P<degree>[CFK]?)"
    r"|(?:\s|(?<=[)}\d])(?=[a-z]{2}|m\^|m/|[\u4e00-\u9fff]))"
    rf"(?P<words>{_WORD}(?: {_WORD}){{0,3}}|[\u4e00-\u9fff]{{1,5}}(?:/[\u4e00-\u9fff]{{1,2}})?)"
    r"\s*(?P<power>\^\s*\{?[23]\}?)?)"
)
_ADJECTIVES = {"square ": "2", "sq ": "2", "sq. ": "2", "cubic ": "3", "平方": "2", "立方": "3"}
_CURRENCY = re.compile(r"^\\\$\s*|(?<=[-+])\\\$|\s*\\\$$")


def split_unit(text: str) -> tuple[str, str]:
    """Split `5 cm^2` into `5` and `centimeter2`; the unit is empty where there is none. A currency sign is dropped.

    A single letter is a unit only where a space stands before it. A word of four letters or more that is not known
    (`18 eggs`) is one too, and so are up to five Han characters that are no numeral.
    """
    text = _CURRENCY.sub("", text)
    match = _WITH_UNIT.fullmatch(text)
    if match is None:
        return text, ""
    if match["degree"] is not None:
        return match["number"].strip(), "degree" + match["degree"]
    words, power = match["words"].strip(". ").replace(" per ", "/"), (match["power"] or "").strip("^{} ")
    for adjective, exponent in _ADJECTIVES.items():
        if words.startswith(adjective):
            words, power = words.removeprefix(adjective), exponent
    if words in ONE_LETTER and power:
        words = ONE_LETTER[words]
    known = SAME_UNIT.get(words) or SAME_UNIT.get(words.lower())
    if known is None and words not in ONE_LETTER and not _may_be_unit(words):
        return text, ""
    return match["number"].strip(), (known or words) + power


def units_differ(gold: str, pred: str) -> bool:
    """Say whether two units are known to differ.

    A single letter in the reference may be an unknown, so the prediction must have it too.
    """
    if len(gold) == 1 and not pred:
        return True
    if gold and pred and gold[-1] != pred[-1] and gold[-1] in "23" and pred[-1] in "23":
        return True
    gold, pred = ONE_LETTER.get(gold, gold), ONE_LETTER.get(pred, pred)
    return gold != pred and _is_known(gold) and _is_known(pred)


def _is_known(unit: str) -> bool:
    return unit.rstrip("23") in _KNOWN


def _may_be_unit(words: str) -> bool:
    if not words.isascii():
        return not _HAN_NUMBERS.search(words)
    parts = words.lower().split()
    return all(len(part) >= 2 and part not in _NOT_UNITS for part in parts) and any(len(part) >= 4 for part in parts)
