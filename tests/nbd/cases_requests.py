"""Requests: what is served, what is refused, with which error, and that the stream stays in step."""

import os
import struct

import wire
from case import case, check, equal, need, one_of, same_bytes
from wire import (
    CACHE, DF, DISC, EINVAL, ENOSPC, ENOTSUP, EOVERFLOW, EPERM, FAST_ZERO, FLUSH, FUA, MAX_PAYLOAD, NO_HOLE, PAYLOAD_LEN, READ,
    REQ_ONE, SEND_CACHE, SEND_FAST_ZERO, SEND_FUA, SEND_TRIM, SEND_ZEROES, STATUS, TRIM, WRITE, ZEROES,
)  # fmt: skip

KIB, MIB = 1 << 10, 1 << 20


def in_step(link):
    """The server must understand the next request."""
    equal(len(link.read(0, 512)), 512)


def payload_for(link, command, length):
    """The flags and payload that make a request of `length` bytes complete."""
    return (link.with_payload, bytes(length)) if command == WRITE else (0, b"")


@case(writes=False)
def what_is_no_request_ends_the_connection(target):
    for link in target.modes():
        other = wire.REQUEST if link.extended else wire.EXTENDED_REQUEST
        for magic in (0, other, 0x12560953):
            with target.open("extended" if link.extended else "structured" if link.structured else "simple", timeout=5) as victim:
                victim.send(victim.header(READ, 0, 0, 512, magic=magic)[0], bytes(4))
                try:
                    victim.receive(1 << 16)
                except wire.Ended:
                    continue
                check(False, f"the connection goes on after magic {magic:#x}")


@case()
def every_command_in_every_mode(target):
    data = os.urandom(8192)
    for link in target.modes():
        link.write(4096, data)
        equal(link.read(4096, 8192), data)
        link.flush()
        if link.flags & SEND_ZEROES:
            link.zero(6000, 100)
            equal(link.read(5999, 102), data[1903:1904] + bytes(100) + data[2004:2005])
            link.zero(6000, 100, NO_HOLE)
        if link.flags & SEND_TRIM:
            link.trim(8192, 4096)
        if link.flags & SEND_CACHE:
            link.must(CACHE, 0, 0, MIB)
        link.disconnect()


@case()
def lengths_of_zero_do_nothing(target):
    """Unspecified by the protocol; a server that refuses them must stay in step, and ours does not refuse."""
    for link in target.modes():
        before = link.read(0, 8192)
        for offset in (0, 1, 4096, target.size):
            for command in commands_of(link, (READ, WRITE, TRIM, ZEROES, CACHE)):
                equal(link.error(command, payload_for(link, command, 0)[0], offset, 0), 0, f"command {command} of {offset}+0")
        equal(link.read(0, 8192), before)


@case(writes=False)
def a_status_of_nothing_is_refused_or_told(target):
    need(target.has_allocation, "base:allocation")
    for mode in ("structured", "extended"):
        with target.open(mode) as link:
            one_of(link.error(STATUS, 0, 0, 0), (0, EINVAL))
            in_step(link)


def commands_of(link, commands):
    """Those of the commands that the server offers."""
    needed = {TRIM: SEND_TRIM, ZEROES: SEND_ZEROES, CACHE: SEND_CACHE, STATUS: 0}
    return [c for c in commands if link.flags & needed.get(c, 0) == needed.get(c, 0) and (c != STATUS or link.contexts)]


BEYOND = [(0, 1), (1, 0), (-1, 2), (-4096, 4097), (-4096, 8192), (1 << 40, 512)]


@case(writes=False)
def reads_beyond_the_end_are_invalid(target):
    for link in target.modes():
        for distance, length in BEYOND:
            for command in commands_of(link, (READ, TRIM, CACHE, STATUS) if not target.is_read_only else (READ, CACHE, STATUS)):
                if length or command == READ:
                    found = link.error(command, 0, target.size + distance, length)
                    equal(found, EINVAL, f"command {command} of size{distance:+}, length {length}")
        in_step(link)


@case()
def writes_beyond_the_end_find_no_space(target):
    for link in target.modes():
        last = link.read(target.size - 8192, 8192)
        for distance, length in BEYOND:
            for command in commands_of(link, (WRITE, ZEROES)):
                if length:
                    flags, payload = payload_for(link, command, length)
                    found = link.error(command, flags, target.size + distance, length, payload)
                    equal(found, ENOSPC, f"command {command} of size{distance:+}, length {length}")
        equal(link.read(target.size - 8192, 8192), last, "the last bytes after refused writes")


