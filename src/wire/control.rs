//! The messages outside the data path: postcard's encoding of the enum, with bounds.
//!
//! A list's memory is bounded before it is taken: a body is at most [`BODY_MAX`](super::BODY_MAX) long and every element takes at least a
//! byte or two of it, so that even a hostile body makes a list of at most some megabytes, which is then refused. Adding, removing or
//! reordering variants or fields of [`Message`] is another protocol version.

use postcard::ser_flavors::Flavor;

use super::PAYLOAD_MAX;
use super::body::{BLOCKS_MAX, check_range};
use super::diverged::Diverged;
use super::error::Fault;
use super::message::{FORWARDED_MAX, Forwarded, Introduction, Message, RANGES_MAX, Standing};
use crate::units::{BLOCK, BLOCKS_PER_EXTENT, BlockRange, Extent, NodeId, Record};

/// The most members of an in-sync set.
const MEMBERS_MAX: usize = 32;

/// The most ancestors of a record.
const LINEAGE_MAX: usize = 64;

/// The longest reason.
const WHY_MAX: u64 = 1024;

/// The most volumes of a resource.
const VOLUMES_MAX: usize = 512;

pub(super) fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), Fault> {
    check(message)?;
    postcard::serialize_with_flavor(message, Appended(out)).map_err(|_| "it has no encoding")
}

pub(super) fn decode(body: &[u8]) -> Result<Message, Fault> {
    let (message, rest) = postcard::take_from_bytes(body).map_err(|_| "its encoding is broken")?;
    if !rest.is_empty() {
        return Err("it is too long");
    }
    check(&message).map(|()| message)
}

/// The bounds that hold for what is sent and for what is received.
fn check(message: &Message) -> Result<(), Fault> {
    match message {
        Message::Hello(introduction) => check_introduction(introduction),
        Message::Standing(standing) => check_standing(standing),
        Message::Open { record, .. }
        | Message::Fenced { record }
        | Message::Record { record }
        | Message::Propose { record, .. }
        | Message::Rejected { record: Some(record), .. } => check_record(record),
        Message::ReportRanges { ranges, .. } => check_ranges(ranges),
        Message::Hash { range, .. } => {
            at_most(range.count, RANGES_MAX as u64)?;
            check_range(range)
        }
        Message::Hashes { hashes, .. } => at_most(hashes.len() as u64, RANGES_MAX as u64),
        Message::Cool { extents, dirty, .. } | Message::AdmitPart { hot: extents, dirty } => {
            check_extents(extents)?;
            check_dirty(dirty)
        }
        Message::Forward { what, .. } => check_forwarded(what),
        Message::NotServing { why, .. } | Message::Diverged(Diverged::NotNow { why }) => at_most(why.len() as u64, WHY_MAX),
        Message::Applied { done, .. } => at_most(done.len() as u64, FORWARDED_MAX),
        Message::Serve { .. }
        | Message::Serving { .. }
        | Message::Meet { .. }
        | Message::Met { .. }
        | Message::Barred { .. }
        | Message::Busy { .. }
        | Message::Unserve { .. }
        | Message::Answer { .. }
        | Message::Origin { .. } => Ok(()),
        Message::Admit { bases, .. } => at_most(bases.len() as u64, MEMBERS_MAX as u64),
        Message::Report(_)
        | Message::Leaving
        | Message::SyncBegin
        | Message::SyncReady
        | Message::Cooled { .. }
        | Message::AdmitStored { .. }
        | Message::Accepted { .. }
        | Message::Rejected { record: None, .. }
        | Message::Withdraw { .. }
        | Message::StepDown
        | Message::InUse
        | Message::Diverged(_) => Ok(()),
        Message::Write(_)
        | Message::Zero(_)
        | Message::Written { .. }
        | Message::Received { .. }
        | Message::Flush { .. }
        | Message::Flushed { .. }
        | Message::Settled { .. }
        | Message::Read { .. }
        | Message::ReadReply { .. } => Err("it is of the data path and has a kind of its own"),
    }
}

/// Whether a message has the payload that it must have.
pub(super) fn check_payload(message: &Message, payload: u64) -> Result<(), Fault> {
    let right = match message {
        Message::Forward { what: what @ Forwarded::Write { .. }, .. } => {
            what.blocks().is_some_and(|blocks| blocks.bytes() == payload)
        }
        Message::Answer { result: Ok(()), .. } => payload.is_multiple_of(BLOCK),
        Message::Forward { .. } | Message::Answer { .. } => payload == 0,
        _ => return Err("it has a kind of its own"),
    };
    if right { Ok(()) } else { Err("its payload has not the length that it says") }
}

fn check_forwarded(what: &Forwarded) -> Result<(), Fault> {
    match what {
        Forwarded::Read { offset, len, .. } | Forwarded::Write { offset, len, .. } => {
            let end = offset.checked_add(*len).ok_or("its range has no end")?;
            if *len == 0 || end > BLOCKS_MAX * BLOCK {
                return Err("its range is empty or beyond every volume's end");
            }
            at_most(what.blocks().map_or(0, |blocks| blocks.bytes()), u64::from(PAYLOAD_MAX))
        }
        Forwarded::Zero { range, .. } => check_range(range),
        Forwarded::Flush => Ok(()),
    }
}

