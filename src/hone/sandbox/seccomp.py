"""The system calls that a box may not make, as a classic BPF program that bubblewrap loads.

A deny list: everything that makes namespaces, mounts, looks into other processes, loads code into the kernel, speaks to
a network, waits for the host's disks or keeps memory that no limit counts fails with EPERM. It knows x86_64 and aarch64
by their own numbers; the namespaces, the user id and the read-only root hold without it.
"""

from __future__ import annotations

import errno
import platform
import struct

from hone.types import HoneError

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
# Offsets in struct seccomp_data; of an argument its low half, little-endian.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _FOURTH_ARGUMENT = 0, 4, 16, 40
_X32 = 0x40000000  # the second calling convention of x86_64
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEWUSER, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP, NEWNS and NEWTIME
_AF_UNIX = 1
_MAP_SHARED, _MAP_ANONYMOUS = 0x01, 0x20

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE, _CLONE3, _SOCKET = {"x86_64": 56, "aarch64": 220}, 435, {"x86_64": 41, "aarch64": 198}
_MMAP = {"x86_64": 9, "aarch64": 222}
_DENIED = {
    "x86_64": {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
        "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308,
        "keyctl": 250, "add_key": 248, "request_key": 249,
        "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "seccomp": 317,
        "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313, "delete_module": 176,
        "reboot": 169, "swapon": 167, "swapoff": 168, "acct": 163, "quotactl": 179, "syslog": 103,
        "iopl": 172, "ioperm": 173, "modify_ldt": 154, "settimeofday": 164, "clock_settime": 227, "adjtimex": 159,
        "personality": 135, "name_to_handle_at": 303, "open_by_handle_at": 304, "fanotify_init": 300,
        "memfd_create": 319, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240,
        "sethostname": 170, "setdomainname": 171, "move_pages": 279, "migrate_pages": 256, "vhangup": 153,
        "sync": 162, "syncfs": 306,
    },
    "aarch64": {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
        "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268,
        "keyctl": 219, "add_key": 217, "request_key": 218,
        "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "seccomp": 277,
        "kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273, "delete_module": 106,
        "reboot": 142, "swapon": 224, "swapoff": 225, "acct": 89, "quotactl": 60, "syslog": 116,
        "settimeofday": 170, "clock_settime": 112, "adjtimex": 171,
        "personality": 92, "name_to_handle_at": 264, "open_by_handle_at": 265, "fanotify_init": 262,
        "memfd_create": 279, "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180,
        "sethostname": 161, "setdomainname": 162, "move_pages": 239, "migrate_pages": 238, "vhangup": 58,
        "sync": 81, "syncfs": 267,
    },
}  # fmt: skip
_DENIED_EVERYWHERE = {  # calls since Linux 5.1 have one number on every machine
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447,
    "set_mempolicy_home_node": 450, "open_tree_attr": 467,
}  # fmt: skip


def seccomp_filter(machine: str | None = None) -> bytes:
    """Return the filter of a machine (`x86_64` or `aarch64`, by default this one), ready for `bwrap --seccomp`."""
    machine = machine or platform.machine()
    if machine not in _AUDIT:
        raise HoneError(f"the sandbox knows no seccomp filter for {machine}: run on x86_64 or aarch64")
    denied = sorted({*_DENIED[machine].values(), *_DENIED_EVERYWHERE.values()})
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL_PROCESS),
    ]  # fmt: skip
    for number in denied:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _FAIL | errno.EPERM)]
    # clone3 takes its flags in memory, out of a filter's sight; ENOSYS makes the C library use clone instead.
    program += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _FAIL | errno.ENOSYS)]
    # Shared memory without a file stays the kernel's when no process has it in its tables: nobody would count it.
    program += [(_EQUAL, 0, 5, _MMAP[machine]), (_LOAD, 0, 0, _FOURTH_ARGUMENT), (_ANY_BIT, 0, 2, _MAP_ANONYMOUS)]
    program += [(_ANY_BIT, 0, 1, _MAP_SHARED), (_RETURN, 0, 0, _FAIL | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    program += [(_EQUAL, 0, 3, _CLONE[machine]), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    program += [(_ANY_BIT, 0, 5, _NEW_NAMESPACES), (_RETURN, 0, 0, _FAIL | errno.EPERM)]
    program += [(_EQUAL, 0, 3, _SOCKET[machine]), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    program += [(_EQUAL, 1, 0, _AF_UNIX), (_RETURN, 0, 0, _FAIL | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
