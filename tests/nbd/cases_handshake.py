"""The handshake, byte by byte: greeting, options and their answers."""

import struct
import time

import wire
from case import case, check, equal, need, one_of
from wire import (
    ACK, ERR, ERR_EXT_HEADER_REQD, ERR_INVALID, ERR_POLICY, ERR_TLS_REQD, ERR_TOO_BIG, ERR_UNKNOWN, ERR_UNSUP, INFO_BLOCK_SIZE,
    INFO_DESCRIPTION, INFO_EXPORT, INFO_NAME, META, OPT_ABORT, OPT_EXPORT_NAME, OPT_EXTENDED, OPT_GO, OPT_INFO, OPT_LIST,
    OPT_LIST_META, OPT_PEEK, OPT_SET_META, OPT_STARTTLS, OPT_STRUCTURED, SERVER, counted, go_bytes, meta_bytes, option_bytes,
)  # fmt: skip

NOBODY = "there-is-no-such-export"


def in_step(link):
    """The server must understand the next option."""
    equal(link.verdict(0x7777), ERR_UNSUP, "the answer to the next option")


@case(writes=False)
def greeting_offers_fixed_newstyle_and_no_zeroes(target):
    with target.raw().greet() as link:
        equal(link.offered & 3, 3, "handshake flags")


@case(writes=False)
def unknown_client_flags_close_the_connection(target):
    """The server MUST drop the connection."""
    for flags in (4, 7, 1 << 31):
        with target.raw(5).greet(flags) as link:
            link.provoke(option_bytes(OPT_LIST))


@case(writes=False)
def export_name_with_and_without_padding(target):
    need(not target.needs_tls, "TLS comes first")
    for flags, length in ((3, 10), (1, 134), (0, 134), (2, 10)):
        with target.raw().greet(flags) as link:
            link.say(OPT_EXPORT_NAME, target.export.encode())
            answer = link.receive(length)
            size, exported = struct.unpack(">QH", answer[:10])
            equal(size, target.size, "size")
            check(exported & 1, "HAS_FLAGS is set")
            equal(answer[10:], bytes(length - 10), "padding")
            link.read(0, 512)
            link.disconnect()


@case(writes=False)
def export_name_of_an_unknown_export_closes_the_connection(target):
    need_unknown(target)
    with target.greeted() as link:
        link.provoke(option_bytes(OPT_EXPORT_NAME, NOBODY.encode()))


@case(writes=False)
def export_name_cannot_follow_extended_headers(target):
    need(target.has_extended, "extended headers")
    with target.greeted() as link:
        equal(link.verdict(OPT_EXTENDED), ACK)
        link.provoke(option_bytes(OPT_EXPORT_NAME, target.export.encode()))


@case(writes=False)
def export_name_after_structured_replies(target):
    need(target.has_structured, "structured replies")
    with target.greeted() as link:
        equal(link.verdict(OPT_STRUCTURED), ACK)
        link.say(OPT_EXPORT_NAME, target.export.encode())
        _, flags = link.fields(">QH")
        check(flags & wire.SEND_DF, "DF is offered with structured replies")
        link.read(0, 4096, wire.DF)


@case(writes=False)
def a_client_without_fixed_newstyle_may_not_haggle(target):
    """Only EXPORT_NAME is legal for it; the server may close, or answer all the same."""
    with target.raw(5).greet(0) as link:
        link.say(OPT_LIST)
        try:
            link.answers(OPT_LIST)
        except wire.Ended:
            pass


@case(writes=False)
def unknown_options_are_skipped(target):
    """Whatever their data, up to megabytes."""
    with target.greeted() as link:
        for code, length in ((OPT_PEEK, 0), (0, 0), (12, 5), (99, 4096), (0xFFFFFFFF, 3000)):
            equal(link.verdict(code, bytes(length)), ERR_UNSUP, f"option {code} of {length} bytes")
        in_step(link)


@case(writes=False)
def an_unknown_option_of_a_megabyte_is_skipped_or_ends_the_connection(target):
    with target.greeted() as link:
        try:
            equal(link.verdict(99, bytes(1 << 20)), ERR_UNSUP)
            in_step(link)
        except wire.Ended:
            pass


