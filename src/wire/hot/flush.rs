//! Flushes. The question is its id alone, 8 bytes; see [`Message::Flush`](crate::wire::Message::Flush).

use crate::wire::body::Body;
use crate::wire::error::Fault;

/// | bytes | what |
/// |---|---|
/// | 0..8 | id |
/// | 8..16 | durable up to this sequence number |
pub(in crate::wire) struct Flushed {
    pub(in crate::wire) id: u64,
    pub(in crate::wire) durable: u64,
}

impl Flushed {
    pub(in crate::wire) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.durable.to_le_bytes());
    }

    pub(in crate::wire) fn decode(body: &[u8]) -> Result<Self, Fault> {
        let mut body = Body(body);
        let (id, durable) = (body.u64()?, body.u64()?);
        body.end()?;
        Ok(Self { id, durable })
    }
}
