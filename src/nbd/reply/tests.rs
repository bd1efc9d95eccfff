use proptest::prelude::*;

use super::*;
use crate::nbd::client::{Body, Reply, decode};

const TAG: Tag = Tag { cookie: 0x0102_0304_0506_0708, offset: 4096 };

fn modes() -> [Mode; 3] {
    let structured = Mode { structured: true, allocation: Some(9), ..Mode::default() };
    [Mode::default(), structured.clone(), Mode { extended: true, ..structured }]
}

/// Decodes exactly one reply.
fn read_back(mode: &Mode, bytes: &[u8]) -> Reply {
    for cut in 0..bytes.len() {
        assert_eq!(decode(&bytes[..cut], mode), Ok(None), "cut at {cut}");
    }
    let (taken, reply) = decode(bytes, mode).unwrap().expect("a whole reply");
    assert_eq!((taken, reply.cookie), (bytes.len(), TAG.cookie));
    reply
}

#[test]
fn the_bytes_are_those_of_the_protocol() {
    let [simple, structured, extended] = modes();
    assert_eq!(done(&simple, TAG)[..], *b"\x67\x44\x66\x98\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08");
    assert_eq!(done(&structured, TAG), done(&simple, TAG));
    assert_eq!(
        done(&extended, TAG)[..],
        *b"\x6e\x8a\x27\x8c\0\x01\0\0\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0"
    );
    assert_eq!(
        data(&structured, TAG, 4096, 512, true)[..],
        *b"\x66\x8e\x33\xef\0\x01\0\x01\x01\x02\x03\x04\x05\x06\x07\x08\0\0\x02\x08\0\0\0\0\0\0\x10\0"
    );
    assert_eq!(data(&simple, TAG, 4096, 512, true), done(&simple, TAG));
}

#[test]
fn success_and_failure_in_every_mode() {
    for mode in modes() {
        let success = read_back(&mode, &done(&mode, TAG));
        assert_eq!((success.last, success.body), (true, Body::Done));
        for errno in Errno::ALL {
            let mut bytes = Vec::new();
            error(&mode, TAG, errno, "no", &mut bytes);
            let text = if mode.structured { "no" } else { "" }.to_owned();
            let failure = read_back(&mode, &bytes);
            assert_eq!((failure.last, failure.body), (true, Body::Failed { errno, text }));
        }
    }
}

#[test]
fn data_and_holes_in_every_mode() {
    let [_, structured, extended] = modes();
    for mode in [structured, extended] {
        for last in [false, true] {
            let reply = read_back(&mode, &data(&mode, TAG, 5000, 77, last));
            assert_eq!((reply.last, reply.body), (last, Body::Data { offset: 5000, length: 77 }));
            let reply = read_back(&mode, &hole(&mode, TAG, 5000, 77, last));
            assert_eq!((reply.last, reply.body), (last, Body::Hole { offset: 5000, length: 77 }));
        }
        let nothing = read_back(&mode, &data(&mode, TAG, 5000, 0, true));
        assert_eq!((nothing.last, nothing.body), (true, Body::Done), "a chunk of no bytes is not allowed");
    }
}

#[test]
fn long_texts_are_cut_between_characters() {
    let [_, structured, _] = modes();
    let mut bytes = Vec::new();
    error(&structured, TAG, Errno::Io, &format!("x{}", "ä".repeat(3000)), &mut bytes);
    let Body::Failed { text, .. } = read_back(&structured, &bytes).body else { panic!("no failure") };
    assert_eq!(text.len(), 4095);
}

#[test]
fn fragments_are_for_those_who_understand_and_allow_them() {
    let [simple, structured, extended] = modes();
    assert!(!can_fragment(&simple, false));
    assert!(can_fragment(&structured, false) && can_fragment(&extended, false));
    assert!(!can_fragment(&structured, true));
}

