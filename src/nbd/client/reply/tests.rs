use proptest::prelude::*;

use super::*;

fn structured() -> Mode {
    Mode { structured: true, allocation: Some(1), ..Mode::default() }
}

fn extended() -> Mode {
    Mode { extended: true, ..structured() }
}

fn chunk_bytes(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = STRUCTURED.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(5u64.to_be_bytes());
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[test]
fn chunks_whose_fields_do_not_fit_are_violations() {
    let bad = [
        (chunk::NONE, REPLY_DONE, &b"x"[..]),
        (chunk::NONE, 0, b""),
        (chunk::OFFSET_DATA, 0, b"12345678"),
        (chunk::OFFSET_DATA, 0, b"1234567"),
        (chunk::OFFSET_HOLE, 0, b"12345678\0\0\0\0"),
        (chunk::OFFSET_HOLE, 0, b"12345678\0\0\0\x01x"),
        (chunk::BLOCK_STATUS, 0, b"\0\0\0\x01"),
        (chunk::BLOCK_STATUS, 0, b"\0\0\0\x01\0\0\0\0\0\0\0\0"),
        (chunk::BLOCK_STATUS, 0, b"\0\0\0\x01\0\0\0\x01\0\0\0\0x"),
        (chunk::BLOCK_STATUS_EXT, 0, b"\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0"),
        (chunk::ERROR, 0, b"\0\0\0\0\0\0"),
        (chunk::ERROR, 0, b"\0\0\0\x05\0\x02x"),
        (7, 0, b""),
    ];
    for (kind, flags, payload) in bad {
        let length = payload.len() as u64;
        let answer = decode(&chunk_bytes(kind, flags, payload), &structured());
        assert_eq!(answer, Err(Violation::BadChunk { kind, length }), "{payload:?}");
    }
}

#[test]
fn an_error_with_an_offset_or_of_unknown_type_is_a_failure() {
    let payload = b"\0\0\0\x1c\0\x04full\0\0\0\0\0\0\0\x07";
    for kind in [chunk::ERROR_OFFSET, chunk::ERROR_BIT | 99] {
        let (_, reply) = decode(&chunk_bytes(kind, REPLY_DONE, payload), &structured()).unwrap().unwrap();
        assert_eq!(reply.body, Body::Failed { errno: Errno::NoSpace, text: "full".to_owned() });
    }
    let (_, reply) = decode(&chunk_bytes(chunk::ERROR, 0, b"\0\0\xff\xff\0\0"), &structured()).unwrap().unwrap();
    assert_eq!(reply.body, Body::Failed { errno: Errno::Io, text: String::new() });
}

#[test]
fn replies_that_were_not_agreed_on_are_violations() {
    let chunk = chunk_bytes(chunk::NONE, REPLY_DONE, b"");
    assert_eq!(decode(&chunk, &Mode::default()), Err(Violation::NotAReply(STRUCTURED)));
    assert_eq!(decode(&chunk, &extended()), Err(Violation::NotAReply(STRUCTURED)));
    assert_eq!(decode(&SIMPLE.to_be_bytes(), &extended()), Err(Violation::NotAReply(SIMPLE)));
    assert_eq!(decode(&EXTENDED.to_be_bytes(), &structured()), Err(Violation::NotAReply(EXTENDED)));
}

#[test]
fn a_length_that_cannot_be_meant_is_found_before_its_bytes() {
    let mut bytes = chunk_bytes(chunk::ERROR, 0, b"");
    bytes[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(decode(&bytes, &structured()), Err(Violation::BadChunk { .. })));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), mode in 0..3usize, kind in 0..10u16, error: bool) {
        let mode = [Mode::default(), structured(), extended()][mode].clone();
        let magic = match (mode.structured, mode.extended) {
            (_, true) => EXTENDED,
            (true, false) => STRUCTURED,
            (false, false) => SIMPLE,
        };
        let kind = if error { kind | chunk::ERROR_BIT } else { kind };
        let likely = [&magic.to_be_bytes()[..], &[0, 1], &kind.to_be_bytes(), &bytes].concat();
        for bytes in [&bytes, &likely] {
            if let Ok(Some((taken, _))) = decode(bytes, &mode) {
                prop_assert!(taken <= bytes.len());
            }
        }
    }
}
