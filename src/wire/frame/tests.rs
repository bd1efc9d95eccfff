use proptest::prelude::*;

use super::*;
use crate::units::{BlockRange, ClusterId, NodeId, RecordId, VolumeId};
use crate::wire::strategies::{frame, link};
use crate::wire::{BODY_MAX, Blame, Features, Hello, Process, Program, RANGES_MAX, Versions};

const CODEC: Codec = Codec::new(1, true);

fn encoded(frame: &Frame, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    CODEC.encode(frame, payload, &mut out).unwrap();
    out
}

fn codec_of(message: &LinkMessage) -> Codec {
    if matches!(message, LinkMessage::Hello(_)) { Codec::HELLO } else { CODEC }
}

fn message(message: Message) -> Frame {
    Frame { resource: ResourceId(0x0102), reign: 0x0304, message }
}

fn write(count: u64) -> Message {
    let range = BlockRange { volume: VolumeId(2), first: 0x40, count };
    Message::Write(Write { seq: 9, range, fua: true, sync: false, settled: 8 })
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_was((frame, payload) in frame(), before in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut out = before.clone();
        CODEC.encode(&frame, &payload, &mut out).unwrap();
        prop_assert_eq!(&out[..before.len()], &before);
        let bytes = &out[before.len()..];
        let Parsed::Whole { incoming, header, used } = CODEC.parse(bytes).unwrap() else { panic!("all bytes are there") };
        prop_assert_eq!(incoming, Incoming::Engine(frame));
        prop_assert_eq!((used, header.payload_len as usize), (bytes.len(), payload.len()));
        prop_assert_eq!(header.check_payload(&payload), Ok(()));
    }

    #[test]
    fn a_message_of_the_connection_comes_back_as_it_was(message in link()) {
        let mut out = Vec::new();
        let codec = codec_of(&message);
        codec.encode_link(&message, &mut out);
        let Parsed::Whole { incoming, header, used } = codec.parse(&out).unwrap() else { panic!("all bytes are there") };
        prop_assert_eq!(incoming, Incoming::Link(message));
        prop_assert_eq!((used, header.payload_len), (out.len(), 0));
    }

    /// TCP cuts the stream anywhere. However few bytes are there, the answer is how many are needed, never an error and never a frame.
    #[test]
    fn a_frame_that_is_not_all_there_asks_for_the_rest((frame, payload) in frame(), cut in any::<prop::sample::Index>()) {
        let out = encoded(&frame, &payload);
        let cut = cut.index(out.len());
        let Parsed::More(needed) = CODEC.parse(&out[..cut]).unwrap() else { panic!("the frame is cut off") };
        prop_assert!(cut < needed && needed <= out.len());
        prop_assert!(cut < HEADER || needed == out.len());
    }

    #[test]
    fn frames_one_after_the_other_are_told_apart_however_they_arrive(frames in prop::collection::vec(frame(), 1..6), chunk in 1..300_usize) {
        let mut stream = Vec::new();
        for (frame, payload) in &frames {
            CODEC.encode(frame, payload, &mut stream).unwrap();
            stream.extend_from_slice(payload);
        }
        let (mut staging, mut arrived) = (Vec::new(), Vec::new());
        let mut source = stream.chunks(chunk);
        while arrived.len() < frames.len() {
            if let Parsed::Whole { incoming: Incoming::Engine(frame), header, used } = CODEC.parse(&staging).unwrap()
                && let end = used + header.payload_len as usize
                && staging.len() >= end
            {
                let payload = staging[used..end].to_vec();
                header.check_payload(&payload).unwrap();
                staging.drain(..end);
                arrived.push((frame, payload));
            } else {
                staging.extend_from_slice(source.next().expect("every frame arrives before the stream ends"));
            }
        }
        prop_assert_eq!(arrived, frames);
        prop_assert!(staging.is_empty() && source.next().is_none());
    }

    #[test]
    fn one_flipped_bit_is_found((frame, payload) in frame(), at in any::<prop::sample::Index>()) {
        let mut bytes = encoded(&frame, &payload);
        let head = bytes.len();
        bytes.extend_from_slice(&payload);
        let at = at.index(bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        let error = match CODEC.parse(&bytes[..head]) {
            Ok(Parsed::Whole { header, .. }) => header.check_payload(&bytes[head..]).unwrap_err(),
            Ok(Parsed::More(_)) => panic!("a damaged length was believed"),
            Err(error) => error,
        };
        prop_assert_eq!(error.blame(), if at < 16 { Blame::Stranger } else { Blame::Network });
    }

    /// Lengths are right or wrong; nothing is cut off or made up.
    #[test]
    fn a_body_with_a_byte_more_or_less_is_refused((frame, payload) in frame(), more in any::<u8>()) {
        let bytes = encoded(&frame, &payload);
        let (head, body) = bytes.split_first_chunk::<HEADER>().unwrap();
        for body in [&[body, &[more]].concat()[..], &body[..body.len() - 1]] {
            let header = Header::decode(head).unwrap();
            let header = Header { body_len: u32::try_from(body.len()).unwrap(), body_checksum: crc32fast::hash(body), ..header };
            let error = CODEC.parse(&[&header.encode()[..], body].concat()).unwrap_err();
            prop_assert!(matches!(error, FrameError::Malformed { .. }), "{}", error);
        }
    }

    #[test]
    fn no_bytes_are_too_strange_to_be_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), ours in any::<bool>()) {
        let mut bytes = bytes;
        if ours && bytes.len() >= 2 {
            bytes[..2].copy_from_slice(b"bk");
        }
        match CODEC.parse(&bytes) {
            Ok(Parsed::More(needed)) => prop_assert!(bytes.len() < needed && needed <= HEADER + BODY_MAX as usize),
            Ok(Parsed::Whole { .. }) => panic!("noise was taken for a frame"),
            Err(_) => {}
        }
    }

    /// Right checksums do not make the content right: whatever a peer puts under them is met without a panic, and what is accepted
    /// could have been sent.
    #[test]
    fn content_under_right_checksums_is_still_judged((frame, payload) in frame(), kind in any::<u8>(), change in any::<[(prop::sample::Index, u8); 3]>(), grow in prop::collection::vec(any::<u8>(), 0..20)) {
        let bytes = encoded(&frame, &payload);
        let (head, body) = bytes.split_first_chunk::<HEADER>().unwrap();
        let mut body = [body, &grow].concat();
        let length = body.len();
        for (at, byte) in change.into_iter().filter(|_| length > 0) {
            body[at.index(length)] = byte;
        }
        let header = Header::decode(head).unwrap();
        let kind = Kind::of(kind % 40).unwrap_or(header.kind);
        let header = Header { kind, body_len: u32::try_from(length).unwrap(), body_checksum: crc32fast::hash(&body), ..header };
        let bytes = [&header.encode()[..], &body].concat();
        if let Ok(Parsed::Whole { incoming: Incoming::Engine(frame), .. }) = CODEC.parse(&bytes) {
            let payload = vec![0; header.payload_len as usize];
            prop_assert!(CODEC.encode(&frame, &payload, &mut Vec::new()).is_ok());
        }
    }
}

