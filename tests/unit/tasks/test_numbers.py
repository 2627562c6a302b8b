"""Chains, greatest common divisors and linear equations, and lists of different problems."""

import math
import random
import re
from itertools import islice

import pytest

from hone.rewards.grammar import parse
from hone.rewards.verifiers import verify
from hone.tasks import GENERATORS, problems, without_language
from hone.tasks.numbers import QUESTION_WORDS, chain_canonical, chain_terms, gcd_canonical
from hone.tasks.split import Split, split_of
from hone.types import HoneError, Problem, Verdict

TASKS = ("chain", "gcd", "linear")


def draw(
    task: str, count: int, *, split: Split = "train", num_numbers: int = 3, chinese_share: float = 0.4, seed: int = 0
) -> list[Problem]:
    draws = GENERATORS[task](random.Random(seed), split=split, num_numbers=num_numbers, chinese_share=chinese_share)
    return list(islice(draws, count))


def numbers_in(problem: Problem) -> list[int]:
    return [int(word) for word in problem.messages[0].content.split() if word.isdecimal()]


def canonical_of(problem: Problem) -> str:
    return problem.id.split("/")[1]


@pytest.mark.parametrize(
    ("numbers", "operations", "canonical"),
    [
        ([7, 3, 2, 4], "+*-", "2*3+7-4"),
        ([2, 3, 4, 7], "*-+", "2*3+7-4"),  # the same, its terms and factors in another order
        ([7, 4, 2, 3], "-+*", "2*3+7-4"),
        ([7, 3, 2, 4], "-*+", "4+7-2*3"),  # another sign is another problem
        ([4, 3], "+", "3+4"),
        ([4, 3], "-", "4-3"),
        ([10, 9, 9], "++", "9+9+10"),  # by number, not by spelling
        ([5, 4, 3, 2], "***", "2*3*4*5"),
    ],
)
def test_a_chain_is_the_same_problem_in_any_order_of_its_terms(
    numbers: list[int], operations: str, canonical: str
) -> None:
    assert chain_canonical(chain_terms(numbers, operations)) == canonical


def test_the_terms_of_a_chain_are_its_signed_products() -> None:
    assert chain_terms([7, 3, 2, 4], "+*-") == [("+", (7,)), ("+", (3, 2)), ("-", (4,))]


def test_a_gcd_is_the_same_problem_in_either_order() -> None:
    assert gcd_canonical(18, 12) == gcd_canonical(12, 18) == "12-18"


@pytest.mark.parametrize("num_numbers", [2, 3, 5])
def test_a_chain_has_its_numbers_and_comes_to_its_answer(num_numbers: int) -> None:
    for problem in draw("chain", 1000, num_numbers=num_numbers):
        _, _, text = problem.messages[0].content.partition(" ")
        assert re.fullmatch(r"[0-9]+(?: [-+*] [0-9]+)*", text)
        assert len(numbers_in(problem)) == num_numbers
        assert all(1 <= number <= 20 for number in numbers_in(problem))
        assert str(parse(text).value) == problem.answer
        assert 0 <= int(problem.answer) <= 99
        words = text.split()
        assert canonical_of(problem) == chain_canonical(chain_terms(list(map(int, words[::2])), words[1::2]))


def test_no_step_of_a_chain_leaves_0_to_99() -> None:
    for problem in draw("chain", 2000, num_numbers=4):
        words = problem.messages[0].content.split()[1:]
        total = 0
        for sign, factors in chain_terms(list(map(int, words[::2])), words[1::2]):
            product = math.prod(factors)
            total += product if sign == "+" else -product
            assert product <= 99
            assert 0 <= total <= 99


def test_a_gcd_divides_both_numbers_and_no_larger_number_does() -> None:
    for problem in draw("gcd", 2000):
        a, b = numbers_in(problem)
        assert a != b
        assert 2 <= min(a, b) < max(a, b) <= 99
        divisors = [d for d in range(1, 100) if a % d == 0 and b % d == 0]
        assert problem.answer == str(divisors[-1])
        assert canonical_of(problem) == f"{min(a, b)}-{max(a, b)}"


def test_a_fair_share_of_gcds_is_greater_than_1() -> None:
    answers = [int(problem.answer) for problem in draw("gcd", 4000)]
    share = sum(answer > 1 for answer in answers) / len(answers)
    assert 0.55 < share < 0.75
    assert len(set(answers)) > 25


