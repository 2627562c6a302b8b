"""The first process of a box: it bounds what follows, says that it is ready, and waits for its one task.

A task is a program with standard inputs, a program whose functions will be called, or test code. It does not know what
a right answer is. Where it is not the first process of a namespace (`unsafe`) it does the same with what is left.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import sys
import time

from .wire import pack, unpack

TYPE_CHECKING = False  # importing typing would double the start of a box
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

CHANNEL = 3
SCRIPT = "program.py"
READY = b"ready"
SIGKILL = 9  # without importing signal
STDERR_TAIL = 4096
PIECE = 1 << 16
STACK_BYTES = 120 << 20  # the kernel leaves this much room below the first thread's stack, whatever its limit was
VIRTUAL_BYTES = 4 << 30  # address space beyond the memory limit, for stacks and arenas that are never touched


def main() -> tuple[CodeType, dict[str, Any]]:
    """Do the box's task and exit. In a child that is to be a program, return its code and its main module's names."""
    bounds = Bounds(sys.argv[1:])
    os.dup2(os.open(os.devnull, os.O_RDWR), 2)
    bounds.bound_box()
    gc.freeze()  # what the interpreter brought is not searched when a program ends, nor copied for that
    send(READY)
    task, *parts = receive()
    if task == b"stdin":
        setup, source, *inputs = parts
        for text in inputs:
            child = _start_program(text)
            if child is None:
                return _become_program(setup, source, bounds)
            send(b"ran", *child.watch(bounds, seconds=bounds.seconds))
    elif task == b"serve":
        send(b"ended", *_start_server(parts, bounds).watch(bounds))
    else:
        from .check import check

        bounds.bound_program()
        check(parts[0], int(parts[1]), receive, send)
    os._exit(0)


class Bounds:
    """The limits of the box, as its command line gives them."""

    def __init__(self, arguments: list[str]) -> None:
        self.seconds = float(arguments[0])
        self.memory, self.output, self.processes, self.files = map(int, arguments[1:5])
        self.isolated = os.getpid() == 1

    def bound_box(self) -> None:
        """Bound this process and all that will come from it."""
        _bound(resource.RLIMIT_CORE, 0)
        _bound(resource.RLIMIT_NOFILE, 128)  # each may be a socket full of data, which is memory that nobody counts
        _bound(resource.RLIMIT_FSIZE, self.files)

    def bound_program(self) -> None:
        """Bound a process that will run foreign code."""
        _bound(resource.RLIMIT_DATA, self.memory)
        _bound(resource.RLIMIT_AS, self.memory + VIRTUAL_BYTES)
        _bound(resource.RLIMIT_STACK, STACK_BYTES)
        if self.isolated:  # elsewhere the limit would count every process of the user
            _bound(resource.RLIMIT_NPROC, self.processes + 1)


def _bound(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def receive() -> list[bytes]:
    """Return the next message of the process outside. Where there is none any more the box ends."""
    return unpack(_read(int.from_bytes(_read(4), "big")))


def _read(count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = os.read(CHANNEL, min(count - len(data), PIECE))
        if not piece:
            os._exit(0)
        data += piece
    return bytes(data)


def send(*parts: bytes) -> None:
    """Send one message to the process outside."""
    frame = memoryview(pack(list(parts)))
    while frame:
        frame = frame[os.write(CHANNEL, frame) :]


def _start_program(text: bytes) -> Child | None:
    """Fork a child with this standard input; return None in the child."""
    (stdin, feed), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        for number, target in enumerate((stdin, stdout, stderr)):
            os.dup2(target, number)
        os.closerange(CHANNEL, stderr + 1)
        return None
    for number in (stdin, stdout, stderr):
        os.close(number)
    return Child(pid, feed, text, out, err)


def _become_program(setup: bytes, source: bytes, bounds: Bounds) -> tuple[CodeType, dict[str, Any]]:
    """Make this process look like an interpreter that was started with the program as its script."""
    os.setsid()
    cpu = int(bounds.seconds) + 2  # the wall clock comes first but for a process that escaped its group
    _bound(resource.RLIMIT_CPU, cpu)
    bounds.bound_program()
    forget_box()
    names = new_module("__main__")
    exec(compile_program(setup), names)  # noqa: S102 - this is the box
    return compile_program(source), names


def _start_server(parts: list[bytes], bounds: Bounds) -> Child:
    """Fork a child that answers calls of the program's functions on the channel."""
    err, stderr = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(stderr, 2)
        os.closerange(CHANNEL + 1, stderr + 1)
        os.setsid()
        bounds.bound_program()
        from .serve import serve_calls

        serve_calls(parts[0], parts[1], int(parts[2]), receive, send)
    os.close(stderr)
    return Child(pid, None, b"", None, err)


