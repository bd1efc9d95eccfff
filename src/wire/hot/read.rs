//! Reads from a peer.

use crate::units::{BLOCK, BlockRange};
use crate::wire::PAYLOAD_MAX;
use crate::wire::body::{Body, check_range, flags, range};
use crate::wire::error::Fault;

/// | bytes | what |
/// |---|---|
/// | 0..8 | id |
/// | 8..16 | first block |
/// | 16..20 | how many blocks |
/// | 20..22 | volume |
/// | 22..24 | zero |
pub(in crate::wire) struct Read {
    pub(in crate::wire) id: u64,
    pub(in crate::wire) range: BlockRange,
}

impl Read {
    pub(in crate::wire) fn encode(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        check_range(&self.range)?;
        let count = check_answer(self.range.count)?;
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.range.first.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.range.volume.0.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        Ok(())
    }

    pub(in crate::wire) fn decode(body: &[u8]) -> Result<Self, Fault> {
        let mut body = Body(body);
        let (id, first, count, volume) = (body.u64()?, body.u64()?, body.u32()?, body.u16()?);
        body.zero::<2>()?;
        body.end()?;
        let range = range(volume, first, u64::from(count))?;
        check_answer(range.count)?;
        Ok(Self { id, range })
    }
}

/// | bytes | what |
/// |---|---|
/// | 0..8 | id |
/// | 8..10 | flags: 1, the blocks are the payload |
/// | 10..16 | zero |
pub(in crate::wire) struct ReadReply {
    pub(in crate::wire) id: u64,
    pub(in crate::wire) ok: bool,
}

impl ReadReply {
    pub(in crate::wire) fn encode(&self, payload: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        check_payload(self.ok, payload as u64)?;
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&flags([self.ok]));
        out.extend_from_slice(&[0; 6]);
        Ok(())
    }

    pub(in crate::wire) fn decode(body: &[u8], payload: u32) -> Result<Self, Fault> {
        let mut body = Body(body);
        let id = body.u64()?;
        let [ok] = body.flags()?;
        body.zero::<6>()?;
        body.end()?;
        check_payload(ok, u64::from(payload))?;
        Ok(Self { id, ok })
    }
}

/// The answer to a read has to fit a payload.
fn check_answer(blocks: u64) -> Result<u32, Fault> {
    match u32::try_from(blocks) {
        Ok(count) if blocks * BLOCK <= u64::from(PAYLOAD_MAX) => Ok(count),
        _ => Err("its answer would be longer than a payload can be"),
    }
}

fn check_payload(ok: bool, payload: u64) -> Result<(), Fault> {
    match ok {
        true if payload > 0 && payload.is_multiple_of(BLOCK) => Ok(()),
        false if payload == 0 => Ok(()),
        _ => Err("its payload is not whole blocks, or there against its flag"),
    }
}
