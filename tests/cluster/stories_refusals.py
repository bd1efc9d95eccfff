"""Wrong inputs: each is refused with a message and a status that is not 0, and changes nothing."""

import contextlib
import os
import re
import socket
import time

import clients
import network
import oracle
from cluster import Cluster, join_command
from pools import lvm
from suite import check, story, wait_for

MIB = 1 << 20

BAD_NAMES = ["", "-x", ".hidden", "a b", "a/b", "../up", "ä", "a\nb", "x" * 101]
BAD_SIZES = ["0", "-5", "abc", "10XB", "1e3", "", "99999999999999999999p"]


@story(minutes=2)
def commands_before_init(scene):
    """On a machine that is in no cluster every command says so, says what to do, and makes nothing."""
    node = scene.closes(Cluster(scene, 1))[1]
    before = tree(node.root)
    for command in (
        ["list-nodes"],
        ["list-resources"],
        ["status"],
        ["add-node", "beta", "10.77.0.2"],
        ["add-volume", "web", "64MiB", "--deploy", "1"],
        ["remove-resource", "web", "-q"],
        ["daemon"],
    ):
        node.refuses(*command, naming=["init"])
    check(tree(node.root) == before, "nothing was made", tree(node.root))


@story(minutes=2)
def a_command_line_that_makes_no_sense(scene):
    """Unknown verbs and options, and missing arguments, end with status 2 and a hint."""
    node = scene.closes(Cluster(scene, 1))[1]
    for command in (["frobnicate"], ["init", "--frobnicate"], ["add-volume", "web"], ["add-node"], ["init", "not-an-address"]):
        check(node.run(*command).returncode == 2, "status 2", command)
        node.refuses(*command)


@story(minutes=3)
def an_init_that_cannot_be(scene):
    """Addresses that are not this machine's, pools that are not there, a port that is taken: refused, and the right `init` works
    afterwards."""
    cluster = scene.closes(Cluster(scene, 1))
    node = cluster[1]
    rest = ["-q", "--name", node.name, *node.local]
    node.refuses("init", "10.77.0.99", *rest, naming=["10.77.0.99"])
    node.refuses("init", "10.77.0.300", *rest)
    node.refuses("init", node.address, "-q", "--name", "a b", *node.local)
    node.refuses("init", node.address, "-q", "--pool", "lvm:nosuchgroup", naming=["nosuchgroup"])
    node.refuses("init", node.address, "-q", "--pool", "zfs:tank", naming=["zfs"])
    (scene.folder / "file").write_text("not a directory")
    node.refuses("init", node.address, "-q", "--pool", f"file:{scene.folder}/file/pool")
    with network.inside(cluster.network.namespace(1)), socket.create_server((node.address, 6999)):
        node.refuses("init", node.address, *rest, naming=["6999"])
    node.refuses("list-nodes", naming=["init"])
    node.init()
    check([n["name"] for n in node.json("status")["nodes"]] == [node.name], "the right init works")


@story(minutes=3)
def a_second_init(scene):
    """`init` on a node that is in a cluster is refused, running or not; the cluster stays as it is."""
    cluster = scene.closes(Cluster(scene, 1)).form()
    node = cluster[1]
    cluster.add_volume("web", "16MiB", 1)
    identity = node.json("status")["cluster"]
    with unchanged(cluster):
        node.refuses("init", node.address, "-q", "--pool", node.pool.option)
    node.stop()
    node.refuses("init", node.address, "-q", "--pool", node.pool.option)
    node.start()
    check(node.json("status")["cluster"] == identity, "it is the same cluster")
    wait_for("its volume is served", lambda: clients.size(node.uri("web")) == 16 * MIB, 20)


