//! Each option, and what makes no sense.

use super::super::incoming::MAX_DATA;
use super::*;
use crate::nbd::TransmissionFlags;
use crate::nbd::option::info;

#[test]
fn export_name_ends_in_padding_unless_the_client_wants_none() {
    let mut server = Server::new(TlsPolicy::Off);
    server.hear(&1u32.to_be_bytes());
    server.hear(&option_bytes(EXPORT_NAME, b"disk"));
    let sent = server.take();
    assert_eq!(sent.len(), 134);
    assert_eq!(sent[..8], (1u64 << 30).to_be_bytes());
    assert_eq!(sent[8..10], Mode::default().flags().0.to_be_bytes());
    assert_eq!(server.done, Some((Mode::default(), "disk".to_owned(), vec![])));

    let mut server = Server::fixed(TlsPolicy::Off);
    server.hear(&option_bytes(EXPORT_NAME, b"disk"));
    assert_eq!(server.take().len(), 10);
}

#[test]
fn what_export_name_cannot_have_closes_the_connection() {
    for name in ["other".to_owned(), "n".repeat(4097), "disk\0".to_owned()] {
        let mut server = Server::fixed(TlsPolicy::Offered);
        server.hear(&option_bytes(EXPORT_NAME, name.as_bytes()));
        assert!(matches!(server.closed, Some(CloseReason::Refused(_))), "{:?}", server.closed);
        assert_eq!(server.take(), b"");
    }
    let mut server = Server::fixed(TlsPolicy::Off);
    assert_eq!(server.kinds(EXTENDED, &[]), [reply::ACK]);
    server.hear(&option_bytes(EXPORT_NAME, b"disk"));
    assert!(matches!(server.closed, Some(CloseReason::Refused(_))), "extended headers go with GO only");
}

#[test]
fn a_client_without_fixed_newstyle_may_send_export_name_only() {
    let mut server = Server::new(TlsPolicy::Off);
    server.hear(&0u32.to_be_bytes());
    server.hear(&option_bytes(LIST, &[]));
    assert_eq!(server.closed, Some(CloseReason::NotFixed(LIST)));
    let mut server = Server::new(TlsPolicy::Off);
    server.hear(&2u32.to_be_bytes());
    server.hear(&option_bytes(EXPORT_NAME, b"disk"));
    assert_eq!(server.take().len(), 10);
    assert!(server.done.is_some());
}

#[test]
fn unknown_client_flags_close_the_connection() {
    for flags in [4u32, 7, 1 << 31] {
        let mut server = Server::new(TlsPolicy::Off);
        server.hear(&flags.to_be_bytes());
        assert_eq!(server.closed, Some(CloseReason::UnknownFlags(flags & !3)));
    }
}

#[test]
fn another_protocol_is_recognised_before_a_whole_header() {
    let mut server = Server::fixed(TlsPolicy::Off);
    server.hear(b"GET / HT");
    assert_eq!(server.closed, Some(CloseReason::NotAnOption(u64::from_be_bytes(*b"GET / HT"))));
}

#[test]
fn unknown_options_are_skipped_whatever_their_length() {
    let mut server = Server::fixed(TlsPolicy::Off);
    for (code, length) in [(PEEK, 0), (12, 5), (0, 0), (0xffff_ffff, 3 << 20)] {
        assert_eq!(server.kinds(code, &vec![7; length]), [reply::ERR_UNSUP]);
    }
    assert_eq!(server.kinds(LIST, &[]), [reply::SERVER, reply::ACK], "the stream is still in step");
}

#[test]
fn absurd_lengths_close_the_connection_before_their_data() {
    for code in [GO, LIST, 77, SET_META] {
        let mut server = Server::fixed(TlsPolicy::Off);
        server.hear(&[b"IHAVEOPT".as_slice(), &code.to_be_bytes(), &[255; 4]].concat());
        assert_eq!(server.closed, Some(CloseReason::TooLong { option: code, length: u32::MAX }));
    }
}

#[test]
fn too_much_data_is_refused_without_being_kept() {
    let mut server = Server::fixed(TlsPolicy::Off);
    assert_eq!(server.kinds(GO, &vec![0; MAX_DATA + 1]), [reply::ERR_TOO_BIG]);
    assert_eq!(server.kinds(GO, &go(&"n".repeat(4097), &[])), [reply::ERR_TOO_BIG]);
    assert_eq!(server.kinds(INFO, &go("disk", &[])), [reply::INFO, reply::ACK]);
}

