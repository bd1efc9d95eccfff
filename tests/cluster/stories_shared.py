"""Several nodes that use one volume at a time, with and without a replica."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import oracle
from attached import LateWrite, Raw, Writer, helper_of, is_coherent_on_two_nodes
from cluster import Cluster
from suite import check, story, wait_for

MIB = 1 << 20
BLOCKS = 64 * MIB // oracle.BLOCK


@story(minutes=4)
def clients_on_three_nodes_write_to_one_volume(scene):
    """Clients on the primary, on the other replica and on a node without one write to the same volume, over each other. The primary is
    killed: its own client is cut off, the two others see no error, and everything that was acknowledged to any of them is there."""
    cluster, first, second, bare = three(scene)
    known = oracle.Oracle(BLOCKS, seed=51)
    first_client, *others = [oracle.Client(known, node.uri("data"), depth=8).start() for node in (first, second, bare)]
    goes_on(known, 1500)
    check(cluster.resource("data")["primary"] == first.name, "the first to come is primary")
    check(first_client.failed == 0 and first_client.running, "no errors", first_client.error)
    first.kill()
    first_client.wait()
    goes_on(known, 1500)
    for client in others:
        check(client.running and client.failed == 0, "the others see no error", client.error, client.last_failure)
        scene.note(f"the longest pause was {client.stall * 1000:.0f} ms")
    first.start()
    cluster.wait_up_to_date("data", 2)
    goes_on(known, 300)
    for client in others:
        client.stop()
    finish(cluster, known)


@story(minutes=4)
def a_node_without_a_replica_is_served_whoever_dies(scene):
    """The only client is on a node without a replica. The node that serves it is killed, comes back, and then is stopped cleanly: the
    client sees nothing of either."""
    cluster, first, second, bare = three(scene)
    known = oracle.Oracle(BLOCKS, seed=52)
    client = oracle.Client(known, bare.uri("data"), depth=8).start()
    goes_on(known, 500)
    serving = cluster.node_named(cluster.wait_primary("data"))
    check(serving in (first, second), "a replica's node is primary", serving)
    serving.kill()
    goes_on(known, 500)
    serving.start()
    cluster.wait_up_to_date("data", 2)
    serving = cluster.node_named(cluster.wait_primary("data"))
    serving.restart()
    goes_on(known, 500)
    check(client.running and client.failed == 0, "the client saw no error", client.error, client.last_failure)
    scene.note(f"the longest pause was {client.stall * 1000:.0f} ms")
    cluster.wait_up_to_date("data", 2)
    client.stop()
    finish(cluster, known)


@story(minutes=3)
def the_role_follows_the_only_client(scene):
    """Two nodes use a volume. When the clients of the primary have gone, the role moves to where the other client is, in the middle
    of its writes."""
    cluster, first, second, _ = three(scene)
    known = oracle.Oracle(BLOCKS, seed=53)
    staying = oracle.Client(known, first.uri("data"), depth=8).start()
    goes_on(known, 200)
    other = oracle.Client(known, second.uri("data"), depth=8).start()
    goes_on(known, 500)
    staying.stop()
    wait_for("the role has moved", lambda: cluster.resource("data")["primary"] == second.name, 20)
    goes_on(known, 500)
    check(other.running and other.failed == 0, "the client saw no error", other.error, other.last_failure)
    scene.note(f"the longest pause was {other.stall * 1000:.0f} ms")
    other.stop()
    finish(cluster, known)


@story(minutes=3)
def a_client_moves_to_another_node_while_it_writes(scene):
    """A live migration: the client of the node that it comes from writes to the last moment, the one of the node that it goes to opens the
    volume before that, and goes on with what the other has written. The role follows."""
    cluster, first, second, bare = three(scene)
    known = oracle.Oracle(BLOCKS, seed=54)
    for source, target in ((first, second), (second, bare), (bare, first)):
        leaving = oracle.Client(known, source.uri("data"), depth=8).start()
        goes_on(known, 300)
        coming = oracle.Client(known, target.uri("data"), depth=8)
        leaving.stop()
        coming.start()
        goes_on(known, 300)
        check(coming.running and coming.failed == 0, "the client saw no error", coming.error, coming.last_failure)
        coming.stop()
        check(oracle.verify(known, target.uri("data")) > 0, f"{target} serves what was written")
    finish(cluster, known)


@story(minutes=3)
def a_device_is_used_on_two_nodes_at_once(scene):
    """A volume is a block device on two nodes, one of them without a replica, and both write and read through them, also after their
    daemons were started anew: a live migration, there and back."""
    cluster, first, _, bare = three(scene)
    for source, target in ((first, bare), (bare, first)):
        expected = is_coherent_on_two_nodes(scene, source, target, "data")
        target.blkrep("detach", "data")
        check(not target.json("list-attachments"), "nothing is attached")
    wait_for("nobody is primary", lambda: cluster.resource("data")["primary"] is None, 20)
    again = scene.closes(Raw(bare.blkrep("attach", "data").strip()))
    check({block: again.read(block) for block in expected} == expected, "all of it is there")
    cluster.check_identical("data")


@story(minutes=3)
def a_file_system_is_mounted_on_one_node_alone(scene):
    """While a volume is attached somewhere, it is mounted nowhere: not on another node, and not on that one, where others may still come.
    While it is mounted, here on a node without a replica, nobody else gets at it by any way. The node that serves it is lost
    meanwhile, and the file system goes on. An attachment that was made to be alone may be mounted, and stays."""
    cluster, first, second, bare = three(scene)
    mount = scene.folder / "mnt"
    mount.mkdir()
    scene.callback(lambda: subprocess.run(["umount", "-l", str(mount)], stderr=subprocess.DEVNULL))
    bare.blkrep("attach", "data")
    first.refuses("mount", "data", mount, "--mkfs", naming=[bare.name])
    bare.refuses("mount", "data", mount, "--mkfs", naming=["attached", "--exclusive"])
    check(not os.listdir(mount) and not first.json("list-attachments", "--node", first.name), "nothing was mounted or left")
    bare.blkrep("detach", "data")
    bare.blkrep("mount", "data", mount, "--mkfs")
    for node in (first, second):
        node.refuses("attach", "data", naming=[bare.name])
        node.refuses("mount", "data", scene.folder / "n1", naming=[bare.name])
        node.refuses("mount", "data", scene.folder / "n1", "--read-only", naming=[bare.name])
        info = subprocess.run(["nbdinfo", node.uri("data")], capture_output=True, text=True)
        check(info.returncode != 0, "an NBD client is refused, too", info.stdout)
    writer = scene.closes(Writer(mount / "log"))
    wait_for("it writes", lambda: writer.written > 20, 20)
    serving = cluster.node_named(cluster.wait_primary("data"))
    check(serving is not bare, "a node with a replica serves it", serving)
    serving.kill()
    before = writer.written
    wait_for("it goes on", lambda: writer.trouble or writer.written > before + 20, 40)
    serving.start()
    bare.kill()
    bare.start()
    before = writer.written
    wait_for("it goes on again", lambda: writer.trouble or writer.written > before + 20, 40)
    writer.close()
    check(writer.trouble is None, "no error reached the program", writer.trouble)
    bare.blkrep("umount", mount)
    device = first.blkrep("attach", "data", "--exclusive").strip()
    second.refuses("attach", "data", naming=[first.name])
    check(device in first.blkrep("mount", "data", mount), "what is attached for one node alone may be mounted")
    writer.check(mount / "log")
    first.blkrep("umount", mount)
    check([a["device"] for a in first.json("list-attachments")] == [device], "and is attached still")
    first.blkrep("detach", "data")
    cluster.wait_up_to_date("data", 2)
    wait_for("nobody is primary", lambda: cluster.resource("data")["primary"] is None, 20)
    cluster.check_identical("data")


@story(minutes=3)
def a_file_system_is_read_on_several_nodes(scene):
    """Mounts that are read-only share a volume with each other, on any node, and nobody may write it meanwhile, by any way; when the last
    of them is gone it is written, and nobody may read it by a mount."""
    cluster, first, second, bare = three(scene)
    nodes = (first, second, bare)
    mounts = {node: scene.folder / f"mnt-{node.number}" for node in nodes}
    for mount in mounts.values():
        mount.mkdir()
        scene.callback(lambda mount=mount: subprocess.run(["umount", "-l", str(mount)], stderr=subprocess.DEVNULL))
    first.blkrep("mount", "data", mounts[first], "--mkfs")
    (mounts[first] / "told").write_text("once")
    first.blkrep("umount", mounts[first])
    for node in nodes:
        node.blkrep("mount", "data", mounts[node], "--read-only")
    # The last of them has come this moment: that makes nothing old that the others have.
    second.kill()
    second.start()
    for node in nodes:
        check(read_anew(mounts[node] / "told") == "once", "it is read there", node)
    try:
        (mounts[bare] / "no").write_text("no")
        raise AssertionError("a read-only file system was written")
    except OSError as error:
        scene.note(f"read-only: {error}")
    first.blkrep("umount", mounts[first])
    for verb in (["attach", "data"], ["attach", "data", "--exclusive"], ["mount", "data", mounts[first]]):
        first.refuses(*verb, naming=["read-only"])
    info = subprocess.run(["nbdinfo", first.uri("data")], capture_output=True, text=True)
    check(info.returncode != 0, "an NBD client could write, and is refused", info.stdout)
    second.kill()
    second.start()
    check(read_anew(mounts[second] / "told") == "once", "and after its daemon's death")
    for node in (second, bare):
        node.blkrep("umount", mounts[node])
    first.blkrep("mount", "data", mounts[first])
    (mounts[first] / "told").write_text("twice")
    second.refuses("mount", "data", mounts[second], "--read-only", naming=[first.name])
    first.blkrep("umount", mounts[first])
    second.blkrep("mount", "data", mounts[second], "--read-only")
    check((mounts[second] / "told").read_text() == "twice", "what was written meanwhile is read")
    second.blkrep("umount", mounts[second])
    cluster.wait_up_to_date("data", 2)
    wait_for("nobody is primary", lambda: cluster.resource("data")["primary"] is None, 20)
    cluster.check_identical("data")


def read_anew(path):
    """What a file holds, from the device rather than from the kernel's cache."""
    with open(path) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


