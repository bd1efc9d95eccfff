"""Data: what was written is what is read, at every edge, compared with a model of the export's bytes."""

import os
import random
import struct

from case import case, check, equal, need, same_bytes
from wire import DF, FUA, MULTI_CONN, NO_HOLE, READ, SEND_DF, SEND_FUA, SEND_TRIM, SEND_ZEROES, WRITE, ZEROES

KIB, MIB = 1 << 10, 1 << 20
BLOCK, EXTENT = 4 * KIB, 4 * MIB

# Where things may go wrong: sectors, blocks, pages of a bitmap, extents, and the end.
EDGES = [0, 512, BLOCK, 2 * BLOCK, 64 * KIB, 128 * KIB, MIB, EXTENT, EXTENT + BLOCK, 2 * EXTENT]
NEAR = [-4097, -4096, -4095, -513, -512, -1, 0, 1, 511, 512, 513, 4095, 4096, 4097]
LENGTHS = [1, 2, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 8193, 65536, 65537]


class Model:
    """The first bytes of an export as they should be; None where nothing is promised."""

    def __init__(self, link, start, length):
        self.start, self.bytes = start, bytearray(link.read(start, length))
        # TRIM leaves undefined contents. They are learnt by the first read, and must not change from then on.
        self.unknown = bytearray(length)

    def write(self, offset, data):
        at = offset - self.start
        self.bytes[at : at + len(data)] = data
        self.unknown[at : at + len(data)] = bytes(len(data))

    def trim(self, offset, length):
        at = offset - self.start
        self.unknown[at : at + length] = b"\1" * length

    def compare(self, offset, data):
        at, end = offset - self.start, offset - self.start + len(data)
        if any(self.unknown[at:end]):
            for n in range(at, end):
                if self.unknown[n]:
                    self.bytes[n] = data[n - at]
                    self.unknown[n] = 0
        same_bytes(data, bytes(self.bytes[at:end]), offset)


def pattern(seed, length):
    """Bytes that say where they come from."""
    return random.Random(seed).randbytes(length)


@case(seconds=240)
def every_edge_in_every_mode(target):
    """A write at every offset near every edge, of lengths near every edge; what is around it must not change."""
    for link in target.modes():
        edges = [edge for edge in EDGES if edge + 2 * EXTENT <= target.size] + [target.size]
        for edge in edges:
            start = max(0, edge - 16 * KIB)
            length = min(target.size, edge + 160 * KIB) - start
            model = Model(link, start, length)
            for number, near in enumerate(NEAR):
                # All lengths at all offsets of all edges would be many; neighbours share them out.
                for size in LENGTHS[number % 3 :: 3]:
                    offset = edge + near
                    if offset < start or offset + size > start + length:
                        continue
                    data = pattern((edge, near, size).__hash__(), size)
                    link.write(offset, data)
                    model.write(offset, data)
                    first = max(start, offset - 8200)
                    last = min(start + length, offset + size + 8200)
                    model.compare(first, link.read(first, last - first))
            model.compare(start, link.read(start, length))


@case(seconds=240)
def random_operations(target):
    """Thousands of writes, zeroings, trims and reads of any size, in every mode."""
    for mode, link in enumerate(target.modes()):
        random_walk(link, random.Random(1000 + mode), 0, 9 * MIB, 1500)


@case(seconds=120)
def random_operations_at_the_end(target):
    for mode, link in enumerate(target.modes()):
        random_walk(link, random.Random(2000 + mode), target.size - MIB, MIB, 500)


def random_walk(link, dice, start, length, steps):
    model = Model(link, start, length)
    for _ in range(steps):
        size = dice.choice([dice.randint(1, 600), dice.randint(1, 9000), dice.randint(1, 300 * KIB), BLOCK, 16 * BLOCK])
        size = min(size, length)
        offset = start + dice.randint(0, length - size)
        if dice.random() < 0.4:
            offset = max(start, offset & -BLOCK)
        action = dice.random()
        fua = FUA if dice.random() < 0.05 and link.flags & SEND_FUA else 0
        if action < 0.45:
            data = dice.randbytes(size)
            link.write(offset, data, fua)
            model.write(offset, data)
        elif action < 0.6 and link.flags & SEND_ZEROES:
            link.zero(offset, size, fua | dice.choice([0, NO_HOLE]))
            model.write(offset, bytes(size))
        elif action < 0.65 and link.flags & SEND_TRIM:
            link.trim(offset, size, fua)
            model.trim(offset, size)
        else:
            flags = DF if link.flags & SEND_DF and dice.random() < 0.3 and size <= 65536 else 0
            model.compare(offset, link.read(offset, size, flags))
    for at in range(start, start + length, MIB):
        size = min(MIB, start + length - at)
        model.compare(at, link.read(at, size))


