use proptest::prelude::*;

use super::*;
use crate::nbd::client;

const SIZE: u64 = 1 << 40;

fn plain() -> Mode {
    Mode::default()
}

fn structured() -> Mode {
    Mode { structured: true, allocation: Some(1), ..Mode::default() }
}

fn extended() -> Mode {
    Mode { structured: true, extended: true, allocation: Some(1), ..Mode::default() }
}

fn header(mode: &Mode, command: u16, flags: u16, offset: u64, length: u64) -> Vec<u8> {
    let magic = if mode.extended { EXTENDED } else { COMPACT };
    let mut bytes = magic.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(77u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    match mode.extended {
        true => bytes.extend(length.to_be_bytes()),
        false => bytes.extend(u32::try_from(length).unwrap().to_be_bytes()),
    }
    bytes
}

/// Sends a header and gives the error number and the payload that is to be discarded, or the request.
fn ask(mode: &Mode, command: u16, flags: u16, offset: u64, length: u64) -> Result<Request, (Errno, u32)> {
    let decoded = decode(&header(mode, command, flags, offset, length), mode, SIZE).unwrap().expect("a whole header");
    assert_eq!(decoded.tag, Tag { cookie: 77, offset });
    decoded.request.map_err(|refusal| (refusal.errno, refusal.payload))
}

#[test]
fn beyond_the_end_writes_find_no_space_and_the_others_make_no_sense() {
    for mode in [plain(), extended()] {
        let payload = if mode.extended { COMMAND_PAYLOAD_LEN } else { 0 };
        for (offset, length) in [(SIZE, 1), (SIZE - 1, 2), (u64::MAX, 1), (u64::MAX, 0)] {
            let skipped = u32::try_from(length).unwrap();
            assert_eq!(ask(&mode, command::WRITE, payload, offset, length), Err((Errno::NoSpace, skipped)));
            assert_eq!(ask(&mode, command::WRITE_ZEROES, 0, offset, length), Err((Errno::NoSpace, 0)));
            for command in [command::READ, command::TRIM, command::CACHE, command::BLOCK_STATUS] {
                assert_eq!(ask(&mode, command, 0, offset, length), Err((Errno::Invalid, 0)), "{command} {offset}+{length}");
            }
        }
    }
}

#[test]
fn a_length_of_zero_succeeds_even_at_the_end() {
    for offset in [0, 5, SIZE] {
        assert!(ask(&plain(), command::READ, 0, offset, 0).is_ok());
        assert!(ask(&plain(), command::WRITE, 0, offset, 0).is_ok());
        assert!(ask(&plain(), command::TRIM, 0, offset, 0).is_ok());
        assert!(ask(&plain(), command::WRITE_ZEROES, 0, offset, 0).is_ok());
        assert!(ask(&plain(), command::CACHE, 0, offset, 0).is_ok());
        assert_eq!(ask(&structured(), command::BLOCK_STATUS, 0, offset, 0), Err((Errno::Invalid, 0)));
    }
}

#[test]
fn a_read_only_export_permits_no_writes_and_skips_their_payload() {
    let mode = Mode { read_only: true, ..plain() };
    assert_eq!(ask(&mode, command::WRITE, 0, 0, 512), Err((Errno::Permission, 512)));
    assert_eq!(ask(&mode, command::WRITE, COMMAND_FUA, SIZE, 512), Err((Errno::Permission, 512)));
    assert_eq!(ask(&mode, command::TRIM, 0, 0, 512), Err((Errno::Permission, 0)));
    assert_eq!(ask(&mode, command::WRITE_ZEROES, COMMAND_FAST_ZERO, 0, 512), Err((Errno::Permission, 0)));
    assert!(ask(&mode, command::READ, 0, 0, 512).is_ok());
    assert_eq!(ask(&mode, command::FLUSH, 0, 0, 0), Ok(Request::Flush));
}

#[test]
fn fua_is_taken_with_every_command_and_other_flags_only_where_they_belong() {
    let flags =
        [COMMAND_FUA, COMMAND_NO_HOLE, COMMAND_DF, COMMAND_REQ_ONE, COMMAND_FAST_ZERO, COMMAND_PAYLOAD_LEN, 1 << 6, 1 << 15];
    let allowed = |command: u16, mode: &Mode| {
        let own = match command {
            command::READ if mode.structured => COMMAND_DF,
            command::WRITE_ZEROES => COMMAND_NO_HOLE | COMMAND_FAST_ZERO,
            command::BLOCK_STATUS => COMMAND_REQ_ONE,
            command::DISCONNECT => u16::MAX,
            _ => 0,
        };
        COMMAND_FUA | own
    };
    for mode in [plain(), structured()] {
        for command in command::READ..=command::BLOCK_STATUS {
            for flag in flags {
                let expected = allowed(command, &mode) & flag != 0 && (command != command::BLOCK_STATUS || mode.structured);
                let answer = ask(&mode, command, flag, 0, 512);
                assert_eq!(answer.is_ok(), expected, "{command} with {flag:#x}: {answer:?}");
                if let Err((errno, payload)) = answer {
                    assert_eq!((errno, payload), (Errno::Invalid, if command == command::WRITE { 512 } else { 0 }));
                }
            }
        }
    }
}

#[test]
fn unknown_commands_make_no_sense() {
    for command in [8, 9, 255, u16::MAX] {
        assert_eq!(ask(&plain(), command, 0, 0, 512), Err((Errno::Invalid, 0)));
        assert_eq!(ask(&extended(), command, COMMAND_PAYLOAD_LEN, 0, 512), Err((Errno::Invalid, 512)));
    }
}

#[test]
fn payloads_have_a_limit() {
    let most = u64::from(MAX_PAYLOAD);
    assert!(ask(&plain(), command::READ, 0, 0, most).is_ok());
    assert!(ask(&plain(), command::WRITE, 0, 0, most).is_ok());
    assert_eq!(ask(&plain(), command::READ, 0, 0, most + 1), Err((Errno::Invalid, 0)));
    assert_eq!(ask(&structured(), command::READ, COMMAND_DF, 0, most + 1), Err((Errno::Overflow, 0)));
    assert_eq!(ask(&extended(), command::READ, 0, 0, 1 << 33), Err((Errno::Overflow, 0)));
    assert_eq!(ask(&plain(), command::WRITE, 0, 0, most + 1), Err((Errno::Invalid, MAX_PAYLOAD + 1)));
    let absurd = header(&plain(), command::WRITE, 0, 0, (64 << 20) + 1);
    assert_eq!(decode(&absurd, &plain(), SIZE), Err(Violation::PayloadTooLong((64 << 20) + 1)));
    for command in [command::WRITE, command::READ, command::FLUSH, 999] {
        let absurd = header(&extended(), command, COMMAND_PAYLOAD_LEN, 0, most + 1);
        assert_eq!(decode(&absurd, &extended(), SIZE), Err(Violation::PayloadTooLong(most + 1)));
    }
}

#[test]
fn lengths_without_payload_have_none() {
    let all = u64::from(u32::MAX);
    assert!(ask(&plain(), command::TRIM, 0, 1, all).is_ok());
    assert!(ask(&plain(), command::WRITE_ZEROES, 0, 1, all).is_ok());
    assert!(ask(&plain(), command::CACHE, 0, 1, all).is_ok());
    assert!(ask(&structured(), command::BLOCK_STATUS, 0, 1, all).is_ok());
    for command in [command::TRIM, command::WRITE_ZEROES, command::CACHE, command::BLOCK_STATUS] {
        assert!(ask(&extended(), command, 0, 0, SIZE).is_ok());
    }
}

#[test]
fn an_extended_payload_is_discarded_where_it_does_not_belong() {
    for command in [command::READ, command::TRIM, command::CACHE, command::FLUSH, command::WRITE_ZEROES] {
        assert_eq!(ask(&extended(), command, COMMAND_PAYLOAD_LEN, 0, 512), Err((Errno::Invalid, 512)));
    }
    let write = Ok(Request::Write { offset: 0, length: 512, fua: false });
    assert_eq!(ask(&extended(), command::WRITE, COMMAND_PAYLOAD_LEN, 0, 512), write);
    assert_eq!(ask(&extended(), command::WRITE, 0, 0, 512), write, "qemu does not say that its writes have a payload");
    assert_eq!(ask(&extended(), command::BLOCK_STATUS, COMMAND_PAYLOAD_LEN, 0, 0), Err((Errno::Invalid, 0)));
}

#[test]
fn block_status_may_name_its_context() {
    let mode = extended();
    let select = |length: u64, ids: &[u32]| {
        let mut bytes = header(&mode, command::BLOCK_STATUS, COMMAND_PAYLOAD_LEN, 4096, 8 + 4 * ids.len() as u64);
        bytes.extend(length.to_be_bytes());
        bytes.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
        bytes
    };
    let good = select(1 << 33, &[1]);
    for cut in 0..good.len() {
        assert_eq!(decode(&good[..cut], &mode, SIZE), Ok(None), "cut at {cut}");
    }
    let decoded = decode(&good, &mode, SIZE).unwrap().unwrap();
    assert_eq!(decoded.request, Ok(Request::BlockStatus { offset: 4096, length: 1 << 33, one: false }));
    assert_eq!((decoded.taken, decoded.payload()), (44, 0));
    for ids in [&[][..], &[2], &[0], &[1, 1], &[1, 2]] {
        let bytes = select(4096, ids);
        let decoded = decode(&bytes, &mode, SIZE).unwrap().unwrap();
        assert_eq!(decoded.request.unwrap_err().errno, Errno::Invalid, "{ids:?}");
        assert_eq!(decoded.taken + usize::try_from(decoded.payload()).unwrap(), bytes.len(), "{ids:?}");
    }
    let beyond = decode(&select(SIZE, &[1]), &mode, SIZE).unwrap().unwrap();
    assert_eq!(beyond.request.unwrap_err().errno, Errno::Invalid);

    let without = Mode { allocation: None, ..extended() };
    let decoded = decode(&good, &without, SIZE).unwrap().unwrap();
    assert_eq!((decoded.taken, decoded.payload()), (32, 12));
    assert_eq!(decoded.request.unwrap_err().errno, Errno::Invalid);
}

#[test]
fn a_foreign_magic_is_found_in_four_bytes() {
    assert_eq!(decode(b"GET ", &plain(), SIZE), Err(Violation::NotARequest(u32::from_be_bytes(*b"GET "))));
    assert_eq!(decode(&EXTENDED.to_be_bytes(), &plain(), SIZE), Err(Violation::NotARequest(EXTENDED)));
    assert_eq!(decode(&COMPACT.to_be_bytes(), &extended(), SIZE), Err(Violation::NotARequest(COMPACT)));
    assert_eq!(decode(b"GET", &plain(), SIZE), Ok(None));
}

fn any_mode() -> impl Strategy<Value = Mode> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(structured, extended, context, read_only)| {
        let structured = structured || extended;
        Mode { structured, extended, allocation: (structured && context).then_some(1), read_only }
    })
}

