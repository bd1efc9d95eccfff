use proptest::prelude::*;

use super::incoming::MAX_DATA;
use super::*;
use crate::nbd::client::{Agreed as Opened, Handshake, HandshakeError, Step, Wish};
use crate::nbd::option::info;
use crate::nbd::{BlockSizes, TransmissionFlags};

/// A server with one export, "disk", and what it sent, answered and wanted so far.
struct Server {
    talk: Negotiation,
    sent: Vec<u8>,
    asked: Vec<(String, Purpose)>,
    done: Option<(Mode, String, Vec<u8>)>,
    closed: Option<CloseReason>,
    wants_tls: bool,
}

impl Server {
    /// A server after its greeting.
    fn new(tls: TlsPolicy) -> Self {
        let talk = Negotiation::new(tls);
        let mut server = Self { talk, sent: Vec::new(), asked: Vec::new(), done: None, closed: None, wants_tls: false };
        server.run();
        assert_eq!(server.take(), b"NBDMAGICIHAVEOPT\x00\x03");
        server
    }

    /// A server that has heard from a client with fixed newstyle.
    fn fixed(tls: TlsPolicy) -> Self {
        let mut server = Self::new(tls);
        server.hear(&3u32.to_be_bytes());
        server
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.talk.feed(bytes);
        self.run();
    }

    fn run(&mut self) {
        loop {
            match self.talk.poll() {
                Action::Send(bytes) => self.sent.extend(bytes),
                Action::Receive => return,
                Action::List => {
                    self.talk.listed(Ok(&[Listed { name: "disk".to_owned(), description: "a disk".to_owned() }]));
                }
                Action::Open { name, purpose } => {
                    let answer = match name.as_str() {
                        "disk" => Ok(disk()),
                        "secret" if !self.talk.is_secured() => Err(Refusal::tls_required("only with TLS")),
                        "secret" => Ok(disk()),
                        "always-tls" => Err(Refusal::tls_required("only with TLS")),
                        _ => Err(Refusal::unknown(format!("there is no volume '{name}'"))),
                    };
                    self.asked.push((name, purpose));
                    self.talk.opened(answer);
                }
                Action::StartTls => {
                    self.wants_tls = true;
                    return;
                }
                Action::Done { mode, name, early } => {
                    self.done = Some((mode, name, early));
                    return;
                }
                Action::Close(reason) => {
                    self.closed = Some(reason);
                    return;
                }
            }
        }
    }

    fn take(&mut self) -> Vec<u8> {
        mem::take(&mut self.sent)
    }

    /// Sends an option and takes the replies to it: type and data of each.
    fn option(&mut self, code: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.hear(&option_bytes(code, data));
        let bytes = self.take();
        replies(&bytes)
            .into_iter()
            .map(|(to, kind, data)| {
                assert_eq!(to, code);
                (kind, data)
            })
            .collect()
    }

    /// The types of the replies to an option.
    fn kinds(&mut self, code: u32, data: &[u8]) -> Vec<u32> {
        self.option(code, data).into_iter().map(|(kind, _)| kind).collect()
    }
}

fn disk() -> Export {
    Export {
        name: "disk".to_owned(),
        description: "a disk".to_owned(),
        size: 1 << 30,
        read_only: false,
        blocks: BlockSizes::default(),
    }
}

fn option_bytes(code: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [b"IHAVEOPT".as_slice(), &code.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

fn replies(mut bytes: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[..8], option::REPLY.to_be_bytes());
        let field = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let end = 20 + usize::try_from(field(16)).unwrap();
        all.push((field(8), field(12), bytes[20..end].to_vec()));
        bytes = &bytes[end..];
    }
    all
}

fn counted(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

fn go(name: &str, kinds: &[u16]) -> Vec<u8> {
    let mut data = counted(name);
    data.extend(u16::try_from(kinds.len()).unwrap().to_be_bytes());
    data.extend(kinds.iter().flat_map(|kind| kind.to_be_bytes()));
    data
}

fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = counted(name);
    data.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    data.extend(queries.iter().flat_map(|query| counted(query)));
    data
}

const EXPORT_NAME: u32 = 1;
const ABORT: u32 = 2;
const LIST: u32 = 3;
const PEEK: u32 = 4;
const STARTTLS: u32 = 5;
const INFO: u32 = 6;
const GO: u32 = 7;
const STRUCTURED: u32 = 8;
const LIST_META: u32 = 9;
const SET_META: u32 = 10;
const EXTENDED: u32 = 11;

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

/// Runs our client against our server.
fn meet(wish: Wish, tls: TlsPolicy) -> (Result<Opened, HandshakeError>, Server) {
    let mut server = Server { sent: Vec::new(), ..Server::new(tls) };
    let mut client = Handshake::new(wish);
    client.feed(b"NBDMAGICIHAVEOPT\x00\x03");
    loop {
        match client.poll() {
            Step::Send(bytes) => server.hear(&bytes),
            Step::Receive => {
                let bytes = server.take();
                assert!(!bytes.is_empty(), "both wait: {:?}", server.closed);
                client.feed(&bytes);
            }
            Step::StartTls => {
                assert!(server.wants_tls);
                client.secured();
                server.talk.secured();
            }
            Step::Done(agreed) => return (Ok(agreed), server),
            Step::Failed(error) => return (Err(error), server),
        }
    }
}

