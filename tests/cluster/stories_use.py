"""What a user does on a good day."""

import hashlib
import os
import random

import clients
import oracle
from cluster import Cluster
from suite import check, story, wait_for

MIB = 1 << 20


@story(minutes=3)
def the_walk_on_file_pools(scene):
    """init, add-node, join, add-volume, list-resources; an image goes in on one node and comes out on the other; both replicas are
    the same bytes; removing takes everything away."""
    walk(scene, "file")


@story(minutes=3)
def the_walk_on_volume_groups(scene):
    """The same on LVM."""
    walk(scene, "lvm")


def walk(scene, pool):
    cluster = scene.closes(Cluster(scene, 2, pool=pool)).form()
    one, two = cluster.nodes
    empty = [node.pool.volumes() for node in cluster.nodes]
    cluster.add_volume("dockervolume", "64MiB", replicas=2)
    listing = one.blkrep("list-resources")
    check("dockervolume" in listing and "ok" in listing.lower(), "list-resources shows it ok", listing)
    csv = one.blkrep("list-resources", "-m").splitlines()
    check(len(csv) == 1 and csv[0].split(",")[0] == "dockervolume", "-m is CSV", csv)

    image = random_image(scene.folder / "image", 64 * MIB)
    clients.copy(image, one.uri("dockervolume"))
    check(clients.size(one.uri("dockervolume")) == 64 * MIB, "the export's size")
    wait_for("the first node is not primary any more", lambda: cluster.resource("dockervolume")["primary"] is None, 20)
    clients.copy(two.uri("dockervolume"), scene.folder / "back")
    check(digest(scene.folder / "back") == digest(image), "the image came back from the other node")
    cluster.wait_up_to_date("dockervolume", 2)
    cluster.check_identical("dockervolume")
    check(one.pool.reader("dockervolume_00")(0, MIB) == image.read_bytes()[:MIB], "the volume is exactly the user's bytes")

    one.blkrep("remove-resource", "dockervolume", "-q")
    wait_for("it is gone from the list", lambda: "dockervolume" not in two.blkrep("list-resources"), 30)
    wait_for("and from the pools", lambda: [node.pool.volumes() for node in cluster.nodes] == empty, 30)


@story(minutes=3)
def fio_verifies_what_it_wrote(scene):
    """Random writes of mixed sizes with fio's own checksums, over TCP and the unix socket; then replicas are compared."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("bench", "64MiB", replicas=2)
    job = {
        "ioengine": "nbd",
        "rw": "randwrite",
        "bsrange": "4k-64k",
        "size": "64m",
        "io_size": "96m",
        "iodepth": 32,
        "verify": "crc32c",
        "verify_fatal": 1,
        "serialize_overlap": 1,
        "randrepeat": 0,
    }
    node = cluster[2]
    for uri in (node.uri("bench"), node.tcp_uri("bench")):
        done = clients.fio({**job, "uri": uri}, scene.folder, enter=node.enter)
        check(done["write"]["total_ios"] > 100 and done["read"]["total_ios"] > 100, "fio wrote and verified", done["write"])
    cluster.wait_up_to_date("bench", 2)
    cluster.check_identical("bench")


@story(minutes=3)
def odd_sizes_and_offsets(scene):
    """Writes that are no whole blocks, beside each other and overlapping, at every kind of boundary: the volume is what a plain
    buffer would be."""
    import nbd

    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("odd", "16MiB", replicas=2)
    size, draw = 16 * MIB, random.Random(11)
    truth = bytearray(size)
    handle = nbd.NBD()
    handle.set_strict_mode(0)
    handle.connect_uri(cluster[1].uri("odd"))
    edges = [0, 511, 512, 513, 4095, 4096, 4097, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, size - 4097, size - 1]
    for n in range(1500):
        offset = min(draw.choice(edges) + draw.randrange(-3, 4) if n % 3 == 0 else draw.randrange(size), size - 1)
        offset = max(0, offset)
        length = min(draw.choice([1, 7, 511, 512, 4095, 4096, 4097, 70_000]), size - offset)
        if draw.random() < 0.2:
            handle.zero(length, offset)
            truth[offset : offset + length] = bytes(length)
        else:
            data = draw.randbytes(length)
            handle.pwrite(data, offset)
            truth[offset : offset + length] = data
        if n % 10 == 0:
            at = draw.randrange(size - 100_000)
            check(handle.pread(100_000, at) == truth[at : at + 100_000], "a read sees all writes", n, at)
    handle.flush()
    check(b"".join(handle.pread(MIB, at) for at in range(0, size, MIB)) == bytes(truth), "the whole volume")
    handle.shutdown()
    cluster.wait_up_to_date("odd", 2)
    cluster.check_identical("odd")


@story(minutes=3)
def three_nodes_two_replicas(scene):
    """With three nodes a resource of two replicas is placed on two of them; a third replica is added while a client writes, and
    is equal in the end."""
    cluster = scene.closes(Cluster(scene, 3)).form()
    cluster.add_volume("web", "64MiB", replicas=2)
    holders = set(cluster.replicas("web"))
    check(len(holders) == 2, "two nodes hold it", holders)
    home = cluster.node_named(min(holders))
    known = oracle.Oracle(64 * MIB // 4096, seed=5)
    oracle.fill(known, home.uri("web"), share=0.5)
    client = oracle.Client(known, home.uri("web")).start()
    home.blkrep("deploy-resource", "web", 3)
    cluster.wait_up_to_date("web", 3)
    client.stop()
    oracle.verify(known, home.uri("web"))
    cluster.wait_up_to_date("web", 3)
    cluster.check_identical("web")


def random_image(path, size):
    """An image like a file system's: data, holes, data."""
    with open(path, "wb") as file:
        file.write(os.urandom(size // 4))
        file.seek(size // 2)
        file.write(os.urandom(size // 8))
        file.truncate(size)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()

