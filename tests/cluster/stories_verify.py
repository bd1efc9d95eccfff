"""Replicas that are compared while they are used."""

import os

import clients
from cluster import Cluster
from suite import check, story, wait_for

MIB = 1 << 20
BLOCK = 4096


@story(minutes=3)
def what_a_disk_has_changed_by_itself_is_found_and_repaired(scene):
    """Blocks of a replica change behind its daemon's back. `verify` counts them and says where, and changes nothing; `verify --repair`
    makes them what the primary has; a second look finds nothing."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, two = cluster[1], cluster[2]
    one.refuses("verify", "web", naming=["web", "list-resources"])
    cluster.add_volume("web", "32MiB", 2)
    handle = clients.connect(one.uri("web"))
    data = os.urandom(MIB)
    handle.pwrite(data, 8 * MIB)
    handle.flush()
    one.refuses("verify", "web", "--stop", naming=["no verify"])
    check(verified(cluster, "web")["different"] == 0, "the replicas are the same")
    for block in (7, 2048, 2049):
        rot(two, "web_00", block)
    found = verified(cluster, "web")
    told = found["different"], found["first"], found["repaired"]
    check(told == (3, [0, 7 * BLOCK], 0), "three blocks differ, and are left alone", found)
    check("3 blocks" in one.blkrep("status", "web"), "the status says so", one.blkrep("status", "web"))
    found = verified(cluster, "web", "--repair")
    check(found["repaired"] == 3, "of two replicas the primary's counts", found)
    check(handle.pread(MIB, 8 * MIB) == data, "clients read what they wrote")
    check(verified(cluster, "web")["different"] == 0, "the replicas are the same again")
    handle.shutdown()
    cluster.check_identical("web")


@story(minutes=4, idle=True)
def verifies_begin_by_themselves(scene):
    """A schedule has the replicas compared and repaired without anybody; the status tells of it, and another leader keeps to it."""
    cluster = scene.closes(Cluster(scene, 3)).form()
    one, two = cluster[1], cluster[2]
    cluster.add_volume("web", "32MiB", 3)
    one.refuses("verify", "web", "--every", "30s", naming=["60 seconds"])
    one.refuses("verify", "web", "--every", "1d", "--off", naming=["--off"])
    one.refuses("verify", "web", "--every", "often", naming=["24h"])
    one.refuses("verify", "db", "--every", "1d", naming=["db"])
    one.blkrep("verify", "web", "--every", "1m", "--repair")
    check("verified and repaired every 1m" in two.blkrep("status", "web"), "the status tells of it", two.blkrep("status", "web"))
    handle = clients.connect(one.uri("web"))
    data = os.urandom(MIB)
    handle.pwrite(data, 8 * MIB)
    handle.flush()
    handle.shutdown()
    rot(two, "web_00", 2049)

    def leads(through):
        return through.json("status")["leader"]

    old = cluster.node_named(leads(one))
    old.stop()
    rest = next(node for node in cluster.nodes if node.running)
    wait_for("another node leads", lambda: leads(rest) not in (None, old.name), 60)
    old.start()
    # Whose copy counts is the primary's business: not the one that is rotten.
    handle = clients.connect(one.uri("web"))

    def repaired():
        views = [peer["verify"] for r in cluster.replicas("web").values() for peer in r["peers"] if peer.get("verify")]
        check(sum(view["repaired"] for view in views) == 1, "the block is repaired", views)
        return True

    wait_for("the scheduled verify finds it", repaired, 120)
    check("every 1m (last 2" in one.blkrep("status", "web"), "the status tells when it began", one.blkrep("status", "web"))
    handle.shutdown()
    cluster.check_identical("web")
    one.blkrep("verify", "web", "--off")
    check("every" not in one.blkrep("status", "web"), "it is over", one.blkrep("status", "web"))


def verified(cluster, resource, *options):
    """What a verify has found, when it is over."""
    cluster[1].blkrep("verify", resource, *options)

    def over():
        views = [peer["verify"] for r in cluster.replicas(resource).values() for peer in r["peers"] if peer.get("verify")]
        check([view["state"] for view in views] == ["done"], "it is over", views)
        return views[0]

    return wait_for(f"the verify of {resource} ends", over, 60)


def rot(node, volume, block):
    """Changes a block of a file pool's volume, and nobody knows."""
    path = next(path for path in node.folder.rglob(volume) if path.is_file())
    handle = os.open(path, os.O_RDWR | os.O_DSYNC)
    os.pwrite(handle, os.urandom(BLOCK), block * BLOCK)
    os.close(handle)
