"""What happens when machines, processes and cables fail: what was acknowledged is there, and replicas end up equal."""

import subprocess
import time

import clients
import oracle
from cluster import Cluster
from suite import check, story, wait_for

MIB = 1 << 20
SIZE = 64 * MIB
BLOCKS = SIZE // oracle.BLOCK


@story(minutes=4)
def the_primary_is_killed_on_file_pools(scene):
    """SIGKILL to the primary in the middle of writes: the other node serves everything that was acknowledged and goes on alone;
    the killed one comes back, is resynced, and both are equal."""
    primary_is_killed(scene, "file")


@story(minutes=4)
def the_primary_is_killed_on_volume_groups(scene):
    """The same on LVM."""
    primary_is_killed(scene, "lvm")


def primary_is_killed(scene, pool):
    cluster, known = pair(scene, pool, seed=21)
    one, two = cluster.nodes
    client = busy(known, one)
    one.kill()
    killed = time.monotonic()
    client.wait()
    check(client.error is not None, "the client noticed")
    client = attach(known, two)
    wait_for("a write on the survivor", acknowledged_more(known, 1), 30)
    scene.note(f"{time.monotonic() - killed:.2f} s from the kill to the first write on the survivor")
    wait_for("many writes on the survivor", acknowledged_more(known, 500), 30)
    client.stop()
    oracle.verify(known, two.uri("data"))
    client = attach(known, two)
    one.start()
    cluster.wait_up_to_date("data", 2)
    client.stop()
    settled(cluster, known)


@story(minutes=4)
def the_secondary_is_killed(scene):
    """SIGKILL to the secondary: the client sees no error, the status tells of the loss, and the node that comes back is brought up
    to date while writes go on."""
    cluster, known = pair(scene, "file", seed=22)
    one, two = cluster.nodes
    client = busy(known, one)
    two.kill()
    wait_for("writes without the secondary", acknowledged_more(known, 500), 30)
    check(client.running and client.failed == 0, "the client saw no error", client.error)
    scene.note(f"the longest pause of the client was {client.stall * 1000:.0f} ms")
    wait_for("the loss is told", lambda: not cluster.replicas("data")["node2"]["online"], 20)
    wait_for("list-resources tells of it", lambda: "degraded" in one.blkrep("list-resources").lower(), 20)
    two.start()
    cluster.wait_up_to_date("data", 2)
    wait_for("writes on both", acknowledged_more(known, 300), 30)
    client.stop()
    settled(cluster, known)


@story(minutes=4)
def the_secondary_is_frozen(scene):
    """SIGSTOP: the secondary neither answers nor goes away. It is dropped when its time is up, and resynced when it thaws."""
    cluster, known = pair(scene, "file", seed=23)
    one, two = cluster.nodes
    client = busy(known, one)
    two.freeze()
    wait_for("writes without the secondary", acknowledged_more(known, 500), 30)
    check(client.running and client.failed == 0, "the client saw no error", client.error)
    scene.note(f"the longest pause of the client was {client.stall * 1000:.0f} ms")
    two.thaw()
    cluster.wait_up_to_date("data", 2)
    client.stop()
    settled(cluster, known)


@story(minutes=4)
def both_are_restarted(scene):
    """A clean restart of one after the other, then of both at once: all is there, nothing has to be resynced by hand."""
    cluster, known = pair(scene, "file", seed=24)
    one, two = cluster.nodes
    busy(known, one).stop()
    for node in (two, one):
        node.restart()
        cluster.wait_up_to_date("data", 2)
    one.stop()
    two.stop()
    two.start()
    one.start()
    cluster.wait_up_to_date("data", 2)
    settled(cluster, known)


