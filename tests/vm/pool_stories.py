"""Pools on logical volumes as device-mapper has them. These stories run inside the machine: `run.py` takes them there."""

import hashlib
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

import clients
import oracle
from cluster import Cluster
from pools import LvmPool, lvm
from suite import check, run_stories, story, wait_for

MIB = 1 << 20
SIZE = 4 * MIB


@story(minutes=6)
def snapshots_are_taken_of_logical_volumes_and_they_grow(scene):
    """A volume group on each node is a pool, and a thin pool in it another. Snapshots of volumes in both are read over NBD, restored as
    resources that are the same on both nodes, and rolled back to where the pool can; where it cannot that is said, and how to go on.
    Then the volumes grow while a client writes."""
    cluster = scene.closes(Cluster(scene, 2, enter=lambda: None)).form()
    one, two = cluster.nodes
    groups = {node: scene.closes(LvmPool(node.folder, f"n{node.number}", 320 * MIB)) for node in cluster.nodes}
    for node, group in groups.items():
        lvm("lvcreate", "--quiet", "--yes", "--type", "thin-pool", "--zero", "y", "--size", "96M", "--name", "tp", group.group)
        node.blkrep("add-pool", "thick", group.option)
        node.blkrep("add-pool", "thin", f"lvm-thin:{group.group}/tp")

    def on_disk(node, volume):
        with open(f"/dev/{groups[node].group}/{volume}", "rb") as device:
            return device.read(SIZE)

    holds = {}
    for pool in ("thick", "thin"):
        cluster.add_volume(pool, "16MiB", 2, "--pool", pool, "--peer-tls", "off")
        then, later = (oracle.Oracle(SIZE // 4096, seed=seed) for seed in (1, 2))
        oracle.fill(then, one.uri(pool))
        two.blkrep("add-snapshot", "then", pool)
        oracle.fill(later, one.uri(pool))
        oracle.verify(then, two.uri(f"{pool}@then"))
        oracle.verify(later, one.uri(pool))
        one.blkrep("restore-snapshot", f"{pool}-old", pool, "then")
        cluster.wait_up_to_date(f"{pool}-old", 2)
        oracle.verify(then, one.uri(f"{pool}-old"))
        for name in (pool, f"{pool}-old"):
            wait_for("nobody uses it", lambda: cluster.resource(name)["primary"] is None, 20)
            check(on_disk(one, f"{name}_00") == on_disk(two, f"{name}_00"), "both nodes have the same", name)
        if pool == "thin":
            two.blkrep("rollback-snapshot", pool, "then", "-q")
            wait_for("it is rolled back", lambda: is_there(then, one.uri(pool)), 60)
            cluster.wait_up_to_date(pool, 2)
            holds[pool] = then
        else:
            two.refuses("rollback-snapshot", pool, "then", "-q", naming=["restore-snapshot", "thick"])
            oracle.verify(later, one.uri(pool))
            holds[pool] = later
        one.blkrep("remove-snapshot", pool, "then", "-q")
        left = lambda: [name for group in groups.values() for name in group.volumes() if "then" in name]
        wait_for("nothing is left of the snapshot", lambda: not left(), 30)
    for pool, known in holds.items():
        grows_under_load(cluster, groups, pool, known)


def grows_under_load(cluster, groups, name, known):
    """A volume of 16 MiB grows to 40 MiB while a client writes: none of its writes fails, what is new reads as zeros and can be written
    to its end, and the logical volumes are the same."""
    one, two = cluster.nodes
    writer = oracle.Client(known, one.uri(name), reads=0.1).start()
    begun = known.acknowledged
    wait_for("it writes", lambda: known.acknowledged > begun + 50, 30)
    one.blkrep("resize-volume", name, "40MiB")
    wait_for("a new client sees it", lambda: clients.size(one.uri(name)) == 40 * MIB, 30)
    grown = known.acknowledged
    wait_for("the client goes on", lambda: known.acknowledged > grown + 50, 30)
    writer.stop()
    check(not writer.failed, "no write failed", writer.last_failure)
    handle = clients.connect(two.uri(name))
    new = [(16 * MIB, 4 * MIB), (38 * MIB, 2 * MIB)]
    check(not any(any(handle.pread(length, at)) for at, length in new), "what is new reads as zeros")
    written = os.urandom(2 * MIB)
    for at, length in new:
        handle.pwrite(written * (length // len(written)), at)
    handle.flush()
    handle.shutdown()
    oracle.verify(known, two.uri(name))
    handle = clients.connect(one.uri(name))
    check(all(handle.pread(2 * MIB, at) == written for at, _ in new), "it holds what was written")
    handle.shutdown()
    wait_for("nobody uses it", lambda: cluster.resource(name)["primary"] is None, 20)
    sums = set()
    for group in groups.values():
        with open(f"/dev/{group.group}/{name}_00", "rb") as device:
            content = device.read(40 * MIB)
            check(content[38 * MIB :] == written, "the logical volume has grown and holds it", len(content))
            sums.add(hashlib.sha256(content).hexdigest())
    check(len(sums) == 1, "both nodes have the same", sums)


@story(minutes=4)
def a_logical_volume_becomes_a_resource(scene):
    """A logical volume that was there before, with its data, is adopted; not while somebody has it open."""
    cluster = scene.closes(Cluster(scene, 2, enter=lambda: None)).form()
    one, two = cluster.nodes
    # Without udev a group's directory below /dev stays: names are of one story.
    groups = {node: scene.closes(LvmPool(node.folder, f"a{node.number}", 64 * MIB)) for node in cluster.nodes}
    for node, group in groups.items():
        node.blkrep("add-pool", "thick", group.option)
    group = groups[one].group
    lvm("lvcreate", "--quiet", "--yes", "--size", f"{SIZE}b", "--name", "before", group)
    known = os.urandom(SIZE)
    with open(f"/dev/{group}/before", "r+b") as device:
        one.refuses("adopt", "was", f"{group}/before", naming=["in use"])
        device.write(known)
        os.fsync(device.fileno())
    one.blkrep("adopt", "was", f"{group}/before", "--deploy", "2")
    cluster.wait_up_to_date("was", 2)
    handle = clients.connect(two.uri("was"))
    check(bytes(handle.pread(SIZE, 0)) == known, "it has what the logical volume had")
    handle.shutdown()
    check("was_00" in groups[one].volumes() and "before" not in groups[one].volumes(), "it has a volume's name")


def is_there(known, uri):
    try:
        return oracle.verify(known, uri)
    except (OSError, oracle.Lost, clients.nbd.Error):
        return False


if __name__ == "__main__":
    sys.exit(run_stories())
