"""What a user does on a good day."""

import hashlib
import json
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


@story(minutes=4)
def a_volume_grows_in_use_on_file_pools(scene):
    """A volume is grown while a client writes, first by a little and then so far that its metadata has to move. The client sees no
    error, the next one sees the new size, the new part reads as zeroes; and when the primary is killed, what was written there is
    on the other node."""
    volume_grows(scene, "file")


@story(minutes=4)
def a_volume_grows_in_use_on_volume_groups(scene):
    """The same on LVM."""
    volume_grows(scene, "lvm")


def volume_grows(scene, pool):
    cluster = scene.closes(Cluster(scene, 2, pool=pool)).form()
    one, two = cluster.nodes
    cluster.add_volume("web", "64MiB", replicas=2)
    known = oracle.Oracle(64 * MIB // oracle.BLOCK, seed=41)
    client = oracle.Client(known, one.uri("web")).start()
    for size in (80, 200):
        before = known.acknowledged
        one.blkrep("resize-volume", "web", f"{size}MiB")
        wait_for("whoever connects sees the new size", lambda: clients.size(one.uri("web")) == size * MIB, 30)
        wait_for("writes go on", lambda: known.acknowledged > before + 200, 30)
        check(client.running and client.failed == 0, "the client saw no error", client.error)
    two.refuses("resize-volume", "web", "100MiB", naming=["200"])
    handle = oracle.nbd.NBD()
    handle.connect_uri(one.uri("web"))
    check(handle.pread(MIB, 199 * MIB) == bytes(MIB), "the new part reads as zeroes")
    fresh = random.Random(3).randbytes(MIB)
    for at in (70, 130, 199):
        handle.pwrite(fresh, at * MIB)
    handle.flush()
    one.kill()
    client.wait()
    other = wait_for("the other node serves", lambda: connect(two.uri("web")), 30)
    check(all(other.pread(MIB, at * MIB) == fresh for at in (70, 130, 199)), "what was written to the new part is there")
    other.pwrite(fresh, 150 * MIB)
    other.shutdown()
    one.start()
    cluster.wait_up_to_date("web", 2)
    oracle.verify(known, two.uri("web"))
    cluster.wait_up_to_date("web", 2)
    wait_for("nobody is primary", lambda: cluster.resource("web")["primary"] is None, 20)
    cluster.check_identical("web")


@story(minutes=3)
def volumes_come_and_go_while_others_are_used(scene):
    """A second volume is added to a resource while a client writes to the first, is written to, and goes again; the first one's
    client notices nothing."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, two = cluster.nodes
    cluster.add_volume("web", "64MiB", replicas=2)
    known = oracle.Oracle(64 * MIB // oracle.BLOCK, seed=42)
    client = oracle.Client(known, one.uri("web")).start()
    one.blkrep("add-volume", "web", "32MiB")
    wait_for("the second volume is there", lambda: clients.size(one.uri("web/1")) == 32 * MIB, 30)
    image = random_image(scene.folder / "image", 32 * MIB)
    clients.copy(image, one.uri("web/1"))
    check(client.running and client.failed == 0, "the client saw no error", client.error)
    client.stop()
    cluster.wait_up_to_date("web", 2)
    wait_for("nobody is primary", lambda: cluster.resource("web")["primary"] is None, 20)
    cluster.check_identical("web", 1)
    one.blkrep("remove-volume", "web/1", "-q")
    gone = lambda: not any("web_01" in name for node in cluster.nodes for name in node.pool.volumes())
    wait_for("its storage is gone", gone, 30)
    check(oracle.verify(known, two.uri("web")) > 0, "the first volume is as it was")
    cluster.check_identical("web")


def connect(uri):
    """A connection, as soon as there can be one."""
    clients.output(["nbdinfo", "--size", uri], seconds=5)
    handle = oracle.nbd.NBD()
    handle.connect_uri(uri)
    return handle


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


@story(minutes=4, idle=True)
def a_node_is_disconnected_and_connected_again(scene):
    """Writes go on without the replica that is disconnected, which stays as it was, also when its daemon is restarted. It gets what was written
    meanwhile when it is connected again, and nothing else. Where clients would wait it is refused."""
    cluster = scene.closes(Cluster(scene, 3)).form()
    one, two, three = cluster.nodes
    cluster.add_volume("web", "64MiB", replicas=3)
    known = oracle.Oracle(64 * MIB // oracle.BLOCK, seed=43)
    client = oracle.Client(known, one.uri("web")).start()
    wait_for("there is load", lambda: known.acknowledged > 100, 30)
    two.refuses("disconnect", "web", "nosuch", naming=["nosuch"])
    two.refuses("connect", "web", naming=["disconnected"])
    guest = connect(three.uri("web"))
    wait_for("it is used there", lambda: cluster.replicas("web")[three.name]["clients"], 20)
    one.refuses("disconnect", "web", three.name, naming=["in use", three.name, "--force"])
    guest.shutdown()
    wait_for("nobody uses it there", lambda: cluster.replicas("web")[three.name]["clients"] == 0, 20)
    answer = json.loads(two.blkrep("disconnect", "web", three.name, "--output", "json"))
    check("does not reach" in answer["notes"][0], "the answer says what it means", answer)
    wait_for("it is left behind", lambda: cluster.replicas("web")[three.name]["disk"] == "Outdated", 30)
    told = one.blkrep("status", "web")
    check("disconnected by an operator" in told, "the status tells of it", told)
    before = known.acknowledged
    wait_for("writes go on", lambda: known.acknowledged > before + 200, 30)
    three.kill()
    three.start()
    wait_for("it is back", lambda: cluster.replicas("web")[three.name]["online"], 30)
    before = known.acknowledged
    wait_for("writes go on", lambda: known.acknowledged > before + 200, 30)
    check(cluster.replicas("web")[three.name]["disk"] == "Outdated", "a restart changes nothing", cluster.replicas("web"))
    three.blkrep("connect", "web", three.name)
    cluster.wait_up_to_date("web", 3)
    check("operator" not in one.blkrep("status", "web"), "it is over", one.blkrep("status", "web"))
    check(client.running and client.failed == 0, "the client saw no error", client.error)
    client.stop()
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
    cluster.check_identical("web")
    oracle.verify(known, three.uri("web"))
