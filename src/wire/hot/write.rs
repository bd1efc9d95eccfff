//! Writes and zeroes.

use crate::units::BLOCK;
use crate::wire::body::{Body, check_range, flags, range};
use crate::wire::error::Fault;
use crate::wire::{Write, Zero};

/// | bytes | what |
/// |---|---|
/// | 0..8 | sequence number |
/// | 8..16 | first block |
/// | 16..24 | settled |
/// | 24..28 | how many blocks |
/// | 28..30 | volume |
/// | 30..32 | flags: 1 durable, 2 of a resync |
impl Write {
    pub(in crate::wire) fn encode(&self, payload: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        check_range(&self.range)?;
        check_payload(self.range.count, payload as u64)?;
        let count = u32::try_from(self.range.count).map_err(|_| "it has too many blocks")?;
        for field in [self.seq, self.range.first, self.settled] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.range.volume.0.to_le_bytes());
        out.extend_from_slice(&flags([self.fua, self.sync]));
        Ok(())
    }

    pub(in crate::wire) fn decode(body: &[u8], payload: u32) -> Result<Self, Fault> {
        let mut body = Body(body);
        let (seq, first, settled) = (body.u64()?, body.u64()?, body.u64()?);
        let (count, volume) = (u64::from(body.u32()?), body.u16()?);
        let [fua, sync] = body.flags()?;
        body.end()?;
        let range = range(volume, first, count)?;
        check_payload(range.count, u64::from(payload))?;
        Ok(Self { seq, range, fua, sync, settled })
    }
}

/// | bytes | what |
/// |---|---|
/// | 0..8 | sequence number |
/// | 8..16 | first block |
/// | 16..24 | settled |
/// | 24..32 | how many blocks |
/// | 32..34 | volume |
/// | 34..36 | flags: 1 durable, 2 of a resync, 4 give the space back |
/// | 36..40 | zero |
impl Zero {
    pub(in crate::wire) fn encode(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        check_range(&self.range)?;
        for field in [self.seq, self.range.first, self.settled, self.range.count] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.range.volume.0.to_le_bytes());
        out.extend_from_slice(&flags([self.fua, self.sync, self.unmap]));
        out.extend_from_slice(&[0; 4]);
        Ok(())
    }

    pub(in crate::wire) fn decode(body: &[u8]) -> Result<Self, Fault> {
        let mut body = Body(body);
        let (seq, first, settled, count) = (body.u64()?, body.u64()?, body.u64()?, body.u64()?);
        let volume = body.u16()?;
        let [fua, sync, unmap] = body.flags()?;
        body.zero::<4>()?;
        body.end()?;
        Ok(Self { seq, range: range(volume, first, count)?, unmap, fua, sync, settled })
    }
}

fn check_payload(blocks: u64, payload: u64) -> Result<(), Fault> {
    if blocks.checked_mul(BLOCK) == Some(payload) { Ok(()) } else { Err("its payload is not as long as its range") }
}
