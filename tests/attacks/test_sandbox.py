"""Hostile and broken programs: what they get, and that the host does not notice them.

Each attack here is our own; those of shared/data/sandbox_attacks.jsonl are run as well where that file is.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.sandbox import Limits, Sandbox
from hone.sandbox.usage import tree
from hone.types import AssertTest, CallTest, CodeTest, StdinTest

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "sandbox_attacks.jsonl"
SECONDS = 1.0
MARK = "HONE_TEST_SECRET"

WRONG = {"failed", "timeout", "memory", "output", "error"}
DOUBLE = [StdinTest(stdin="21\n", stdout="42\n")]
ANSWER = [AssertTest(code="assert answer(6) == 42"), AssertTest(code="assert answer(7) == 49")]
CALL = [CallTest(function="answer", args=(6,), expected=42)]

STDIN_ATTACKS = {
    "honest": ("print(2 * int(input()))", {"passed"}),
    "sleeps through every signal": (
        "import signal, time\nfor n in range(1, 65):\n try: signal.signal(n, signal.SIG_IGN)\n"
        " except (OSError, ValueError): pass\nwhile True: time.sleep(9)",
        {"timeout"},
    ),
    "leaves a child behind": ("import os, time\nif os.fork() == 0: time.sleep(99)\nprint(42)", {"passed"}),
    "leaves a child in a session of its own, which holds stdout": (
        "import os, time\nif os.fork() == 0:\n os.setsid()\n os.fork()\n time.sleep(99)\nprint(42)",
        {"passed"},
    ),
    "forks for ever": ("import os\nwhile True:\n try: os.fork()\n except OSError: pass", {"timeout"}),
    "starts threads for ever": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
        {"error", "timeout"},
    ),
    "shares out its memory": (
        "import os, time\nfor _ in range(3): os.fork()\nb = bytearray(150 << 20)\n"
        "for i in range(0, len(b), 4096): b[i] = 1\ntime.sleep(9)",
        {"memory"},
    ),
    "maps shared memory": (
        "import mmap\nkeep = []\nwhile True:\n m = mmap.mmap(-1, 60 << 20)\n m.write(b'x' * len(m))\n keep.append(m)",
        {"memory", "error"},
    ),
    "makes files without end": (
        "n = 0\nwhile True:\n open(str(n), 'w').close(); n += 1",
        {"memory", "timeout", "error"},
    ),
    "writes one large file": ("f = open('f', 'wb')\nwhile True: f.write(b'x' * (1 << 20))", {"error"}),
    "writes into shm": ("f = open('/dev/shm/f', 'wb')\nwhile True: f.write(b'x' * (1 << 20))", {"error"}),
    "floods stderr and answers": ("import sys\nsys.stderr.write('x' * (32 << 20))\nprint(42)", {"passed"}),
    "floods stdout through a child": (
        "import os\nos.fork()\nwhile True: os.write(1, b'x' * 65536)", {"output"},
    ),
    "kills its parent and all": (
        "import os\nfor n in (os.getppid(), 1, -1):\n try: os.kill(n, 9)\n except OSError: pass\n", {"failed", "error"},
    ),
    "stops its parent": (
        "import os, signal\nos.kill(1, signal.SIGSTOP)\nwhile True: pass", {"timeout"},
    ),
    "writes a message of its own": (
        "import os\nfor n in range(3, 64):\n try: os.write(n, b'\\0\\0\\0\\7\\0\\0\\0\\3ran')\n except OSError: pass\n",
        {"failed"},
    ),
    "exits well without an answer": ("import os\nos._exit(0)", {"failed"}),
    "prints no text": ("import os\nos.write(1, bytes(range(256)) * 99)", {"failed"}),
    "is no text itself": ("print('\udc80')", {"error"}),
    "nests deeply": ("x = " + "(" * 5000 + ")" * 5000, WRONG),
    "nests operators": ("x = " + "-" * 50_000 + "1", WRONG),
    "is huge": ("x = 1\n" * 300_000, {"failed", "timeout", "memory"}),
    "crashes the interpreter": ("import ctypes\nctypes.string_at(0)", {"error"}),
    "dumps core": ("import os, resource\nos.chdir('/tmp')\nos.abort()", {"error"}),
    "recurses in C": ("x = []\nfor _ in range(10**6): x = [x]\nrepr(x)", WRONG),
    "asks for root": ("import os\nos.setuid(0)", {"error"}),
    "makes a user namespace": (
        "import ctypes\nprint(42 if ctypes.CDLL(None).unshare(0x10000000) == 0 else 0)",
        {"failed"},
    ),
    "raises its limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (999, 999))", {"error"},
    ),
    "looks for our environment": (
        "import os, glob\nfor p in glob.glob('/proc/[0-9]*/environ'):\n"
        f" if '{MARK}' in open(p).read(): print(42)\nif '{MARK}' in os.environ: print(42)",
        {"failed"},
    ),
    "goes to the network": (
        "import socket\nfor family in (2, 10, 16, 17):\n try: socket.socket(family); print(42)\n except OSError: pass",
        {"failed"},
    ),
    "keeps shared memory out of its tables": (
        "import mmap\nkeep = []\nwhile True:\n m = mmap.mmap(-1, 60 << 20)\n m.write(b'x' * len(m))\n"
        " m.madvise(mmap.MADV_DONTNEED)\n keep.append(m)",
        {"error"},
    ),
    "maps a device": ("import mmap\nmmap.mmap(open('/dev/zero', 'r+b').fileno(), 1 << 20)", {"error"}),
    "fills sockets": (
        "import os, socket, time\nfor _ in range(5): os.fork()\nkeep = []\ntry:\n while True:\n"
        "  pair = socket.socketpair()\n  keep.append(pair)\n  pair[0].setblocking(False)\n"
        "  try:\n   while True: pair[0].send(b'x' * 65536)\n  except BlockingIOError: pass\n"
        "except OSError: pass\ntime.sleep(9)",
        {"timeout", "error"},
    ),
    "makes links without end": (
        "import os\nn = 0\nwhile True: os.symlink('x' * 200, str(n)); n += 1", {"error", "memory"},
    ),
    "hides in attributes": (
        "import os\nopen('f', 'w')\nn = 0\nwhile True: os.setxattr('f', f'user.{n}', bytes(60000)); n += 1",
        {"error", "memory"},
    ),
    "uses the calls of 32 bits": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_void_p\n"
        "page = libc.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, 0)\n"
        "ctypes.memmove(page, b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3', 8)\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(page)()\nprint(42)",
        {"error"},
    ),
    "signals its parent": (
        "import os\nfor n in range(1, 65):\n try: os.kill(1, n)\n except OSError: pass\nprint(42)", {"passed", "error"},
    ),
    "takes its parent's limits": (
        "import resource\nfor n in range(16):\n try: resource.prlimit(1, n, (0, 0))\n"
        " except (OSError, ValueError): pass\nprint(42)",
        {"passed", "error"},
    ),
    "prints later through a child": (
        "import os, time\nprint(4, end='', flush=True)\n"
        "if os.fork() == 0:\n time.sleep(0.3)\n os.write(1, b'2')\n os._exit(0)",
        {"failed"},
    ),
    "prints half a sign": ("import os\nos.write(1, '42\u00e9'.encode()[:-1])", {"failed"}),
    "folds constants": ("x = ('a' * 4096 * 4096) * 4096", {"memory", "error"}),
    "resolves a name": ("import socket\nsocket.getaddrinfo('example.com', 80)\nprint(42)", {"error"}),
}  # fmt: skip

ASSERT_ATTACKS = {
    "honest": "def answer(n): return n * 7",
    "equals everything": (
        "class Liar(int):\n __eq__ = lambda *a: True\n __ne__ = lambda *a: False\n __hash__ = int.__hash__\n"
        "def answer(n): return Liar(0)"
    ),
    "equals everything and is no number": "class Liar:\n __eq__ = lambda *a: True\ndef answer(n): return Liar()",
    "patches builtins": (
        "import builtins\nbuiltins.AssertionError = type('A', (Exception,), {})\n"
        "builtins.int.__eq__ if 0 else 0\nbuiltins.isinstance = lambda *a: True\ndef answer(n): return 0"
    ),
    "walks the frames": (
        "import sys, gc\ndef answer(n):\n f = sys._getframe()\n while f:\n"
        "  for v in [*f.f_locals.values(), *f.f_globals.values()]:\n"
        "   if v in (42, b'assert answer(6) == 42'): return 42\n"
        "  f = f.f_back\n"
        " return 49 if any(b'assert answer' in o for o in gc.get_objects() if type(o) is bytes) else 0"
    ),
    "exits at import": "import sys\nsys.exit(0)",
    "exits in the call": "import os\ndef answer(n): os._exit(0)",
    "says passed on the channel": (
        "import os\ndef answer(n):\n for fd in range(3, 64):\n"
        "  try: os.write(fd, b'\\0\\0\\0\\x0a\\0\\0\\0\\6passed')\n"
        "  except OSError: pass\n return 0"
    ),
    "says passed before it is asked": (
        "import os, threading\n"
        "def loop():\n while True:\n  os.write(3, b'\\0\\0\\0\\x0a\\0\\0\\0\\6passed')\n"
        "threading.Thread(target=loop, daemon=True).start()\ndef answer(n): return 0"
    ),
    "says that it ended well": (
        "import os, time\ndef answer(n):\n"
        " b = b''.join(len(p).to_bytes(4, 'big') + p for p in (b'ended', b'x', b'', b'', b'', b''))\n"
        " os.write(3, len(b).to_bytes(4, 'big') + b)\n time.sleep(99)"
    ),
    "floods the channel": "import os\ndef answer(n):\n while True: os.write(3, b'\\xff' * 65536)",
    "announces a huge message": "import os, time\ndef answer(n):\n os.write(3, b'\\xff' * 4)\n time.sleep(99)",
    "sends garbage as a value": (
        "import os, time\ndef answer(n):\n b = b'r0\\nL0,-1,99999999999\\n'\n m = b'\\0\\0\\0\\5value'"
        " + len(b).to_bytes(4, 'big') + b\n os.write(3, len(m).to_bytes(4, 'big') + m)\n time.sleep(99)"
    ),
    "closes the channel": "import os\nos.closerange(0, 64)\ndef answer(n): return 0",
    "never answers": "def answer(n):\n while True: pass",
    "answers without end": "import itertools\ndef answer(n): return itertools.count()",
    "raises what ends a checker": "def answer(n): raise SystemExit(0)",
    "raises to end an iteration": "def answer(n): raise GeneratorExit",
    "traces": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef answer(n): return 0",
    "is a class that equals everything": (
        "class Meta(type):\n __eq__ = __instancecheck__ = lambda *a: True\n __hash__ = type.__hash__\n"
        "class Liar(metaclass=Meta): pass\ndef answer(n): return Liar"
    ),
    "says that it is a number": (
        "class Liar:\n __class__ = property(lambda self: int)\n __eq__ = lambda *a: True\n"
        " __int__ = __index__ = lambda self: 0\ndef answer(n): return Liar()"
    ),
    "writes byte by byte": (
        "import os, time\ndef answer(n):\n os.write(3, b'\\0\\0\\3\\xe8')\n"
        " while True: os.write(3, b'x'), time.sleep(0.05)"
    ),
    "has a repr without end": (
        "class Long:\n __repr__ = lambda self: 'x' * (1 << 30)\ndef answer(n): raise ValueError(Long())"
    ),
    "returns what collides": "def answer(n): return {i * ((1 << 61) - 1) for i in range(1, 20000)}",
    "redefines what tests are written with": (
        "def abs(x): return 0\ndef len(x): return 42\ndef all(x): return True\ndef answer(n): return 0"
    ),
    "stops the other side": "import os\ndef answer(n):\n os.kill(1, 19)\n os.kill(-1, 9)\n return 0",
    "replaces its own server": (
        "import sys\nfor name, module in list(sys.modules.items()):\n"
        " if name.startswith('inside'):\n  for k in list(vars(module)):\n"
        "   try: setattr(module, k, lambda *a, **k: True)\n"
        "   except Exception: pass\ndef answer(n): return 0"
    ),
}


@pytest.fixture(scope="module")
def sandbox(isolation: None) -> Iterator[Sandbox]:
    os.environ[MARK] = "host"
    with Sandbox(Limits(seconds=SECONDS, total_seconds=10, memory_mb=256), workers=2) as opened:
        opened.check("print(1)", [StdinTest(stdin="", stdout="1")])
        before = _host()
        yield opened
        assert _host() == before
    del os.environ[MARK]


def _host() -> dict[str, object]:
    """Return what no attack may change. Processes may still be on their way out, so those are waited for."""
    end = time.monotonic() + 10
    while (zombies := [pid for pid in tree(os.getpid()) if _state(pid) in "ZX"]) and time.monotonic() < end:
        time.sleep(0.02)
    folders = ("/", "/tmp", "/dev/shm", "/etc", "/usr", "/var", str(Path.home()), str(Path.cwd()))
    pwned = [
        name
        for folder in folders
        if Path(folder).is_dir()
        for name in os.listdir(folder)
        if "pwn" in name or name == "core"
    ]
    return {
        "zombies": zombies,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "environ": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "files": pwned,
    }


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


@pytest.mark.parametrize("name", STDIN_ATTACKS)
def test_a_program_with_standard_input(sandbox: Sandbox, name: str) -> None:
    program, allowed = STDIN_ATTACKS[name]
    started = time.monotonic()
    result = sandbox.check(program, DOUBLE)
    assert result.outcome in allowed, result
    assert time.monotonic() - started < 20  # against a hang


@pytest.mark.parametrize("name", ASSERT_ATTACKS)
def test_a_program_whose_functions_are_called(sandbox: Sandbox, name: str) -> None:
    for tests in (ANSWER, CALL):
        result = sandbox.check(ASSERT_ATTACKS[name], tests)
        assert (result.num_passed == len(tests)) is (name == "honest"), result
        assert (result.outcome == "passed") is (name == "honest"), result
        assert result.num_passed == 0 or name == "honest", result


def test_a_builtin_of_the_program_is_not_believed(sandbox: Sandbox) -> None:
    program = "def abs(x): return 0\ndef all(x): return True\ndef answer(n): return 0.0"
    tests = [AssertTest(code="assert abs(answer(6) - 42) < 1e-6"), AssertTest(code="assert all([answer(6) == 42])")]
    assert sandbox.check(program, tests).num_passed == 0


@pytest.mark.parametrize("error", ["StopIteration", "StopAsyncIteration", "type('E', (StopIteration,), {})"])
def test_a_program_cannot_end_a_loop_of_the_test(sandbox: Sandbox, error: str) -> None:
    tests = [AssertTest(code="assert all(map(lambda n: answer(n) == n * 7, [6, 7]))")]
    assert sandbox.check(f"def answer(n): raise {error}", tests).outcome == "error"


def test_an_object_of_the_setup_keeps_its_methods(sandbox: Sandbox) -> None:
    setup = "class Node:\n def __init__(self, v): self.v = v\n def same(self, other): return self.v == other.v"
    program = "def answer(node):\n node.same = lambda other: True\n return node"
    tests = [AssertTest(code="assert answer(Node(1)).same(Node(2))")]
    assert sandbox.check(program, tests, setup).outcome == "error"


def test_a_module_of_the_program_is_not_believed(sandbox: Sandbox) -> None:
    program = "class math:\n isclose = staticmethod(lambda *a: True)\ndef answer(n): return 0.0"
    assert sandbox.check(program, [AssertTest(code="assert math.isclose(answer(6), 42)")]).num_passed == 0


@pytest.mark.parametrize("message", [bytes(4), b"\0\0\0\7\0\0\0\3ran", b"\0\0\0\x0a\0\0\0\6failed", b"\xff" * 8])
def test_broken_test_code_does_not_reach_us(sandbox: Sandbox, message: bytes) -> None:
    """Tests are data as well: what they make their own box say is no message of ours."""
    code = f"import os, time\nos.write(3, {message!r})\ntime.sleep(9)"
    assert sandbox.check("def answer(n): return n * 7", [AssertTest(code=code)]).outcome == "error"


def test_the_next_program_is_not_touched(sandbox: Sandbox) -> None:
    spoil = "import os\nopen('/tmp/random.py', 'w').write('1/0')\nopen('/tmp/left', 'w')\nprint(42)"
    assert sandbox.check(spoil, DOUBLE).outcome == "passed"
    assert sandbox.check("import os, random\nprint(42 if os.listdir('.') == [] else 0)", DOUBLE).outcome == "passed"


def test_our_own_memory_stays(sandbox: Sandbox) -> None:
    """Floods are read no further than the limit."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for program in ("while True: print('x' * (1 << 20))", "import sys\nwhile True: sys.stderr.write('x' * (1 << 20))"):
        assert sandbox.check(program, DOUBLE).outcome in ("output", "timeout")
    for name in ("floods the channel", "announces a huge message"):
        assert sandbox.check(ASSERT_ATTACKS[name], ANSWER).num_passed == 0
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 64 << 10