@story(minutes=3)
def nodes_that_cannot_be_added(scene):
    """Names and addresses that are wrong or taken."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, two = cluster.nodes
    with unchanged(cluster):
        for name in BAD_NAMES:
            one.refuses("add-node", "-j", name, "10.77.0.9")
        for address in ("10.77.0.300", "nowhere", "", "10.77.0.9/24", "0.0.0.0"):
            one.refuses("add-node", "-j", "gamma", address)
        one.refuses("add-node", "-j", two.name, "10.77.0.9", naming=[two.name])
        one.refuses("add-node", "-j", one.name, "10.77.0.9", naming=[one.name])
        one.refuses("add-node", "-j", "gamma", two.address, naming=[two.address])
        two.refuses("add-node", "-j", "gamma", one.address, naming=[one.address])
        one.refuses("remove-node", "nobody", "-q", naming=["nobody"])
        one.refuses("howto-join", two.name, naming=[two.name])


@story(minutes=4)
def tokens_that_open_nothing(scene):
    """A join with a wrong, altered, replaced or used token is refused; so is one to an address where nobody is. The right token
    still works after all that."""
    cluster = scene.closes(Cluster(scene, 3))
    one, two, three = cluster.nodes
    one.init()
    rest = ["-q", *two.local]
    old = cluster.ticket(two)
    good = join_command(one.blkrep("howto-join", two.name))
    at = good.index("--token") + 1
    check(old != good, "howto-join draws a new token")
    wrong = {
        "empty": "",
        "wrong": "wrong",
        "altered": altered(good[at]),
        "cut": good[at][:-4],
        "replaced": old[at],
    }
    for kind, token in wrong.items():
        scene.note(f"a token that is {kind}")
        said = two.refuses(*good[:at], token, *good[at + 1 :], *rest)
        check(not token or token not in said, "the token is not in the message", said)
    here = good.index(next(a for a in good if re.match(r"[\d.]+(:\d+)?$", a)))
    two.refuses(*good[:here], f"{three.address}:6999", *good[here + 1 :], *rest, naming=[three.address])
    nodes = {n["name"]: n["membership"] for n in one.json("status")["nodes"]}
    check(nodes[two.name] == "expected", "the node has not joined", nodes)
    two.join(good)
    cluster.wait_online(one)
    three.refuses(*good, "-q", *three.local)
    two.refuses(*good, *rest)
    check(len(one.json("status")["nodes"]) == 2, "nobody else has joined")


@story(minutes=3)
def a_token_whose_time_is_over(scene):
    """A token that has expired is refused, and nothing is left of the attempt; another one is drawn and good."""
    cluster = scene.closes(Cluster(scene, 2))
    one, two = cluster.nodes
    one.init()
    for wrong in ("0s", "31d", "5", "soon"):
        one.refuses("add-node", "-j", two.name, two.address, "--valid-for", wrong)
    late = join_command(one.blkrep("add-node", "-j", two.name, two.address, "--valid-for", "1s"))
    over = time.time() + 2
    wait_for("its time is over", lambda: time.time() > over, 10)
    before = tree(two.root)
    two.refuses(*late, "-q", *two.local, naming=["expired", "howto-join"])
    check(tree(two.root) == before, "nothing was made", tree(two.root))
    two.join(join_command(one.blkrep("howto-join", two.name, "--valid-for", "5m")))
    cluster.wait_online(one)


@story(minutes=3)
def volumes_that_cannot_be(scene):
    """Names, sizes and numbers of replicas that are wrong, taken or too large."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one = cluster[1]
    cluster.add_volume("web", "16MiB", 2)
    with unchanged(cluster):
        for name in BAD_NAMES:
            one.refuses("add-volume", name, "16MiB", "--deploy", "1")
            one.refuses("add-resource", name)
        for size in BAD_SIZES:
            one.refuses("add-volume", "data", size, "--deploy", "1")
        one.refuses("add-volume", "data", "4096TiB", "--deploy", "2")
        one.refuses("add-volume", "data", "16MiB", "--deploy", "3")
        one.refuses("add-volume", "data", "16MiB", "--deploy", "-1")
        one.refuses("add-resource", "web", naming=["web"])
        one.refuses("add-volume", "web/0", "16MiB", naming=["web"])
        one.refuses("deploy-resource", "web", "3")
        one.refuses("deploy-resource", "nothing", "2", naming=["nothing"])
        one.refuses("remove-resource", "nothing", "-q", naming=["nothing"])
        one.refuses("remove-volume", "web", "7", "-q")
        one.refuses("remove-volume", "nothing", "0", "-q", naming=["nothing"])
        one.refuses("assign-resource", "web", "nobody", naming=["nobody"])
        one.refuses("assign-resource", "nothing", one.name, naming=["nothing"])
        one.refuses("assign-resource", "web", one.name)
        one.refuses("unassign-resource", "web", "nobody", "-q", naming=["nobody"])
    for node in cluster.nodes:
        with refused_client():
            clients.size(node.uri("nothing"))
    check(clients.size(one.uri("web")) == 16 * MIB, "the volume is still served")


REMOVALS = (["remove-resource", "web", "-q"], ["remove-volume", "web", "0", "-q"], ["undeploy-resource", "web", "-q"])


