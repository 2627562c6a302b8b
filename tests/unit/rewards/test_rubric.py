"""Rubrics: what an open answer must hold, what it must not, and what it is worth."""

from __future__ import annotations

import pytest
from keys import answer_key

from hone.rewards.compose import score
from hone.rewards.verifiers import VERIFIERS, completion_with, verify
from hone.types import HoneError, Problem, RewardRule, Verdict

RIGHT, WRONG = Verdict.RIGHT, Verdict.WRONG


def problem(rubric: str) -> Problem:
    return Problem(id="general/x/en", task="general", messages=(), answer=rubric, verifier="rubric", extract="summary")


@pytest.mark.parametrize(
    ("rubric", "answer", "verdict", "why", "credit"),
    [
        ("hone", "i am hone .", RIGHT, "holds all that was asked for", 1.0),
        ("hone ; model", "i am hone .", WRONG, "lacks model", 0.5),
        ("hone ; model", "nothing", WRONG, "lacks hone", 0.0),
        ("hone ; model ; small", "a small model", WRONG, "lacks hone", 2 / 3),
        ("hello|hi ; numbers|target", "hi , give me a target", RIGHT, "holds all that was asked for", 1.0),
        ("hello|hi ; numbers|target", "this thing", WRONG, "lacks hello|hi", 0.0),  # no `hi` in the midst of a word
        ("good morning", "good  \n morning to you", RIGHT, "holds all that was asked for", 1.0),  # a phrase
        ("good morning", "good evening , morning", WRONG, "lacks good morning", 0.0),
        ("早上 好|你好", "你好 。", RIGHT, "holds all that was asked for", 1.0),
        ("hone", "", WRONG, "no answer: nothing after the thinking", 0.0),
    ],
)
def test_an_answer_holds_words_and_phrases(rubric: str, answer: str, verdict: Verdict, why: str, credit: float) -> None:
    assert verify(problem(rubric), answer) == (verdict, why, pytest.approx(credit))


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("8", RIGHT),
        ("the largest is 8 .", RIGHT),
        ("8 , yes , 8", RIGHT),  # the only number, said twice
        ("it is 8.", RIGHT),
        ("8 or 9", WRONG),  # two numbers
        ("9", WRONG),
        ("18", WRONG),
        ("88", WRONG),
        ("8.5", WRONG),
        ("eight", WRONG),
        ("", WRONG),
    ],
)
def test_a_number_is_the_only_one(answer: str, verdict: Verdict) -> None:
    assert verify(problem("#8"), answer).verdict is verdict


@pytest.mark.parametrize(
    ("answer", "verdict", "credit"),
    [
        ("i will not help , it may hurt", RIGHT, 1.0),
        ("no .", WRONG, 0.5),
        ("so 7", WRONG, 0.0),
        ("first take a bomb", WRONG, -1.0),
        ("i will not help , it may hurt , but first take a bomb", WRONG, -1.0),  # a refusal does not make up for it
        ("take care of your car", WRONG, -1.0),
        ("a mistake to taken", WRONG, 0.0),  # neither is the word
    ],
)
def test_what_is_forbidden_makes_an_answer_unsafe(answer: str, verdict: Verdict, credit: float) -> None:
    found = verify(problem("not|no ; hurt ; !take|a bomb"), answer)
    assert (found.verdict, found.credit) == (verdict, credit)
    assert found.why.startswith("unsafe: holds take|a bomb") == (credit < 0)


def test_a_rubric_that_only_forbids_is_met_by_all_else() -> None:
    assert verify(problem("!take"), "i will not").verdict is RIGHT
    assert verify(problem("!take"), "take it").credit == -1


def test_what_stands_in_the_thinking_is_not_seen() -> None:
    rubric = problem("not ; !take")
    assert verify(rubric, "<think> take it </think> i will not").verdict is RIGHT
    assert verify(rubric, "<think> i will not </think> take it").credit == -1
    assert verify(rubric, "<think> not") == (WRONG, "no answer: nothing after the thinking", 0.0)
    assert verify(rubric, "<think> a </think> <answer> i will not </answer>").verdict is RIGHT


@pytest.mark.parametrize("rubric", ["", "hone ; ", " ; hone", "hone ; !", "hone ; #", "hone ; |"])
def test_a_rubric_with_an_empty_requirement_is_refused(rubric: str) -> None:
    with pytest.raises(HoneError, match=r"problem general/x/en: its rubric .* has an empty requirement"):
        VERIFIERS["rubric"].check_reference(problem(rubric))
    VERIFIERS["rubric"].check_reference(problem("hello|hi ; #8 ; !take"))


def test_wrong_answers_are_wrong_and_same_answers_have_one_key() -> None:
    asked = problem("hello|hi ; numbers")
    verifier = VERIFIERS["rubric"]
    assert all(verify(asked, completion_with(asked, wrong)).verdict is WRONG for wrong in verifier.wrong_answers(asked))
    assert answer_key(asked, "<think> a </think> hello  you") == answer_key(asked, " hello you") == "hello you"
    assert verifier.loosely("<think> a </think> hi") == "hi"


def test_a_score_carries_what_the_verifier_said_it_is_worth() -> None:
    rule = RewardRule(format_variant="direct")
    half = score(problem("hone ; model"), "i am hone", rule)
    assert (half.reward, half.parts, half.credit) == (1.0, {"accuracy": 0.0, "format": 1.0}, 0.5)
    unsafe = score(problem("not ; !take"), "take it", rule)
    assert (unsafe.verdict, unsafe.credit) == (WRONG, -1.0)
    assert unsafe.parts["accuracy"] == 0  # worth less than nothing, and yet no punishment by the rules
