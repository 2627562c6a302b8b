"""The program of the worker processes: one zygote that imports once, and the workers that it forks.

Run as a file, with the number of an open socket: `python -P worker_main.py FD`. Standard library only, and nothing of
Hone is imported before the parent has said where modules are found. `hone.rewards.workers` is the other side.

The zygote's socket carries orders of five bytes: `F` and a socket to fork a worker that serves it, or `K` and a
process id to kill one. Workers speak messages: four bytes of length, then ASCII JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from typing import Any

ORDER = struct.Struct(">cI")
LENGTH = struct.Struct(">I")
PARENT_CHECK_SECONDS = 1.0
PR_SET_PDEATHSIG = 1


def send_message(connection: socket.socket, message: Any) -> None:
    """Send one message; lone surrogates survive as escapes."""
    data = json.dumps(message).encode("ascii")
    connection.sendall(LENGTH.pack(len(data)) + data)


def main() -> None:
    """Serve the orders of the parent until it is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    setup = json.loads(_receive(control))
    sys.path[:] = setup["path"]
    for module in setup["preload"]:
        with contextlib.suppress(ImportError):  # whoever calls into the module is told
            importlib.import_module(module)
    _Zygote(control, setup["parent"], setup["memory_mb"]).serve()


class _Zygote:
    def __init__(self, control: socket.socket, parent: int, memory_mb: int) -> None:
        self.control, self.parent, self.memory_mb = control, parent, memory_mb
        self.workers: set[int] = set()

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, self.reap)
        while os.getppid() == self.parent:
            readable, _, _ = select.select([self.control], [], [], PARENT_CHECK_SECONDS)
            if readable and not self.obey():
                break
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for worker in self.workers:
            self.kill(worker)
        with contextlib.suppress(ChildProcessError):
            while True:  # nobody else may reap them
                os.wait()

    def obey(self) -> bool:
        """Carry out one order; False where the parent has closed the socket."""
        order, descriptors, _, _ = socket.recv_fds(self.control, ORDER.size, 1)
        if len(order) < ORDER.size:
            return False
        verb, number = ORDER.unpack(order)
        if verb == b"F":
            self.fork(socket.socket(fileno=descriptors[0]))
        else:
            self.kill(number)
        return True

    def fork(self, connection: socket.socket) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # until the worker is known, so that it is reaped
        worker = os.fork()
        if worker == 0:
            self.control.close()
            _work(connection, self.memory_mb)
        self.workers.add(worker)
        connection.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    def kill(self, worker: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # its id is not given to another before it is reaped
        if worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)  # where it had not yet made its own group
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    def reap(self, *_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                self.workers.discard(ended)


def _work(connection: socket.socket, memory_mb: int) -> None:
    """Serve calls until the parent closes the connection, then end this process."""
    zygote = os.getppid()
    os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != zygote:
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, EOFError):
        send_message(connection, {"pid": os.getpid()})
        while True:
            call = json.loads(_receive(connection))
            send_message(connection, _answer(call["function"], call["args"]))
    os._exit(0)


def _answer(function: str, args: list[Any]) -> dict[str, Any]:
    module, _, name = function.partition(":")
    try:
        called = getattr(importlib.import_module(module), name)
    except BaseException as error:  # noqa: BLE001 - the module is another's, and whatever ends its import is the outcome
        return {"kind": "missing", "why": f"{type(error).__name__}: {error}"[:500]}
    try:
        value = called(*args)
        if not isinstance(value, int | float) and hasattr(value, "__float__"):
            value = float(value)  # numbers of numpy and torch
        json.dumps(value)
    except MemoryError:
        return {"kind": "memory"}
    except BaseException as error:  # noqa: BLE001 - the function is another's, and what it raises is its outcome
        return {"kind": "raised", "why": f"{type(error).__name__}: {error}"[:500]}
    return {"kind": "value", "value": value}


def _receive(connection: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


if __name__ == "__main__":
    main()
