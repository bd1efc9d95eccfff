"""What an operator does with a replica's metadata while its node is stopped."""

import json

import oracle
from cluster import Cluster
from suite import check, story, wait_for

MIB = 1 << 20
SIZE = 16 * MIB


@story(minutes=3)
def metadata_is_shown_kept_and_brought_back(scene):
    """Metadata of a stopped node is explained, checked and dumped; after it is lost, the dump brings the replica back: one that went
    on meanwhile is brought up to date in full, however little the old maps say."""
    cluster = Cluster(scene, 2)
    scene.closes(cluster)
    cluster.form()
    cluster.add_volume("data", "16MiB", 2)
    one, two = cluster.nodes
    known = oracle.Oracle(SIZE // oracle.BLOCK, seed=61)
    write(known, one)
    two.refuses("metadata", "show", "data", naming=["runs", "shutdown"])
    two.stop()
    text = two.blkrep("metadata", "show", "data")
    for word in ("ended cleanly", "Outdated", "quorum=off", "node1", "node2", "16 MiB"):
        check(word in text, f"'{word}' is told", text)
    report = two.json("metadata", "show", "data")
    check(report["clean"] and not report["problems"], "all is well", report)
    two.blkrep("metadata", "check", "data")
    dump = scene.folder / "data.json"
    dump.write_text(two.blkrep("metadata", "dump", "data"))
    two.start()
    cluster.wait_up_to_date("data", 2)
    # The replica goes on: what the dump says is not true any more.
    write(known, one)
    two.stop()
    area = next(two.folder.rglob("data_meta"))
    with area.open("r+b") as file:
        file.write(bytes(32 << 10))
    two.refuses("metadata", "show", "data", naming=["unassign-resource"])
    changed = json.loads(dump.read_text())
    changed["superblock"]["version"] += 1
    other = scene.folder / "changed.json"
    other.write_text(json.dumps(changed))
    two.refuses("metadata", "restore", "data", other, naming=["changed since it was written"])
    two.refuses("metadata", "restore", "elsewhere", dump, naming=["elsewhere"])
    two.blkrep("metadata", "restore", "data", dump)
    report = two.json("metadata", "show", "data")
    check(report["disk"] == "Outdated" and not report["clean"], "what was brought back is not trusted", report)
    check(report["volumes"][0]["hot_bytes"] == SIZE, "all of it counts as different", report)
    two.start()
    cluster.wait_up_to_date("data", 2)
    oracle.verify(known, one.uri("data"))
    cluster.check_identical("data")


@story(minutes=3)
def damaged_metadata_is_named_and_taken_for_the_worst(scene):
    """A page of the activity map is damaged on a stopped node: the check names it, and the replica is equal again after the start."""
    cluster = Cluster(scene, 2)
    scene.closes(cluster)
    cluster.form()
    cluster.add_volume("data", "16MiB", 2)
    one, two = cluster.nodes
    known = oracle.Oracle(SIZE // oracle.BLOCK, seed=62)
    write(known, one)
    two.kill()
    area = next(two.folder.rglob("data_meta"))
    with area.open("r+b") as file:
        file.seek((32 << 10) + 200)
        file.write(b"\xff" * 64)
    two.refuses("metadata", "check", "data", naming=["activity map of volume 0", "hot"])
    two.refuses("metadata", "dump", "data", naming=["damaged"])
    check("did not end cleanly" in two.blkrep("metadata", "show", f"{area}"), "a path does as well")
    two.start()
    cluster.wait_up_to_date("data", 2)
    oracle.verify(known, one.uri("data"))
    cluster.check_identical("data")


def write(known, node):
    """Writes for a moment through a node."""
    goal = known.acknowledged + 200
    client = oracle.Client(known, node.uri("data")).start()
    wait_for("writes", lambda: known.acknowledged >= goal, 30)
    client.stop()
