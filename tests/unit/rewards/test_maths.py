"""Maths verdicts: what is equal, what is not, what a wrong answer must never gain; and the public sets of cases."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.rewards.extract import extract
from hone.rewards.maths import canonical, check_reference, equivalent, equivalent_all
from hone.types import HoneError, Verdict

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
PAGE = ROOT / "docs" / "grader.md"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the public sets of cases are not at {DATA}")

EQUAL = [
    *[("12", text) for text in ("12.0", "12.", "+12", "１２", "$12$", "\\(12\\)", "1.2e1", "1.2 \\times 10^1",
       "\\frac{24}{2}")],
    *[("12", text) for text in ("x = 12", "12 \\text{ cm}", "12 apples", "12元", "12 m", "$12", "\\$12",
       "((12))", "**12**")],
    *[("1234567", text) for text in ("1,234,567", "1 234 567", "1{,}234{,}567", "1,\\!234,\\!567")],
    *[("0.75", text) for text in (".75", "3/4", "\\frac34", "\\dfrac{3}{4}", "75%", "75\\%", "75 percent", "¾")],
    *[("11/3", text) for text in ("3\\frac{2}{3}", "3 2/3", "\\frac{11}{3}", "-\\frac{-11}{3}", "\\frac{5.5}{1.5}")],
    *[("50\\%", text) for text in ("50", "0.5", "\\frac{1}{2}", "50%")],
    *[("1/3", text) for text in ("0.333333", "0.3333333333")],
    ("-5", "−5"), ("1.22", "1,22"), ("0,111", "0.111"), ("x=5", "5"), ("5", "5=x"), ("a_{n}=2n+1", "2n+1"),
    ("90^\\circ", "90"), ("90", "90 degrees"), ("3 hours", "3小时"), ("15\\mbox{ cm}^2", "15 square centimeters"),
    ("10 \\text{ m}", "10"), ("\\text{Evelyn}", "Evelyn"), ("\\text{(C)}", "C"), ("7:32", "S_1:S_2=7:32"),
    ("204_{5}", "204_5"),
    ("(1, 2)", "(1.0,\\frac{4}{2})"), ("(x,y)=(1,2)", "(1,2)"), ("\\{1,2\\}", "\\{2,1\\}"), ("1,-2", "-2 and 1"),
    ("x=1, x=2", "1, 2"), ("k=45, n=2", "n=2, k=45"), ("k=45, n=2", "45, 2"), ("[0,1)", "\\left[0, 1\\right)"),
    ("1 \\pm \\sqrt{19}", "1+\\sqrt{19}, 1-\\sqrt{19}"), ("x=\\pm 2", "2, -2"), ("3, 5", "5, 3, 3"),
    ("2\\sqrt{3}", "\\sqrt{12}"), ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}"), ("1024", "2^{10}"), ("6", "3!"),
    ("(x-1)(x+1)", "x^2-1"), ("0", "\\sin(\\pi)"), ("\\sqrt{2}", "1.414214"), ("\\pi", "3.14159265"),
    ("2x+4y-3=0", "y=-\\frac{1}{2}x+\\frac{3}{4}"), ("x < 1", "-x > -1"), ("(5,\\infty)", "x>5"), ("1<x<2", "(1,2)"),
    ("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&\\frac{8}{2}\\end{bmatrix}"),
    ("(-\\infty, 2) \\cup (3, \\infty)", "(3,\\infty)\\cup(-\\infty,2)"), ("3+4i", "4i+3"),
    ("0.64N", "\\frac{16}{25}N"),
    ("So it is $\\boxed{5}$.", "5"), ("1/6", "0.1\\overline{6}"), ("(1,+\\infty)", "(1,\\infty)"),
    ("100_{(2)}", "100_2"),
    ("1000000", "1 million"), ("3.5万元", "35000"), ("1.2×10⁻⁴", "0.00012"), ("3 x 10^8", "3e8"), ("80%", "百分之80"),
    ("-1", "i^2"), ("\\frac{1+i}{2}", "\\frac{1}{1-i}"), ("\\frac{3}{4}i", "0.75i"), ("5", "|3+4i|"),
    ("n", "\\frac{n^2}{n}"),
    ("(-\\infty,1)\\cup(2,\\infty)", "x>2 \\text{ or } x<1"), ("\\{x|x<-1或x>1\\}", "|x|>1"), ("-1<a<1", "|a|<1"),
    ("\\{x \\mid x>2\\}", "(2,+\\infty)"), ("\\langle 1,2\\rangle", "(1,2)"), ("\\{(0,1)\\}", "(0,1)"),
    ("\\infty", "infinity"),
    ("\\begin{cases} x=1\\\\ y=2\\end{cases}", "y=2, x=1"), ("(1,2)", "\\begin{pmatrix}1\\\\[4pt] 2\\end{pmatrix}"),
    ("60 mph", "60 miles per hour"), ("3:30 \\text{ p.m.}", "3:30 PM"), ("3:2", "3∶2"), ("3^{rd}", "3rd"), ("①②", "②①"),
    ("\\frac{\\ln 3}{\\ln 2}", "\\log_2 3"), ("\\lg 2", "\\log_{10} 2"), ("\\ctg x", "\\cot x"), ("e^x", "exp(x)"),
    ("v_0 t", "tv_{0}"), ("\\mathbb R", "\\mathbb{R}"), ("z+\\bar z", "\\bar{z}+z"), ("1/2", "0.5 or 1/2"),
    ("\\sin 30^\\circ", "0.5"), ("\\sqrt{2} \\approx 1.414", "\\sqrt{2}"), ("x \\approx 1.5", "1.5"),
]  # fmt: skip

NOT_EQUAL = [
    ("12", "13"), ("12", "-12"), ("12", ""), ("12", "\\boxed{}"), ("12", "12 or 13"), ("12", "\\pm 12"),
    ("12", "11, 12"),
    ("12", "1 2"), ("12", "12x"), ("12", "12 million"), ("12", "\\text{is it }12"), ("2000", "2千"), ("12", "y^2+3=12"),
    ("3", "1, 2, 3, 4"), ("3", "\\{1,2,3,4\\}"), ("3", "3, 3.0, 4"), ("5", "[5]"), ("4", "4t"), ("4t", "4"),
    ("3 m", "3"),
    ("A", "A, B, C, D"), ("A", "all of the above"), ("B", "A or B"), ("BAC", "CAB"), ("Evelyn", "Evelyn and Briana"),
    ("no", "yes"), ("x", "y"), ("x=5", "y=5"), ("f(x)", "f(y)"), ("x+1", "y+1"), ("2x+z=1", "1"),
    ("x=1,y=2", "x=2,y=1"),
    ("x=1,y=2", "2,1"), ("x=\\pm 2", "2"), ("2", "x=\\pm 2"), ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("1,2", "1,2,3"),
    ("1,2,2", "1,2"), ("\\{2,3\\}", "(2,3)"), ("(3,1)", "1,3"), ("x>5", "x<5"), ("x>5", "x \\ge 5"), ("5 cm", "5 m"),
    ("5 dollars", "5 cents"), ("52_8", "52"), ("7:32", "7/32"), ("50", "0.5"), ("50\\%", "0.05"), ("1/3", "0.33"),
    ("0.33", "1/3"), ("0.0000001", "0.0000002"), ("10^{-20}", "2\\cdot 10^{-20}"), ("0", "10^{-15}"),
    ("\\pi\\cdot 10^{-20}", "2\\pi\\cdot 10^{-20}"), ("x^2+1=0", "x^2+4=0"), ("\\sqrt{2}", "1.4142"), ("1", "2=2"),
    ("\\frac{1}{2}", "\\frac{1}{0}"), ("\\infty", "\\frac{1}{0}"), ("55", "\\sum_{k=1}^{10} k"), ("32349", "32, 349"),
    ("\\log 2", "\\ln 2"), ("x", "True"), ("\\emptyset", "0"), ("5", "5, maybe 6"), ("1112112_3", "1112122_3"),
    ("3", "3 million"), ("1", "i^2"), ("i", "-i"), ("i<3", "i<4"), ("|x|<1", "|y|<1"), ("A", "A+1"),
    ("n", "\\frac{n^2}{2}"),
    ("(-\\infty,1)\\cup(2,\\infty)", "x<1 or x>3"), ("x<1 or x>2", "x<1, x>2"), ("\\{x|x>2\\}", "x<2"),
    ("\\{x|x>2\\}", "2"),
    ("(1,2)", "\\begin{pmatrix}2\\\\1\\end{pmatrix}"), ("(1,2)", "\\begin{pmatrix}1&2\\end{pmatrix}"),
    ("x=1,y=2", "\\begin{cases}x=2\\\\y=1\\end{cases}"), ("60 mph", "60 km/h"), ("3:30 p.m.", "3:30 a.m."),
    ("3rd", "3"),
    ("①②", "①③"), ("\\lg 2", "\\ln 2"), ("v_0t", "v_0t^2"), ("1/2", "1/2 or 1/3"), ("5", "5 cm, 5 m"),
    ("3", "x=3, y=3"),
    ("x^{23}", "x^{2}3"), ("\\{(0,1)\\}", "(1,0)"),
    ("-221_3", "-221_4"), ("45 \\text{ units}^2", "45 \\text{ units}^3"), ("\\frac{1}{2004!}", "\\frac{1}{2005!}"),
]  # fmt: skip


def test_answers_that_are_the_same() -> None:
    assert [pair for pair, found in zip(EQUAL, equivalent_all(EQUAL), strict=True) if found.verdict != "right"] == []


def test_answers_that_are_not() -> None:
    found = equivalent_all(NOT_EQUAL)
    assert [pair for pair, verified in zip(NOT_EQUAL, found, strict=True) if verified.verdict != "wrong"] == []


def test_only_right_answers_have_credit() -> None:
    assert equivalent("2", "2").credit == 1
    assert equivalent("2", "3").credit == 0


@pytest.mark.parametrize("gold", ["", "  ", "10^{10^{10}}", "7" * 5000, "\\frac{1}{", "\\boxed{}"])
def test_a_reference_at_fault_makes_no_answer_right(gold: str) -> None:
    assert equivalent(gold, "\\sqrt{42}").verdict is Verdict.UNSCORABLE
    with pytest.raises(HoneError, match="reference answer"):
        check_reference(gold)


def test_a_good_reference_passes() -> None:
    for gold in ("5", "\\frac{1}{2}", "x^2+1", "\\text{Evelyn}", "(1, \\sqrt{2})", "x = \\pm\\pi"):
        check_reference(gold)


def test_equal_answers_share_their_key() -> None:
    assert len({canonical(text) for text in ("1/2", "0.5", "\\frac{1}{2}", "x = 0.50", "0.5 cm")}) == 1
    assert canonical("\\{2, 1\\}") == canonical("\\{1,2\\}") != canonical("(2,1)") != canonical("(1,2)")
    assert canonical("x + 1") == canonical("x+1")
    assert canonical("9" * 5000) == "9" * 5000


# --- properties ---

rationals = st.builds(Fraction, st.integers(-10_000, 10_000), st.sampled_from([1, 2, 4, 5, 8, 10, 16, 25, 100, 125]))


def _spellings(value: Fraction) -> list[str]:
    top, bottom = abs(value.numerator), value.denominator
    sign = "-" if value < 0 else ""
    whole, rest = divmod(top, bottom)
    decimal = f"{float(abs(value)):.9f}".rstrip("0").rstrip(".")
    mixed = f"{whole}\\frac{{{rest}}}{{{bottom}}}" if whole and rest else f"{top}/{bottom}"
    return [
        f"{sign}{decimal}",
        f"{sign}{top}/{bottom}",
        f"{sign}\\frac{{{top}}}{{{bottom}}}",
        f"$\\frac{{{sign}{3 * top}}}{{{3 * bottom}}}$",
        f"{sign}{mixed}",
        f"{sign}{float(abs(value) / 1000):.12f} \\times 10^{{3}}",
        f"{sign}{decimal} \\text{{ cm}}",
        f"{sign}{decimal} 元",
        f"x = {sign}{decimal}",
        f"{sign}{whole:,}{decimal.removeprefix(str(whole))}",
        f"{sign}{float(abs(value) * 100):.7f}%",
    ]


@given(rationals, rationals)
@settings(max_examples=200, deadline=None)
def test_a_number_equals_itself_in_every_notation_and_no_other(value: Fraction, other: Fraction) -> None:
    spellings = _spellings(value)
    assert {found.verdict for found in equivalent_all([(spellings[0], text) for text in spellings])} == {Verdict.RIGHT}
    assert len({canonical(text) for text in spellings[:-1]}) == 1
    if other not in (value, value * 100, value / 100):
        found = equivalent_all([(gold, text) for gold in spellings for text in _spellings(other)])
        assert {verified.verdict for verified in found} == {Verdict.WRONG}


@given(st.text(max_size=60) | st.text(alphabet="0123456789.,+-*/^(){}[]\\=<>%$ xabπ元frc", max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_text_raises(text: str) -> None:
    extracted = extract(text, "auto")
    assert equivalent("\\text{no such answer}", text).verdict is Verdict.WRONG
    assert equivalent("0.123456", extracted or "").verdict is not Verdict.RIGHT
    canonical(text)


# --- public sets ---


def _rows(name: str) -> list[dict[str, Any]]:
    with (DATA / f"{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@needs_data
def test_agreement_on_grader_cases_is_98_in_100_and_the_rest_is_explained() -> None:
    rows = [row for row in _rows("grader_cases") if not row.get("disputed")]
    found = equivalent_all([(row["gold"], extract(row["pred"], "auto") or "") for row in rows])
    differing = {
        row["id"]
        for row, verified in zip(rows, found, strict=True)
        if (verified.verdict is Verdict.RIGHT) != row["expected"]
    }
    assert len(differing) <= 0.02 * len(rows)
    assert differing == set(re.findall(r"^\| (grader/\d+) ", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


@needs_data
def test_sampled_solutions_are_scored_as_published() -> None:
    samples = [
        (row["answer"], response, pred, score)
        for row in _rows("math_cot_samples")
        for response, pred, score in zip(row["responses"], row["preds"], row["scores"], strict=True)
    ]
    answers = [extract(response, "auto") or "" for _, response, _, _ in samples]
    verdicts = equivalent_all([(gold, answer) for (gold, *_), answer in zip(samples, answers, strict=True)])
    same_score = sum(
        (found.verdict is Verdict.RIGHT) == sample[3] for found, sample in zip(verdicts, samples, strict=True)
    )
    extractions = equivalent_all([(str(sample[2]), answer) for sample, answer in zip(samples, answers, strict=True)])
    same_answer = sum(found.verdict is Verdict.RIGHT for found in extractions)
    assert len(samples) == 656
    assert same_score >= 0.99 * len(samples)
    assert same_answer >= 0.99 * len(samples)


@needs_data
@pytest.mark.parametrize("name", ["math500", "gsm8k_test", "olympiadbench", "mgsm_zh", "cmath"])
def test_references_equal_themselves_and_not_their_neighbours(name: str) -> None:
    golds = [
        str(gold)
        for row in _rows(name)
        for gold in ([row["answer"]] if isinstance(row["answer"], str) else row["answer"])
    ]
    boxed = [(gold, extract(f"So it is \\boxed{{{gold.strip('$')}}}.", "auto") or "") for gold in golds]
    right = sum(found.verdict is Verdict.RIGHT for found in equivalent_all(boxed))
    assert right >= 0.999 * len(golds)
    changed = [(gold, re.sub(r"\d+", lambda digits: str(int(digits[0]) + 1), gold, count=1)) for gold in golds]
    changed = [(gold, other) for gold, other in changed if gold != other]
    assert [
        pair for pair, found in zip(changed, equivalent_all(changed), strict=True) if found.verdict == "right"
    ] == []
