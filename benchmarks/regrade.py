"""How long `hone regrade` takes on MATH-500 with 64 stored samples, 32,000 outputs, and how much memory.

The whole command in a process of its own, with those that grade. Problems are those of `--data`, a file of MATH-500,
or 500 of our own with answers of the same kinds: numbers, fractions, roots, intervals, tuples, polynomials. Each output
is a chain of thought of `--kilobytes` on average and a boxed answer: right in one of several notations, or one of a few
wrong ones. A second evaluation with a quarter of the samples shows whether memory grows with their number.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hone.evals.generations import FORMAT, begin, write_outputs
from hone.evals.outputs import Output
from hone.tasks.benchmarks import load_benchmark
from hone.types import Message, Problem

SAMPLES = 64
WORDS = [
    "so", "we", "have", "the", "sum", "of", "all", "these", "terms", "and", "then", "by", "the", "identity", "above",
    "it", "follows", "that", "each", "factor", "must", "divide", "the", "other", "wait", "let", "me", "check",
    "this", "again", "since", "the", "value", "could", "be", "negative", "here", "however", "the", "square", "is",
    "not",
]  # fmt: skip


def own_problems(rng: random.Random) -> list[Problem]:
    """Return 500 problems with answers of the kinds that MATH-500 has, as often as there."""
    problems = []
    for number in range(500):
        a, b, c = (rng.randrange(2, 60) for _ in range(3))
        kinds = [str(a * b)] * 6 + [
            rf"\frac{{{a}}}{{{a + b}}}", rf"{a}\sqrt{{{b}}}", rf"\left( {a}, \frac{{\pi}}{{{b}}} \right)",
            rf"x^2 + {a}x - {b}", rf"[{a}, {a + b})", rf"{a}\%",
        ]  # fmt: skip
        asked = (Message(role="user", content=f"What is number {number}, with {a}, {b} and {c}?"),)
        problems.append(
            Problem(
                id=f"p{number}",
                task="math500",
                messages=asked,
                answer=rng.choice(kinds),
                verifier="math",
                extract="boxed",
            )
        )
    return problems


def completion(answer: str, rng: random.Random, kilobytes: float) -> str:
    """Return a chain of thought of random words and sums, and an answer; some are cut before it."""
    size = int(rng.expovariate(1 / (kilobytes * 1000)))
    pieces = []
    while size > 0:
        piece = f"{' '.join(rng.choices(WORDS, k=20))} ${rng.randrange(99)} + x = {rng.randrange(99)}$.\n"
        pieces.append(piece)
        size -= len(piece)
    said = "<think>" + "".join(pieces)
    if rng.random() < 0.03:
        return said
    given = rng.choice([answer, answer, answer, f"{answer}.", rf"\ {answer}", rf"{answer} + 1", "17", "x + y", "y + x"])
    return rf"{said}</think>So it is $\boxed{{{given}}}$."


def write_evaluation(folder: Path, problems: Sequence[Problem], samples: int, kilobytes: float) -> int:
    """Write an evaluation as `hone eval` leaves it; return the characters of its outputs."""
    size = 0
    rng = random.Random(1)

    def outputs() -> Iterator[Output]:
        nonlocal size
        for problem in problems:
            for index in range(samples):
                text = completion(problem.answer, rng, kilobytes)
                size += len(text)
                yield Output(
                    problem_id=problem.id, index=index, prompt=problem.question, completion=text, seed=index,
                    finish_reason="stop" if text.endswith(".") else "length", num_tokens=len(text) // 4,
                )  # fmt: skip

    settings = {
        "format": FORMAT, "model": "made", "model_hash": "", "benchmark": "math500", "data": "made", "prompt": "",
        "decoding": None, "samples": samples, "seed": 0, "protocol": "made", "num_problems": len(problems),
    }  # fmt: skip
    begin(folder, settings, problems)
    write_outputs(folder, outputs(), settings)
    return size


def peak_megabytes(process: subprocess.Popen[bytes], peak: list[float]) -> None:
    """Watch the memory of a process and of all below it until it ends, shared pages counted once for each."""
    while process.poll() is None:
        total = 0
        for pid in below(process.pid):
            try:
                status = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue  # it has ended
            total += next((int(line.split()[1]) for line in status.splitlines() if line.startswith("Pss:")), 0)
        peak[0] = max(peak[0], total / 1024)
        time.sleep(0.5)


def below(pid: int) -> list[int]:
    """Return a process and those that it started."""
    found = [pid]
    for parent in found:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        found += map(int, children)
    return found


def regrade(folder: Path) -> tuple[float, float]:
    """Run the command; return its wall time in seconds and its peak memory in MB."""
    peak = [0.0]
    start = time.perf_counter()
    command = [sys.executable, "-m", "hone.cli", "regrade", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        watch = threading.Thread(target=peak_megabytes, args=(process, peak))
        watch.start()
        if process.wait():
            raise SystemExit("hone regrade failed")
        seconds = time.perf_counter() - start
        watch.join()
    return seconds, peak[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a file of MATH-500; by default problems of our own")
    parser.add_argument("--kilobytes", type=float, default=4.0, help="the mean length of an output")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    problems = load_benchmark("math500", arguments.data)[1] if arguments.data else own_problems(random.Random(0))
    with tempfile.TemporaryDirectory() as name:
        few, many = Path(name) / "few", Path(name) / "many"
        write_evaluation(few, problems, SAMPLES // 4, arguments.kilobytes)
        size = write_evaluation(many, problems, SAMPLES, arguments.kilobytes)
        _, few_mb = regrade(few)
        found = [regrade(many) for _ in range(arguments.runs)]
        scores = json.loads((many / "scores.json").read_text())
    seconds = [wall for wall, _ in found]
    total = len(problems) * SAMPLES
    print(f"{total:,} outputs, {size / total / 1000:.1f} kB each; pass@1 {scores['pass_at_1']:.3f}, "
          f"cons@{SAMPLES} {scores['cons_at_k']:.3f}, unscorable {scores['num_unscorable']}")  # fmt: skip
    print(f"{'':<10}{'median':>10}{'lowest':>10}{'highest':>10}")
    print(f"{'seconds':<10}{statistics.median(seconds):>10.1f}{min(seconds):>10.1f}{max(seconds):>10.1f}")
    many_mb = max(mb for _, mb in found)
    print(f"peak memory of all processes: {many_mb:.0f} MB; with {SAMPLES // 4} samples {few_mb:.0f} MB")
    result = {
        "figure": round(statistics.median(seconds), 1), "unit": "s", "peer": None, "peer_figure": None, "ratio": None,
        "limit_share": None,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
