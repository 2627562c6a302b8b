"""Judging outputs and putting figures together: votes, ties, breakdowns, and what is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hone.evals.scores import Answered, Scores, consensus, judge
from hone.types import AssertTest, Message, Problem, RunError


def problem(answer: str = r"\frac{1}{2}", **more: Any) -> Problem:
    asked = (Message(role="user", content="What is it?"),)
    settings = {"id": "p", "verifier": "math", "extract": "boxed"} | more
    return Problem(task="t", messages=asked, answer=answer, **settings)


def boxed(*answers: str) -> list[Answered]:
    return [Answered(text=rf"So it is \boxed{{{answer}}}.", num_tokens=9, truncated=False) for answer in answers]


def vote(asked: Problem, outputs: list[Answered]) -> bool | None:
    return consensus(asked, judge([(asked, output) for output in outputs]))


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        (["0.5", r"\frac12", "3", "4"], True),  # two right ones, written differently, against one each
        (["0.5", "3", "3.0"], False),
        (["0.5", r"\frac12", "x+y", "y+x", r"x + y"], False),  # equivalent as formulas alone
        (["0.5", r"\frac12", "x+y", "x-y", "2x"], True),
        (["3", "0.5"], False),  # a tie: the answer that came first
        (["0.5", "3"], True),
        (["3", "4", "0.5", "0.5", "4"], False),  # tied with the 4 that came first
        (["3", "0.5", "4", "0.5", "4"], True),
        (["3", "4"], False),
    ],
)
def test_the_majority_counts_answers_that_are_equivalent_and_ties_go_to_the_first(
    answers: list[str], wanted: bool
) -> None:
    assert vote(problem(), boxed(*answers)) is wanted


def test_outputs_without_an_answer_do_not_vote() -> None:
    silent = Answered(text="I do not know", num_tokens=3, truncated=False)
    assert vote(problem(), [silent, silent, *boxed("0.5")]) is True
    assert vote(problem(), [silent]) is False


def test_programs_and_instructions_have_no_majority() -> None:
    program = problem("", verifier="code", extract="code", tests=(AssertTest(code="assert 1"),))
    row = {"verdict": "right", "extracted": None}
    assert consensus(program, [row]) is None
    asked = json.dumps({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]})
    followed = problem(asked, verifier="instructions", extract="summary")
    assert vote(followed, [Answered(text="yes", num_tokens=1, truncated=False)]) is None


def test_unscorable_outputs_are_counted_and_left_out() -> None:
    broken = problem(r"\frac{1}{")
    rows = judge([(broken, output) for output in boxed("1", "2")])
    assert {row["verdict"] for row in rows} == {"unscorable"}
    assert consensus(broken, rows) is None
    scores = Scores()
    scores.add(broken, rows, consensus=None)
    with pytest.raises(RunError, match="none of the outputs could be scored"):
        scores.figures()
    sound = problem(id="q")
    scores.add(sound, judge([(sound, output) for output in boxed("0.5", "1")]), consensus=True)
    figures = scores.figures()
    assert [(point["k"], point["pass_at_k"]) for point in figures["pass_at_k_curve"]] == [(1, 0.5), (2, 1.0)]
    assert (figures["pass_at_1"], figures["num_unscorable"], figures["num_outputs"]) == (0.5, 2, 4)
    assert [row["num_scored"] for row in scores.problems()] == [0, 2]


def test_figures_are_means_over_problems_of_means_over_outputs() -> None:
    easy, hard = problem(id="easy", tags={"level": "1"}), problem(id="hard", tags={"level": "5"})
    scores = Scores(budgets=(5, 100))
    for asked, outputs in ((easy, boxed("0.5", "0.5", "0.5", "1")), (hard, boxed("1", "2", "0.5", "3"))):
        rows = judge([(asked, output) for output in outputs])
        scores.add(asked, rows, consensus=consensus(asked, rows))
    figures = scores.figures()
    assert figures["pass_at_1"] == 0.5
    assert figures["pass_at_1_standard_error"] == pytest.approx(0.25)  # of 0.75 and 0.25
    assert figures["cons_at_k"] == 0.5  # `hard`: four answers once each, and 1 was first
    assert [point["k"] for point in figures["pass_at_k_curve"]] == [1, 2, 4]
    assert figures["pass_at_k_curve"][1]["pass_at_k"] == pytest.approx((1 + 0.5) / 2)
    assert figures["pass_at_k"] == 1
    assert [point["pass_at_1"] for point in figures["budget_curve"]] == [0, 0.5]
    assert figures["completion_length_mean"] == 9
    groups = scores.groups()["level"]
    assert {level: group["pass_at_1"] for level, group in groups.items()} == {"1": 0.75, "5": 0.25}


def test_what_is_not_known_of_outputs_made_elsewhere_is_no_figure() -> None:
    scores = Scores()
    asked = problem()
    rows = judge([(asked, Answered(text=r"\boxed{0.5}", num_tokens=None, truncated=None))])
    scores.add(asked, rows, consensus=True)
    figures = scores.figures()
    for name in ("completion_length_mean", "truncated_share", "completion_length_finished_mean"):
        assert (figures[name], figures[f"{name}_ci95"]) == (None, None)
    assert "instruction_accuracy" not in figures


def test_the_form_can_be_ignored() -> None:
    asked = problem()
    (row,) = judge([(asked, Answered(text="The answer is 0.5", num_tokens=5, truncated=False))])
    assert (row["verdict"], row["extracted"], row["lenient"]) == ("wrong", None, True)


def test_instructions_are_counted_one_by_one_over_all_of_them() -> None:
    two = json.dumps(
        {"instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, {}]}
    )
    one = json.dumps({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]})
    scores = Scores()
    for name, reference, text in (("a", two, "Well no"), ("b", one, "*yes*, first\nno comma here")):
        asked = problem(reference, id=name, verifier="instructions", extract="summary")
        scores.add(asked, judge([(asked, Answered(text=text, num_tokens=3, truncated=False))]), consensus=None)
    figures = scores.figures()
    assert figures["pass_at_1"] == 0
    assert figures["lenient_pass_at_1"] == 0.5  # `b` without its first line
    assert figures["instruction_accuracy"] == pytest.approx(1 / 3)
    assert figures["instruction_accuracy_loose"] == pytest.approx(2 / 3)
    assert figures["cons_at_k"] is None
