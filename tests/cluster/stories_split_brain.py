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


@story(minutes=4)
def the_policies_decide_when_the_two_meet(scene):
    """`after-sb-1pri=discard-secondary`: the side that is in use keeps what it has, and the other one takes it, with nobody's help. What
    DRBD can and blkrep cannot is refused by name."""
    cluster = split(scene, "64MiB")
    one, two = cluster.nodes
    one.refuses("set-options", "--common", "--after-sb-1pri", "call-pri-lost-after-sb", naming=["handler"])
    one.refuses("set-options", "--common", "--after-sb-0pri", "discard-node-node1", naming=["discard-my-data"])
    one.blkrep("set-options", "--resource", "web", "--after-sb-1pri", "discard-secondary")
    for node in cluster.nodes:
        wait_for(f"{node} knows the policy", lambda node=node: knows_policy(cluster, node), 30)
    cluster.network.cut(1)
    data = os.urandom(MIB)
    wait_for("one goes on alone", lambda: write(one, os.urandom(MIB), 4 * MIB), 60)
    wait_for("two goes on alone", lambda: write(two, data, 8 * MIB), 60)
    handle = wait_for("two is in use", lambda: clients.connect(two.uri("web")), 30)
    wait_for("each has noticed", lambda: are_apart(cluster), 30)
    cluster.network.heal()
    cluster.wait_up_to_date("web", 2)
    check(handle.pread(MIB, 8 * MIB) == data and handle.pread(MIB, 4 * MIB) == bytes(MIB), "the side in use keeps its data")
    handle.shutdown()
    cluster.check_identical("web")


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


def knows_policy(cluster, node):
    check(cluster.resource("web", node)["options"]["after-sb-1pri"] == "discard-secondary", "the policy has arrived")
    return True


def are_apart(cluster):
    """What each node tells of itself is a moment old: it has to have told of the cut, and one that its client is gone."""
    views = [cluster.replicas("web", node)[node.name] for node in cluster.nodes]
    check(all(peer["connection"] == "connecting" for view in views for peer in view["peers"]), "apart", views)
    check([view["clients"] for view in views] == [0, 1], "one side is in use", views)
    return True


def received(cluster, number):
    """Bytes that a node's interface has received."""
    name = cluster.network.namespace(number)
    told = subprocess.run(["ip", "netns", "exec", name, "cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(":") for line in told.splitlines() if ":" in line]
    return sum(int(counts.split()[0]) for interface, counts in lines if interface.strip() != "lo")
