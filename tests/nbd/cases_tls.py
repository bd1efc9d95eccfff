"""STARTTLS: without TLS, with it, and the ways to trick it."""

import wire
from case import case, check, equal, need, one_of
from wire import (
    ACK, ERR_INVALID, ERR_POLICY, ERR_TLS_REQD, ERR_UNSUP, OPT_ABORT, OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_LIST, OPT_SET_META,
    OPT_STARTTLS, OPT_STRUCTURED, go_bytes, meta_bytes, option_bytes,
)  # fmt: skip


def need_tls(target):
    need(target.certificates, "TLS: no --tls-certificates given")


@case(writes=False)
def starttls_without_tls_is_refused(target):
    need(not target.certificates, "no TLS")
    with target.greeted() as link:
        one_of(link.verdict(OPT_STARTTLS), (ERR_POLICY, ERR_UNSUP))
        link.go()
        link.read(0, 512)


@case(writes=False)
def tls_serves(target):
    need_tls(target)
    with target.raw().greet() as link:
        link.start_tls()
        equal(link.verdict(OPT_LIST), ACK)
        link.go()
        equal(len(link.read(0, 1 << 20)), 1 << 20)
        link.disconnect()


@case(writes=False)
def a_second_starttls_is_invalid(target):
    need_tls(target)
    with target.raw().greet() as link:
        link.start_tls()
        equal(link.verdict(OPT_STARTTLS), ERR_INVALID)
        link.go()
        link.read(0, 512)


@case(writes=False)
def required_tls_comes_first(target):
    """Every option but STARTTLS and ABORT is told so, also unknown ones; EXPORT_NAME is cut off."""
    need_tls(target)
    need(target.needs_tls, "clients without TLS (it is not required)")
    with target.raw().greet() as link:
        for code in (OPT_LIST, OPT_INFO, OPT_GO, OPT_STRUCTURED, OPT_SET_META, 99):
            equal(link.verdict(code, b""), ERR_TLS_REQD, f"option {code}")
        equal(link.verdict(OPT_ABORT), ACK)
    with target.raw().greet() as link:
        link.provoke(option_bytes(OPT_EXPORT_NAME, target.export.encode()))


@case(writes=False)
def plain_text_behind_starttls_is_not_obeyed(target):
    """Someone between could put options there, to be taken for the client's own."""
    need_tls(target)
    injected = option_bytes(OPT_GO, go_bytes(target.export))
    with target.raw(10).greet() as link:
        link.send(option_bytes(OPT_STARTTLS), injected)
        try:
            equal(link.answers(OPT_STARTTLS)[-1][0], ACK)
            link.secure()
        except (OSError, wire.Broken):
            return
        # A TLS session that began in spite of it must know nothing of the injected option.
        equal(link.verdict(99), ERR_UNSUP)


@case(writes=False)
def starttls_forgets_what_was_agreed_on_before(target):
    need_tls(target)
    need(not target.needs_tls and target.has_allocation, "options before TLS")
    with target.raw().greet() as link:
        equal(link.verdict(OPT_STRUCTURED), ACK)
        equal(link.verdict(OPT_SET_META, meta_bytes(target.export, "base:allocation")), ACK)
        link.start_tls()
        link.go()
        check(not link.flags & wire.SEND_DF, "structured replies are forgotten")
        link.read(0, 512)
        equal(link.error(wire.STATUS, 0, 0, 4096), wire.EINVAL)


@case(writes=False)
def a_client_that_does_not_finish_tls_does_no_harm(target):
    need_tls(target)
    for garbage in (b"", b"\x16\x03\x01", bytes(100), b"IHAVEOPT" * 10):
        with target.raw().greet() as link:
            equal(link.verdict(OPT_STARTTLS), ACK)
            link.send(garbage)


@case(writes=False)
def a_client_without_a_certificate_gets_nothing(target):
    """The list of exports neither. Only a server that asks for certificates can be tried."""
    need_tls(target)
    import ssl

    with target.raw(10).greet() as link:
        equal(link.verdict(OPT_STARTTLS), ACK)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            link.plug = context.wrap_socket(link.plug)
            link.say(OPT_LIST)
            answer = link.answers(OPT_LIST)
        except (OSError, wire.Broken):
            return
        check(False, "the server talks to a client without a certificate", answer)
