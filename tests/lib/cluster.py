"""Clusters of real daemons: each node in a network namespace of its own (or all on loopback addresses), with its own directory.

    cluster = scene.closes(Cluster(scene, 2))
    cluster.form()
    cluster.add_volume("web", "64MiB", replicas=2)
    client = oracle.Client(known, cluster[1].uri("web"))
    cluster[1].kill()
"""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
from pathlib import Path

import clients
import network
from faultfs import FaultDisk
from pools import FilePool, LvmPool, SmallFilePool, differences
from processes import end_all, is_alive
from suite import check, wait_for

BINARY = Path(os.environ.get("BLKREP", Path(__file__).resolve().parents[2] / "target" / "release" / "blkrep"))
POOL_BYTES = 1 << 30


class Refused(RuntimeError):
    """A command of blkrep ended with an error."""

    def __init__(self, done):
        super().__init__(f"{shlex.join(map(str, done.args))}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        self.status = done.returncode
        self.said = done.stderr


class Node:
    """A node: a directory, an address, a pool, and a daemon that can be ended in several ways."""

    def __init__(self, number, folder, address, enter, pool):
        self.number = number
        self.name = f"node{number}"
        self.folder = Path(folder)
        self.root = self.folder / "root"
        self.address = address
        self.enter = enter
        self.pool = pool
        # Only a loopback address may be listened on without TLS; in a namespace of its own each node has 127.0.0.1.
        self.nbd_address = address if address.startswith("127.") else "127.0.0.1"
        self.pid = None
        self.root.mkdir(parents=True, exist_ok=True)

    def __repr__(self):
        return self.name

    def run(self, *arguments, seconds=60):
        """Runs `blkrep` on the node and returns how it ended, whatever it was."""
        command = [BINARY, "--root", self.root, *map(str, arguments)]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, preexec_fn=self.enter, cwd=self.folder
        )

    def blkrep(self, *arguments, seconds=60):
        """Runs `blkrep` on the node and returns its standard output; raises `Refused` when it fails."""
        done = self.run(*arguments, seconds=seconds)
        if done.returncode != 0:
            raise Refused(done)
        return done.stdout

    def json(self, *arguments, seconds=60):
        """What a listing says, as a value."""
        return json.loads(self.blkrep(*arguments, "--output", "json", seconds=seconds))

    def refuses(self, *arguments, naming=()):
        """Runs a command that must fail: a status that is not 0, a message of one sentence or more on standard error, no panic, no
        backtrace. `naming` are words that the message must have."""
        done = self.run(*arguments)
        told = f"`blkrep {shlex.join(map(str, arguments))}` said {done.stderr!r}"
        check(done.returncode in (1, 2, 3, 4), "exit status of a refusal", done.returncode, told)
        check(len(done.stderr.strip()) > 10, "a refusal explains itself", told)
        check("panicked" not in done.stderr and "RUST_BACKTRACE" not in done.stderr, "a refusal is no crash", told)
        for word in naming:
            check(word.lower() in done.stderr.lower(), f"the message names {word}", told)
        return done.stderr

    def init(self, *options):
        """Makes the node the first of a new cluster, and makes sure of its daemon."""
        self.blkrep("init", self.address, "-q", "--name", self.name, *self.local, *options)
        self.adopt()

    def join(self, command, *options):
        """Runs the join command that `add-node` printed, and makes sure of the daemon."""
        self.blkrep(*command, "-q", *self.local, *options, seconds=90)
        self.adopt()

    @property
    def local(self):
        """The options of `init` and `join` that place the node."""
        return ["--pool", self.pool.option, "--nbd", f"{self.nbd_address}:10809"]

    def adopt(self):
        """Finds the daemon that `init` or `join` has started, or starts it."""
        try:
            self.pid = self._answering()
        except OSError:
            self.start()

    def start(self, wait=True):
        """Starts the daemon. Returns when it answers."""
        with open(self.folder / "daemon.log", "ab") as log:
            command = [BINARY, "--root", self.root, "daemon"]
            daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=self.enter, cwd=self.folder)
        self.pid = daemon.pid
        if wait:
            wait_for(f"the daemon of {self} answers", lambda: self._answering() == self.pid, 20)

    def kill(self):
        """SIGKILL: the process is gone, what it wrote stays."""
        end_all([self.pid])

    def stop(self, seconds=30):
        """A clean end."""
        self.ask_to_stop()
        self.wait_ended(seconds)

    def ask_to_stop(self):
        os.kill(self.pid, signal.SIGTERM)

    def wait_ended(self, seconds=30):
        """Waits for a clean end that was asked for."""
        wait_for(f"the daemon of {self} ends", lambda: not is_alive(self.pid), seconds)
        end_all([self.pid])

    def restart(self):
        self.stop()
        self.start()

    def freeze(self):
        """SIGSTOP: the process neither answers nor closes its connections."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self):
        """Freezes the daemon for a while."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    @property
    def running(self):
        return self.pid is not None and is_alive(self.pid)

    def uri(self, export):
        """A volume on the node's unix socket."""
        return clients.unix_uri(self.root / "run/blkrep/nbd.sock", export)

    def tcp_uri(self, export):
        """The same over TCP, for a client on the node."""
        return clients.tcp_uri(self.nbd_address, export)

    def _answering(self):
        """The pid of the process that listens on the API's socket. Raises OSError if there is none."""
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(2)
            one.connect(str(self.root / "run/blkrep/api.sock"))
            return struct.unpack("iII", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


class Cluster:
    """N nodes, not yet a cluster; `form` makes them one. Nodes are counted from 1: `cluster[1]`.

    Each is in a network namespace of its own; with `enter` all are in that one, on loopback addresses. `pool` is file, lvm, or faulty:
    files on a disk of the node's own that fails on demand, `node.pool.disk`."""

    def __init__(self, scene, count, *, pool="file", pool_bytes=POOL_BYTES, folder=None, enter=None):
        self.scene = scene
        self.folder = folder or scene.folder
        self.enter = enter
        self.network = None if enter else scene.closes(network.Network(count))
        self.nodes = [self._node(number, pool, pool_bytes) for number in range(1, count + 1)]

    def _node(self, number, pool, pool_bytes):
        folder = self.folder / f"n{number}"
        if pool == "faulty":
            disk = self.scene.closes(FaultDisk(folder))
            storage = FilePool(disk.path / "pool")
            storage.disk = disk
            # What the daemon itself remembers is on the same disk.
            (disk.path / "state").mkdir()
            (folder / "root/var/lib").mkdir(parents=True)
            (folder / "root/var/lib/blkrep").symlink_to(disk.path / "state")
        elif pool == "lvm":
            storage = self.scene.closes(LvmPool(folder, f"n{number}", pool_bytes))
        elif pool in ("small", "small-thin"):
            storage = self.scene.closes(SmallFilePool(folder, pool_bytes, thin=pool == "small-thin"))
        else:
            storage = FilePool(folder / "pool")
        if self.network:
            return Node(number, folder, self.network.address(number), self.network.enter(number), storage)
        return Node(number, folder, network.loopback_address(number), self.enter, storage)

    def __getitem__(self, number):
        return self.nodes[number - 1]

    def form(self, *options):
        """`init` on the first node, `add-node` and `join` for the others. Returns when every node sees all the others online."""
        first = self.nodes[0]
        first.init(*options)
        for node in self.nodes[1:]:
            node.join(self.ticket(node))
        for node in self.nodes:
            self.wait_online(node)
        return self

    def ticket(self, node, through=None):
        """Announces a node; returns the arguments of the join command that is printed."""
        return join_command((through or self.nodes[0]).blkrep("add-node", "--no-autojoin", node.name, node.address))

    def wait_online(self, seen_by, seconds=30):
        """Waits until a node sees every running node online."""
        expected = {node.name for node in self.nodes if node.running}

        def all_online():
            seen = seen_by.json("status")["nodes"]
            return expected <= {node["name"] for node in seen if node["online"]}

        wait_for(f"{seen_by} sees {sorted(expected)} online", all_online, seconds)

    def add_volume(self, resource, size, replicas, *options, through=None):
        """Makes a resource with a volume, and waits until every replica is up to date."""
        (through or self.nodes[0]).blkrep("add-volume", resource, size, "--deploy", replicas, *options)
        self.wait_up_to_date(resource, replicas, through=through)

    def resource(self, name, through=None):
        """A resource's part of the status, as a running node tells it."""
        node = through or next(node for node in self.nodes if node.running)
        return next(r for r in node.json("status", name)["resources"] if r["name"] == name)

    def replicas(self, name, through=None):
        """A resource's replicas that are there: node name to its part of the status."""
        return {r["node"]: r for r in self.resource(name, through)["replicas"] if not r["diskless"]}

    def wait_up_to_date(self, name, count, seconds=60, through=None):
        """Waits until `count` replicas are online, UpToDate and in sync with each other."""

        def settled():
            replicas = self.replicas(name, through)
            good = [node for node, r in replicas.items() if r["online"] and r["disk"] == "UpToDate"]
            behind = [p for r in replicas.values() if r["online"] for p in r["peers"] if p["node"] in good and p["out_of_sync"]]
            unmet = [p for r in replicas.values() for p in r["peers"] if p["node"] in good and p["connection"] != "connected"]
            check(len(good) == count and not behind and not unmet, "replicas", json.dumps(replicas))
            return True

        wait_for(f"{count} replicas of {name} are up to date", settled, seconds)

    def wait_primary(self, name, seconds=30, through=None):
        return wait_for(f"{name} has a primary", lambda: self.resource(name, through)["primary"], seconds)

    def node_named(self, name):
        return next(node for node in self.nodes if node.name == name)

    def check_identical(self, resource, volume=0):
        """Compares every two replicas of a volume, byte for byte, behind the daemons' backs. Call it when nothing is written."""
        size = next(v["bytes"] for v in self.resource(resource)["volumes"] if v["volume"] == volume)
        nodes = [self.node_named(name) for name in self.replicas(resource)]
        check(len(nodes) > 1, "there is something to compare", nodes)
        for other in nodes[1:]:
            differing = differences(nodes[0].pool, other.pool, f"{resource}_{volume:02}", size)
            check(not differing, f"{nodes[0]} and {other} differ in {len(differing)} blocks of {resource}/{volume}", differing[:20])

    def model(self):
        """What the cluster has agreed on, for "nothing was changed": nodes, resources and where they are, without what moves by
        itself."""
        told = next(node for node in self.nodes if node.running).json("status")
        return {
            "nodes": [(n["name"], n["id"], n["address"]) for n in told["nodes"]],
            "resources": [
                (r["name"], r["id"], r["options"], r["removing"], r["volumes"], sorted((a["node"], a["diskless"]) for a in r["replicas"]))
                for r in told["resources"]
            ],
            "pools": [node.pool.volumes() for node in self.nodes],
        }

    def close(self):
        end_all([node.pid for node in self.nodes if node.running])


def join_command(printed):
    """The arguments of the `blkrep join …` that a command has printed."""
    lines = [re.search(r"(?:^|\s)blkrep\s+(.*\bjoin\b.*)$", line) for line in printed.splitlines()]
    found = [match[1] for match in lines if match]
    check(len(found) == 1, "one join command is printed", printed)
    return shlex.split(found[0])
