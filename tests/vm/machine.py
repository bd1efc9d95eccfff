"""A virtual machine for what containers cannot have: a kernel of its own, with device-mapper and the nbd driver.

Debian's kernel is booted by qemu, in software emulation, with this machine's root file system below an overlay in memory: every
program that is installed here is there, and nothing that is done there stays. Takes about 20 seconds to the first command.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(os.environ.get("VM_CACHE", "/var/cache/blkrep-vm"))

# What the initial RAM disk needs to reach the root file system; everything else is loaded from there.
BOOT_MODULES = ["virtio_pci", "9p", "9pnet_virtio", "overlay"]

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read module; do insmod /modules/$module; done </modules/order
share() { mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,$3 $1 $2; }
share root /below ro,cache=loose
mount -t tmpfs -o size=60% memory /above; mkdir /above/upper /above/work
mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work root /new
for place in proc sys dev; do mkdir -p /new/$place; mount --move /$place /new/$place; done
mkdir -p /new/dev/pts /new/dev/shm /new/lib/modules /new/mnt
mount -t devpts pts /new/dev/pts
for place in dev/shm run tmp; do mount -t tmpfs memory /new/$place; done
mkdir -p /new/run/lock/lvm
share modules /new/lib/modules ro
share job /new/mnt rw
exec switch_root /new /bin/bash /mnt/.begin
"""

# There is no udev in the machine: LVM must not wait for it.
BEGIN = """
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
printf 'activation { udev_sync = 0 udev_rules = 0 verify_udev_operations = 0 }\\n' >/etc/lvm/lvmlocal.conf
ip link set lo up
cd /mnt && bash ./job >output 2>&1 </dev/null
echo $? >status
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


class Unavailable(Exception):
    """This machine cannot run another."""


def run(job, seconds, programs=(), folders=()):
    """Runs a shell script as root in a machine that is new. Returns its exit status and its output. The programs, paths by name, are
    in the machine's /run, and the folders below its /mnt/tests: not every folder of this machine can be seen there."""
    prepare()
    with tempfile.TemporaryDirectory(prefix="blkrep-vm-") as folder:
        folder = Path(folder)
        fetch = "".join(f"cp '{name}' /run/ || exit 91\n" for name in programs)
        for name, path in dict(programs).items():
            shutil.copy(path, folder / name)
        for path in folders:
            shutil.copytree(path, folder / "tests" / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "job").write_text(fetch + job)
        (folder / ".begin").write_text(BEGIN)
        console = boot(folder, seconds)
        output = (folder / "output").read_text(errors="replace") if (folder / "output").exists() else ""
        status = (folder / "status").read_text().strip() if (folder / "status").exists() else ""
        if not status:
            return 99, f"{output}\nthe machine did not come to the end of its work in {seconds} s; its console:\n{console[-4000:]}"
        return int(status), output


def boot(folder, seconds):
    """Runs the machine until it has switched itself off; what it wrote on its console."""
    modules = CACHE / "kernel/lib/modules"

    def share(path, tag, *options):
        return ["-virtfs", ",".join([f"local,path={path},mount_tag={tag},security_model=none", *options])]

    command = [
        *["qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-m", "3G", "-smp", "2"],
        *["-nographic", "-no-reboot", "-nic", "none", "-kernel", kernel(), "-initrd", CACHE / "boot.gz"],
        *["-append", "console=ttyS0 quiet panic=-1 mitigations=off"],
        *share("/", "root", "readonly=on", "multidevs=remap"),
        *share(modules, "modules", "readonly=on"),
        *share(folder, "job"),
    ]
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        return machine.communicate(timeout=seconds)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        machine.kill()
        return machine.communicate()[0].decode(errors="replace")


def prepare():
    """Makes sure of qemu, a kernel and an initial RAM disk; what is there already is used. Raises `Unavailable`."""
    if os.uname().machine != "x86_64":
        raise Unavailable(f"no kernel is known for {os.uname().machine}")
    if not shutil.which("qemu-system-x86_64"):
        install_qemu()
    for program, package in (("busybox", "busybox-static"), ("cpio", "cpio"), ("modprobe", "kmod")):
        if not shutil.which(program):
            install(package)
    CACHE.mkdir(parents=True, exist_ok=True)
    if kernel() is None:
        fetch_kernel()
    if not (CACHE / "boot.gz").exists():
        make_boot_disk()


def kernel():
    return next(iter(sorted((CACHE / "kernel/boot").glob("vmlinuz-*"))), None)


def install_qemu():
    """From the backports where there are any: the plain release's would remove a newer qemu-utils that may be installed."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    suite = f"{release.get('VERSION_CODENAME', '').strip(chr(34))}-backports"
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    if sources.exists() and release.get("ID", "").strip('"') == "debian":
        first = sources.read_text().split("\n\n")[0]
        lines = [f"Suites: {suite}" if line.startswith("Suites:") else line for line in first.splitlines()]
        (sources.parent / "blkrep-backports.sources").write_text("\n".join(lines) + "\n")
        apt("update")
        install("-t", suite, "qemu-system-x86", "qemu-utils")
    else:
        install("qemu-system-x86")


def fetch_kernel():
    newest = [line.split()[-1] for line in text("apt-cache", "depends", "linux-image-amd64").splitlines() if "Depends: linux-image-" in line]
    if not newest:
        raise Unavailable("apt knows no package linux-image-amd64")
    with tempfile.TemporaryDirectory() as folder:
        text("apt-get", "download", newest[0], cwd=folder)
        package = next(Path(folder).glob("*.deb"))
        fresh = CACHE / "kernel.new"
        shutil.rmtree(fresh, ignore_errors=True)
        text("dpkg", "-x", str(package), str(fresh))
        version = next((fresh / "lib/modules").iterdir()).name
        text("depmod", "-b", str(fresh), version)
        fresh.rename(CACHE / "kernel")


def make_boot_disk():
    version = next((CACHE / "kernel/lib/modules").iterdir()).name
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        for folder in ("bin", "proc", "sys", "dev", "modules", "below", "above", "new"):
            (root / folder).mkdir()
        shutil.copy(shutil.which("busybox"), root / "bin/busybox")
        order = []
        for module in BOOT_MODULES:
            needed = text("modprobe", "-d", str(CACHE / "kernel"), "-S", version, "--show-depends", module)
            files = [Path(line.split()[1]) for line in needed.splitlines() if line.startswith("insmod")]
            order += [file for file in files if file not in order]
        for file in order:
            shutil.copy(file, root / "modules")
        (root / "modules/order").write_text("".join(f"{file.name}\n" for file in order))
        (root / "init").write_text(INIT)
        (root / "init").chmod(0o755)
        fresh = CACHE / "boot.new"
        text("bash", "-c", f"find . | cpio -o -H newc 2>/dev/null | gzip -1 >{fresh}", cwd=root)
        fresh.rename(CACHE / "boot.gz")


def install(*packages):
    apt("install", "-y", "--no-install-recommends", *packages)


def apt(*arguments):
    if os.geteuid() != 0:
        raise Unavailable("packages are missing, and only root can install them")
    text("apt-get", "-q", *arguments)


def text(*command, cwd=None):
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout
