"""Nodes with more than one pool."""

import oracle
from cluster import Cluster
from pools import FilePool, LvmPool, differences
from suite import check, story, wait_for

MIB = 1 << 20


@story(minutes=4)
def volumes_lie_in_pools_of_their_own(scene):
    """A volume group beside the files on each node: one volume of a resource here, one there, the metadata with the first. All of
    it survives kills and restarts, grows no second time, and is gone from both pools after its removal."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    groups = [scene.closes(LvmPool(node.folder, f"n{node.number}", 256 * MIB)) for node in cluster.nodes]
    for node, group in zip(cluster.nodes, groups):
        node.blkrep("add-pool", "ssd", group.option)
    one, two = cluster.nodes
    listed = {(pool["node"], pool["name"]): pool for pool in wait_for("the pools are known", lambda: known_pools(one, 4), 30)}
    ssd = listed[two.name, "ssd"]
    check(ssd["pool"]["kind"] == "lvm" and ssd["pool"]["free"] == ssd["pool"]["size"], "the added pool", ssd)
    check([pool["default"] for pool in listed.values()].count(True) == 2, "one default on each node", listed)

    one.refuses("add-volume", "web", "64MiB", "--deploy", "2", "--pool", "nosuch", naming=["2 replicas"])
    one.blkrep("add-volume", "web", "64MiB", "--pool", "ssd")
    one.blkrep("add-volume", "web", "32MiB")
    one.blkrep("deploy-resource", "web", "2")
    cluster.wait_up_to_date("web", 2)
    for node, group in zip(cluster.nodes, groups):
        check(group.volumes() == ["web_00", "web_meta"], "volume 0 and the metadata are in the group", group.volumes())
        check("web_01" in node.pool.volumes() and "web_00" not in node.pool.volumes(), "volume 1 is a file", node.pool.volumes())
    known = [oracle.Oracle(size * MIB // 4096, seed=number) for number, size in enumerate((64, 32))]
    for number in (0, 1):
        oracle.fill(known[number], one.uri(f"web/{number}"))
    one.kill()
    two.restart()
    one.start()
    cluster.wait_up_to_date("web", 2)
    for number in (0, 1):
        oracle.verify(known[number], two.uri(f"web/{number}"))
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
    check(not differences(groups[0], groups[1], "web_00", 64 * MIB), "the groups hold the same")
    check(not differences(one.pool, two.pool, "web_01", 32 * MIB), "the files hold the same")

    two.refuses("remove-pool", "ssd", naming=["web", "ssd"])
    two.refuses("remove-pool", "default", naming=["default"])
    one.blkrep("remove-resource", "web", "-q")
    wait_for("the groups are empty", lambda: [group.volumes() for group in groups] == [[], []], 30)
    wait_for("the pool can go", lambda: two.run("remove-pool", "ssd").returncode == 0, 30)
    names = [pool["name"] for pool in two.json("list-pools", "-N", two.name)]
    check(names == ["default"], "the pool is gone", names)
    two.blkrep("add-pool", "again", groups[1].option)


@story(minutes=3)
def a_default_pool_takes_what_nobody_placed(scene):
    """Thin files are made a node's default: new replicas go there and take no space before they are written; a replica can be told
    where to be. A pool that is somebody's, or nothing, is refused and changes nothing."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, two = cluster.nodes
    thin = FilePool(one.folder / "thin")
    one.refuses("add-pool", "thin", f"file-thin:{one.pool.folder}", naming=["in use"])
    two.refuses("add-pool", "group", "lvm:no-such-group", naming=["no-such-group"])
    check([pool["name"] for pool in two.json("list-pools")] == ["default"] * 2, "nothing was added")
    one.blkrep("add-pool", "bulk", f"file-thin:{thin.folder}", "--oversubscription", "3", "--default")
    two.blkrep("add-pool", "bulk", f"file-thin:{two.folder}/thin")
    one.blkrep("add-volume", "web", "256MiB")
    one.blkrep("assign-resource", "web", one.name)
    two.blkrep("assign-resource", "web", two.name, "--pool", "bulk")
    cluster.wait_up_to_date("web", 2)
    for folder in (thin.folder, two.folder / "thin"):
        taken = (folder / "web_00").stat().st_blocks * 512
        check(taken < 64 * MIB, "a thin volume takes no space before it is written", taken)
    known = oracle.Oracle(256 * MIB // 4096, seed=7)
    oracle.fill(known, two.uri("web"))
    oracle.verify(known, one.uri("web"))
    one.blkrep("default-pool", "default")
    listed = {pool["name"]: pool["default"] for pool in one.json("list-pools", "-N", one.name)}
    check(listed == {"default": True, "bulk": False}, "the default is another", listed)
    check((thin.folder / "web_00").exists(), "what is there stays")
    one.restart()
    oracle.verify(known, one.uri("web"))


def known_pools(node, count):
    pools = node.json("list-pools")
    return pools if len([pool for pool in pools if pool["pool"]]) == count else None