#[test]
fn a_write_has_eighty_bytes_before_its_payload() {
    assert_eq!(encoded(&message(write(1)), &[0; 4096]).len(), 80);
}

#[test]
fn a_payload_that_does_not_fit_its_message_is_not_sent() {
    let (mut out, reply) = (b"earlier".to_vec(), |ok| message(Message::ReadReply { id: 1, ok }));
    for (frame, payload) in [
        (message(write(2)), 4096),
        (message(write(1)), 0),
        (message(Message::Flush { id: 1 }), 4096),
        (message(Message::Leaving), 1),
        (reply(true), 0),
        (reply(true), 100),
        (reply(false), 4096),
        (message(write(8193)), 8193 * 4096),
    ] {
        let error = CODEC.encode(&frame, &vec![0; payload], &mut out).unwrap_err();
        assert!(error.to_string().contains("cannot be sent"), "{error}");
        assert_eq!(out, b"earlier");
    }
}

#[test]
fn a_payload_whose_length_lies_is_refused() {
    let bytes = encoded(&message(write(2)), &[0; 8192]);
    let (head, body) = bytes.split_first_chunk::<HEADER>().unwrap();
    let header = Header { payload_len: 4096, ..Header::decode(head).unwrap() };
    let error = CODEC.parse(&[&header.encode()[..], body].concat()).unwrap_err();
    assert_eq!(error.blame(), Blame::Peer);
    let header = Header { payload_len: PAYLOAD_MAX + 1, ..header };
    let error = CODEC.parse(&header.encode()).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { part: "payload", .. }), "{error}");
    let header = Header { kind: Kind::Flush, payload_len: 1, ..header };
    assert!(matches!(CODEC.parse(&header.encode()), Err(FrameError::TooLong { max: 0, .. })));
}

