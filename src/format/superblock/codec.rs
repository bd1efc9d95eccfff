//! The superblock's bytes.
//!
//! All integers are little-endian. Bytes 0..32 and the reach of the checksum are the same in every format there will ever be, so that
//! each program can tell a later format from damage.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | magic, `blkrepMD` |
//! | 8..12 | CRC-32 of bytes 12..16384 |
//! | 12..14 | format, 1 |
//! | 14..20 | the writing program: major, minor, patch |
//! | 20..24 | length in use; what follows is zero |
//! | 24..32 | version: counts the writes |
//! | 32..48 | cluster |
//! | 48..56 | resource |
//! | 56..60 | node |
//! | 60..64 | flags: 1 clean, 2 inconsistent, 4 outdated, 8 synced, 16 record, 32 record's parent, 64 record's primary, 128 record unwritten, 256 authority off, 512 parted, 1024 parted as primary, 2048 written since they parted |
//! | 64..72 | replica |
//! | 72..80 | incarnation |
//! | 80..88 | the incarnation it continues |
//! | 88..104 | synced: record number, record id |
//! | 104..112 | record: number |
//! | 112..120 | record: id |
//! | 120..128 | record: parent |
//! | 128..136 | record: reign |
//! | 136..140 | record: primary |
//! | 140..142 | how many members of the record's in-sync set |
//! | 142..144 | how many ancestors |
//! | 144..146 | how many peers |
//! | 146..148 | how many regions |
//! | 148..152 | zero |
//! | 152..168 | parted: record number, record id |
//! | 168..192 | zero |
//! | 192.. | members: node (4), zero (4), incarnation (8) |
//! | | ancestors: record id (8) |
//! | | peers: node (4), 1 if there is a base (4), base number (8), base id (8) |
//! | | regions: volume (2), slots (2), zero (4), bytes (8), at (8) |

use super::{LINEAGE_MAX, MEMBERS_MAX, Parted, PeerSlot, Region, SUPERBLOCK, Superblock, SuperblockError, TooLarge};
use crate::format::layout::{SLOTS_MAX, VOLUME_BYTES_MAX, VOLUMES_MAX};
use crate::format::page::PAGE;
use crate::units::{Authority, ClusterId, Incarnation, Membership, NodeId, Record, RecordId, ReplicaId, ResourceId, VolumeId};

/// The format that this program writes; it reads every one up to here.
pub(super) const FORMAT: u16 = 1;

