"""What storage does to a replica, in short: power_stories.py has more. These stories run inside the machine: `run.py` takes them there."""

import random
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

import clients
from power import Writer, lose_power, nodes_on_mapped_disks
from suite import check, run_stories, story, wait_for


@story(minutes=3)
def a_disk_loses_power_and_then_fails(scene):
    """The short form of the stories of lost power. The secondary's disk forgets a part of what was not flushed, and later refuses writes:
    each time the client sees no error, and both replicas are the same again, with all that was flushed."""
    cluster = nodes_on_mapped_disks(scene, 2, [2])
    one, two = cluster.nodes
    writer, handle = Writer(6), None
    two.stop()
    two.pool.record()
    two.start()
    cluster.wait_up_to_date("web", 2)
    handle = clients.connect(one.uri("web"))
    writer.write(handle, 40)
    writer.flush(handle)
    writer.write(handle, 100)
    two.kill()
    lose_power(scene, two.pool, random.Random(7))
    two.start()
    cluster.wait_up_to_date("web", 2)

    two.pool.fail("error_writes")
    writer.write(handle, 60)
    flush = writer.flush(handle)
    disk = lambda: cluster.replicas("web", one)[two.name]["disk"]
    wait_for("its replica is given up", lambda: disk() in ("Failed", "Diskless"), 30)
    two.kill()
    two.pool.mend()
    two.start()
    cluster.wait_up_to_date("web", 2)
    writer.check(handle, flush, "after the repair")
    handle.shutdown()
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
    cluster.check_identical("web")


if __name__ == "__main__":
    sys.exit(run_stories())
