"""A round: a cluster, clients that write all the time, the faults of a schedule, and then peace, in which everything must become well
without an operator."""

import random
import time

import oracle
from cluster import Cluster
from durable import DurableOracle
from field import Field
from load import SECTOR, Load
from pools import differences
from suite import check, wait_for

BYTES = 64 << 20
RESOURCE = "data"
# How long everything may take to become well once nothing is broken any more.
CONVERGENCE = 90
POOL_BYTES = 256 << 20


class SplitBrain(Exception):
    """A split brain was found, reported, and allowed by the rules: nothing more can be asked of the round."""


def play(scene, schedule):
    """Plays a schedule. Raises when a promise was broken."""
    scene.note(str(schedule))
    for fault in schedule.faults:
        scene.note(f"  planned {fault}")
    cluster = Cluster(scene, schedule.nodes, pool=schedule.pool, pool_bytes=POOL_BYTES)
    scene.closes(cluster).form()
    options = ["--quorum", schedule.quorum]
    if schedule.quorum == "off":
        # A peer that is only slow because the machine is must not be given up: that may split the brain.
        options += ["--peer-timeout", 2000 if schedule.may_split else 15000]
    cluster.add_volume(RESOURCE, "64MiB", schedule.replicas, *options)
    # Where power may be lost, an acknowledgement alone promises less.
    promises = DurableOracle if schedule.pool == "faulty" else oracle.Oracle
    known = promises(BYTES // SECTOR, schedule.seed, block=SECTOR)
    load = scene.closes(Load(cluster, known, RESOURCE, schedule, scene.note).start())
    field = Field(cluster, load, RESOURCE, random.Random(schedule.seed ^ 0xF1E1D), scene.note)
    try:
        wait_for("the first writes", lambda: load.check() or known.acknowledged > 20, 30)
        storm(schedule, field, load)
        peace(schedule, field, load, scene.note)
    except SplitBrain as found:
        scene.note(str(found))
    check_logs(cluster)


def storm(schedule, field, load):
    """All faults, each at its time."""
    began = time.monotonic()
    events = [(fault.at, field.begin, fault) for fault in schedule.faults] + [(fault.until, field.end, fault) for fault in schedule.faults]
    for at, act, fault in sorted(events, key=lambda event: (event[0], event[2].number)):
        # The schedule's own time: the load runs meanwhile.
        time.sleep(max(0.0, began + at - time.monotonic()))
        field.check()
        load.check()
        act(fault)


def peace(schedule, field, load, note):
    """Nothing is broken any more: writes go on, all replicas become equal, and hold what was promised."""
    field.heal()
    healed = time.monotonic()
    cluster, known = field.cluster, load.known
    before = known.acknowledged
    try:
        wait_for("writes go on", lambda: load.check() or known.acknowledged > before + 50, CONVERGENCE)
        cluster.wait_up_to_date(RESOURCE, schedule.replicas, seconds=CONVERGENCE)
    except AssertionError:
        if schedule.may_split and split(cluster):
            raise SplitBrain("a split brain was reported, as the rules allow here") from None
        raise
    note(f"well again after {time.monotonic() - healed:.1f} s; {known.acknowledged} writes were acknowledged")
    load.end()
    holders = [node for node in cluster.nodes if node.name in cluster.replicas(RESOURCE)]
    for node in holders:
        wait_for(f"{node} serves what was promised", lambda: verified(known, node), 40)
    cluster.wait_up_to_date(RESOURCE, schedule.replicas, seconds=CONVERGENCE)
    wait_for("nobody is primary", lambda: cluster.resource(RESOURCE)["primary"] is None, 30)
    cluster.check_identical(RESOURCE)
    field.check()
    for node in cluster.nodes:
        node.stop()
    identical_at_rest(holders)


def verified(known, node):
    """Reads everything through a node. A refusal may be of the moment."""
    try:
        return oracle.verify(known, node.uri(RESOURCE))
    except oracle.nbd.Error as error:
        raise RuntimeError(error) from error


def identical_at_rest(holders):
    """The stopped nodes' copies, too, are the same."""
    for other in holders[1:]:
        differing = differences(holders[0].pool, other.pool, f"{RESOURCE}_00", BYTES)
        check(not differing, f"after a clean stop {holders[0]} and {other} differ in {len(differing)} blocks", differing[:20])


def split(cluster):
    """Whether a split brain is reported."""
    told = cluster.replicas(RESOURCE).values()
    return any(peer["connection"] == "split-brain" for replica in told for peer in replica["peers"])


def check_logs(cluster):
    """No daemon panicked, not even one that was killed later."""
    for node in cluster.nodes:
        for log in node.folder.rglob("*.log"):
            said = log.read_text(errors="replace")
            check("panicked" not in said, f"{node} panicked", said[max(0, said.find("panicked") - 200) :][:2000])
