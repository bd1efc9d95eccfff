//! A client's request: decoded and checked once, at the door.
//!
//! Whoever gets a [`Request`] need not look at it again: its range lies within the export, its flags were allowed, its payload
//! has a length that is served.

use super::cursor::Cursor;
use super::flags::{
    COMMAND_DF, COMMAND_FAST_ZERO, COMMAND_FUA, COMMAND_NO_HOLE, COMMAND_PAYLOAD_LEN, COMMAND_REQ_ONE, TransmissionFlags,
};
use super::{Errno, MAX_PAYLOAD, Mode};

/// Opens a compact request.
pub const COMPACT: u32 = 0x2560_9513;
/// Opens an extended request.
pub const EXTENDED: u32 = 0x21e4_1c71;

/// The bytes of a compact header: magic, flags and command (16 bits each), cookie, offset (64 bits each), length (32 bits).
pub const COMPACT_LENGTH: usize = 28;
/// The bytes of an extended header: as a compact one with a length of 64 bits.
pub const EXTENDED_LENGTH: usize = 32;

/// The numbers of the commands.
pub mod command {
    /// READ.
    pub const READ: u16 = 0;
    /// WRITE.
    pub const WRITE: u16 = 1;
    /// DISC.
    pub const DISCONNECT: u16 = 2;
    /// FLUSH.
    pub const FLUSH: u16 = 3;
    /// TRIM.
    pub const TRIM: u16 = 4;
    /// CACHE.
    pub const CACHE: u16 = 5;
    /// WRITE_ZEROES.
    pub const WRITE_ZEROES: u16 = 6;
    /// BLOCK_STATUS.
    pub const BLOCK_STATUS: u16 = 7;
}

/// A request that may be carried out. Offsets and lengths are in bytes; any alignment is legal, and so is a length of zero
/// (except for [`BlockStatus`](Self::BlockStatus), which has to describe something).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Read; at most [`MAX_PAYLOAD`] bytes.
    Read {
        /// The first byte.
        offset: u64,
        /// How many.
        length: u32,
        /// Answer in one content chunk.
        dont_fragment: bool,
    },
    /// Write the payload, which follows the header: `length` bytes, at most [`MAX_PAYLOAD`].
    Write {
        /// The first byte.
        offset: u64,
        /// How many.
        length: u32,
        /// Answer when it is durable.
        fua: bool,
    },
    /// Answer when every write that was answered before is durable.
    Flush,
    /// The bytes are not needed any more.
    Trim {
        /// The first byte.
        offset: u64,
        /// How many.
        length: u64,
        /// Answer when it is durable.
        fua: bool,
    },
    /// Make the bytes zero.
    WriteZeroes {
        /// The first byte.
        offset: u64,
        /// How many.
        length: u64,
        /// Answer when it is durable.
        fua: bool,
        /// Keep (or take) the space that later writes will need.
        no_hole: bool,
        /// Refuse with [`Errno::NotSupported`], nothing changed, if it is no faster than a write would be.
        fast: bool,
    },
    /// The bytes will be read soon.
    Cache {
        /// The first byte.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// Tell which bytes are allocated and which are zero, under [`Mode::allocation`]; see [`reply::Status`](super::reply::Status).
    BlockStatus {
        /// The first byte.
        offset: u64,
        /// How many; not zero.
        length: u64,
        /// One extent is enough.
        one: bool,
    },
    /// Finish what is in flight, then close. It is not answered.
    Disconnect,
}

/// What ties a reply to its request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tag {
    /// The client's own name for the request, sent back as it is.
    pub cookie: u64,
    /// The offset of the request's header, which extended replies repeat.
    pub offset: u64,
}

/// One decoded request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// How many bytes of the input were eaten.
    pub taken: usize,
    /// For the reply.
    pub tag: Tag,
    /// The request, or why it is answered by an error.
    pub request: Result<Request, Refusal>,
}

impl Decoded {
    /// How many bytes of payload follow those that were taken: to be written, or to be discarded when the request is refused.
    pub fn payload(&self) -> u32 {
        match self.request {
            Ok(Request::Write { length, .. }) => length,
            Ok(_) => 0,
            Err(refusal) => refusal.payload,
        }
    }
}

