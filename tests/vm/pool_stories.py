"""Pools on logical volumes as device-mapper has them. These stories run inside the machine: `run.py` takes them there."""

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
SIZE = 8 * MIB


@story(minutes=6)
def snapshots_are_taken_of_logical_volumes(scene):
    """A volume group on each node is a pool, and a thin pool in it another. Snapshots of volumes in both are read over NBD, restored as
    resources that are the same on both nodes, and rolled back to where the pool can; where it cannot that is said, and how to go on."""
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
        else:
            two.refuses("rollback-snapshot", pool, "then", "-q", naming=["restore-snapshot", "thick"])
            oracle.verify(later, one.uri(pool))
        one.blkrep("remove-snapshot", pool, "then", "-q")
        left = lambda: [name for group in groups.values() for name in group.volumes() if "then" in name]
        wait_for("nothing is left of the snapshot", lambda: not left(), 30)


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
