"""What stories of attached and mounted volumes share."""

import errno
import os
import subprocess
import threading
from pathlib import Path

from suite import check, wait_for


def attachment(node, resource):
    return [a for a in node.json("list-attachments", "--resources", resource) if a["node"] == node.name][0]


def drop_caches():
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


class LateWrite:
    """A block written to a device by a thread of its own: `outcome` is its error, "written", or None as long as it waits."""

    def __init__(self, handle, block, at):
        self.outcome = None
        self.thread = threading.Thread(target=self._run, args=[handle, block, at])
        self.thread.start()

    def _run(self, handle, block, at):
        try:
            os.pwrite(handle, block, at)
            self.outcome = "written"
        except OSError as error:
            self.outcome = error.errno


def is_fenced_by_another_node(cluster):
    """The first node's daemon dies with `web` attached and a write under way; the second uses the volume; the first returns: the write
    fails. What is attached then has still to be detached where the kernel has not ended it."""
    one, two = cluster[1], cluster[2]
    device = one.blkrep("attach", "web").strip()
    handle = os.open(device, os.O_RDWR | os.O_SYNC)
    os.pwrite(handle, b"1" * 4096, 0)
    one.kill()
    late = LateWrite(handle, b"2" * 4096, 0)
    # The first node may come back, and is given the time to.
    other = wait_for("the other node can attach", lambda: two.blkrep("attach", "web").strip(), 60)
    with open(other, "r+b", buffering=0) as there:
        check(there.read(4096) == b"1" * 4096, "the other node reads what was synced")
        there.seek(0)
        there.write(b"3" * 4096)
        os.fsync(there.fileno())
    two.blkrep("detach", "web")
    one.start()
    late.thread.join(90)
    check(late.outcome == errno.EIO, "the write that came too late failed with EIO", late.outcome)
    os.close(handle)
    cluster.wait_up_to_date("web", 2)


def is_as_another_node_left_it(cluster):
    """After that, attached anew, the volume holds what the second node wrote, and so do both replicas."""
    one = cluster[1]
    again = one.blkrep("attach", "web").strip()
    with open(again, "rb") as there:
        check(there.read(4096) == b"3" * 4096, "the volume is as the other node left it")
    one.blkrep("detach", "web")
    cluster.check_identical("web")


class Writer:
    """Writes blocks one after the other, each with fsync, and remembers the errors."""

    def __init__(self, path):
        self.path = path
        self.written = 0
        self.trouble = None
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            with open(self.path, "wb", buffering=0) as file:
                while not self.ending.is_set():
                    file.write(self.written.to_bytes(8, "little") * 512)
                    os.fsync(file.fileno())
                    self.written += 1
        except OSError as error:
            self.trouble = error

    def close(self):
        self.ending.set()
        self.thread.join()

    def check(self, path):
        data = Path(path).read_bytes()
        check(len(data) >= self.written * 4096, "every block that was synced is there", len(data), self.written)
        for at in range(self.written):
            block = data[at * 4096 : (at + 1) * 4096]
            check(block == at.to_bytes(8, "little") * 512, "a block is as it was written", at)
