"""Places for nodes: addresses on the loopback, or network namespaces joined by a bridge, which can be cut."""

import contextlib
import ctypes
import os
import subprocess
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
        others = [n for n in range(1, self.count + 1) if n not in numbers]
        self.heal()
        for one in numbers:
            for other in others:
                self._drop(one, other)
                self._drop(other, one)

    def cut_one_way(self, source, target):
        """Drops what `source` sends to `target`; the other direction stays."""
        self._drop(source, target)

    def heal(self):
        """Ends every cut."""
        run("ip", "netns", "exec", self.hub, "nft", "flush", "ruleset")

    def _drop(self, source, target):
        rules = f"""
            table bridge cut {{
                chain forward {{
                    type filter hook forward priority 0; policy accept;
                    iifname "n{source}" oifname "n{target}" drop
                }}
            }}
        """
        subprocess.run(["ip", "netns", "exec", self.hub, "nft", "-f", "-"], input=rules, text=True, check=True)

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