@case()
def trimmed_bytes_do_not_change_again(target):
    """Their contents are undefined, but two reads must agree, or mirrors could not be compared."""
    need(target.has(SEND_TRIM), "TRIM")
    for link in target.modes():
        for offset, length in ((MIB, MIB), (MIB + 100, 5000), (3 * MIB + 1, 2)):
            link.write(offset - 100, b"\x33" * (length + 200))
            link.trim(offset, length)
            first = link.read(offset, length)
            equal(link.read(offset, length), first)
            equal(link.read(offset - 100, 100), b"\x33" * 100, "what is before the trimmed bytes")
            equal(link.read(offset + length, 100), b"\x33" * 100, "what is behind them")


@case()
def parts_of_one_block_in_flight_at_once(target):
    """A server that turns them into reads and writes of whole blocks must not lose any."""
    for link in target.modes():
        for piece in (512, 100, 1):
            for offset in (0, 8 * BLOCK, EXTENT - BLOCK):
                pieces = range(0, 2 * BLOCK, piece)
                data = os.urandom(2 * BLOCK)
                order = random.Random(piece).sample(pieces, len(pieces))
                link.write_all([(offset + at, data[at : at + piece][: 2 * BLOCK - at]) for at in order])
                same_bytes(link.read(offset, 2 * BLOCK), data, offset)


@case()
def parts_of_one_block_from_two_clients(target):
    need(target.has(MULTI_CONN), "several connections")
    with target.open("simple") as one, target.open("extended") as other:
        for _ in range(20):
            data = os.urandom(BLOCK)
            flying = []
            for number, at in enumerate(range(0, BLOCK, 64)):
                link = (one, other)[number % 2]
                link.ask(WRITE, link.with_payload, at, 64, data[at : at + 64])
                flying.append(link)
            for link in flying:
                equal(link.reply().error, 0)
            same_bytes(other.read(0, BLOCK), data, 0)


@case()
def zeroing_beside_writes_in_flight(target):
    need(target.has(SEND_ZEROES), "WRITE_ZEROES")
    for link in target.modes():
        for _ in range(20):
            data = os.urandom(BLOCK)
            link.write(0, b"\xff" * BLOCK)
            requests, expected = [], bytearray(data)
            for at in range(0, BLOCK, 512):
                if at // 512 % 2:
                    requests.append((ZEROES, 0, at, 512, b""))
                    expected[at : at + 512] = bytes(512)
                else:
                    requests.append((WRITE, link.with_payload, at, 512, data[at : at + 512]))
            equal([reply.error for reply in link.pipeline(requests)], [0] * 8)
            same_bytes(link.read(0, BLOCK), bytes(expected), 0)


@case()
def a_write_is_there_while_others_are_in_flight(target):
    """What was answered is read by whoever asks then, however many writes are elsewhere in flight."""
    for link in target.modes():
        for number in range(50):
            partial, stamp = {}, struct.pack(">Q", number) * 512
            for n in range(16):
                link.ask(WRITE, link.with_payload, 2 * MIB + n * BLOCK, BLOCK, stamp)
            cookie = link.ask(WRITE, link.with_payload, 0, BLOCK, stamp)
            left = 17
            while left:
                reply = link.replies(partial)
                equal(reply.error, 0)
                left -= 1
                if reply.cookie == cookie:
                    question = link.ask(READ, 0, 0, BLOCK)
                    left += 1
                elif reply.pieces:
                    equal((reply.cookie, reply.data(0, BLOCK)), (question, stamp), "the write that was answered")


@case()
def overlapping_writes_in_flight_leave_one_of_them(target):
    """In whatever order; every block is one of the writers', whole, and stays it."""
    for link in target.modes():
        for _ in range(20):
            writes = [(0, bytes([n]) * (16 * BLOCK)) for n in range(1, 17)]
            link.write_all(writes)
            first = link.read(0, 16 * BLOCK)
            for at in range(0, 16 * BLOCK, BLOCK):
                block = first[at : at + BLOCK]
                check(block == block[:1] * BLOCK and 1 <= block[0] <= 16, f"block {at // BLOCK} is one writer's")
            equal(link.read(0, 16 * BLOCK), first, "a second read")


@case(seconds=120)
def many_in_flight(target):
    """Hundreds of reads and writes at once, answered in any order."""
    for link in target.modes():
        data = os.urandom(2 * MIB)
        link.write_all([(at, data[at : at + 8192]) for at in range(0, 2 * MIB, 8192)])
        places = random.Random(5).sample(range(0, 2 * MIB, 4096), 512)
        for at, reply in zip(places, link.pipeline([(READ, 0, at, 4096, b"") for at in places]), strict=True):
            equal(reply.error, 0)
            same_bytes(reply.data(at, 4096), data[at : at + 4096], at)


@case(seconds=120)
def the_whole_export_is_its_own(target):
    """No two offsets are one place: a stamp in every stretch, read back after all are written."""
    stride = max(BLOCK, target.size // 2000 & -BLOCK)
    with target.open("simple") as link:
        places = list(range(0, target.size - 8, stride))
        for chunk in (places[n : n + 200] for n in range(0, len(places), 200)):
            link.write_all([(at, struct.pack(">Q", at)) for at in chunk])
        link.flush()
        for at in places:
            equal(link.read(at, 8), struct.pack(">Q", at), f"the stamp at {at}")