@case(writes=False)
def absurd_lengths_end_the_connection(target):
    """Long before so many bytes would have come."""
    for code in (OPT_LIST, OPT_GO, OPT_SET_META, 99):
        with target.greeted(timeout=5) as link:
            link.provoke(option_bytes(code, b"x" * 16, length=0xFFFFFFFF))


@case(writes=False)
def what_is_no_option_ends_the_connection(target):
    for bad in (b"GET / HTTP/1.1\r\n\r\n", b"IHAVEOPX" + bytes(8), b"\xff" * 16):
        with target.greeted(timeout=5) as link:
            link.provoke(bad)


@case(writes=False)
def list_tells_the_export(target):
    with target.greeted() as link:
        answers = link.option(OPT_LIST)
        if answers[-1][0] == ERR_POLICY:
            return
        equal(answers[-1], (ACK, b""))
        names = []
        for kind, data in answers[:-1]:
            equal(kind, SERVER)
            (length,) = struct.unpack(">I", data[:4])
            check(length <= len(data) - 4, "the name lies within the reply")
            names.append(data[4 : 4 + length].decode())
            data[4 + length :].decode()
        check(target.export in names, "the export is listed", names)


@case(writes=False)
def options_without_data_refuse_data_once(target):
    """An answer for each, not two, and the stream stays in step."""
    for code in (OPT_LIST, OPT_STRUCTURED, OPT_EXTENDED, OPT_STARTTLS):
        with target.greeted() as link:
            for data in (b"x", bytes(1000)):
                one_of(link.verdict(code, data), (ERR_INVALID, ERR_UNSUP, ERR_POLICY), f"option {code} with data")
            in_step(link)


@case(writes=False)
def abort_is_acknowledged(target):
    for data in (b"", b"bye"):
        with target.greeted() as link:
            equal(link.option(OPT_ABORT, data), [(ACK, b"")])
            link.expect_end()


@case(writes=False)
def clients_that_abort_without_listening_do_no_harm(target):
    for _ in range(50):
        with target.greeted() as link:
            link.say(OPT_ABORT)
            link.reset()


@case(writes=False)
def info_and_go_tell_the_same(target):
    kinds = (INFO_NAME, INFO_BLOCK_SIZE, INFO_DESCRIPTION, 0x4242)
    with target.greeted() as link:
        told = link.informations(OPT_INFO, target.export, kinds)
        again = link.informations(OPT_GO, target.export, kinds)
        equal(again, told)
        size, flags = struct.unpack(">QH", told[INFO_EXPORT])
        equal(size, target.size)
        check(flags & wire.HAS_FLAGS, "HAS_FLAGS is set")
        check(not (flags & wire.SEND_FAST_ZERO) or flags & wire.SEND_ZEROES, "FAST_ZERO comes with WRITE_ZEROES")
        told.get(INFO_NAME, b"").decode()
        link.read(0, 512)


@case(writes=False)
def block_sizes_are_legal(target):
    with target.greeted() as link:
        link.go()
        need(link.blocks, "block sizes")
        minimum, preferred, payload = link.blocks
        check(minimum & (minimum - 1) == 0 and 1 <= minimum <= 65536, "the minimum is a power of two", minimum)
        check(preferred & (preferred - 1) == 0 and preferred >= max(512, minimum), "the preferred size is one", preferred)
        check(payload >= max(1 << 20, preferred), "a mebibyte of payload can be had", payload)


@case(writes=False)
def go_without_asking_for_block_sizes_is_served(target):
    with target.greeted() as link:
        link.go(kinds=())
        link.read(0, 512)


@case(writes=False)
def unknown_exports_are_refused_and_others_can_be_asked_for(target):
    need_unknown(target)
    with target.greeted() as link:
        for code in (OPT_INFO, OPT_GO):
            one_of(link.verdict(code, go_bytes(NOBODY)), (ERR_UNKNOWN, ERR_POLICY), f"option {code} of an unknown export")
        link.go()
        link.read(0, 512)


