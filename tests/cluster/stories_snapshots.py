"""Snapshots: of one moment on every node, restored, cloned, rolled back to, read; and what becomes of them when somebody dies."""

import hashlib
import json
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import nbd

import clients
import oracle
from cluster import BINARY, Cluster
from suite import check, story, wait_for

MIB = 1 << 20


class Ledger:
    """Writes the numbers 1, 2, 3 ... into the first block of volume 0 and, when that is answered, of volume 1: at any one moment volume
    0 is at the same number as volume 1, or one ahead, and neither is behind what was answered."""

    def __init__(self, node, resource):
        self.handles = [clients.connect(node.uri(f"{resource}/{volume}")) for volume in (0, 1)]
        self.answered, self.running, self.failure = 0, True, None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while self.running:
                number = self.answered + 1
                for handle in self.handles:
                    handle.pwrite(number.to_bytes(8, "big") * 512, 0)
                self.answered = number
        except nbd.Error as failure:
            self.failure = failure

    def stop(self):
        self.running = False
        self.thread.join(60)
        check(not self.thread.is_alive() and self.failure is None, "the ledger's writes were answered", self.failure)
        for handle in self.handles:
            handle.shutdown()
        self.handles = []
        return self.answered

    close = stop


def entry(block):
    """The number that a ledger's block has; all of it the same."""
    check(block[:8] * (len(block) // 8) == block, "a block is whole")
    return int.from_bytes(block[:8], "big")


def stored(node, resource, snapshot):
    """The files of a snapshot in a node's pool, by volume."""
    return sorted(node.pool.folder.glob(f"{resource}_*@{snapshot}.*"))


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def only(node, **wanted):
    return [one for one in node.json("list-snapshots") if all(one[key] == value for key, value in wanted.items())]


@story(minutes=5)
def a_snapshot_is_of_one_moment_on_every_node(scene):
    """Two volumes are under load, one of them by fio; whoever takes snapshots is not the primary. All nodes' parts are the same, byte for
    byte, the two volumes are of one moment, and nothing that was answered before is missing. It can be read, not written; restored as
    another resource it is the same on every node, and in sync from the start; a clone, too, and its helper is gone."""
    cluster = scene.closes(Cluster(scene, 3)).form()
    one, two, three = cluster.nodes
    one.blkrep("add-volume", "web", "96MiB")
    one.blkrep("add-volume", "web", "32MiB")
    one.blkrep("deploy-resource", "web", "3")
    cluster.wait_up_to_date("web", 3)
    ledger = scene.closes(Ledger(one, "web"))
    load = {"ioengine": "nbd", "uri": one.uri("web"), "rw": "randwrite", "bs": "4k", "iodepth": 16, "offset": "1m", "size": "64m"}
    fio = clients.start_fio({**load, "time_based": 1, "runtime": 600}, scene.folder)
    wait_for("there is load", lambda: ledger.answered > 50, 30)

    for name in ("first", "second"):
        before = ledger.answered
        told = two.blkrep("add-snapshot", name, "web", "--output", "json")
        check(all(node.name in told for node in cluster.nodes), "every node has a part", told)
        parts = [stored(node, "web", name) for node in cluster.nodes]
        check(all(len(part) == 2 for part in parts), "both volumes everywhere", parts)
        sums = [[digest(path) for path in part] for part in parts]
        check(sums[0] == sums[1] == sums[2], "all parts are the same", sums)
        zero, first = (entry(path.read_bytes()[:4096]) for path in parts[0])
        check(before <= first <= zero <= first + 1, "the volumes are of one moment", before, zero, first)
        after = ledger.answered
        wait_for("writes go on", lambda: ledger.answered > after, 10)
    fio.send_signal(2)
    clients.finish_fio(fio, interrupted=True)

    names = clients.output(["nbdinfo", "--list", "--json", one.uri("")])
    check('"web@first"' in names and '"web/1@first"' in names, "snapshots are listed to clients", names)
    reader = clients.connect(two.uri("web/1@first"))
    check(reader.is_read_only() and reader.get_size() == 32 * MIB, "it is read-only")
    check(hashlib.sha256(reader.pread(32 * MIB, 0)).hexdigest() == digest(stored(two, "web", "first")[1]), "it reads as it is")
    check([row.split(",") for row in one.blkrep("s", "-m").splitlines()] == [["web", "first"], ["web", "second"]], "drbdmanage's list")
    check("first" in one.blkrep("list-snapshots") and len(one.blkrep("sa", "-m").splitlines()) == 6, "the tables")

    wanted = [digest(path) for path in stored(one, "web", "first")]
    three.blkrep("restore-snapshot", "old", "web", "first")
    cluster.wait_up_to_date("old", 3)
    for volume in (0, 1):
        cluster.check_identical("old", volume)
        file = one.pool.folder / f"old_{volume:02}"
        check(digest(file) == wanted[volume], "it has what the snapshot has", volume)
    copied = one.uri("old/1")
    check(entry(clients.connect(copied).pread(4096, 0)) == entry(reader.pread(4096, 0)), "a client reads it")

    two.blkrep("clone", "web", "copy")
    cluster.wait_up_to_date("copy", 3)
    cluster.check_identical("copy", 0)
    wait_for("the clone's helper is gone", lambda: len(one.json("list-snapshots")) == 2, 20)
    ledger.stop()

    one.refuses("add-snapshot", "first", "web", naming=["first", "already"])
    one.refuses("add-snapshot", "x", "nosuch", naming=["nosuch"])
    one.refuses("add-snapshot", "x", "web", "nosuch", naming=["nosuch"])
    one.refuses("remove-snapshot", "web", "nosuch", "-q", naming=["nosuch"])
    one.refuses("restore-snapshot", "old", "web", "first", naming=["old", "already"])
    one.refuses("remove-resource", "web", "-q", naming=["snapshot"])
    one.refuses("remove-volume", "web/1", "-q", "--force", naming=["snapshot"])
    one.blkrep("remove-snapshot-assignment", "web", "second", two.name, "-q")
    wait_for("two's part is gone", lambda: not stored(two, "web", "second"), 20)
    check(only(one, name="second")[0]["nodes"] == [one.name, three.name], "the others stay")
    one.blkrep("remove-snapshot", "web", "first", "second", "-q")
    check(not one.json("list-snapshots") and stored(two, "web", "first"), "one that is read stays in its pool for now")
    reader.shutdown()
    wait_for("all parts are gone", lambda: not any(list(node.pool.folder.glob("*@*")) for node in cluster.nodes), 60)


@story(minutes=5, idle=True)
def a_snapshot_whose_taker_dies_comes_to_nothing(scene):
    """Whoever takes a snapshot is killed in the middle of it. The client's writes go on within the hold's time, and when the node is
    back nothing is left of the snapshot, in the model or in a pool. The name can be used again."""
    cluster = three_with_data(scene)
    one, two, three = cluster.nodes
    ledger = scene.closes(Ledger(one, "web"))

    def caught(name):
        """Whether the taker was killed while the snapshot was being taken."""
        taking = subprocess.Popen([BINARY, "--root", two.root, "add-snapshot", name, "web"], stderr=subprocess.PIPE, preexec_fn=two.enter)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and taking.poll() is None:
            if only(one, name=name, state="taking"):
                two.kill()
                break
        taking.communicate(timeout=60)
        if two.running:
            # It was too fast. What it leaves would fill the disk in the end.
            one.run("remove-snapshot", "web", name, "-q")
        return not two.running

    check(any(caught(f"try{number}") for number in range(20)), "the taker was caught in the middle")
    before = ledger.answered
    wait_for("writes go on", lambda: ledger.answered > before + 10, 30)
    two.start()
    wait_for("nothing of it is in the model", lambda: not only(one, state="taking"), 60)
    names = {one["name"] for one in one.json("list-snapshots")}
    wait_for("nothing of it is in a pool", lambda: all(
        path.name.split("@")[1].rsplit(".", 1)[0] in names for node in cluster.nodes for path in node.pool.folder.glob("*@*")
    ), 60)
    cluster.wait_up_to_date("web", 3)
    two.blkrep("add-snapshot", "again", "web")
    sums = [[digest(path) for path in stored(node, "web", "again")] for node in cluster.nodes]
    check(sums[0] == sums[1] == sums[2] and len(sums[0]) == 2, "the next one is whole", sums)
    ledger.stop()


@story(minutes=5, idle=True)
def a_rollback_leaves_no_two_pasts(scene):
    """A resource is rolled back while one of its nodes is away and another is killed in the middle. It is refused while somebody uses it.
    In the end all three have what the snapshot had and what was written since the rollback, the same on every disk."""
    cluster = scene.closes(Cluster(scene, 3)).form()
    one, two, three = cluster.nodes
    cluster.add_volume("web", "64MiB", 3)
    then = oracle.Oracle(64 * MIB // 4096, seed=1)
    oracle.fill(then, one.uri("web"))
    one.blkrep("add-snapshot", "then", "web", one.name, two.name)
    later = oracle.Oracle(64 * MIB // 4096, seed=2)
    oracle.fill(later, two.uri("web"))
    user = clients.connect(one.uri("web"))
    two.refuses("rollback-snapshot", "web", "then", "-q", naming=["in use", one.name])
    user.shutdown()
    oracle.verify(later, one.uri("web"))
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)

    three.stop()
    notes = told(one, "rollback-snapshot", "web", "then", "-q")
    check(any(three.name in note and "no part" in note for note in notes), "the answer tells who has no part", notes)
    two.kill()
    two.start()
    wait_for("it can be used again", lambda: reads(then, one), 60)
    oracle.verify(then, one.uri("web"))
    oracle.fill(then, two.uri("web"), share=0.3)
    three.start()
    cluster.wait_up_to_date("web", 3, seconds=90)
    oracle.verify(then, three.uri("web"))
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
    cluster.check_identical("web")
    check([snapshot["name"] for snapshot in one.json("list-snapshots")] == ["then"], "the snapshot stays")


def told(node, *arguments):
    """The notes of an answer."""
    return json.loads(node.blkrep(*arguments, "--output", "json")).get("notes", [])


def reads(known, node, resource="web"):
    try:
        oracle.verify(known, node.uri(resource))
        return True
    except (nbd.Error, oracle.Lost):
        return False


@story(minutes=4, idle=True)
def what_is_restored_grows_before_it_is_everywhere(scene):
    """A node is away while a snapshot is restored, and while the new resource grows, gets a volume and is written to. When it is back it makes
    its replica of its part, which is smaller, has it grow, and is the same as the others in the end."""
    cluster = scene.closes(Cluster(scene, 3)).form()
    one, _, three = cluster.nodes
    cluster.add_volume("web", "32MiB", 3)
    known = oracle.Oracle(32 * MIB // 4096, seed=1)
    oracle.fill(known, one.uri("web"))
    one.blkrep("add-snapshot", "then", "web")
    three.stop()
    notes = told(one, "restore-snapshot", "old", "web", "then")
    check(len(notes) == 1 and three.name in notes[0] and "offline" in notes[0], "the answer tells whose replica is missing", notes)
    wait_for("it can be used", lambda: reads(known, one, "old"), 60)
    one.blkrep("resize-volume", "old", "40MiB")
    one.blkrep("add-volume", "old", "16MiB")
    wait_for("it is larger", lambda: clients.connect(one.uri("old")).get_size() == 40 * MIB, 60)
    client = clients.connect(one.uri("old"))
    check(client.pread(8 * MIB, 32 * MIB) == bytes(8 * MIB), "what has come is zeroes")
    tail = os.urandom(MIB)
    client.pwrite(tail, 36 * MIB)
    client.flush()
    client.shutdown()
    three.start()
    cluster.wait_up_to_date("old", 3, seconds=90)
    wait_for("nobody uses it", lambda: cluster.resource("old")["primary"] is None, 20)
    for volume in (0, 1):
        cluster.check_identical("old", volume)
    oracle.verify(known, three.uri("old"))
    check(clients.connect(three.uri("old")).pread(MIB, 36 * MIB) == tail, "what was written behind it is there")
    os.truncate(stored(three, "web", "then")[0], 16 * MIB)
    notes = told(one, "restore-snapshot", "cut", "web", "then")
    check(len(notes) == 1 and three.name in notes[0] and "cut short" in notes[0], "and whose part is not whole", notes)
    cluster.wait_up_to_date("cut", 2)
    oracle.verify(known, one.uri("cut"))


@story(minutes=3, idle=True)
def a_schedule_takes_one_a_minute(scene):
    """The first is taken when its minute is over, and no more after it was turned off."""
    cluster = scene.closes(Cluster(scene, 1)).form()
    one = cluster.nodes[0]
    cluster.add_volume("web", "16MiB", 1)
    one.refuses("schedule-snapshots", "web", "--every", "1s", naming=["60"])
    one.refuses("schedule-snapshots", "web", naming=["--every"])
    one.blkrep("schedule-snapshots", "web", "--every", "1m", "--keep", "3")
    (schedule,) = one.json("list-schedules")
    check((schedule["every"], schedule["keep"]) == (60, 3) and "last" not in schedule, "it is listed", schedule)
    check(not one.json("list-snapshots"), "none yet")
    wait_for("one is taken", lambda: only(one, scheduled=True, state="ok"), 90)
    one.blkrep("schedule-snapshots", "web", "--off")
    check(one.blkrep("list-schedules").strip() == "No schedules defined", "none any more")
    check(only(one, scheduled=True)[0]["name"].startswith("auto-"), "its name tells when")


@story(minutes=3)
def a_disk_that_hangs_holds_writes_for_seconds(scene):
    """The second node's disk does not answer while parts of two snapshots are copied, and its daemon does; one is taken by that node, one
    by the other. Both go on without its part and say so, before a client would give up. When the disk answers nothing is left there,
    and the next snapshot has a part everywhere."""
    cluster = scene.closes(Cluster(scene, 2, pool="faulty")).form()
    one, two = cluster.nodes
    takers = {"web": one, "data": two}
    known = {name: oracle.Oracle(32 * MIB // 4096, seed=number) for number, name in enumerate(takers)}
    for name in takers:
        cluster.add_volume(name, "32MiB", 2)
        oracle.fill(known[name], one.uri(name), share=0.5)
    writers = {name: oracle.Client(known[name], one.uri(name)).start() for name in takers}

    two.pool.disk.hang("@hung")
    with ThreadPoolExecutor() as threads:
        taking = {name: threads.submit(taker.blkrep, "add-snapshot", "hung", name, "--output", "json") for name, taker in takers.items()}
        told = {name: json.loads(future.result()) for name, future in taking.items()}
    for name, answer in told.items():
        check(answer["nodes"] == [one.name], "the snapshot is the other node's alone", answer)
        check(15_000 < answer["held"] < 29_000, "writes were held for less than half a minute", answer["held"])
        check(any(two.name in note and "20 s" in note for note in answer["notes"]), "the answer tells whose part is missing", answer)
    for name, writer in writers.items():
        answered = known[name].acknowledged
        wait_for("writes go on", lambda: known[name].acknowledged > answered + 50, 20)
        check(writer.running and writer.failed == 0 and writer.stall < 30, "the client saw a pause", writer.error, writer.stall)
    two.pool.disk.well()
    left = lambda: [path.name for path in two.pool.folder.iterdir() if "@" in path.name]
    wait_for("nothing of it is left", lambda: not left(), 30)

    for name, writer in writers.items():
        answer = json.loads(two.blkrep("add-snapshot", "well", name, "--output", "json"))
        check(answer["nodes"] == [one.name, two.name], "both have a part again", answer)
        sums = [[digest(path) for path in stored(node, name, "well")] for node in cluster.nodes]
        check(sums[0] == sums[1] and len(sums[0]) == 1, "they are the same", sums)
        writer.stop()
        oracle.verify(known[name], two.uri(name))


def three_with_data(scene):
    """A cluster with a resource of two volumes, whose copy takes a while."""
    cluster = scene.closes(Cluster(scene, 3)).form()
    one = cluster[1]
    one.blkrep("add-volume", "web", "256MiB")
    one.blkrep("add-volume", "web", "16MiB")
    one.blkrep("deploy-resource", "web", "3")
    cluster.wait_up_to_date("web", 3)
    known = oracle.Oracle(256 * MIB // 4096, seed=3)
    fill = clients.connect(one.uri("web"))
    for at in range(4, 256, 4):
        fill.pwrite(known.content(at, at + 1) * (4 * MIB // 4096), at * MIB)
    fill.shutdown()
    return cluster
