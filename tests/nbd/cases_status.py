"""BLOCK_STATUS: extents that tell the truth."""

import os
import struct

from case import case, check, equal, need
from wire import EINVAL, PAYLOAD_LEN, REQ_ONE, SEND_TRIM, SEND_ZEROES, STATUS, STATUS_PAYLOAD

KIB, MIB = 1 << 10, 1 << 20
HOLE, ZERO = 1, 2


def linked(target):
    """A connection in each mode that has base:allocation."""
    need(target.has_allocation, "base:allocation")
    for mode in ("structured", "extended"):
        if mode == "structured" or target.has_extended:
            with target.open(mode) as link:
                yield link


def whole(link, offset, length):
    """The extents of a range, asked for until it is covered."""
    found, end = [], offset + length
    while offset < end:
        for size, flags in link.status(offset, end - offset):
            size = min(size, end - offset)
            found.append((offset, size, flags))
            offset += size
    return found


@case(writes=False)
def status_needs_a_context(target):
    need(target.has_structured, "structured replies")
    for mode in ("simple", "structured", "extended"):
        with target.open(mode, allocation=False) as link:
            equal(link.error(STATUS, 0, 0, 4096), EINVAL)
            link.read(0, 512)


@case(writes=False)
def status_of_one_extent(target):
    for link in linked(target):
        for offset, length in ((0, 4096), (0, target.size if target.size < 1 << 32 else MIB), (512, 512), (4096, 1)):
            extents = link.status(offset, length, REQ_ONE)
            equal(len(extents), 1, "extents")
            check(extents[0][0] <= length, "an extent no longer than asked for", extents, length)


@case(writes=False)
def status_covers_the_export(target):
    for link in linked(target):
        extents = whole(link, 0, target.size)
        equal(sum(size for _, size, _ in extents), target.size, "bytes described")


@case()
def zero_extents_are_zero(target):
    for link in linked(target):
        link.write(MIB, os.urandom(64 * KIB))
        if link.flags & SEND_ZEROES:
            link.zero(2 * MIB, MIB)
        if link.flags & SEND_TRIM:
            link.trim(4 * MIB, MIB)
        for offset, size, flags in whole(link, 0, 8 * MIB):
            if flags & ZERO:
                equal(link.read(offset, size).count(0), size, f"zero bytes in {offset}+{size}")


@case()
def data_is_never_told_to_be_a_hole(target):
    for link in linked(target):
        for offset, length in ((MIB, 64 * KIB), (3 * MIB + 100, 1000), (target.size - 4096, 4096)):
            link.zero(offset & ~4095, 2 * 4096) if link.flags & SEND_ZEROES and offset + 8192 <= target.size else None
            link.write(offset, b"\x77" * length)
            link.flush()
            for at, size, flags in whole(link, offset, length):
                equal(flags & (HOLE | ZERO), 0, f"flags of {at}+{size}, which was written")


@case(writes=False)
def status_may_name_its_context(target):
    need(target.has_extended and target.has_allocation, "extended headers and a context")
    with target.open("extended") as link:
        need(link.flags & STATUS_PAYLOAD, "BLOCK_STATUS with a payload")
        own = link.contexts["base:allocation"]

        def select(*ids, length=4096):
            payload = struct.pack(f">Q{len(ids)}I", length, *ids)
            return link.do(STATUS, PAYLOAD_LEN, 0, len(payload), payload)

        equal(list(select(own).status), [own])
        for ids in ((own + 1,), (own, own), (own, own + 1), (own + 1, own)):
            equal(select(*ids).error, EINVAL, f"contexts {ids}")
        equal(select(own, length=target.size + 1).error, EINVAL, "a range beyond the end")
        for size in (1, 7, 9, 11, 13):
            equal(link.error(STATUS, PAYLOAD_LEN, 0, size, bytes(size)), EINVAL, f"a payload of {size} bytes")
        link.status(0, 4096)


@case(writes=False)
def a_payload_for_status_that_was_not_offered_is_skipped(target):
    need(target.has_extended, "extended headers")
    with target.open("extended", allocation=False) as link:
        payload = struct.pack(">QI", 4096, 1)
        equal(link.error(STATUS, PAYLOAD_LEN, 0, len(payload), payload), EINVAL)
        link.read(0, 512)


@case(writes=False)
def long_status_in_one_request(target):
    """As long as the export, in whatever many extents."""
    for link in linked(target):
        length = min(target.size, (1 << 32) - 4096) if not link.extended else target.size
        link.status(0, length)
        wire_length = sum(size for size, _ in link.status(0, length, REQ_ONE))
        check(wire_length <= length, "no more than asked for", wire_length)
