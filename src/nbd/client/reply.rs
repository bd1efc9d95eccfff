//! Replies, decoded.

use crate::nbd::cursor::Cursor;
use crate::nbd::flags::REPLY_DONE;
use crate::nbd::reply::{EXTENDED, SIMPLE, STRUCTURED, chunk};
use crate::nbd::{Errno, MAX_STRING, Mode};

/// A simple reply, or one chunk of a structured or extended one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Which request it belongs to.
    pub cookie: u64,
    /// No more chunks follow for this request.
    pub last: bool,
    /// What it says.
    pub body: Body,
}

/// What a reply says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Success, or the end of the chunks. As a simple reply to a READ it is followed by as many bytes as were asked for: only
    /// the caller knows.
    Done,
    /// `length` bytes of data follow, those from `offset` on.
    Data {
        /// The first byte.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// `length` bytes from `offset` on are zero.
    Hole {
        /// The first byte.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// The status of the bytes from the request's offset on.
    Status {
        /// The context.
        context: u32,
        /// Length and flags of each extent, in order.
        extents: Vec<(u64, u64)>,
    },
    /// The request failed.
    Failed {
        /// The error; numbers that the protocol does not have count as EIO.
        errno: Errno,
        /// The server's words.
        text: String,
    },
}

/// A server that cannot be understood any longer: the connection must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// The stream is out of step, or the server does not keep to what was agreed on.
    #[error("the server sent {0:#010x} where a reply begins")]
    NotAReply(u32),
    /// A chunk whose fields do not fit its length.
    #[error("the server sent a chunk of type {kind} with {length} bytes")]
    BadChunk {
        /// Its type.
        kind: u16,
        /// Its length.
        length: u64,
    },
}

/// Decodes the reply at the front of `bytes`, and tells how many bytes it had. The data of [`Body::Data`] and of a simple
/// [`Body::Done`] to a READ comes after it.
///
/// `Ok(None)` means that more bytes are needed: call again with the same bytes and more.
///
/// # Errors
///
/// A [`Violation`] is the end of the connection.
pub fn decode(bytes: &[u8], mode: &Mode) -> Result<Option<(usize, Reply)>, Violation> {
    let mut fields = Cursor(bytes);
    let Some(magic) = fields.u32() else { return Ok(None) };
    let reply = match (magic, mode.structured, mode.extended) {
        (SIMPLE, _, false) => Ok(simple(&mut fields)),
        (STRUCTURED, true, false) | (EXTENDED, _, true) => structured(&mut fields, mode.extended),
        _ => Err(Violation::NotAReply(magic)),
    }?;
    Ok(reply.map(|reply| (bytes.len() - fields.0.len(), reply)))
}

/// The longest status chunk: 2^20 extents of 16 bytes and 8 bytes before them.
const MAX_STATUS: u64 = 8 + (16 << 20);

fn simple(fields: &mut Cursor<'_>) -> Option<Reply> {
    let (error, cookie) = (fields.u32()?, fields.u64()?);
    let body = match error {
        0 => Body::Done,
        error => Body::Failed { errno: errno(error), text: String::new() },
    };
    Some(Reply { cookie, last: true, body })
}

fn structured(fields: &mut Cursor<'_>, extended: bool) -> Result<Option<Reply>, Violation> {
    let mut head = || {
        let (flags, kind, cookie) = (fields.u16()?, fields.u16()?, fields.u64()?);
        let length = if extended { fields.u64().and_then(|_offset| fields.u64())? } else { fields.u32()?.into() };
        Some((flags, kind, cookie, length))
    };
    let Some((flags, kind, cookie, length)) = head() else { return Ok(None) };
    let bad = Violation::BadChunk { kind, length };
    let reply = |body| Some(Reply { cookie, last: flags & REPLY_DONE != 0, body });
    if kind == chunk::OFFSET_DATA {
        let data = length.checked_sub(8).and_then(|data| u32::try_from(data).ok()).filter(|&data| data > 0).ok_or(bad)?;
        return Ok(fields.u64().and_then(|offset| reply(Body::Data { offset, length: data })));
    }
    let is_error = kind & chunk::ERROR_BIT != 0;
    let most = if is_error { MAX_STRING as u64 + 14 } else { MAX_STATUS };
    let length = usize::try_from(length).ok().filter(|_| length <= most).ok_or(bad)?;
    let Some(payload) = fields.bytes(length) else { return Ok(None) };
    let mut payload = Cursor(payload);
    let body = match kind {
        chunk::NONE => (length == 0 && flags & REPLY_DONE != 0).then_some(Body::Done),
        chunk::OFFSET_HOLE => hole(&mut payload),
        chunk::BLOCK_STATUS if !extended => extents(&mut payload, false),
        chunk::BLOCK_STATUS_EXT if extended => extents(&mut payload, true),
        _ if is_error => failure(&mut payload),
        _ => None,
    };
    Ok(reply(body.ok_or(bad)?))
}

fn hole(payload: &mut Cursor<'_>) -> Option<Body> {
    let (offset, length) = (payload.u64()?, payload.u32()?);
    (length > 0 && payload.is_empty()).then_some(Body::Hole { offset, length })
}

fn extents(payload: &mut Cursor<'_>, extended: bool) -> Option<Body> {
    let context = payload.u32()?;
    let count = if extended { payload.u32()? } else { u32::try_from(payload.0.len() / 8).ok()? };
    let each = if extended { 16 } else { 8 };
    if count == 0 || payload.0.len() != usize::try_from(count).ok()?.checked_mul(each)? {
        return None;
    }
    let extent = |payload: &mut Cursor<'_>| match extended {
        true => Some((payload.u64()?, payload.u64()?)),
        false => Some((payload.u32()?.into(), payload.u32()?.into())),
    };
    let extents: Vec<(u64, u64)> = std::iter::from_fn(|| extent(payload)).collect();
    extents.iter().all(|&(length, _)| length > 0).then_some(Body::Status { context, extents })
}

/// Types of errors that are not known begin like those that are.
fn failure(payload: &mut Cursor<'_>) -> Option<Body> {
    let (code, length) = (payload.u32()?, payload.u16()?);
    let text = payload.bytes(length.into())?;
    (code != 0).then(|| Body::Failed { errno: errno(code), text: String::from_utf8_lossy(text).into_owned() })
}

fn errno(code: u32) -> Errno {
    Errno::from_code(code).unwrap_or(Errno::Io)
}

#[cfg(test)]
mod tests;
