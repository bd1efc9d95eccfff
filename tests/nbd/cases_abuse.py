"""Clients that mean harm, or are merely broken: the server must go on serving the others, in bounded memory."""

import contextlib
import os
import random
import socket
import struct
import threading
import time
from pathlib import Path

import wire
from case import case, check, equal, need
from wire import DISC, ERRORS, FAST_ZERO, FLUSH, NO_HOLE, OPT_GO, PAYLOAD_LEN, READ, STATUS, WRITE, ZEROES, go_bytes, option_bytes

KIB, MIB = 1 << 10, 1 << 20


def memory(target):
    """The server's resident memory in bytes."""
    pages = int(Path(f"/proc/{target.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


@case(seconds=120, writes=False)
def a_client_that_never_reads_stalls_only_itself(target):
    """It pipelines reads of half a gigabyte and takes no reply; then it does read, and gets them all, unless it was cut off."""
    need(not target.address.tls, "plain connections")
    length = min(128 * KIB, target.size)
    before = memory(target) if target.pid else 0
    with target.open("structured") as link:
        sent, requests = 0, b"".join(link.header(READ, 0, 0, length)[0] for _ in range(4096))
        link.plug.setblocking(False)
        quiet_since = time.monotonic()
        while sent < len(requests) and time.monotonic() - quiet_since < 1:
            try:
                sent += link.plug.send(requests[sent : sent + 4096])
                quiet_since = time.monotonic()
            except BlockingIOError:
                target.check_alive()
        started = time.monotonic()
        for _ in range(20):
            target.check_alive()
        check(time.monotonic() - started < 20, "others are served meanwhile", time.monotonic() - started)
        if target.pid:
            grown = memory(target) - before
            check(grown < 256 * MIB, "the server's memory is bounded", f"it grew by {grown >> 20} MiB")
        link.plug.settimeout(20)
        with contextlib.suppress(wire.Ended):
            for _ in range(sent // 28):
                equal(link.replies({}).error, 0)


@case(seconds=120)
def a_client_that_writes_and_never_reads_stalls_only_itself(target):
    need(not target.address.tls, "plain connections")
    with target.open("simple") as link:
        request = link.header(WRITE, 0, 0, 512)[0] + bytes(512)
        link.plug.setblocking(False)
        quiet_since = time.monotonic()
        batch, sent, started = request * 64, 0, time.monotonic()
        while time.monotonic() - quiet_since < 1 and time.monotonic() - started < 20:
            try:
                fresh = link.plug.send(batch[sent % len(request) :])
                sent += fresh
                quiet_since = time.monotonic()
            except (BlockingIOError, ConnectionError):
                target.check_alive()
        target.check_alive()


@case(writes=False)
def clients_that_vanish_with_requests_in_flight(target):
    for number in range(100):
        link = target.open("structured" if number % 2 else "simple")
        link.send(*(link.header(READ, 0, 0, min(256 * KIB, target.size))[0] for _ in range(32)))
        link.reset() if number % 3 else link.close()


@case()
def clients_that_vanish_with_writes_in_flight(target):
    """What was answered is there; what was not may be, whole or not at all."""
    with target.open("simple") as link:
        link.write(0, bytes(64 * KIB))
    for number in range(1, 60):
        link = target.open("simple")
        stamp = bytes([number]) * 4096
        link.send(*(part for at in range(0, 64 * KIB, 4096) for part in (link.header(WRITE, 0, at, 4096)[0], stamp)))
        link.reset()
        with target.open("simple") as other:
            found = other.read(0, 64 * KIB)
        for at in range(0, 64 * KIB, 4096):
            block = found[at : at + 4096]
            check(block == block[:1] * 4096 and block[0] <= number, f"block {at // 4096} is whole")


@case(writes=False)
def clients_that_close_their_half(target):
    """Nothing more will come from them; what they asked for is answered, or the connection ends."""
    need(not target.address.tls, "plain connections")
    for mode in ("simple", "structured"):
        with target.open(mode) as link:
            for _ in range(8):
                link.ask(READ, 0, 0, 64 * KIB)
            link.plug.shutdown(socket.SHUT_WR)
            answered = 0
            try:
                while True:
                    equal(link.reply().error, 0)
                    answered += 1
            except wire.Ended:
                pass
            check(answered <= 8, "no more replies than requests", answered)


@case(seconds=120)
def many_clients_at_once(target):
    """Each with a stretch of its own."""
    need(target.has(wire.MULTI_CONN), "several connections")
    clients, stretch = 48, 128 * KIB
    need(target.size >= clients * stretch, "an export of 6 MiB")
    troubles = []

    def work(number):
        try:
            dice = random.Random(number)
            with target.open(("simple", "structured", "extended")[number % 3], timeout=60) as link:
                for _ in range(10):
                    data, at = dice.randbytes(5000), number * stretch + dice.randint(0, stretch - 5000)
                    link.write(at, data)
                    equal(link.read(at, 5000), data)
                link.disconnect()
        except Exception as error:
            troubles.append(f"client {number}: {error}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(not troubles, "all clients are served", *troubles[:3])


@case(writes=False)
def noise_instead_of_a_handshake(target):
    dice = random.Random(7)
    for _ in range(150):
        with target.raw(5) as link:
            with contextlib.suppress(wire.Ended):
                link.greet(dice.choice([3, 3, 3, dice.getrandbits(32)]))
                link.send(dice.randbytes(dice.randint(1, 300)))


@case(seconds=120, writes=False)
def options_that_are_nearly_right(target):
    """Valid options with a byte changed, cut or added, in a random order; every answer must be well-formed."""
    dice = random.Random(11)
    export = target.export
    whole = [
        (code, data)
        for code in range(2, 13)
        if code != wire.OPT_STARTTLS
        for data in (b"", go_bytes(export, (1, 3)), wire.meta_bytes(export, "base:allocation"), go_bytes(export), b"base:")
    ]
    for _ in range(200):
        with target.greeted(timeout=10) as link:
            with contextlib.suppress(wire.Ended):
                for _ in range(dice.randint(1, 12)):
                    code, data = dice.choice(whole)
                    data = bytearray(data)
                    for _ in range(dice.choice([0, 1, 1, 3])):
                        if data:
                            data[dice.randrange(len(data))] = dice.choice([0, 1, 255, dice.getrandbits(8)])
                    data = bytes(data[: dice.randint(0, len(data))]) if dice.random() < 0.2 else bytes(data)
                    if link.option(code, data)[-1][0] == wire.ACK and code in (OPT_GO, wire.OPT_ABORT):
                        break


@case(seconds=180)
def requests_that_are_nearly_right(target):
    """Random commands, flags, offsets and lengths under a valid magic: each is answered once, with an error of the protocol,
    or the connection ends; the server lives."""
    dice = random.Random(13)
    for round in range(90):
        with target.open(("simple", "structured", "extended")[round % 3], timeout=20) as link:
            with contextlib.suppress(wire.Ended):
                for _ in range(60):
                    one_odd_request(link, dice, target.size)


def one_odd_request(link, dice, size):
    command = dice.choice([READ, WRITE, FLUSH, 4, 5, ZEROES, STATUS, 8, 77, 0xFFFF])
    flags = dice.choice([0, 0, 1, NO_HOLE, 4, 8, FAST_ZERO, FAST_ZERO | NO_HOLE, PAYLOAD_LEN, dice.getrandbits(16)])
    offset = dice.choice([0, 1, 4096, size - 1, size, size + 1, dice.randrange(size), dice.getrandbits(64)])
    length = dice.choice([0, 1, 511, 4096, 4097, 65536, dice.randint(0, 200000)])
    has_payload = command == WRITE or link.extended and flags & PAYLOAD_LEN
    reply = link.do(command, flags, offset, length, dice.randbytes(length) if has_payload else b"")
    check(reply.error == 0 or reply.error in ERRORS, "an error of the protocol", reply.error)


@case(writes=False)
def a_flood_of_cheap_requests(target):
    """Requests that are refused at once, pipelined by thousands."""
    need(not target.address.tls, "a connection that two threads can use")
    with target.open("structured") as link:
        count = 20000
        requests = b"".join(link.header(99, 0, 0, 0)[0] for _ in range(count))
        sender = threading.Thread(target=lambda: link.send(requests))
        sender.start()
        for _ in range(count):
            equal(link.reply().error, wire.EINVAL)
        sender.join()


@case(writes=False)
def disconnect_with_a_crowd_of_flushes(target):
    with target.open("simple") as link:
        link.send(*(link.header(FLUSH)[0] for _ in range(500)), link.header(DISC)[0])
        answered = 0
        try:
            while True:
                equal(link.reply().error, 0)
                answered += 1
        except wire.Ended:
            pass
        check(answered <= 500, "an answer to each at most", answered)


@case(writes=False)
def connections_that_say_nothing(target):
    idle = []
    for _ in range(100):
        plug = target.address.connect(5)
        idle.append(plug)
    target.check_alive()
    for plug in idle:
        plug.close()


@case(writes=False)
def options_without_end_are_answered_one_by_one(target):
    """Ten thousand of them in one go, and the answers read afterwards."""
    need(not target.address.tls, "a connection that two threads can use")
    with target.greeted() as link:
        count = 10000
        options = option_bytes(99) * count
        sender = threading.Thread(target=lambda: send_quietly(link, options))
        sender.start()
        with contextlib.suppress(wire.Ended):
            for _ in range(count):
                equal(link.answers(99)[-1][0], wire.ERR_UNSUP)
        sender.join()


def send_quietly(link, data):
    """A server may have had enough of a client that haggles without end."""
    with contextlib.suppress(OSError):
        link.send(data)


@case(writes=False)
def a_request_split_at_every_byte(target):
    with target.open("extended") as link:
        header, _ = link.header(READ, 0, 4096, 512)
        for cut in range(1, len(header)):
            link.expect(READ, link.cookie, 4096, 512)
            link.send(header[:cut])
            link.send(header[cut:], struct.pack(""))
            equal(link.reply().error, 0)