/// Writes a status reply and reads it back.
fn status(mode: &Mode, length: u64, one: bool, extents: &[(u64, u32)]) -> (Vec<(u64, u64)>, usize) {
    let mut bytes = b"earlier".to_vec();
    let mut reply = Status::begin(mode, TAG, length, one, &mut bytes);
    let pushed = extents.iter().take_while(|&&(length, state)| reply.push(length, state)).count();
    reply.finish();
    assert_eq!(bytes[..7], *b"earlier");
    let Reply { last: true, body: Body::Status { context: 9, extents }, .. } = read_back(mode, &bytes[7..]) else {
        panic!("no status");
    };
    (extents, pushed)
}

#[test]
fn status_joins_cuts_and_stops() {
    let [_, structured, extended] = modes();
    for mode in [structured, extended] {
        let all = [(10, 0), (20, 3), (5, 3), (0, 1), (30, 0)];
        assert_eq!(status(&mode, 1000, false, &all).0, [(10, 0), (25, 3), (30, 0)]);
        assert_eq!(status(&mode, 40, false, &all).0, [(10, 0), (25, 3), (5, 0)], "cut off at the request's end");
        assert_eq!(status(&mode, 35, false, &all), (vec![(10, 0), (25, 3)], 2), "covered: no more is of use");
        assert_eq!(status(&mode, 1000, true, &all[1..]).0, [(25, 3)]);
        assert_eq!(status(&mode, 7, true, &all).0, [(7, 0)]);
        assert_eq!(status(&mode, 1000, false, &[]).0, [(1000, 0)], "nothing known is data");
    }
}

#[test]
fn status_of_more_than_32_bits_in_extended_mode() {
    let [.., extended] = modes();
    assert_eq!(status(&extended, 1 << 40, false, &[(1 << 41, 3)]).0, [(1 << 40, 3)]);
}

#[test]
fn status_has_at_most_a_million_extents() {
    let [_, structured, _] = modes();
    let extents: Vec<(u64, u32)> = (0..(1 << 20) + 5).map(|i| (1, i % 2)).collect();
    let (told, pushed) = status_fast(&structured, 1 << 30, &extents);
    assert_eq!((told, pushed), (1 << 20, 1 << 20));
}

/// As `status`, without trying every cut of a reply of megabytes.
fn status_fast(mode: &Mode, length: u64, extents: &[(u64, u32)]) -> (usize, usize) {
    let mut bytes = Vec::new();
    let mut reply = Status::begin(mode, TAG, length, false, &mut bytes);
    let pushed = extents.iter().take_while(|&&(length, state)| reply.push(length, state)).count();
    reply.finish();
    let Ok(Some((_, Reply { body: Body::Status { extents, .. }, .. }))) = decode(&bytes, mode) else { panic!("no status") };
    (extents.len(), pushed)
}

proptest! {
    #[test]
    fn status_keeps_the_protocols_promises(
        extended: bool, one: bool, length in 1..5000u64, extents in proptest::collection::vec((0..1000u64, 0..4u32), 0..20),
    ) {
        let [_, structured, long] = modes();
        let (told, _) = status(if extended { &long } else { &structured }, length, one, &extents);
        let sum: u64 = told.iter().map(|&(length, _)| length).sum();
        prop_assert!(!told.is_empty() && told.iter().all(|&(length, _)| length > 0));
        prop_assert!(sum <= length);
        prop_assert!(!one || told.len() == 1);
        prop_assert!(told.windows(2).all(|pair| pair[0].1 != pair[1].1), "neighbours differ");
        let expand = |extents: &[(u64, u64)]| -> Vec<u64> {
            extents.iter().flat_map(|&(length, state)| (0..length).map(move |_| state)).collect()
        };
        let truth: Vec<(u64, u64)> = extents.iter().map(|&(length, state)| (length, state.into())).collect();
        let truth = expand(&truth);
        if !truth.is_empty() {
            let told = expand(&told);
            prop_assert_eq!(&told[..], &truth[..told.len()]);
            prop_assert!(one || told.len() as u64 == length.min(truth.len() as u64));
        }
    }
}
