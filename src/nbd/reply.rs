//! Replies, encoded.
//!
//! Every function takes the [`Mode`] and writes what that client understands: simple, structured or extended. Headers of the
//! read and write path come back as a [`Head`] on the stack; data is never copied here: send the head and the data in one
//! vectored operation.
//!
//! | request | success | failure |
//! |---|---|---|
//! | READ | [`data`] with all of it, or (see [`can_fragment`]) any number of [`data`] and [`hole`] | [`error`] |
//! | BLOCK_STATUS | [`Status`] | [`error`] |
//! | DISCONNECT | nothing | nothing |
//! | any other | [`done`] | [`error`] |

use super::flags::REPLY_DONE;
use super::{Errno, Head, Mode, Tag, clip};

/// Opens a simple reply: magic, error (32 bits each), cookie (64 bits).
pub const SIMPLE: u32 = 0x6744_6698;
/// Opens a chunk of a structured reply: magic (32 bits), flags, type (16 bits each), cookie (64 bits), length (32 bits).
pub const STRUCTURED: u32 = 0x668e_33ef;
/// Opens a chunk of an extended reply: as a structured one, but with the request's offset before a length of 64 bits.
pub const EXTENDED: u32 = 0x6e8a_278c;

/// Types of chunks.
pub mod chunk {
    /// Nothing but the end.
    pub const NONE: u16 = 0;
    /// Data: its offset (64 bits), bytes.
    pub const OFFSET_DATA: u16 = 1;
    /// Zeroes: their offset (64 bits), how many (32 bits).
    pub const OFFSET_HOLE: u16 = 2;
    /// Extents: context id (32 bits), then length and flags (32 bits each) of each.
    pub const BLOCK_STATUS: u16 = 5;
    /// Extents: context id, count (32 bits each), then length and flags (64 bits each) of each.
    pub const BLOCK_STATUS_EXT: u16 = 6;
    /// Set in every type of error.
    pub const ERROR_BIT: u16 = 1 << 15;
    /// An error: number (32 bits), text (counted by 16 bits).
    pub const ERROR: u16 = ERROR_BIT | 1;
    /// An error, and where: as an error, then an offset (64 bits).
    pub const ERROR_OFFSET: u16 = ERROR_BIT | 2;
}

/// Extent flag of `base:allocation`: no space is taken.
pub const STATE_HOLE: u32 = 1 << 0;
/// Extent flag of `base:allocation`: the bytes are zero.
pub const STATE_ZERO: u32 = 1 << 1;

/// Whether a READ may be answered in several chunks: the client understands them and did not forbid it.
pub fn can_fragment(mode: &Mode, dont_fragment: bool) -> bool {
    mode.has_chunks() && !dont_fragment
}

/// The whole reply to a request that succeeded and has no data to return.
pub fn done(mode: &Mode, tag: Tag) -> Head {
    match mode.extended {
        true => chunk_head(mode, tag, REPLY_DONE, chunk::NONE, 0),
        // Simple replies are shorter, and allowed for everything but READ.
        false => simple(tag, 0),
    }
}

/// The header of read data: the caller sends it and then `length` bytes, those from `offset` on.
///
/// Without structured replies it must be the request's whole range. With them, the chunks of one request must cover its range
/// exactly once, in any order; `last` marks the last of them, and every byte of it must be at hand, because no error can follow.
/// A READ of no bytes is one `data` of no bytes.
pub fn data(mode: &Mode, tag: Tag, offset: u64, length: u32, last: bool) -> Head {
    let flags = if last { REPLY_DONE } else { 0 };
    match (mode.has_chunks(), length) {
        (false, _) => simple(tag, 0),
        (true, 0) => chunk_head(mode, tag, REPLY_DONE, chunk::NONE, 0),
        (true, _) => chunk_head(mode, tag, flags, chunk::OFFSET_DATA, u64::from(length) + 8).put(offset.to_be_bytes()),
    }
}

/// One chunk of a READ that says that `length` bytes, not none, from `offset` on are zero. Only where [`can_fragment`].
pub fn hole(mode: &Mode, tag: Tag, offset: u64, length: u32, last: bool) -> Head {
    debug_assert!(mode.has_chunks() && length > 0, "a hole of {length} bytes for a client of {mode:?}");
    let flags = if last { REPLY_DONE } else { 0 };
    chunk_head(mode, tag, flags, chunk::OFFSET_HOLE, 12).put(offset.to_be_bytes()).put(length.to_be_bytes())
}

