"""Whether isolation holds on this machine: small hostile programs, and what became of them.

`ensure_tested` runs them before the first program of a boot; a sandbox that lets one of them through is not opened.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hone.places import user_cache
from hone.sandbox.bubblewrap import PACKAGE, bwrap_version, find_bwrap, interpreter
from hone.sandbox.limits import Limits, Outcome, Result
from hone.sandbox.sandbox import Sandbox
from hone.types import AssertTest, CodeTest, HoneError, StdinTest

LIMITS = Limits(seconds=2.0, total_seconds=4.0, memory_mb=160, output_bytes=1 << 16, processes=16, files_mb=16)
QUIET = "nothing"  # what a probe prints that gets nowhere


class Probe(NamedTuple):
    """One attack: its name, whether the sandbox held, and what was seen."""

    name: str
    held: bool
    seen: str


@functools.cache
def ensure_tested() -> None:
    """Test isolation once a boot; raise `HoneError` naming what does not hold."""
    stamp = user_cache() / "sandbox-tested"
    key = _machine()
    try:
        if stamp.read_text() == key:
            return
    except OSError:
        pass  # it was never written, or cannot be: test
    if broken := [probe for probe in selftest() if not probe.held]:
        names = "; ".join(f"{probe.name} ({probe.seen})" for probe in broken)
        raise HoneError(f"the sandbox does not hold on this machine: {names}. Run code on another machine")
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=stamp.parent, delete=False) as file:
            file.write(key)
        Path(file.name).replace(stamp)
    except OSError:
        pass  # the next process tests again


def _machine() -> str:
    """Return what a test's result depends on: this boot, bubblewrap, the interpreter, the user and our own source."""
    source = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        source.update(path.read_bytes())
    bwrap = find_bwrap()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    python = f"{interpreter()} {platform.python_version()}"
    return "\n".join([boot, f"{bwrap} {bwrap_version(bwrap)}", python, str(os.geteuid()), source.hexdigest()])


def selftest() -> list[Probe]:
    """Attack a sandbox with every probe; takes about two seconds."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as tcp, socket.socket(socket.AF_UNIX) as local:
        secret = Path(folder, "secret")
        secret.write_text("host")
        name = f"hone-{secrets.token_hex(8)}"
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        local.bind("\0" + name)
        local.listen()
        attacks = list(_attacks(str(secret), tcp.getsockname()[1], name))
        with Sandbox(LIMITS, workers=4, tested=True) as sandbox:
            results = sandbox.check_all((attack.program, attack.tests, "") for attack in attacks)
            return [
                Probe(attack.name, attack.held(result), f"{result.outcome}: {result.why}")
                for attack, result in zip(attacks, results, strict=True)
            ]


class _Attack(NamedTuple):
    name: str
    program: str
    tests: Sequence[CodeTest]
    held: Callable[[Result], bool]


def _ends(*outcomes: Outcome) -> Callable[[Result], bool]:
    return lambda result: result.outcome in outcomes


def _attacks(secret: str, port: int, abstract: str) -> Iterator[_Attack]:
    """Yield the probes. Most print what they could reach, and are held if that is nothing."""

    def quiet(name: str, program: str) -> _Attack:
        return _Attack(name, program, [StdinTest(stdin="", stdout=QUIET)], _ends(Outcome.PASSED))

    def stopped(name: str, program: str, *outcomes: Outcome) -> _Attack:
        return _Attack(name, program, [StdinTest(stdin="", stdout="")], _ends(*outcomes))

    yield stopped("a clock that ignores signals", _SLEEP, Outcome.TIMEOUT)
    yield stopped("memory of many processes", _MEMORY, Outcome.MEMORY)
    yield stopped("memory in files", _FILES, Outcome.ERROR, Outcome.MEMORY)
    yield stopped("a flood of output", "while True: print('x' * 4096)", Outcome.OUTPUT)
    yield quiet("the network", _NETWORK.format(port=port, abstract=abstract))
    yield quiet("host files", _READ.format(secret=secret))
    yield quiet("writing outside", _WRITE.format(secret=secret))
    yield quiet("the environment", _ENVIRONMENT)
    yield quiet("other processes", _PROCESSES)
    yield quiet("privileges", _PRIVILEGES)
    yield quiet("system calls", _SYSTEM_CALLS)
    yield quiet("a fork bomb", _FORKS.format(processes=LIMITS.processes))
    expected = f"hone-expected-{secrets.token_hex(8)}"
    yield _Attack("the expected output", _MEMORY_SEARCH, [StdinTest(stdin="", stdout=expected)], _ends(Outcome.FAILED))
    killer = [StdinTest(stdin="kill", stdout=""), StdinTest(stdin="", stdout=QUIET)]
    yield _Attack("killing everything", _KILL, killer, lambda result: result.num_passed >= 1)
    liar = [AssertTest(code="assert answer() == 42")]
    yield _Attack("an object that equals all", _LIAR, liar, _ends(Outcome.FAILED, Outcome.ERROR))
    yield _Attack("an exit that looks like success", "import os; os._exit(0)", liar, _ends(Outcome.ERROR))


_SLEEP = """
import signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: time.sleep(60)
"""

_MEMORY = """
import os, time
for _ in range(3): os.fork()
held = bytearray(40 << 20)
for place in range(0, len(held), 4096): held[place] = 1
time.sleep(60)
"""

_FILES = """
number = 0
while True:
    with open(f"/tmp/{number}", "wb") as file: file.write(b"x" * (1 << 20))
    number += 1