@case()
def offsets_that_overflow_are_beyond_the_end(target):
    for link in target.modes():
        for offset in (1 << 63, (1 << 64) - 1, (1 << 64) - 512, (1 << 64) - target.size):
            equal(link.error(READ, 0, offset, 512), EINVAL, f"READ at {offset}")
            equal(link.error(WRITE, link.with_payload, offset, 512, bytes(512)), ENOSPC, f"WRITE at {offset}")
        in_step(link)


@case()
def lengths_that_overflow_are_beyond_the_end(target):
    need(target.has_extended, "extended headers")
    with target.open("extended") as link:
        for length in (target.size + 1, 1 << 40, (1 << 64) - 1, (1 << 64) - 4096):
            one_of(link.error(READ, 0, 4096, length), (EINVAL, EOVERFLOW), f"READ of {length}")
            for command in commands_of(link, (TRIM, CACHE, STATUS)):
                equal(link.error(command, 0, 4096, length), EINVAL, f"command {command} of {length}")
            for command in commands_of(link, (ZEROES,)):
                equal(link.error(command, 0, 4096, length), ENOSPC, f"command {command} of {length}")
        in_step(link)


@case(writes=False)
def unknown_commands_are_invalid(target):
    for link in target.modes():
        for command in (8, 9, 42, 0xFFFF):
            equal(link.error(command, 0, 0, 512), EINVAL, f"command {command}")
        in_step(link)


@case()
def flags_that_do_not_belong_are_invalid(target):
    """And a refused write's payload is not taken for the next request."""
    own = {READ: DF, ZEROES: NO_HOLE | FAST_ZERO, STATUS: REQ_ONE}
    for link in target.modes():
        before = link.read(0, 512)
        for command in commands_of(link, (READ, WRITE, FLUSH, TRIM, CACHE, ZEROES, STATUS)):
            for flag in (NO_HOLE, DF, REQ_ONE, FAST_ZERO, 1 << 6, 1 << 15):
                if not flag & own.get(command, 0):
                    length = 0 if command == FLUSH else 512
                    flags, payload = payload_for(link, command, length)
                    found = link.error(command, flags | flag, 0, length, payload)
                    equal(found, EINVAL, f"command {command} with flag {flag:#x}")
        equal(link.read(0, 512), before)


@case()
def payload_flag_is_unknown_without_extended_headers(target):
    for mode in ("simple", "structured"):
        with target.open(mode) as link:
            need(not link.extended, "compact requests")
            equal(link.error(WRITE, PAYLOAD_LEN, 0, 512, bytes(512)), EINVAL)
            equal(link.error(READ, PAYLOAD_LEN, 0, 512), EINVAL)
            in_step(link)


@case()
def fua_is_taken_with_every_command(target):
    need(target.has(SEND_FUA), "FUA")
    for link in target.modes():
        for command in commands_of(link, (READ, WRITE, FLUSH, TRIM, CACHE, ZEROES, STATUS)):
            length = 0 if command == FLUSH else 4096
            flags, payload = payload_for(link, command, length)
            equal(link.error(command, flags | FUA, 0, length, payload), 0, f"command {command} with FUA")
        in_step(link)


@case(writes=False)
def fast_zero_that_was_not_offered_is_refused(target):
    """And does not bring the server down."""
    need(not target.has(SEND_FAST_ZERO), "its absence: FAST_ZERO is offered")
    for link in target.modes():
        one_of(link.error(ZEROES, FAST_ZERO, 0, 4096), (EINVAL, EPERM))
        in_step(link)


@case()
def fast_zero_zeroes_or_changes_nothing(target):
    need(target.has(SEND_FAST_ZERO), "FAST_ZERO")
    data = os.urandom(64 * KIB)
    for link in target.modes():
        for offset, length in ((0, 64 * KIB), (100, 1000), (4096, 4096)):
            for flags in (0, NO_HOLE, FUA):
                link.write(0, data)
                error = link.error(ZEROES, FAST_ZERO | flags, offset, length)
                one_of(error, (0, ENOTSUP), "a fast zeroing")
                expected = data if error else data[:offset] + bytes(length) + data[offset + length :]
                same_bytes(link.read(0, 64 * KIB), expected, 0)


@case()
def zeroing_never_asks_to_be_slow(target):
    """ENOTSUP is for FAST_ZERO only."""
    need(target.has(SEND_ZEROES), "WRITE_ZEROES")
    for link in target.modes():
        for flags in (0, NO_HOLE, FUA, FUA | NO_HOLE):
            for offset, length in ((0, MIB), (513, 7), (4095, 4098), (0, target.size)):
                equal(link.error(ZEROES, flags, offset, length), 0, f"WRITE_ZEROES of {offset}+{length}, flags {flags}")


