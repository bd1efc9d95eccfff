//! What became of writes.

use crate::wire::RANGES_MAX;
use crate::wire::body::{Body, flags};
use crate::wire::error::Fault;

/// Written and Received: one sequence number after the other, 8 bytes each, at least one and at most [`RANGES_MAX`].
pub(in crate::wire) fn encode_seqs(seqs: &[u64], out: &mut Vec<u8>) -> Result<(), Fault> {
    check_count(seqs.len())?;
    seqs.iter().for_each(|seq| out.extend_from_slice(&seq.to_le_bytes()));
    Ok(())
}

pub(in crate::wire) fn decode_seqs(body: &[u8]) -> Result<Vec<u64>, Fault> {
    let (seqs, rest) = body.as_chunks();
    check_count(seqs.len())?;
    if rest.is_empty() { Ok(seqs.iter().map(|seq| u64::from_le_bytes(*seq)).collect()) } else { Err("it ends within a number") }
}

fn check_count(count: usize) -> Result<(), Fault> {
    if (1..=RANGES_MAX).contains(&count) { Ok(()) } else { Err("it has no sequence numbers or too many") }
}

/// | bytes | what |
/// |---|---|
/// | 0..8 | sequence number |
/// | 8..10 | flags: 1, older reigns too |
/// | 10..16 | zero |
pub(in crate::wire) struct Settled {
    pub(in crate::wire) seq: u64,
    pub(in crate::wire) older: bool,
}

impl Settled {
    pub(in crate::wire) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&flags([self.older]));
        out.extend_from_slice(&[0; 6]);
    }

    pub(in crate::wire) fn decode(body: &[u8]) -> Result<Self, Fault> {
        let mut body = Body(body);
        let seq = body.u64()?;
        let [older] = body.flags()?;
        body.zero::<6>()?;
        body.end()?;
        Ok(Self { seq, older })
    }
}
