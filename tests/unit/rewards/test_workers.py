"""Worker processes: what comes back, what is cut short, and that nothing is left behind."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.rewards.workers import Workers

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(num_workers=2, seconds=1.0, memory_mb=512) as pool:
        yield pool


def test_values_come_back_in_order(workers: Workers) -> None:
    outcomes = workers.map("math:sqrt", [[n * n] for n in range(50)])
    assert [outcome.value for outcome in outcomes] == list(range(50))


def test_text_survives_whatever_it_is(workers: Workers) -> None:
    texts = ["\ud800", "\x00", "答案", "\U0001f600", "a\nb" * 100_000]
    assert [outcome.value for outcome in workers.map("builtins:str", [[text] for text in texts])] == texts


@pytest.mark.parametrize(
    ("function", "args", "kind", "why"),
    [
        ("time:sleep", [30], "timeout", "longer than 1 s"),
        ("builtins:bytearray", [2 << 30], "memory", ""),
        ("os:_exit", [0], "crashed", "ended"),
        ("os:abort", [], "crashed", "ended"),
        ("math:sqrt", [-1], "raised", "ValueError"),
        ("sys:exit", [0], "raised", "SystemExit"),
        ("no_such_module:f", [], "missing", "no_such_module"),
        ("math:no_such_function", [], "missing", "no_such_function"),
        ("builtins:object", [], "raised", "JSON"),
        ("builtins:print", ["not seen"], "value", ""),
    ],
)
def test_every_end_of_a_call_is_told_and_the_next_call_works(
    workers: Workers, function: str, args: list[object], kind: str, why: str
) -> None:
    outcome = workers.map(function, [args])[0]
    assert (outcome.kind, why in outcome.why) == (kind, True)
    assert workers.map("math:sqrt", [[4]])[0].value == 2


def test_a_hanging_call_does_not_hold_up_its_neighbours() -> None:
    with Workers(num_workers=2, seconds=1.5) as pool:
        pool.map("math:sqrt", [[1], [1]])
        start = time.monotonic()
        outcomes = pool.map("time:sleep", [[60], [0], [0], [0]])
        assert [outcome.kind for outcome in outcomes] == ["timeout", "value", "value", "value"]
        assert time.monotonic() - start < 30


def test_threads_share_a_pool(workers: Workers) -> None:
    found: dict[int, list[float]] = {}

    def work(number: int) -> None:
        found[number] = [outcome.value for outcome in workers.map("math:sqrt", [[number**2]] * 20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {number: [number] * 20 for number in range(4)}


def test_modules_of_the_callers_path_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_reward.py").write_text("def twice(n):\n    print('noise')\n    return 2 * n\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with Workers(num_workers=1) as pool:
        assert pool.map("my_reward:twice", [[21]])[0].value == 42


@LINUX
def test_nothing_is_left_when_the_pool_is_closed() -> None:
    with Workers(num_workers=2, seconds=0.5) as warm:
        warm.map("math:sqrt", [[1]])
    descriptors = os.listdir("/proc/self/fd")
    with Workers(num_workers=2, seconds=0.5) as pool:
        pids = {outcome.value for outcome in pool.map("os:getpid", [[]] * 4)}
        pool.map("time:sleep", [[9], [9]])
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)
    assert not _still_there(pids)


@LINUX
def test_a_killed_zygote_is_replaced() -> None:
    with Workers(num_workers=1) as pool:
        zygote, worker = (pool.map(function, [[]])[0].value for function in ("os:getppid", "os:getpid"))
        os.kill(zygote, 9)
        assert not _still_there({worker})
        outcomes = [pool.map("math:sqrt", [[9]])[0] for _ in range(2)]
        assert [outcome.kind for outcome in outcomes] == ["crashed", "value"]


@LINUX
def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = """
        import os, sys, threading
        from hone.rewards.workers import Workers
        pool = Workers(num_workers=1, seconds=60)
        print(pool.map("os:getpid", [[]])[0].value, pool.map("os:getppid", [[]])[0].value, flush=True)
        threading.Timer(0.5, lambda: os.kill(os.getpid(), 9)).start()
        pool.map("time:sleep", [[60]])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -9
    assert not _still_there({int(pid) for pid in done.stdout.split()})


@LINUX
def test_a_forked_child_has_a_pool_of_its_own() -> None:
    program = """
        import os
        from hone.rewards.workers import shared_workers
        ours = shared_workers().map("os:getppid", [[]])[0].value
        child = os.fork()
        if child == 0:
            os._exit(shared_workers().map("os:getppid", [[]])[0].value == ours)
        assert os.waitpid(child, 0)[1] == 0
        assert shared_workers().map("os:getppid", [[]])[0].value == ours
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60, check=True)


def _still_there(pids: set[int]) -> set[int]:
    """Return those processes that are alive after ten seconds at most."""
    deadline = time.monotonic() + 10
    alive = pids
    while alive and time.monotonic() < deadline:
        alive = {pid for pid in alive if Path(f"/proc/{pid}").exists()}
        time.sleep(0.05)
    return alive