@case()
def flush_may_come_with_a_range(target):
    """Reserved by the protocol: either nothing is made of it, or it is refused."""
    for link in target.modes():
        one_of(link.error(FLUSH, 0, 4096, 512), (0, EINVAL))
        equal(link.error(FLUSH), 0)


@case(writes=False)
def dont_fragment_gets_one_piece(target):
    need(target.has_structured, "structured replies")
    for mode in ("structured", "extended"):
        with target.open(mode) as link:
            for length in (1, 512, 65536):
                reply = link.must(READ, DF, 0, length)
                equal(len(reply.pieces), 1, f"content chunks for {length} bytes")
            reply = link.do(READ, DF, 0, min(MAX_PAYLOAD, target.size))
            check(reply.error == EOVERFLOW or len(reply.pieces) == 1, "one piece or EOVERFLOW", reply.error)
            in_step(link)


@case(writes=False)
def dont_fragment_needs_structured_replies(target):
    with target.open("simple") as link:
        equal(link.error(READ, DF, 0, 512), EINVAL)
        in_step(link)


@case()
def the_largest_payload_is_served(target):
    """32 MiB, which every client may send unless it was told otherwise."""
    need(target.size >= MAX_PAYLOAD + 4096, "an export of more than 32 MiB")
    data = os.urandom(MIB) * 32
    for link in target.modes():
        link.write(1, data)
        same_bytes(link.read(1, len(data)), data, 1)
        data = data[1:] + data[:1]