impl Superblock {
    /// The bytes of a slot, [`SUPERBLOCK`] of them. What is beyond the bounds of the lists cannot be stored.
    pub fn encode(&self) -> Result<Box<[u8]>, TooLarge> {
        for region in &self.regions {
            fits("peers in each volume's region", self.peers.len(), usize::from(region.slots))?;
        }
        debug_assert_eq!(self.check(), Ok(()), "no program could start from this superblock");
        let record = self.record.as_ref();
        let members = record.map_or(0, |record| record.in_sync.len());
        let counts = [
            fits("members of an in-sync set", members, MEMBERS_MAX)?,
            fits("ancestors of a record", self.lineage.len(), LINEAGE_MAX)?,
            fits("peers", self.peers.len(), usize::from(SLOTS_MAX))?,
            fits("volumes", self.regions.len(), VOLUMES_MAX)?,
        ];
        let mut out = Vec::with_capacity(SUPERBLOCK);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        WRITER.iter().for_each(|part| out.extend_from_slice(&part.to_le_bytes()));
        out.extend_from_slice(&[0; 4]);
        put(&mut out, &[self.version]);
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        put(&mut out, &[self.resource.0]);
        out.extend_from_slice(&self.node.0.to_le_bytes());
        out.extend_from_slice(&self.flags().to_le_bytes());
        put(&mut out, &[self.replica.0, self.incarnation.0, self.continues.0]);
        put(&mut out, &point(self.synced));
        put(&mut out, &record.map_or([0; 4], |r| [r.number, r.id.0, r.parent.map_or(0, |id| id.0), r.reign]));
        out.extend_from_slice(&record.and_then(|r| r.primary).map_or(0, |node| node.0).to_le_bytes());
        counts.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes()));
        out.resize(PARTED, 0);
        put(&mut out, &point(self.parted.map(|parted| (parted.number, parted.id))));
        out.resize(LISTS, 0);
        for (node, incarnation) in record.iter().flat_map(|r| &r.in_sync) {
            put(&mut out, &[u64::from(node.0), incarnation.0]);
        }
        self.lineage.iter().for_each(|id| put(&mut out, &[id.0]));
        for peer in &self.peers {
            put(&mut out, &[u64::from(peer.node.0) | u64::from(peer.base.is_some()) << 32]);
            put(&mut out, &point(peer.base));
        }
        for region in &self.regions {
            put(&mut out, &[u64::from(region.volume.0) | u64::from(region.slots) << 16, region.bytes, region.at]);
        }
        let length = u32::try_from(out.len()).expect("the bounded lists fit the slot");
        out.resize(SUPERBLOCK, 0);
        out[LENGTH..LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32fast::hash(&out[CHECKSUM + 4..]);
        out[CHECKSUM..CHECKSUM + 4].copy_from_slice(&checksum.to_le_bytes());
        Ok(out.into_boxed_slice())
    }

    /// Reads a slot. Bytes beyond [`SUPERBLOCK`] are not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let whole = bytes.get(..SUPERBLOCK).ok_or(SuperblockError::Truncated { len: bytes.len() })?;
        if whole.iter().all(|&byte| byte == 0) {
            return Err(SuperblockError::Blank);
        }
        let mut reader = Reader { bytes: whole, at: 0 };
        let magic = reader.take();
        if &magic != MAGIC {
            return Err(SuperblockError::Foreign { seen: magic });
        }
        let (stored, computed) = (reader.u32(), crc32fast::hash(&whole[CHECKSUM + 4..]));
        if stored != computed {
            return Err(SuperblockError::Checksum { stored, computed });
        }
        let format = reader.u16();
        let writer = (reader.u16(), reader.u16(), reader.u16());
        if format > FORMAT {
            return Err(SuperblockError::Newer { format, writer });
        }
        let _length = reader.u32();
        let superblock = read(&mut reader)?;
        superblock.check()?;
        // Whatever this program would not have written, it does not understand: a reserved byte, an unknown flag, a wrong length.
        let again = superblock.encode().map_err(|e| malformed(e.what, e.count as u64))?;
        let differs = (FROZEN..SUPERBLOCK).find(|&at| again[at] != whole[at]);
        match differs {
            Some(at) => Err(malformed("reserved part at byte", at as u64)),
            None if format != FORMAT => Err(malformed("format", u64::from(format))),
            None => Ok(superblock),
        }
    }

    /// What must be true of the regions, or maps would lie over each other.
    pub(in crate::format) fn check(&self) -> Result<(), SuperblockError> {
        let mut spans = Vec::with_capacity(self.regions.len());
        for region in &self.regions {
            if region.bytes > VOLUME_BYTES_MAX {
                return Err(malformed("volume's size", region.bytes));
            }
            let first = 2 * SUPERBLOCK as u64;
            if !region.at.is_multiple_of(PAGE as u64) || region.at < first || region.at > AREA_MAX {
                return Err(malformed("region's place", region.at));
            }
            if region.slots > SLOTS_MAX || usize::from(region.slots) < self.peers.len() {
                return Err(malformed("region's number of slots", u64::from(region.slots)));
            }
            if self.regions.iter().filter(|other| other.volume == region.volume).count() > 1 {
                return Err(malformed("volume, which is there twice", u64::from(region.volume.0)));
            }
            spans.push(region.span());
        }
        spans.sort_unstable();
        match spans.windows(2).find(|pair| pair[0].end() > pair[1].at) {
            Some(pair) => Err(malformed("region's place, within another,", pair[1].at)),
            None => Ok(()),
        }
    }

    fn flags(&self) -> u32 {
        let record = self.record.as_ref();
        let flags = [
            self.clean,
            self.inconsistent,
            self.outdated,
            self.synced.is_some(),
            record.is_some(),
            record.is_some_and(|r| r.parent.is_some()),
            record.is_some_and(|r| r.primary.is_some()),
            record.is_some_and(|r| r.unwritten),
            record.is_some_and(|r| r.authority == Authority::Off),
            self.parted.is_some(),
            self.parted.is_some_and(|parted| parted.primary),
            self.parted.is_some_and(|parted| parted.written),
        ];
        flags.iter().zip(0..).fold(0, |all, (&flag, bit)| all | u32::from(flag) << bit)
    }
}

