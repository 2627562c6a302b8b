"""What the processes of a box use together, read from /proc. Nothing here runs inside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple


class Usage(NamedTuple):
    """Memory in bytes, files in the working folder among it; processes with their threads; files by number."""

    memory: int
    processes: int
    files: int


def usage(pid: int, *, limit: int) -> Usage:
    """Return what a process and all below it use.

    Memory that forked processes still share is counted for each of them unless the sum is above `limit`; only then is
    it worth the look that divides it.
    """
    memory = processes = 0
    pids = list(tree(pid))
    for one in pids:
        fields = _status(one)
        memory += fields.get("RssAnon", 0) + fields.get("RssShmem", 0)
        processes += fields.get("Threads", 0)
    files, num_files = _working_folder(pid)
    if memory + files > limit and len(pids) > 1:
        memory = min(memory, sum(map(_shared_out, pids)))
    return Usage(memory + files, processes, num_files)


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    pending = [pid]
    while pending:
        one = pending.pop()
        yield one
        try:
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children") as file:
                    pending += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended


def _status(pid: int) -> dict[str, int]:
    """Return the fields of a process's status that are asked for, in bytes where they are sizes."""
    found = {}
    try:
        with open(f"/proc/{pid}/status", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in ("RssAnon", "RssShmem"):
                    found[name] = int(value.split()[0]) * 1024
                elif name == "Threads":
                    found[name] = int(value)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def _shared_out(pid: int) -> int:
    """Return the memory of a process with shared pages divided among those that share them."""
    parts = {"Pss_Anon": 0, "Pss_Shmem": 0}
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in parts:
                    parts[name] = int(value.split()[0]) * 1024
    except PermissionError:
        fields = _status(pid)
        return fields.get("RssAnon", 0) + fields.get("RssShmem", 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(parts.values())


def _working_folder(pid: int) -> tuple[int, int]:
    """Return the bytes and the number of files in a box's /tmp; none where the process has no root of its own."""
    try:
        folder = os.statvfs(f"/proc/{pid}/root/tmp")
        if os.stat(f"/proc/{pid}/root").st_dev == os.stat("/").st_dev:
            return 0, 0
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0, 0
    return (folder.f_blocks - folder.f_bfree) * folder.f_frsize, folder.f_files - folder.f_ffree
