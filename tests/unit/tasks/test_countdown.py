"""Countdown: its chains, how they are written, and the problems drawn."""

import random
from itertools import islice

import pytest

from hone.rewards.verifiers import verify
from hone.tasks.countdown import Step, canonical, chains, combine, expression, generate, question, read_id
from hone.tasks.split import Split, split_of
from hone.types import Problem, Verdict


def draw(count: int, *, split: Split = "train", seed: int = 0, num_numbers: int = 3) -> list[Problem]:
    return list(islice(generate(random.Random(seed), split=split, num_numbers=num_numbers), count))


@pytest.mark.parametrize(
    ("a", "b", "written"),
    [
        (8, 2, {"8 + 2 = 10", "8 * 2 = 16", "8 - 2 = 6", "8 / 2 = 4"}),
        (2, 8, {"2 + 8 = 10", "2 * 8 = 16", "8 - 2 = 6", "8 / 2 = 4"}),
        (7, 3, {"7 + 3 = 10", "7 * 3 = 21", "7 - 3 = 4"}),  # 7 / 3 is not whole
        (50, 50, {"50 - 50 = 0", "50 / 50 = 1"}),  # 100 and 2500 are too large
        (5, 0, {"5 + 0 = 5", "5 * 0 = 0", "5 - 0 = 5"}),  # no division by zero
        (99, 1, {"99 * 1 = 99", "99 - 1 = 98", "99 / 1 = 99"}),  # 99 is still allowed, 100 is not
    ],
)
def test_combining_two_numbers_gives_every_allowed_operation(a: int, b: int, written: set[str]) -> None:
    steps = combine(a, b)
    assert {f"{step.left} {step.op} {step.right} = {step.value}" for step in steps} == written
    assert len(steps) == len(written)


def test_the_chains_of_two_numbers_are_their_operations() -> None:
    assert set(chains((2, 8))) == {
        (Step(2, "+", 8, 10),),
        (Step(2, "*", 8, 16),),
        (Step(8, "-", 2, 6),),
        (Step(8, "/", 2, 4),),
    }


def test_the_chains_of_three_numbers_are_those_worked_out_by_hand() -> None:
    # 40, 50, 60: every product and every sum but 40 + 50 is above 99, and only 50 - 40, 60 - 50 and 60 - 40 begin
    # with a difference; 40 + 50 = 90 then goes on with 90 - 60 alone.
    written = {expression(chain) for chain in chains((40, 50, 60))}
    assert written == {
        "( 40 + 50 ) - 60",
        "( 50 - 40 ) + 60", "60 - ( 50 - 40 )", "60 / ( 50 - 40 )",
        "( 60 - 40 ) + 50", "50 - ( 60 - 40 )",
        "( 60 - 50 ) + 40", "40 - ( 60 - 50 )", "40 / ( 60 - 50 )",
    }  # fmt: skip


@pytest.mark.parametrize("numbers", [(3, 8, 8), (1, 2, 10), (4, 4, 4), (2, 3, 5, 7)])
def test_every_chain_uses_each_number_once_and_comes_to_its_last_value(numbers: tuple[int, ...]) -> None:
    for chain in chains(numbers):
        problem = Problem(
            id="", task="countdown", messages=(), answer=" + ".join(map(str, numbers)), verifier="expression"
        )
        why = verify(problem, f"<answer> {expression(chain)} </answer>")[1]
        assert why == f"comes to {chain[-1].value}"
        assert all(0 <= step.value <= 99 for step in chain)


@pytest.mark.parametrize(
    ("chain", "written"),
    [
        ((Step(8, "*", 8, 64), Step(64, "-", 3, 61)), "( 8 * 8 ) - 3"),
        ((Step(9, "-", 2, 7), Step(8, "-", 7, 1)), "8 - ( 9 - 2 )"),
        ((Step(3, "+", 2, 5), Step(5, "*", 4, 20), Step(20, "/", 10, 2)), "( ( 3 + 2 ) * 4 ) / 10"),
    ],
)
def test_a_chain_is_written_as_one_expression(chain: tuple[Step, ...], written: str) -> None:
    assert expression(chain) == written


def test_a_question_and_an_id_are_written_and_read() -> None:
    assert question((8, 3, 8), 61, "en") == "use 8 3 8 make 61"
    assert question((8, 3, 8), 61, "zh") == "用 8 3 8 得 61"
    assert canonical((8, 3, 10), 61) == "3-8-10=61"
    assert read_id("countdown/3-8-10=61/zh") == ((3, 8, 10), 61)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_drawn_problem_is_of_its_split_and_solved_by_its_reference(split: Split) -> None:
    for problem in draw(3000, split=split):
        numbers, target = read_id(problem.id)
        asked = problem.messages[0].content.split()
        assert split_of(canonical(numbers, target)) == split
        assert sorted(map(int, asked[1:4])) == list(numbers)
        assert int(asked[5]) == target
        assert 1 <= target <= 99
        assert all(1 <= number <= 10 for number in numbers)
        verdict, why, _ = verify(problem, f"<think> so </think> <answer> {problem.answer} </answer>")
        assert (verdict, why) == (Verdict.RIGHT, f"comes to {target}")


def test_a_perturbed_reference_is_wrong() -> None:
    for problem in draw(1000):
        used = [word for word in problem.answer.split() if word.isdecimal()]
        for wrong in (f"{problem.answer} + 1", f"{problem.answer} - {used[0]}", " + ".join(used[:2]), used[0]):
            assert verify(problem, f"<answer> {wrong} </answer>")[0] is Verdict.WRONG
        swapped = problem.answer.replace(used[-1], str(int(used[-1]) + 1), 1)
        assert verify(problem, f"<answer> {swapped} </answer>")[0] is Verdict.WRONG
        numbers, target = read_id(problem.id)
        other = next(chain for chain in chains(numbers) if chain[-1].value != target)
        verdict, why, _ = verify(problem, f"<answer> {expression(other)} </answer>")
        assert (verdict, why) == (Verdict.WRONG, f"comes to {other[-1].value}")


@pytest.mark.parametrize("num_numbers", [2, 3, 4, 5])
def test_as_many_numbers_are_given_as_asked_for(num_numbers: int) -> None:
    assert {len(read_id(p.id)[0]) for p in draw(200, num_numbers=num_numbers)} == {num_numbers}


def test_the_same_seed_gives_the_same_problems_and_another_does_not() -> None:
    assert draw(50, seed=3) == draw(50, seed=3)
    assert draw(50, seed=3) != draw(50, seed=4)


def test_languages_come_in_the_share_asked_for() -> None:
    drawn = islice(generate(random.Random(0), split="train", chinese_share=0.25), 4000)
    chinese = sum(problem.language == "zh" for problem in drawn)
    assert 1000 - 110 < chinese < 1000 + 110  # four standard deviations: 4 * sqrt(4000 * 0.25 * 0.75) = 110


def test_the_numbers_are_asked_in_random_order() -> None:
    asked = [problem.messages[0].content.split()[1:4] for problem in draw(400)]
    in_order = sum(list(map(int, words)) == sorted(map(int, words)) for words in asked)
    assert 0.1 < in_order / len(asked) < 0.4  # 0.22: of 10^3 ordered triples, 220 are sorted