@story(minutes=3)
def a_node_that_is_cut_off_lets_go_when_it_is_back(scene):
    """A node without a replica is cut off while it writes to its device. Detaching it there ends with a message, within its time, and
    gives up nothing that was not written; the others use the volume meanwhile. When the cut is healed, what waited is written, and
    the device goes."""
    cluster, first, _, bare = three(scene)
    device = bare.blkrep("attach", "data").strip()
    scene.callback(lambda: give_up(bare))
    handle = os.open(device, os.O_RDWR | os.O_SYNC)
    os.pwrite(handle, b"1" * 4096, 0)
    cluster.network.cut(bare.number)
    late = LateWrite(handle, b"2" * 4096, 4096)
    began = time.monotonic()
    told = bare.run("detach", "data", seconds=100)
    scene.note(f"detaching took {time.monotonic() - began:.1f} s: {told.stderr.strip()}")
    check(told.returncode != 0 and "waits" in told.stderr and late.outcome is None, "it says what it waits for", told, late.outcome)
    other = scene.closes(Raw(first.blkrep("attach", "data").strip()))
    check(other.read(0) == b"1", "the others have what was synced")
    other.write(2, b"3")
    cluster.network.heal()
    late.thread.join(60)
    check(late.outcome == "written", "what waited is written", late.outcome)
    os.close(handle)
    wait_for("the device goes", lambda: not bare.json("list-attachments", "--node", bare.name), 60)
    check((other.read(1), other.read(2)) == (b"2", b"3"), "nothing is lost")
    other.close()
    first.blkrep("detach", "data")


