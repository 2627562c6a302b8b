"""The filter, run by a small interpreter of classic BPF, call by call."""

from __future__ import annotations

import errno
import struct

import pytest

from hone.sandbox.seccomp import seccomp_filter
from hone.types import HoneError

ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000
X86, ARM = 0xC000003E, 0xC00000B7


def verdict(machine: str, architecture: int, number: int, argument: int = 0) -> int:
    program = list(struct.iter_unpack("=HBBI", seccomp_filter(machine)))
    data = {0: number, 4: architecture, 16: argument, 40: argument}
    place = loaded = 0
    while True:
        code, jump_true, jump_false, value = program[place]
        if code == 0x06:
            return value
        if code == 0x20:
            loaded = data[value]
        else:
            true = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
            place += jump_true if true else jump_false
        place += 1


@pytest.mark.parametrize(
    ("number", "argument", "expected"),
    [
        (0, 0, ALLOW),  # read
        (101, 0, FAIL | errno.EPERM),  # ptrace
        (165, 0, FAIL | errno.EPERM),  # mount
        (425, 0, FAIL | errno.EPERM),  # io_uring_setup
        (435, 0, FAIL | errno.ENOSYS),  # clone3
        (56, 0x11, ALLOW),  # clone with SIGCHLD: fork
        (56, 0x3D0F00, ALLOW),  # clone of a thread
        (56, 0x10000011, FAIL | errno.EPERM),  # clone with CLONE_NEWUSER
        (56, 0x00020011, FAIL | errno.EPERM),  # clone with CLONE_NEWNS
        (41, 1, ALLOW),  # socket(AF_UNIX)
        (41, 2, FAIL | errno.EPERM),  # socket(AF_INET)
        (41, 16, FAIL | errno.EPERM),  # socket(AF_NETLINK)
        (53, 1, ALLOW),  # socketpair
        (9, 0x22, ALLOW),  # mmap, private and anonymous
        (9, 0x01, ALLOW),  # mmap of a file, shared
        (9, 0x21, FAIL | errno.EPERM),  # mmap, shared and anonymous
        (162, 0, FAIL | errno.EPERM),  # sync
        (0x40000000, 0, KILL),  # x32
    ],
)
def test_x86_64(number: int, argument: int, expected: int) -> None:
    assert verdict("x86_64", X86, number, argument) == expected


@pytest.mark.parametrize(
    ("number", "argument", "expected"),
    [
        (63, 0, ALLOW),  # read
        (117, 0, FAIL | errno.EPERM),  # ptrace
        (40, 0, FAIL | errno.EPERM),  # mount
        (220, 0x11, ALLOW),  # clone: fork
        (220, 0x40000011, FAIL | errno.EPERM),  # clone with CLONE_NEWNET
        (198, 1, ALLOW),  # socket(AF_UNIX)
        (198, 10, FAIL | errno.EPERM),  # socket(AF_INET6)
        (222, 0x22, ALLOW),  # mmap, private and anonymous
        (222, 0x21, FAIL | errno.EPERM),  # mmap, shared and anonymous
    ],
)
def test_aarch64(number: int, argument: int, expected: int) -> None:
    assert verdict("aarch64", ARM, number, argument) == expected


def test_another_architecture_is_killed() -> None:
    assert verdict("x86_64", 0x40000003, 0) == KILL  # i386
    with pytest.raises(HoneError, match="riscv64"):
        seccomp_filter("riscv64")
