"""A thin pool of LVM that fills up under a replica. The story runs inside the machine: `run.py` takes it there."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

import oracle
from cluster import Cluster
from pools import LvmPool, lvm
from suite import check, run_stories, story, wait_for

MIB = 1 << 20
BLOCK = oracle.BLOCK


@story(minutes=4)
def a_thin_pool_of_lvm_fills_up(scene):
    """One node's thin pool is small. The status tells that it fills up while its replica is well; when it is full that replica is given
    up, the client goes on, and the other node has every byte. Nothing new is put there. When the thin pool has grown, and the
    replica is made anew, both are the same."""
    cluster = scene.closes(Cluster(scene, 2, enter=lambda: None)).form()
    one, two = cluster.nodes
    groups = {node: scene.closes(LvmPool(node.folder, f"t{node.number}", 128 * MIB)) for node in cluster.nodes}
    for node, size in ((one, "96M"), (two, "32M")):
        group = groups[node].group
        lvm("lvcreate", "--quiet", "--yes", "--type", "thin-pool", "--zero", "y", "--size", size, "--name", "tp", group)
        lvm("lvchange", "--quiet", "--errorwhenfull", "y", f"{group}/tp")
        node.blkrep("add-pool", "thin", f"lvm-thin:{group}/tp")
    cluster.add_volume("web", "48MiB", 2, "--pool", "thin")
    known = oracle.Oracle(48 * MIB // 4096, seed=3)
    oracle.fill(known, one.uri("web"), blocks=range(0, 28 * MIB // BLOCK))
    wait_for("it is told", lambda: f"pool {groups[two].group}/tp is " in one.blkrep("status"), 60)
    check(cluster.replicas("web")[two.name]["disk"] == "UpToDate", "before it happens")
    oracle.fill(known, one.uri("web"), blocks=range(28 * MIB // BLOCK, 48 * MIB // BLOCK))
    wait_for("the full replica is given up", lambda: cluster.replicas("web")[two.name]["disk"] != "UpToDate", 60)
    oracle.verify(known, one.uri("web"))
    refused = lambda: two.run("assign-resource", "more", two.name, "--pool", "thin").returncode == 1
    one.blkrep("add-volume", "more", "8MiB", "--pool", "thin")
    wait_for("nothing new is put there", refused, 60)
    lvm("lvextend", "--quiet", "--yes", "--size", "+64M", f"{groups[two].group}/tp")
    one.blkrep("unassign-resource", "web", two.name, "-q")
    wait_for("it can be put there again", lambda: two.run("assign-resource", "web", two.name, "--pool", "thin").returncode == 0, 60)
    cluster.wait_up_to_date("web", 2)
    oracle.verify(known, two.uri("web"))


if __name__ == "__main__":
    sys.exit(run_stories())
