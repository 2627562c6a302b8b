"""Verdicts by each kind of test, worked out by hand."""

from __future__ import annotations

import pytest

from hone.sandbox import Sandbox
from hone.types import AssertTest, CallTest, StdinTest

DOUBLE = "print(2 * int(input()))"


def stdin(*pairs: tuple[str, str]) -> list[StdinTest]:
    return [StdinTest(stdin=text, stdout=out) for text, out in pairs]


def asserts(*codes: str) -> list[AssertTest]:
    return [AssertTest(code=code) for code in codes]


@pytest.mark.parametrize(
    ("program", "out", "verdict", "why"),
    [
        (DOUBLE, "42", "passed", "1 of 1"),
        (DOUBLE, "43", "failed", "line 1 is '42', not '43'"),
        ("1 / 0", "42", "error", "ZeroDivisionError: division by zero"),
        ("print(42); raise SystemExit(3)", "42", "error", "exit status 3"),
        ("print(42); raise SystemExit", "42", "passed", "1 of 1"),
        ("def f(:", "42", "error", "SyntaxError"),
        ("import os; os.abort()", "42", "error", "signal 6"),
        ("x = [0] * (1 << 30)", "42", "memory", "MemoryError"),
        ("print('x' * (1 << 21))", "42", "output", "more than 1048576 bytes"),
        ("import atexit; atexit.register(print, 42)", "42", "passed", ""),
        ("import sys; out = open(1, 'w', closefd=False); out.write('42')", "42", "passed", ""),
        ("if __name__ == '__main__': print(open(0).read() * 2)", "2121", "passed", ""),
        ("import sys; print(sys.argv, __name__)", "['program.py'] __main__", "passed", ""),
        ("import threading; threading.Thread(target=print, args=(42,)).start()", "42", "passed", ""),
        ("import sys; sys.stderr.write('x' * (1 << 22)); print(42)", "42", "passed", ""),
        ("print(42)\nexit()", "42", "passed", ""),
        ("print(42)\nquit(3)", "42", "error", "exit status 3"),
        ("print(callable(help), __file__)", "True program.py", "passed", ""),
        ("\ufeffif 1:\r\n\tprint(42)\r\n", "42", "passed", ""),
        ("# -*- coding: gbk -*-\nprint('\u4e2d')", "\u4e2d", "passed", ""),
        ("import hone", "42", "error", "ModuleNotFoundError"),
        ("raise ValueError('\\x1b[2J\\udc80')", "42", "error", "ValueError: \\x1b[2J\\udc80"),
    ],
)
def test_stdin(sandbox: Sandbox, program: str, out: str, verdict: str, why: str) -> None:
    result = sandbox.check(program, stdin(("21", out)))
    assert (result.outcome, why in result.why) == (verdict, True), result


def test_deep_recursion_has_a_stack(sandbox: Sandbox) -> None:
    program = (
        "import sys, functools\nsys.setrecursionlimit(10**6)\n@functools.lru_cache(None)\n"
        "def f(n): return n and 1 + f(n - 1)\nprint(f(30000))"
    )
    assert sandbox.check(program, stdin(("", "30000"))).outcome == "passed"


def test_the_share_of_tests_is_counted(sandbox: Sandbox) -> None:
    result = sandbox.check("n = int(input())\nprint(10 // n)", stdin(("1", "10"), ("0", "0"), ("2", "5"), ("3", "4")))
    assert (result.outcome, result.why) == ("error", "ZeroDivisionError: integer division or modulo by zero")
    assert (result.num_passed, result.num_tests, result.share) == (2, 4, 0.5)
    assert 0 < result.seconds < 30
    assert 2 < result.peak_mb < 100


def test_setup_precedes_the_program(sandbox: Sandbox) -> None:
    program = "from __future__ import annotations\nprint(sqrt(int(input())))"
    assert sandbox.check(program, stdin(("49", "7.0")), setup="from math import *").outcome == "passed"


def test_no_tests_are_no_judgement(sandbox: Sandbox) -> None:
    result = sandbox.check(DOUBLE, [])
    assert (result.outcome, result.why, result.share) == ("refused", "no tests", 0.0)


def test_a_large_input_that_is_not_read(sandbox: Sandbox) -> None:
    result = sandbox.check("print(42)", stdin(("x" * (10 << 20), "42"), ("1", "42")))
    assert result.outcome == "passed"
    assert sandbox.check("print(len(input()))", stdin(("x" * (10 << 20), str(10 << 20)))).outcome == "passed"


@pytest.mark.parametrize(
    ("program", "function", "args", "expected", "verdict"),
    [
        ("def add(a, b): return a + b", "add", (1, 2), 3, "passed"),
        ("def add(a, b): return a + b", "add", (1, 2), 4, "failed"),
        ("def add(a, b): return a + b", "add", (0.1, 0.2), 0.3, "passed"),
        ("def pair(a): return a, [a]", "pair", ("\u00e9\n\\",), ["\u00e9\n\\", ["\u00e9\n\\"]], "passed"),
        ("class Solution:\n def twice(self, a): return a * 2", "Solution.twice", ([1],), [1, 1], "passed"),
        ("def count(a): return {x: a.count(x) for x in a}", "count", ([1, 1],), {"1": 2}, "passed"),
        ("def f(): return {1}", "f", (), [1], "error"),
        ("def f(): return object()", "f", (), [1], "failed"),
        ("def f(): return f()", "f", (), 1, "error"),
        ("def g(): pass", "f", (), None, "error"),
        ("def f(): return [0] * 10**7", "f", (), 1, "error"),
        ("if __name__ == '__main__': input()\ndef f(): return 1", "f", (), 1, "passed"),
    ],
)
def test_calls(sandbox: Sandbox, program: str, function: str, args: tuple, expected: object, verdict: str) -> None:
    result = sandbox.check(program, [CallTest(function=function, args=args, expected=expected)])
    assert result.outcome == verdict, result