#[test]
fn client_and_server_agree() {
    for bits in 0..16u8 {
        let wish = Wish {
            export: "disk".to_owned(),
            tls: bits & 1 != 0,
            structured: bits & 2 != 0,
            extended: bits & 4 != 0,
            allocation: bits & 8 != 0,
        };
        let (opened, server) = meet(wish.clone(), TlsPolicy::Offered);
        let (opened, (mode, name, early)) = (opened.unwrap(), server.done.unwrap());
        assert_eq!((name.as_str(), early), ("disk", vec![]));
        assert_eq!(opened.mode, mode, "{wish:?}");
        assert_eq!(opened.flags, mode.flags());
        assert_eq!((opened.size, opened.blocks), (1 << 30, Some(BlockSizes::default())));
        assert_eq!(mode.extended, wish.extended);
        assert_eq!(mode.structured, wish.structured || wish.extended);
        assert_eq!(mode.allocation.is_some(), wish.allocation && mode.structured);
        assert_eq!(server.talk.is_secured(), wish.tls);
    }
}

#[test]
fn the_client_tells_the_servers_words() {
    let (refused, _) = meet(Wish { export: "other".to_owned(), ..Wish::default() }, TlsPolicy::Off);
    let text = "there is no volume 'other'".to_owned();
    assert_eq!(refused, Err(HandshakeError::Refused { option: GO, code: reply::ERR_UNKNOWN, text }));
    let (refused, _) = meet(Wish { export: "disk".to_owned(), tls: true, ..Wish::default() }, TlsPolicy::Off);
    assert!(matches!(refused, Err(HandshakeError::Refused { code: reply::ERR_POLICY, .. })));
}

/// Something that a client might send: mostly options that are nearly right.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just("disk".to_owned()), "\\PC{0,8}"];
    let kinds = proptest::collection::vec(0..5u16, 0..4);
    let query = prop_oneof![Just("base:".to_owned()), Just(option::ALLOCATION.to_owned()), "[a-z:]{0,6}"];
    let queries = proptest::collection::vec(query, 0..3);
    let data = prop_oneof![
        Just(Vec::new()),
        proptest::collection::vec(any::<u8>(), 0..40),
        (name.clone(), kinds).prop_map(|(name, kinds)| go(&name, &kinds)),
        (name, queries).prop_map(|(name, queries)| meta(&name, &queries.iter().map(String::as_str).collect::<Vec<_>>())),
    ];
    let option = (0..13u32, data).prop_map(|(code, data)| option_bytes(code, &data));
    let piece = prop_oneof![9 => option, 1 => proptest::collection::vec(any::<u8>(), 0..20)];
    let pieces = proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat());
    let flags = prop_oneof![9 => Just(3u32), 1 => any::<u32>()];
    (flags, pieces).prop_map(|(flags, pieces)| [flags.to_be_bytes().to_vec(), pieces].concat())
}

/// What a server did with some bytes.
#[derive(Debug, PartialEq)]
struct Heard {
    sent: Vec<u8>,
    agreed: Option<(Mode, String)>,
    early: Vec<u8>,
    closed: Option<CloseReason>,
}

/// Sends a server some bytes, cut at some places. STARTTLS ends it: what follows is not the negotiation's.
fn heard(tls: TlsPolicy, pieces: &[&[u8]]) -> Heard {
    let mut server = Server::new(tls);
    let mut beyond = Vec::new();
    for piece in pieces {
        match server.done.is_some() {
            true => beyond.extend_from_slice(piece),
            false => server.hear(piece),
        }
    }
    let (agreed, early) = server.done.map_or((None, vec![]), |(mode, name, early)| (Some((mode, name)), early));
    Heard { sent: server.sent, agreed, early: [early, beyond].concat(), closed: server.closed }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn bytes_fed_one_by_one_are_understood_as_those_fed_at_once(bytes in noise()) {
        let singles: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(heard(TlsPolicy::Off, &singles), heard(TlsPolicy::Off, &[&bytes]));
    }

    #[test]
    fn no_bytes_panic_and_nothing_is_opened_without_required_tls(bytes in noise()) {
        prop_assert_eq!(heard(TlsPolicy::Required, &[&bytes]).agreed, None);
        heard(TlsPolicy::Offered, &[&bytes]);
    }

    #[test]
    fn no_server_panics_the_client(bytes in proptest::collection::vec(any::<u8>(), 0..200), good in 0..3usize) {
        let mut client = Handshake::new(Wish { extended: true, allocation: true, ..Wish::default() });
        let replies = [&b""[..], &replies_to(GO), &replies_to(EXTENDED)];
        client.feed(b"NBDMAGICIHAVEOPT\x00\x03");
        client.feed(replies[good]);
        client.feed(&bytes);
        while let Step::Send(_) = client.poll() {}
    }
}

fn replies_to(code: u32) -> Vec<u8> {
    let mut out = Vec::new();
    answer::reply(&mut out, code, reply::ACK, &[]);
    out
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
