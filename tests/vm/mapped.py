"""Disks of device-mapper that fail on demand, or remember every write, so that a loss of power can be played at any moment."""

import itertools
import os
import shutil
import struct
import subprocess
from pathlib import Path

import leftovers
from leftovers import prefix
from pools import LvmPool, lvm
from suite import wait_for

SECTOR = 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
LOG_BYTES = 1 << 30
# No two disks of a run have the same name, whatever a story that failed has left.
numbers = itertools.count()
# The machine's settings for LVM, which see all disks as long as none of these is there.
SETTINGS = Path("/etc/lvm/lvmlocal.conf")
NO_UDEV = "activation { udev_sync = 0 udev_rules = 0 verify_udev_operations = 0 }\n"
there = set()


class MappedPool(LvmPool):
    """A volume group on a disk that can be had fail, and whose writes can be recorded."""

    def __init__(self, folder, name, bytes):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.group, self.bytes = f"{prefix()}_{name}_{next(numbers)}", bytes
        self.disk, self.log, self.base = folder / "disk.img", folder / "log.img", folder / "base.img"
        self.mapped = f"power-{self.group}"
        self.device = f"/dev/mapper/{self.mapped}"
        self.loop = make_loop(self.disk, bytes)
        self.log_loop = None
        mapper("create", self.mapped, "--table", self._linear())
        # LVM shall see the disk, and not what it is made of.
        there.add(self.group)
        SETTINGS.write_text(NO_UDEV + 'devices { global_filter = [ "a|^/dev/mapper/power-|", "r|.*|" ] }\n')
        lvm("pvcreate", "--quiet", "--yes", self.device)
        lvm("vgcreate", "--quiet", self.group, self.device)

    def _linear(self):
        return f"0 {self.bytes // SECTOR} linear {self.loop} 0"

    def _become(self, table):
        mapper("reload", self.mapped, "--table", table)
        mapper("resume", self.mapped)

    def fail(self, *features):
        """Every request fails from now on, or what the features of dm-flakey say."""
        self._become(" ".join([f"0 {self.bytes // SECTOR} flakey {self.loop} 0 0 3600", str(len(features)) if features else "", *features]))

    def mend(self):
        self._become(self._linear())

    def record(self):
        """Begins to record writes. Nobody may be writing at this moment."""
        subprocess.run(["sync"], check=True)
        shutil.rmtree(self.base, ignore_errors=True)
        subprocess.run(["cp", "--sparse=always", self.disk, self.base], check=True)
        self.log.unlink(missing_ok=True)
        self.log_loop = make_loop(self.log, LOG_BYTES)
        self._become(f"0 {self.bytes // SECTOR} log-writes {self.loop} {self.log_loop}")

    def mark(self, text):
        """Notes a moment among the writes that are recorded."""
        mapper("message", self.mapped, "0", "mark", text)

    def recorded(self):
        """Ends the record: its entries."""
        self._become(self._linear())
        subprocess.run(["sync"], check=True)
        entries = list(read_log(self.log))
        lvm("losetup", "--detach", self.log_loop)
        self.log_loop = None
        return entries

    def power_lost(self, entries):
        """Makes the disk what it would be if these writes were all that reached it since the record began. Nobody may have it open."""
        self._take_down()
        lvm("losetup", "--detach", self.loop)
        subprocess.run(["cp", "--sparse=always", self.base, self.disk], check=True)
        with open(self.disk, "r+b") as disk, open(self.log, "rb") as log:
            for entry in entries:
                entry.apply(log, disk)
        self.loop = make_loop(self.disk, self.bytes)
        mapper("create", self.mapped, "--table", self._linear())

    def _take_down(self):
        # A daemon that was killed has its devices until its last I/O is done.
        wait_for("nobody has the group's volumes", lambda: lvm("vgchange", "--quiet", "-an", self.group) is not None, 20)
        wait_for("nobody has the disk", lambda: mapper("remove", self.mapped) or True, 20)

    def close(self):
        self.mend()
        self._take_down()
        for device in filter(None, (self.loop, self.log_loop)):
            leftovers.quietly("losetup", "-d", device)
        there.discard(self.group)
        if not there:
            SETTINGS.write_text(NO_UDEV)


class Entry:
    """A write, as dm-log-writes has recorded it."""

    def __init__(self, flags, at, length, log_at, mark):
        self.flags, self.at, self.length, self.log_at, self.mark = flags, at, length, log_at, mark

    @property
    def makes_durable(self):
        return bool(self.flags & (FLUSH | FUA))

    def apply(self, log, disk):
        if self.length == 0:
            return
        data = bytes(self.length) if self.flags & DISCARD else os.pread(log.fileno(), self.length, self.log_at)
        os.pwrite(disk.fileno(), data, self.at)


def read_log(path):
    """The entries of a log: see drivers/md/dm-log-writes.c. A header takes a sector, its data follows."""
    with open(path, "rb") as log:
        magic, version, count, sector = struct.unpack("<QQQI", log.read(28))
        if (magic, version) != (0x6A736677736872, 1):
            raise RuntimeError(f"{path} is no log of dm-log-writes")
        at = sector
        for _ in range(count):
            log.seek(at)
            first, sectors, flags, data_length = struct.unpack("<QQQQ", log.read(32))
            mark = log.read(data_length).decode() if flags & MARK else None
            at += sector
            length = sectors * sector
            yield Entry(flags, first * sector, length, at, mark)
            at += 0 if flags & DISCARD else length


def make_loop(path, bytes):
    with open(path, "ab") as file:
        file.truncate(bytes)
    return lvm("losetup", "--find", "--show", str(path)).strip()


def mapper(*arguments):
    done = subprocess.run(["dmsetup", *arguments], capture_output=True, text=True, env={**os.environ, "DM_DISABLE_UDEV": "1"})
    if done.returncode != 0:
        raise RuntimeError(f"dmsetup {' '.join(arguments)}: {done.stderr}")
