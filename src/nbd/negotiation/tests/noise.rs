//! Bytes that a client should not send, in pieces of any size.

use proptest::prelude::*;

use super::*;
use crate::nbd::client::{Handshake, Step, Wish};

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
