"""A node dies, or falls silent, in the middle of a snapshot: writes that are held go on, and no part that is not whole is shown as one."""

import subprocess
import threading
import time

import clients
from cluster import BINARY
from stories_snapshots import Ledger, digest, entry, only, stored, three_with_data
from suite import check, story, wait_for

# What src/control/snapshots/take.rs waits for one that is silent (5 s and the last question's 3), and what the nodes need to go on
# without one that was in sync.
BOUND = 20


class Watch:
    """The longest time for which a ledger was not answered."""

    def __init__(self, ledger):
        self.ledger, self.longest, self.running = ledger, 0.0, True
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        seen, since = self.ledger.answered, time.monotonic()
        while self.running:
            time.sleep(0.01)
            now = time.monotonic()
            if self.ledger.answered != seen:
                seen, since = self.ledger.answered, now
            self.longest = max(self.longest, now - since)

    def close(self):
        self.running = False
        self.thread.join(10)


def unfinished(node):
    return list(node.pool.folder.glob(".new-*@*"))


def caught(taker, victim, name, strike):
    """Takes a snapshot and strikes at the victim when its part is half made: how the command ended, or None if it was too fast."""
    taking = subprocess.Popen(
        [BINARY, "--root", taker.root, "add-snapshot", name, "web"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=taker.enter,
    )
    struck = False
    while taking.poll() is None and not struck:
        if unfinished(victim):
            strike()
            struck = bool(unfinished(victim))
            if not struck:
                break
    out, err = taking.communicate(timeout=60)
    return (taking.returncode, out, err) if struck else None


def nothing_else_is_there(cluster, names):
    """Every file of a snapshot in a pool is that of a listed part, and no half file is left."""
    parts = {(s["name"], node) for s in cluster[1].json("list-snapshots") for node in s["nodes"]}
    check({name for name, _ in parts} == names, "the snapshots", parts)
    for node in cluster.nodes:
        check(not unfinished(node), "no half file", node)
        for path in node.pool.folder.glob("*@*"):
            check((path.name.split("@")[1].rsplit(".", 1)[0], node.name) in parts, "a part that is listed", path)
    return True


def is_without(cluster, name, victim):
    """The snapshot is whole on the others, and of one moment; nobody says that the victim has it."""
    (listed,) = only(cluster[1], name=name)
    others = [node for node in cluster.nodes if node is not victim]
    check(listed["state"] == "ok" and listed["nodes"] == [node.name for node in others], "the others have it", listed)
    sums = [[digest(path) for path in stored(node, "web", name)] for node in others]
    check(sums[0] == sums[1] and len(sums[0]) == 2, "their parts are the same", sums)
    zero, first = (entry(path.read_bytes()[:4096]) for path in stored(others[0], "web", name))
    check(first <= zero <= first + 1, "the volumes are of one moment", zero, first)


@story(minutes=4, idle=True)
def a_secondary_that_dies_in_a_snapshot_has_no_part_of_it(scene):
    """A secondary is killed, and then stopped so that it says nothing at all, when its part is half made. Writes go on within the bound,
    the others' snapshot is whole, the answer names the node that has none, and when it is back its half part is gone."""
    cluster = three_with_data(scene)
    one, two, three = cluster.nodes
    ledger = scene.closes(Ledger(one, "web"))
    wait_for("there is load", lambda: ledger.answered > 50, 30)
    watch = scene.closes(Watch(ledger))

    names = set()
    for how, strike, back in (("killed", three.kill, three.start), ("silent", three.freeze, three.thaw)):
        watch.longest = 0.0
        for number in range(10):
            name = f"{how}{number}"
            ended = caught(one, three, name, strike)
            if ended:
                break
            # It was too fast: the daemon is there again, and what was taken goes.
            back()
            cluster.wait_up_to_date("web", 3)
            one.run("remove-snapshot", "web", name, "-q")
        check(ended, "it was caught in the middle")
        check(ended[0] == 0 and three.name in "".join(ended[1:]), "the answer names who has no part", ended)
        before = ledger.answered
        wait_for("writes go on", lambda: ledger.answered > before + 10, BOUND)
        scene.note(f"{how}: writes waited for {watch.longest:.1f} s at most")
        check(watch.longest < BOUND, "writes were not held for longer", watch.longest)
        is_without(cluster, name, three)
        back()
        cluster.wait_up_to_date("web", 3)
        names.add(name)
        wait_for("its half part is gone", lambda: nothing_else_is_there(cluster, names), 60)
        is_without(cluster, name, three)
    ledger.stop()


@story(minutes=4)
def a_primary_that_dies_in_a_snapshot_makes_it_come_to_nothing(scene):
    """The primary is killed when its part is half made, and another node takes the snapshot: that is refused with the reason, another
    node serves what was answered, and nothing is left of the snapshot anywhere when the node is back."""
    cluster = three_with_data(scene)
    one, two, three = cluster.nodes
    last = 0
    for number in range(10):
        ledger = Ledger(one, "web")
        wait_for("there is load", lambda: ledger.answered > 50, 30)
        ended = caught(two, one, f"try{number}", one.kill)
        ledger.running = False
        ledger.thread.join(60)
        last = ledger.answered
        if ended:
            break
        one.start()
        cluster.wait_up_to_date("web", 3)
        one.run("remove-snapshot", "web", f"try{number}", "-q")
    check(ended, "it was caught in the middle")
    check(ended[0] != 0 and "primary changed, or is gone" in ended[2], "why there is none", ended)
    began = time.monotonic()
    reader = wait_for("another node serves it", lambda: clients.connect(two.uri("web/1")), BOUND)
    check(entry(reader.pread(4096, 0)) in (last, last + 1), "what was answered is there", last)
    reader.pwrite(bytes(4096), 4096)
    check(time.monotonic() - began < BOUND, "writes go on", time.monotonic() - began)
    reader.shutdown()
    check(not only(two, state="ok"), "nothing is shown as whole", two.json("list-snapshots"))
    one.start()
    cluster.wait_up_to_date("web", 3)
    wait_for("nothing is left of it", lambda: nothing_else_is_there(cluster, set()), 60)
    wait_for("nobody uses it", lambda: cluster.resource("web")["primary"] is None, 20)
    for volume in (0, 1):
        cluster.check_identical("web", volume)
