"""What is missing or wrong on this machine, and how it is mended."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOM_GB = 2


class Finding(NamedTuple):
    """One thing that was looked at. `mend` is None where it is well; `needed` tells errors from hints."""

    what: str
    mend: str | None = None
    needed: bool = True


def diagnose() -> Iterator[Finding]:
    """Look at Python, torch, the embedded model, what the report and tests need, cores and disk."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(f"Python {version}", None if sys.version_info >= (3, 11) else "install Python 3.11 or newer")
    if importlib.util.find_spec("torch") is None:
        yield Finding("torch is missing", "pip install -c constraints.txt hone-r1")
        return
    import torch

    devices = f"{torch.cuda.device_count()} GPUs, not used yet" if torch.cuda.is_available() else "no GPU, none needed"
    yield Finding(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, {devices}")
    yield _loops()
    yield _embedded_model()
    yield _sandbox()
    for package, purpose, extra in (
        ("plotly", "the HTML report", "report"),
        ("datasets", "datasets of the hub", "hub"),
        ("py3langid", "telling Latin-script languages apart", "language"),
        ("transformers", "the parity tests", "test"),
        ("trl", "the benchmarks", "test"),
    ):
        found = importlib.util.find_spec(package) is not None
        what = f"{package} {'is there' if found else 'is missing'}, for {purpose}"
        yield Finding(what, None if found else f"pip install 'hone-r1[{extra}]'", needed=False)
    room = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Finding(f"{room:.0f} GB free here", None if room >= ROOM_GB else f"make room: {ROOM_GB} GB are wanted")
    if not os.access(Path.cwd(), os.W_OK):
        yield Finding("this folder cannot be written to", "run in another folder, or give --out")


def _loops() -> Finding:
    from hone.algo.kernels import library

    if library() is None:
        mend = "a C compiler with OpenMP, such as gcc, and a cache that can be written to make steps faster"
        return Finding("no loops in C: torch computes instead", mend, needed=False)
    return Finding("loops in C, compiled on this machine")


def _sandbox() -> Finding:
    from hone.sandbox.selftest import ensure_tested
    from hone.types import HoneError

    try:
        ensure_tested()
    except HoneError as error:
        return Finding("the code sandbox does not hold, so programs are not run", str(error), needed=False)
    return Finding("the code sandbox holds: its self-test of escapes passed")


def _embedded_model() -> Finding:
    from hone.models.folders import EMBEDDED, find_model
    from hone.models.loading import load_model
    from hone.types import HoneError

    try:
        model = load_model(find_model(EMBEDDED[0]))
    except HoneError as error:
        return Finding(f"the embedded model: {error}", "install hone-r1 again: its files are damaged")
    return Finding(f"the embedded model {EMBEDDED[0]}, {sum(p.numel() for p in model.parameters()):,} parameters")