def test_an_equation_holds_for_its_answer_and_for_no_other() -> None:
    for problem in draw("linear", 2000):
        words = problem.messages[0].content.split()[1:]
        assert (words[1], words[4]) == ("x", "=")
        a, b, c = numbers_in(problem)
        sign = {"+": 1, "-": -1}[words[2]]
        assert [x for x in range(-200, 200) if a * x + sign * b == c] == [int(problem.answer)]
        assert canonical_of(problem) == f"{a}x{words[2]}{b}={c}"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_reference_is_right_and_a_perturbed_one_wrong(task: str, split: Split) -> None:
    for problem in draw(task, 1000, split=split):
        right = problem.answer
        assert verify(problem, f"<think> so </think> <answer> {right} </answer>")[0] is Verdict.RIGHT
        for wrong in (int(right) + 1, int(right) - 1, -int(right) - 1, f"1{right}", f"{right} / 3 + 1", ""):
            assert verify(problem, f"<think> so </think> <answer> {wrong} </answer>")[0] is Verdict.WRONG
        assert split_of(canonical_of(problem)) == split
        assert problem.id == f"{task}/{canonical_of(problem)}/{problem.language}"
        assert problem.task == task


@pytest.mark.parametrize("task", TASKS)
def test_every_word_of_a_question_is_in_the_small_vocabulary(task: str) -> None:
    vocabulary = {*QUESTION_WORDS, *map(str, range(100))}
    for problem in draw(task, 2000):
        assert set(problem.messages[0].content.split()) <= vocabulary


def test_every_question_word_is_used_once_in_the_list_and_in_some_question() -> None:
    used = {word for task in TASKS for problem in draw(task, 500) for word in problem.messages[0].content.split()}
    assert set(QUESTION_WORDS) <= used
    assert len(set(QUESTION_WORDS)) == len(QUESTION_WORDS)


@pytest.mark.parametrize(
    ("task", "english", "chinese"),
    [
        ("chain", r"compute [0-9]+ .*", r"计算 [0-9]+ .*"),
        ("gcd", r"gcd of [0-9]+ [0-9]+", r"[0-9]+ [0-9]+ 的 最大公约数"),
        ("linear", r"solve [0-9]+ x .*", r"解 [0-9]+ x .*"),
    ],
)
def test_questions_are_asked_in_the_language_of_the_problem(task: str, english: str, chinese: str) -> None:
    assert {p.language for p in draw(task, 200)} == {"en", "zh"}
    assert {p.language for p in draw(task, 200, chinese_share=0.0)} == {"en"}
    assert {p.language for p in draw(task, 200, chinese_share=1.0)} == {"zh"}
    for problem in draw(task, 200):
        assert re.fullmatch(english if problem.language == "en" else chinese, problem.messages[0].content)


@pytest.mark.parametrize("task", GENERATORS)
def test_a_list_holds_different_problems_and_a_shorter_list_begins_it(task: str) -> None:
    drawn = problems(task, split="test", count=300, seed=1)
    assert len({without_language(problem.id) for problem in drawn}) == len(drawn) == 300
    assert {split_of(canonical_of(problem)) for problem in drawn} == {"test"}
    assert problems(task, split="test", count=20, seed=1) == drawn[:20]
    assert problems(task, split="test", count=20, seed=2) != drawn[:20]


def test_a_list_keeps_the_order_in_which_problems_were_first_drawn() -> None:
    raw = GENERATORS["gcd"](random.Random("5/gcd/train/3"), split="train", num_numbers=3, chinese_share=0.4)
    first: dict[str, Problem] = {}
    for problem in islice(raw, 2000):
        first.setdefault(without_language(problem.id), problem)
    drawn = problems("gcd", split="train", count=1000, seed=5)
    assert drawn == list(first.values())[:1000]
    assert len(first) < 2000  # some came twice, so that there was something to leave out


def test_too_many_problems_are_refused_with_how_many_there_are() -> None:
    # x + y and x * y and x - y and x / y of two numbers from 1 to 10 give few problems: count them from scratch.
    exist = {
        f"{a}-{b}={value}"
        for a in range(1, 11)
        for b in range(a, 11)
        for value in (a + b, b - a, a * b, b // a if b % a == 0 else 0)
        if 1 <= value <= 99
    }
    held_out = sum(split_of(name) == "validation" for name in exist)
    with pytest.raises(HoneError, match=rf"^countdown: 500 different validation problems .* only {held_out} were"):
        problems("countdown", split="validation", count=500, seed=0, num_numbers=2)
    assert len(problems("countdown", split="validation", count=held_out, seed=0, num_numbers=2)) == held_out


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(HoneError, match="no task 'countdwon'; the tasks are countdown, chain, gcd, linear"):
        problems("countdwon", split="train", count=1, seed=0)