@story(minutes=3)
def what_is_in_use_stays(scene):
    """While a client is connected its volume cannot be removed, and the client notices nothing of the attempts."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("web", "64MiB", 2)
    known = oracle.Oracle(64 * MIB // 4096, seed=41)
    client = oracle.Client(known, cluster[1].uri("web")).start()
    wait_for("writes", lambda: known.acknowledged > 100, 20)
    with unchanged(cluster):
        for node in cluster.nodes:
            for command in REMOVALS:
                node.refuses(*command, naming=["client", cluster[1].name])
        cluster[2].refuses("unassign-resource", "web", cluster[1].name, "-q", naming=["client"])
        cluster[2].refuses("remove-node", cluster[1].name, "-q", naming=["client"])
    before = known.acknowledged
    wait_for("writes go on", lambda: known.acknowledged > before + 100, 20)
    client.stop()
    oracle.verify(known, cluster[2].uri("web"))


@story(minutes=3)
def a_client_that_has_just_come(scene):
    """A removal that comes right behind a client sees it, though no status shows it yet."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("web", "64MiB", 2)
    for turn in range(10):
        at, by = cluster[1 + turn % 2], cluster[1 + turn // 2 % 2]
        handle = clients.connect(at.uri("web"))
        by.refuses("remove-resource", "web", "-q", naming=["client", at.name])
        handle.pwrite(b"kept" * 1024, turn * 4096)
        handle.shutdown()
    handle = clients.connect(cluster[2].uri("web"))
    check(handle.pread(10 * 4096, 0) == b"kept" * 10240, "everything is there")
    handle.shutdown()


@story(minutes=3, idle=True)
def a_node_that_does_not_say_what_it_serves(scene):
    """A node whose daemon is stopped may have clients: what they use is not removed. When the daemon goes on, so do they."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("web", "64MiB", 2)
    one, two = cluster.nodes
    handle = clients.connect(two.uri("web"))
    handle.pwrite(b"kept" * 1024, 0)
    before = one.json("list-resources")[0]["id"]
    with two.frozen():
        for command in REMOVALS:
            one.refuses(*command, naming=[two.name, "--force"])
    check(one.json("list-resources")[0]["id"] == before, "it is still there")
    check(handle.pread(4096, 0) == b"kept" * 1024, "the client is served")
    handle.shutdown()
    one.blkrep("remove-resource", "web", "-q")


@story(minutes=3)
def a_full_pool(scene):
    """Volumes are added until a volume group is full. The one that does not fit is refused and leaves no trace; those that are
    there work; when one is removed there is room again."""
    cluster = scene.closes(Cluster(scene, 2, pool="lvm", pool_bytes=256 * MIB)).form()
    one = cluster[1]
    cluster.add_volume("first", "100MiB", 2)
    with unchanged(cluster):
        one.refuses("add-volume", "second", "200MiB", "--deploy", "2")
    cluster.add_volume("second", "40MiB", 2)
    with unchanged(cluster):
        one.refuses("add-volume", "third", "100MiB", "--deploy", "1")
    for name, size in (("first", 100), ("second", 40)):
        known = oracle.Oracle(size * MIB // 4096, seed=42)
        oracle.fill(known, one.uri(name))
        oracle.verify(known, cluster[2].uri(name))
    one.blkrep("remove-resource", "first", "-q")
    wait_for("its room is free", lambda: one.blkrep("add-volume", "third", "100MiB", "--deploy", "2"), 30)
    cluster.wait_up_to_date("third", 2)


@story(minutes=3)
def a_group_that_is_filled_from_outside(scene):
    """An administrator makes a logical volume where the pool was known to have room. The status tells what lacks it, and on which
    node; so does a growth. Both are made when there is room again, and what was there has its bytes, and so has the administrator's."""
    cluster = scene.closes(Cluster(scene, 2, pool="lvm", pool_bytes=256 * MIB)).form()
    one, two = cluster.nodes
    cluster.add_volume("first", "64MiB", 2)
    known = oracle.Oracle(64 * MIB // 4096, seed=46)
    oracle.fill(known, one.uri("first"))
    flags = ["--driverloaded", "n", "-an", "-Zn", "-Wn", "--type", "linear"]
    lvm("lvcreate", "--quiet", "--yes", *flags, "--size", "160M", "--name", "alien", two.pool.group)
    one.blkrep("add-volume", "second", "64MiB", "--deploy", "2", "--wait", "0")
    lacking = lambda: " free" in (cluster.replicas("second", one).get(two.name, {}).get("failure") or "")
    wait_for("what lacks room is told", lacking, 60)
    check(two.pool.option in one.blkrep("status"), "status names the pool")
    wait_for("it is known to be full", lambda: one.run("add-volume", "third", "64MiB", "--deploy", "2").returncode == 1, 60)
    one.refuses("add-volume", "third", "64MiB", "--deploy", "2", naming=["room"])
    one.refuses("resize-volume", "first", "128MiB", naming=[two.name])
    oracle.verify(known, two.uri("first"))
    check("alien" in two.pool.volumes(), "the administrator's is not touched")
    lvm("lvremove", "--quiet", "--yes", f"{two.pool.group}/alien")
    cluster.wait_up_to_date("second", 2)
    oracle.verify(known, two.uri("first"))
    wait_for("nobody uses it", lambda: cluster.resource("first")["primary"] is None, 20)
    cluster.check_identical("first")


@story(minutes=3)
def a_full_file_pool(scene):
    """As on volume groups, on a small file system. When another program has taken the room that the pool was known to have, the
    status tells what lacks it; it is made as soon as there is room."""
    cluster = scene.closes(Cluster(scene, 2, pool="small", pool_bytes=256 * MIB)).form()
    one, two = cluster.nodes
    cluster.add_volume("first", "100MiB", 2)
    with unchanged(cluster):
        said = one.refuses("add-volume", "second", "200MiB", "--deploy", "2", naming=["room", "MiB"])
        check(one.name in said or two.name in said, "the node with the most room is named", said)
    two.pool.fill(leave=16 * MIB)
    one.blkrep("add-volume", "second", "64MiB", "--deploy", "2", "--wait", "0")
    wait_for("what lacks room is told", lambda: " free" in (cluster.replicas("second", one)[two.name]["failure"] or ""), 30)
    known = oracle.Oracle(100 * MIB // 4096, seed=43)
    oracle.fill(known, one.uri("first"))
    two.pool.make_room()
    cluster.wait_up_to_date("second", 2)
    oracle.verify(known, two.uri("first"))
    check(clients.size(one.uri("second")) == 64 * MIB, "it is served")


@story(minutes=4)
def a_sparse_pool_that_runs_full(scene):
    """The file system below one replica's sparse file is full. That replica fails, the client notices nothing, and everything that
    was acknowledged is on the other; the status says which one has failed."""
    cluster = scene.closes(Cluster(scene, 2, pool="small-thin", pool_bytes=256 * MIB)).form()
    one, two = cluster.nodes
    cluster.add_volume("web", "64MiB", 2)
    known = oracle.Oracle(64 * MIB // 4096, seed=44)
    two.pool.fill(leave=24 * MIB)
    oracle.fill(known, one.uri("web"))
    wait_for("the full one has failed", lambda: cluster.replicas("web", one)[two.name]["disk"] == "Failed", 30)
    oracle.verify(known, one.uri("web"))
    check(cluster.replicas("web", one)[one.name]["disk"] == "UpToDate", "the other is well")


@story(minutes=4)
def storage_that_is_not_the_replicas(scene):
    """Metadata of another resource, a volume's file that is too short, a pool of another cluster: told in the status, not touched,
    and the other replica serves. When the right storage is back, the node takes part again."""
    cluster = scene.closes(Cluster(scene, 2)).form()
    one, two = cluster.nodes
    for name in ("web", "db"):
        cluster.add_volume(name, "16MiB", 2)
    known = oracle.Oracle(16 * MIB // 4096, seed=45)
    oracle.fill(known, one.uri("web"))

    def told(word):
        failure = cluster.replicas("web", one).get(two.name, {}).get("failure") or ""
        return word in failure and failure

    def with_wrong(file, spoil, word):
        two.stop()
        kept = file.read_bytes()
        spoil(file)
        spoilt = file.read_bytes()
        two.start()
        scene.note(wait_for(f"the status says '{word}'", lambda: told(word), 30))
        check(file.read_bytes() == spoilt, "it was not touched")
        check(clients.size(one.uri("web")) == 16 * MIB, "the other replica serves")
        two.stop()
        file.write_bytes(kept)
        two.start()
        cluster.wait_up_to_date("web", 2)

    pool = two.pool.folder
    with_wrong(pool / "web_meta", lambda file: file.write_bytes((pool / "db_meta").read_bytes()), "belongs to resource")
    with_wrong(pool / "web_00", lambda file: os.truncate(file, 8 * MIB), "MiB")
    strange = scene.closes(Cluster(scene, 1, folder=scene.folder / "strange", enter=cluster.network.enter(2))).form()[1]
    strange.stop()
    two.stop()
    pool.rename(pool.with_name("kept"))
    strange.pool.folder.rename(pool)
    before = tree(pool)
    two.start()
    scene.note(wait_for("the status says whose it is", lambda: told("cluster"), 60))
    check(tree(pool) == before, "it was not touched", tree(pool))
    two.stop()
    pool.rename(strange.pool.folder)
    pool.with_name("kept").rename(pool)
    two.start()
    cluster.wait_up_to_date("web", 2)
    oracle.verify(known, two.uri("web"))


@contextlib.contextmanager
def unchanged(cluster):
    """Checks that the cluster's model and pools are the same after as before."""
    before = cluster.model()
    yield
    after = cluster.model()
    check(after == before, "nothing was changed", f"before {before}", f"after {after}")


@contextlib.contextmanager
def refused_client():
    try:
        yield
    except clients.ClientFailed:
        return
    raise AssertionError("a client got a volume that does not exist")


def altered(token):
    """The token with one digit in its middle changed to another one."""
    middle = len(token) // 2
    return token[:middle] + ("1" if token[middle] != "1" else "2") + token[middle + 1 :]


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
