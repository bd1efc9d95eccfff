"""Replicas on disks that fail and machines that lose power. These stories run inside the machine: `run.py` takes them there."""

import random
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

import clients
from power import Writer, lose_power, nodes_on_mapped_disks
from suite import check, run_stories, story, wait_for


@story(minutes=3)
def power_is_lost_between_any_two_writes(scene):
    """A replica without peers is written and flushed while its disk records every write; then the disk becomes what it would be had
    power been lost in the middle, at the ends of flushes and between them. Each time the replica starts, and has what was flushed."""
    cluster = nodes_on_mapped_disks(scene, 1, [1])
    node = cluster[1]
    node.stop()
    node.pool.record()
    node.start()
    cluster.wait_up_to_date("web", 1)
    writer, handle = Writer(1), clients.connect(node.uri("web"))
    for _ in range(12):
        writer.write(handle, 40)
        node.pool.mark(f"flush-{writer.flush(handle)}")
    writer.write(handle, 40)
    node.kill()
    entries = node.pool.recorded()
    marks = {at: int(entry.mark.split("-")[1]) for at, entry in enumerate(entries) if entry.mark and entry.mark.startswith("flush-")}
    check(len(marks) == 12, "every flush is marked", len(marks))
    scene.note(f"{len(entries)} writes and flushes were recorded")
    points = random.Random(2).sample(range(1, len(entries)), 3) + [min(marks) + 1, len(entries)]
    for point in sorted(points):
        node.pool.power_lost(entries[:point])
        node.start()
        cluster.wait_up_to_date("web", 1)
        handle = clients.connect(node.uri("web"))
        flush = max((number for at, number in marks.items() if at < point), default=0)
        writer.check(handle, flush, f"after {point} of {len(entries)} entries, flush {flush}")
        handle.shutdown()
        node.kill()


@story(minutes=3)
def a_secondary_that_lost_power_is_made_equal(scene):
    """The secondary loses power with writes in its disk's cache, some of which are lost; the primary goes on. When it is back, its replica
    gets what it has lost besides what it missed: both are the same, byte for byte."""
    cluster = nodes_on_mapped_disks(scene, 2, [2])
    one, two = cluster.nodes
    writer, draws = Writer(3), random.Random(4)
    for _ in range(2):
        two.stop()
        two.pool.record()
        two.start()
        cluster.wait_up_to_date("web", 2)
        handle = clients.connect(one.uri("web"))
        writer.write(handle, 60)
        writer.flush(handle)
        writer.write(handle, 200)
        two.kill()
        writer.write(handle, 60)
        handle.flush()
        lose_power(scene, two.pool, draws)
        two.start()
        cluster.wait_up_to_date("web", 2)
        handle.flush()
        handle.shutdown()
        wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
        cluster.check_identical("web")


@story(minutes=3)
def a_disk_that_fails_takes_its_replica_and_nothing_else(scene):
    """The disk of one node refuses writes, then everything: its replica is given up, the client sees no error, and with the disk mended and
    the daemon started again, both replicas are the same."""
    cluster = nodes_on_mapped_disks(scene, 2, [2])
    one, two = cluster.nodes
    writer = Writer(5)
    for features in (["error_writes"], []):
        handle = clients.connect(one.uri("web"))
        writer.write(handle, 60)
        writer.flush(handle)
        two.pool.fail(*features)
        writer.write(handle, 200)
        writer.flush(handle)
        disk = lambda: cluster.replicas("web", one)[two.name]["disk"]
        wait_for("its replica is given up", lambda: disk() in ("Failed", "Diskless"), 30)
        two.kill()
        two.pool.mend()
        two.start()
        cluster.wait_up_to_date("web", 2)
        writer.check(handle, len(writer.durable) - 1, "after the repair")
        handle.shutdown()
        wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
        cluster.check_identical("web")


if __name__ == "__main__":
    sys.exit(run_stories())
