"""Places for nodes: addresses on the loopback, or network namespaces joined by a bridge, which can be cut."""

import contextlib
import ctypes
import os
import subprocess
import time
from pathlib import Path

from leftovers import prefix

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def loopback_address(number):
    """An address of 127.0.0.0/8 for node `number` (1 to 6) that no other living test process uses."""
    assert 1 <= number <= 6
    host = (os.getpid() << 3 | number) & 0xFFFFFF ^ 0x400000
    return f"127.{host >> 16}.{host >> 8 & 0xFF}.{host & 0xFF}"


class Network:
    """A network of its own for N nodes: a namespace each, and one with the bridge between them.

    Node `n` (from 1) has the address 10.77.0.n. Nothing of it is connected to the machine's own network."""

    def __init__(self, count):
        self.hub = f"{prefix()}hub"
        self.count = count
        self._dropped = []
        run("ip", "netns", "add", self.hub)
        run("ip", "-n", self.hub, "link", "set", "lo", "up")
        run("ip", "-n", self.hub, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.hub, "link", "set", "br0", "up")
        for number in range(1, count + 1):
            self._add(number)

    def _add(self, number):
        space, near = self.namespace(number), f"n{number}"
        run("ip", "netns", "add", space)
        run("ip", "-n", self.hub, "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "-n", self.hub, "link", "set", near, "master", "br0", "up")
        run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", space, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")

    def namespace(self, number):
        return f"{prefix()}n{number}"

    def address(self, number):
        return f"10.77.0.{number}"

    def enter(self, number):
        """For `preexec_fn`: the child lives on node `number`."""
        return entering(self.namespace(number))

    def cut(self, *numbers):
        """Separates `numbers` from all other nodes: silently, as a cable does. The bridge drops what goes between."""
        self.heal()
        self.drop(self.between(numbers))

    def between(self, numbers):
        """The directed paths between `numbers` and all other nodes."""
        others = [n for n in range(1, self.count + 1) if n not in numbers]
        return [path for one in numbers for other in others for path in ((one, other), (other, one))]

    def cut_one_way(self, source, target):
        """Drops what `source` sends to `target`; the other direction stays."""
        self.drop([(source, target)])

    def drop(self, paths):
        """Drops what goes along directed paths, beside what is dropped already."""
        self._dropped += paths
        self._apply()

    def undrop(self, paths):
        """Ends one `drop` of these paths. A path that was dropped twice stays so."""
        for path in paths:
            self._dropped.remove(path)
        self._apply()

    def heal(self):
        """Ends every cut."""
        self._dropped = []
        self._apply()

    def _apply(self):
        """All at once: there is no moment at which an old cut is gone and a new one not there."""
        drops = "\n".join(f'iifname "n{source}" oifname "n{target}" drop' for source, target in sorted(set(self._dropped)))
        rules = f"""
            flush ruleset
            table bridge cut {{
                chain forward {{
                    type filter hook forward priority 0; policy accept;
                    {drops}
                }}
            }}
        """
        nft(self.hub, rules)

    def slow(self, number, kilobits):
        """Lets a node send and receive so many kilobits a second and no more."""
        shape = ["tbf", "rate", f"{kilobits}kbit", "burst", "64kb", "latency", "300ms"]
        for space, device in self._ends(number):
            run("tc", "-n", space, "qdisc", "replace", "dev", device, "root", *shape)

    def fast(self, number):
        """Ends `slow`."""
        for space, device in self._ends(number):
            run("tc", "-n", space, "qdisc", "delete", "dev", device, "root")

    def _ends(self, number):
        return (self.hub, f"n{number}"), (self.namespace(number), "eth0")

    def reset(self, number, seconds=0.2):
        """Ends a node's TCP connections to other nodes: for a moment every packet that reaches it is answered with a reset."""
        space = self.namespace(number)
        rules = """
            table inet resets {
                chain input {
                    type filter hook input priority 0;
                    iifname "eth0" meta l4proto tcp reject with tcp reset
                }
            }
        """
        nft(space, rules)
        # The time is the fault itself.
        time.sleep(seconds)
        nft(space, "flush ruleset")

    def close(self):
        remove_own()


def entering(namespace):
    """A function that moves the calling process into a network namespace."""

    def enter():
        with open(f"/run/netns/{namespace}", "rb") as handle:
            if _libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {namespace}")

    return enter


@contextlib.contextmanager
def inside(namespace):
    """Moves this thread into a network namespace for a while: for clients that live in this process."""
    with open("/proc/thread-self/ns/net", "rb") as home:
        entering(namespace)()
        try:
            yield
        finally:
            if _libc.setns(home.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns back")


def remove_own():
    """Deletes this process's namespaces, and what is in them."""
    for path in Path("/run/netns").glob(f"{prefix()}*"):
        # Digits would make it another process's.
        if not path.name[len(prefix())].isdigit():
            subprocess.run(["ip", "netns", "delete", path.name], stderr=subprocess.DEVNULL)


def run(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def nft(namespace, rules):
    subprocess.run(["ip", "netns", "exec", namespace, "nft", "-f", "-"], input=rules, text=True, check=True)
