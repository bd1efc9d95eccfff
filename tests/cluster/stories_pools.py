"""Nodes with more than one pool."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import leftovers
import oracle
from attached import helper_of
from cluster import BINARY, Cluster
from pools import FilePool, LvmPool, differences, lvm
from suite import check, story, wait_for

MIB = 1 << 20
BLOCK = oracle.BLOCK


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

    one.refuses("add-volume", "web", "64MiB", "--deploy", "2", "--pool", "nosuch", naming=["nosuch"])
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


@story(minutes=4)
def a_thin_pool_that_fills_up_loses_nothing(scene):
    """One node's sparse files lie on a small file system. The lists tell of it before it is full; when it is, that node's replica is
    given up, and the other goes on and has every byte. Nothing new is put there meanwhile. With space again, and the replica
    made anew, both are the same."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, two = cluster.nodes
    small = two.folder / "small"
    small.mkdir()
    mount(small, "-t", "tmpfs", "-o", "size=96m", "none")
    one.blkrep("add-pool", "thin", f"file-thin:{one.folder}/large")
    two.blkrep("add-pool", "thin", f"file-thin:{small}/pool")
    cluster.add_volume("web", "192MiB", 2, "--pool", "thin")
    known = oracle.Oracle(192 * MIB // 4096, seed=11)
    oracle.fill(known, one.uri("web"), blocks=range(0, 83 * MIB // BLOCK))
    check(cluster.replicas("web")[two.name]["disk"] == "UpToDate", "there is room yet")
    wait_for("it is told", lambda: "filling up" in one.blkrep("list-pools") and "% full" in one.blkrep("status"), 60)

    oracle.fill(known, one.uri("web"), blocks=range(83 * MIB // BLOCK, 192 * MIB // BLOCK))
    wait_for("the full replica is given up", lambda: cluster.replicas("web")[two.name]["disk"] != "UpToDate", 30)
    wait_for("that is known", lambda: "nearly full" in one.blkrep("list-pools"), 60)
    one.refuses("add-volume", "more", "16MiB", "--deploy", "2", "--pool", "thin", naming=[one.name])
    oracle.verify(known, one.uri("web"))

    mount(small, "-o", "remount,size=400m")
    one.blkrep("unassign-resource", "web", two.name, "-q")
    wait_for("its space is free", lambda: not list((small / "pool").glob("web*")), 30)
    wait_for("it is known to be", lambda: two.run("assign-resource", "web", two.name, "--pool", "thin").returncode == 0, 60)
    cluster.wait_up_to_date("web", 2)
    oracle.verify(known, two.uri("web"))


@story(minutes=4)
def storage_that_changes_behind_the_daemons_back(scene):
    """A volume is removed by hand, then the whole disk is pulled out: status and list-pools name what is missing and the way out, the
    other node goes on, and what comes back is found again without a restart."""
    cluster = scene.closes(Cluster(scene, 2, pool="lvm", pool_bytes=256 * MIB)).form()
    one, two = cluster.nodes
    cluster.add_volume("web", "64MiB", 2)
    known = oracle.Oracle(64 * MIB // 4096, seed=5)
    oracle.fill(known, one.uri("web"))
    group = two.pool.group

    two.stop()
    lvm("lvremove", "--quiet", "--yes", f"{group}/web_00")
    two.start()
    failure = wait_for("the loss is told", lambda: cluster.replicas("web")[two.name]["failure"], 30)
    check("web_00" in failure and "unassign-resource" in failure, "what is missing and the way out", failure)
    check(two.pool.volumes() == ["web_meta"], "nothing is made in its place", two.pool.volumes())
    oracle.verify(known, one.uri("web"))

    two.stop()
    lvm("losetup", "--detach", two.pool.device)
    two.start()
    failure = wait_for("the pool's loss is told", lambda: pool_of(one, two).get("failure"), 30)
    check(group in failure, "the group is named", failure)
    check(f"pool 'default' is failing: there is no volume group '{group}'" in one.blkrep("status"), "and in the status")
    check("failing" in one.blkrep("list-pools"), "the list shows it")
    two.pool.device = lvm("losetup", "--find", "--show", str(two.pool.disk)).strip()
    wait_for("the pool is found again", lambda: "failure" not in pool_of(one, two), 60)

    one.blkrep("unassign-resource", "web", two.name, "-q")
    wait_for("what was left is gone", lambda: two.pool.volumes() == [], 30)
    wait_for("it can be put there again", lambda: one.run("assign-resource", "web", two.name).returncode == 0, 60)
    cluster.wait_up_to_date("web", 2)
    cluster.check_identical("web")


@story(minutes=4)
def a_disk_of_several_is_missing(scene):
    """A group has two disks, and the second is pulled out: the pool is said to be failing, with the way out; the volume on the first disk
    goes on, the one on the second is lost there and served by the other node; nothing new is put there. The disk comes back, and
    both are well."""
    cluster = scene.closes(Cluster(scene, 2, pool="lvm", pool_bytes=160 * MIB)).form()
    one, two = cluster.nodes
    second = two.folder / "second.img"
    with open(second, "wb") as image:
        image.truncate(256 * MIB)
    device = lvm("losetup", "--find", "--show", str(second)).strip()
    scene.callback(lambda: leftovers.quietly("losetup", "-d", device))
    cluster.add_volume("web", "96MiB", 2)
    two.stop()
    lvm("vgextend", "--quiet", "--yes", two.pool.group, device)
    two.start()
    wait_for("the room is known", lambda: pool_of(one, two)["pool"]["free"] > 200 * MIB, 60)
    two.blkrep("add-volume", "db", "128MiB")
    two.blkrep("assign-resource", "db", two.name)
    cluster.wait_up_to_date("db", 1)
    known = {"web": oracle.Oracle(96 * MIB // 4096, seed=8), "db": oracle.Oracle(128 * MIB // 4096, seed=9)}
    for name, blocks in known.items():
        oracle.fill(blocks, two.uri(name))

    two.stop()
    lvm("losetup", "--detach", device)
    two.start()
    failure = wait_for("the loss is told", lambda: pool_of(one, two).get("failure"), 60)
    check(two.pool.group in failure and "vgreduce --removemissing" in failure, "what is missing and the way out", failure)
    lost = wait_for("the volume's loss is told", lambda: cluster.replicas("db", one)[two.name]["failure"], 30)
    check("missing" in lost, "why it cannot be used", lost)
    oracle.verify(known["web"], two.uri("web"))
    check(cluster.replicas("web", one)[two.name]["disk"] == "UpToDate", "what is on the other disk goes on")
    said = one.refuses("add-volume", "more", "16MiB", "--deploy", "2", naming=["list-pools"])
    check("more" not in [r["name"] for r in one.json("list-resources")], "nothing was made", said)

    two.stop()
    device = lvm("losetup", "--find", "--show", str(second)).strip()
    two.start()
    wait_for("the pool is well", lambda: "failure" not in pool_of(one, two), 60)
    cluster.wait_up_to_date("db", 1)
    for name, blocks in known.items():
        oracle.verify(blocks, two.uri(name))


@story(minutes=2, idle=True)
def a_group_is_one_clusters(scene):
    """A volume group that is a cluster's is refused to another, which is told whose it is and how it is set free."""
    cluster = scene.closes(Cluster(scene, 2, pool="lvm", pool_bytes=128 * MIB))
    one, two = cluster.nodes
    one.init()
    one.stop()
    taken = two.pool
    two.pool = one.pool
    two.refuses("init", two.address, "-q", "--name", two.name, *two.local, naming=["belongs to node", "vgchange --deltag"])
    two.pool = taken
    two.init()
    two.refuses("add-pool", "stolen", one.pool.option, naming=["belongs to node", "vgchange --deltag"])
    check([pool["name"] for pool in two.json("list-pools")] == ["default"], "nothing was added")
    one.start()
    wait_for("its owner has it", lambda: one.json("list-pools")[0]["pool"], 30)
    one.blkrep("add-volume", "web", "16MiB", "--deploy", "1")
    cluster.wait_up_to_date("web", 1, through=one)

    # The other takes the way that it was told, though the owner is not gone.
    one.stop()
    said = two.refuses("add-pool", "stolen", one.pool.option)
    lvm(*re.search(r"vgchange --deltag [^']*", said)[0].split())
    two.blkrep("add-pool", "stolen", one.pool.option)
    one.start()
    failure = wait_for("the owner is told that it is used", lambda: pool_of(one, one).get("failure"), 60)
    check("in use" in failure, "without device-mapper one at a time has the disks", failure)
    two.stop()
    failure = wait_for("and whose it is", lambda: "belongs to" in pool_of(one, one).get("failure", "") and pool_of(one, one)["failure"], 60)
    check("vgchange --deltag" in failure, "the way out", failure)
    check("pool 'default' is failing: " in one.blkrep("status") and "belongs to" in one.blkrep("status"), "status tells it")
    check(cluster.replicas("web", one)[one.name]["failure"], "the replica there is lost")
    check(one.pool.volumes() == ["web_00", "web_meta"], "nothing was removed", one.pool.volumes())


@story(minutes=3)
def lvm_is_not_installed(scene):
    """The program lvm is gone when a daemon is started: the status and the answers say so, with the way out, and the other node goes
    on. When it is there again the replica is, too, and has what was written meanwhile."""
    cluster = scene.closes(Cluster(scene, 2, pool="lvm", pool_bytes=128 * MIB)).form()
    one, two = cluster.nodes
    cluster.add_volume("web", "16MiB", 2)
    two.stop()
    program = Path(shutil.which("lvm", path="/usr/sbin:/sbin")).resolve()
    hidden = f"mount --bind /dev/null {program} && exec {BINARY} --root {two.root} "
    two.pid = without(two, f"{hidden} daemon").pid
    failure = wait_for("it is told", lambda: pool_of(one, two).get("failure"), 30)
    check("install lvm2" in failure, "what is missing and the way out", failure)
    wait_for("the replica says so, too", lambda: "install lvm2" in (cluster.replicas("web", one)[two.name]["failure"] or ""), 30)
    check("install lvm2" in one.blkrep("status"), "status shows it")
    two.refuses("add-pool", "more", "lvm:nosuch", naming=["install lvm2"])
    known = oracle.Oracle(16 * MIB // 4096, seed=12)
    oracle.fill(known, one.uri("web"))
    fresh = without(two, f"{hidden.replace(str(two.root), str(scene.folder / 'fresh'))} init {two.address} -q --pool lvm:nosuch")
    check(fresh.wait(30) == 1 and "install lvm2" in (two.folder / "daemon.log").read_text(), "init says so")

    two.stop()
    two.start()
    cluster.wait_up_to_date("web", 2)
    oracle.verify(known, two.uri("web"))


@story(minutes=4, idle=True)
def a_group_that_is_locked_keeps_nobody_else_waiting(scene):
    """A command of LVM's that hangs has a node's volume group locked. What is in another pool is there at once after a restart, and
    new volumes are made there; the status names the pool that does not answer. When the lock is gone it is well again."""
    cluster = scene.closes(Cluster(scene, 1)).form()
    one = cluster[1]
    group = scene.closes(LvmPool(one.folder, "n1", 128 * MIB))
    one.blkrep("add-pool", "ssd", group.option)
    cluster.add_volume("web", "16MiB", 1)
    cluster.add_volume("db", "16MiB", 1, "--pool", "ssd")
    known = oracle.Oracle(16 * MIB // 4096, seed=13)
    oracle.fill(known, one.uri("db"))
    one.stop()
    with open(f"/run/lock/lvm/V_{group.group}", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        one.start()
        cluster.wait_up_to_date("web", 1, seconds=20)
        one.blkrep("add-volume", "more", "16MiB", "--deploy", "1", "--pool", "default", seconds=20)
        cluster.wait_up_to_date("more", 1, seconds=20)
        failing = lambda: next(pool for pool in one.json("list-pools") if pool["name"] == "ssd").get("failure")
        failure = wait_for("it is told", failing, 150)
        check("did not end within" in failure and group.group in failure, "what hangs", failure)
        check("pool 'ssd' is failing: " in one.blkrep("status"), "status shows it")
    cluster.wait_up_to_date("db", 1, seconds=100)
    oracle.verify(known, one.uri("db"))


@story(minutes=2)
def lvm_does_not_look_at_attached_volumes(scene):
    """A volume is attached, and somebody makes a volume group on it. Its device stops to answer, as while the volume's I/O is suspended: what
    the pool asks of LVM ends all the same, because LVM is kept from reading that device."""
    cluster = scene.closes(Cluster(scene, 1, pool="lvm", pool_bytes=256 * MIB)).form()
    one = cluster[1]
    cluster.add_volume("web", "32MiB", 1)
    device = one.blkrep("attach", "web").strip()
    inner = f"{leftovers.prefix()}_inner"
    lvm("vgcreate", "--quiet", "--yes", inner, device)
    scene.callback(lambda: subprocess.run(["vgremove", "--quiet", "--yes", inner], stderr=subprocess.DEVNULL))
    helper = helper_of(one, "web")
    os.kill(helper, signal.SIGSTOP)
    try:
        began = time.monotonic()
        one.blkrep("add-volume", "db", "16MiB", "--deploy", "1", seconds=40)
        cluster.wait_up_to_date("db", 1, seconds=20)
        scene.note(f"a volume was made in {time.monotonic() - began:.1f} s beside a device that does not answer")
    finally:
        os.kill(helper, signal.SIGCONT)
    check(inner in lvm("vgs", "--nolocking", "--noheadings", "-o", "vg_name"), "without the filter LVM reads it")
    lvm("vgremove", "--quiet", "--yes", inner)
    one.blkrep("detach", "web")


def without(node, script):
    """A process in a mount namespace of its own, where something is hidden."""
    with open(node.folder / "daemon.log", "ab") as log:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=node.enter, cwd=node.folder)


def pool_of(asked, node):
    return asked.json("list-pools", "-N", node.name)[0]


def mount(folder, *arguments):
    subprocess.run(["mount", *arguments, folder], check=True, stdin=subprocess.DEVNULL)


def known_pools(node, count):
    pools = node.json("list-pools")
    return pools if len([pool for pool in pools if pool["pool"]]) == count else None