@case(writes=False)
def inner_lengths_that_lie_are_invalid(target):
    """INFO and GO cut at every byte, with bytes too many, and with counts that cannot be."""
    whole = go_bytes(target.export, (1, 2))
    lies = [whole[:cut] for cut in range(len(whole))] + [whole + b"x", whole + bytes(2)]
    lies += [struct.pack(">I", 0xFFFFFFFF) + whole[4:], counted(target.export) + b"\xff\xff"]
    with target.greeted() as link:
        for code in (OPT_INFO, OPT_GO):
            for data in lies:
                equal(link.verdict(code, data), ERR_INVALID, f"option {code} with {data!r}")
        in_step(link)
        link.go()


@case(writes=False)
def strings_that_are_none_are_refused(target):
    """Too long, not UTF-8, or with a NUL in them."""
    with target.greeted() as link:
        for name in (b"n" * 4097, b"\xff\xfe", target.export.encode() + b"\0"):
            one_of(link.verdict(OPT_INFO, go_bytes(name)), (ERR_INVALID, ERR_TOO_BIG, ERR_UNKNOWN), f"name of {len(name)} bytes")
        in_step(link)


@case(writes=False)
def the_longest_name_is_only_unknown(target):
    need_unknown(target)
    with target.greeted() as link:
        one_of(link.verdict(OPT_INFO, go_bytes("n" * 4096)), (ERR_UNKNOWN, ERR_TLS_REQD))


@case(writes=False)
def too_many_information_requests_do_no_harm(target):
    with target.greeted() as link:
        one_of(link.verdict(OPT_INFO, go_bytes(target.export, [0x4000] * 65535)), (ACK, ERR_TOO_BIG, ERR_INVALID))
        in_step(link)


@case(writes=False)
def extended_headers_need_nothing_and_outrank_structured_replies(target):
    need(target.has_extended, "extended headers")
    with target.greeted() as link:
        equal(link.verdict(OPT_EXTENDED), ACK)
        equal(link.verdict(OPT_STRUCTURED), ERR_EXT_HEADER_REQD)
        link.go()
        link.read(0, 512)
    with target.greeted() as link:
        equal(link.verdict(OPT_STRUCTURED), ACK)
        equal(link.verdict(OPT_EXTENDED), ACK)
        link.go()
        link.read(0, 512)


@case(writes=False)
def flags_that_need_an_agreement_are_offered_only_with_it(target):
    for link in target.modes():
        equal(bool(link.flags & wire.SEND_DF), link.structured, f"DF is offered (structured: {link.structured})")
        if not (link.extended and link.contexts):
            check(not link.flags & wire.STATUS_PAYLOAD, "the payload of BLOCK_STATUS needs extended headers and a context")


@case(writes=False)
def contexts_are_listed(target):
    need(target.has_allocation, "base:allocation")
    found = [(META, b"\0\0\0\0base:allocation"), (ACK, b"")]
    with target.greeted() as link:
        link.option(OPT_STRUCTURED)
        for queries in (("base:",), ("base:allocation",), ("unknown:thing", "base:allocation")):
            equal([named(answer) for answer in link.option(OPT_LIST_META, meta_bytes(target.export, *queries))], found, queries)
        everything = [named(answer) for answer in link.option(OPT_LIST_META, meta_bytes(target.export))]
        check(found[0] in everything, "no query lists all", everything)
        for query in ("unknown:thing", "base:unknown"):
            equal(link.option(OPT_LIST_META, meta_bytes(target.export, query)), [(ACK, b"")], query)


def named(answer):
    """An answer with the context's id, which means nothing in a list, made zero."""
    kind, data = answer
    return (kind, bytes(4) + data[4:]) if kind == META else answer


@case(writes=False)
def contexts_are_selected(target):
    need(target.has_allocation, "base:allocation")
    with target.greeted() as link:
        link.option(OPT_STRUCTURED)
        for queries in ((), ("base:",), ("unknown:thing",), ("base:unknown",)):
            equal(link.option(OPT_SET_META, meta_bytes(target.export, *queries)), [(ACK, b"")], queries)
        answers = link.option(OPT_SET_META, meta_bytes(target.export, "unknown:thing", "base:allocation"))
        equal([named(answer) for answer in answers], [(META, b"\0\0\0\0base:allocation"), (ACK, b"")])
        link.go()
        link.status(0, 4096)


