"""Clients that never give up: when their connection breaks, or nothing is answered for too long, they go where they are let in."""

import random
import threading
import time

import oracle

SECTOR = 512


class Load:
    """A few connections to one node at a time, each writing its own part of the volume, all known to one oracle."""

    def __init__(self, cluster, known, resource, schedule, note):
        self.cluster = cluster
        self.known = known
        self.resource = resource
        self.schedule = schedule
        self.note = note
        self.dice = random.Random(schedule.seed ^ 0x10AD)
        self.home = cluster[1]
        self.clients = []
        self.error = None
        # Whether the clients must stay on their node, whatever happens.
        self.pinned = False
        # The most sectors that a request has now, if that is not what the client drew.
        self.most_blocks = None
        self._wanted = None
        self._drawn = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    @property
    def busy(self):
        """Whether a client is connected."""
        return any(client.running for client in self.clients)

    def move(self, node):
        """Hands over: the clients finish what is in flight, leave, and come back at `node`."""
        self._wanted = node

    def end(self, seconds=60):
        """Ends the clients in peace. Raises what was wrong with an answer."""
        self._ending.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise AssertionError(f"the clients have not ended within {seconds} s")
        self.check()

    def close(self):
        """Ends the clients at once, whatever they are at."""
        self._ending.set()
        self._thread.join(60)
        self.leave(lambda client: client.abandon())

    def check(self):
        if self.error:
            raise self.error

    def _run(self):
        try:
            while not self._ending.is_set():
                self._keep()
                time.sleep(0.02)
            for client in self.clients:
                client.finish()
            for client in self.clients:
                self._finish(client, lambda client: client.end())
        except Exception as error:
            self.error = error

    def _keep(self):
        wanted, self._wanted = self._wanted, None
        if wanted and wanted is not self.home:
            self.leave(lambda client: client.end(self.schedule.patience))
            self.home = wanted
        if any(not client.running for client in self.clients):
            self.leave(lambda client: client.abandon())
        elif self.clients and all(client.silent > self.schedule.patience for client in self.clients) and not self.pinned:
            self.note(f"nothing was answered at {self.home} for {self.schedule.patience:.1f} s; the clients leave")
            self.leave(lambda client: client.abandon())
            self.home = self._another()
        if not self.clients:
            self._attach()
        for client in self.clients:
            client.most_blocks = self.most_blocks or client.drawn_blocks

    def leave(self, way):
        for client in self.clients:
            self._finish(client, way)
        self.clients = []

    def _finish(self, client, way):
        try:
            way(client)
        except AssertionError:
            client.abandon()
        if isinstance(client.error, oracle.Lost):
            raise client.error

    def _attach(self):
        """Connects at home; if that fails, home is another node next time."""
        uri, known = self.home.uri(self.resource), self.known
        share = known.blocks // self.schedule.connections
        try:
            for number in range(self.schedule.connections):
                self._drawn += 1
                client = oracle.Client(
                    known,
                    uri,
                    depth=self.dice.choice([1, 8, 32]),
                    most_blocks=self.dice.choice([1, 16, 128]),
                    zeroes=0.04,
                    trims=0.03,
                    reads=0.2,
                    flush_every=self.dice.choice([5, 50, 500]),
                    within=range(number * share, (number + 1) * share),
                    seed=self.schedule.seed << 16 | self._drawn,
                )
                client.drawn_blocks = client.most_blocks
                self.clients.append(client.start())
        except oracle.nbd.Error:
            self.leave(lambda client: client.abandon())
            if not self.pinned:
                self.home = self._another()

    def _another(self):
        return self.dice.choice([node for node in self.cluster.nodes if node is not self.home])