def _rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in DATA.read_text().splitlines()] if DATA.exists() else []


SAFE_PASSES = {"ok_honest", "ok_slow_import", "kill_parent", "write_outside", "never_read_stdin", "hardcode_sample"}
EXACT = {
    "inf_loop": {"timeout"}, "sleep_forever": {"timeout"}, "ignore_signals": {"timeout"}, "catch_alarm": {"timeout"},
    "big_pow": {"timeout", "memory"}, "mem_bomb": {"memory", "error"}, "thread_bomb": {"error", "timeout"},
    "exit_zero": {"failed"}, "output_flood": {"output"}, "close_stdout": {"timeout"}, "bad_utf8": {"failed"},
    "zip_bomb": {"memory", "error", "timeout"}, "disk_fill": {"error", "timeout", "memory"},
    "deep_recursion": {"error", "memory", "timeout"}, "segv": {"error"}, "big_source": {"error"},
    "nul_source": {"error", "passed"},
}  # fmt: skip


@pytest.mark.skipif(not DATA.exists(), reason="shared/data/sandbox_attacks.jsonl is absent")
@pytest.mark.parametrize("row", _rows(), ids=lambda row: row["id"])
def test_the_attacks_of_the_data(sandbox: Sandbox, row: dict[str, str]) -> None:
    tests: list[CodeTest] = [StdinTest(stdin=row["stdin"], stdout=row["hidden_expected"])]
    if row["id"] == "never_read_stdin":
        tests.append(StdinTest(stdin="x" * (10 << 20), stdout=row["hidden_expected"]))
    if row["id"] == "hardcode_sample":
        tests.append(StdinTest(stdin="5\n", stdout="10\n"))
        result = sandbox.check(row["program"], tests)
        assert (result.outcome, result.num_passed) == ("error", 1), result
        return
    result = sandbox.check(row["program"], tests)
    assert result.outcome in EXACT.get(row["id"], {"passed"} if row["id"] in SAFE_PASSES else WRONG), result
    assert result.seconds < SECONDS + 1 or len(tests) > 1
