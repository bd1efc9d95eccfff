//! Requests, encoded.

use crate::nbd::flags::{COMMAND_DF, COMMAND_FAST_ZERO, COMMAND_FUA, COMMAND_NO_HOLE, COMMAND_PAYLOAD_LEN, COMMAND_REQ_ONE};
use crate::nbd::request::{COMPACT, EXTENDED, command};
use crate::nbd::{Head, Mode, Request};

/// The header of a request; the payload of a [`Request::Write`] follows it.
///
/// # Panics
///
/// When a length of over 32 bits is asked for without extended headers.
pub fn request(mode: &Mode, cookie: u64, request: &Request) -> Head {
    let flag = |set: bool, flag: u16| if set { flag } else { 0 };
    let (command, flags, offset, length) = match *request {
        Request::Read { offset, length, dont_fragment } => {
            (command::READ, flag(dont_fragment, COMMAND_DF), offset, length.into())
        }
        Request::Write { offset, length, fua } => {
            (command::WRITE, flag(fua, COMMAND_FUA) | flag(mode.extended, COMMAND_PAYLOAD_LEN), offset, length.into())
        }
        Request::Flush => (command::FLUSH, 0, 0, 0),
        Request::Trim { offset, length, fua } => (command::TRIM, flag(fua, COMMAND_FUA), offset, length),
        Request::WriteZeroes { offset, length, fua, no_hole, fast } => {
            let flags = flag(fua, COMMAND_FUA) | flag(no_hole, COMMAND_NO_HOLE) | flag(fast, COMMAND_FAST_ZERO);
            (command::WRITE_ZEROES, flags, offset, length)
        }
        Request::Cache { offset, length } => (command::CACHE, 0, offset, length),
        Request::BlockStatus { offset, length, one } => (command::BLOCK_STATUS, flag(one, COMMAND_REQ_ONE), offset, length),
        Request::Disconnect => (command::DISCONNECT, 0, 0, 0),
    };
    let magic = if mode.extended { EXTENDED } else { COMPACT };
    let head = Head::new()
        .put(magic.to_be_bytes())
        .put(flags.to_be_bytes())
        .put(command.to_be_bytes())
        .put(cookie.to_be_bytes())
        .put(offset.to_be_bytes());
    match mode.extended {
        true => head.put(length.to_be_bytes()),
        false => head.put(u32::try_from(length).expect("a compact request has a length of 32 bits").to_be_bytes()),
    }
}