/// A request that is answered by an error; the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The error.
    pub errno: Errno,
    /// What the client's user may read.
    pub text: &'static str,
    /// How many bytes of payload follow, to be discarded.
    pub payload: u32,
}

/// A client that cannot be understood any longer: the connection must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// The stream is out of step.
    #[error("the client sent {0:#010x} where a request begins")]
    NotARequest(u32),
    /// Longer than anything that could be meant.
    #[error("the client announced a payload of {0} bytes")]
    PayloadTooLong(u64),
}

/// Decodes and checks the request at the front of `bytes`, for an export of `size` bytes.
///
/// `Ok(None)` means that more bytes are needed: call again with the same bytes and more. The payload of a write is left to the
/// caller ([`Decoded::payload`]); any other payload that is understood is part of what was [`taken`](Decoded::taken). Nothing
/// is allocated.
///
/// # Errors
///
/// A [`Violation`] is the end of the connection. It is found as soon as the bytes show it.
pub fn decode(bytes: &[u8], mode: &Mode, size: u64) -> Result<Option<Decoded>, Violation> {
    let Some(header) = Header::decode(bytes, mode.extended)? else { return Ok(None) };
    let mut taken = if mode.extended { EXTENDED_LENGTH } else { COMPACT_LENGTH };
    let payload = header.payload(mode)?;
    let mut range = Range { offset: header.offset, length: header.length };
    let mut unread = payload;
    let mut selection_is_wrong = false;
    if header.command == command::BLOCK_STATUS && payload > 0 {
        selection_is_wrong = true;
        // Only one context can be selected. A payload of another length names none, or one that is not there.
        if payload == ONE_CONTEXT_LENGTH && mode.flags().has(TransmissionFlags::BLOCK_STATUS_PAYLOAD) {
            let Some(selection) = bytes[taken..].first_chunk::<{ ONE_CONTEXT_LENGTH as usize }>() else { return Ok(None) };
            let mut fields = Cursor(selection);
            range.length = fields.u64().unwrap_or(0);
            selection_is_wrong = fields.u32() != mode.allocation;
            taken += selection.len();
            unread = 0;
        }
    }
    let checked = match selection_is_wrong {
        true => Err((Errno::Invalid, "the payload does not name the context that was agreed on, once")),
        false => header.check(range, payload, mode, size),
    };
    Ok(Some(Decoded {
        taken,
        tag: Tag { cookie: header.cookie, offset: header.offset },
        request: checked.map_err(|(errno, text)| Refusal { errno, text, payload: unread }),
    }))
}

/// BLOCK_STATUS's payload with one context: an effective length (64 bits) and the context's id (32 bits).
const ONE_CONTEXT_LENGTH: u32 = 12;

/// The longest payload of a compact write that is read and refused; a longer one ends the connection. Clients that know
/// nothing of block sizes send up to 64 MiB.
const MAX_REFUSED: u32 = 64 << 20;

