"""Knowing and ending one's own processes, and no others."""

import ctypes
import os
import signal
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans():
    """Makes this process the parent of every descendant whose own parent is gone, so that none can escape."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def parents():
    """The parent of every process of the machine."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = stat_fields(int(entry.name))
            if fields:
                found[int(entry.name)] = int(fields[1])
    return found


def stat_fields(pid):
    """/proc/PID/stat from its third field (the state) on; the second, the command, may hold anything. None if there is no
    such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def start_time(pid):
    """When a process began, in clock ticks since boot. With the pid it names a process for good."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def is_alive(pid):
    """Whether the process runs; one that only waits to be reaped does not. One whose first thread is gone, but another still waits for
    a disk, does: it holds its files and their locks."""
    fields = stat_fields(pid)
    return fields is not None and (fields[0] not in ("Z", "X") or int(fields[17]) > 1)


def descendants(ancestor=None):
    """All processes below `ancestor` (this process if None), zombies included."""
    known = parents()
    family = {ancestor or os.getpid()}
    while True:
        more = {pid for pid, parent in known.items() if parent in family} - family
        if not more:
            return family - {ancestor or os.getpid()}
        family |= more


def end_all(pids, patience=10.0):
    """Kills the processes `pids`, reaps those that are our children, and returns when none is left."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    deadline = time.monotonic() + patience
    for pid in pids:
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
