//! Taking fixed layouts apart.

use super::error::Fault;
use crate::units::{BlockRange, VolumeId};

/// One block beyond the last that can be: the offset of every byte of it is below 2^62, so that no sum of two overflows.
pub(super) const BLOCKS_MAX: u64 = 1 << 50;

/// The rest of a body.
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl Body<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("it is too short")?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        self.take().map(u64::from_le_bytes)
    }

    /// Takes bytes that are reserved for later versions.
    pub(super) fn zero<const N: usize>(&mut self) -> Result<(), Fault> {
        if self.take::<N>()? == [0; N] { Ok(()) } else { Err("reserved bytes are not zero") }
    }

    /// Takes flags, none but the first `known` of which may be set.
    pub(super) fn flags<const KNOWN: usize>(&mut self) -> Result<[bool; KNOWN], Fault> {
        let flags = self.u16()?;
        if flags >> KNOWN != 0 {
            return Err("an unknown flag is set");
        }
        Ok(std::array::from_fn(|bit| flags >> bit & 1 == 1))
    }

    pub(super) fn end(self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err("it is too long") }
    }
}

/// The flags that [`Body::flags`] reads.
pub(super) fn flags<const N: usize>(flags: [bool; N]) -> [u8; 2] {
    flags.iter().zip(0..).fold(0_u16, |all, (&flag, bit)| all | u16::from(flag) << bit).to_le_bytes()
}

/// A range that has blocks and lies where blocks can be.
pub(super) fn range(volume: u16, first: u64, count: u64) -> Result<BlockRange, Fault> {
    let range = BlockRange { volume: VolumeId(volume), first, count };
    check_range(&range).map(|()| range)
}

pub(super) fn check_range(range: &BlockRange) -> Result<(), Fault> {
    match range.first.checked_add(range.count) {
        Some(end) if range.count > 0 && end <= BLOCKS_MAX => Ok(()),
        _ => Err("a range is empty or beyond every volume's end"),
    }
}
