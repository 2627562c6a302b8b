"""Whether a program is right: it passes its tests in the sandbox, which is opened at first use and shared."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence

from hone.rewards.extract import extract
from hone.sandbox import Outcome, Result, Sandbox
from hone.types import HoneError, Problem, Verdict, Verified

_lock = threading.Lock()
_shared: tuple[int, Sandbox] | None = None


class Code:
    """A Python program, right where it passes every test; its credit is the share that it passes."""

    def check_reference(self, problem: Problem) -> None:
        if not problem.tests:
            raise HoneError(f"problem {problem.id}: it has no tests")

    def judge_all(self, cases: Sequence[tuple[Problem, str]]) -> list[Verified]:
        for problem, _ in cases:
            self.check_reference(problem)
        sandbox = open_sandbox()
        results = sandbox.check_all((program, problem.tests, problem.setup) for problem, program in cases if program)
        return [_verified(next(results)) if program else Verified(Verdict.WRONG, "no program") for _, program in cases]

    def loosely(self, text: str) -> str | None:
        return extract(text, "code")

    def key(self, answer: str) -> None:
        """Two programs cannot be compared."""

    def wrong_answers(self, problem: Problem) -> list[str]:
        return ["", "pass", "raise SystemExit"]


def _verified(result: Result) -> Verified:
    verdict = _VERDICTS.get(result.outcome, Verdict.WRONG)
    return Verified(verdict, f"{result.outcome}: {result.why}", result.share)


# A program that fails, loops, crashes or exceeds a limit is wrong; what the sandbox would not run was not judged.
_VERDICTS = {Outcome.PASSED: Verdict.RIGHT, Outcome.REFUSED: Verdict.UNSCORABLE}


def open_sandbox() -> Sandbox:
    """Return this process's sandbox; a forked child opens its own."""
    global _shared
    with _lock:
        if _shared is None or _shared[0] != os.getpid():
            _shared = os.getpid(), Sandbox()
            atexit.register(_shared[1].close)
        return _shared[1]
