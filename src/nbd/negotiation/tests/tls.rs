//! STARTTLS: not there, offered, required.

use super::*;

#[test]
fn without_tls_starttls_is_refused_and_nobody_is_asked_for_it() {
    let mut server = Server::fixed(TlsPolicy::Off);
    assert_eq!(server.kinds(STARTTLS, b"x"), [reply::ERR_INVALID]);
    assert_eq!(server.kinds(STARTTLS, &[]), [reply::ERR_POLICY]);
    assert_eq!(server.kinds(GO, &go("always-tls", &[])), [reply::ERR_POLICY]);
}

#[test]
fn offered_tls_is_asked_for_by_single_exports() {
    let mut server = Server::fixed(TlsPolicy::Offered);
    server.option(STRUCTURED, &[]);
    assert_eq!(server.kinds(INFO, &go("secret", &[])), [reply::ERR_TLS_REQD]);
    assert_eq!(server.kinds(SET_META, &meta("secret", &[])), [reply::ERR_POLICY]);
    assert_eq!(server.kinds(STARTTLS, &[]), [reply::ACK]);
    assert!(server.wants_tls);
    server.talk.secured();
    assert_eq!(server.kinds(GO, &go("always-tls", &[])), [reply::ERR_POLICY], "it has TLS");
    assert_eq!(server.kinds(GO, &go("secret", &[])), [reply::INFO, reply::ACK]);
}

#[test]
fn required_tls_comes_before_everything_but_abort() {
    let mut server = Server::fixed(TlsPolicy::Required);
    for code in [LIST, PEEK, INFO, GO, STRUCTURED, LIST_META, SET_META, EXTENDED, 99] {
        assert_eq!(server.kinds(code, b"data"), [reply::ERR_TLS_REQD]);
    }
    assert!(server.asked.is_empty());
    assert_eq!(server.kinds(STARTTLS, &[]), [reply::ACK]);
    server.talk.secured();
    assert_eq!(server.kinds(STARTTLS, &[]), [reply::ERR_INVALID], "not twice");
    assert_eq!(server.kinds(GO, &go("disk", &[])), [reply::INFO, reply::ACK]);

    let mut server = Server::fixed(TlsPolicy::Required);
    server.hear(&option_bytes(EXPORT_NAME, b"disk"));
    assert!(matches!(server.closed, Some(CloseReason::Refused(_))));
}

#[test]
fn starttls_forgets_what_was_agreed_on_in_plain_text() {
    let mut server = Server::fixed(TlsPolicy::Offered);
    server.option(EXTENDED, &[]);
    server.option(SET_META, &meta("disk", &["base:allocation"]));
    server.option(STARTTLS, &[]);
    server.talk.secured();
    server.option(GO, &go("disk", &[]));
    assert_eq!(server.done.unwrap().0, Mode::default());
}

#[test]
fn plain_text_behind_starttls_closes_the_connection() {
    let mut server = Server::fixed(TlsPolicy::Offered);
    server.hear(&[option_bytes(STARTTLS, &[]), option_bytes(LIST, &[])].concat());
    assert_eq!(server.closed, Some(CloseReason::PlainTextAfterStartTls));
    assert_eq!(server.take(), b"");

    let mut server = Server::fixed(TlsPolicy::Offered);
    server.option(STARTTLS, &[]);
    server.hear(b"I");
    assert_eq!(server.closed, Some(CloseReason::PlainTextAfterStartTls));
}
