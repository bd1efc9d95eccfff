"""Storage for test nodes, and a look at what is on it behind the daemon's back."""

import json
import os
import re
import subprocess
from pathlib import Path

import leftovers
from leftovers import prefix

CHUNK = 4 << 20
BLOCK = 4096


class FilePool:
    """A directory of files."""

    kind = "file"

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def option(self):
        return f"file:{self.folder}"

    def volumes(self):
        """The names of everything in the pool."""
        return sorted(path.name for path in self.folder.iterdir())

    def reader(self, volume):
        """A function of offset and length that reads what the volume holds now."""

        def read(offset, length):
            with open(self.folder / volume, "rb") as file:
                return os.pread(file.fileno(), length, offset)

        return read

    def close(self):
        pass


class SmallFilePool(FilePool):
    """A directory of files, sparse ones if `thin`, on a file system of its own that has so many bytes."""

    def __init__(self, folder, bytes, thin=False):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.image, self.mounted, self.thin = folder / "small.img", folder / "small", thin
        with open(self.image, "wb") as image:
            image.truncate(bytes)
        self.mounted.mkdir()
        lvm("mkfs.ext4", "-q", "-F", "-m", "0", str(self.image))
        lvm("mount", "-o", "loop", str(self.image), str(self.mounted))
        super().__init__(self.mounted / "pool")

    @property
    def option(self):
        return f"{'file-thin' if self.thin else 'file'}:{self.folder}"

    def fill(self, leave):
        """Has another program fill the file system but for so many bytes."""
        free = os.statvfs(self.mounted)
        with open(self.mounted / "others", "wb") as others:
            os.posix_fallocate(others.fileno(), 0, free.f_bavail * free.f_frsize - leave)

    def make_room(self):
        (self.mounted / "others").unlink()

    def close(self):
        leftovers.quietly("umount", "-l", str(self.mounted))
        self.image.unlink(missing_ok=True)


class LvmPool:
    """A volume group on a loop device. Nothing in it is ever active: works without device-mapper."""

    kind = "lvm"

    def __init__(self, folder, name, bytes):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.group = f"{prefix()}_{name}"
        self.disk = folder / f"{self.group}.img"
        with open(self.disk, "wb") as disk:
            disk.truncate(bytes)
        self.device = lvm("losetup", "--find", "--show", str(self.disk)).strip()
        try:
            lvm("pvcreate", "--quiet", "--yes", self.device)
            lvm("vgcreate", "--quiet", self.group, self.device)
        except Exception:
            self.close()
            raise

    @property
    def option(self):
        return f"lvm:{self.group}"

    def volumes(self):
        return sorted(row["lv_name"] for row in self._report("lvs", "-o", "lv_name", self.group)[0]["lv"])

    def reader(self, volume):
        """A function of offset and length that reads what the volume holds now, by the extents that LVM's metadata names, from
        the file under the loop device: the device's page cache knows nothing of direct writes."""
        extents = self.extents(volume)

        def read(offset, length):
            found, at = [], 0
            with open(self.disk, "rb") as disk:
                for start, size in extents:
                    low, high = max(offset, at), min(offset + length, at + size)
                    if low < high:
                        found.append(os.pread(disk.fileno(), high - low, start + low - at))
                    at += size
            return b"".join(found)

        return read

    def extents(self, volume):
        """Where a linear volume lies on the physical volume: (start, length) in bytes, in order."""
        columns = ["-o", "vg_extent_size,seg_start,seg_size,seg_pe_ranges", "--units", "b", "--nosuffix"]
        rows = self._report("lvs", "--segments", *columns, f"{self.group}/{volume}")[0]["seg"]
        start_of_data = int(self._report("pvs", "-o", "pe_start", "--units", "b", "--nosuffix", self.device)[0]["pv"][0]["pe_start"])
        found = []
        for row in sorted(rows, key=lambda row: int(row["seg_start"])):
            match = re.fullmatch(rf"{re.escape(self.device)}:(\d+)-\d+", row["seg_pe_ranges"])
            if not match:
                raise RuntimeError(f"{volume} is not on {self.device}: {row}")
            first = int(match[1])
            found.append((start_of_data + first * int(row["vg_extent_size"]), int(row["seg_size"])))
        return found

    def _report(self, command, *arguments):
        return json.loads(lvm(command, "--quiet", "--reportformat", "json", *arguments))["report"]

    def close(self):
        leftovers.quietly("vgchange", "--quiet", "-an", self.group)
        leftovers.quietly("losetup", "-d", self.device)
        self.disk.unlink(missing_ok=True)


def lvm(*command):
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "LVM_SUPPRESS_FD_WARNINGS": "1"}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def differences(one, other, volume, bytes):
    """The numbers of the 4 KiB blocks in which two pools' copies of a volume differ. A hole and a block of zeroes are equal."""
    found = []
    read_one, read_other = one.reader(volume), other.reader(volume)
    for offset in range(0, bytes, CHUNK):
        length = min(CHUNK, bytes - offset)
        left, right = read_one(offset, length), read_other(offset, length)
        if len(left) != length or len(right) != length:
            raise AssertionError(f"{volume} ends early: {offset + len(left)} and {offset + len(right)} of {bytes} bytes")
        if left != right:
            blocks = range(0, length, BLOCK)
            found += [(offset + at) // BLOCK for at in blocks if left[at : at + BLOCK] != right[at : at + BLOCK]]
    return found