def forget_box() -> None:
    """Show a program what a script sees: no folder and command line of ours, and the builtins that `site` adds."""
    import _sitebuiltins

    sys.argv[:] = [SCRIPT]
    sys.path.remove(os.path.dirname(os.path.dirname(__file__)))
    builtins = vars(sys.modules["builtins"])
    builtins.update({name: _sitebuiltins.Quitter(name, "Ctrl-D") for name in ("exit", "quit")})
    builtins["help"] = _sitebuiltins._Helper()


def new_module(name: str) -> dict[str, Any]:
    """Return the names of a new module that code is to be run in."""
    module = type(sys)(name)
    module.__dict__.update(__builtins__=sys.modules["builtins"], __file__=SCRIPT)
    sys.modules[name] = module
    return module.__dict__


def compile_program(source: bytes) -> CodeType:
    """Compile what was text before it came here, so that a coding line in it means nothing any more."""
    text = source.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogatepass")
    return compile(text, SCRIPT, "exec", dont_inherit=True)


class Child:
    """A process that runs foreign code: what it still has to read, and what it has printed."""

    def __init__(self, pid: int, feed: int | None, text: bytes, out: int | None, err: int) -> None:
        self.pid, self.feed, self.out, self.err = pid, feed, out, err
        self.unread = memoryview(text)
        self.printed, self.complaint = bytearray(), b""

    def watch(self, bounds: Bounds, seconds: float | None = None) -> list[bytes]:
        """Wait until it ends or meets a limit, and end all that it started.

        Return exit status, `timeout` or `output` if that ended it, peak KiB, what it printed, and the end of stderr.
        """
        stopped = self._until_end(bounds.output, seconds)
        _kill(self.pid, bounds.isolated)
        _, status, usage = os.wait4(self.pid, 0)
        while bounds.isolated and _reap():
            pass
        while self.out is not None and len(self.printed) <= bounds.output and self._take(self.out):
            pass
        while self._take(self.err):
            pass
        if len(self.printed) > bounds.output:
            stopped = b"output"
        for number in (self.feed, self.out, self.err):
            if number is not None:
                os.close(number)
        numbers = b"%d" % os.waitstatus_to_exitcode(status), stopped, b"%d" % usage.ru_maxrss
        return [*numbers, bytes(self.printed[: bounds.output]), self.complaint]

    def _until_end(self, max_output: int, seconds: float | None) -> bytes:
        process, poll = os.pidfd_open(self.pid), select.poll()
        poll.register(process, select.POLLIN)
        for number in (self.out, self.err):
            if number is not None:
                os.set_blocking(number, False)
                poll.register(number, select.POLLIN)
        if self.feed is not None:
            os.set_blocking(self.feed, False)
            poll.register(self.feed, select.POLLOUT)
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while len(self.printed) <= max_output:
                left = None if deadline is None else (deadline - time.monotonic()) * 1000
                if left is not None and left <= 0:
                    return b"timeout"
                for number, _ in poll.poll(left):
                    if number == process:
                        return b""
                    if not (self._give() if number == self.feed else self._take(number)):
                        poll.unregister(number)
            return b"output"
        finally:
            os.close(process)

    def _give(self) -> bool:
        """Write a piece of its standard input; return whether there is more."""
        assert self.feed is not None
        try:
            self.unread = self.unread[os.write(self.feed, self.unread[:PIECE]) :]
        except BrokenPipeError:
            self.unread = memoryview(b"")
        if not self.unread:
            os.close(self.feed)
            self.feed = None
        return bool(self.unread)

    def _take(self, number: int) -> bool:
        """Read a piece of what it printed; return whether there may be more now."""
        try:
            piece = os.read(number, PIECE)
        except BlockingIOError:
            return False
        if number == self.err:
            self.complaint = (self.complaint + piece)[-STDERR_TAIL:]
        else:
            self.printed += piece
        return bool(piece)


def _kill(pid: int, isolated: bool) -> None:
    """Kill a child and all that it started: in a namespace everything but this process, elsewhere its group."""
    try:
        if isolated:
            os.kill(-1, SIGKILL)
        else:
            os.killpg(pid, SIGKILL)
    except ProcessLookupError:
        pass
    os.kill(pid, SIGKILL)  # not waited for yet, so its number is still its own


def _reap() -> bool:
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        return False
    return True
