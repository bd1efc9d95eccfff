"""The programs that people use: nbdinfo, nbdcopy, qemu-img, qemu-io and fio."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from case import case, check, equal, need

MIB = 1 << 20
TOOL_SECONDS = 100


def tool(target, *argv, status=0):
    """Runs a program to its end and returns what it said. TLS needs options that differ from tool to tool: not tried."""
    need(shutil.which(argv[0]), f"{argv[0]} (not installed)")
    need(not target.address.tls, "plain connections")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != status:
        raise AssertionError(f"{' '.join(argv)}: exit status {done.returncode}: {(done.stderr or done.stdout)[-800:]}")
    return done.stdout


class Folder:
    """A temporary folder, on a disk if there is room."""

    def __enter__(self):
        self.held = tempfile.TemporaryDirectory(prefix="nbd-tools-")
        return Path(self.held.name)

    def __exit__(self, *_):
        self.held.cleanup()


@case(seconds=100, writes=False)
def nbdinfo_describes_the_export(target):
    uri = target.address.uri()
    told = json.loads(tool(target, "nbdinfo", "--json", uri))
    export = told["exports"][0]
    equal(export["export-size"], target.size)
    equal(export["is_read_only"], target.is_read_only)
    equal(int(tool(target, "nbdinfo", "--size", uri)), target.size)
    tool(target, "nbdinfo", uri)


@case(seconds=100, writes=False)
def nbdinfo_lists(target):
    told = json.loads(tool(target, "nbdinfo", "--list", "--json", target.address.uri("")))
    names = [export["export-name"] for export in told["exports"]]
    check(target.export in names, "the export is listed", names)


@case(seconds=100)
def nbdinfo_maps(target):
    need(target.has_allocation, "base:allocation")
    with target.open("simple") as link:
        link.write(MIB, b"\x99" * MIB)
    extents = json.loads(tool(target, "nbdinfo", "--map", "--json", target.address.uri()))
    equal(sum(extent["length"] for extent in extents), target.size, "bytes mapped")
    for extent in extents:
        if extent["offset"] < 2 * MIB and extent["offset"] + extent["length"] > MIB:
            equal(extent["type"], 0, "the type of an extent with data")


@case(seconds=200)
def nbdcopy_in_and_out(target):
    """Several connections, several requests in flight, sparse and not."""
    uri = target.address.uri()
    with Folder() as folder:
        source, back = folder / "source", folder / "back"
        with open(source, "wb") as file:
            file.write(os.urandom(8 * MIB))
            file.seek(12 * MIB)
            file.write(os.urandom(3 * MIB + 512))
            file.truncate(target.size)
        for options in ((), ("--connections=1", "--requests=1"), ("--synchronous",), ("--request-size=4096", "--allocated")):
            tool(target, "nbdcopy", "--flush", *options, str(source), uri)
            tool(target, "nbdcopy", *options, uri, str(back))
            check(same_files(source, back), f"the copy is the original (options {options})")
            back.unlink()
            # The next copy must not find its work done already.
            with target.open("simple") as link:
                link.write(0, os.urandom(16 * MIB))


def same_files(one, other):
    with open(one, "rb") as first, open(other, "rb") as second:
        while True:
            a, b = first.read(MIB), second.read(MIB)
            if a != b:
                return False
            if not a:
                return True


@case(seconds=200)
def qemu_img_converts_and_compares(target):
    uri = target.address.uri()
    with Folder() as folder:
        raw = folder / "raw"
        with open(raw, "wb") as file:
            file.write(os.urandom(5 * MIB))
            file.seek(9 * MIB)
            file.write(os.urandom(MIB))
            file.truncate(target.size)
        told = json.loads(tool(target, "qemu-img", "info", "--output=json", uri))
        equal(told["virtual-size"], target.size)
        tool(target, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(raw), uri)
        tool(target, "qemu-img", "compare", "-f", "raw", "-F", "raw", str(raw), uri)
        back = folder / "back.qcow2"
        tool(target, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, str(back))
        tool(target, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(raw), str(back))
        extents = json.loads(tool(target, "qemu-img", "map", "-f", "raw", "--output=json", uri))
        equal(sum(extent["length"] for extent in extents), target.size, "bytes mapped")


@case(seconds=100)
def qemu_io_reads_patterns(target):
    uri = target.address.uri()
    end = target.size - 1000
    steps = [
        "write -P 0x11 0 1M", "write -P 0x22 4095 2", "write -P 0x33 -f 65535 4099", f"write -P 0x44 {end} 1000",
        "write -z 128k 64k", "write -z -u 256k 64k", "aio_write -P 0x55 512k 128k", "aio_write -P 0x66 640k 128k", "aio_flush",
        "read -P 0x11 0 4095", "read -P 0x22 4095 2", "read -P 0x11 4097 61438", "read -P 0x33 65535 4099", "read -P 0 128k 64k",
        "read -P 0 256k 64k", "read -P 0x55 512k 128k", "read -P 0x66 640k 128k", f"read -P 0x44 {end} 1000", "flush",
    ]  # fmt: skip
    commands = [part for step in steps for part in ("-c", step)]
    told = tool(target, "qemu-io", "-f", "raw", *commands, uri)
    check("verification failed" not in told and "failed:" not in told, "every pattern is found", told[-500:])


@case(seconds=100)
def qemu_io_discards(target):
    told = tool(target, "qemu-io", "-f", "raw", "-d", "unmap", "-c", "discard 1M 2M", "-c", "flush", target.address.uri())
    check("failed" not in told, "discard", told)


@case(seconds=200)
def fio_verifies(target):
    """Its nbd engine: random writes of many sizes, verified by checksum."""
    need("nbd" in tool(target, "fio", "--enghelp"), "fio with its nbd engine")
    uri = target.address.uri()
    size = min(target.size, 32 * MIB)
    common = ["--ioengine=nbd", f"--uri={uri}", f"--size={size}", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1"]
    with Folder() as folder:
        for job in (
            ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
            ["--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=1", "--iodepth=16", "--norandommap=0"],
            ["--rw=write", "--bs=1m", "--iodepth=4"],
            ["--rw=randwrite", "--bs=4k", "--iodepth=8", "--fsync=8"],
        ):
            told = tool(target, "fio", "--name=verify", *common, *job, f"--aux-path={folder}", "--minimal")
            check("verify:" not in told, "verify", told[-500:])