fn check_introduction(introduction: &Introduction) -> Result<(), Fault> {
    check_standing(&introduction.standing)
}

fn check_standing(standing: &Standing) -> Result<(), Fault> {
    at_most(standing.lineage.len() as u64, LINEAGE_MAX as u64)?;
    at_most(standing.volumes.len() as u64, VOLUMES_MAX as u64)?;
    standing.record.as_ref().map_or(Ok(()), check_record)
}

fn check_record(record: &Record) -> Result<(), Fault> {
    at_most(record.in_sync.len() as u64, MEMBERS_MAX as u64)
}

fn check_ranges(ranges: &[BlockRange]) -> Result<(), Fault> {
    at_most(ranges.len() as u64, RANGES_MAX as u64)?;
    ranges.iter().try_for_each(check_range)
}

fn check_extents(extents: &[Extent]) -> Result<(), Fault> {
    at_most(extents.len() as u64, RANGES_MAX as u64)?;
    let beyond = extents.iter().any(|extent| extent.index >= BLOCKS_MAX / BLOCKS_PER_EXTENT);
    if beyond { Err("an extent is beyond every volume's end") } else { Ok(()) }
}

/// The ranges of all replicas together are bounded.
fn check_dirty(dirty: &[(NodeId, Vec<BlockRange>)]) -> Result<(), Fault> {
    at_most(dirty.len() as u64, MEMBERS_MAX as u64)?;
    at_most(dirty.iter().map(|(_, ranges)| ranges.len() as u64).sum(), RANGES_MAX as u64)?;
    dirty.iter().flat_map(|(_, ranges)| ranges).try_for_each(check_range)
}

fn at_most(count: u64, max: u64) -> Result<(), Fault> {
    if count <= max { Ok(()) } else { Err("a list is too long") }
}

/// Lets postcard write to the end of a vector that holds other frames already.
struct Appended<'a>(&'a mut Vec<u8>);

impl Flavor for Appended<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::VolumeId;

    #[test]
    fn what_can_be_stored_can_be_sent() {
        assert_eq!(MEMBERS_MAX, crate::format::MEMBERS_MAX);
        assert_eq!(LINEAGE_MAX, crate::format::LINEAGE_MAX);
        assert_eq!(VOLUMES_MAX, crate::format::VOLUMES_MAX);
        const { assert!(crate::format::VOLUME_BYTES_MAX / BLOCK <= BLOCKS_MAX) };
    }

    #[test]
    fn the_longest_messages_fit_a_body() {
        let record = Record::first(
            crate::units::RecordId(u64::MAX),
            (0..32).map(|n| (NodeId(u32::MAX - n), crate::units::Incarnation(u64::MAX))).collect(),
            crate::units::Authority::Off,
        );
        let range = BlockRange { volume: VolumeId(u16::MAX), first: BLOCKS_MAX - 2, count: 1 };
        let extent = Extent { volume: VolumeId(u16::MAX), index: BLOCKS_MAX / BLOCKS_PER_EXTENT - 1 };
        let dirty: Vec<_> = (0..32).map(|node| (NodeId(u32::MAX - node), vec![range; RANGES_MAX / 32])).collect();
        for message in [
            Message::Record { record },
            Message::ReportRanges { session: 1, ranges: vec![range; RANGES_MAX] },
            Message::Cool { id: u64::MAX, extents: vec![extent; RANGES_MAX], dirty },
            Message::Hashes { id: u64::MAX, hashes: vec![super::super::BlockHash([0xff; 16]); RANGES_MAX] },
        ] {
            let mut out = Vec::new();
            encode(&message, &mut out).unwrap();
            assert!(out.len() <= super::super::BODY_MAX as usize, "{} bytes", out.len());
        }
    }

    /// A body may claim any length; it gets only what it brings.
    #[test]
    fn a_list_that_claims_to_be_endless_is_refused() {
        let mut body = Vec::new();
        encode(&Message::ReportRanges { session: 1, ranges: vec![] }, &mut body).unwrap();
        assert_eq!(body.pop(), Some(0));
        body.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(decode(&body), Err("its encoding is broken"));
    }

    #[test]
    fn a_message_beyond_its_bounds_is_neither_sent_nor_taken() {
        let range = BlockRange { volume: VolumeId(0), first: 5, count: 1 };
        let long = Message::ReportRanges { session: 1, ranges: vec![range; RANGES_MAX + 1] };
        let empty = Message::ReportRanges { session: 1, ranges: vec![BlockRange { count: 0, ..range }] };
        let beyond = Message::ReportRanges { session: 1, ranges: vec![BlockRange { first: u64::MAX, ..range }] };
        let hot = Message::Flush { id: 1 };
        for message in [long, empty, beyond, hot] {
            let mut body = Vec::new();
            assert!(encode(&message, &mut body).is_err());
            postcard::serialize_with_flavor(&message, Appended(&mut body)).unwrap();
            assert!(decode(&body).is_err());
        }
    }
}
