"""Where a replica's parts lie, how much a thin pool promises, what a copied snapshot costs, and growing under load."""

import re
import subprocess

import clients
import oracle
from cluster import Cluster
from pools import LvmPool
from suite import check, story, wait_for

MIB = 1 << 20
BLOCK = oracle.BLOCK


@story(minutes=4)
def metadata_lies_in_the_pool_that_was_named(scene):
    """Data goes to files and metadata to a volume group of each node. It is there and nowhere else, is what the replica is opened with
    after kills and restarts, and goes with the replica."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, two = cluster.nodes
    groups = {node: scene.closes(LvmPool(node.folder, f"m{node.number}", 96 * MIB)) for node in cluster.nodes}
    one.refuses("add-volume", "web", "64MiB", "--deploy", "2", "--metadata-pool", "fast", naming=["fast"])
    for node, group in groups.items():
        node.blkrep("add-pool", "fast", group.option)
    cluster.add_volume("web", "64MiB", 2, "--metadata-pool", "fast")
    for node, group in groups.items():
        check(group.volumes() == ["web_meta"], "the metadata is in the group", group.volumes())
        check(node.pool.volumes().count("web_00") == 1, "the data is a file", node.pool.volumes())
        check("web_meta" not in node.pool.volumes(), "no metadata is beside it", node.pool.volumes())
        begin = group.reader("web_meta")(0, 1 * MIB)
        check(any(begin), "it was written")
    known = oracle.Oracle(64 * MIB // BLOCK, seed=21)
    oracle.fill(known, one.uri("web"), share=0.5)
    before = groups[two].reader("web_meta")(0, 8 * MIB)
    two.stop()
    oracle.fill(known, one.uri("web"), share=0.2)
    one.kill()
    two.start()
    one.start()
    cluster.wait_up_to_date("web", 2)
    check(groups[two].reader("web_meta")(0, 8 * MIB) != before, "it is written there after the restart")
    oracle.verify(known, two.uri("web"))
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
    cluster.check_identical("web")
    one.refuses("remove-pool", "fast", naming=["web", "fast"])

    one.blkrep("unassign-resource", "web", two.name, "-q")
    wait_for("it goes with its replica", lambda: groups[two].volumes() == [], 30)
    check(groups[one].volumes() == ["web_meta"], "the other's stays", groups[one].volumes())
    oracle.verify(known, one.uri("web"))
    wait_for("the pool can go", lambda: two.run("remove-pool", "fast").returncode == 0, 60)
    one.blkrep("remove-resource", "web", "-q")
    wait_for("nothing is left", lambda: groups[one].volumes() == [] and "web_00" not in one.pool.volumes(), 30)


@story(minutes=3)
def a_thin_pool_promises_no_more_than_it_was_told(scene):
    """Sparse files on a small file system may be promised twice over. What goes beyond is refused, to a new resource and to one that
    grows, with the limit, what is left of it and the way out; nothing is changed by that, and what fits is made."""
    cluster = scene.closes(Cluster(scene, 1, pool="small", pool_bytes=128 * MIB)).form()
    one = cluster[1]
    folder = one.pool.mounted / "thin"
    one.blkrep("add-pool", "thin", f"file-thin:{folder}", "--oversubscription", "2")
    size, free = (one.json("list-pools")[1]["pool"][key] for key in ("size", "free"))
    check(1.9 * size < free <= 2 * size, "twice its size is free", size, free)
    cluster.add_volume("web", "160MiB", 1, "--pool", "thin")
    before = cluster.model()
    way_out = ["room for", "may promise 2 times that", "has promised 16", "add-pool --oversubscription TIMES", "list-pools"]
    one.blkrep("add-resource", "more")
    one.blkrep("add-volume", "more", "120MiB", "--pool", "thin")
    told = one.refuses("assign-resource", "more", one.name, naming=[*way_out, one.name])
    check(re.search(r"room for [0-9.]+ MiB", told), "how much is left", told)
    one.refuses("deploy-resource", "more", "1", "--pool", "thin", naming=["do not fit", "the most is", *way_out[1:]])
    one.refuses("resize-volume", "web", "280MiB", naming=way_out)
    one.blkrep("remove-resource", "more", "-q")
    wait_for("nothing was changed", lambda: cluster.model() == before, 10)
    cluster.add_volume("fits", "40MiB", 1, "--pool", "thin")


@story(minutes=2)
def a_copied_snapshot_tells_its_size(scene):
    """Where the file system shares no blocks between files, the answer names each node, that it copied, and how many bytes."""
    cluster = scene.closes(Cluster(scene, 2, pool="small", pool_bytes=192 * MIB)).form()
    one, two = cluster.nodes
    one.blkrep("add-volume", "web", "32MiB")
    one.blkrep("add-volume", "web", "16MiB")
    one.blkrep("deploy-resource", "web", "2")
    cluster.wait_up_to_date("web", 2)
    notes = one.json("add-snapshot", "then", "web")["notes"]
    for node in cluster.nodes:
        said = [note for note in notes if node.name in note]
        check(len(said) == 1 and f"copied {48 * MIB} bytes" in said[0], "its part and the size", notes)
    done = one.run("add-snapshot", "again", "web")
    told = done.stdout + done.stderr
    check(done.returncode == 0 and told.count(f"copied {48 * MIB} bytes") == 2, "a reader is told, too", told)
    done = one.run("add-snapshot", "third", "web")
    told = done.stdout + done.stderr
    check(done.returncode != 0 and "third" not in [s["name"] for s in one.json("list-snapshots")], "none without room", told)
    check("small" in told and "free" in told, "and why", told)


@story(minutes=4)
def thin_files_grow_under_load(scene):
    """A volume in sparse files grows four times while clients write, once with a node killed in the middle: no write fails, the new room
    reads as zeros and can be written, and both replicas are the same."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, two = cluster.nodes
    for node in cluster.nodes:
        node.blkrep("add-pool", "thin", f"file-thin:{node.folder}/thin")
    cluster.add_volume("web", "32MiB", 2, "--pool", "thin")
    known = oracle.Oracle(32 * MIB // BLOCK, seed=31)
    writer = oracle.Client(known, one.uri("web"), trims=0.05, reads=0.1).start()
    for size in (48, 64, 128, 256):
        away = size == 128
        if away:
            two.kill()
        done = one.run("resize-volume", "web", f"{size}MiB")
        check(done.returncode == 0, "it grows", done.stderr)
        if away:
            check("not every replica has grown yet" in done.stderr, "that one has not is said", done.stderr)
            check(f"node '{two.name}' does not answer" in done.stderr, "and which", done.stderr)
            check(clients.size(one.uri("web")) == 64 * MIB, "until it has, the size is the old one")
            two.start()
        wait_for("a new client sees it", lambda: clients.size(one.uri("web")) == size * MIB, 60)
        check(writer.running and not writer.failed, "the writer goes on", writer.error, writer.last_failure)
    cluster.wait_up_to_date("web", 2)
    writer.stop()
    check(not writer.failed, "no write failed", writer.last_failure)
    handle = clients.connect(one.uri("web"))
    check(not any(handle.pread(16 * MIB, 32 * MIB)) and not any(handle.pread(16 * MIB, 240 * MIB)), "what is new reads as zeros")
    content = known.content(1, 1) * (MIB // BLOCK)
    for at in range(200, 256):
        handle.pwrite(content, at * MIB)
    handle.shutdown()
    oracle.verify(known, two.uri("web"))
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
    sums = []
    for node in cluster.nodes:
        path = node.folder / "thin" / "web_00"
        check(path.stat().st_size == 256 * MIB, "the file has grown", path.stat().st_size)
        check(path.stat().st_blocks * 512 < 128 * MIB, "and takes what was written", path.stat().st_blocks)
        sums.append(subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True).stdout.split()[0])
    check(sums[0] == sums[1], "both are the same", sums)
