"""What stories of attached and mounted volumes share."""

import os
import subprocess
import threading
from pathlib import Path

from suite import check


def attachment(node, resource):
    return [a for a in node.json("list-attachments", "--resources", resource) if a["node"] == node.name][0]


def drop_caches():
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


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