@story(minutes=4)
def both_are_killed_at_once(scene):
    """SIGKILL to both nodes in the middle of writes: what was acknowledged is there, and the two are made equal where the last
    writes had reached only one."""
    cluster, known = pair(scene, "file", seed=25)
    for one in (1, 2, 1):
        client = busy(known, cluster[one])
        for node in cluster.nodes:
            node.kill()
        client.wait()
        for node in cluster.nodes:
            node.start(wait=False)
        for node in cluster.nodes:
            wait_for(f"{node} answers", lambda: node.json("status"), 30)
        cluster.wait_up_to_date("data", 2)
        settled(cluster, known)


@story(minutes=5)
def the_target_is_killed_during_its_resync(scene):
    """The node that is being brought up to date is killed again and again; in the end both are equal."""
    cluster, known = pair(scene, "file", seed=26)
    one, two = cluster.nodes
    for _ in range(3):
        two.kill()
        oracle.fill(known, one.uri("data"), share=0.9)
        two.start(wait=False)
        wait_for("the resync is under way, or done", lambda: under_way_or_done(cluster), 30)
    two.kill()
    client = busy(known, one)
    two.start()
    cluster.wait_up_to_date("data", 2)
    client.stop()
    settled(cluster, known)


@story(minutes=4, idle=True)
def an_old_copy_does_not_serve(scene):
    """One node is stopped, the other writes and is stopped too; the first comes up alone. It must not serve its old data as if
    they were the newest, until the other one is back."""
    cluster, known = pair(scene, "file", seed=27, options=("--quorum", "off"))
    one, two = cluster.nodes
    busy(known, two).stop()
    one.stop()
    wait_for("the other goes on alone", lambda: oracle.verify(known, two.uri("data")), 30)
    busy(known, two).stop()
    two.stop()
    one.start()
    check(not serves(one), "the old copy is served")
    two.start()
    cluster.wait_up_to_date("data", 2)
    settled(cluster, known)


@story(minutes=5)
def a_majority_goes_on_and_a_minority_waits(scene):
    """Three nodes, three replicas, quorum by majority. The primary is cut off: it must complete nothing more, while the other two
    elect a new one and go on. When the cable is back, the old one follows and all three are equal."""
    cluster, known = trio(scene, seed=28)
    one, two, three = cluster.nodes
    client = busy(known, one)
    cluster.network.cut(1)
    # Writes that were under way may still complete; after the peer time-out none may.
    wait_for("the minority stands still", lambda: stands_still(known, seconds=3), 30)
    attached = attach(known, two)
    wait_for("the majority goes on", acknowledged_more(known, 500), 40)
    attached.stop()
    cluster.network.heal()
    client.end(seconds=60)
    cluster.wait_up_to_date("data", 3, through=two)
    settled(cluster, known)


@story(minutes=5)
def without_a_majority_writes_wait(scene):
    """Two of three nodes are killed: the third completes nothing. When one is back, what was held is completed: the client sees a
    pause, no error."""
    cluster, known = trio(scene, seed=29)
    one, two, three = cluster.nodes
    client = busy(known, one)
    two.kill()
    wait_for("two of three go on", acknowledged_more(known, 300), 30)
    three.kill()
    wait_for("one of three stands still", lambda: stands_still(known, seconds=3), 30)
    check(client.running, "the client's connection is kept", client.error)
    three.start()
    wait_for("two of three go on again", acknowledged_more(known, 300), 60)
    check(client.failed == 0, "the client saw no error", client.last_failure)
    two.start()
    cluster.wait_up_to_date("data", 3)
    client.stop()
    settled(cluster, known)


