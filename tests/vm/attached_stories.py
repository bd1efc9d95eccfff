"""Volumes as devices of the kernel's NBD client. These stories run inside the machine: `run.py` takes them there."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

from attached import LateWrite, Raw, Writer, attachment, drop_caches, is_as_another_node_left_it, is_coherent_on_two_nodes, is_fenced_by_another_node
from cluster import Cluster
from suite import check, run_stories, story, wait_for


def cluster(scene, volumes=("web",), size="64MiB", nodes=2):
    """Nodes on loopback addresses, two of them with replicas: network namespaces other than the first have no NBD devices."""
    made = scene.closes(Cluster(scene, nodes, enter=lambda: None)).form()
    for volume in volumes:
        made.add_volume(volume, size, 2, "--peer-tls", "off")
    scene.callback(lambda: let_go(made))
    scene.push(lambda kind, *_: kind and tell(scene, made))
    return made


def tell(scene, made):
    """What the nodes say of themselves and of each other when a story has failed: what a device waits for is in it."""
    for node in made.nodes:
        try:
            scene.note(f"{node}: {json.dumps(node.json('status', seconds=10)['resources'])}" if node.running else f"{node} does not run")
        except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as trouble:
            scene.note(f"{node} says nothing: {trouble}")


def let_go(made):
    """Ends what a story that failed has left attached."""
    for node in made.nodes:
        for place in (node.root / "run/blkrep/attach").glob("*/device"):
            subprocess.run(["umount", "-l", place.resolve()], stderr=subprocess.DEVNULL)
            subprocess.run(["nbd-client", "-d", place.resolve()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def fact(device, name):
    return Path(f"/sys/block/{Path(device).name}/{name}").read_text().strip()


def bytes_of(device):
    return int(fact(device, "size")) * 512


def free_bytes(path):
    told = os.statvfs(path)
    return told.f_blocks * told.f_frsize


def mkfs(node, kind, mount):
    """Mounts the volume of this name with a new file system of this kind. An XFS gets a small log: the emulated machine takes its time
    to fill a large one."""
    options = ["--mkfs-opts=--unsupported -l size=8m"] if kind == "xfs" else []
    return node.blkrep("mount", kind, mount, "--fs", kind, "--mkfs", *options)


@story(minutes=2)
def a_volume_is_a_device_of_the_kernels(scene):
    """The kernel's NBD client is chosen where it is; what the device is given is what it shows; it is refused while somebody else has
    it, and a device in use is not taken away. FUSE is used when it is asked for."""
    nodes = cluster(scene, ["web", "db"])
    one, two = nodes[1], nodes[2]
    device = one.blkrep("attach", "web").strip()
    check(device.startswith("/dev/nbd"), "the kernel's client is used where there is one", device)
    listed = [(a["node"], a["device"], a["via"]) for a in two.json("list-attachments")]
    check(listed == [(one.name, device, "nbd")], "every node lists it", listed)
    check(fact(device, "backend").startswith("blkrep:web/0:"), "it has an identifier")
    told = [bytes_of(device), fact(device, "queue/logical_block_size"), fact(device, "queue/max_sectors_kb"), fact(device, "queue/io_timeout")]
    check(told == [64 << 20, "4096", "1024", "3000"], "size, block, request and time-out", told)
    check(fact(device, "queue/write_cache") == "write back" and fact(device, "queue/fua") == "1", "flushes and FUA are sent")
    check(one.blkrep("attach", "web/0", "--via", "nbd").strip() == device, "a second attach gives the same device")
    one.refuses("attach", "web", "--via", "fuse", naming=["another way"])
    one.refuses("attach", "db", "--via", "fuse", "--sockets", "2", naming=["sockets"])
    one.refuses("attach", "db", "--sockets", "17", naming=["17"])
    data = os.urandom(1 << 20)
    handle = os.open(device, os.O_RDWR)
    os.pwrite(handle, data, 3 << 20)
    os.fsync(handle)
    os.close(handle)
    subprocess.run(["blkdiscard", "--offset", str(3 << 20), "--length", "65536", device], check=True)
    with open(device, "rb") as held:
        holder = os.open(device, os.O_RDWR | os.O_EXCL)
        one.refuses("detach", "web", naming=["in use"])
        os.close(holder)
        held.seek(3 << 20)
        check(held.read(1 << 20) == bytes(65536) + data[65536:], "it reads what was written")
    two.blkrep("detach", "web", "--node", one.name)
    check(not two.json("list-attachments"), "it is not listed any more")
    check(not Path(f"/sys/block/{Path(device).name}/backend").exists(), "the kernel has let go of it")
    nodes.check_identical("web")
    read_only = two.blkrep("attach", "web", "--read-only").strip()
    check(fact(read_only, "ro") == "1", "a read-only device refuses writes")
    two.blkrep("detach", "web")
    looped = one.blkrep("attach", "web", "--via", "fuse").strip()
    check(looped.startswith("/dev/loop"), "FUSE is used when it is asked for", looped)
    one.blkrep("detach", "web")


@story(minutes=2)
def nbd_client_attaches_by_hand(scene):
    """`nbd-client` makes a volume a device, at the node's socket; what is written through it is on both nodes."""
    nodes = cluster(scene)
    subprocess.run(["modprobe", "nbd"], check=True)
    device, socket = "/dev/nbd5", nodes[2].root / "run/blkrep/nbd.sock"
    subprocess.run(["nbd-client", "-unix", socket, device, "-name", "web", "-block-size", "4096"], check=True, stdout=subprocess.DEVNULL)
    let_go = ["nbd-client", "-d", device]
    scene.callback(lambda: subprocess.run(let_go, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    check(bytes_of(device) == 64 << 20, "its size")
    data = os.urandom(1 << 20)
    handle = os.open(device, os.O_RDWR)
    os.pwrite(handle, data, 5 << 20)
    os.fsync(handle)
    os.close(handle)
    drop_caches()
    with open(device, "rb") as there:
        there.seek(5 << 20)
        check(there.read(1 << 20) == data, "it reads what was written")
    nodes[1].refuses("attach", "web", "--exclusive", naming=[nodes[2].name])
    subprocess.run(let_go, check=True, stdout=subprocess.DEVNULL)
    wait_for("nobody uses it", lambda: nodes.resource("web")["primary"] is None, 20)
    nodes.check_identical("web")


@story(minutes=2)
def devices_are_found_beyond_those_that_are_taken(scene):
    """All devices that the kernel has made are in use: it makes more, and the numbers go beyond 16. Several sockets are several
    queues, and the device goes on when the daemon is killed under it."""
    nodes = cluster(scene, ["web", "db"])
    one = nodes[1]
    subprocess.run(["modprobe", "nbd"], check=True)
    taken = [os.open(path, os.O_RDONLY) for path in sorted(Path("/dev").glob("nbd*")) if path.name[3:].isdigit()]
    check(len(taken) >= 16, "the kernel has made some", len(taken))
    devices = [one.blkrep("attach", "web").strip(), one.blkrep("attach", "db", "--sockets", "3").strip()]
    numbers = [int(device.removeprefix("/dev/nbd")) for device in devices]
    check(min(numbers) >= 16 and len(set(numbers)) == 2, "they have numbers of their own", devices)
    for handle in taken:
        os.close(handle)
    queues = len(list(Path(f"/sys/block/{Path(devices[1]).name}/mq").iterdir()))
    check(queues == min(3, os.cpu_count()), "sockets are queues, as many as there are processors", queues)
    one.kill()
    one.start()
    for device in devices:
        wrote = []
        thread = threading.Thread(target=lambda: wrote.append(subprocess.run(write_through(device), stderr=subprocess.PIPE)))
        thread.start()
        thread.join(60)
        check(wrote and wrote[0].returncode == 0, "it is written after the daemon's death", device, wrote)
    for name in ("web", "db"):
        one.blkrep("detach", name)
        nodes.check_identical(name)


def write_through(device):
    return ["dd", "if=/dev/urandom", f"of={device}", "bs=64k", "count=4", "oflag=direct", "conv=fsync"]


@story(minutes=3)
def mounted_volumes_outlive_their_daemon(scene):
    """An ext4 and an XFS are written with fsync while their daemon is killed and started again, ended cleanly and started again, and
    while the other replica is lost and comes back. No program sees an error; everything that was synced is there, also on the other
    node."""
    kinds = ("ext4", "xfs")
    nodes = cluster(scene, kinds, "320MiB")
    one, two = nodes[1], nodes[2]
    mounts, writers = {}, {}
    for kind in kinds:
        mounts[kind] = scene.folder / kind
        mounts[kind].mkdir()
        said = mkfs(one, kind, mounts[kind])
        check("/dev/nbd" in said and "made just now" in said, "it is mounted from the kernel's device", said)
    for kind in kinds:
        writers[kind] = scene.closes(Writer(mounts[kind] / "log"))

    def all_go_on(what):
        before = {kind: writers[kind].written for kind in kinds}
        for kind in kinds:
            gone_on = lambda: writers[kind].trouble or writers[kind].written > before[kind] + 5
            wait_for(f"{kind} is written {what}", gone_on, 60)
            check(writers[kind].trouble is None, "no error reached the program", kind, writers[kind].trouble)

    all_go_on("at first")
    one.refuses("detach", "xfs", naming=["in use"])
    one.kill()
    one.start()
    all_go_on("after the daemon was killed")
    one.stop()
    one.start()
    all_go_on("after the daemon was ended")
    two.kill()
    all_go_on("without the other replica")
    two.start()
    all_go_on("with the other replica")
    for kind in kinds:
        writers[kind].close()
    drop_caches()
    for kind in kinds:
        writers[kind].check(mounts[kind] / "log")
        one.blkrep("umount", mounts[kind])
    check(not one.json("list-attachments"), "the devices went with the mounts")
    for kind in kinds:
        nodes.wait_up_to_date(kind, 2)
        two.blkrep("mount", kind, mounts[kind])
        writers[kind].check(mounts[kind] / "log")
        two.blkrep("umount", mounts[kind])
        nodes.check_identical(kind)


@story(minutes=3)
def mounted_volumes_grow(scene):
    """Volumes grow at one time while their file systems are mounted and written, by both ways of attaching: device and file system
    follow."""
    kinds = ("ext4", "xfs", "btrfs")
    nodes = cluster(scene, kinds, "320MiB")
    one = nodes[1]
    mounts, devices, writers, before = {}, {}, {}, {}
    for kind in kinds:
        mount = mounts[kind] = scene.folder / kind
        mount.mkdir()
        if kind == "ext4":
            # Mounted where it was attached before, through FUSE.
            one.blkrep("attach", kind, "--via", "fuse", "--exclusive")
        mkfs(one, kind, mount)
        device = devices[kind] = attachment(one, kind)["device"]
        check(("loop" if kind == "ext4" else "nbd") in device, "it is attached as it was asked for", kind, device)
        before[kind] = free_bytes(mount)
        writers[kind] = scene.closes(Writer(mount / "log"))
    for kind in kinds:
        wait_for("it writes", lambda: writers[kind].written > 2, 30)
        one.blkrep("resize-volume", kind, "640MiB")
    for kind in kinds:
        wait_for(f"the device of {kind} has grown", lambda: bytes_of(devices[kind]) == 640 << 20, 30)
        wait_for(f"the file system {kind} has grown", lambda: free_bytes(mounts[kind]) > before[kind] + (250 << 20), 30)
        (mounts[kind] / "big").write_bytes(bytes(1 << 20))
        writers[kind].close()
        check(writers[kind].trouble is None, "no error reached the program", writers[kind].trouble)
        writers[kind].check(mounts[kind] / "log")
        one.blkrep("umount", mounts[kind])
    one.blkrep("detach", "ext4")
    nodes.check_identical("xfs")


@story(minutes=2)
def what_is_persistent_comes_back(scene):
    """The machine is started anew: all daemons end, the kernel's devices and the files of the running system are gone. When the daemons
    start, what was attached for good is a device again, at the same link; what was not is not."""
    nodes = cluster(scene, ["web", "db"])
    one = nodes[1]
    device = one.blkrep("attach", "web", "--persistent").strip()
    link = one.root / "run/blkrep/attach/web@0/device"
    check(str(link.resolve()) == device, "there is a link to the device", device)
    one.blkrep("attach", "db")
    with open(device, "r+b", buffering=0) as there:
        there.write(b"kept" * 1024)
        os.fsync(there.fileno())
    for node in nodes.nodes:
        node.stop()
    for name in ("web", "db"):
        path = (one.root / f"run/blkrep/attach/{name}@0/device").resolve()
        subprocess.run(["nbd-client", "-d", path], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(one.root / "run/blkrep")
    for node in nodes.nodes:
        node.start()
    wait_for("it is attached again", lambda: attachment(one, "web")["persistent"], 60)
    listed = [a["resource"] for a in one.json("list-attachments")]
    check(listed == ["web"], "nothing else is", listed)
    with open(link, "rb") as there:
        check(there.read(4096) == b"kept" * 1024, "it holds what it held")
    one.blkrep("detach", "web")
    one.restart()
    check(not one.json("list-attachments"), "it does not come back once it was detached")


@story(minutes=2)
def a_device_is_fenced_when_another_node_took_over(scene):
    """A node's daemon dies with a volume attached; the volume is used on another node; the daemon returns. What the first node still had
    to write never reaches the volume: its device fails, until it is attached anew."""
    nodes = cluster(scene)
    is_fenced_by_another_node(nodes)
    # The kernel may have ended it already.
    nodes[1].run("detach", "web")
    is_as_another_node_left_it(nodes)


@story(minutes=2)
def a_fenced_device_is_ended_by_whoever_finds_it_fenced(scene):
    """A daemon finds that another node has used what is attached here, and dies before the kernel has heard of it. The next one ends
    the device: a request that was sent to the first and not answered fails, and so does one that waits for a connection, long before
    the kernel's patience is over."""
    nodes = cluster(scene)
    one = nodes[1]
    device = one.blkrep("attach", "web").strip()
    handle = os.open(device, os.O_RDWR | os.O_SYNC)
    os.pwrite(handle, b"1" * 8192, 0)
    one.freeze()
    first = LateWrite(handle, b"2" * 4096, 0)
    wait_for("the kernel has sent the first write", lambda: sum(map(int, fact(device, "inflight").split())) == 1, 30)
    one.kill()
    second = LateWrite(handle, b"2" * 4096, 4096)
    (one.root / "run/blkrep/attach/web@0/fenced").touch()
    one.start()
    wait_for("both writes have ended", lambda: first.outcome and second.outcome, 30)
    check(first.outcome == second.outcome == errno.EIO, "they failed with EIO", first.outcome, second.outcome)
    check(fact(device, "inflight").split() == ["0", "0"], "the kernel has none of them any more")
    os.close(handle)
    one.run("detach", "web")
    again = one.blkrep("attach", "web").strip()
    with open(again, "rb") as there:
        check(there.read(8192) == b"1" * 8192, "nothing that was late has reached the volume")
    one.blkrep("detach", "web")
    nodes.check_identical("web")


@story(minutes=3)
def a_device_is_used_on_two_nodes_at_once(scene):
    """A volume is a device on two nodes, one of them without a replica, and both write and read through them, also after their daemons
    were started anew: a live migration, there and back. Then the node without a replica mounts it, and goes on when the node is lost
    that serves it."""
    nodes = cluster(scene, nodes=3)
    bare = next(node for node in nodes.nodes if node.name not in nodes.replicas("web"))
    first = next(node for node in nodes.nodes if node is not bare)
    for source, target in ((first, bare), (bare, first)):
        expected = is_coherent_on_two_nodes(scene, source, target, "web")
        check("/dev/nbd" in attachment(target, "web")["device"], "it is the kernel's device")
        target.blkrep("detach", "web")
    device = bare.blkrep("attach", "web").strip()
    again = scene.closes(Raw(device))
    check({block: again.read(block) for block in expected} == expected, "all of it is there")
    again.close()
    mount = scene.folder / "mnt"
    mount.mkdir()
    # A file system is made on what is blank, and on nothing else.
    subprocess.run(["blkdiscard", "--zeroout", device], check=True)
    bare.blkrep("detach", "web")
    bare.blkrep("mount", "web", mount, "--mkfs")
    first.refuses("attach", "web", naming=[bare.name])
    writer = scene.closes(Writer(mount / "log"))
    wait_for("it writes", lambda: writer.written > 5, 30)
    serving = nodes.node_named(nodes.wait_primary("web"))
    serving.kill()
    before = writer.written
    wait_for("it goes on", lambda: writer.trouble or writer.written > before + 5, 60)
    writer.close()
    check(writer.trouble is None, "no error reached the program", writer.trouble)
    writer.check(mount / "log")
    bare.blkrep("umount", mount)
    serving.start()
    nodes.wait_up_to_date("web", 2)
    nodes.check_identical("web")


if __name__ == "__main__":
    sys.exit(run_stories())
