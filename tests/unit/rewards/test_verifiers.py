"""The verifiers: what is right, what is wrong, and what is an error of the data set."""

from dataclasses import replace

import pytest
from keys import answer_key

from hone.rewards.arithmetic import last_expression
from hone.rewards.verifiers import VERIFIERS, completion_with, verify, verify_all
from hone.types import HoneError, Problem, StdinTest, Verdict

RIGHT, WRONG = Verdict.RIGHT, Verdict.WRONG


def problem(task: str, answer: str) -> Problem:
    verifier = "expression" if task == "countdown" else "number"
    return Problem(id=f"{task}/x/en", task=task, messages=(), answer=answer, verifier=verifier)


COUNTDOWN = problem("countdown", "( 8 * 8 ) - 3")
NUMBER = problem("linear", "5")


def answered(answer: str) -> str:
    return f"<think> so </think> <answer> {answer} </answer>"


@pytest.mark.parametrize(
    ("answer", "verdict", "why"),
    [
        ("( 8 * 8 ) - 3", RIGHT, "comes to 61"),
        ("8 * 8 - 3", RIGHT, "comes to 61"),
        ("8*8-3", RIGHT, "comes to 61"),
        ("8 × 8 − 3", RIGHT, "comes to 61"),
        ("- 3 + 8 * 8", RIGHT, "comes to 61"),
        ("8 * ( 8 - 3 )", WRONG, "comes to 40"),
        ("3 - 8 * 8", WRONG, "comes to -61"),
        ("8 * 8 / 3", WRONG, "comes to 64/3"),
        ("61", WRONG, "uses 61"),  # the target itself
        ("8 * 8", WRONG, "uses 8 8"),
        ("8 * 8 - 3 + 0", WRONG, "uses 0 3 8 8"),
        ("8 * 8 - 3 * 1", WRONG, "uses 1 3 8 8"),
        ("8 * 8 - 3 - 8 + 8", WRONG, "uses 3 8 8 8 8"),
        ("88 - 3", WRONG, "uses 3 88"),
        ("8 * 8 - 3 = 61", WRONG, "not an expression: '=' is not arithmetic"),
        ("8 * 8 / ( 3 - 3 )", WRONG, "not an expression: division by zero"),
        ("", WRONG, "not an expression: it ends too early"),
    ],
)
def test_a_countdown_answer_uses_the_numbers_once_each_and_comes_to_the_target(
    answer: str, verdict: Verdict, why: str
) -> None:
    assert verify(COUNTDOWN, answered(answer)) == (verdict, why, float(verdict is RIGHT))


@pytest.mark.parametrize("task", ["chain", "gcd", "linear"])
@pytest.mark.parametrize(
    ("answer", "verdict", "why"),
    [
        ("5", RIGHT, "is 5"),
        (" 5\n", RIGHT, "is 5"),
        ("05", RIGHT, "is 5"),
        ("10 / 2", RIGHT, "is 5"),  # a fraction is a number
        ("x = 5", RIGHT, "is 5"),
        ("x=5", RIGHT, "is 5"),
        ("6", WRONG, "is 6"),
        ("- 5", WRONG, "is -5"),
        ("11 / 2", WRONG, "is 11/2"),
        ("2 + 3", WRONG, "not a number"),  # still to be worked out
        ("2 * 3 - 1", WRONG, "not a number"),
        ("( 5 )", WRONG, "not a number"),
        ("- - 5", WRONG, "not a number"),
        ("5 / 0", WRONG, "not a number"),
        ("20 / 2 / 2", WRONG, "not a number"),
        ("5 5", WRONG, "not a number"),
        ("5 or 6", WRONG, "not a number"),
        ("y = 5", WRONG, "not a number"),
        ("x = x = 5", WRONG, "not a number"),
        ("five", WRONG, "not a number"),
        ("", WRONG, "not a number"),
    ],
)
def test_a_number_is_right_where_it_is_equal_as_a_fraction(task: str, answer: str, verdict: Verdict, why: str) -> None:
    assert verify(problem(task, "5"), answered(answer)) == (verdict, why, float(verdict is RIGHT))


