"""Seconds from starting `hone run RECIPE`, in a fresh process and folder, to the first token that a rollout draws.

The process is the real command but for one thing: the sampler is asked to tell of its first token, upon which the
process prints the time and ends. The files of the package are in the page cache after the first run, which is left
out. `limit` is a fresh interpreter that imports torch alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time

COMMAND = """
import os, sys, time
from hone.cli import main
from hone.engine.local.sampler import Sampler
sample = Sampler.sample
def tell(number, token):
    os.write(1, f"{time.monotonic()}".encode())
    os._exit(0)
def first(self, *args, **kwargs):
    return sample(self, *args, **{**kwargs, "on_token": tell})
Sampler.sample = first
sys.argv[0] = "hone"
main()
"""


def first_token(recipe: str) -> float:
    """Return the seconds until the first token of a run."""
    with tempfile.TemporaryDirectory() as out:
        start = time.monotonic()
        command = [sys.executable, "-c", COMMAND, "run", recipe, "--out", f"{out}/run"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return float(found.split()[-1]) - start


def bare_torch() -> float:
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="r1-zero-tiny")
    parser.add_argument("--rounds", type=int, default=5, help="paired runs, after pair 0 to warm up")
    arguments = parser.parse_args()
    rounds = [(first_token(arguments.recipe), bare_torch()) for _ in range(arguments.rounds + 1)][1:]
    hone, torch = (statistics.median(times) for times in zip(*rounds, strict=True))
    print(f"hone run {arguments.recipe} to its first token: {hone:.2f} s (pairs: {min(rounds)[0]:.2f} to "
          f"{max(rounds)[0]:.2f}); import torch alone: {torch:.2f} s")  # fmt: skip
    figures = {
        "figure": round(hone, 2), "unit": "s", "peer": "import torch alone", "peer_figure": round(torch, 2),
        "ratio": round(statistics.median(ours / theirs for ours, theirs in rounds), 3),
        "limit_share": round(statistics.median(theirs / ours for ours, theirs in rounds), 3),
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