def test_a_returned_cycle_is_no_answer(sandbox: Sandbox) -> None:
    program = "def f():\n a = [1]\n a.append(a)\n return a"
    assert sandbox.check(program, [CallTest(function="f", args=(), expected=[1, [1, [1]]])]).outcome == "failed"


def test_colliding_keys_do_not_stop_us(sandbox: Sandbox) -> None:
    program = "def f(): return {n * ((1 << 61) - 1): 0 for n in range(1, 3000)}"
    result = sandbox.check(program, [CallTest(function="f", args=(), expected={"1": 1})])
    assert result.outcome == "failed"


@pytest.mark.parametrize(
    ("program", "code", "verdict", "why"),
    [
        ("def f(a): return a + 1", "assert f(1) == 2", "passed", ""),
        ("def f(a): return a + 1", "assert f(1) == 3, f'it is {f(1)}'", "failed", "it is 2"),
        ("def f(a): raise KeyError(a)", "try:\n f(1)\nexcept KeyError: pass\nelse: assert False", "passed", ""),
        ("def f(a): raise KeyError(a)", "f(1)", "error", "KeyError"),
        ("class Odd(ValueError): pass\ndef f(): raise Odd('x')", "f()", "error", "ValueError: Odd: x"),
        ("def f(): return 1", "assert g() == 1", "error", "NameError: the program does not define g"),
        ("def f(a): a.sort()", "x = [2, 1]\ny = x\nf(x)\nassert y == [1, 2]", "passed", ""),
        ("def f(a): a['k'] = a['l']", "x = {'l': []}\nf(x)\nassert x['k'] is x['l']", "passed", ""),
        ("def f(): return {1, 2}, frozenset(), 1j, b'x', (1,)", "assert f() == ({2, 1}, frozenset(), 1j, b'x', (1,))",
         "passed", ""),
        ("def f():\n yield 1\n yield 2", "assert next(f()) == 1\nassert list(f()) == [1, 2]", "passed", ""),
        ("def f(): return float('nan')", "import math\nassert math.isnan(f())", "passed", ""),
        ("import math\ndef f(): return 2", "assert math.isclose(f(), 2)", "passed", ""),
        ("def f(n): return int('9' * 5000) + n", "assert f(1) == 10**5000", "error", ""),
        ("def f(n): return 10**5000 + n", "assert f(1) == 10**5000 + 1", "passed", ""),
        ("def sum(a, b): return a * b", "assert sum(3, 4) == 12", "passed", ""),
        ("class C:\n def __init__(self, n): self.n = n\n def up(self, by=1):\n  self.n += by\n  return self",
         "c = C(1)\nassert c.up(by=2).up().n == 4\nc.n = 7\nassert c.n == 7", "passed", ""),
        ("def outer(f, a): return f(a)\ndef inner(a): return a + 1", "assert outer(inner, 1) == 2", "passed", ""),
        ("def f(g): return g(1)", "assert f(lambda a: a) == 1", "error", "not plain data"),
        ("def f(): return 1", "import sys\nf()\nsys.exit(0)", "error", "SystemExit"),
        ("def f(): return object()", "assert f() == 1", "failed", ""),
    ],
)  # fmt: skip
def test_asserts(sandbox: Sandbox, program: str, code: str, verdict: str, why: str) -> None:
    result = sandbox.check(program, asserts(code))
    assert (result.outcome, why in result.why) == (verdict, True), result


def test_a_whole_check_script(sandbox: Sandbox) -> None:
    code = "def check(candidate):\n assert candidate(n=3) == 9\n assert candidate(4) == 16\ncheck(Solution().square)"
    assert sandbox.check("class Solution:\n def square(self, n): return n * n", asserts(code)).outcome == "passed"
    assert sandbox.check("class Solution:\n def square(self, n): return n + 6", asserts(code)).outcome == "failed"


def test_classes_of_the_setup_are_known_on_both_sides(sandbox: Sandbox) -> None:
    setup = "class Node:\n def __init__(self, value, after=None): self.value, self.after = value, after"
    program = (
        "class Node:\n def __init__(self, v): pass\n"  # a solution may bring its own
        "def cut(node):\n node.after = None\n return node\n"
    )
    code = (
        "head = Node(1, Node(2))\nfound = cut(head)\nassert found is head and found.value == 1 and head.after is None"
    )
    assert sandbox.check(program, asserts(code), setup=setup).outcome == "passed"


def test_asserts_are_counted_until_the_program_ends(sandbox: Sandbox) -> None:
    program = "import os\ndef f(n):\n if n == 2: os._exit(0)\n return n"
    result = sandbox.check(
        program, asserts("assert f(0) == 0", "assert f(1) == 0", "assert f(2) == 2", "assert f(0) == 0")
    )
    assert (result.num_passed, result.outcome) == (1, "failed")
    result = sandbox.check(program, asserts("assert f(0) == 0", "assert f(2) == 2", "assert f(0) == 0"))
    assert (result.num_passed, result.outcome) == (1, "error")
    assert "ended instead of answering" in result.why


def test_kinds_of_tests_may_be_mixed(sandbox: Sandbox) -> None:
    program = "def f(n): return n\nif __name__ == '__main__': print(f(1))"
    tests = [AssertTest(code="assert f(1) == 2"), *stdin(("", "1")), CallTest(function="f", args=(3,), expected=3)]
    result = sandbox.check(program, tests)
    assert (result.num_passed, result.num_tests, result.outcome) == (2, 3, "failed")