/// A mode, and a request that is legal in it.
fn legal() -> impl Strategy<Value = (Mode, Request)> {
    let range = (0..SIZE).prop_flat_map(|offset| (Just(offset), 0..=(SIZE - offset)));
    (any_mode(), 0..8u16, range, any::<[bool; 3]>()).prop_map(|(mode, which, (offset, length), [a, b, c])| {
        let long = if mode.extended { length } else { length % (1 << 32) };
        let short = u32::try_from(length % u64::from(MAX_PAYLOAD + 1)).unwrap();
        let request = match which {
            0 => Request::Read { offset, length: short, dont_fragment: a && mode.structured },
            1 if !mode.read_only => Request::Write { offset, length: short, fua: a },
            2 if !mode.read_only => Request::Trim { offset, length: long, fua: a },
            3 if !mode.read_only => Request::WriteZeroes { offset, length: long, fua: a, no_hole: b, fast: c },
            4 => Request::Cache { offset, length: long },
            5 if mode.allocation.is_some() && long > 0 => Request::BlockStatus { offset, length: long, one: a },
            6 => Request::Disconnect,
            _ => Request::Flush,
        };
        (mode, request)
    })
}

proptest! {
    #[test]
    fn every_legal_request_is_understood_as_it_was_meant((mode, request) in legal(), cookie: u64, cut in 0..32usize) {
        let head = client::request(&mode, cookie, &request);
        if cut < head.len() {
            prop_assert_eq!(decode(&head[..cut], &mode, SIZE), Ok(None));
        }
        let followed = [&head[..], b"the next"].concat();
        let decoded = decode(&followed, &mode, SIZE).unwrap().unwrap();
        prop_assert_eq!(decoded.request, Ok(request));
        prop_assert_eq!((decoded.taken, decoded.tag.cookie), (head.len(), cookie));
    }

    #[test]
    fn what_is_let_in_lies_within_the_export(
        mode in any_mode(), command in 0..10u16, flags in 0..64u16, offset: u64, length: u64, near: bool, size in 0..SIZE,
    ) {
        let offset = if near { size.saturating_sub(offset % 100) } else { offset };
        let length = if near { length % 200 } else { length };
        let length = if mode.extended { length } else { length % (1 << 32) };
        let bytes = [header(&mode, command, flags, offset, length), vec![0; 12]].concat();
        let Ok(decoded) = decode(&bytes, &mode, size) else { return Ok(()) };
        let decoded = decoded.expect("no header needs more than twelve bytes of payload");
        let fits = |offset: u64, length: u64| offset.checked_add(length).is_some_and(|end| end <= size);
        let inside = match decoded.request {
            Ok(Request::Read { offset, length, .. } | Request::Write { offset, length, .. }) =>
                fits(offset, length.into()) && length <= MAX_PAYLOAD,
            Ok(Request::Trim { offset, length, .. } | Request::WriteZeroes { offset, length, .. }
                | Request::Cache { offset, length } | Request::BlockStatus { offset, length, .. }) => fits(offset, length),
            Ok(Request::Flush | Request::Disconnect) | Err(_) => true,
        };
        prop_assert!(inside);
    }

    #[test]
    fn no_bytes_panic(mode in any_mode(), bytes in proptest::collection::vec(any::<u8>(), 0..64), magic: bool) {
        let mut bytes = bytes;
        if let (true, Some(front)) = (magic, bytes.first_chunk_mut()) {
            *front = if mode.extended { EXTENDED } else { COMPACT }.to_be_bytes();
        }
        if let Ok(Some(decoded)) = decode(&bytes, &mode, SIZE) {
            prop_assert!(decoded.taken <= bytes.len());
        }
    }
}