#[test]
fn list_tells_names_and_takes_no_data() {
    let mut server = Server::fixed(TlsPolicy::Off);
    assert_eq!(server.kinds(LIST, b"x"), [reply::ERR_INVALID]);
    let listed = server.option(LIST, &[]);
    assert_eq!(listed, [(reply::SERVER, [counted("disk"), b"a disk".to_vec()].concat()), (reply::ACK, vec![])]);
}

#[test]
fn abort_is_acknowledged_with_and_without_data() {
    for data in [&[][..], b"bye"] {
        let mut server = Server::fixed(TlsPolicy::Required);
        assert_eq!(server.kinds(ABORT, data), [reply::ACK]);
        assert_eq!(server.closed, Some(CloseReason::Aborted));
    }
}

#[test]
fn info_tells_what_was_asked_for_and_go_the_same() {
    let mut server = Server::fixed(TlsPolicy::Off);
    let asked = go("disk", &[info::NAME, info::BLOCK_SIZE, 999, info::DESCRIPTION, info::BLOCK_SIZE]);
    let told = server.option(INFO, &asked);
    let flags = Mode::default().flags().0.to_be_bytes();
    assert_eq!(told[0], (reply::INFO, [&[0, 0], &(1u64 << 30).to_be_bytes()[..], &flags].concat()));
    assert_eq!(told[1], (reply::INFO, b"\0\x01disk".to_vec()));
    assert_eq!(told[2], (reply::INFO, b"\0\x02a disk".to_vec()));
    assert_eq!(told[3], (reply::INFO, vec![0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0]));
    assert_eq!(told[4], (reply::ACK, vec![]));
    assert_eq!(told.len(), 5);
    assert_eq!(server.option(GO, &asked), told);
    assert_eq!(server.done, Some((Mode::default(), "disk".to_owned(), vec![])));
    assert_eq!(server.asked, [("disk".to_owned(), Purpose::Inspect), ("disk".to_owned(), Purpose::Serve)]);
    assert_eq!(server.talk.poll(), Action::Close(CloseReason::Over), "it is told once");
}

#[test]
fn a_refused_export_can_be_followed_by_another() {
    let mut server = Server::fixed(TlsPolicy::Off);
    let told = server.option(GO, &go("other", &[]));
    assert_eq!(told, [(reply::ERR_UNKNOWN, b"there is no volume 'other'".to_vec())]);
    assert_eq!(server.kinds(GO, &go("disk", &[])), [reply::INFO, reply::ACK]);
}

#[test]
fn inner_lengths_that_do_not_fit_are_invalid() {
    let mut server = Server::fixed(TlsPolicy::Off);
    server.option(STRUCTURED, &[]);
    let good = go("disk", &[1, 2]);
    for cut in 0..good.len() {
        assert_eq!(server.kinds(GO, &good[..cut]), [reply::ERR_INVALID], "cut at {cut}");
    }
    assert_eq!(server.kinds(GO, &[good.as_slice(), b"x"].concat()), [reply::ERR_INVALID]);
    let good = meta("disk", &["base:allocation", "x:y"]);
    for code in [LIST_META, SET_META] {
        for cut in 0..good.len() {
            assert_eq!(server.kinds(code, &good[..cut]), [reply::ERR_INVALID], "cut at {cut}");
        }
        assert_eq!(server.kinds(code, &[good.as_slice(), b"x"].concat()), [reply::ERR_INVALID]);
        let mut many = good.clone();
        many[8..12].copy_from_slice(&[255; 4]);
        assert_eq!(server.kinds(code, &many), [reply::ERR_INVALID], "a number of queries that cannot be");
    }
    assert_eq!(server.kinds(GO, &go("disk\0", &[])), [reply::ERR_INVALID]);
    assert_eq!(server.kinds(GO, b"\0\0\0\x01\xff\0\0"), [reply::ERR_INVALID], "not UTF-8");
    assert_eq!(server.kinds(GO, &go("disk", &[])), [reply::INFO, reply::ACK]);
}

#[test]
fn structured_replies_and_extended_headers() {
    let mut server = Server::fixed(TlsPolicy::Off);
    assert_eq!(server.kinds(STRUCTURED, b"x"), [reply::ERR_INVALID]);
    assert_eq!(server.kinds(EXTENDED, b"x"), [reply::ERR_INVALID]);
    assert_eq!(server.kinds(STRUCTURED, &[]), [reply::ACK]);
    assert_eq!(server.kinds(EXTENDED, &[]), [reply::ACK]);
    assert_eq!(server.kinds(STRUCTURED, &[]), [reply::ERR_EXT_HEADER_REQD]);
    server.option(GO, &go("disk", &[]));
    let (mode, ..) = server.done.unwrap();
    assert!(mode.structured && mode.extended);
}

