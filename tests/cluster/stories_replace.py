"""What an operator has replicas do: disks that are lost and replaced, resyncs that are paused."""

import os
import time

import oracle
from cluster import Cluster
from pools import FilePool, differences, lvm
from stories_verify import rot
from suite import check, story, wait_for

MIB = 1 << 20


@story(minutes=4, idle=True)
def a_lost_disk_is_replaced(scene):
    """A disk is pulled out and does not come back: the replica is made anew in another pool, while a client goes on. What was on the old
    disk is deleted when that appears again. A disk that works is replaced in its own pool. What would take the last copy, or the
    primary's, is refused."""
    cluster = scene.closes(Cluster(scene, 3, pool="lvm", pool_bytes=256 * MIB)).form()
    one, two, three = cluster.nodes
    one.refuses("replace-disk", "web", two.name, "-q", naming=["web", "list-resources"])
    cluster.add_volume("web", "64MiB", 2)
    home, other = (cluster.node_named(name) for name in sorted(cluster.replicas("web")))
    third = next(node for node in cluster.nodes if node not in (home, other))
    known = oracle.Oracle(64 * MIB // 4096, seed=21)
    client = oracle.Client(known, home.uri("web")).start()
    home.refuses("replace-disk", "web", home.name, "-q", naming=["in use", home.name])
    home.refuses("replace-disk", "web", third.name, "-q", naming=["not assigned", "assign-resource"])
    home.refuses("replace-disk", "web", other.name, "-q", "--pool", "nosuch", naming=["nosuch", "list-pools"])

    other.stop()
    lvm("losetup", "--detach", other.pool.device)
    other.start()
    wait_for("the loss is told", lambda: cluster.replicas("web", home)[other.name]["failure"], 30)
    wait_for("the pool's too", lambda: home.json("list-pools", "-N", other.name)[0].get("pool") is None, 30)
    refused = home.refuses("replace-disk", "web", other.name, "-q", naming=["pool"])
    check(cluster.replicas("web", home)[other.name]["failure"], "nothing was changed", refused)
    spare = FilePool(other.folder / "spare")
    other.blkrep("add-pool", "spare", spare.option)
    wait_for("it is made anew", lambda: home.blkrep("replace-disk", "web", other.name, "-q", "--pool", "spare"), 60)
    wait_for("it is there", lambda: "web_00" in spare.volumes(), 60)
    cluster.wait_up_to_date("web", 2, through=home)
    client.stop()
    wait_for("nobody uses it", lambda: cluster.resource("web", home)["primary"] is None, 20)
    check(not differences(home.pool, spare, "web_00", 64 * MIB), "both hold the same")
    oracle.verify(known, other.uri("web"))

    other.pool.device = lvm("losetup", "--find", "--show", str(other.pool.disk)).strip()
    wait_for("what was left on the old disk is deleted", lambda: other.pool.volumes() == [], 90)
    check("web_00" in spare.volumes(), "and nothing else", spare.volumes())

    client = oracle.Client(known, home.uri("web")).start()
    old = scene.closes(open(spare.folder / "web_00", "rb"))
    home.blkrep("replace-disk", "web", other.name, "-q")
    wait_for("the old one is deleted", lambda: os.fstat(old.fileno()).st_nlink == 0, 60)
    cluster.wait_up_to_date("web", 2, through=home)
    client.stop()
    wait_for("nobody uses it", lambda: cluster.resource("web", home)["primary"] is None, 20)
    check(not differences(home.pool, spare, "web_00", 64 * MIB), "both hold the same again")

    home.kill()
    third.refuses("replace-disk", "web", other.name, "-q", naming=["no other replica"])
    third.refuses("replace-disk", "web", home.name, "-q", naming=[home.name, "does not answer"])
    oracle.verify(known, other.uri("web"))
    home.start()
    cluster.wait_up_to_date("web", 2)


@story(minutes=3)
def where_nodes_decide_alone_the_lost_replica_is_heard_too(scene):
    """Of two nodes one has gone on without the other, and its disk vanishes: it cannot say what it had, and nothing is given up unless
    that is forced."""
    cluster = scene.closes(Cluster(scene, 2, pool="lvm", pool_bytes=256 * MIB)).form()
    one, two = cluster.nodes
    cluster.add_volume("web", "32MiB", 2)
    known = oracle.Oracle(32 * MIB // 4096, seed=22)
    oracle.fill(known, one.uri("web"))
    two.stop()
    lvm("lvremove", "--quiet", "--yes", f"{two.pool.group}/web_00")
    two.start()
    wait_for("the loss is told", lambda: cluster.replicas("web")[two.name]["failure"], 30)
    one.refuses("replace-disk", "web", two.name, "-q", naming=["cannot say", "--force"])
    one.blkrep("replace-disk", "web", two.name, "-q", "--force")
    cluster.wait_up_to_date("web", 2)
    cluster.check_identical("web")
    oracle.verify(known, two.uri("web"))


@story(minutes=3)
def a_replica_that_is_not_trusted_gets_everything_anew(scene):
    """A disk has changed blocks by itself; its replica is invalidated, by its name and as this node's, and is the same as the other again,
    in a pool that has no room for two. The primary's, and the last one that is good, stay."""
    cluster = scene.closes(Cluster(scene, 3, pool="small", pool_bytes=160 * MIB)).form()
    cluster.add_volume("web", "64MiB", 2)
    home, other = (cluster.node_named(name) for name in sorted(cluster.replicas("web")))
    third = next(node for node in cluster.nodes if node not in (home, other))
    known = oracle.Oracle(64 * MIB // 4096, seed=24)
    oracle.fill(known, home.uri("web"))
    for asked in (["web", other.name], ["web"]):
        rot(other, "web_00", 77)
        client = oracle.Client(known, home.uri("web")).start()
        home.refuses("invalidate", "web", "-q", naming=["in use", home.name])
        third.refuses("invalidate", "web", "-q", naming=["not assigned"])
        old = scene.closes(open(other.pool.folder / "web_00", "rb"))
        (third if len(asked) > 1 else other).blkrep("invalidate", *asked, "-q")
        wait_for("the old data is deleted", lambda: os.fstat(old.fileno()).st_nlink == 0, 60)
        old.close()
        cluster.wait_up_to_date("web", 2, through=home)
        client.stop()
        wait_for("nobody uses it", lambda: cluster.resource("web", home)["primary"] is None, 20)
        cluster.check_identical("web")
    oracle.verify(known, other.uri("web"))
    home.kill()
    other.refuses("invalidate", "web", "-q", naming=["no other replica"])
    oracle.verify(known, other.uri("web"))


@story(minutes=3, idle=True)
def a_resync_is_paused_until_it_is_resumed(scene):
    """A replica comes back that has missed something. As long as its resync is paused it gets nothing, whatever restarts; the status says
    so, and clients of the other one go on. Resumed, both are the same."""
    cluster = scene.closes(Cluster(scene, 3)).form()
    cluster.add_volume("web", "32MiB", 2)
    home, other = (cluster.node_named(name) for name in sorted(cluster.replicas("web")))
    third = next(node for node in cluster.nodes if node not in (home, other))
    known = oracle.Oracle(32 * MIB // 4096, seed=23)
    oracle.fill(known, home.uri("web"))
    home.refuses("resync", "resume", "web", naming=["paused", "status"])
    home.refuses("resync", "pause", "web", third.name, naming=["not assigned"])
    home.refuses("resync", "pause", "nosuch", naming=["nosuch", "list-resources"])
    other.stop()
    oracle.fill(known, home.uri("web"))
    third.blkrep("resync", "pause", "web", other.name)
    other.start()
    wait_for("they meet", lambda: cluster.replicas("web", home)[other.name]["peers"][0]["connection"] == "connected", 30)
    stays_behind(cluster, home, other)
    check("resync paused by an operator" in home.blkrep("status", "web"), "the status says so", home.blkrep("status", "web"))
    for node in (home, other):
        node.restart()
    cluster.wait_online(third)
    stays_behind(cluster, home, other)
    oracle.fill(known, other.uri("web"))
    oracle.verify(known, home.uri("web"))
    third.blkrep("resync", "pause", "web")
    home.refuses("resync", "resume", "web", other.name, naming=["all resyncs"])
    third.blkrep("resync", "resume", "web")
    cluster.wait_up_to_date("web", 2)
    check("paused" not in home.blkrep("status", "web"), "nothing is paused any more")
    oracle.verify(known, other.uri("web"))
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
    cluster.check_identical("web")


def stays_behind(cluster, home, other):
    """For some seconds, many times what its resync would take."""
    for _ in range(15):
        states = {name: replica["disk"] for name, replica in cluster.replicas("web", home).items()}
        check(states[home.name] == "UpToDate" and states[other.name] != "UpToDate", "one is behind", states)
        time.sleep(0.2)


@story(minutes=4, idle=True)
def an_old_replica_goes_on_by_force(scene):
    """The only node that has everything is lost. Another one goes on with what it has, when it is told to by force, and not before; the third one
    and the lost one, when it is back, get exactly that."""
    cluster = scene.closes(Cluster(scene, 3)).form()
    one, two, three = cluster.nodes
    cluster.add_volume("web", "32MiB", replicas=3)
    old = oracle.Oracle(32 * MIB // oracle.BLOCK, seed=51)
    oracle.fill(old, one.uri("web"))
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
    for node in (two, three):
        one.blkrep("disconnect", "web", node.name)
    newer = oracle.Oracle(32 * MIB // oracle.BLOCK, seed=52)
    oracle.fill(newer, one.uri("web"), share=0.4)
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
    two.refuses("promote", "web", two.name, "--force", "-q", naming=[one.name, "newer"])
    two.refuses("promote", "web", two.name, naming=["not in sync", "--force"])
    one.kill()
    two.blkrep("connect", "web", two.name)
    told = wait_for("there is no data", lambda: "no-data" in (text := two.blkrep("status", "web")) and text, 60)
    check("promote web NODE --force" in told, "the status tells the way out", told)
    wait_for("it goes on by force", lambda: two.run("promote", "web", two.name, "--force", "-q").returncode == 0, 60)
    oracle.verify(old, two.uri("web"))
    oracle.fill(old, two.uri("web"), share=0.2)
    two.blkrep("connect", "web")
    cluster.wait_up_to_date("web", 2)
    one.start()
    cluster.wait_up_to_date("web", 3)
    oracle.verify(old, one.uri("web"))
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
    cluster.check_identical("web")
    two.blkrep("promote", "web", one.name)
    check(cluster.wait_primary("web") == one.name, "the role is where it was sent", cluster.resource("web"))
    one.blkrep("demote", "web")
    wait_for("it is given up", lambda: cluster.resource("web")["primary"] is None, 20)
