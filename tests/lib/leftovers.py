"""What a killed run left behind.

Everything that a test makes outside its own processes carries the pid of the test's process in its name: `brt<pid>`. A later run
may take away what belongs to a dead process, and nothing else.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from processes import is_alive, start_time

PREFIX = "brt"
TEMP = Path("/tmp")
NAME = re.compile(rf"^{PREFIX}(\d+)(?:\D|$)")


def prefix():
    """The prefix of this process's names. Short: a network interface has 15 characters."""
    return f"{PREFIX}{os.getpid()}"


def new_folder():
    """A folder for this process's files that `sweep` can tell from a living process's."""
    folder = TEMP / f"{prefix()}-{start_time(os.getpid())}"
    number = 0
    while True:
        try:
            made = folder.with_name(f"{folder.name}-{number}")
            made.mkdir(mode=0o755)
            return made
        except FileExistsError:
            number += 1


def sweep():
    """Takes away what dead processes left: processes, mounts, loop devices and their volume groups, namespaces, links, files."""
    folders = [path for path in TEMP.glob(f"{PREFIX}*-*") if path.is_dir() and is_orphaned(path.name)]
    for folder in folders:
        end_processes_of(folder)
        release(folder)
    sweep_network()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def is_orphaned(name):
    """Whether the process that `name` names is gone. A folder's name also has the time at which that process began, so that a
    new process of the same number does not pass for it."""
    match = NAME.match(name)
    if not match:
        return False
    pid = int(match[1])
    if not is_alive(pid):
        return True
    began = re.match(rf"^{PREFIX}\d+-(\d+)-\d+$", name)
    return began is not None and start_time(pid) != int(began[1])


def end_processes_of(folder):
    """Kills the processes that were started on `folder` (it is in their arguments) and outlived their test."""
    mark = f"{folder}/".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes()
            if mark in arguments + b"/":
                os.kill(int(entry.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue


def release(folder):
    """Unmounts and detaches what lies on `folder`, so that it can be deleted."""
    for group in volume_groups():
        if is_orphaned(group):
            quietly("vgchange", "--quiet", "-an", group)
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        point = line.split()[1]
        if point.startswith(f"{folder}/"):
            quietly("umount", "-l", point)
    for device in loop_devices(folder):
        quietly("losetup", "-d", device)


def volume_groups():
    """The volume groups whose names have our prefix."""
    if not shutil.which("vgs"):
        return []
    # A story may have one of them locked; and whoever opens a loop device waits for those who serve its file.
    looked_at = ", ".join(f'"a|^{device}$|"' for device in served_loops())
    filters = f'devices {{ filter=[{looked_at + ", " if looked_at else ""}"r|.*|"] }}'
    command = ["vgs", "--quiet", "--nolocking", "--noheadings", "-o", "vg_name", "--config", filters]
    environment = {**os.environ, "LVM_SUPPRESS_FD_WARNINGS": "1"}
    try:
        listing = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    except subprocess.TimeoutExpired:
        return []
    return [name for name in listing.stdout.split() if name.startswith(PREFIX)]


def served_loops():
    """The loop devices whose files are in some run's folder, and not on a file system that a process serves, which may be dead."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    fuse = [f"{mount[1]}/" for mount in mounts if mount[2].startswith("fuse")]
    loops = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = path.read_text().strip()
        except OSError:
            continue
        if file.startswith(f"{TEMP}/{PREFIX}") and not any(file.startswith(point) for point in fuse):
            loops.append(f"/dev/{path.parts[3]}")
    return loops


def loop_devices(folder):
    """The loop devices whose files are in `folder`."""
    if not shutil.which("losetup"):
        return []
    listing = subprocess.run(["losetup", "--list", "--json", "-O", "NAME,BACK-FILE"], capture_output=True, text=True).stdout
    if not listing.strip():
        return []
    devices = json.loads(listing)["loopdevices"]
    return [device["name"] for device in devices if (device["back-file"] or "").startswith(f"{folder}/")]


def sweep_network():
    """Deletes the namespaces and links of dead processes. Links inside a namespace go with it."""
    if not shutil.which("ip"):
        return
    for path in Path("/run/netns").glob(f"{PREFIX}*"):
        if is_orphaned(path.name):
            quietly("ip", "netns", "delete", path.name)
    for path in Path("/sys/class/net").glob(f"{PREFIX}*"):
        if is_orphaned(path.name):
            quietly("ip", "link", "delete", path.name)


def quietly(*command):
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
