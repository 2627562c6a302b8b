"""How programs are judged by each kind of test: what goes into which box, and what is made of what comes out.

Right answers stay in this process or, for test code, in a box of their own; a program's box never holds them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from hone.sandbox.box import Box, Stopped, wait_for
from hone.sandbox.compare import same_output, same_value
from hone.sandbox.inside.wire import WireError, decode, encode
from hone.sandbox.limits import Limits, Outcome
from hone.types import AssertTest, CallTest, StdinTest

GRACE_SECONDS = 2.0  # by which the first process inside may be late to stop a program itself
_MESSAGE_BYTES = 1 << 16  # beyond the data in it


class Judged(NamedTuple):
    """What one test says."""

    outcome: Outcome
    why: str = ""


PASSED = Judged(Outcome.PASSED)


class Run:
    """One program being judged: its boxes, its limits, and what they were seen to use."""

    def __init__(self, take: Callable[[], Box], limits: Limits, program: str, setup: str) -> None:
        self.take, self.limits = take, limits
        self.program, self.setup = (text.encode("utf-8", "surrogatepass") for text in (program, setup))
        self.peak_bytes = 0
        self.end = time.monotonic() + limits.total_seconds

    def stdin_tests(self, tests: Sequence[StdinTest]) -> list[Judged]:
        """Run the program on each standard input. A box that had to be stopped is followed by a fresh one."""
        judged: list[Judged] = []
        while len(judged) < len(tests):
            if time.monotonic() >= self.end:
                return judged + [self._out_of_time()] * (len(tests) - len(judged))
            box = self.take()
            try:
                for one in self._stdin_box(box, tests[len(judged) :]):
                    judged.append(one)
            except Stopped as stopped:
                judged.append(Judged(stopped.outcome, stopped.why))
            finally:
                self._close(box)
        return judged

    def _stdin_box(self, box: Box, tests: Sequence[StdinTest]) -> Iterator[Judged]:
        inputs = [test.stdin.encode("utf-8", "surrogatepass") for test in tests]
        box.send(b"stdin", self.setup, self.program, *inputs)
        for test in tests:
            late = min(self.end, time.monotonic() + self.limits.seconds + GRACE_SECONDS)
            kind, *parts = box.receive(late, self.limits.output_bytes + _MESSAGE_BYTES)
            _expect(kind, parts, {b"ran": 5})
            status, stopped, peak_kib, printed, complaint = parts
            self.peak_bytes = max(self.peak_bytes, _number(peak_kib) * 1024)
            yield self._ended(_number(status), stopped, complaint) or self._printed(test, printed)

    @staticmethod
    def _printed(test: StdinTest, printed: bytes) -> Judged:
        difference = same_output(test.stdout, printed)
        return Judged(Outcome.FAILED, difference) if difference else PASSED

    def _ended(self, status: int, stopped: bytes, complaint: bytes) -> Judged | None:
        """Say how a process ended, None where that was well."""
        if stopped == b"timeout" or status == -24:  # SIGXCPU
            return Judged(Outcome.TIMEOUT, f"more than {self.limits.seconds:g} s")
        if stopped == b"output":
            return Judged(Outcome.OUTPUT, f"more than {self.limits.output_bytes} bytes of output")
        if status == 0:
            return None
        last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        if last.startswith("MemoryError"):
            return Judged(Outcome.MEMORY, f"MemoryError at {self.limits.memory_mb} MB")
        how = f"exit status {status}" if status > 0 else f"signal {-status}"
        return Judged(Outcome.ERROR, last or how)

    def call_tests(self, tests: Sequence[CallTest]) -> list[Judged]:
        """Call the program's functions and compare what they return, here."""
        box = self.take()
        judged: list[Judged] = []
        try:
            self._load(box)
            for test in tests:
                judged.append(self._call(box, test))
        except Stopped as stopped:
            judged += [Judged(stopped.outcome, stopped.why)] * (len(tests) - len(judged))
        finally:
            self._close(box)
        return judged

    def _call(self, box: Box, test: CallTest) -> Judged:
        # Test data has no limit but the machine's; what the program sends back has.
        request, _ = encode((test.function, test.args), max_bytes=1 << 31)
        box.send(b"function", request)
        kind, *parts = self._receive(box, self.limits.output_bytes + 2 * len(request))
        if kind == b"raised":
            return _raised(parts)
        try:
            value, _ = decode(*parts, as_json=True)
            right = same_value(test.expected, value)
        except (WireError, TypeError, RecursionError) as error:
            return Judged(Outcome.ERROR, f"{test.function} returned {error}")
        return PASSED if right else Judged(Outcome.FAILED, f"{test.function} returned something else")

    def assert_tests(self, tests: Sequence[AssertTest]) -> list[Judged]:
        """Run test code in one box against the program in another."""
        program, checker = self.take(), self.take()
        judged: list[Judged] = []
        try:
            self._load(program)
            checker.send(b"check", self.setup, b"%d" % (self.limits.output_bytes * 16))
            for test in tests:
                judged.append(self._assert(program, checker, test))
        except Stopped as stopped:
            judged += [Judged(stopped.outcome, stopped.why)] * (len(tests) - len(judged))
        finally:
            self._close(program)
            self._close(checker)
        return judged

    def _assert(self, program: Box, checker: Box, test: AssertTest) -> Judged:
        """Carry messages between the two boxes until the checker has a verdict."""
        deadline = self._deadline()
        checker.send(b"test", test.code.encode("utf-8", "surrogatepass"))
        room = self.limits.output_bytes * 16 + _MESSAGE_BYTES
        while True:
            kind, *parts = self._from_checker(program, checker, deadline, room)
            _expect(kind, parts, {b"call": 1, b"passed": 0, b"failed": 2, b"raised": 2})
            if kind == b"call":
                program.send(b"call", *parts)
                checker.send(
                    *self._answer(program, deadline, self.limits.output_bytes + 2 * len(parts[0]) + _MESSAGE_BYTES)
                )
            elif kind == b"passed":
                return PASSED
            elif kind == b"failed":
                why = parts[1].decode("utf-8", "replace")
                return Judged(Outcome.FAILED, why or "an assertion does not hold")
            else:
                return _raised(parts)

    def _from_checker(self, program: Box, checker: Box, deadline: float, room: int) -> list[bytes]:
        """Return the checker's next message; raise `Stopped` where the program speaks without being asked."""
        while (message := checker.take(room)) is None:
            for box in wait_for([program, checker], deadline):
                box.read()
            if program.take(room) is not None:
                raise Stopped(Outcome.ERROR, "the program's process ended or wrote to the channel")
        return message

    def _load(self, box: Box) -> None:
        """Load the program; raise `Stopped` where it does not come through."""
        box.send(b"serve", self.setup, self.program, b"%d" % self.limits.output_bytes)
        kind, *parts = self._receive(box, 0)
        if kind == b"raised":
            raise Stopped(*_raised(parts))

    def _receive(self, box: Box, room: int) -> list[bytes]:
        return self._answer(box, self._deadline(), room + _MESSAGE_BYTES)

    def _answer(self, box: Box, deadline: float, room: int) -> list[bytes]:
        """Return what the program's side answers; raise `Stopped` where its process ended instead."""
        kind, *parts = message = box.receive(deadline, room)
        _expect(kind, parts, {b"loaded": 0, b"value": 1, b"raised": 2, b"ended": 5})
        if kind == b"ended":
            judged = self._ended(_number(parts[0]), parts[1], parts[4])
            raise Stopped(*(judged or Judged(Outcome.ERROR, "the program ended instead of answering")))
        return message

    def _deadline(self) -> float:
        return min(self.end, time.monotonic() + self.limits.seconds)

    def _out_of_time(self) -> Judged:
        return Judged(Outcome.TIMEOUT, f"all tests together: more than {self.limits.total_seconds:g} s")

    def _close(self, box: Box) -> None:
        box.observe()
        self.peak_bytes = max(self.peak_bytes, box.peak_bytes)
        box.close()


def _expect(kind: bytes, parts: Sequence[bytes], shapes: Mapping[bytes, int]) -> None:
    """Raise `Stopped` unless a message is of a known kind and has as many parts as that has."""
    if shapes.get(kind) != len(parts):
        raise Stopped(Outcome.ERROR, "it writes what is no message")


def _number(part: bytes) -> int:
    """Return a number that a box wrote."""
    try:
        return int(part)
    except ValueError as error:
        raise Stopped(Outcome.ERROR, "it writes what is no message") from error


def _raised(parts: Sequence[bytes]) -> Judged:
    name, text = (part.decode("utf-8", "replace") for part in parts)
    return Judged(Outcome.MEMORY if name == "MemoryError" else Outcome.ERROR, f"{name}: {text}"[:200])
