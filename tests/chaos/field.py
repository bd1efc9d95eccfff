"""Where faults happen: it knows which node is what at the moment, begins a fault and ends it."""

import json
import subprocess

from cluster import Refused
from suite import check, wait_for


class Field:
    """The cluster of a round, and what is broken about it now."""

    def __init__(self, cluster, load, resource, dice, note):
        self.cluster = cluster
        self.load = load
        self.resource = resource
        self.dice = dice
        self.note = note
        self.down = set()
        self.frozen = set()
        self._undo = {}
        self._cuts = 0
        self._slowed = set()

    def begin(self, fault):
        """Lets a fault happen, to whoever it is for at the moment."""
        victim = self._who(fault.who)
        self.note(f"{fault}: {victim}")
        undo = getattr(self, f"_{fault.kind.replace('-', '_')}")(victim)
        if undo:
            self._undo[fault.number] = undo

    def end(self, fault):
        """Ends it, if it has not ended by itself."""
        undo = self._undo.pop(fault.number, None)
        if undo:
            undo()

    def heal(self):
        """Ends everything that is broken. Every daemon runs and answers afterwards."""
        for number in sorted(self._undo):
            self._undo.pop(number)()
        for node in self.cluster.nodes:
            wait_for(f"{node} answers", lambda: node.json("status", seconds=5), 40)

    def check(self):
        """Nothing died but what was killed."""
        for node in self.cluster.nodes:
            check(node in self.down or node.running, f"{node} ended by itself")

    @property
    def whole(self):
        """The nodes that run."""
        return [node for node in self.cluster.nodes if node not in self.down and node not in self.frozen]

    def _who(self, who):
        status = self._status()
        primary = status and next((r["primary"] for r in status["resources"]), None)
        named = {node.name: node for node in self.cluster.nodes}
        if who == "leader" and status:
            return named.get(status.get("leader")) or self._any()
        if who == "primary":
            return named.get(primary) or self.load.home
        if who == "target" and status:
            behind = [r["node"] for r in status["resources"][0]["replicas"] if r["disk"] == "Inconsistent"]
            return named[behind[0]] if behind else self._any()
        if who == "secondary":
            return self.dice.choice([node for node in self.cluster.nodes if node.name != primary])
        return self._any()

    def _any(self):
        return self.dice.choice(self.cluster.nodes)

    def _status(self):
        for node in self.whole:
            try:
                return node.json("status", self.resource, seconds=2)
            except (Refused, subprocess.TimeoutExpired, json.JSONDecodeError, OSError):
                continue
        return None

    def _kill(self, node):
        if node in self.down:
            return None
        self.down.add(node)
        self.frozen.discard(node)
        node.kill()
        return lambda: self._start(node)

    def _start(self, node):
        node.start(wait=False)
        self.down.discard(node)

    def _kill_all(self, _):
        undo = [self._kill(node) for node in self.cluster.nodes]
        return lambda: [start() for start in undo if start]

    def _power(self, _):
        return self._without_power(self.cluster.nodes)

    def _power_one(self, node):
        return self._without_power([node])

    def _without_power(self, nodes):
        """What was flushed must be there; what was only written need not, if no other replica has it."""
        struck = [node for node in nodes if node not in self.down]
        undo = [self._kill(node) for node in struck]
        for node in struck:
            node.pool.disk.lose_power(self.dice.getrandbits(60))
        # What the clients of a dead node had in flight is over when they have noticed.
        wait_for("the clients notice", lambda: self.load.home not in struck or not self.load.busy, 20)
        self.load.known.power_lost()
        return lambda: [start() for start in undo]

    def _restart(self, node):
        if node not in self.whole:
            return None
        self.down.add(node)
        node.ask_to_stop()

        def start():
            node.wait_ended(40)
            self._start(node)

        return start

    def _rolling_restart(self, _):
        for node in self.whole:
            start = self._restart(node)
            start()
            wait_for(f"{node} answers", lambda: node.json("status", seconds=5), 40)

    def _move(self, node):
        self.load.move(node)

    def _burst(self, _):
        """Much is written in a short time, so that who is away has much to catch up with."""
        self.load.most_blocks = 512

        def calm():
            self.load.most_blocks = None

        return calm

    def _freeze(self, node):
        if node not in self.whole:
            return None
        self.frozen.add(node)
        node.freeze()
        pid = node.pid

        def thaw():
            if node in self.frozen and node.pid == pid:
                node.thaw()
            self.frozen.discard(node)

        return thaw

    def _cut(self, node):
        return self._dropping(self.cluster.network.between([node.number]))

    def _cut_one_way(self, node):
        other = self.dice.choice([other for other in self.cluster.nodes if other is not node])
        return self._dropping([(node.number, other.number)])

    def _dropping(self, paths):
        network = self.cluster.network
        network.drop(paths)
        self._cuts += 1
        # Two nodes that decide alone: a client that goes to the other side would split the brain, as the rules allow.
        self.load.pinned = self.load.schedule.quorum == "off"

        def heal():
            network.undrop(paths)
            self._cuts -= 1
            self.load.pinned = self.load.pinned and self._cuts > 0

        return heal

    def _slow(self, node):
        if node in self._slowed:
            return None
        self._slowed.add(node)
        self.cluster.network.slow(node.number, self.dice.choice([500, 4000, 40000]))

        def fast():
            self.cluster.network.fast(node.number)
            self._slowed.discard(node)

        return fast

    def _reset(self, node):
        self.cluster.network.reset(node.number)
