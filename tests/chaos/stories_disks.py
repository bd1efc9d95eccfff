"""Disks that fail, fill up, hang, and lose what was not synced."""

import errno

import oracle
from cluster import Cluster
from durable import DurableOracle
from faultfs import FaultDisk
from nbdkit import Nbdkit
from round import verified
from suite import check, story, wait_for

BYTES = 64 << 20
BLOCKS = BYTES // oracle.BLOCK


@story(minutes=2)
def a_server_that_does_not_sync_is_found(scene):
    """The tools, tested: nbdkit loses power on such a disk. If it syncs when it is asked to, all that was flushed is there; if it only
    says so, that is found."""
    disk = scene.closes(FaultDisk(scene.folder))
    for honest, filters in ((True, []), (False, ["--filter=cache"])):
        with open(disk.path / "image", "wb") as image:
            image.truncate(16 << 20)
        options = [] if honest else ["cache=unsafe"]
        server = scene.closes(Nbdkit(scene.folder, *filters, "file", disk.path / "image", *options))
        known = DurableOracle((16 << 20) // 512, seed=30 + honest, block=512)
        oracle.fill(known, server.uri, share=0.5)
        client = oracle.Client(known, server.uri, flush_every=20).start()
        wait_for("writes", acknowledged_more(known, 400), 30)
        server.kill()
        client.wait()
        disk.lose_power(seed=3)
        known.power_lost()
        server.start()
        try:
            oracle.verify(known, server.uri)
            found = False
        except oracle.Lost:
            found = True
        check(found != honest, "the loss is found where there is one", honest)
        server.kill()


@story(minutes=3)
def power_is_lost_everywhere(scene):
    """Two nodes lose power in the middle of writes, again and again: each disk keeps, at random, part of what was not synced. All that
    was flushed is there afterwards, and the replicas are equal."""
    cluster = faulty(scene, 2)
    # By sectors: what a disk keeps of a block that was under way may be any of them.
    known = DurableOracle(BYTES // 512, seed=31, block=512)
    for turn in range(4):
        node = cluster.nodes[turn % 2]
        client = attach(known, node, flush_every=20)
        wait_for("writes", acknowledged_more(known, 400), 30)
        for other in cluster.nodes:
            other.kill()
        client.wait()
        for other in cluster.nodes:
            other.pool.disk.lose_power(turn * 2 + other.number)
        known.power_lost()
        for other in cluster.nodes:
            other.start(wait=False)
        settled(cluster, known)


@story(minutes=3)
def one_node_loses_power(scene):
    """Only one node loses power, primary or not. Nothing that was acknowledged is lost, flushed or not: the other one has it."""
    cluster = faulty(scene, 2)
    known = oracle.Oracle(BLOCKS, seed=32)
    for turn in range(4):
        victim = cluster.nodes[turn % 2]
        client = attach(known, cluster.nodes[turn // 2], flush_every=1000)
        wait_for("writes", acknowledged_more(known, 400), 30)
        victim.kill()
        victim.pool.disk.lose_power(turn)
        victim.start()
        client.end()
        settled(cluster, known)


@story(minutes=3)
def a_secondary_cannot_write(scene):
    """The secondary's disk refuses writes: its replica is Failed, the client sees no error. After a repair and a restart it is brought up
    to date."""
    disk_fails(scene, [(2, "write", errno.EIO), (2, "write", errno.ENOSPC)])


@story(minutes=3)
def a_primary_cannot_write(scene):
    """The primary's own disk refuses writes: the client notices nothing, its I/O goes to the other replica."""
    disk_fails(scene, [(1, "write", errno.EIO)])


@story(minutes=3)
def a_sync_fails(scene):
    """A flush fails on the secondary, then on the primary: that replica is Failed and not asked again; the client notices nothing."""
    disk_fails(scene, [(2, "sync", errno.EIO), (1, "sync", errno.EIO)])


@story(minutes=3)
def a_primary_cannot_read(scene):
    """The primary's own disk refuses reads: they are served by the other replica."""
    disk_fails(scene, [(1, "read", errno.EIO)])


@story(minutes=3)
def a_disk_hangs(scene):
    """The secondary's disk answers nothing any more: the client goes on without it. When the disk answers again it is brought up to
    date."""
    cluster = faulty(scene, 2)
    known = oracle.Oracle(BLOCKS, seed=34)
    client = attach(known, cluster[1])
    wait_for("writes", acknowledged_more(known, 200), 30)
    cluster[2].pool.disk.hang("pool/")
    wait_for("writes go on", acknowledged_more(known, 500), 60)
    check(client.running and client.failed == 0, "the client saw no error", client.error, client.last_failure)
    scene.note(f"the longest pause of the client was {client.stall:.1f} s")
    cluster[2].pool.disk.well()
    back(cluster[2])
    client.stop()
    settled(cluster, known)


def disk_fails(scene, failures):
    """One failure after the other: (node, what, errno). The client is on the first node, always."""
    cluster = faulty(scene, 2)
    known = oracle.Oracle(BLOCKS, seed=33)
    oracle.fill(known, cluster[1].uri("data"), share=0.3)
    for victim, what, error in failures:
        client = attach(known, cluster[1], reads=0.3)
        wait_for("writes", acknowledged_more(known, 200), 30)
        node = cluster[victim]
        node.pool.disk.fail(what, error, "pool/data_00")
        wait_for("the replica is Failed", lambda: disk_of(node, cluster) in ("Failed", "Diskless"), 30)
        wait_for("writes go on", acknowledged_more(known, 500), 30)
        check(client.running and client.failed == 0, "the client saw no error", client.error, client.last_failure)
        scene.note(f"{what} on {node}: the longest pause of the client was {client.stall * 1000:.0f} ms")
        node.pool.disk.well()
        client.stop()
        back(node)
        settled(cluster, known)
    for each in cluster.nodes:
        each.stop()


def disk_of(node, cluster):
    return cluster.replicas("data", through=node)[node.name]["disk"]


def back(node):
    """The machine was repaired and comes back."""
    node.kill()
    node.start()


def faulty(scene, count):
    cluster = scene.closes(Cluster(scene, count, pool="faulty")).form()
    # What is slow here is the test's disk: nobody shall be given up for it.
    cluster.add_volume("data", "64MiB", count, "--quorum", "off", "--peer-timeout", 10000)
    return cluster


def attach(known, node, **options):
    def attempt():
        try:
            return oracle.Client(known, node.uri("data"), **options)
        except oracle.nbd.Error as error:
            raise RuntimeError(error) from error

    return wait_for(f"{node} lets a client in", attempt, 30).start()


def acknowledged_more(known, count):
    goal = known.acknowledged + count
    return lambda: known.acknowledged >= goal


def settled(cluster, known):
    """Without an operator: up to date, equal, and holding what was promised."""
    for node in cluster.nodes:
        wait_for(f"{node} answers", lambda: node.json("status", seconds=5), 30)
    cluster.wait_up_to_date("data", len(cluster.nodes))
    for node in cluster.nodes:
        wait_for(f"{node} serves", lambda: verified(known, node), 30)
    wait_for("nobody is primary", lambda: cluster.resource("data")["primary"] is None, 20)
    cluster.check_identical("data")
