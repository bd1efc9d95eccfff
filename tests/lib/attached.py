"""What stories of attached and mounted volumes share."""

import errno
import mmap
import os
import subprocess
import threading
import time
from pathlib import Path

from suite import check, wait_for


def attachment(node, resource):
    return [a for a in node.json("list-attachments", "--resources", resource) if a["node"] == node.name][0]


def helper_of(node, resource):
    """The process that keeps an attachment."""
    mark = f"attach/{resource}@0".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"attach-helper" in words and any(w.endswith(mark) and w.startswith(str(node.root).encode()) for w in words):
                return int(entry.name)
    return None


def drop_caches():
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


class Raw:
    """A block device as a virtual machine has it open: nothing of it is kept in this machine's caches."""

    SIZE = 4096

    def __init__(self, device):
        self.handle = os.open(device, os.O_RDWR | os.O_DIRECT)
        # Memory as direct I/O wants it.
        self.memory = mmap.mmap(-1, self.SIZE)

    def write(self, block, byte):
        self.memory[:] = byte * self.SIZE
        check(os.pwritev(self.handle, [self.memory], block * self.SIZE) == self.SIZE, "the block is written")

    def read(self, block):
        """The byte that the whole block consists of."""
        check(os.preadv(self.handle, [self.memory], block * self.SIZE) == self.SIZE, "the block is read")
        found = self.memory[:]
        check(found == found[:1] * self.SIZE, "the block is of one write", found[:8])
        return found[:1]

    def close(self):
        """Closes it; a second time that does nothing."""
        if self.handle is not None:
            os.close(self.handle)
        self.handle = None


def is_coherent_on_two_nodes(scene, source, target, resource):
    """A live migration as an emulator does it: the device of the node that it goes to is opened while the other is written still, both
    are read and written for a while, through a restart of either daemon, and then the first is given up. Returns what the device of
    `target` must hold: block number to byte."""
    first = scene.closes(Raw(source.blkrep("attach", resource).strip()))
    first.write(0, b"a")
    second = scene.closes(Raw(target.blkrep("attach", resource).strip()))
    check(second.read(0) == b"a", "the second node reads what the first has written")
    second.write(0, b"b")
    check(first.read(0) == b"b", "and the first what the second has")
    # For as long as it takes until every node has heard of the other's use.
    for turn in range(60):
        first.write(1 + turn, b"c")
        second.write(61 + turn, b"d")
        check((second.read(1 + turn), first.read(61 + turn)) == (b"c", b"d"), "each reads the other's", turn)
        time.sleep(0.05)
    for node in (source, target):
        node.restart()
        first.write(0, b"e")
        check(second.read(0) == b"e", f"after a restart of {node} the second reads the first's")
        second.write(0, b"f")
        check(first.read(0) == b"f", f"after a restart of {node} the first reads the second's")
    first.close()
    source.blkrep("detach", resource)
    second.write(0, b"g")
    check(second.read(0) == b"g", "the second goes on alone")
    return {0: b"g", 1: b"c", 120: b"d"}


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
