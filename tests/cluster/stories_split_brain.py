"""Two nodes that decide alone (`quorum=off`) go on without each other, and somebody chooses whose data is kept."""

import os
import subprocess

import clients
from cluster import Cluster
from suite import check, story, wait_for

MIB = 1 << 20


@story(minutes=4)
def one_side_is_discarded_and_only_the_difference_is_sent(scene):
    """Both sides of a cut write. Joined again, each keeps what it has and says split-brain. The side that an operator discards gets what
    either has written since, and no more: the interface counts what it receives."""
    cluster = split(scene, "256MiB")
    one, two = cluster.nodes
    ours, theirs = os.urandom(3 * MIB), os.urandom(2 * MIB)
    both_write(cluster, ours, theirs)
    one.refuses("discard-my-data", "-q", "web", "node9", naming=["node9"])
    handle = clients.connect(one.uri("web"))
    one.refuses("-q", "discard-my-data", "web", naming=["in use"])
    before = received(cluster, 2)
    one.blkrep("-q", "discard-my-data", "web", two.name)
    cluster.wait_up_to_date("web", 2)
    got = received(cluster, 2) - before
    # What only the discarded side has written are zeroes on the other one: they take no place on the wire.
    check(3 * MIB < got < 5 * MIB, "what either side wrote is sent, not the volume", got)
    check(handle.pread(3 * MIB, 64 * MIB) == ours, "who uses the side that is kept goes on")
    handle.shutdown()
    cluster.check_identical("web")
    reader = clients.connect(two.uri("web"))
    check(reader.pread(3 * MIB, 64 * MIB) == ours, "the other node has it, too")
    check(reader.pread(2 * MIB, 128 * MIB) == bytes(2 * MIB), "and nothing of what was discarded")
    reader.shutdown()
    two.refuses("-q", "discard-my-data", "web", naming=["no split brain"])


def split(scene, size, *options):
    """Two nodes with a volume that decide alone."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("web", size, 2, "--quorum", "off", *options)
    return cluster


def both_write(cluster, ours, theirs):
    """Each node writes on its own; then the cable is back, and nobody is merged."""
    one, two = cluster.nodes
    cluster.network.cut(1)
    for node, data, at in ((one, ours, 64 * MIB), (two, theirs, 128 * MIB)):
        wait_for(f"{node} goes on alone", lambda node=node, data=data, at=at: write(node, data, at), 60)
    cluster.network.heal()
    wait_for("the split brain is shown", lambda: is_split(cluster), 60)


def write(node, data, at):
    handle = clients.connect(node.uri("web"))
    handle.pwrite(data, at)
    handle.flush()
    handle.shutdown()
    return True


def is_split(cluster):
    told = cluster.replicas("web")
    check(any(peer["connection"] == "split-brain" for r in told.values() for peer in r["peers"]), "split brain", told)
    return True


def received(cluster, number):
    """Bytes that a node's interface has received."""
    name = cluster.network.namespace(number)
    told = subprocess.run(["ip", "netns", "exec", name, "cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(":") for line in told.splitlines() if ":" in line]
    return sum(int(counts.split()[0]) for interface, counts in lines if interface.strip() != "lo")
