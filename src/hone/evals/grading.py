"""Judges outputs in processes of their own, so that both cores grade and one problem's fault stays with it.

This module is also what such a process runs: a JSON line in, a problem with its outputs; a JSON line out, what was
found in them. Nothing is pickled, and the caller's `__main__` is not imported again.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from queue import SimpleQueue
from typing import Any, NamedTuple

from hone.evals.generations import as_problem, as_row
from hone.evals.scores import Answered, Row, consensus, judge
from hone.types import HoneError, Problem, RunError


class Graded(NamedTuple):
    """A problem with what was found in each of its outputs, and what their vote came to."""

    problem: Problem
    rows: list[Row]
    consensus: bool | None


class Grader:
    """A pool of `num_processes` that judge, by default one a core. A context manager."""

    def __init__(self, num_processes: int | None = None) -> None:
        self._num_processes = num_processes or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self._num_processes, thread_name_prefix="hone-grader")
        self._idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()

    def __enter__(self) -> Grader:
        for _ in range(self._num_processes):
            self._idle.put(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            process = self._idle.get()
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # it ends with its input
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()

    def grade(self, problems: Iterable[tuple[Problem, list[Answered]]]) -> Iterator[Graded]:
        """Yield the problems graded, in order. No more are taken in than the processes and one more each can hold."""
        under_way: deque[Future[Graded]] = deque()
        for problem, outputs in problems:
            under_way.append(self._threads.submit(self._ask, problem, outputs))
            if len(under_way) > 2 * self._num_processes:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def _ask(self, problem: Problem, outputs: list[Answered]) -> Graded:
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            asked = {"problem": as_row(problem), "outputs": [asdict(output) for output in outputs]}
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
        finally:
            self._idle.put(process)
        if not line:
            raise RunError(f"the process that graded {problem.id} ended (was it killed for memory?): grade again")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise HoneError(answer["error"])
        return Graded(problem, answer["rows"], answer["consensus"])

    def _start(self) -> subprocess.Popen[str]:
        # One thread each: there are as many processes as cores.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "hone.evals.grading"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, encoding="ascii", env=environment, start_new_session=True,
        )  # fmt: skip


def _serve() -> None:
    """Answer the lines of the standard input; what is printed by accident goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        problem = as_problem(asked["problem"])
        try:
            rows = judge([(problem, Answered(**output)) for output in asked["outputs"]])
            answer: dict[str, Any] = {"rows": rows, "consensus": consensus(problem, rows)}
        except HoneError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
