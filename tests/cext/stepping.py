"""A process that is stopped after each of its instructions.

What is in shared memory then is what would be there had it been killed at that instruction.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import zlib
from collections.abc import Callable, Iterator

import pytest
from flux.cext.arena import Arena

PTRACE_TRACEME = 0
PTRACE_SINGLESTEP = 9
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def layout(arena: Arena) -> dict[str, int]:
    """Offsets in the memfd, out of arena_header (arena.pxd)."""
    values = struct.unpack("<QQQIIQQQQQ", os.pread(arena.fd, 72, 0))
    names = ("magic", "version", "total_bytes", "slots", "max_processes")
    names += ("processes_at", "names_at", "slots_at", "spans_at", "span_bytes")
    return dict(zip(names, values, strict=True))


def copy_of(arena: Arena) -> Arena:
    """An arena of its own with the same bytes."""
    total = layout(arena)["total_bytes"]
    fd = os.memfd_create("copy", os.MFD_CLOEXEC)
    at = 0
    while at < total:
        at += os.copy_file_range(arena.fd, fd, total - at, at, at)
    return Arena.attach(fd, [os.eventfd(0, os.EFD_NONBLOCK) for _ in arena.doorbells], owns=True)


def instants(arena: Arena, action: Callable[[], object], span_bytes: int = 0) -> Iterator[int]:
    """Runs `action` in a forked process by single steps. Gives the number of each that changed the arena.

    What counts are the tables, and the first `span_bytes` of the first slot's span.
    """
    where = layout(arena)
    end = where["spans_at"] + span_bytes
    memory = mmap.mmap(arena.fd, end, mmap.MAP_SHARED, mmap.PROT_READ)
    header = memoryview(memory)[: where["processes_at"]]
    watched = memoryview(memory)[where["names_at"] : end]
    pid = os.fork()
    if pid == 0:
        try:
            if _libc.ptrace(PTRACE_TRACEME, 0, None, None) < 0:
                os._exit(77)
            os.kill(os.getpid(), signal.SIGSTOP)
            action()
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(78)
    try:
        status = os.waitpid(pid, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 77:
            pid = 0
            assert not os.environ.get("CI"), "ptrace is forbidden here: allow SYS_PTRACE"
            pytest.skip("ptrace is forbidden here")
        assert os.WIFSTOPPED(status)
        before = zlib.crc32(watched, zlib.crc32(header))
        step = 0
        while True:
            if _libc.ptrace(PTRACE_SINGLESTEP, pid, None, None) < 0:
                raise OSError(ctypes.get_errno(), "PTRACE_SINGLESTEP")
            status = os.waitpid(pid, 0)[1]
            if not os.WIFSTOPPED(status):
                pid = 0
                raise AssertionError(f"the action failed at step {step}: {status}")
            if os.WSTOPSIG(status) == signal.SIGSTOP:
                return
            assert os.WSTOPSIG(status) == signal.SIGTRAP
            step += 1
            now = zlib.crc32(watched, zlib.crc32(header))
            if now != before:
                before = now
                yield step
    finally:
        header.release()
        watched.release()
        memory.close()
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