/// An error number and a text for people.
type Complaint = (Errno, &'static str);

struct Header {
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    length: u64,
}

#[derive(Clone, Copy)]
struct Range {
    offset: u64,
    length: u64,
}

impl Header {
    fn decode(bytes: &[u8], extended: bool) -> Result<Option<Self>, Violation> {
        let mut fields = Cursor(bytes);
        let Some(magic) = fields.u32() else { return Ok(None) };
        if magic != if extended { EXTENDED } else { COMPACT } {
            return Err(Violation::NotARequest(magic));
        }
        let mut header = || {
            Some(Self {
                flags: fields.u16()?,
                command: fields.u16()?,
                cookie: fields.u64()?,
                offset: fields.u64()?,
                length: if extended { fields.u64()? } else { fields.u32()?.into() },
            })
        };
        Ok(header())
    }

    /// How many bytes follow the header.
    ///
    /// A WRITE always has its length of them, also an extended one without the flag that the protocol asks for: qemu (10.0) sends
    /// its writes so, and no client sends a WRITE without a payload.
    fn payload(&self, mode: &Mode) -> Result<u32, Violation> {
        let has_payload = self.command == command::WRITE || mode.extended && self.has(COMMAND_PAYLOAD_LEN);
        let most = if mode.extended { MAX_PAYLOAD } else { MAX_REFUSED };
        if !has_payload {
            return Ok(0);
        }
        u32::try_from(self.length).ok().filter(|&payload| payload <= most).ok_or(Violation::PayloadTooLong(self.length))
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    fn check(&self, range: Range, payload: u32, mode: &Mode, size: u64) -> Result<Request, Complaint> {
        if self.command > command::BLOCK_STATUS {
            return Err((Errno::Invalid, "this command is not known here"));
        }
        if self.command == command::DISCONNECT {
            // There is no way to refuse it.
            return Ok(Request::Disconnect);
        }
        let writes = matches!(self.command, command::WRITE | command::TRIM | command::WRITE_ZEROES);
        if writes && mode.read_only {
            return Err((Errno::Permission, "the export is read-only"));
        }
        self.check_flags(payload, mode)?;
        if self.command == command::FLUSH {
            // Its range is reserved. A flush of everything covers whatever a client may mean by one.
            return Ok(Request::Flush);
        }
        range.check(size, matches!(self.command, command::WRITE | command::WRITE_ZEROES))?;
        self.request(range, mode)
    }

    fn check_flags(&self, payload: u32, mode: &Mode) -> Result<(), Complaint> {
        let exported = mode.flags();
        // "The server MUST accept all commands with this bit set (even by ignoring the bit)."
        let mut allowed = if exported.has(TransmissionFlags::SEND_FUA) { COMMAND_FUA } else { 0 };
        match self.command {
            command::READ if exported.has(TransmissionFlags::SEND_DF) => allowed |= COMMAND_DF,
            command::WRITE if mode.extended => allowed |= COMMAND_PAYLOAD_LEN,
            command::WRITE_ZEROES => allowed |= COMMAND_NO_HOLE | COMMAND_FAST_ZERO,
            command::BLOCK_STATUS => {
                allowed |= COMMAND_REQ_ONE;
                if exported.has(TransmissionFlags::BLOCK_STATUS_PAYLOAD) && payload > 0 {
                    allowed |= COMMAND_PAYLOAD_LEN;
                }
            }
            _ => {}
        }
        match self.flags & !allowed {
            0 => Ok(()),
            _ => Err((Errno::Invalid, "the command does not take these flags here")),
        }
    }

    fn request(&self, Range { offset, length }: Range, mode: &Mode) -> Result<Request, Complaint> {
        let fua = self.has(COMMAND_FUA);
        let short = u32::try_from(length).ok().filter(|&length| length <= MAX_PAYLOAD);
        Ok(match self.command {
            command::READ => match short {
                Some(length) => Request::Read { offset, length, dont_fragment: self.has(COMMAND_DF) },
                None if mode.has_chunks() => return Err((Errno::Overflow, "reads are served up to 32 MiB")),
                None => return Err((Errno::Invalid, "reads are served up to 32 MiB")),
            },
            command::WRITE => match short {
                Some(length) => Request::Write { offset, length, fua },
                None => return Err((Errno::Invalid, "writes are served up to 32 MiB")),
            },
            command::TRIM => Request::Trim { offset, length, fua },
            command::CACHE => Request::Cache { offset, length },
            command::WRITE_ZEROES => {
                let (no_hole, fast) = (self.has(COMMAND_NO_HOLE), self.has(COMMAND_FAST_ZERO));
                Request::WriteZeroes { offset, length, fua, no_hole, fast }
            }
            _ if mode.allocation.is_none() => return Err((Errno::Invalid, "no metadata context was agreed on")),
            _ if length == 0 => return Err((Errno::Invalid, "there is no status of no bytes")),
            _ => Request::BlockStatus { offset, length, one: self.has(COMMAND_REQ_ONE) },
        })
    }
}

impl Range {
    fn check(self, size: u64, takes_space: bool) -> Result<(), Complaint> {
        match self.offset.checked_add(self.length) {
            Some(end) if end <= size => Ok(()),
            _ if takes_space => Err((Errno::NoSpace, "the write reaches beyond the end of the export")),
            _ => Err((Errno::Invalid, "the request reaches beyond the end of the export")),
        }
    }
}

#[cfg(test)]
mod tests;
