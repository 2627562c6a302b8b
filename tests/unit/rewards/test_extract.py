"""Where the final answer is found, in every form, and what is no answer."""

import pytest

from hone.rewards.extract import EXTRACTIONS, extract
from hone.types import HoneError


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $\boxed{42}$.", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x : x > 2 \right\}}", r"\left\{ x : x > 2 \right\}"),
        (r"\boxed 5$", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"first \boxed{3}, then I saw it is \boxed{4}.", "4"),
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"\boxed{1}, \boxed{2}, \boxed{3}", "1, 2, 3"),
        (r"$\boxed{x=1}$ 或 $\boxed{x=2}$", "x=1, x=2"),
        (r"\boxed{4} ... so \boxed{4}", "4"),
        (r"\boxed{1} no no no no no \boxed{2}", "2"),
        (r"<think>\boxed{1}</think> it is \boxed{2}", "2"),
        (r"<think>\boxed{1}</think> it is 2", None),
        (r"<think>\boxed{1}", None),
        (r"\boxed{3} cut off: \boxed{4", "3"),
        (r"\boxed{}", None),
        ("no box", None),
        (r"\boxed{3}}}", "3"),
        (r"{{{ \boxed{3}", "3"),
    ],
)
def test_the_last_box_or_those_joined_to_it(text: str, answer: str | None) -> None:
    assert extract(text, "boxed") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think><answer> 42 </answer>", "42"),
        (r"<think>a</think><answer>It is \boxed{42}.</answer>", "42"),
        ("<think>a</think><answer>1</answer><answer>2</answer>", None),
        ("42", None),
    ],
)
def test_tags_need_exactly_one_pair(text: str, answer: str | None) -> None:
    assert extract(text, "tags") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the answer is 42. I hope it helps.", "42"),
        ("The final answer is $\\frac{1}{2}$. I hope it is correct.", "$\\frac{1}{2}$"),
        ("Answer: 3.5", "3.5"),
        ("**Answer:** 7", "7"),
        ("24 / 2 = 12\n#### 1,200", "1,200"),
        ("所以答案是 18。", "18"),
        ("答案为：$3$", "$3$"),
        ("The answer is 1. No, the answer is 2.", "2"),
        ("The answer is:\n\n\\[ 5 \\]", "\\[ 5 \\]"),
        ("The answer is therefore 3 (since 1 + 2 = 3).", "3"),
        ("The answer is 42, not 43.", "42"),
        ("Ans: 3", "3"),
        ("最终结果为 5。", "5"),
        ("故选：D", "D"),
        ("故选D. 选项A不对。", "D"),
        ("答：需要15天。", "15天"),
        ("nothing", None),
    ],
)
def test_the_phrase_that_announces_an_answer(text: str, answer: str | None) -> None:
    assert extract(text, "phrase") == answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{(C)}}", "C"),
        ("<think>A?</think><answer>b</answer>", "B"),
        ("the answer is B because A is too small", "B"),
        ("答案：D", "D"),
        ("(C)", "C"),
        ("D. it can't be A or B", "D"),
        ("It's not A because it doesn't make sense, therefore I think it's B", "B"),
        ("A rose is a rose", None),
        ("", None),
    ],
)
def test_the_letter_that_is_chosen(text: str, letter: str | None) -> None:
    assert extract(text, "choice") == letter


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("Here:\n```python\nprint(1)\n```\nDone.", "print(1)\n"),
        ("```\na\n```\n```cpp\nb\n```", "b\n"),
        ("```\na\n```\n```\ncut off", "a\n"),
        ("<think>\n```\na\n```\n</think>\nnone", None),
        ("print(1)", None),
    ],
)
def test_the_last_closed_code_block(text: str, program: str | None) -> None:
    assert extract(text, "code") == program


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("42", "42"),
        ("28 percent", "28 percent"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("so the number is 10 which is 1,000.99 dollars", "1,000.99 dollars"),
        ("We find that $x < 3$.", "$x < 3$"),
        ("Clearly there are $3$ of them, and each weighs 12 kg.", "12 kg"),
        ("the word AZYUK2A holds no number at all", None),
        (r"the answer is 3, so \boxed{4}", "4"),
        ("<think>a</think><answer>5</answer>", "5"),
        ("She pays $12 in total.", "12"),
        ("She earns $12 a day.", "12"),
        ("We drove at 60 miles per hour.", "60 miles per hour"),
        ("所以小明一共有10个苹果。", "10个苹"),
        ("所以面积是3.14平方米。", "3.14平方米"),
        ("因此 x=3。", "x=3"),
        ("占50%。", "50%"),
        ("2024年5月", "2024年5月"),
        ("第3天", "第3天"),
        ("等腰三角形", "等腰三角形"),
        ("No real solutions.", "No real solutions"),
    ],
)
def test_auto_takes_the_strongest_sign_of_an_answer(text: str, answer: str | None) -> None:
    assert extract(text, "auto") == answer


def test_an_unknown_way_is_named() -> None:
    with pytest.raises(HoneError, match="boxd"):
        extract("1", "boxd")


@pytest.mark.parametrize("how", EXTRACTIONS)
@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "{",
        "$",
        "\\[",
        "\\(",
        "answer is ",
        "answer is 1   ",
        "有1",
        "答",
        "选",
        "1,",
        "```\n",
        "<think>",
        "\\boxed{1}, ",
        "\\",
        " ",
        "(A",
    ],
)
def test_a_megabyte_of_anything_takes_linear_time(how: str, piece: str) -> None:
    extract(piece * (1_000_000 // len(piece)), how)  # quadratic time would be hours


@pytest.mark.parametrize(
    "text",
    [
        "The answer is (A, B, C, D).", "The answer is A or B.", "答案：A、C", r"\boxed{A, B}",
        "<answer> A / B </answer>", r"\boxed{\text{(A) and (B)}}", "A, B, C, D", "The answer is (A) or (B).",
    ],
)  # fmt: skip
def test_who_names_several_letters_has_not_chosen(text: str) -> None:
    found = extract(text, "choice")
    assert found is None or len(found) > 1