#[test]
fn lists_of_acknowledgements_have_an_end() {
    let written = |count| message(Message::Written { seqs: vec![7; count] });
    assert!(CODEC.encode(&written(RANGES_MAX), &[], &mut Vec::new()).is_ok());
    assert!(CODEC.encode(&written(RANGES_MAX + 1), &[], &mut Vec::new()).is_err());
    assert!(CODEC.encode(&written(0), &[], &mut Vec::new()).is_err());
}

#[test]
fn somebody_elses_protocol_is_recognised_by_its_first_byte() {
    let error = CODEC.parse(b"G").unwrap_err();
    assert_eq!(error.blame(), Blame::Stranger);
    let error = CODEC.parse(b"GET / HTTP/1.1\r\n").unwrap_err();
    assert_eq!(error, FrameError::Stranger { seen: b"GET / HT".to_vec() });
    assert_eq!(CODEC.parse(b""), Ok(Parsed::More(HEADER)));
}

#[test]
fn a_hello_comes_first_and_once() {
    let mut hello = Vec::new();
    Codec::HELLO.encode_link(&LinkMessage::Hello(example_hello()), &mut hello);
    assert!(matches!(CODEC.parse(&hello), Err(FrameError::Version { seen: 0, expected: 1 })));
    let bytes = encoded(&message(Message::Leaving), &[]);
    assert!(matches!(Codec::HELLO.parse(&bytes), Err(FrameError::Version { seen: 1, expected: 0 })));
    assert!(matches!(Codec::new(2, true).parse(&bytes), Err(FrameError::Version { seen: 1, expected: 2 })));
    let mut second = Vec::new();
    CODEC.encode_link(&LinkMessage::Hello(example_hello()), &mut second);
    assert!(matches!(CODEC.parse(&second), Err(FrameError::Malformed { kind: Kind::Hello, .. })));
}

/// The layouts of version 1, pinned: a change here is another version.
#[test]
fn version_1_stays_what_it_is() {
    let range = BlockRange { volume: VolumeId(1), first: 2, count: 3 };
    let zero = Zero { seq: 4, range, unmap: true, fua: false, sync: true, settled: 5 };
    let bodies = [
        (write(1), "09000000000000004000000000000000080000000000000001000000 0200 0100"),
        (Message::Zero(zero), "0400000000000000 0200000000000000 0500000000000000 0300000000000000 0100 0600 00000000"),
        (Message::Written { seqs: vec![1, 258] }, "0100000000000000 0201000000000000"),
        (Message::Flush { id: 6 }, "0600000000000000"),
        (Message::Flushed { id: 6, durable: 7 }, "0600000000000000 0700000000000000"),
        (Message::Settled { seq: 6, older: true }, "0600000000000000 0100 000000000000"),
        (Message::Read { id: 6, range }, "0600000000000000 0200000000000000 03000000 0100 0000"),
        (Message::ReadReply { id: 6, ok: false }, "0600000000000000 0000 000000000000"),
        // Postcard: the variant's number, then the fields.
        (Message::Leaving, "06"),
        (Message::SyncBegin, "10"),
        (Message::Accepted { id: RecordId(5) }, "1b 05"),
        (Message::InUse, "1f"),
    ];
    for (body, expected) in bodies {
        let payload = if matches!(body, Message::Write(_)) { &[0; 4096][..] } else { &[] };
        let bytes = encoded(&message(body), payload);
        assert_eq!(hex(&bytes[HEADER..]), expected.replace(' ', ""));
    }
    let bytes = encoded(&message(Message::Flush { id: 6 }), &[]);
    assert_eq!(hex(&bytes[..32]), "626b0114 0000 0000 0201000000000000 0403000000000000 08000000 00000000".replace(' ', ""));
    let mut hello = Vec::new();
    Codec::HELLO.encode_link(&LinkMessage::Hello(example_hello()), &mut hello);
    let expected = "0103 0400 0500 0600 07000000000000000000000000000000 08000000 0900 0100 \
                    0a000000000000000000000000000000 0b000000 00000000 0c00000000000000 0d00000000000000";
    assert_eq!(hex(&hello[..4]), "626b0001");
    assert_eq!(hex(&hello[HEADER..]), expected.replace(' ', ""));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn example_hello() -> Hello {
    Hello {
        versions: Versions { oldest: 1, newest: 3 },
        program: Program { major: 4, minor: 5, patch: 6 },
        cluster: ClusterId(7),
        node: NodeId(8),
        lane: 9,
        features: Features::PLAIN,
        boot: 10,
        process: Process { id: 11, namespace: 12, started: 13 },
    }
}
