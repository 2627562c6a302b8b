"""Word problems: the arithmetic of the stories, the splits, and worked traces that are right by our own verifier."""

import math
import random
import re
from itertools import islice

import pytest

from hone.rewards.behaviour import measure
from hone.rewards.format import split_completion
from hone.rewards.grammar import parse
from hone.rewards.verifiers import verify
from hone.tasks import problems
from hone.tasks.split import Split, split_of
from hone.tasks.words import MAX_VALUE, Story, Sum, steps, stories, terse, traces
from hone.types import Problem, Verdict

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def draw(count: int, *, split: Split = "train", num_numbers: int = 3, seed: int = 0) -> list[Story]:
    return list(islice(stories(random.Random(seed), split=split, num_numbers=num_numbers), count))


def arithmetic_of(problem: Problem) -> str:
    return problem.id.split("/")[1]


def numbers_in(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def read(question: str) -> int:
    """Solve a story by its words alone, which the generator's own arithmetic does not enter."""
    opening, *rest = re.split(r"(?<=[.?])\s+", question)
    value = math.prod(numbers_in(opening))  # so many boxes of so many each
    for sentence in rest:
        numbers = numbers_in(sentence)
        if not numbers:
            continue
        if "friends" in sentence or "piles" in sentence:
            value, left_over = divmod(value, numbers[0])
            assert not left_over
        elif "times as many" in sentence:
            value *= numbers[0]
        elif "more than" in sentence:
            value += value + numbers[0]
        elif "more" in sentence:
            value += numbers[0]
        else:
            assert re.search(r" (gives|loses|sells|takes) ", sentence)
            value -= numbers[0]
    return value


def test_a_story_worked_by_hand() -> None:
    found = {arithmetic_of(story.problem): story for split in SPLITS for story in draw(20_000, split=split)}
    assert found["18+9-6"].sums == (Sum(18, "+", 9, 27), Sum(27, "-", 6, 21))
    assert found["5*4&3"].sums == (Sum(5, "*", 4, 20), Sum(20, "+", 3, 23), Sum(23, "+", 20, 43))
    assert found["40+2:6"].problem.answer == "7"


def test_the_manners_of_a_story_worked_by_hand() -> None:
    found = {arithmetic_of(story.problem): story for split in SPLITS for story in draw(20_000, split=split)}
    assert [manner(found["40-9+4"]) for manner in (terse, steps)] == [
        "40 - 9 + 4 = 35.",
        "40 - 9 = 31. 31 + 4 = 35.",
    ]
    assert terse(found["14-9*3"]) == "(14 - 9) * 3 = 15."
    assert terse(found["5*4&3"]) == "5 * 4 + 5 * 4 + 3 = 43."


def test_each_line_of_a_story_comes_to_its_answer() -> None:
    for story in draw(1000, num_numbers=4):
        expression, _, value = story.line.partition(" = ")
        assert parse(expression).value == int(value) == int(story.problem.answer)


@pytest.mark.parametrize("num_numbers", [2, 3, 4, 5])
def test_a_story_tells_its_numbers_and_comes_to_its_answer(num_numbers: int) -> None:
    for story in draw(500, num_numbers=num_numbers):
        told = numbers_in(story.problem.question)
        assert told == numbers_in(arithmetic_of(story.problem))
        assert len(told) == num_numbers
        assert str(read(story.problem.question)) == story.problem.answer
        assert story.problem.question.endswith("?")


def test_every_sum_is_true_and_follows_from_the_numbers_and_those_before_it() -> None:
    for story in draw(2000, num_numbers=4):
        known = set(numbers_in(story.problem.question))
        for left, op, right, value in story.sums:
            assert {left, right} <= known
            result = {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[op]
            assert value == result
            assert 0 < value <= MAX_VALUE
            known.add(value)
        assert str(story.sums[-1].value) == story.problem.answer


@pytest.mark.parametrize("split", SPLITS)
def test_a_story_is_in_the_split_of_its_arithmetic(split: Split) -> None:
    assert {split_of(arithmetic_of(story.problem)) for story in draw(500, split=split)} == {split}


@pytest.mark.parametrize("num_numbers", [2, 3, 4])
def test_no_arithmetic_of_one_split_stands_in_another_whatever_the_words_and_the_seed(num_numbers: int) -> None:
    found = [
        {arithmetic_of(story.problem) for seed in (0, 1) for story in draw(2000, **settings, seed=seed)}
        for settings in ({"split": split, "num_numbers": num_numbers} for split in SPLITS)
    ]
    assert all(found)
    assert not found[0] & found[1] | found[0] & found[2] | found[1] & found[2]


def test_traces_are_of_training_problems_alone_and_each_of_another() -> None:
    asked = {problem.question for split in ("validation", "test") for problem in problems(
        "words", split=split, count=200, seed=0)}  # fmt: skip
    worked = traces(0, count=300, num_numbers=(2, 3))
    assert len({example.prompt for example in worked}) == len(worked) == 300
    assert not asked & {example.prompt for example in worked}
    sizes = [len(numbers_in(example.prompt)) for example in worked]
    assert (sizes.count(2), sizes.count(3)) == (150, 150)


def test_traces_follow_from_the_seed_and_a_shorter_list_begins_a_longer_one() -> None:
    assert traces(1, count=20, num_numbers=(3,)) == traces(1, count=40, num_numbers=(3,))[:20]
    assert traces(1, count=20, num_numbers=(3,)) != traces(2, count=20, num_numbers=(3,))


def test_every_trace_is_right_well_formed_and_without_a_slip() -> None:
    checked = 0
    for example in traces(0, count=600, num_numbers=(2, 3, 4)):
        problem = Problem(id="words", task="words", messages=(), answer=str(read(example.prompt)))
        assert verify(problem, example.completion).verdict is Verdict.RIGHT
        assert split_completion(example.completion).well_formed
        behaviour = measure(problem, example.completion)
        assert behaviour.slips == 0
        checked += behaviour.verifies
    assert 0.05 < checked / 600 < 0.15


def test_traces_are_in_either_manner_about_equally_often() -> None:
    thoughts = [split_completion(example.completion).think.partition(" Check")[0] for example in traces(
        0, count=900, num_numbers=(4,))]  # fmt: skip
    assert 0.45 < sum(text.count("=") == 1 for text in thoughts) / 900 < 0.55


def test_a_wrong_answer_is_wrong() -> None:
    problem = draw(1)[0].problem
    for wrong in (int(problem.answer) + 1, -int(problem.answer), ""):
        assert verify(problem, f"<think> so </think> <answer> {wrong} </answer>").verdict is Verdict.WRONG