#[test]
fn contexts_are_listed_and_selected() {
    let mut server = Server::fixed(TlsPolicy::Off);
    let listed = (reply::META_CONTEXT, b"\0\0\0\0base:allocation".to_vec());
    let done = (reply::ACK, vec![]);
    let nothing = std::slice::from_ref(&done);
    assert_eq!(server.kinds(SET_META, &meta("disk", &["base:allocation"])), [reply::ERR_INVALID], "not without chunks");
    server.option(STRUCTURED, &[]);
    for queries in [&[][..], &["base:"], &["x:y", "base:allocation", "base:allocation", "base:"]] {
        assert_eq!(server.option(LIST_META, &meta("disk", queries)), [listed.clone(), done.clone()]);
    }
    assert_eq!(server.option(LIST_META, &meta("disk", &["qemu:dirty-bitmap:b", "base:nothing"])), nothing);
    assert_eq!(server.kinds(LIST_META, &meta("other", &[])), [reply::ERR_UNKNOWN]);
    for queries in [&[][..], &["base:"], &["base:other", "x:y"]] {
        assert_eq!(server.option(SET_META, &meta("disk", queries)), nothing);
    }
    let selected = (reply::META_CONTEXT, b"\0\0\0\x01base:allocation".to_vec());
    assert_eq!(server.option(SET_META, &meta("disk", &["base:allocation"])), [selected, done.clone()]);
    server.option(GO, &go("disk", &[]));
    assert_eq!(server.done.unwrap().0.allocation, Some(1));
}

#[test]
fn a_selection_is_void_for_another_export_and_after_a_later_one_that_fails() {
    let selected = || {
        let mut server = Server::fixed(TlsPolicy::Off);
        server.option(EXTENDED, &[]);
        assert_eq!(server.kinds(SET_META, &meta("disk", &["base:allocation"])), [reply::META_CONTEXT, reply::ACK]);
        server
    };
    let context = |mut server: Server, name: &str| {
        server.option(GO, &go(name, &[]));
        server.done.unwrap().0.allocation
    };
    assert_eq!(context(selected(), "disk"), Some(1));
    let mut other = selected();
    other.option(SET_META, &meta("other", &["base:allocation"]));
    assert_eq!(context(other, "disk"), None);
    let mut broken = selected();
    broken.option(SET_META, b"\0");
    assert_eq!(context(broken, "disk"), None);
    let mut long = selected();
    long.option(SET_META, &vec![0; MAX_DATA + 1]);
    assert_eq!(context(long, "disk"), None);
    let mut listed = selected();
    listed.option(LIST_META, &meta("disk", &[]));
    assert_eq!(context(listed, "disk"), Some(1), "a list changes nothing");
}

#[test]
fn flags_told_by_go_are_those_of_the_mode() {
    let mut server = Server::fixed(TlsPolicy::Off);
    server.option(EXTENDED, &[]);
    server.option(SET_META, &meta("disk", &["base:allocation"]));
    let told = server.option(GO, &go("disk", &[]));
    let flags = TransmissionFlags(u16::from_be_bytes(told[0].1[10..12].try_into().unwrap()));
    assert!(flags.has(TransmissionFlags::BLOCK_STATUS_PAYLOAD | TransmissionFlags::SEND_DF));
}

#[test]
fn requests_sent_early_are_handed_over() {
    let mut server = Server::fixed(TlsPolicy::Off);
    server.hear(&[option_bytes(GO, &go("disk", &[])), b"requests".to_vec()].concat());
    assert_eq!(server.done.unwrap().2, b"requests");
}

#[test]
fn a_question_is_asked_until_it_is_answered() {
    let mut talk = Negotiation::new(TlsPolicy::Off);
    talk.feed(&3u32.to_be_bytes());
    talk.feed(&option_bytes(LIST, &[]));
    assert!(matches!(talk.poll(), Action::Send(_)));
    assert_eq!(talk.poll(), Action::List);
    talk.opened(Ok(disk()));
    talk.secured();
    assert_eq!(talk.poll(), Action::List);
    talk.listed(Err(Refusal::policy("not here")));
    let Action::Send(bytes) = talk.poll() else { panic!("no answer") };
    assert_eq!(replies(&bytes), [(LIST, reply::ERR_POLICY, b"not here".to_vec())]);
    assert_eq!(talk.poll(), Action::Receive);
}
