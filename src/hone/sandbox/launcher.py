"""Starts boxes on demand: a small process of its own, run by `python -I -S`, standard library only.

It is one process with one thread and the parent of every box, so that `bwrap --die-with-parent` means what it says
whichever thread asks for a box, starting one costs the same beside a large trainer as in a shell, and all boxes end
when the process that wants them ends, however that happens. Run as root it gives that up first.
"""

import array
import json
import os
import resource
import select
import signal
import socket

CONTROL = 0  # a byte with two descriptors, a box's channel and status, starts one; a byte alone is echoed
CHANNEL, FILTER, STATUS = 3, 4, 5  # what a box has them as; `bubblewrap.box_command` names the last two
NOBODY = 65534


def main() -> None:
    """Start a box for each message, until the process outside closes the socket or is no more."""
    control = socket.socket(fileno=CONTROL)
    settings = json.loads(control.recv(1 << 20))
    for number in (CHANNEL, FILTER, STATUS):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)  # keeps the numbers free for the boxes
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    owner = os.pidfd_open(settings["owner"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where the machine's memory ends, boxes go first
    if os.geteuid() == 0 and settings["drop_root"]:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    poll = select.poll()
    for descriptor in (CONTROL, wake, owner):
        poll.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == owner:
                return
            if descriptor == wake:
                os.read(wake, 4096)
                reap()
            elif not start_next(control, settings["command"], bytes.fromhex(settings["filter"])):
                reap_last(owner)
                return


def start_next(control: socket.socket, command: list[str], seccomp_filter: bytes) -> bool:
    """Start a box for the next message, or echo it; return False where there will be none.

    An empty filter says that the command is no bubblewrap's, so that its process number is told here.
    """
    message, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(8))
    if not message:
        return False
    if not ancillary:
        control.send(message)  # to say that this process is alive
        return True
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2])
    channel, status = descriptors
    filter_end, filling = os.pipe()
    os.write(filling, seccomp_filter)
    os.close(filling)
    places = {channel: (CHANNEL, 2), filter_end: (FILTER,), status: (STATUS,)}
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1)
    ]
    actions += [(os.POSIX_SPAWN_DUP2, source, target) for source, targets in places.items() for target in targets]
    try:
        pid = os.posix_spawn(command[0], command, {}, file_actions=actions, setsigdef=[signal.SIGCHLD, signal.SIGPIPE])
        if not seccomp_filter:  # bubblewrap says this itself
            os.write(status, b'{"child-pid": %d}\n' % pid)
    except OSError as error:
        os.write(channel, f"{command[0]}: {error.strerror}".encode())
    for descriptor in places:
        os.close(descriptor)
    return True


def reap() -> bool:
    """Take note of the boxes that have ended; return whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def reap_last(owner: int) -> None:
    """Wait a second for the boxes that are being closed. Those that are left end with this process."""
    end = select.poll()
    end.register(owner, select.POLLIN)
    for _ in range(100):
        if not reap() or end.poll(10):
            return


if __name__ == "__main__":
    main()