@case(seconds=120)
def writes_of_more_than_the_largest_payload(target):
    """They are refused or end the connection; nothing is written, and nothing of them is taken for a request."""
    for mode in ("simple", "structured", "extended"):
        with target.open(mode) as link:
            before = link.read(0, 4096)
            size = (64 << 20) + 4096
            try:
                payload = b"\x5a" * MIB
                link.send(link.header(WRITE, link.with_payload, 0, size)[0])
                for _ in range(size // MIB):
                    link.send(payload)
                link.send(payload[: size % MIB])
                check(link.reply().error, "too long a write is refused")
                in_step(link)
            except wire.Ended:
                pass
        with target.open("simple") as link:
            equal(link.read(0, 4096), before, "the data after a write of over 64 MiB")


@case()
def a_payload_of_a_little_more_than_the_largest(target):
    with target.open("extended") as link:
        before = link.read(0, 4096)
        try:
            check(link.error(WRITE, link.with_payload, 0, MAX_PAYLOAD + 1, b"\x5a" * (MAX_PAYLOAD + 1)), "it is refused")
            in_step(link)
        except wire.Ended:
            pass
    with target.open("simple") as link:
        equal(link.read(0, 4096), before)


@case(writes=False)
def reads_of_more_than_the_largest_payload(target):
    need(target.size > MAX_PAYLOAD + 1, "an export of more than 32 MiB")
    for link in target.modes():
        reply = link.do(READ, 0, 0, MAX_PAYLOAD + 1)
        one_of(reply.error, (EINVAL, EOVERFLOW) if link.structured else (EINVAL,))
        in_step(link)


@case()
def extended_payloads_that_do_not_belong_are_skipped(target):
    need(target.has_extended, "extended headers")
    with target.open("extended") as link:
        for command in commands_of(link, (READ, FLUSH, TRIM, CACHE, ZEROES)) + [8, 99]:
            for length in (1, 512, 100000):
                found = link.error(command, PAYLOAD_LEN, 0, length, b"\x25" * length)
                equal(found, EINVAL, f"command {command} with a payload of {length}")
        in_step(link)


@case()
def an_extended_write_has_a_payload_even_if_it_does_not_say_so(target):
    """The protocol asks for the flag; qemu's client, which many have, does not send it."""
    need(target.has_extended, "extended headers")
    with target.open("extended") as link:
        data = os.urandom(512)
        equal(link.error(WRITE, 0, 512, 512, data), 0)
        equal(link.read(512, 512), data)


@case(writes=False)
def absurd_extended_payloads_end_the_connection(target):
    need(target.has_extended, "extended headers")
    for command in (WRITE, READ, FLUSH, STATUS, 99):
        for length in (1 << 32, (1 << 64) - 1):
            with target.open("extended", timeout=5) as link:
                link.send(link.header(command, PAYLOAD_LEN, 0, length)[0])
                try:
                    check(link.reply().error, "it is refused")
                    link.expect_end()
                except wire.Ended:
                    pass


@case(writes=False)
def read_only_exports_permit_no_writes(target):
    need(target.is_read_only, "a read-only export")
    for link in target.modes():
        before = link.read(0, 4096)
        equal(link.error(WRITE, link.with_payload, 0, 512, bytes(512)), EPERM)
        for command in (TRIM, ZEROES):
            equal(link.error(command, 0, 0, 512), EPERM, f"command {command}")
        equal(link.read(0, 4096), before)


@case()
def disconnect_finishes_what_is_in_flight(target):
    """Every write that was sent before DISC is done, answered or not."""
    blocks = 64
    data = [os.urandom(4096) for _ in range(blocks)]
    with target.open("simple") as link:
        parts = []
        for number, block in enumerate(data):
            parts += [link.header(WRITE, 0, number * 4096, 4096)[0], block]
        link.send(*parts, link.header(DISC)[0])
        cookies = set()
        try:
            while True:
                reply = link.reply()
                equal(reply.error, 0)
                cookies.add(reply.cookie)
        except wire.Ended:
            pass
        check(len(cookies) <= blocks, "a reply to each at most", len(cookies))
    with target.open("simple") as link:
        same_bytes(link.read(0, blocks * 4096), b"".join(data), 0)


@case()
def disconnect_in_the_middle_of_a_payload_writes_nothing_of_it(target):
    for mode in ("simple", "extended"):
        for length, sent in ((4096, 4095), (65536, 4096), (MIB, MIB - 1), (8192, 0)):
            with target.open(mode) as link:
                old = os.urandom(length)
                link.write(0, old)
                link.send(link.header(WRITE, link.with_payload, 0, length)[0], b"\xee" * sent)
            with target.open("simple") as link:
                same_bytes(link.read(0, length), old, 0)


@case(writes=False)
def disconnect_in_the_middle_of_a_header(target):
    for cut in (1, 4, 27):
        with target.open("simple") as link:
            link.send(link.header(READ, 0, 0, 512)[0][:cut])


@case()
def bytes_that_trickle_in_are_requests_all_the_same(target):
    for link in target.modes():
        data = os.urandom(600)
        header, cookie = link.header(WRITE, link.with_payload, 1000, 600)
        for byte in header + data:
            link.send(bytes([byte]))
        equal((link.reply().error, link.cookie), (0, cookie))
        equal(link.read(1000, 600), data)


@case(writes=False)
def one_cookie_for_many_requests(target):
    """Discouraged, not forbidden: every request is answered once."""
    with target.open("simple") as link:
        for _ in range(20):
            link.ask(READ, 0, 0, 512, cookie=7)
        for _ in range(20):
            equal(link.reply().cookie, 7)
        in_step(link)


@case(writes=False)
def cookies_come_back_as_they_are(target):
    for link in target.modes():
        for cookie in (0, 1 << 63, (1 << 64) - 1, 0x2560951321E41C71):
            link.ask(READ, 0, 512, 512, cookie=cookie)
            equal(link.reply().cookie, cookie)


@case(writes=False)
def errors_explain_themselves(target):
    """Not asked for by the protocol, but by whoever has to find out why."""
    need(target.has_structured, "structured replies")
    for mode in ("structured", "extended"):
        with target.open(mode) as link:
            reply = link.do(READ, 0, target.size, 4096)
            equal(reply.error, EINVAL)
            check(reply.text, "an error has a text")


@case(writes=False)
def extended_replies_repeat_the_offset(target):
    need(target.has_extended, "extended headers")
    with target.open("extended") as link:
        for command, offset, length in ((READ, 12345, 10), (READ, target.size, 1), (FLUSH, 0, 0), (99, 777, 5)):
            header, cookie = link.header(command, 0, offset, length)
            link.send(header)
            done = False
            while not done:
                magic, flags, _, same, echoed, size = link.fields(">IHHQQQ")
                equal((magic, same, echoed), (wire.EXTENDED, cookie, offset))
                link.receive(size)
                done = bool(flags & 1)


@case()
def what_one_connection_has_written_another_reads(target):
    """At once, and after a flush on either it is durable: that is what CAN_MULTI_CONN promises."""
    need(target.has(wire.MULTI_CONN), "several connections")
    with target.open("simple") as one, target.open("extended") as other:
        for number in range(200):
            stamp = struct.pack(">QQ", number, number) * 32
            one.write(512 * (number % 7), stamp)
            equal(other.read(512 * (number % 7), 512), stamp)
            if number % 20 == 0:
                other.flush()
            one, other = other, one