@case(writes=False)
def contexts_need_structured_replies(target):
    need(target.has_structured, "structured replies")
    with target.greeted() as link:
        one_of(link.verdict(OPT_SET_META, meta_bytes(target.export, "base:allocation")), (ERR_INVALID, ERR_EXT_HEADER_REQD))
        in_step(link)


@case(writes=False)
def inner_lengths_of_context_queries_that_lie_are_invalid(target):
    need(target.has_allocation, "base:allocation")
    whole = meta_bytes(target.export, "base:allocation", "unknown:thing")
    many = counted(target.export) + struct.pack(">I", 0xFFFFFFFF) + counted("base:allocation")
    lies = [whole[:cut] for cut in range(len(whole))] + [whole + b"x", many]
    with target.greeted() as link:
        link.option(OPT_STRUCTURED)
        for code in (OPT_LIST_META, OPT_SET_META):
            for data in lies:
                one_of(link.verdict(code, data), (ERR_INVALID, ERR_TOO_BIG), f"option {code} with {data!r}")
        in_step(link)


@case(writes=False)
def a_selection_that_fails_voids_the_one_before(target):
    need(target.has_allocation, "base:allocation")
    for bad in (b"\0", meta_bytes(target.export)):
        with target.greeted() as link:
            link.option(OPT_STRUCTURED)
            link.option(OPT_SET_META, meta_bytes(target.export, "base:allocation"))
            link.option(OPT_SET_META, bad)
            link.go()
            equal(link.error(wire.STATUS, 0, 0, 4096), wire.EINVAL, "BLOCK_STATUS without a context")
            link.read(0, 512)


@case(writes=False)
def options_in_one_piece_and_in_pieces_of_a_byte(target):
    options = option_bytes(OPT_LIST) + option_bytes(99, b"abc") + option_bytes(OPT_INFO, go_bytes(target.export))
    for pieces in ([options], [options[n : n + 1] for n in range(len(options))]):
        with target.greeted() as link:
            for piece in pieces:
                link.send(piece)
            one_of(link.answers(OPT_LIST)[-1][0], (ACK, ERR_POLICY))
            equal(link.answers(99)[-1][0], ERR_UNSUP)
            equal(link.answers(OPT_INFO)[-1][0], ACK)


@case(writes=False)
def requests_may_follow_go_at_once(target):
    """Bytes that come with the last option belong to the transmission phase."""
    with target.greeted() as link:
        first, one = link.header(wire.READ, 0, 0, 4096)
        second, two = link.header(wire.READ, 0, 512, 512)
        for cookie, offset, length in ((one, 0, 4096), (two, 512, 512)):
            link.expect(wire.READ, cookie, offset, length)
        link.send(option_bytes(OPT_GO, go_bytes(target.export)), first, second[:7])
        equal(link.answers(OPT_GO)[-1], (ACK, b""))
        equal(link.reply().cookie, one)
        link.send(second[7:])
        equal(link.reply().cookie, two)


@case(writes=False)
def half_open_handshakes_do_not_hinder_others(target):
    idle = [target.raw() for _ in range(40)] + [target.greeted() for _ in range(20)]
    half = [target.greeted() for _ in range(10)]
    for link in half:
        link.send(option_bytes(OPT_GO, go_bytes(target.export))[:21])
    target.check_alive()
    for link in idle + half:
        link.close()


@case(writes=False)
def hundreds_of_connections_one_after_the_other(target):
    started = time.monotonic()
    for _ in range(300):
        with target.open("structured") as link:
            link.read(0, 512)
    check(time.monotonic() - started < 50, "a handshake takes no time", time.monotonic() - started)


@case(writes=False)
def errors_have_the_error_bit(target):
    with target.greeted() as link:
        for code in (OPT_PEEK, 12, 0x80000001):
            check(link.verdict(code) & ERR, f"option {code} is refused by an error")


def need_unknown(target):
    """Some servers give every name the same export."""
    with target.greeted() as link:
        need(link.informations(OPT_INFO, NOBODY) is None, "names: every one opens the export")
