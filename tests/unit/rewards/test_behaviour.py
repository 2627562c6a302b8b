"""Written examples of every behaviour in both languages, and near misses."""

import pytest

from hone.rewards.behaviour import Behaviour, Kind, measure, spans
from hone.types import Language, Problem


def problem(task: str = "countdown", language: Language = "en") -> Problem:
    return Problem(id=f"{task}/x/{language}", task=task, messages=(), answer="5", language=language)


def found(task: str, text: str, kind: Kind) -> list[str]:
    return [text[span.start : span.end] for span in spans(task, text) if span.kind == kind]


@pytest.mark.parametrize(
    ("text", "tries"),
    [
        ("try 3 + 8 = 11 low", 1),
        ("试 3 + 8 = 11 小", 1),
        ("try 3 + 8 = 11 low try 8 * 8 = 64 high 试 3 * 8 = 24", 3),
        ("<think> try 3 </think>", 1),
        ("", 0),
        ("trying tryst retry 尝试 试试", 0),  # other words
        ("try, again", 0),  # a word of the small vocabulary stands between spaces
        ("Try 3", 0),
    ],
)
def test_a_try_begins_at_its_word(text: str, tries: int) -> None:
    assert measure(problem(), text).tries == tries


@pytest.mark.parametrize(
    ("text", "reflects"),
    [
        ("try 8 * 8 = 64 high try 8 + 8 = 16 right", True),
        ("试 8 * 8 = 64 大 试 8 + 8 = 16 对", True),
        ("try 3 + 8 = 11 low 试 8 * 8 = 64", True),  # mixed, and still it tries again
        ("小 try 3", True),
        ("try 8 * 8 = 64 high so", False),  # it gives up
        ("try 8 * 8 = 64 high", False),
        ("试 8 * 8 = 64 大 所以", False),
        ("try 8 * 8 = 64 try 3 + 8 = 11", False),  # tries again without a judgement
        ("high high so try 3", False),  # another word between
        ("highest try 3", False),
        ("high trying 3", False),
        ("很大 试 3", False),
        ("try 8 * 8 = 64 right so", False),
        ("", False),
    ],
)
def test_an_output_reflects_where_it_judges_a_result_and_tries_again(text: str, reflects: bool) -> None:
    assert measure(problem(), text).reflects is reflects


@pytest.mark.parametrize(
    ("text", "verifies"),
    [
        ("try 8 * 8 = 64 - 3 = 61 right check 8 * 8 = 64 - 3 = 61 right so", True),
        ("试 8 * 8 = 64 - 3 = 61 对 查 8 * 8 = 64 - 3 = 61 对 所以", True),
        ("right 查 8 * 8 = 64", True),
        ("right check so", False),  # the word without the work
        ("right check", False),
        ("checked 8 * 8 = 64", False),
        ("checks 8 * 8 = 64", False),
        ("right verify 8 * 8 = 64", False),  # no word of Countdown
        ("检查 8 * 8 = 64", False),
        ("check ²", False),
        ("", False),
    ],
)
def test_an_output_verifies_where_it_recomputes(text: str, verifies: bool) -> None:
    assert measure(problem(), text).verifies is verifies