/// Reads everything after the length. Lists that do not fit are found by the reader's end.
fn read(reader: &mut Reader<'_>) -> Result<Superblock, SuperblockError> {
    let version = reader.u64();
    let cluster = ClusterId(u128::from_le_bytes(reader.take()));
    let resource = ResourceId(reader.u64());
    let node = NodeId(reader.u32());
    let flags = reader.u32();
    let flag = |bit: u32| flags >> bit & 1 == 1;
    let (replica, incarnation, continues) = (ReplicaId(reader.u64()), Incarnation(reader.u64()), Incarnation(reader.u64()));
    let synced = (reader.u64(), RecordId(reader.u64()));
    let [number, id, parent, reign] = [(); 4].map(|()| reader.u64());
    let primary = NodeId(reader.u32());
    let [members, ancestors, peers, regions] = [(); 4].map(|()| usize::from(reader.u16()));
    reader.at = PARTED;
    let parted = Parted { number: reader.u64(), id: RecordId(reader.u64()), primary: flag(10), written: flag(11) };
    reader.at = LISTS;
    let bounds = [(members, MEMBERS_MAX), (ancestors, LINEAGE_MAX), (peers, usize::from(SLOTS_MAX)), (regions, VOLUMES_MAX)];
    if let Some((count, _)) = bounds.into_iter().find(|(count, max)| count > max) {
        return Err(malformed("length of a list", count as u64));
    }
    let in_sync: Membership = (0..members).map(|_| (NodeId(low(reader.u64())), Incarnation(reader.u64()))).collect();
    let record = Record {
        number,
        id: RecordId(id),
        parent: flag(5).then_some(RecordId(parent)),
        in_sync,
        primary: flag(6).then_some(primary),
        reign,
        authority: if flag(8) { Authority::Off } else { Authority::Majority },
        unwritten: flag(7),
    };
    Ok(Superblock {
        version,
        cluster,
        resource,
        node,
        replica,
        incarnation,
        continues,
        clean: flag(0),
        inconsistent: flag(1),
        outdated: flag(2),
        synced: flag(3).then_some(synced),
        record: flag(4).then_some(record),
        parted: flag(9).then_some(parted),
        lineage: (0..ancestors).map(|_| RecordId(reader.u64())).collect(),
        peers: (0..peers).map(|_| read_peer(reader)).collect(),
        regions: (0..regions).map(|_| read_region(reader)).collect(),
    })
}

fn read_peer(reader: &mut Reader<'_>) -> PeerSlot {
    let (node, has_base) = (reader.u32(), reader.u32());
    let base = (reader.u64(), RecordId(reader.u64()));
    PeerSlot { node: NodeId(node), base: (has_base == 1).then_some(base) }
}

fn read_region(reader: &mut Reader<'_>) -> Region {
    let (volume, slots, _) = (reader.u16(), reader.u16(), reader.u32());
    Region { volume: VolumeId(volume), slots, bytes: reader.u64(), at: reader.u64() }
}

/// Takes integers off a slot whose size and lists have been checked to be large enough.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.bytes[self.at..self.at + N].try_into().expect("so many bytes were taken");
        self.at += N;
        taken
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

fn put(out: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}

fn point(point: Option<(u64, RecordId)>) -> [u64; 2] {
    point.map_or([0; 2], |(number, id)| [number, id.0])
}

/// The lower half; the upper one is zero in everything this program wrote.
fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("masked to 32 bits")
}

fn fits(what: &'static str, count: usize, max: usize) -> Result<u16, TooLarge> {
    u16::try_from(count).ok().filter(|_| count <= max).ok_or(TooLarge { what, count, max })
}

fn malformed(field: &'static str, value: u64) -> SuperblockError {
    SuperblockError::Malformed { field, value }
}

/// The version of this program, for the message that tells a user what to upgrade to.
const WRITER: [u16; 3] =
    [number(env!("CARGO_PKG_VERSION_MAJOR")), number(env!("CARGO_PKG_VERSION_MINOR")), number(env!("CARGO_PKG_VERSION_PATCH"))];

const fn number(digits: &str) -> u16 {
    match u16::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => panic!("cargo's version numbers are numbers"),
    }
}

const MAGIC: &[u8; 8] = b"blkrepMD";
const CHECKSUM: usize = 8;
const LENGTH: usize = 20;
/// The end of what the content does not decide: magic, checksum, format, writer.
const FROZEN: usize = 20;
const PARTED: usize = 152;
const LISTS: usize = 192;
/// Far beyond every area that can be; keeps sums of offsets from overflowing.
const AREA_MAX: u64 = 1 << 60;

const _: () = assert!(
    LISTS + MEMBERS_MAX * 16 + LINEAGE_MAX * 8 + SLOTS_MAX as usize * 24 + VOLUMES_MAX * 24 <= SUPERBLOCK,
    "full lists fit the slot"
);

#[cfg(test)]
mod tests;
