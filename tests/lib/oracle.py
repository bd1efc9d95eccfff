"""A client that knows what it was promised.

It writes stamped blocks with many requests in flight, and remembers for every block which contents are legal: the last one that
was acknowledged, and any that was sent after it and whose fate is not known. What it then reads must be one of those; once read,
only that one stays legal. A write that failed, or was cut off, is unknown, never assumed absent.
"""

import hashlib
import random
import struct
import threading
import time

import nbd

BLOCK = 4096
STAMP = struct.Struct("<QQQ8s")
ZEROES = bytes(BLOCK)


class Lost(AssertionError):
    """The volume does not hold what was acknowledged."""


class Oracle:
    """The legal contents of a volume of `blocks` blocks that was all zeroes at first. Its numbers come from `seed`.

    A block is a register: a write may take effect at any moment between its sending and its end. So an acknowledged write rules
    out what had ended before it was sent, and nothing else. A request ends when it is answered, or with its connection: what a
    server has not done by then it must not do later, over what another connection has written."""

    def __init__(self, blocks, seed):
        self.blocks = blocks
        self.random = random.Random(seed)
        self.seed = seed
        self.version = 0
        self.acknowledged = 0
        # Per block, the versions that it may hold. Version 0 and versions in `zeroed` are zeroes.
        self.legal = {}
        self.zeroed = {0}
        # When each version was sent and ended, in the order of these events.
        self._events = 0
        self._sent = {0: 0}
        self._ended = {0: 0}
        self._lock = threading.RLock()

    def sent(self, first, count, zero=False):
        """Draws the next version for `count` blocks; they may hold it from now on."""
        with self._lock:
            self.version += 1
            self._sent[self.version] = self._tick()
            if zero:
                self.zeroed.add(self.version)
            for block in range(first, first + count):
                self.legal.setdefault(block, [0]).append(self.version)
            return self.version

    def acked(self, first, count, version):
        """The write was answered without an error."""
        with self._lock:
            self.ended(version)
            self.acknowledged += 1
            for block in range(first, first + count):
                self.legal[block] = [v for v in self.legal[block] if v == version or not self._before(v, version)]

    def ended(self, version):
        """The write was answered with an error, or its connection is gone: whether it was done is not known."""
        with self._lock:
            self._ended[version] = self._tick()

    def _before(self, one, other):
        return one in self._ended and self._ended[one] < self._sent[other]

    def _tick(self):
        self._events += 1
        return self._events

    def content(self, block, version):
        """What a block holds in a version: its number, the version and the seed, over and over, so that tears inside show."""
        if version in self.zeroed:
            return ZEROES
        mark = hashlib.blake2s(struct.pack("<QQQ", self.seed, block, version), digest_size=8).digest()
        return STAMP.pack(self.seed, block, version, mark) * (BLOCK // STAMP.size)

    def check(self, block, content):
        """Raises `Lost` unless `content` is legal for the block; then it is the only legal one, but for writes under way."""
        with self._lock:
            legal = self.legal.get(block, [0])
            for version in reversed(legal):
                if content == self.content(block, version):
                    self.legal[block] = [v for v in legal if v == version or v not in self._ended]
                    return
        raise Lost(f"block {block} (seed {self.seed}) holds {self.describe(content)}; legal: versions {legal}")

    def describe(self, content):
        if content == ZEROES:
            return "zeroes"
        seed, block, version, _ = STAMP.unpack_from(content)
        whole = seed == self.seed and version <= self.version and content == self.content(block, version)
        return f"version {version} of block {block}" if whole else f"what was never written, or torn: {content[:32].hex()}…"


class Client:
    """Writes to an export and keeps the oracle informed, from a thread of its own.

    `start`, then either `stop`, which waits for what is in flight, or the end of the connection, which `wait` waits for."""

    def __init__(self, oracle, uri, *, depth=16, most_blocks=8, zeroes=0.05, flush_every=200):
        self.oracle = oracle
        self.depth = depth
        self.most_blocks = most_blocks
        self.zeroes = zeroes
        self.flush_every = flush_every
        assert depth * most_blocks < oracle.blocks / 4, "too many requests in flight for so small a volume"
        self.error = None
        self.failed = 0
        self.last_failure = None
        self.stall = 0.0
        self._busy = set()
        self._in_flight = {}
        self._stopping = threading.Event()
        self._last = 0.0
        self._handle = nbd.NBD()
        self._handle.connect_uri(uri)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._last = time.monotonic()
        self._thread.start()
        return self

    def stop(self, seconds=30):
        """Sends nothing more, waits for the answers, disconnects. Raises what had gone wrong."""
        self.end(seconds)
        if self.error:
            raise self.error
        return self

    def end(self, seconds=30):
        """As `stop`, where a broken connection is as good."""
        self._stopping.set()
        return self.wait(seconds)

    def wait(self, seconds=30):
        """Waits until the client has ended: after `stop`, or because its connection broke (see `error`)."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise AssertionError(f"{len(self._in_flight)} requests were not answered within {seconds} s")
        return self

    @property
    def running(self):
        return self._thread.is_alive()

    def _run(self):
        handle = self._handle
        try:
            while not self._stopping.is_set() or self._in_flight:
                while not self._stopping.is_set() and len(self._in_flight) < self.depth:
                    self._send()
                self._collect()
                handle.poll(100)
            handle.shutdown()
        except nbd.Error as error:
            self.error = error
        finally:
            self._handle = None
            for write in filter(None, self._in_flight.values()):
                self.oracle.ended(write[2])

    def _send(self):
        oracle, draw = self.oracle, self.oracle.random
        count = draw.randint(1, self.most_blocks)
        first = draw.randrange(0, oracle.blocks - count + 1)
        blocks = range(first, first + count)
        if not self._busy.isdisjoint(blocks):
            return
        zero = draw.random() < self.zeroes
        version, data = oracle.sent(first, count, zero), None
        fua = nbd.CMD_FLAG_FUA if draw.random() < 1 / self.flush_every else 0
        if zero:
            cookie = self._handle.aio_zero(count * BLOCK, first * BLOCK, flags=fua)
        else:
            data = nbd.Buffer.from_bytearray(bytearray(b"".join(oracle.content(block, version) for block in blocks)))
            cookie = self._handle.aio_pwrite(data, first * BLOCK, flags=fua)
        self._busy.update(blocks)
        # The buffer must live as long as the request.
        self._in_flight[cookie] = (first, count, version, data)
        if version % self.flush_every == 0:
            self._in_flight[self._handle.aio_flush()] = None

    def _collect(self):
        for cookie in list(self._in_flight):
            try:
                if not self._handle.aio_command_completed(cookie):
                    continue
                good = True
            except nbd.Error as error:
                if self._handle.aio_is_dead() or self._handle.aio_is_closed():
                    raise
                good, self.failed = False, self.failed + 1
                self.last_failure = error
            now = time.monotonic()
            self.stall, self._last = max(self.stall, now - self._last), now
            write = self._in_flight.pop(cookie)
            if write:
                first, count, version, _ = write
                self._busy.difference_update(range(first, first + count))
                if good:
                    self.oracle.acked(first, count, version)
                else:
                    self.oracle.ended(version)


def verify(oracle, uri, *, chunk=256):
    """Reads every block that was ever written and checks it. Returns how many."""
    handle = nbd.NBD()
    handle.connect_uri(uri)
    try:
        for first in range(0, oracle.blocks, chunk):
            count = min(chunk, oracle.blocks - first)
            if any(block in oracle.legal for block in range(first, first + count)):
                data = handle.pread(count * BLOCK, first * BLOCK)
                for n in range(count):
                    oracle.check(first + n, data[n * BLOCK : (n + 1) * BLOCK])
        handle.shutdown()
    finally:
        del handle
    return len(oracle.legal)


def fill(oracle, uri, *, share=1.0, chunk=256):
    """Writes every block once (or a random `share` of the chunks) and flushes."""
    handle = nbd.NBD()
    handle.connect_uri(uri)
    for first in range(0, oracle.blocks, chunk):
        if oracle.random.random() < share:
            count = min(chunk, oracle.blocks - first)
            version = oracle.sent(first, count)
            handle.pwrite(b"".join(oracle.content(first + n, version) for n in range(count)), first * BLOCK)
            oracle.acked(first, count, version)
    handle.flush()
    handle.shutdown()
