"""Containers whose data outlives them, and follows them to another node.

One kernel serves every node of a test: a `sync` that names no file would wait for the other nodes' mounts, too."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from cluster import Cluster, Node
from engine import IMAGE, SOCKET, Engine, Space
from processes import end_all
from suite import check, story, wait_for

UPLOADS = "/var/www/html/wp-content/uploads"


class DockerNode(Node):
    """A node whose daemon and engine share a mount namespace, as they do on a machine of their own."""

    @property
    def local(self):
        return [*super().local, "--docker-socket", SOCKET]


class Site(Cluster):
    """A cluster with an engine on every node: `site.engine(1)`."""

    def __init__(self, scene, count):
        super().__init__(scene, count)
        self.spaces, self.engines = [], []
        for number, node in enumerate(self.nodes, 1):
            space = scene.closes(Space(self.network.namespace(number), node.folder))
            self.spaces.append(space)
            node.__class__ = DockerNode
            node.enter = space.enter
            self.engines.append(scene.closes(Engine(space, node.folder / "docker")))

    def engine(self, number):
        return self.engines[number - 1]

    def close(self):
        super().close()
        for space in self.spaces:
            end_all(space.processes())


def site(scene, count=2):
    made = scene.closes(Site(scene, count))
    made.form()
    return made


@story(minutes=2)
def the_tutorials_walk(scene):
    """init, add-node, docker volume create, list-resources says OK, a container writes, is removed, and one on the other node reads;
    then the same volume by hand, over NBD."""
    cluster = site(scene)
    one, two = cluster.engine(1), cluster.engine(2)
    said = one.docker("volume", "create", "-d", "blkrep", "--name=dockervolume")
    check(said == "dockervolume", "docker names the volume", said)
    listed = cluster[1].blkrep("list-resources")
    check("dockervolume" in listed and "ok" in listed.lower(), "the resource is ok", listed)
    one.box("dockervolume", f"echo hello > {UPLOADS}/post; sync {UPLOADS}/post", at=UPLOADS)
    check(two.box("dockervolume", f"cat {UPLOADS}/post", at=UPLOADS) == "hello", "the other node's container reads it")
    check(two.box("dockervolume", f"ls -A {UPLOADS}", at=UPLOADS) == "post", "nothing else is shown, no lost+found")
    device = cluster[1].blkrep("attach", "dockervolume", "--read-only").strip()
    kind = subprocess.check_output(["blkid", "-p", "-o", "value", "-s", "TYPE", device], text=True).strip()
    check(kind == "ext4", "the volume by hand holds the file system", kind)
    cluster[1].blkrep("detach", "dockervolume")
    one.docker("volume", "rm", "dockervolume")
    check(two.docker("volume", "ls", "-q") == "", "it is gone on both nodes")
    check("dockervolume" not in cluster[2].blkrep("list-resources"), "the resource went with it")


@story(minutes=2)
def options_and_what_is_shown(scene):
    """Every option does what it says; wrong ones are refused by name, and nothing is made. Both nodes show the same volumes with how
    they are. A volume in use is not removed, and its name works with odd characters."""
    cluster = site(scene)
    one, two = cluster.engine(1), cluster.engine(2)
    create = ["volume", "create", "-d", "blkrep"]
    for wrong, word in [
        ("sise=1", "sise"), ("size=much", "size"), ("fs=ntfs", "ntfs"), ("replicas=0", "replicas"), ("uid=root", "uid"),
        ("protocol=D", "protocol"), ("nodes=nowhere", "nowhere"), ("replicas=9", "9"), ("group=-x", "group"),
        ("fs=xfs", "300 MiB"), ("mount-opts=ro", ":ro"), ("mount-opts=noatime,loop", "loop"), ("gid=4294967295", "gid"),
        ("mkfs-opts=-J device=/dev/null", "/dev/null"),
    ]:
        one.refuses(*create, "-o", wrong, "wrong", naming=[word])
    check(cluster[1].json("list-resources") == [], "nothing was made")
    one.refuses(*create, "un/fit", naming=["un/fit"])
    odd = "Odd.name_with-x.y__9"
    one.docker(*create, "-o", "size=512MiB", "-o", "fs=xfs", "-o", "mkfs-opts=-L uploads", "-o", "mount-opts=noatime",
               "-o", "uid=33", "-o", "gid=34", "-o", "nodes=node1,node2", "-o", "protocol=C", odd)
    one.docker(*create, "-o", "size=48", "-o", "replicas=1", "small")
    for node in cluster.nodes:
        node.blkrep("add-pool", "ssd", f"file:{node.folder}/ssd")
    one.docker(*create, "-o", "size=16", "-o", "pool=ssd", "-o", "protocol=A", "fast")
    check(all(list((node.folder / "ssd").glob("*fast_00*")) for node in cluster.nodes), "it lies in the pool that was asked for")
    protocols = {name: cluster.resource(name)["options"]["protocol"] for name in ("fast", "small")}
    check(protocols == {"fast": "A", "small": "C"}, "the protocol that was asked for, or C", protocols)
    two.docker("volume", "rm", "fast")
    stack = [f"stack{number}" for number in range(3)]
    for name in stack:
        one.docker(*create, "-o", "size=16", "-o", "replicas=1", "-o", "group=stack", name)
    told = [json.loads(two.docker("volume", "inspect", name))[0]["Status"] for name in stack]
    check(len({tuple(status["replicas"]) for status in told}) == 1 and told[0]["group"] == "stack", "a group lies together", told)
    one.refuses(*create, "-o", "replicas=2", "-o", "group=stack", "apart", naming=["group"])
    one.docker("volume", "rm", *stack)
    # Also when it begins on both nodes at one moment.
    with ThreadPoolExecutor(2) as pool:
        for number in range(10):
            new = [f"new{number}-1", f"new{number}-2"]
            add = lambda at: at[0].docker(*create, "-o", "size=4", "-o", "replicas=1", "-o", f"group=g{number}", at[1])
            list(pool.map(add, zip((one, two), new)))
            lie = [json.loads(one.docker("volume", "inspect", name))[0]["Status"]["replicas"].keys() for name in new]
            check(lie[0] == lie[1], "a group that began twice lies together", lie)
            two.docker("volume", "rm", *new)
    for engine in (one, two):
        check(sorted(engine.docker("volume", "ls", "-q").split()) == [odd, "small"], "both nodes list the volumes")
    shown = json.loads(two.docker("volume", "inspect", odd))[0]
    status = shown["Status"]
    check((shown["Driver"], shown["Scope"]) == ("blkrep", "global"), "driver and scope", shown)
    check((status["state"], status["size"], status["fs"]) == ("ok", "512 MiB", "xfs"), "its status", status)
    check(set(status["replicas"]) == {"node1", "node2"}, "its replicas", status)
    small = json.loads(two.docker("volume", "inspect", "small"))[0]["Status"]
    check((small["size"], len(small["replicas"])) == ("48 MiB", 1), "a plain number is MiB", small)
    # Where the image has a directory, Docker gives a new volume that one's owner.
    one.docker("run", "-d", "--name", "holder", "--network", "none", "-v", f"{odd}:/new", IMAGE, "sleep", "1000")
    check(one.docker("exec", "holder", "stat", "-c", "%u:%g", "/new") == "33:34", "the directory's owner")
    mounts = one.docker("exec", "holder", "cat", "/proc/mounts")
    check(any(" /new xfs " in line and "noatime" in line for line in mounts.splitlines()), "XFS with the mount's options", mounts)
    device = cluster[1].json("list-attachments")[0]["device"]
    label = subprocess.check_output(["blkid", "-p", "-o", "value", "-s", "LABEL", device], text=True).strip()
    check(label == "uploads", "mkfs had its options", label)
    two.refuses("volume", "rm", odd, naming=["use"])
    shown = json.loads(two.docker("volume", "inspect", odd))[0]
    check(shown["Status"]["primary"] == "node1", "the other node tells where it is in use", shown)
    two.refuses("run", "--rm", "--network", "none", "-v", f"{odd}:/data", IMAGE, "true", naming=["node1"])
    one.docker("rm", "-f", "holder")
    check(two.box(odd, "stat -c %u /new", at="/new") == "33", "the other node mounts it")
    for name in (odd, "small"):
        two.docker("volume", "rm", name)
    check(one.docker("volume", "ls", "-q") == "", "both are gone")
    one.refuses("volume", "inspect", odd)
    settings = cluster[1].root / "etc/blkrep.toml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    with open(settings, "a") as file:
        file.write('\n[docker-defaults]\nsize = "320MiB"\nfs = "xfs"\nnodes = "node2"\n')
    cluster[1].restart()
    one.docker(*create, "usual")
    one.docker(*create, "-o", "size=16", "-o", "fs=ext4", "-o", "replicas=2", "special")
    told = {name: json.loads(one.docker("volume", "inspect", name))[0]["Status"] for name in ("usual", "special")}
    shown = {name: (status["size"], status["fs"], sorted(status["replicas"])) for name, status in told.items()}
    check(shown == {"usual": ("320 MiB", "xfs", ["node2"]), "special": ("16 MiB", "ext4", ["node1", "node2"])}, "the node's defaults", shown)


@story(minutes=3)
def what_is_killed_comes_back(scene):
    """The daemon, a container and the engine are killed in turn while a container uses a volume. The daemon's death is not noticed by
    the container; the others end it, and the volume can be used again at once, here and on the other node, with everything that was
    synced. Two containers share the volume, and it is unmounted only with the second."""
    cluster = site(scene)
    one, two = cluster.engine(1), cluster.engine(2)
    one.docker("volume", "create", "-d", "blkrep", "web")
    forever = 'n=0; while n=$((n+1)); do echo $n > /data/new && sync /data/new && mv /data/new /data/log || exit 9; done'
    applets = ["-v", "web:/data", "--network", "none", "-d"]
    one.docker("run", *applets, "--name", "writer", IMAGE, "sh", "-c", forever)
    one.docker("run", *applets, "--name", "second", IMAGE, "sleep", "1000")
    read = lambda engine, container: int(engine.docker("exec", container, "cat", "/data/log") or 0)
    wait_for("it writes", lambda: read(one, "second") > 3, 20)
    cluster[1].kill()
    cluster[1].start()
    before = read(one, "second")
    wait_for("it goes on writing", lambda: read(one, "second") > before + 3, 60)
    one.docker("kill", "writer")
    last = read(one, "second")
    one.docker("rm", "-f", "writer")
    check(read(one, "second") == last, "the volume is there for the second container")
    mounted = lambda: [a["mounts"] for a in cluster[1].json("list-attachments") if a["node"] == "node1"]
    check(len(mounted()) == 1, "it is mounted once", mounted())
    one.kill()
    one.start()
    one.docker("rm", "-f", "second")
    check(int(one.box("web", "cat /data/log")) == last, "after the engine's death the volume can be used")
    if mounted():
        # An engine that was killed may have forgotten to unmount; this is how its operator does it.
        cluster[1].blkrep("umount", cluster[1].root / "run/blkrep/docker/web")
    wait_for("it is mounted no more", lambda: not mounted(), 20)
    cluster.wait_up_to_date("web", 2)
    check(int(two.box("web", "cat /data/log")) == last, "and on the other node")
    one.docker("volume", "rm", "web")


@story(minutes=3)
def a_lost_nodes_containers_start_on_the_other(scene):
    """Everything on a node is killed at once while a container there writes with sync. On the other node a container finds everything
    that was synced, and writes on. When the first node returns, what it had mounted is not the volume any more."""
    cluster = site(scene)
    one, two = cluster.engine(1), cluster.engine(2)
    one.docker("volume", "create", "-d", "blkrep", "-o", "size=64", "web")
    script = 'n=0; while n=$((n+1)); do echo $n > /data/new && sync /data/new && mv /data/new /data/log && sync /data/log /data && echo $n || exit 9; done'
    one.docker("run", "-d", "--name", "writer", "--network", "none", "-v", "web:/data", IMAGE, "sh", "-c", script)
    wait_for("it writes", lambda: int(one.docker("logs", "--tail", "1", "writer")) > 20, 30)
    confirmed = int(one.docker("logs", "--tail", "1", "writer"))
    end_all([pid for pid in cluster.spaces[0].processes()])
    found = wait_for("the other node has it", lambda: two.box("web", "cat /data/log"), 60)
    check(int(found) >= confirmed, "everything that was synced is there", found, confirmed)
    two.box("web", "echo two > /data/owner; sync /data/owner")
    cluster[1].start()
    cluster.wait_up_to_date("web", 2)
    one.start()
    one.run("rm", "-f", "writer")
    check(wait_for("the first node has it again", lambda: one.box("web", "cat /data/owner"), 30) == "two", "with the other's data")
    two.docker("volume", "rm", "web")


@story(minutes=3)
def twenty_volumes_at_once(scene):
    """Twenty volumes are created, used by a container each and removed, all at the same time and from both nodes."""
    cluster = site(scene)

    def life(number):
        engine, other = cluster.engine(1 + number % 2), cluster.engine(2 - number % 2)
        name = f"v{number}"
        engine.docker("volume", "create", "-d", "blkrep", "-o", "size=16", name, seconds=120)
        check(engine.box(name, f"echo {number} > /data/x; cat /data/x") == str(number), "a container uses its volume", name)
        check(other.box(name, "cat /data/x") == str(number), "and one on the other node", name)
        other.docker("volume", "rm", name, seconds=120)

    with ThreadPoolExecutor(20) as pool:
        for done in [pool.submit(life, number) for number in range(20)]:
            done.result()
    check(cluster[1].json("list-resources") == [], "nothing is left")
    left = [list((node.root / "run/blkrep/attach").glob("*")) for node in cluster.nodes]
    check(not any(left), "no attachment is left", left)


@story(minutes=3)
def a_cut_off_node_does_not_hang_docker(scene):
    """A node is cut off with a volume mounted and not everything written. Its container is removed without Docker being held up; the
    volume is used on the other side meanwhile. When the cut is healed, what the first node still had in its caches does not get on
    the volume, and the node can use it again."""
    cluster = site(scene, 3)
    one, two = cluster.engine(1), cluster.engine(2)
    one.docker("volume", "create", "-d", "blkrep", "-o", "nodes=node1,node2", "-o", "size=64", "web")
    one.box("web", "echo old > /data/owner; sync /data/owner")
    one.docker("run", "-d", "--name", "idle", "--network", "none", "-v", "web:/data", IMAGE, "sleep", "1000")
    one.docker("exec", "idle", "sh", "-c", "echo stale > /data/stale")
    cluster.network.cut(1)
    wait_for("the other side has it", lambda: two.box("web", "cat /data/owner") == "old", 60)
    began = time.monotonic()
    one.docker("rm", "-f", "idle", seconds=50)
    scene.note(f"the container was removed within {time.monotonic() - began:.1f} s")
    check(time.monotonic() - began < 40, "Docker is not held up")
    two.box("web", "echo new > /data/owner; sync /data/owner")
    cluster.network.heal()
    wait_for("the first node has let go", lambda: not list((cluster[1].root / "run/blkrep/attach").glob("*")), 60)
    cluster.wait_up_to_date("web", 2)
    check(wait_for("the first node can use it", lambda: one.box("web", "cat /data/owner"), 60) == "new", "nothing stale was written")
    one.docker("volume", "rm", "web")


@story(minutes=2)
def a_volume_grows_under_its_container(scene):
    """A volume is resized while a container writes to it: the container sees the larger file system, and its data. Then a node without a
    replica has it: a container there finds everything, and what it writes is on the replicas, also when the serving node is lost
    meanwhile."""
    cluster = site(scene, 3)
    one, three = cluster.engine(1), cluster.engine(3)
    one.docker("volume", "create", "-d", "blkrep", "-o", "size=320MiB", "-o", "fs=xfs", "-o", "nodes=node1,node2", "web")
    one.docker("run", "-d", "--name", "holder", "--network", "none", "-v", "web:/data", IMAGE, "sleep", "1000")
    kib = lambda: int(one.docker("exec", "holder", "stat", "-f", "-c", "%b", "/data")) * 4
    one.docker("exec", "holder", "sh", "-c", "echo before > /data/x; sync /data/x")
    before = kib()
    cluster[2].blkrep("resize-volume", "web", "640MiB")
    wait_for("the container sees it", lambda: kib() > before + (250 << 10), 40)
    one.docker("exec", "holder", "dd", "if=/dev/urandom", "of=/data/big", "bs=1M", "count=350", "conv=fsync")
    digest = one.docker("exec", "holder", "sha256sum", "/data/big").split()[0]
    one.docker("rm", "-f", "holder")
    check(three.box("web", "cat /data/x; sha256sum /data/big").split()[:2] == ["before", digest], "a node without a replica has all of it")
    three.docker("run", "-d", "--name", "guest", "--network", "none", "-v", "web:/data", IMAGE, "sleep", "1000")
    cluster.node_named(cluster.wait_primary("web")).kill()
    three.docker("exec", "guest", "sh", "-c", "echo after > /data/x; sync /data/x")
    for node in cluster.nodes:
        if not node.running:
            node.start()
    three.docker("rm", "-f", "guest")
    cluster.wait_up_to_date("web", 2)
    check(one.box("web", "cat /data/x") == "after", "what it wrote is there")
    wait_for("nobody is primary", lambda: cluster.resource("web")["primary"] is None, 20)
    cluster.check_identical("web")


@story(minutes=3)
def a_managed_plugin_passes_questions_on(scene):
    """`blkrep docker bundle` writes what `docker plugin create` takes. Through the managed plugin volumes are made, used by two
    containers at once, and removed; the plugin is not disabled while they use it, and can be afterwards; another node has the data."""
    cluster = site(scene)
    one, two = cluster.engine(1), cluster.engine(2)
    folder = scene.folder / "plugin"
    cluster[1].blkrep("docker", "bundle", folder, "--socket", SOCKET)
    cluster[1].refuses("docker", "bundle", folder, naming=["already"])
    one.docker("plugin", "create", "managed", folder)
    one.docker("plugin", "enable", "managed")
    one.docker("volume", "create", "-d", "managed", "-o", "size=64", "web")
    one.refuses("volume", "create", "-d", "managed", "-o", "sise=64", "wrong", naming=["sise"])
    holder = ["run", "-d", "--network", "none", "-v", "web:/data", "--name"]
    one.docker(*holder, "first", IMAGE, "sleep", "1000")
    one.docker("exec", "first", "sh", "-c", "echo hello > /data/x; sync /data/x")
    one.docker(*holder, "second", IMAGE, "sleep", "1000")
    check(one.docker("exec", "second", "cat", "/data/x") == "hello", "two containers share the volume")
    mounts = one.docker("exec", "second", "cat", "/proc/mounts")
    check(any(" /data ext4 " in line for line in mounts.splitlines()), "it is the volume's own file system", mounts)
    one.docker("rm", "-f", "first")
    check(one.docker("exec", "second", "cat", "/data/x") == "hello", "it stays for the second")
    one.refuses("plugin", "disable", "managed", naming=["in use"])
    one.docker("rm", "-f", "second")
    wait_for("nothing is attached", lambda: not cluster[1].json("list-attachments"), 20)
    check(two.box("web", "cat /data/x") == "hello", "the other node has it")
    one.docker("plugin", "disable", "-f", "managed")
    one.docker("plugin", "enable", "managed")
    check(one.box("web", "cat /data/x") == "hello", "a plugin that was started again serves it")
    one.docker("volume", "rm", "web")
    check(cluster[2].json("list-resources") == [], "it is gone")
    one.docker("plugin", "rm", "-f", "managed")
