"""A volume as a file system: nbdfuse makes a file of the export, a loop device a disk of the file.

    mount = scene.closes(Mount(folder, node.uri("data"))).open()
    mount.make("ext4")
    mount.mount()
"""

import subprocess
from pathlib import Path

import leftovers
from suite import check, wait_for


class Mount:
    """`path` is where the file system is, between `mount` and `unmount`."""

    def __init__(self, folder, uri):
        self.uri = uri
        self.fuse = Path(folder) / "fuse"
        self.path = Path(folder) / "mount"
        self.device = None
        self.kind = None
        self._nbdfuse = None
        for made in (self.fuse, self.path):
            made.mkdir(parents=True)

    def open(self):
        """Connects; `device` is there afterwards."""
        self._nbdfuse = subprocess.Popen(["nbdfuse", str(self.fuse), self.uri], stdin=subprocess.DEVNULL)
        wait_for("nbdfuse serves", self._served, 20)
        self.device = output("losetup", "--find", "--show", "--direct-io=on", str(self.fuse / "nbd")).strip()
        return self

    def _served(self):
        check(self._nbdfuse.poll() is None, "nbdfuse runs", self._nbdfuse.returncode)
        return (self.fuse / "nbd").exists()

    def make(self, kind):
        """A new file system, ext4 or xfs."""
        quiet = {"ext4": ["-q", "-F"], "xfs": ["-q", "-f"]}[kind]
        output(f"mkfs.{kind}", *quiet, self.device)

    def mount(self, kind):
        output("mount", "-t", kind, self.device, str(self.path))

    def unmount(self):
        output("umount", str(self.path))

    def check(self, kind):
        """Fails unless the file system, which was mounted once since it was left in a hurry, is as it should be."""
        command = {"ext4": ["e2fsck", "-f", "-n"], "xfs": ["xfs_repair", "-n"]}[kind]
        output(*command, self.device)

    def close(self):
        """Lets go of everything, also when the server is gone."""
        leftovers.quietly("umount", str(self.path))
        leftovers.quietly("umount", "-l", str(self.path))
        if self.device:
            leftovers.quietly("losetup", "-d", self.device)
            self.device = None
        leftovers.quietly("umount", "-l", str(self.fuse))
        if self._nbdfuse:
            try:
                self._nbdfuse.wait(10)
            except subprocess.TimeoutExpired:
                self._nbdfuse.kill()
                self._nbdfuse.wait()
            self._nbdfuse = None


def output(*command, seconds=120):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    check(done.returncode == 0, " ".join(command), f"exit status {done.returncode}", done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout
