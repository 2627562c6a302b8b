"""The code sandbox: programs of unknown intent against tests, one by one or many at once."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from hone.sandbox.box import Box, Stock, Stopped
from hone.sandbox.judge import Judged, Run
from hone.sandbox.limits import Limits, Outcome, Result
from hone.types import AssertTest, CallTest, CodeTest, HoneError, StdinTest


class Sandbox:
    """Judges programs in boxes without a network, host files, or right answers; close it, or use it in a `with`.

    `workers` programs run at once. Any thread may ask. With `unsafe=True` programs run as plain processes of this user,
    with limits but no isolation; nothing falls back to that by itself. Where isolation is not available, or does not
    hold (`selftest.ensure_tested`), this raises `HoneError`.
    """

    def __init__(
        self, limits: Limits | None = None, workers: int | None = None, *, unsafe: bool = False, tested: bool = False
    ) -> None:
        if not (unsafe or tested):
            from hone.sandbox.selftest import ensure_tested

            ensure_tested()
        self.limits = limits or Limits()
        self.isolated = not unsafe
        self.workers = workers or os.cpu_count() or 1
        self._stock = Stock(self.limits, self.workers, unsafe=unsafe)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="sandbox")
        self._jobs: set[_Job] = set()
        self._closed = False
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check(self, program: str, tests: Sequence[CodeTest], setup: str = "") -> Result:
        """Judge one program by its tests. `setup` is trusted code that precedes it, such as imports."""
        return self.submit(program, tests, setup).result()

    def check_all(self, cases: Iterable[tuple[str, Sequence[CodeTest], str]]) -> Iterator[Result]:
        """Judge (program, tests, setup) after (program, tests, setup), and yield the results in the same order.

        No more cases are taken than twice the workers ahead of the result that is waited for.
        """
        ahead: deque[Future[Result]] = deque()
        try:
            for case in cases:
                ahead.append(self.submit(*case))
                if len(ahead) > 2 * self.workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def submit(self, program: str, tests: Sequence[CodeTest], setup: str = "") -> Future[Result]:
        """Judge a program later. Cancelling the future kills what runs for it."""
        if self._closed:
            raise HoneError("the sandbox is closed")
        if os.getpid() != self._owner:
            raise HoneError("the sandbox was opened before this process was forked: open one of its own")
        job = _Job(self, program, tuple(tests), setup)
        self._jobs.add(job)
        job.future.add_done_callback(lambda _: self._jobs.discard(job))
        self._threads.submit(job.judge).add_done_callback(job.settle)
        return job.future

    def close(self) -> None:
        """Kill what runs, cancel what waits, and leave no process behind; do nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        self._closed = True
        for job in list(self._jobs):
            job.future.cancel()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._stock.close()


class _Job:
    """One program on its way to a result.

    Its future is marked as running only at the very end, so that it can be cancelled at any time before.
    """

    def __init__(self, sandbox: Sandbox, program: str, tests: tuple[CodeTest, ...], setup: str) -> None:
        self.sandbox, self.program, self.tests, self.setup = sandbox, program, tests, setup
        self.future: Future[Result] = Future()
        self.future.add_done_callback(lambda _: self._kill())
        self._boxes: list[Box] = []
        self._lock = threading.Lock()

    def settle(self, work: Future[Result]) -> None:
        """Hand on what the thread came to, unless nobody waits for it any more."""
        if work.cancelled():
            self.future.cancel()
        if not self.future.set_running_or_notify_cancel():
            return
        if error := work.exception():
            self.future.set_exception(error)
        else:
            self.future.set_result(work.result())

    def judge(self) -> Result:
        """Judge the program by its tests, one kind of test after the other."""
        start = time.monotonic()
        run = Run(self._take, self.sandbox.limits, self.program, self.setup)
        judged: dict[int, Judged] = {}
        kinds: tuple[tuple[type, Callable[[Any], list[Judged]]], ...] = (
            (StdinTest, run.stdin_tests), (CallTest, run.call_tests), (AssertTest, run.assert_tests),
        )  # fmt: skip
        for kind, judge in kinds:
            places = [place for place, test in enumerate(self.tests) if isinstance(test, kind)]
            if places:
                judged |= zip(places, judge([self.tests[place] for place in places]), strict=True)
        self.sandbox._stock.ensure_launcher()  # boxes that end with it say nothing of a program
        return self._result(judged, time.monotonic() - start, run.peak_bytes / (1 << 20))

    def _result(self, judged: dict[int, Judged], seconds: float, peak_mb: float) -> Result:
        num_tests = len(judged)
        wrong = [judged[place] for place in sorted(judged) if judged[place].outcome != Outcome.PASSED]
        first = wrong[0] if wrong else Judged(Outcome.PASSED, f"{num_tests} of {num_tests} tests")
        if not judged:
            first = Judged(Outcome.REFUSED, "no tests")
        return Result(
            outcome=first.outcome, why=_printable(first.why), seconds=seconds, peak_mb=peak_mb,
            num_passed=num_tests - len(wrong), num_tests=num_tests, isolated=self.sandbox.isolated,
        )  # fmt: skip

    def _take(self) -> Box:
        if self.future.cancelled():
            raise Stopped(Outcome.ERROR, "cancelled")
        box = self.sandbox._stock.take()
        with self._lock:
            self._boxes.append(box)
        if self.future.cancelled():
            box.kill()
        return box

    def _kill(self) -> None:
        with self._lock:
            for box in self._boxes:
                box.kill()


def _printable(text: str) -> str:
    """Return text that a program may have chosen as one line that a terminal can show."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text[:200])
