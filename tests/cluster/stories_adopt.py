"""What nodes had before: logical volumes and files that become replicas with all that is on them."""

import os
import random
import threading
import time

import clients
from cluster import Cluster
from pools import lvm
from suite import check, story, wait_for

MIB = 1 << 20
SIZE = 32 * MIB


@story(minutes=4)
def a_logical_volume_with_data_gets_a_second_replica(scene):
    """An LV that holds data becomes the first replica of a resource, byte for byte; a second replica gets all of it, and what is
    written afterwards is on both. What cannot be adopted is refused by name, and nothing is changed."""
    cluster = scene.closes(Cluster(scene, 2, pool="lvm", pool_bytes=256 * MIB)).form()
    one, two = cluster.nodes
    group = one.pool.group
    known = make(one.pool, "old", seed=1)
    make(one.pool, "strange", seed=2)
    lvm("lvchange", "--quiet", "--addtag", "blkrep.owner=c9/4", "--addtag", "blkrep.volume=x_00", f"{group}/strange")
    one.refuses("adopt", "web", f"{group}/none", naming=["no such logical volume"])
    one.refuses("adopt", "web", f"{group}/strange", naming=["node 4 of cluster c9", "--deltag"])
    one.refuses("adopt", "web", "othergroup/old", naming=["othergroup", "add-pool"])
    two.refuses("adopt", "web", f"{group}/old", naming=[group, "add-pool"])
    check(one.json("list-resources") == [], "a refusal makes no resource")

    one.blkrep("adopt", "web", f"{group}/old")
    check(one.pool.volumes() == ["strange", "web_00", "web_meta"], "it has the name of a volume", one.pool.volumes())
    check(read(one.uri("web")) == known, "the volume has the bytes of the LV")
    one.refuses("adopt", "more", f"{group}/web_00", naming=["web_00", "already"])
    one.refuses("adopt", "web", f"{group}/strange", naming=["strange"])
    one.blkrep("deploy-resource", "web", "2")
    cluster.wait_up_to_date("web", 2)
    for node in (one, two):
        check(node.pool.reader("web_00")(0, SIZE) == known, "the replica has the bytes of the LV", node)

    handle = clients.connect(two.uri("web"))
    handle.pwrite(b"\x5a" * 8192, 4 * MIB)
    handle.flush()
    handle.shutdown()
    one.kill()
    one.start()
    cluster.wait_up_to_date("web", 2)
    known = known[: 4 * MIB] + b"\x5a" * 8192 + known[4 * MIB + 8192 :]
    for node in (one, two):
        check(node.pool.reader("web_00")(0, SIZE) == known, "what was written is on both, and nothing else has changed", node)


@story(minutes=3)
def a_disk_image_becomes_a_volume(scene):
    """The same with a file: it moves into the pool's directory as it is, and its replica elsewhere is the same. One that is in use, is
    no whole blocks, or whose name is taken stays where it is, and the answer says what to do."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, two = cluster.nodes
    image, odd = one.folder / "old.img", one.folder / "odd.img"
    known = random.Random(3).randbytes(SIZE - MIB) + bytes(MIB)
    image.write_bytes(known)
    odd.write_bytes(b"x" * 5000)
    one.refuses("adopt", "web", odd, naming=["truncate --size 8192"])
    one.refuses("adopt", "web", "old.img", naming=["full path"])
    with open(image, "rb"):
        one.refuses("adopt", "web", image, naming=["in use by process", str(os.getpid())])
    one.blkrep("adopt", "web", image, "--deploy", "2")
    check(not image.exists(), "the file has moved")
    cluster.wait_up_to_date("web", 2)
    for node in (one, two):
        check(node.pool.reader("web_00")(0, SIZE) == known, "the replica has the bytes of the file", node)
    again = one.folder / "again.img"
    again.write_bytes(bytes(MIB))
    one.refuses("adopt", "web", again, naming=["web"])
    check(again.exists(), "what is refused stays")


@story(minutes=5)
def an_adoption_that_is_killed_is_made_or_never_was(scene):
    """The daemon is killed at several moments of an adoption. When it is back, there is a resource with the LV's bytes, or none, and
    the LV has its name and no tags."""
    cluster = scene.closes(Cluster(scene, 1, pool="lvm", pool_bytes=512 * MIB)).form()
    one = cluster.nodes[0]
    group = one.pool.group
    for number, delay in enumerate((0, 0.05, 0.15, 0.3, 0.6)):
        name, old = f"web{number}", f"old{number}"
        known = make(one.pool, old, seed=number)
        asking = threading.Thread(target=one.run, args=("adopt", name, f"{group}/{old}", "--wait", "0"))
        asking.start()
        # No condition to wait for: any moment is as good as another.
        time.sleep(delay)
        one.kill()
        asking.join()
        one.start()
        if any(resource["name"] == name for resource in one.json("list-resources")):
            cluster.wait_up_to_date(name, 1)
            check(read(one.uri(name)) == known, "the volume has the bytes of the LV", name)
            check(old not in one.pool.volumes() and f"{name}_00" in one.pool.volumes(), "the LV has its new name", one.pool.volumes())
        else:
            tags = lvm("lvs", "--quiet", "--noheadings", "-o", "lv_tags", f"{group}/{old}").strip()
            check(tags == "", "the LV is nobody's", tags)
            check(one.pool.reader(old)(0, SIZE) == known, "the LV is as it was", old)


def make(pool, name, seed):
    """A logical volume that an administrator made, with data all over it; the data."""
    flags = ["--driverloaded", "n", "-an", "-Zn", "-Wn", "--type", "linear"]
    lvm("lvcreate", "--quiet", "--yes", *flags, "--size", f"{SIZE}b", "--name", name, pool.group)
    known, at = random.Random(seed).randbytes(SIZE), 0
    with open(pool.device, "r+b", buffering=0) as device:
        for start, length in pool.extents(name):
            for piece in range(0, length, MIB):
                os.pwrite(device.fileno(), known[at : at + MIB], start + piece)
                at += MIB
        os.fsync(device.fileno())
    return known


def read(uri):
    handle = clients.connect(uri)
    try:
        return b"".join(bytes(handle.pread(MIB, at)) for at in range(0, SIZE, MIB))
    finally:
        handle.shutdown()
