#!/usr/bin/python3
"""Operators who err and strangers who mean ill: what is refused changes nothing and says why, and nobody else is disturbed."""

import contextlib
import os
import re
import socket
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib")]

import clients
import network
import oracle
from cluster import Cluster
from suite import check, run_stories, story, wait_for


@story(minutes=3)
def a_cluster_is_forgotten_only_when_another_takes_its_place(scene):
    """`init --force` and `join --force` that come to nothing leave the member what it was, volumes included. The pool is taken over when
    nothing is in it; one that holds volumes of the former cluster is named, and left alone."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, two = cluster.nodes
    cluster.add_volume("web", "8MiB", 2)
    before = cluster.model()
    token = cluster[1].blkrep("add-node", "-j", "third", "127.9.9.9").split("--token ")[1].split()[0]
    one.blkrep("remove-node", "-q", "third")
    two.stop()
    attempts = [
        ["init", two.address, "-qf", "--name", "other", "--pool", "lvm:there-is-none"],
        ["init", two.address, "-qf", "--name", "other", *two.local],
        ["join", f"{one.address}:6999", "-qf", "--token", token, *two.local],
        ["join", "127.0.0.1:1", "-qf", "--token", token, *two.local],
    ]
    for attempt in attempts:
        said = two.refuses(*attempt)
        check("volume" in said or "token" in said or "node" in said or "reach" in said, "the reason", attempt, said)
    check("--pool" in two.refuses(*attempts[1], naming=["2 volume"]), "the way out")
    two.start()
    cluster.wait_online(one)
    cluster.wait_up_to_date("web", 2)
    check(cluster.model() == before, "nothing was changed", cluster.model(), before)

    one.blkrep("remove-resource", "-q", "web")
    wait_for("the replicas are gone", lambda: all(node.pool.volumes() == [".blkrep-pool"] for node in cluster.nodes), 30)
    one.blkrep("remove-node", "-q", two.name)
    two.stop()
    two.init("--force")
    check([node["name"] for node in two.json("list-nodes")] == [two.name], "a new cluster, in the same pool")
    two.blkrep("add-volume", "web", "8MiB", "--deploy", "1")


@story(minutes=2)
def a_volume_that_was_added_can_be_used_at_once(scene):
    """`add-volume` returns when a client can use the volume, on a resource that has replicas already, too. Taking one away asks for that
    one's clients alone."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one = cluster[1]
    cluster.add_volume("web", "8MiB", 2)
    user = clients.connect(one.uri("web"))
    for number in range(1, 4):
        said = one.run("add-volume", "web", "8MiB")
        check(said.returncode == 0 and said.stderr == "", "nothing to remark", said)
        oracle.connected(one.uri(f"web/{number}")).shutdown()
    said = one.refuses("remove-volume", "-q", "web", "0", naming=["volume 0", "in use", one.name])
    check("client" in said, "by whom", said)
    one.blkrep("remove-volume", "-q", "web", "2")
    check([v["volume"] for v in one.json("list-volumes", "-R", "web")] == [0, 1, 3], "it is gone")
    check(user.pread(4096, 0) == bytes(4096), "the client of another one goes on")
    user.shutdown()


@story(minutes=2)
def messages_speak_of_gib_and_lists_are_in_order(scene):
    """Sizes are told in units; lists are sorted as people count; a verb with several names does what it can and tells the rest."""
    cluster = scene.closes(Cluster(scene, 1)).form()
    one = cluster[1]
    for name in ("web10", "web9", "web"):
        one.blkrep("add-volume", name, "16MiB", "--deploy", "1")
    for arguments in (
        ["add-volume", "web", "900TiB"],
        ["add-volume", "new", "900TiB", "--deploy", "1"],
        ["add-volume", "new", "7000PiB", "--deploy", "1"],
        ["resize-volume", "web", "900TiB"],
        ["resize-volume", "web", "8MiB"],
    ):
        said = one.refuses(*arguments)
        check(re.search(r"\d (B|[KMGTPE]iB)\b", said) and not re.search(r"\d{7}", said), "sizes in units", arguments, said)
    check(one.blkrep("resize-volume", "web", "0", "32MiB") == "Operation completed successfully\n", "drbdmanage's form")
    check("named twice" in one.refuses("resize-volume", "web/0", "0", "64MiB"), "one volume")

    check([line.split(",")[0] for line in one.blkrep("r", "-m").splitlines()] == ["web", "web9", "web10"], "for programs")
    check([row["name"] for row in one.json("r")] == ["web", "web9", "web10"], "as JSON")
    check(re.findall(r"\| (web\d*) ", one.blkrep("v")) == ["web", "web9", "web10"], "for people")

    check("pool 'ssd'" in one.refuses("add-volume", "db", "8MiB", "--deploy", "1", "--pool", "ssd"), "a pool that there is not")
    check("remove-node" in one.refuses("modify-node", one.name, "--address", "127.0.0.9", naming=["add-node"]), "the way")
    check("blkrep help add-volume" in one.refuses("av", "web", "1q"), "where to look")
    said = one.refuses("remove-resource", "-q", "web9", "nothing", "web10", naming=["no resource 'nothing'"])
    check("done: web9, web10; not done: nothing" in said, "what was done and what was not", said)
    check(one.blkrep("r", "-m").startswith("web,"), "the others are gone")


@story(minutes=3)
def a_crowd_that_says_nothing_keeps_nobody_out(scene):
    """Hundreds of connections to each port of a node that never say a word, or half of one: a node that starts finds it, its replica
    comes up to date, and a client is served."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, two = cluster.nodes
    cluster.add_volume("web", "8MiB", 2)
    with contextlib.ExitStack() as crowd:
        with network.inside(cluster.network.namespace(1)):
            for port in (6999, 7000, 10809):
                address = one.nbd_address if port == 10809 else one.address
                for number in range(400):
                    stranger = crowd.enter_context(socket.socket())
                    stranger.connect((address, port))
                    if number % 2:
                        stranger.send(b"\x16\x03\x01\x02\x00\x01\x00\x01")
        two.restart()
        began = time.monotonic()
        cluster.wait_online(two, 20)
        cluster.wait_up_to_date("web", 2, through=two)
        two.blkrep("add-resource", "db")
        check(clients.size(one.tcp_uri("web"), enter=one.enter) == 8 << 20, "a client is served")
        check(time.monotonic() - began < 20, "without waiting for the strangers to be given up", time.monotonic() - began)


@story(minutes=2)
def other_users_of_the_machine_are_kept_out(scene):
    """Whatever the mask and the modes of folders that were there: other users can neither reach the sockets, nor read the keys, the model
    and the volumes, nor open a file that the daemon wants to lock."""
    cluster = scene.closes(Cluster(scene, 1))
    one = cluster[1]
    for folder in ("var/lib/blkrep", "run/blkrep"):
        (one.root / folder).mkdir(parents=True)
        (one.root / folder).chmod(0o755)
    mask = os.umask(0)
    try:
        one.init()
    finally:
        os.umask(mask)
    one.blkrep("add-volume", "web", "8MiB", "--deploy", "1")
    exposed = [path for path in one.root.rglob("*") if not path.is_dir() and path.stat().st_mode & 0o077 and path.name != "blkrep.pid"]
    check(not exposed, "files for others", exposed)
    check((one.root / "run/blkrep/blkrep.pid").stat().st_mode & 0o777 == 0o644, "nobody else writes the pid")


if __name__ == "__main__":
    sys.exit(run_stories())
