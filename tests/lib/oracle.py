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


class Lost(Exception):
    """The volume does not hold what was acknowledged. No `AssertionError`: it must not be waited for to pass."""


class Oracle:
    """The legal contents of a volume of `blocks` blocks that was all zeroes at first. Its numbers come from `seed`. A block is the
    smallest thing that a client writes: with `block` smaller than 4096, much of what it writes is unaligned for the volume.

    A block is a register: a write may take effect at any moment between its sending and its end. So an acknowledged write rules
    out what had ended before it was sent, and nothing else. A request ends when it is answered, or with its connection: what a
    server has not done by then it must not do later, over what another connection has written."""

    def __init__(self, blocks, seed, block=BLOCK):
        self.blocks = blocks
        self.block = block
        self.zeroes = bytes(block)
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

    def acked(self, first, count, version, fua=False):
        """The write was answered without an error."""
        with self._lock:
            self.ended(version)
            self.acknowledged += 1
            for block in range(first, first + count):
                self.legal[block] = [v for v in self.legal[block] if v == version or not self._before(v, version)]

    def flush_sent(self):
        """Called before a flush is sent; what it returns goes to `flush_acked`."""

    def flush_acked(self, began):
        """The flush was answered without an error. Here that changes nothing: an acknowledged write is promised anyway."""

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
            return self.zeroes
        mark = hashlib.blake2s(struct.pack("<QQQ", self.seed, block, version), digest_size=8).digest()
        return STAMP.pack(self.seed, block, version, mark) * (self.block // STAMP.size)

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
        if content == self.zeroes:
            return "zeroes"
        seed, block, version, _ = STAMP.unpack_from(content)
        whole = seed == self.seed and version <= self.version and content == self.content(block, version)
        return f"version {version} of block {block}" if whole else f"what was never written, or torn: {content[:32].hex()}…"


class Client:
    """Writes to an export and keeps the oracle informed, from a thread of its own.

    `start`, then either `stop`, which waits for what is in flight, or the end of the connection, which `wait` waits for; `abandon` ends
    the connection without a word. With `within`, a range of blocks, several clients share an oracle."""

    def __init__(self, oracle, uri, *, depth=16, most_blocks=8, zeroes=0.05, trims=0.0, reads=0.0, flush_every=200, within=None, seed=None):
        self.oracle = oracle
        self.depth = depth
        self.most_blocks = most_blocks
        self.shares = {"zero": zeroes, "trim": trims, "read": reads}
        self.flush_every = flush_every
        self.within = within or range(oracle.blocks)
        self.random = oracle.random if seed is None else random.Random(seed)
        assert depth * most_blocks < len(self.within) / 4, "too many requests in flight for so small a volume"
        self.error = None
        self.failed = 0
        self.last_failure = None
        self.stall = 0.0
        self._sent = 0
        self._busy = set()
        self._in_flight = {}
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._last = 0.0
        self._handle = connected(uri)
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
        self.finish()
        return self.wait(seconds)

    def finish(self):
        """Sends nothing more; `wait` for the end."""
        self._stopping.set()

    def abandon(self):
        """Closes the connection with whatever is in flight, as a client that is killed does."""
        self._abandoned.set()
        return self.wait()

    def wait(self, seconds=30):
        """Waits until the client has ended: after `stop`, or because its connection broke (see `error`)."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise AssertionError(f"{len(self._in_flight)} requests were not answered within {seconds} s")
        return self

    @property
    def running(self):
        return self._thread.is_alive()

    @property
    def silent(self):
        """For how many seconds nothing has been answered."""
        return time.monotonic() - self._last

    def _run(self):
        handle = self._handle
        try:
            while not self._abandoned.is_set() and (self._in_flight or not self._stopping.is_set()):
                while not self._stopping.is_set() and len(self._in_flight) < self.depth:
                    self._send()
                self._collect()
                handle.poll(100)
            if not self._abandoned.is_set():
                handle.shutdown()
        except (nbd.Error, Lost) as error:
            self.error = error
        finally:
            # The last reference: the connection is closed before its requests count as ended.
            self._handle = handle = None
            for request in self._in_flight.values():
                if request.version:
                    self.oracle.ended(request.version)

    def _send(self):
        draw, block = self.random, self.oracle.block
        count = draw.randint(1, self.most_blocks)
        kind = self._draw_kind()
        if kind == "trim":
            count = self._whole(count)
        first = self.within[draw.randrange(0, len(self.within) - count + 1)]
        if kind == "trim":
            first = max(self._whole(first), self._whole(self.within[0]))
        fua = kind != "read" and draw.random() < 1 / self.flush_every
        request = Request(kind, first, count, fua)
        if first + count > self.within[-1] + 1 or not self._busy.isdisjoint(request.blocks):
            return
        handle, length, offset = self._handle, count * block, first * block
        flags = nbd.CMD_FLAG_FUA if fua else 0
        if kind != "read":
            request.version = self.oracle.sent(first, count, zero=kind in ("zero", "trim"))
        if kind == "read":
            request.data = nbd.Buffer(length)
            cookie = handle.aio_pread(request.data, offset)
        elif kind == "zero":
            cookie = handle.aio_zero(length, offset, flags=flags)
        elif kind == "trim":
            cookie = handle.aio_trim(length, offset, flags=flags)
        else:
            data = b"".join(self.oracle.content(number, request.version) for number in request.blocks)
            request.data = nbd.Buffer.from_bytearray(bytearray(data))
            cookie = handle.aio_pwrite(request.data, offset, flags=flags)
        self._busy.update(request.blocks)
        self._in_flight[cookie] = request
        self._sent += 1
        if self._sent % self.flush_every == 0:
            flush = Request("flush", 0, 0, began=self.oracle.flush_sent())
            self._in_flight[handle.aio_flush()] = flush

    def _draw_kind(self):
        drawn = self.random.random()
        for kind, share in self.shares.items():
            if drawn < share:
                return kind
            drawn -= share
        return "write"

    def _whole(self, blocks):
        """Rounded up to 4 KiB: what is trimmed in part may keep what it was."""
        whole = max(1, BLOCK // self.oracle.block)
        return -(-blocks // whole) * whole

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
            request = self._in_flight.pop(cookie)
            self._busy.difference_update(request.blocks)
            if request.version:
                self._settle(request, good)
            elif request.kind == "flush" and good:
                self.oracle.flush_acked(request.began)
            elif request.kind == "read" and good:
                check_blocks(self.oracle, request.first, request.data.to_bytearray())

    def _settle(self, request, good):
        if good:
            self.oracle.acked(request.first, request.count, request.version, request.fua)
        else:
            self.oracle.ended(request.version)


class Request:
    """What a client has in flight. Its buffer must live as long as the request."""

    def __init__(self, kind, first, count, fua=False, began=None):
        self.kind = kind
        self.first = first
        self.count = count
        self.fua = fua
        self.began = began
        self.version = None
        self.data = None

    @property
    def blocks(self):
        return range(self.first, self.first + self.count)


def connected(uri, seconds=5):
    """A connection to an export. Unlike libnbd's own, it does not wait for ever for a server that hangs."""
    handle = nbd.NBD()
    # Requests that are no multiple of the preferred size are what is tested.
    handle.set_strict_mode(handle.get_strict_mode() & ~nbd.STRICT_ALIGN)
    handle.aio_connect_uri(uri)
    deadline = time.monotonic() + seconds
    while not handle.aio_is_ready():
        if handle.aio_is_dead() or handle.aio_is_closed():
            raise nbd.Error(f"{uri}: the server closed the connection", 0)
        if time.monotonic() > deadline:
            raise nbd.Error(f"{uri}: no export within {seconds} s", 0)
        handle.poll(100)
    return handle


def verify(oracle, uri, *, chunk=256):
    """Reads every block that was ever written and checks it. Returns how many."""
    handle = connected(uri)
    try:
        for first in range(0, oracle.blocks, chunk):
            count = min(chunk, oracle.blocks - first)
            if any(block in oracle.legal for block in range(first, first + count)):
                check_blocks(oracle, first, handle.pread(count * oracle.block, first * oracle.block))
        handle.shutdown()
    finally:
        del handle
    return len(oracle.legal)


def check_blocks(oracle, first, data):
    """Checks the content of successive blocks."""
    for n in range(len(data) // oracle.block):
        oracle.check(first + n, bytes(data[n * oracle.block : (n + 1) * oracle.block]))


def fill(oracle, uri, *, share=1.0, chunk=256, blocks=None):
    """Writes every block once (or those of a range, or a random `share` of the chunks) and flushes."""
    handle = connected(uri)
    blocks = blocks or range(oracle.blocks)
    for first in blocks[::chunk]:
        if oracle.random.random() < share:
            count = min(chunk, blocks.stop - first)
            version = oracle.sent(first, count)
            handle.pwrite(b"".join(oracle.content(first + n, version) for n in range(count)), first * oracle.block)
            oracle.acked(first, count, version)
    began = oracle.flush_sent()
    handle.flush()
    oracle.flush_acked(began)
    handle.shutdown()
