"""Worker processes that can be killed, for calls that may hang, eat memory or crash. Knows nothing of what they do.

A zygote process imports the heavy modules once and forks a fresh worker in milliseconds (`worker_main`). A worker has
one call at a time; this side enforces the wall limit by killing it. Nothing is pickled: arguments and values are JSON.
Works from any thread, without signals, and without importing the caller's `__main__` again.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal

from hone.rewards import worker_main
from hone.types import RunError

START_SECONDS = 120.0  # the zygote imports in this time
CALLS_A_WORKER = (
    500  # then it is replaced, so that caches stay small and no call lives with another's leavings for long
)
MAX_ANSWER_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended: with a value, or cut short by the wall limit, the memory limit, a crash or an exception.

    `missing`: the function could not be imported.
    """

    kind: Literal["value", "timeout", "memory", "crashed", "raised", "missing"]
    value: Any = None
    why: str = ""


class _Gone(Exception):
    """The other side closed its socket."""


class Workers:
    """A pool of `num_workers` processes, started at the first call. `preload` names modules to import once.

    `seconds` is the wall limit of a call, `memory_mb` the address space of a worker.
    """

    def __init__(
        self,
        *,
        num_workers: int | None = None,
        seconds: float = 2.0,
        memory_mb: int = 1024,
        preload: Sequence[str] = (),
    ) -> None:
        self.seconds = seconds
        self._num_workers = num_workers or os.cpu_count() or 1
        self._setup = {"preload": list(preload), "memory_mb": memory_mb}
        self._zygote: _Zygote | None = None
        self._lock = threading.Lock()
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._threads = ThreadPoolExecutor(self._num_workers, thread_name_prefix="hone-worker")

    def map(self, function: str, calls: Sequence[Sequence[Any]]) -> list[Outcome]:
        """Call `package.module:function` with each list of JSON arguments; return the outcomes in the same order."""
        return list(self._threads.map(self._call, repeat(function), calls))

    def close(self) -> None:
        """End every process of the pool."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get_nowait().connection.close()
        if self._zygote:
            self._zygote.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, function: str, args: Sequence[Any]) -> Outcome:
        worker = self._worker()
        outcome = worker.call(function, args, self.seconds)
        if outcome.kind in ("value", "raised", "missing") and worker.num_calls < CALLS_A_WORKER:
            self._idle.put(worker)
        else:
            worker.kill()
        return outcome

    def _worker(self) -> _Worker:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        with self._lock:
            if self._zygote is not None:
                with contextlib.suppress(OSError, _Gone):
                    return self._zygote.fork()
                self._zygote.close()
            self._zygote = _Zygote(self._setup)
            try:
                return self._zygote.fork()
            except (OSError, _Gone) as error:
                raise RunError(f"no worker process could be started by {sys.executable}: {error!r}") from error


class _Zygote:
    def __init__(self, setup: dict[str, Any]) -> None:
        self.control, theirs = socket.socketpair()
        command = [sys.executable, "-P", worker_main.__file__, str(theirs.fileno())]
        # One hash seed and one thread, so that a worker gives the same answer as the next and fits its memory.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        silent = subprocess.DEVNULL
        with theirs:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=silent,
                stdout=silent,
                stderr=silent,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for us
            )
        worker_main.send_message(self.control, {**setup, "path": [*sys.path, os.getcwd()], "parent": os.getpid()})

    def fork(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.control, [worker_main.ORDER.pack(b"F", 0)], [theirs.fileno()])
        try:
            return _Worker(ours, self)
        except BaseException:
            ours.close()
            raise

    def kill(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            self.control.sendall(worker_main.ORDER.pack(b"K", pid))

    def close(self) -> None:
        self.control.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _Worker:
    def __init__(self, connection: socket.socket, zygote: _Zygote) -> None:
        self.connection, self.zygote = connection, zygote
        self.num_calls = 0
        self.pid = int(self._receive(time.monotonic() + START_SECONDS)["pid"])

    def call(self, function: str, args: Sequence[Any], seconds: float) -> Outcome:
        self.num_calls += 1
        deadline = time.monotonic() + seconds
        try:
            self.connection.settimeout(seconds)
            worker_main.send_message(self.connection, {"function": function, "args": list(args)})
            return Outcome(**self._receive(deadline))
        except TimeoutError:
            return Outcome(kind="timeout", why=f"took longer than {seconds:g} s")
        except (OSError, _Gone):
            return Outcome(kind="crashed", why="the process ended")

    def kill(self) -> None:
        self.zygote.kill(self.pid)
        self.connection.close()

    def _receive(self, deadline: float) -> dict[str, Any]:
        (length,) = worker_main.LENGTH.unpack(self._exactly(worker_main.LENGTH.size, deadline))
        if length > MAX_ANSWER_BYTES:
            return {"kind": "raised", "why": f"an answer of more than {MAX_ANSWER_BYTES >> 20} MiB"}
        message: dict[str, Any] = json.loads(self._exactly(length, deadline))
        return message

    def _exactly(self, size: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.connection.settimeout(left)
            part = self.connection.recv(size - len(parts))
            if not part:
                raise _Gone
            parts += part
        return bytes(parts)


_shared: dict[tuple[str, ...], Workers] = {}  # by what they preload
_shared_lock = threading.Lock()


def shared_workers(preload: Sequence[str] = ()) -> Workers:
    """Return this process's pool that preloads these modules; closed at exit. A forked child gets one of its own."""
    with _shared_lock:
        if tuple(preload) not in _shared:
            _shared[tuple(preload)] = Workers(preload=preload)
        return _shared[tuple(preload)]


def _forget_shared() -> None:
    """Leave the parent's pool alone in a forked child, whose lock may have been held at the fork."""
    global _shared, _shared_lock
    _shared, _shared_lock = {}, threading.Lock()


def _close_shared() -> None:
    for pool in _shared.values():
        pool.close()


os.register_at_fork(after_in_child=_forget_shared)
atexit.register(_close_shared)