@story(minutes=5, idle=True)
def without_a_majority_io_fails_where_that_is_asked_for(scene):
    """Two of three nodes are killed, and the volume is to fail I/O then: after the time of a fail-over the client gets errors, `status` says
    why, and when one node is back the same client is served again. A fail-over itself gives it none."""
    cluster, known = trio(scene, 31, "--on-no-quorum", "io-error")
    one, two, three = cluster.nodes
    client = busy(known, one)
    two.kill()
    wait_for("two of three go on", acknowledged_more(known, 300), 30)
    check(client.failed == 0, "a replica that is lost is no error", client.last_failure)
    began = time.monotonic()
    three.kill()
    wait_for("the client gets errors", lambda: client.failed > 0, 30)
    scene.note(f"the first error came after {time.monotonic() - began:.1f} s")
    check(client.running, "its connection is kept", client.error)
    wait_for("status tells why", lambda: "I/O fails until there is" in one.blkrep("status", "data"), 10)
    three.start()
    wait_for("two of three go on again", acknowledged_more(known, 300), 60)
    two.start()
    cluster.wait_up_to_date("data", 3)
    client.stop()
    settled(cluster, known)


@story(minutes=6)
def every_node_is_killed_in_turn(scene):
    """Three nodes; every few hundred writes the primary is killed and the client goes to the next node. Killed nodes come back
    at once."""
    cluster, known = trio(scene, seed=30)
    for turn in range(6):
        node = cluster.nodes[turn % 3]
        client = attach(known, node)
        wait_for("writes", acknowledged_more(known, 300), 60)
        node.kill()
        client.wait()
        node.start()
        wait_for("two replicas at least", lambda: usable(cluster) >= 2, 60)
    cluster.wait_up_to_date("data", 3, seconds=90)
    settled(cluster, known)


def pair(scene, pool, seed, options=()):
    """Two nodes with a replica each of `data`, half of it written."""
    return filled(Cluster(scene, 2, pool=pool), scene, 2, seed, options)


def trio(scene, seed, *options):
    return filled(Cluster(scene, 3), scene, 3, seed, options)


def filled(cluster, scene, replicas, seed, options):
    scene.closes(cluster)
    cluster.form()
    cluster.add_volume("data", "64MiB", replicas, *options)
    known = oracle.Oracle(BLOCKS, seed)
    oracle.fill(known, cluster[1].uri("data"), share=0.5)
    return cluster, known


def attach(known, node, seconds=30):
    """A client on a node, as soon as it lets one in."""

    def connected():
        # Asked from outside first: a connection that hangs must not hang this process.
        clients.output(["nbdinfo", "--size", node.uri("data")], seconds=5)
        return oracle.Client(known, node.uri("data"))

    def attempt():
        try:
            return connected()
        except (subprocess.TimeoutExpired, oracle.nbd.Error) as error:
            raise RuntimeError(error) from error

    return wait_for(f"{node} lets a client in", attempt, seconds).start()


def busy(known, node):
    """A client that is in the middle of writing."""
    client = attach(known, node)
    wait_for("writes", acknowledged_more(known, 300), 30)
    return client


def acknowledged_more(known, count):
    goal = known.acknowledged + count
    return lambda: known.acknowledged >= goal


def stands_still(known, seconds):
    """Whether nothing is acknowledged for some time. The time is what is asked about: that nothing happens cannot be waited for."""
    before = known.acknowledged
    time.sleep(seconds)
    return known.acknowledged == before


def under_way_or_done(cluster):
    replica = cluster.replicas("data")["node2"]
    return replica["online"] and replica["disk"] in ("Inconsistent", "UpToDate")


def usable(cluster):
    return sum(r["online"] and r["disk"] == "UpToDate" for r in cluster.replicas("data").values())


def serves(node, seconds=6):
    """Whether a node lets a client read."""
    try:
        clients.output(["nbdcopy", node.uri("data"), "null:"], seconds=seconds)
    except (clients.ClientFailed, subprocess.TimeoutExpired):
        return False
    return True


def settled(cluster, known):
    """All replicas are up to date, every node serves what is legal, and the copies are the same bytes."""
    count = len(cluster.replicas("data"))
    for node in cluster.nodes:
        wait_for(f"{node} serves", lambda: oracle.verify(known, node.uri("data")), 30)
    cluster.wait_up_to_date("data", count)
    wait_for("nobody is primary", lambda: cluster.resource("data")["primary"] is None, 20)
    cluster.check_identical("data")
