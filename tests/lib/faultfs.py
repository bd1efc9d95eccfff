"""A disk that fails on demand: tests/chaos/faultfs, one for each node that has one.

    disk = scene.closes(FaultDisk(folder))
    disk.fail("write", errno.EIO, "pool/data_00")
    disk.well()
    disk.lose_power(seed=7)
"""

import os
import subprocess
from pathlib import Path

import leftovers
from suite import check, wait_for

BINARY = Path(os.environ.get("FAULTFS", Path(__file__).resolve().parents[2] / "target" / "release" / "examples" / "faultfs"))


class FaultDisk:
    """A folder, `path`, whose files fail, hang and are lost as it is told. What a `part` names is part of a path."""

    def __init__(self, folder):
        self.backing = Path(folder) / "backing"
        self.path = Path(folder) / "disk"
        for made in (self.backing, self.path):
            made.mkdir(parents=True)
        command = [BINARY, self.backing, self.path]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answered()
        wait_for("the file system is mounted", lambda: os.path.ismount(self.path), 10)

    def fail(self, what, errno, part):
        """`what` (read, write, sync or any) ends with an error."""
        self._say(f"fail {what} {errno} {part}")

    def hang(self, part):
        """Nothing is answered any more."""
        self._say(f"hang {part}")

    def well(self):
        """Ends every fault."""
        self._say("well")

    def kill(self, pid, when, what, part, count=1):
        """Kills a process before or after its `count`th operation of this kind: `what` as for `fail`, or name, which is made, renamed
        or removed. What it is killed before is not done."""
        self._say(f"kill {pid} {when} {what} {part} {count}")

    def lose_power(self, seed=None):
        """Each sector that was not synced stays or goes back; without a seed all go back. Whoever had files open must be dead."""
        self._say("lose" if seed is None else f"lose {seed}")

    def _say(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        self._answered()

    def _answered(self):
        answer = self._process.stdout.readline().strip()
        check(answer == "ok", "the file system obeys", answer or "it has ended")

    def close(self):
        try:
            self._process.stdin.write("well\n")
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        leftovers.quietly("umount", "-l", str(self.path))
