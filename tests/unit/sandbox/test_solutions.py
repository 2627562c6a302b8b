"""Right solutions pass and wrong ones do not: on the problems of shared/data, where it is, and on one of our own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.sandbox import Limits, Sandbox
from hone.tasks.datasets import load_problems
from hone.types import AssertTest, CodeTest, Problem, StdinTest

DATA = Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the real data sets lie in shared/data beside the project, which is absent"
)
PATIENT = Limits(seconds=30, total_seconds=60)  # a reference solution of MBPP takes 4 s on an idle machine
EVERY = 13  # of LeetCode's problems: benchmarks/sandbox.py runs all of them


@pytest.fixture(scope="module")
def sandbox(isolation: None) -> Iterator[Sandbox]:
    with Sandbox(PATIENT, workers=2) as opened:
        yield opened


def problems(name: str, form: str) -> list[Problem]:
    return load_problems(str(DATA / f"{name}.jsonl"), format=form).problems


def wrong_ones(sandbox: Sandbox, asked: list[Problem]) -> dict[str, str]:
    """Run the reference solution of each problem; return why those that fail do."""
    results = sandbox.check_all((problem.answer, problem.tests, problem.setup) for problem in asked)
    return {problem.id: result.why for problem, result in zip(asked, results, strict=True) if result.share < 1}


@needs_data
@pytest.mark.parametrize(("name", "form", "count"), [("humaneval", "humaneval", 164), ("mbpp_sanitized", "mbpp", 399)])
def test_every_reference_solution_passes(name: str, form: str, count: int, sandbox: Sandbox) -> None:
    asked = problems(name, form)
    assert len(asked) == count
    assert wrong_ones(sandbox, asked) == {}


@needs_data
def test_solutions_of_leetcode_pass(sandbox: Sandbox) -> None:
    asked = problems("leetcode_train", "leetcode")[::EVERY]
    wrong = wrong_ones(sandbox, asked)
    unexplained = {name: why for name, why in wrong.items() if "sortedcontainers" not in why}  # no library is there
    assert unexplained == {}
    assert len(wrong) < 0.03 * len(asked)


@needs_data
def test_most_mutants_of_humaneval_fail(sandbox: Sandbox) -> None:
    """One operator changed. Some mutants compute the same, or what no test asks for, so not all of them can fail."""
    mutants = [
        (mutant, problem.tests, problem.setup)
        for problem in problems("humaneval", "humaneval")[::3]
        for mutant in list(mutations(problem.answer))[:1]
    ]
    caught = sum(result.share < 1 for result in sandbox.check_all(mutants))
    assert len(mutants) > 40
    assert caught > 0.85 * len(mutants)


SOLUTION = """
def clumps(numbers):
    count, inside = 0, False
    for place in range(1, len(numbers)):
        if numbers[place] == numbers[place - 1]:
            count, inside = count + (not inside), True
        else:
            inside = False
    return count

if __name__ == "__main__":
    print(clumps(input().split()))
"""
TESTS: list[CodeTest] = [
    AssertTest(code="assert clumps([1, 2, 2, 3, 4, 4]) == 2"),
    AssertTest(code="assert clumps([1, 1, 2, 1, 1]) == 2\nassert clumps([1, 1, 1, 1, 1]) == 1"),
    AssertTest(code="assert clumps([]) == 0\nassert clumps([5]) == 0\nassert clumps([5, 6, 5, 6]) == 0"),
    StdinTest(stdin="7 7 8 9 9 9\n", stdout="2\n"),
]


def test_every_mutant_of_our_own_solution_fails(sandbox: Sandbox) -> None:
    assert sandbox.check(SOLUTION, TESTS).outcome == "passed"
    mutants = list(mutations(SOLUTION))
    assert len(mutants) == 4  # == -> !=, - -> +, + -> -, and == -> != of the main guard
    for mutant, result in zip(mutants, sandbox.check_all((mutant, TESTS, "") for mutant in mutants), strict=True):
        assert result.share < 1, mutant


OTHER = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.GtE: ast.Lt,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutations(program: str) -> Iterator[str]:
    """Yield the program with each of its operators changed in turn."""
    for place, node in enumerate(ast.walk(ast.parse(program))):
        operator = node.ops[0] if isinstance(node, ast.Compare) else getattr(node, "op", None)
        if type(operator) not in OTHER:
            continue
        tree = ast.parse(program)
        changed = list(ast.walk(tree))[place]
        if isinstance(changed, ast.Compare):
            changed.ops[0] = OTHER[type(operator)]()
        else:
            changed.op = OTHER[type(operator)]()  # type: ignore[attr-defined]
        yield ast.unparse(tree)