"""

_NETWORK = """
import socket
seen = []
for family, place in ((socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_UNIX, chr(0) + "{abstract}")):
    try:
        with socket.socket(family) as line:
            line.settimeout(0.5)
            line.connect(place)
        seen.append(place)
    except OSError: pass
print(seen or "nothing")
"""

_READ = """
import os
seen = [path for path in ("{secret}", "/etc/passwd", "/etc/shadow", "/etc/hostname", "/home", "/sys", "/var", "/run")
        if os.path.exists(path)]
for path in ("/proc/1/root{secret}", "/proc/1/cwd/..{secret}"):
    try: seen.append(open(path).read())
    except OSError: pass
print(seen or "nothing")
"""

_WRITE = """
import os, sys
folders = ["/", "/box", "/box/inside", "/usr/lib", "/dev", "/proc/sys/kernel", os.path.dirname(os.__file__)]
seen = []
for path in [folder + "/hone-was-here" for folder in folders] + ["{secret}", "/proc/sys/kernel/core_pattern",
             "/proc/self/oom_score_adj", sys.executable, "/box/inside/runner.py", "/proc/1/mem"]:
    try:
        open(path, "ab").close()
        seen.append(path)
    except OSError: pass
print(seen or "nothing")
"""

_ENVIRONMENT = """
import os
names = set(os.environ)
for path in ("/proc/1/environ", "/proc/self/environ"):
    names |= {part.split("=")[0] for part in open(path).read().split(chr(0)) if part}
print(sorted(names - {"HOME", "PWD", "LC_CTYPE"}) or "nothing")
"""

_PROCESSES = """
import os
numbers = [name for name in os.listdir("/proc") if name.isdigit()]
numbers = [name for name in numbers if int(name) not in (1, os.getpid())]
print(numbers or "nothing")
"""

_PRIVILEGES = """
import os
fields = dict(line.split()[:2] for line in open("/proc/self/status") if len(line.split()) > 1)
wrong = [name for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb") if int(fields[name + ":"], 16)]
if fields["NoNewPrivs:"] != "1": wrong.append("NoNewPrivs")
if fields["Seccomp:"] != "2": wrong.append("Seccomp")
if os.getuid() == 0: wrong.append("uid")
print(wrong or "nothing")
"""

_SYSTEM_CALLS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
calls = [
    ("ptrace", (0, 0, 0, 0)), ("unshare", (0x10000000,)), ("mount", (b"x", b"/tmp", b"tmpfs", 0, 0)),
    ("setns", (0, 0)), ("memfd_create", (b"x", 0)), ("shmget", (0, 4096, 0o1600)), ("socket", (16, 3, 0)),
    ("chroot", (b"/tmp",)),
]
seen = []
for name, arguments in calls:
    ctypes.set_errno(0)
    if getattr(libc, name)(*arguments) != -1 or ctypes.get_errno() != 1: seen.append(name)
print(seen or "nothing")
"""

_FORKS = """
import os, time
count = 0
try:
    while count < 1000:
        if os.fork() == 0: time.sleep(60)
        count += 1
except OSError: pass
print(count if count > {processes} else "nothing")
"""

_MEMORY_SEARCH = """
import re
word = b"hone-" + b"expected-[0-9a-f]+"
for number in ("self", "1"):
    try:
        memory = open(f"/proc/{number}/mem", "rb")
        for line in open(f"/proc/{number}/maps"):
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if " rw" in line and end - start < 1 << 28:
                memory.seek(start)
                for found in re.findall(word, memory.read(end - start)): print(found.decode())
    except (OSError, OverflowError): pass
"""

_KILL = """
import os, sys
if sys.stdin.read():
    for number in (os.getppid(), 1, -1):
        try: os.kill(number, 9)
        except OSError: pass
else:
    print("nothing")
"""

_LIAR = """
class Liar(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = int.__hash__
def answer(): return Liar(7)
"""