/// Appends the whole reply to a request that failed, whatever it was. `text` reaches the client's user where replies are
/// structured.
pub fn error(mode: &Mode, tag: Tag, errno: Errno, text: &str, out: &mut Vec<u8>) {
    if !mode.has_chunks() {
        return out.extend_from_slice(&simple(tag, errno.code()));
    }
    let text = clip(text);
    let length = u16::try_from(text.len()).expect("clipped to 4096");
    let head = chunk_head(mode, tag, REPLY_DONE, chunk::ERROR, u64::from(length) + 6);
    out.extend_from_slice(&head.put(errno.code().to_be_bytes()).put(length.to_be_bytes()));
    out.extend_from_slice(text);
}

/// The reply to BLOCK_STATUS, being written.
///
/// [`begin`](Self::begin) it, [`push`](Self::push) extents in order from the request's offset on until it answers false or
/// none are left, and [`finish`](Self::finish) it. Neighbours of the same state become one; what lies beyond the request is
/// cut off; less than the request is legal, and nothing pushed means "all data".
#[derive(Debug)]
pub struct Status<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    mode: &'a Mode,
    tag: Tag,
    context: u32,
    one: bool,
    left: u64,
    count: u32,
    /// The extent that the next may belong to.
    open: Option<(u64, u32)>,
}

/// The most extents of a reply; the protocol's advice.
const MAX_EXTENTS: u32 = 1 << 20;

impl<'a> Status<'a> {
    /// Begins the reply to a [`BlockStatus`](super::Request::BlockStatus) of `length` bytes, at the end of `out`.
    pub fn begin(mode: &'a Mode, tag: Tag, length: u64, one: bool, out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        let context = mode.allocation.expect("BLOCK_STATUS is refused where no context was agreed on");
        let head = Self::head(mode, tag, context, 0);
        out.extend_from_slice(&head);
        Self { out, start, mode, tag, context, one, left: length, count: 0, open: None }
    }

    /// Adds an extent of `length` bytes; `state` is made of [`STATE_HOLE`] and [`STATE_ZERO`]. Answers whether more extents are
    /// of use.
    pub fn push(&mut self, length: u64, state: u32) -> bool {
        let length = length.min(self.left);
        self.open = match self.open {
            _ if length == 0 => return self.left > 0,
            Some((so_far, same)) if same == state => Some((so_far + length, state)),
            Some(_) if self.one || self.count + 1 == MAX_EXTENTS => {
                self.left = 0;
                return false;
            }
            before => {
                self.write(before);
                Some((length, state))
            }
        };
        self.left -= length;
        self.left > 0
    }

    /// Completes the reply.
    pub fn finish(mut self) {
        let last = self.open.or_else(|| (self.left > 0).then_some((self.left, 0)));
        self.write(last);
        let head = Self::head(self.mode, self.tag, self.context, self.count);
        self.out[self.start..self.start + head.len()].copy_from_slice(&head);
    }

    fn head(mode: &Mode, tag: Tag, context: u32, count: u32) -> Head {
        let extents = u64::from(count);
        match mode.extended {
            true => chunk_head(mode, tag, REPLY_DONE, chunk::BLOCK_STATUS_EXT, 8 + 16 * extents)
                .put(context.to_be_bytes())
                .put(count.to_be_bytes()),
            false => chunk_head(mode, tag, REPLY_DONE, chunk::BLOCK_STATUS, 4 + 8 * extents).put(context.to_be_bytes()),
        }
    }

    fn write(&mut self, extent: Option<(u64, u32)>) {
        let Some((length, state)) = extent else { return };
        self.count += 1;
        if self.mode.extended {
            self.out.extend_from_slice(&length.to_be_bytes());
            self.out.extend_from_slice(&u64::from(state).to_be_bytes());
        } else {
            let length = u32::try_from(length).expect("compact requests are of at most 4 GiB, and replies of no more");
            self.out.extend_from_slice(&length.to_be_bytes());
            self.out.extend_from_slice(&state.to_be_bytes());
        }
    }
}

fn simple(tag: Tag, error: u32) -> Head {
    Head::new().put(SIMPLE.to_be_bytes()).put(error.to_be_bytes()).put(tag.cookie.to_be_bytes())
}

fn chunk_head(mode: &Mode, tag: Tag, flags: u16, kind: u16, length: u64) -> Head {
    let magic = if mode.extended { EXTENDED } else { STRUCTURED };
    let head =
        Head::new().put(magic.to_be_bytes()).put(flags.to_be_bytes()).put(kind.to_be_bytes()).put(tag.cookie.to_be_bytes());
    match mode.extended {
        true => head.put(tag.offset.to_be_bytes()).put(length.to_be_bytes()),
        false => head.put(u32::try_from(length).expect("payloads are of at most 32 MiB").to_be_bytes()),
    }
}

#[cfg(test)]
mod tests;
