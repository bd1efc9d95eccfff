"""A Docker engine of a node's own: in the node's network namespace and a mount namespace with its own /run, so that it finds the
node's plugin socket and nobody else's.

    engine = scene.closes(Engine(node))
    engine.docker("volume", "create", "-d", "blkrep", "web")
"""

import ctypes
import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

from network import entering
from processes import descendants, end_all, is_alive
from suite import check, wait_for

CLONE_NEWNS = 0x00020000
BUSYBOX = "/bin/busybox"
APPLETS = ["sh", "cat", "echo", "dd", "sync", "sleep", "ls", "stat", "mv", "rm", "true", "sha256sum", "id"]
SOCKET = "/run/docker/plugins/blkrep.sock"
IMAGE = "box"

_libc = ctypes.CDLL(None, use_errno=True)


class Failed(RuntimeError):
    """A docker command ended with an error."""


class Space:
    """A mount namespace with a /run of its own, in a network namespace; it lives as long as the process that holds it."""

    def __init__(self, netns, folder):
        self.netns = netns
        # What is found in a process's arguments is ended by a later run, should this one be killed.
        mark = Path(folder) / "space"
        mark.touch()
        # What is mounted below the node's own run directory is seen by Docker's managed plugins, as it is on a machine of its own.
        shared = Path(folder) / "root/run"
        shared.mkdir(parents=True, exist_ok=True)
        # The copies of what others have mounted would keep their devices in use.
        command = "grep -o ' /tmp/brt[^ ]*' /proc/mounts | tac | xargs -r umount -l 2>/dev/null; "
        command += "mount -t tmpfs run /run && mkdir -p /run/docker/plugins /run/lock && "
        command += f"mount --bind {shared} {shared} && mount --make-shared {shared} && echo ready && exec tail -f {mark}"
        arguments = ["unshare", "--mount", "--propagation", "private", "sh", "-c", command]
        self.holder = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=entering(netns))
        check(self.holder.stdout.readline() == b"ready\n", "a mount namespace can be made")

    def enter(self):
        """For `preexec_fn`: the child lives in both namespaces."""
        entering(self.netns)()
        with open(f"/proc/{self.holder.pid}/ns/mnt", "rb") as handle:
            if _libc.setns(handle.fileno(), CLONE_NEWNS) != 0:
                raise OSError(ctypes.get_errno(), "setns of a mount namespace")

    @property
    def prefix(self):
        """The beginning of a command that runs in both namespaces."""
        return ["nsenter", f"--net=/run/netns/{self.netns}", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--"]

    def processes(self):
        """Every process that lives in the mount namespace, the holder apart, with what they have started: containers have
        namespaces of their own."""
        mine = os.readlink(f"/proc/{self.holder.pid}/ns/mnt")
        found = set()
        for pid in descendants():
            try:
                if pid != self.holder.pid and os.readlink(f"/proc/{pid}/ns/mnt") == mine:
                    found |= {pid, *descendants(pid)}
            except OSError:
                continue
        return found

    def close(self):
        end_all([self.holder.pid])


class Engine:
    """dockerd on a node."""

    def __init__(self, space, folder):
        self.space = space
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.daemon = None
        self.start()
        self.load_image()

    def start(self):
        command = ["dockerd", "--data-root", self.folder / "data", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"]
        command += ["-H", "unix:///run/docker.sock", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]
        command += ["--userland-proxy=false", "--shutdown-timeout", "5"]
        with open(self.folder / "dockerd.log", "ab") as log:
            self.daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=self.space.enter, start_new_session=True
            )
        wait_for("dockerd answers", lambda: self.run("version").returncode == 0, 40)

    def kill(self):
        """SIGKILL to the engine and its containerd; what ran in containers is left to itself."""
        # Looked for first: containerd dies with its parent, and would be taken for a living one until it is reaped.
        names = {pid: name_of(pid) for pid in self.space.processes()}
        end_all([self.daemon.pid, *(pid for pid, name in names.items() if name == "containerd")])

    def run(self, *arguments, seconds=60):
        """Runs a docker command and returns how it ended."""
        command = [*self.space.prefix, "/usr/bin/docker", "-H", "unix:///run/docker.sock", *map(str, arguments)]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)

    def docker(self, *arguments, seconds=60):
        """Runs a docker command and returns its output; raises `Failed` when it fails."""
        done = self.run(*arguments, seconds=seconds)
        if done.returncode != 0:
            raise Failed(f"docker {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def refuses(self, *arguments, naming=()):
        """Runs a docker command that must fail, and whose message must have the words `naming`."""
        done = self.run(*arguments)
        check(done.returncode != 0, "docker refuses", arguments, done.stdout)
        for word in naming:
            check(word in done.stderr, f"the message names {word}", done.stderr)

    def box(self, volume, script, *options, at="/data"):
        """Runs a shell script in a new container with a volume, and returns its output."""
        return self.docker("run", "--rm", "--network", "none", *options, "-v", f"{volume}:{at}", IMAGE, "sh", "-c", script)

    def load_image(self):
        """Imports a root file system of busybox alone."""
        archive = self.folder / "box.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(BUSYBOX, "bin/busybox")
            for applet in APPLETS:
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
            for directory in ("tmp", "data"):
                entry = tarfile.TarInfo(directory)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
        self.docker("import", archive, IMAGE)

    def close(self):
        if self.daemon and is_alive(self.daemon.pid):
            for container in self.run("ps", "-q").stdout.split():
                self.run("rm", "-f", container)
            os.kill(self.daemon.pid, signal.SIGTERM)
            try:
                wait_for("dockerd ends", lambda: not is_alive(self.daemon.pid), 15)
            except AssertionError:
                pass
        end_all([self.daemon.pid])
        end_all(self.space.processes())


def name_of(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def missing():
    """What this machine lacks for these tests, in words; empty if nothing."""
    lacks = [program for program in ("dockerd", "containerd", "/usr/bin/docker", BUSYBOX, "mkfs.ext4") if not shutil.which(program)]
    lacks += [path for path in ("/dev/fuse", "/dev/loop-control") if not Path(path).exists()]
    return lacks
