"""libnbd, with its own checks switched off: a second opinion on what the bytes mean."""

import os

from case import case, check, equal, need
from wire import SEND_FAST_ZERO, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_ZEROES

try:
    import nbd
except ImportError:
    nbd = None

KIB, MIB = 1 << 10, 1 << 20


def handle(target, *contexts, structured=True, strict=0):
    need(nbd, "python3-libnbd (not installed)")
    link = nbd.NBD()
    link.set_strict_mode(strict)
    link.set_request_structured_replies(structured)
    link.set_handshake_flags(nbd.HANDSHAKE_FLAG_MASK)
    if target.address.tls:
        link.set_tls(nbd.TLS_REQUIRE)
        link.set_tls_certificates(target.certificates)
        link.set_tls_verify_peer(False)
    if target.address.path:
        link.set_uri_allow_local_file(True)
    for context in contexts:
        link.add_meta_context(context)
    return link


def connected(target, *contexts, **options):
    link = handle(target, *contexts, **options)
    link.connect_uri(target.address.uri())
    return link


def refused(action):
    """The errno of a call that must fail."""
    try:
        action()
    except nbd.Error as error:
        return error.errno
    raise AssertionError("it was not refused")


@case(writes=False)
def libnbd_understands_the_export(target):
    link = connected(target)
    equal(link.get_size(), target.size)
    equal(link.is_read_only(), target.is_read_only)
    equal(link.can_flush(), target.has(SEND_FLUSH))
    equal(link.can_trim(), target.has(SEND_TRIM))
    equal(link.can_fast_zero(), target.has(SEND_FAST_ZERO))
    equal(link.get_structured_replies_negotiated(), target.has_structured)
    equal(link.get_protocol(), "newstyle-fixed")
    link.shutdown()


@case(writes=False)
def libnbd_haggles(target):
    link = handle(target)
    link.set_opt_mode(True)
    link.connect_uri(target.address.uri())
    link.set_export_name(target.export)
    names = []
    try:
        link.opt_list(lambda name, description: names.append(name) or 0)
        check(target.export in names, "the export is listed", names)
    except nbd.Error as error:
        check("policy" in str(error).lower(), "only policy forbids a list", error)
    link.opt_info()
    equal(link.get_size(), target.size)
    if target.has_allocation:
        contexts = []
        link.opt_list_meta_context(lambda name: contexts.append(name) or 0)
        check("base:allocation" in contexts, "base:allocation is listed", contexts)
    link.opt_go()
    equal(len(link.pread(512, 0)), 512)
    link.shutdown()


@case(writes=False)
def libnbd_aborts(target):
    link = handle(target)
    link.set_opt_mode(True)
    link.connect_uri(target.address.uri())
    link.opt_abort()


@case()
def libnbd_reads_what_it_wrote(target):
    for structured in (False, True):
        link = connected(target, structured=structured)
        for offset, length in ((0, 512), (1, 1), (4095, 4098), (MIB - 7, 300 * KIB)):
            data = os.urandom(length)
            link.pwrite(data, offset, nbd.CMD_FLAG_FUA if link.can_fua() else 0)
            equal(bytes(link.pread(length, offset)), data)
        link.flush()
        link.shutdown()


@case()
def libnbd_reads_in_pieces(target):
    need(target.has_structured, "structured replies")
    link = connected(target)
    data = os.urandom(MIB)
    link.pwrite(data, 0)
    if link.can_zero():
        link.zero(128 * KIB, 256 * KIB)
        data = data[: 256 * KIB] + bytes(128 * KIB) + data[384 * KIB :]
    found, problems = bytearray(MIB), []

    def piece(buffer, offset, status, error):
        if error.value:
            problems.append((offset, error.value))
        found[offset : offset + len(buffer)] = buffer
        return 0

    equal(bytes(link.pread_structured(MIB, 0, piece)), data)
    equal((bytes(found), problems), (data, []))
    if link.can_df():
        pieces = []
        link.pread_structured(64 * KIB, 0, lambda buffer, *_: pieces.append(len(buffer)) or 0, nbd.CMD_FLAG_DF)
        equal(pieces, [64 * KIB])
    link.shutdown()


@case()
def libnbd_is_refused_what_makes_no_sense(target):
    """Its strict mode would not let these out."""
    link = connected(target, "base:allocation")
    equal(refused(lambda: link.pread(512, target.size)), "EINVAL")
    equal(refused(lambda: link.pwrite(bytes(512), target.size)), "ENOSPC")
    equal(refused(lambda: link.pread(512, 0, 1 << 9)), "EINVAL")
    if target.has(SEND_ZEROES):
        equal(refused(lambda: link.zero(4096, target.size - 512)), "ENOSPC")
    if target.has(SEND_TRIM):
        equal(refused(lambda: link.trim(4096, target.size - 512)), "EINVAL")
    equal(refused(lambda: link.cache(4096, target.size - 512)), "EINVAL")
    equal(len(link.pread(512, 0)), 512)
    link.shutdown()


@case()
def libnbd_does_nothing_at_all(target):
    """Requests of length zero."""
    link = connected(target)
    before = bytes(link.pread(4096, 0))
    equal(len(link.pread(0, 0)), 0)
    link.pwrite(b"", 0)
    if target.has(SEND_ZEROES):
        link.zero(0, 0)
    if target.has(SEND_TRIM):
        link.trim(0, 0)
    equal(bytes(link.pread(4096, 0)), before)
    link.shutdown()


@case()
def libnbd_asks_for_the_status(target):
    need(target.has_allocation, "base:allocation")
    link = connected(target, "base:allocation")
    check(link.can_meta_context("base:allocation"), "the context is selected")
    link.pwrite(b"\x55" * 4096, MIB)
    found = {}

    def extents(context, offset, entries, error):
        found[offset] = list(zip(entries[::2], entries[1::2], strict=True))
        return 0

    link.block_status(4096, MIB, extents)
    equal(found[MIB][0][1], 0, "the flags of data")
    found.clear()
    link.block_status(min(target.size, 1 << 31), 0, extents, nbd.CMD_FLAG_REQ_ONE)
    equal(len(found[0]), 1)
    link.shutdown()


@case()
def libnbd_keeps_many_in_flight(target):
    link = connected(target)
    buffers = {at: os.urandom(8192) for at in range(0, MIB, 8192)}
    cookies = [link.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), at) for at, data in buffers.items()]
    finish(link, cookies)
    reads = {at: nbd.Buffer(8192) for at in buffers}
    finish(link, [link.aio_pread(buffer, at) for at, buffer in reads.items()])
    for at, buffer in reads.items():
        equal(bytes(buffer.to_bytearray()), buffers[at], f"the data at {at}")
    link.shutdown()


def finish(link, cookies):
    left = set(cookies)
    while left:
        link.poll(10000)
        left -= {cookie for cookie in left if link.aio_command_completed(cookie)}


@case()
def libnbd_flushes_on_another_connection(target):
    one, other = connected(target), connected(target)
    need(one.can_multi_conn(), "several connections")
    data = os.urandom(64 * KIB)
    one.pwrite(data, 0)
    other.flush()
    equal(bytes(other.pread(64 * KIB, 0)), data)
    if target.has(SEND_FUA):
        other.pwrite(data[::-1], 0, nbd.CMD_FLAG_FUA)
        equal(bytes(one.pread(64 * KIB, 0)), data[::-1])
    for link in (one, other):
        link.shutdown()
