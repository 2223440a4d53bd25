"""What a process does to itself: its end together with its parent, its descriptors, its signals."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from collections.abc import Iterable

K_MAX_FILES = 1 << 20
_PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent, of that pid, ends (prctl(2), PR_SET_PDEATHSIG)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl(PR_SET_PDEATHSIG): {os.strerror(error)}")
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), signal.SIGKILL)


def close_all_but(keep: Iterable[int]) -> None:
    """Closes every descriptor above 2 that is not in `keep`."""
    first = 3
    for fd in sorted(set(keep)):
        if fd >= first:
            os.closerange(first, fd)
            first = fd + 1
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    os.closerange(first, highest + 1)


def reset_signals(handled: Iterable[signal.Signals]) -> None:
    """After a fork: none of the parent's handlers; what is meant for the parent alone is ignored."""
    signal.set_wakeup_fd(-1)
    for number in handled:
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def raise_file_limit() -> None:
    """As many open files as the hard limit allows: each connection of a worker is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = K_MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, K_MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def notify_systemd(state: str) -> None:
    """Tells systemd "READY=1" or "STOPPING=1" (sd_notify(3)); does nothing where there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError:
            return  # readiness is a courtesy


def exit_text(code: int) -> str:
    """How a process ended, from the exit code of multiprocess: "exit code 1", "killed by SIGKILL"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
