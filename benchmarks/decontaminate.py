"""How long `hone decontaminate` takes on 100,000 training rows of 1 kB against 5,000 evaluation rows, and its memory.

The whole command in a process of its own: reading, comparing, the report and the clean rows. Texts are random words, as
frequent as words are (Zipf), a fifth of the rows Chinese; every thousandth row holds an evaluation text. The figure is
processor time: the command uses one core, so that on an idle machine it is the wall time.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.overlap import texts

CHINESE_EVERY, CHINESE_CHARACTERS = 5, 330  # three bytes each


def write_rows(folder: Path, num_train: int, seed: int) -> tuple[Path, Path, int]:
    """Write the training and the evaluation rows; return their files, and the mean size of a training row in bytes."""
    train, evaluation = texts(num_train, seed)
    rng = random.Random(seed)
    characters = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
    weights = [1 / rank for rank in range(1, len(characters) + 1)]
    for number in range(1, num_train, CHINESE_EVERY):
        train[number] = (train[number][0], "".join(rng.choices(characters, weights, k=CHINESE_CHARACTERS)))
    files = folder / "train.jsonl", folder / "eval.jsonl"
    for file, rows in zip(files, (train, evaluation), strict=True):
        lines = (json.dumps({"id": name, "problem": text}, ensure_ascii=False) + "\n" for name, text in rows)
        file.write_text("".join(lines), "utf-8")
    return *files, files[0].stat().st_size // num_train


def processor_seconds() -> float:
    """Return the processor time of the commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=100_000, help="how many training rows")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, evaluation, size = write_rows(folder, arguments.train, seed=0)
        report, clean = folder / "pairs.jsonl", folder / "clean.jsonl"
        command = [
            sys.executable, "-m", "hone.cli", "decontaminate", "--train", str(train), "--eval", str(evaluation),
            "--out", str(report), "--clean", str(clean),
        ]  # fmt: skip
        seconds, processor = [], []
        for _ in range(arguments.runs):
            start, used = time.perf_counter(), processor_seconds()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
            processor.append(processor_seconds() - used)
        num_pairs, num_clean = (sum(1 for _ in file.open("rb")) for file in (report, clean))
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{arguments.train:,} rows of {size:,} bytes, 5,000 evaluation rows: {num_pairs} pairs, {num_clean:,} clean")
    print(f"{'seconds':<12}{'median':>10}{'lowest':>10}{'highest':>10}")
    for name, times in (("wall", seconds), ("processor", processor)):
        print(f"{name:<12}{statistics.median(times):>10.1f}{min(times):>10.1f}{max(times):>10.1f}")
    print(f"peak memory {peak_mb} MB")
    result = {
        "figure": round(statistics.median(processor), 1), "unit": "s", "peer": None, "peer_figure": None, "ratio": None,
        "limit_share": None,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
