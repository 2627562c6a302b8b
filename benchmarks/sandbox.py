"""Programs a second of the sandbox, beside bare interpreters that isolate nothing.

The work is a program that doubles a number, with one standard input. The peer is `subprocess.run` of the same
interpreter with `-I -S -c pass`, which does not even run a program. Both have one core, in turns; then the sandbox has
one worker and two on all cores. With `--solutions FOLDER` it instead runs every canonical solution of humaneval.jsonl,
mbpp_sanitized.jsonl and leetcode_train.jsonl there, and says which do not pass.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

from hone.sandbox import Limits, Sandbox
from hone.sandbox.bubblewrap import interpreter
from hone.tasks.datasets import load_problems
from hone.types import CodeTest, StdinTest

Case = tuple[str, list[CodeTest], str]
DOUBLE: Case = ("print(2 * int(input()))", [StdinTest(stdin="21\n", stdout="42\n")], "")


def sandbox_rate(sandbox: Sandbox, num_runs: int) -> float:
    start = time.perf_counter()
    assert all(result.outcome == "passed" for result in sandbox.check_all([DOUBLE] * num_runs))
    return num_runs / (time.perf_counter() - start)


def bare_rate(num_runs: int) -> float:
    command = [interpreter(), "-I", "-S", "-c", "pass"]
    start = time.perf_counter()
    for _ in range(num_runs):
        subprocess.run(command, check=True)
    return num_runs / (time.perf_counter() - start)


def measure_rates(num_rounds: int, num_runs: int) -> None:
    """Print programs a second and, as the last line, the figures as JSON."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})  # boxes are started by a child, which keeps it
    rounds = []
    with Sandbox(Limits(), workers=2) as sandbox:
        sandbox_rate(sandbox, num_runs)
        for _ in range(num_rounds):
            rounds.append((sandbox_rate(sandbox, num_runs), bare_rate(num_runs)))
    os.sched_setaffinity(0, cores)
    ours, bare = (statistics.median(column) for column in zip(*rounds, strict=True))
    by_workers = {workers: _rate_of(workers, num_rounds, num_runs) for workers in (1, 2)}
    ratio = statistics.median(row[0] / row[1] for row in rounds)
    print(f"programs a second; medians of {num_rounds} paired runs of {num_runs}")
    print(f"{'sandbox, one core':44}{ours:8.1f}")
    print(f"{'bare interpreters that do nothing, one core':44}{bare:8.1f}")
    for workers, rate in by_workers.items():
        print(f"{f'sandbox, {workers} worker(s), {len(cores)} cores':44}{rate:8.1f}")
    print("ours over bare, pair by pair:", *(f"{ours / bare:.2f}" for ours, bare in rounds))
    figures = {
        "figure": round(ours, 1), "unit": "programs/s on one core", "peer": "subprocess.run of python -I -S -c pass",
        "peer_figure": round(bare, 1), "ratio": round(ratio, 3), "limit_share": round(ratio, 3),
    }  # fmt: skip
    print(json.dumps(figures))


def _rate_of(workers: int, num_rounds: int, num_runs: int) -> float:
    with Sandbox(Limits(), workers=workers) as sandbox:
        sandbox_rate(sandbox, 2 * workers)
        return statistics.median(sandbox_rate(sandbox, num_runs) for _ in range(num_rounds))


def run_solutions(folder: Path) -> None:
    """Print for each set how many of its canonical solutions pass, and why the others do not."""
    with Sandbox(Limits()) as sandbox:
        for name, form in (("humaneval", "humaneval"), ("mbpp_sanitized", "mbpp"), ("leetcode_train", "leetcode")):
            problems = load_problems(str(folder / f"{name}.jsonl"), format=form).problems
            start = time.perf_counter()
            results = sandbox.check_all((problem.answer, problem.tests, problem.setup) for problem in problems)
            passed = 0
            for problem, result in zip(problems, results, strict=True):
                passed += result.outcome == "passed"
                if result.outcome != "passed":
                    print(f"  {problem.id}: {result.outcome}: {result.why}")
            rate = len(problems) / (time.perf_counter() - start)
            print(f"{name}: {passed} of {len(problems)} pass, {rate:.1f} a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="paired runs, after one to warm up")
    parser.add_argument("--runs", type=int, default=100, help="programs a run")
    parser.add_argument("--solutions", type=Path, metavar="FOLDER", help="run canonical solutions instead")
    arguments = parser.parse_args()
    if arguments.solutions:
        run_solutions(arguments.solutions)
    else:
        measure_rates(arguments.rounds, arguments.runs)


if __name__ == "__main__":
    main()
