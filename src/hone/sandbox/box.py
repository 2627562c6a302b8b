"""One box from outside, and a stock of boxes that wait for work. What is run in them is not known here."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence

from hone.sandbox.bubblewrap import PACKAGE, box_command, find_bwrap, launcher_command, plain_command
from hone.sandbox.inside.wire import WireError, pack, unpack
from hone.sandbox.limits import Limits, Outcome
from hone.sandbox.seccomp import seccomp_filter
from hone.sandbox.usage import Usage, tree, usage
from hone.types import HoneError, RunError

START_SECONDS, END_SECONDS = 20.0, 20.0
SAMPLE_SECONDS = 0.05
MAX_FILES = 20_000
_PIECE = 1 << 18
_LAUNCHER_ENDED = "the sandbox's launcher has ended (was it killed for memory?): run again"


class Stopped(Exception):
    """What was running in a box came to an end that its program did not want: which, and why."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome, self.why = outcome, why


class Box:
    """A box that waits for its one task. Whoever takes it must close it; any thread may kill it."""

    def __init__(self, channel: socket.socket, status: int, limits: Limits, isolated: bool) -> None:
        self.channel, self.status, self.limits, self.isolated = channel, status, limits, isolated
        self.peak_bytes = 0
        self._pid, self._process = 0, -1
        self._received = bytearray()
        self._lock = threading.Lock()

    def wait_ready(self) -> None:
        """Wait until the interpreter inside is up; raise `HoneError` with what stood in the way."""
        deadline = time.monotonic() + START_SECONDS
        try:
            ready = self.receive(deadline, 64)
        except Stopped as stopped:
            said = bytes(self._received).decode(errors="replace").strip().replace("\n", "; ")
            raise HoneError(
                f"no box could be started here ({said or stopped.why}): allow unprivileged user namespaces, "
                "or run code on another machine"
            ) from stopped
        if ready != [b"ready"]:
            raise HoneError(f"no box could be started here: it said {ready!r}")
        self._pid = json.loads(os.read(self.status, 4096).splitlines()[0])["child-pid"]
        self._process = os.pidfd_open(self._pid)

    def send(self, *parts: bytes) -> None:
        """Send a message; raise `Stopped` where the box does not take it."""
        self.channel.settimeout(self.limits.seconds + 2)
        try:
            self.channel.sendall(pack(list(parts)))
        except TimeoutError as error:
            raise Stopped(Outcome.TIMEOUT, "it does not read what it is asked") from error
        except OSError as error:
            raise Stopped(Outcome.ERROR, "its process is gone") from error

    def receive(self, deadline: float, max_bytes: int) -> list[bytes]:
        """Return the next message; raise `Stopped` at the deadline, at a limit, or where there will be none."""
        while (message := self.take(max_bytes)) is None:
            wait_for([self], deadline)
            self.read()
        return message

    def read(self) -> None:
        """Take in what the box has written by now."""
        try:
            piece = self.channel.recv(_PIECE)
        except OSError:
            piece = b""
        if not piece:
            raise Stopped(Outcome.ERROR, "its process is gone")
        self._received += piece

    def take(self, max_bytes: int) -> list[bytes] | None:
        """Return the first message that was read, None where it is not whole yet."""
        if len(self._received) < 4:
            return None
        size = int.from_bytes(self._received[:4], "big")
        if size > max_bytes:
            raise Stopped(Outcome.ERROR, "it writes what is no message")
        if len(self._received) < 4 + size:
            return None
        body = bytes(self._received[4 : 4 + size])
        del self._received[: 4 + size]
        try:
            return unpack(body)
        except WireError as error:
            raise Stopped(Outcome.ERROR, f"it writes what is no message: {error}") from error

    def observe(self) -> Usage:
        """Look at what the processes inside use now."""
        if not self._pid:
            return Usage(0, 0, 0)
        used = usage(self._pid, limit=self.limits.memory_mb << 20)
        self.peak_bytes = max(self.peak_bytes, used.memory)
        return used

    def check_usage(self) -> None:
        """Raise `Stopped` where the processes inside use more than they may."""
        used = self.observe()
        if used.memory > self.limits.memory_mb << 20:
            raise Stopped(Outcome.MEMORY, f"more than {self.limits.memory_mb} MB")
        if used.processes > self.limits.processes + 8:
            raise Stopped(Outcome.ERROR, f"more than {self.limits.processes} processes")
        if used.files > MAX_FILES:
            raise Stopped(Outcome.MEMORY, f"more than {MAX_FILES} files")

    def kill(self) -> None:
        """End everything inside, now. Safe from any thread, and more than once."""
        with self._lock:
            if self._process < 0:
                return
            pids = [] if self.isolated else list(tree(self._pid))
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            for pid in pids:  # without a namespace nothing ends them with their parent
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End everything inside and wait until nothing of it is left."""
        self.kill()
        self.channel.close()
        os.set_blocking(self.status, False)
        poll = select.poll()
        poll.register(self.status, select.POLLIN)
        deadline = time.monotonic() + END_SECONDS
        ended = False
        while not ended and time.monotonic() < deadline:
            poll.poll(1000)
            with contextlib.suppress(BlockingIOError):
                ended = not os.read(self.status, 4096)  # bubblewrap has seen the last process go
        with self._lock:
            os.close(self.status)
            if self._process >= 0:
                os.close(self._process)
            self._process = -1
        if not ended:
            raise RunError(f"a box's process {self._pid} does not end although it was killed")


def wait_for(boxes: Sequence[Box], deadline: float) -> list[Box]:
    """Wait until some of the boxes have written, and return those; watch meanwhile what they use."""
    poll = select.poll()
    for box in boxes:
        poll.register(box.channel, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Stopped(Outcome.TIMEOUT, "it took too long")
        ready = {number for number, _ in poll.poll(min(left, SAMPLE_SECONDS) * 1000)}
        if ready:
            return [box for box in boxes if box.channel.fileno() in ready]
        for box in boxes:
            box.check_usage()


class Stock:
    """Boxes started ahead, each for one task. Safe to use from several threads."""

    def __init__(self, limits: Limits, num_ahead: int, *, unsafe: bool = False) -> None:
        self.limits, self.isolated = limits, not unsafe
        self._folder = tempfile.TemporaryDirectory(prefix="hone-unsafe-") if unsafe else None
        self._launcher, self._control = _start_launcher(limits, self._folder.name if self._folder else None)
        self._lock = threading.Lock()
        self._waiting: deque[Box] = deque()
        self._num_ahead = num_ahead

    def take(self) -> Box:
        """Return a box that is ready, and start others in its stead."""
        with self._lock:
            while len(self._waiting) <= self._num_ahead:
                self._waiting.append(self._start())
            box = self._waiting.popleft()
        try:
            box.wait_ready()
        except HoneError:
            box.close()
            raise
        return box

    def _start(self) -> Box:
        channel, theirs = socket.socketpair()
        status, status_end = os.pipe()
        try:
            socket.send_fds(self._control, [b"b"], [theirs.fileno(), status_end])
        except OSError as error:
            channel.close()
            os.close(status)
            raise RunError(_LAUNCHER_ENDED) from error
        finally:
            theirs.close()
            os.close(status_end)
        return Box(channel, status, self.limits, self.isolated)

    def ensure_launcher(self) -> None:
        """Raise `RunError` where the launcher has ended, and every box with it.

        It is asked, since a bubblewrap around it holds its end of the socket open for a moment longer.
        """
        try:
            self._control.send(b"?")
            answered = bool(self._control.recv(1))
        except OSError:
            answered = False
        if not answered:
            raise RunError(_LAUNCHER_ENDED)

    def close(self) -> None:
        """End the waiting boxes and the launcher."""
        with self._lock:
            waiting, self._waiting = list(self._waiting), deque()
        for box in waiting:
            box.close()
        self._control.close()
        try:
            self._launcher.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._launcher.kill()
            self._launcher.wait()
        if self._folder:
            self._folder.cleanup()


def _start_launcher(limits: Limits, unsafe_folder: str | None) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the process that starts boxes or, in a folder of theirs, plain processes."""
    unsafe = unsafe_folder is not None
    compileall.compile_dir(PACKAGE / "inside", quiet=2)  # or every box would compile it again; nothing depends on it
    settings = {"owner": os.getpid(), "drop_root": not unsafe, "command": plain_command(limits), "filter": ""}
    launcher = launcher_command(None)
    if not unsafe:
        bwrap = find_bwrap()
        launcher = launcher_command(bwrap)
        settings |= {"command": box_command(bwrap, limits), "filter": seccomp_filter().hex()}
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            launcher, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={}, cwd=unsafe_folder or "/", start_new_session=True,
        )  # fmt: skip
    control.sendall(json.dumps(settings).encode())
    return process, control