@pytest.mark.parametrize(
    ("text", "sums", "slips"),
    [
        ("3 + 8 = 11", 1, []),
        ("3 + 8 = 12", 1, ["3 + 8 = 12"]),
        ("8 - 3 = 5", 1, []),
        ("3 - 8 = 5", 1, ["3 - 8 = 5"]),
        ("8 * 3 = 24", 1, []),
        ("8 * 3 = 25", 1, ["8 * 3 = 25"]),
        ("8 / 2 = 4", 1, []),
        ("8 / 3 = 2", 1, ["8 / 3 = 2"]),  # not whole
        ("8 / 0 = 0", 1, ["8 / 0 = 0"]),
        ("0 / 0 = 0", 1, ["0 / 0 = 0"]),
        ("3+8=11", 1, []),
        # In running form each result begins the next sum, right or wrong.
        ("3 + 8 = 11 * 8 = 88", 2, []),
        ("3 + 8 = 11 * 8 = 89", 2, ["11 * 8 = 89"]),
        ("3 + 8 = 12 * 8 = 96", 2, ["3 + 8 = 12"]),
        ("3 + 8 = 12 * 8 = 88", 2, ["3 + 8 = 12", "12 * 8 = 88"]),
        ("3 + 2 = 5 , 8 - 5 = 3", 2, []),
        ("试 3 + 8 = 12 小", 1, ["3 + 8 = 12"]),
        ("3 + 8 = 12.", 1, ["3 + 8 = 12"]),  # a full stop ends the sentence
        # The end of a longer expression is not judged.
        ("7 + 3 * 2 = 13", 0, []),
        ("10 - 3 - 2 = 5", 0, []),
        ("10-3-2=5+1=6", 1, []),
        ("10 - 3 - 2 = 5 + 1 = 7", 1, ["5 + 1 = 7"]),
        # No sums.
        ("3 + 8", 0, []),
        ("3 = 3", 0, []),
        ("3 + = 11", 0, []),
        ("1.5 + 2 = 4", 0, []),
        ("2 + 1.5 = 4", 0, []),
        ("2 + 2 = 4.5", 0, []),
        ("² + 2 = 4", 0, []),
        ("1234567 + 1 = 2", 0, []),
        ("", 0, []),
    ],
)
def test_a_slip_is_a_sum_that_is_not_true(text: str, sums: int, slips: list[str]) -> None:
    behaviour = measure(problem(), text)
    assert behaviour.sums == sums
    assert behaviour.slips == len(slips)
    assert found("countdown", text, "slip") == slips


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Wait, that is a mistake.", ["Wait", "mistake"]),
        ("However, but; retry! error? wrong", ["However", "but", "retry", "error", "wrong"]),
        ("let me evaluate", ["evaluate"]),
        ("等等，不对，重新算", ["等等", "不对", "重新"]),
        ("但是我错了", ["但", "错"]),
        ("waiter mistaken butter errors rewrong", []),  # other words
        ("await", []),
        ("不错，没错", []),  # "not bad", "quite right"
        ("不但大", []),  # "not only"
        ("so the result is 5", []),
        ("", []),
    ],
)
def test_outside_countdown_an_output_reflects_by_the_reflective_words(text: str, words: list[str]) -> None:
    assert found("gcd", text, "reflection") == words
    assert measure(problem("gcd"), text).reflects is bool(words)


@pytest.mark.parametrize(
    ("text", "verifies"),
    [
        ("let me verify this", True),
        ("checking again", True),
        ("I double-check it", True),
        ("She verifies it; check", True),
        ("检查一下", True),
        ("验证", True),
        ("验算", True),
        ("verification", False),
        ("a checkerboard, a paycheck", False),
        ("查", False),  # a word of Countdown only
        ("", False),
    ],
)
def test_outside_countdown_an_output_verifies_by_words_of_verification(text: str, verifies: bool) -> None:
    assert measure(problem("chain"), text).verifies is verifies


def test_words_of_reflection_are_not_those_of_countdown_and_the_other_way_round() -> None:
    assert not measure(problem("countdown"), "wait , a mistake").reflects
    assert not measure(problem("gcd"), "high try 3").reflects
    assert measure(problem("gcd"), "try 3 try 4").tries == 0


def test_spans_come_in_the_order_in_which_they_stand() -> None:
    text = "try 3 + 8 = 12 low try 8 * 8 = 64 right check 8 * 8 = 64"
    assert [(span.kind, text[span.start : span.end]) for span in spans("countdown", text)] == [
        ("try", "try"),
        ("slip", "3 + 8 = 12"),
        ("reflection", "low"),
        ("try", "try"),
        ("verification", "check"),
    ]


def test_all_figures_of_one_output() -> None:
    text = "<think> try 8 + 3 = 12 low try 8 * 8 = 64 - 3 = 61 right check 8 * 8 = 64 - 3 = 61 right so </think>"
    assert measure(problem(), text) == Behaviour(
        tries=2, reflects=True, verifies=True, sums=5, slips=1, repetition=pytest.approx(3 / 25), loops=False,
        longest_paragraph=32.0, code_blocks=0,
    )  # fmt: skip
    # 32 words make 25 windows; the ten words of the recomputation hold three that stood before.
