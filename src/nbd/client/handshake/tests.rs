use super::*;

/// A client that has answered the greeting, and what it sent then.
fn greeted(wish: Wish) -> (Handshake, Vec<u8>) {
    let mut client = Handshake::new(wish);
    assert_eq!(client.poll(), Step::Receive);
    client.feed(b"NBDMAGICIHAVEOPT\x00\x03");
    let sent = sent(&mut client);
    (client, sent)
}

fn sent(client: &mut Handshake) -> Vec<u8> {
    match client.poll() {
        Step::Send(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

fn reply_bytes(option: OptionCode, kind: u32, data: &[u8]) -> Vec<u8> {
    [&option::REPLY.to_be_bytes()[..], &option.code().to_be_bytes(), &kind.to_be_bytes(), &length(data), data].concat()
}

#[test]
fn an_old_server_is_opened_by_export_name() {
    let (mut client, _) = greeted(Wish { export: "disk".to_owned(), structured: true, ..Wish::default() });
    client.feed(&reply_bytes(OptionCode::StructuredReply, reply::ERR_UNSUP, b""));
    sent(&mut client);
    client.feed(&reply_bytes(OptionCode::Go, reply::ERR_UNSUP, b""));
    assert_eq!(sent(&mut client), b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk");
    client.feed(b"\0\0\0\0\0\x10\0\0\0\x03early");
    let Step::Done(agreed) = client.poll() else { panic!("not open") };
    assert_eq!((agreed.size, agreed.mode.read_only, agreed.mode.structured), (1 << 20, true, false));
    assert_eq!(agreed.early, b"early");
    assert_eq!(client.poll(), Step::Failed(HandshakeError::Over));
}

#[test]
fn structured_replies_stand_in_for_extended_headers() {
    let (mut client, first) = greeted(Wish { extended: true, ..Wish::default() });
    assert_eq!(first, b"\0\0\0\x03IHAVEOPT\0\0\0\x0b\0\0\0\0");
    client.feed(&reply_bytes(OptionCode::ExtendedHeaders, reply::ERR_UNSUP, b"what?"));
    assert_eq!(sent(&mut client), b"IHAVEOPT\0\0\0\x08\0\0\0\0");
}

#[test]
fn plain_text_behind_the_servers_answer_to_starttls_is_not_trusted() {
    let (mut client, _) = greeted(Wish { tls: true, ..Wish::default() });
    client.feed(&[reply_bytes(OptionCode::StartTls, reply::ACK, b""), b"x".to_vec()].concat());
    assert_eq!(client.poll(), Step::Failed(HandshakeError::Violation("plain text after STARTTLS")));
}

#[test]
fn a_server_that_acknowledges_go_without_a_size_is_not_believed() {
    let (mut client, _) = greeted(Wish::default());
    client.feed(&reply_bytes(OptionCode::Go, reply::ACK, b""));
    assert!(matches!(client.poll(), Step::Failed(HandshakeError::Violation(_))));
}

#[test]
fn other_servers_are_recognised() {
    let mut client = Handshake::new(Wish::default());
    client.feed(b"SSH-2.0-OpenSSH_9.2p1");
    assert_eq!(client.poll(), Step::Failed(HandshakeError::NotNewstyle(u64::from_be_bytes(*b"SSH-2.0-"))));
    let mut oldstyle = Handshake::new(Wish::default());
    oldstyle.feed(b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53and then");
    assert!(matches!(oldstyle.poll(), Step::Failed(HandshakeError::NotNewstyle(_))));
}
