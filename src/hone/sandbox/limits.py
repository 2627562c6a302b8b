"""What a program may use, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a program."""

    PASSED = "passed"
    FAILED = "failed"  # it ran, and its answer is wrong
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT = "output"  # it printed more than the limit
    ERROR = "error"  # it raised, crashed, or did not speak as it must
    REFUSED = "refused"  # nothing was run, so this is no judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use. Time is wall-clock time; memory is that of all its processes and files together."""

    seconds: float = 6.0  # a test
    total_seconds: float = 30.0  # all tests of one program
    memory_mb: int = 512
    output_bytes: int = 1 << 20  # a test's standard output, or one returned value
    processes: int = 32  # threads are counted as processes
    files_mb: int = 64  # its working folder, and any one file in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one program.

    `outcome` and `why` are those of the first test that was not passed. `num_passed` of `num_tests` is what a reward
    for partial success counts. `peak_mb` is the largest memory that was seen, of one process at its end or of all of
    them in a sample. `isolated` is False where the program ran unsafely, by explicit wish.
    """

    outcome: Outcome
    why: str
    seconds: float
    peak_mb: float
    num_passed: int
    num_tests: int
    isolated: bool = True

    @property
    def share(self) -> float:
        """The share of its tests that the program passed."""
        return self.num_passed / self.num_tests if self.num_tests else 0.0