@pytest.mark.parametrize("answer", ["-5", "- 5", "−5", "x = - 5"])
def test_a_number_below_zero_may_be_written_with_either_minus(answer: str) -> None:
    assert verify(problem("linear", "-5"), answered(answer)) == (RIGHT, "is -5", 1.0)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<think> a </think> <answer> 5 </answer>", RIGHT),
        ("a <answer> 5 </answer> b", RIGHT),  # the format is another reward's matter
        ("<think> a </think> 5", WRONG),
        ("5", WRONG),
        ("<answer> 5", WRONG),
        ("<answer> 5 </answer> <answer> 5 </answer>", WRONG),
        ("<answer> 6 </answer> <answer> 5 </answer>", WRONG),
        ("<think> <answer> 5 </answer> </think>", WRONG),
        ("", WRONG),
    ],
)
def test_the_answer_is_what_stands_in_the_one_pair_of_tags(text: str, verdict: Verdict) -> None:
    assert verify(NUMBER, text)[0] is verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("try 8 * 8 = 64 - 3 = 61 right so ( 8 * 8 ) - 3", RIGHT),
        ("<think> so </think> <answer> 8 * 8 - 3 </answer>", RIGHT),
        ("8 * 8 - 3", RIGHT),
        ("<answer> 8 * 8 - 3", RIGHT),
        ("8 * 8 - 3 so", WRONG),
        ("8 * 8 - 3 = 61", WRONG),  # its longest end that is an expression is 61
        ("", WRONG),
    ],
)
def test_the_lenient_reading_takes_the_longest_end_that_is_an_expression(text: str, verdict: Verdict) -> None:
    assert verify(COUNTDOWN, text, lenient=True)[0] is verdict


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("so ( 8 * 8 ) - 3", "( 8 * 8 ) - 3"),
        ("8 ) - 3", "- 3"),  # a sign may begin an expression
        ("x = 5", "5"),
        ("a 1 + 1", "1 + 1"),
        ("5 a", ""),
        ("", ""),
        ("a " * 300 + "7", "7"),
        ("1" * 300 + " + 7", "7"),  # the number is cut in two, so what is left of it does not count
        ("1+" * 300 + "11", ""),  # one word of 602 characters, whose last 200 would be an expression
        ("a 9" + " - 1" * 49 + " 55", "55"),
        # 200 characters are kept: whole words only, wherever the cut falls.
        ("7 " + "- 1 " * 49 + "- 12", "- 1 " * 49 + "- 12"),
        ("77 " + "- 1 " * 49 + "- 1", "- 1 " * 49 + "- 1"),
        ("77" + " - 1" * 50, "- 1 " * 49 + "- 1"),
        ("7" + " - 1" * 49 + " - ", ""),
    ],
)
def test_the_longest_end_of_a_text(text: str, end: str) -> None:
    assert last_expression(text) == end


@pytest.mark.parametrize("answer", ["", "five", "8 * ", "8 / 0", "3²"])
@pytest.mark.parametrize("task", ["countdown", "chain", "gcd", "linear"])
def test_a_reference_outside_the_grammar_is_an_error_of_the_data_and_never_scores(task: str, answer: str) -> None:
    asked = problem(task, answer)
    with pytest.raises(HoneError, match=f"problem {task}/x/en"):
        VERIFIERS[asked.verifier].check_reference(asked)
    found = verify(asked, answered(answer))
    assert (found.verdict, found.credit) == (Verdict.UNSCORABLE, 0.0)
    assert found.why.startswith("gold: problem")


@pytest.mark.parametrize(
    ("task", "first", "second"),
    [
        ("countdown", "( 8 * 8 ) - 3", "8 * 8 - 3"),
        ("countdown", "3 + 8", "8 + 3"),
        ("linear", "x = 5", "5"),
        ("linear", "05", "5"),
        ("gcd", "10 / 2", "5"),
        ("gcd", "five", "five"),
    ],
)
def test_the_same_answer_in_two_spellings_has_one_key(task: str, first: str, second: str) -> None:
    one, two = (answer_key(problem(task, "5"), answered(answer)) for answer in (first, second))
    assert one is not None
    assert one == two


