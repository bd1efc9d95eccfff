"""Deaths at every moment that matters: before and after each kind of write, sync and rename that a daemon makes.

What a daemon promises it has made durable before; so every commit point is an operation on a file, and the disk that fails on demand can
kill the daemon there, exactly, with nothing built into the daemon for it.
"""

import random

import suite
from cluster import Cluster
from durable import DurableOracle
from stories_disks import acknowledged_more, attach, settled
from suite import check, story, wait_for

BYTES = 16 << 20
# What is killed at: a kind of operation, and a part of the file's path. Data; the replica's metadata; the Raft log; how far it is
# committed; files that are replaced as a whole.
POINTS = [
    ("write", "pool/data_00"),
    ("sync", "pool/data_00"),
    ("write", "_meta"),
    ("sync", "_meta"),
    ("write", "state/control.redb"),
    ("sync", "state/control.redb"),
    ("write", "state/control.committed"),
    ("name", "state/"),
    ("name", "pool/"),
]


@story(minutes=3)
def a_founder_loses_power_at_once(scene):
    """A cluster's first node loses power just after the others have joined, before anything but its log is on its disk. It must know the
    others again, and they it, without an operator."""
    cluster = scene.closes(Cluster(scene, 3, pool="faulty")).form()
    cluster.add_volume("data", "16MiB", 3, "--quorum", "majority")
    cluster[1].kill()
    cluster[1].pool.disk.lose_power()
    cluster[1].start()
    cluster.wait_online(cluster[1], 30)
    cluster.wait_up_to_date("data", 3, through=cluster[1])


@story(minutes=8)
def the_primary_is_killed_at_commit_points(scene):
    """While clients write, replicas come and go and volumes are made: the primary is killed before or after each kind of operation that
    it makes on its disk, and loses power with it, too. Everything that was flushed is there; everything becomes well again."""
    killed_at_commit_points(scene, victim=1)


@story(minutes=8)
def a_secondary_is_killed_at_commit_points(scene):
    """The same with a secondary. Nothing that was acknowledged is lost: the primary lives."""
    killed_at_commit_points(scene, victim=2)


def killed_at_commit_points(scene, victim):
    # In a short run every third, other ones for the secondary than for the primary.
    points = POINTS if suite.long else POINTS[victim::3]
    cluster = scene.closes(Cluster(scene, 3, pool="faulty")).form()
    cluster.add_volume("data", "16MiB", 3, "--quorum", "majority")
    known = DurableOracle(BYTES // 512, seed=50 + victim, block=512)
    dice = random.Random(50 + victim)
    hit = set()
    for number, (what, part) in enumerate(points):
        when, count = ("before", "after")[number % 2], dice.choice([1, 2, 5])
        node = cluster[victim]
        client = attach(known, cluster[1], flush_every=10, trims=0.1)
        wait_for("writes", acknowledged_more(known, 20), 30)
        node.pool.disk.kill(node.pid, when, what, part, count)
        if busy_until_dead(cluster, node, client, number):
            hit.add((what, part))
        scene.note(f"{node} killed {when} {what} {count} of {part}: {'yes' if not node.running else 'it did not get there'}")
        node.pool.disk.well()
        node.kill()
        client.end()
        node.pool.disk.lose_power(number)
        known.power_lost()
        node.start()
        settled(cluster, known)
        remove_extra(cluster, number)
    check(len(hit) >= len(points) - 3, "most points were met", sorted(set(points) - hit))


def busy_until_dead(cluster, node, client, number):
    """What makes a daemon write everything that it ever writes; whether the node died of it."""
    other = cluster[3]
    try:
        other.run("add-volume", f"extra{number}", "16MiB", "--deploy", "3", "--wait", "5", seconds=20)
        other.restart()
        client.end(10)
        cluster[1].run("status", seconds=5)
        wait_for("it is dead", lambda: not node.running, 3)
    except (AssertionError, OSError):
        pass
    return not node.running


def remove_extra(cluster, number):
    def removed():
        gone = cluster[3].run("remove-resource", f"extra{number}", "-q", seconds=20)
        names = [r["name"] for r in cluster[3].json("status")["resources"]]
        check(f"extra{number}" not in names, "the other resource is removed", gone.stderr)
        return True

    wait_for("what was made half is removed", removed, 30)
