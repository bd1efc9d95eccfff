#!/usr/bin/python3
"""The machine suite: what needs a kernel with device-mapper, or with an NBD client, in a virtual machine of its own (see machine.py).

`tests/vm/run.py` runs all of it, in a few minutes, and skips itself with the reason where no such machine can be had. With parts of
names it runs those of the stories in it that have them, and nothing else.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[2]
PROFILE = os.environ.get("VM_PROFILE", "release")
SECONDS = int(os.environ.get("VM_SECONDS", "500"))
# Tests of drbdpool that have something to do only here.
PROGRAMS = ["mapper", "thin"]
# Files with stories, which run there too.
STORIES = ["attached_stories.py", "disk_stories.py", "pool_stories.py"]
# Those that take minutes: they run when they are asked for by name. disk_stories.py has a short form of the first.
LONG = ["power_stories.py", "full_stories.py"]
BINARY = Path(os.environ.get("BLKREP", ROOT / "target" / "release" / "blkrep"))
# The stories' files lie on a disk in memory: on tmpfs there is no direct I/O.
DISK = "modprobe brd rd_nr=1 rd_size=6000000 && mkfs.ext4 -q /dev/ram0 && mount /dev/ram0 /tmp || exit 92"
MODULES = ["loop", "fuse", "dm-mod", "dm-thin-pool", "dm-snapshot", "dm-mirror", "dm-raid", "raid1"]
COUNT = re.compile(r"^(?:test result: \w+\. )?(\d+) passed[;,] (\d+) failed", re.MULTILINE)


def main():
    try:
        machine.prepare()
    except machine.Unavailable as reason:
        print(f"skipped: no virtual machine can be had here: {reason}")
        return 0
    stories = sys.argv[1:]
    lines = [f"modprobe {module} || exit 90" for module in MODULES]
    lines += ["worst=0"]
    built = {} if stories else programs()
    # Side by side: most of their time one of LVM's commands waits for another of the same program's.
    lines += [f"BLKREP_TEST_ROOT=1 /run/{name} --test-threads 1 >/run/{name}.told 2>&1 & {name}=$!" for name in built]
    for name in built:
        lines += [f"wait ${name} || worst=1", f"echo; echo '# {name}'", f"cat /run/{name}.told"]
    lines += [DISK]
    files = [name for name in STORIES + (LONG if stories else []) if has_one(name, stories)]
    for name in files:
        lines += [f"echo; echo '# {name}'", f"BLKREP=/run/blkrep-under-test python3 -u /mnt/tests/vm/{name} {shlex.join(stories)} || worst=1"]
    folders = [ROOT / "tests" / "lib", ROOT / "tests" / "vm"]
    status, output = machine.run("\n".join([*lines, "exit $worst", ""]), SECONDS, built | {"blkrep-under-test": BINARY}, folders)
    print(output)
    counts = [(int(passed), int(failed)) for passed, failed in COUNT.findall(output)]
    passed, failed = sum(count[0] for count in counts), sum(count[1] for count in counts)
    # A program that told no count has not come to its end.
    failed = max(failed, len(built) + len(files) - len(counts), int(status != 0))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def has_one(name, parts):
    """Whether a file has a story with one of these parts in its name, or none are asked for."""
    told = re.findall(r"^@story.*\ndef (\w+)", (ROOT / "tests" / "vm" / name).read_text(), re.MULTILINE)
    return not parts or any(part in story for part in parts for story in told)


def programs():
    """Builds the test programs; their paths by name."""
    command = ["cargo", "test", "--locked", "-p", "drbdpool", "--no-run", "--message-format", "json"]
    command += [argument for name in PROGRAMS for argument in ("--test", name)]
    command += ["--release"] if PROFILE == "release" else []
    if "VM_CARGO" in os.environ:
        command[0] = os.environ["VM_CARGO"]
    built = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    found = {}
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] in PROGRAMS:
            found[message["target"]["name"]] = message["executable"]
    return found


if __name__ == "__main__":
    sys.exit(main())