@pytest.mark.parametrize(
    ("task", "first", "second"),
    [
        ("countdown", "8 * 8 - 3", "61"),
        ("countdown", "4 + 4", "4 * 2"),
        ("gcd", "2 + 3", "5"),  # one is wrong and the other right
        ("gcd", "5", "-5"),
    ],
)
def test_different_answers_have_different_keys(task: str, first: str, second: str) -> None:
    one, two = (answer_key(problem(task, "5"), answered(answer)) for answer in (first, second))
    assert one != two


def test_no_answer_has_no_key() -> None:
    assert answer_key(NUMBER, "5") is None


MATHS = Problem(id="m/1", task="m", messages=(), answer=r"\frac{1}{2}", verifier="math", extract="boxed")
CHOICE = Problem(id="c/1", task="c", messages=(), answer="B", verifier="choice", extract="choice")
CODE = Problem(
    id="p/1", task="p", messages=(), verifier="code", extract="code",
    tests=(StdinTest(stdin="21\n", stdout="42\n"), StdinTest(stdin="1\n", stdout="2\n")),
)  # fmt: skip


def fenced(program: str) -> str:
    return f"<think> so </think>\n```python\n{program}\n```\n"


@pytest.mark.parametrize(
    ("asked", "text", "verdict", "credit"),
    [
        (MATHS, r"<think> \boxed{3} </think> It is \boxed{0.5}.", RIGHT, 1.0),
        (MATHS, r"<think> \boxed{0.5} </think> It is \boxed{0.51}.", WRONG, 0.0),
        (MATHS, "0.5", WRONG, 0.0),
        (CHOICE, "The answer is (B).", RIGHT, 1.0),
        (CHOICE, "The answer is C.", WRONG, 0.0),
        (CODE, fenced("print(2 * int(input()))"), RIGHT, 1.0),
        (CODE, fenced("print(42)"), WRONG, 0.5),
        (CODE, fenced(""), WRONG, 0.0),
        (CODE, "print(2 * int(input()))", WRONG, 0.0),
    ],
)
@pytest.mark.usefixtures("isolation")
def test_maths_choices_and_programs(asked: Problem, text: str, verdict: Verdict, credit: float) -> None:
    found = verify(asked, text)
    assert (found.verdict, found.credit) == (verdict, credit)


@pytest.mark.usefixtures("isolation")
def test_many_kinds_are_judged_at_once_and_in_order() -> None:
    cases = [
        (CODE, fenced("print(2 * int(input()))")),
        (NUMBER, answered("5")),
        (MATHS, r"\boxed{1/2}"),
        (MATHS, "1/2"),
    ]
    found = verify_all(cases * 3)
    assert [one.verdict for one in found] == [RIGHT, RIGHT, RIGHT, WRONG] * 3
    assert found[3].why == r"no answer: no \boxed{} after the thinking"


@pytest.mark.parametrize("text", [r"\boxed{((}", r"\boxed{5}", "nothing"])
def test_an_unreadable_maths_reference_is_unscorable_and_never_right(text: str) -> None:
    unreadable = replace(MATHS, answer="")
    assert verify(unreadable, text).verdict is Verdict.UNSCORABLE
    with pytest.raises(HoneError, match="problem m/1"):
        VERIFIERS["math"].check_reference(unreadable)


@pytest.mark.parametrize("asked", [MATHS, CHOICE, NUMBER, COUNTDOWN, CODE])
@pytest.mark.usefixtures("isolation")
def test_what_the_preflight_gives_as_wrong_is_wrong(asked: Problem) -> None:
    verifier = VERIFIERS[asked.verifier]
    texts = [completion_with(asked, answer) for answer in verifier.wrong_answers(asked)]
    assert len(texts) >= 3
    assert {found.verdict for found in verify_all([(asked, text) for text in texts])} == {WRONG}
    if asked.answer:
        assert verify(asked, completion_with(asked, asked.answer)).verdict is RIGHT


def test_programs_have_no_key() -> None:
    assert answer_key(CODE, fenced("print(1)")) is None
    assert answer_key(MATHS, r"\boxed{0.5}") == answer_key(MATHS, r"\boxed{\frac12}")
