//! Our client and our server.

use super::*;
use crate::nbd::client::{Agreed as Opened, Handshake, HandshakeError, Step, Wish};

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