@story(minutes=3)
def a_helper_dies_while_its_volume_waits(scene):
    """A node is cut off with something unwritten in its device's cache. Its helper is killed, while it is being detached and while it is
    not: the device fails and goes, and nobody who looks at it waits for ever."""
    cluster, _, _, bare = three(scene)
    scene.callback(lambda: give_up(bare))
    for detaches in (True, False):
        device = bare.blkrep("attach", "data").strip()
        block = Path("/sys/block") / Path(device).name
        handle = os.open(device, os.O_RDWR)
        os.pwrite(handle, b"1" * 4096, 0)
        os.fsync(handle)
        helper = helper_of(bare, "data")
        cluster.network.cut(bare.number)
        os.pwrite(handle, b"2" * 4096, 0)
        os.close(handle)
        detaching = threading.Thread(target=bare.run, args=["detach", "data"])
        if detaches:
            detaching.start()
            wait_for("its cache is being written", lambda: int((block / "inflight").read_text().split()[1]) > 0, 20)
        os.kill(helper, signal.SIGKILL)
        wait_for("the device has gone", lambda: not (block / "loop").exists(), 30)
        wait_for("nothing is left of it", lambda: not list((bare.root / "run/blkrep/attach").iterdir()), 30)
        if detaches:
            detaching.join(60)
        cluster.network.heal()
        cluster.wait_online(bare)


def give_up(node):
    """What a story that failed has left waiting would make whatever looks at the machine's devices wait, too."""
    for place in (node.root / "run/blkrep/attach").glob("*/fuse"):
        subprocess.run(["umount", "-f", str(place)], stderr=subprocess.DEVNULL)


def three(scene):
    """Three nodes, and a volume on two of them."""
    cluster = scene.closes(Cluster(scene, 3)).form()
    cluster.add_volume("data", "64MiB", replicas=2)
    first, second = (cluster.node_named(name) for name in sorted(cluster.replicas("data")))
    bare = next(node for node in cluster.nodes if node not in (first, second))
    return cluster, first, second, bare


def goes_on(known, count):
    goal = known.acknowledged + count
    wait_for(f"{count} more writes", lambda: known.acknowledged >= goal, 40)


def finish(cluster, known):
    """Every node serves what is legal, and the replicas are the same bytes."""
    for node in cluster.nodes:
        check(oracle.verify(known, node.uri("data")) > 0, f"{node} serves what was written")
    cluster.wait_up_to_date("data", 2)
    wait_for("nobody is primary", lambda: cluster.resource("data")["primary"] is None, 20)
    cluster.check_identical("data")
