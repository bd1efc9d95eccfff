//! What must be true, a file each.
//!
//! | claim | file | looked at |
//! |---|---|---|
//! | nothing acknowledged is lost, every read is the latest | `../oracle.rs` | at every answer |
//! | an answered write is on every member, a flushed one durably | [`everywhere`] | at every answer |
//! | what may differ is known to differ | [`coverage`] | all the time, and at every death |
//! | one writer a reign | [`writers`] | at every change of the record |
//! | an older reign is refused in everything | [`stale`] | at every message |
//! | snapshots are of one moment, and holds end | [`cut`] | at the end of each hold, and all the time |
//! | a verify tells of no difference unless a disk has lied | `../verify.rs` | all the time |
//! | alone means alone | [`alone`] | at every answer |
//! | no step waits for an event that need not come | [`awake`] | after every event |
//! | memory is bounded | [`bounded`] | all the time |
//! | replicas at rest are the same | [`identical`] | in the end |
//! | a split brain is always found, and never made up | [`forks`] | in the end |

pub mod alone;
pub mod awake;
pub mod bounded;
pub mod coverage;
pub mod cut;
pub mod everywhere;
pub mod forks;
pub mod identical;
pub mod stale;
pub mod writers;

use blkrep::units::Record;

use super::node::Node;
use super::world::World;

/// Looked at again and again while faults happen.
pub fn during(world: &mut World) -> Result<(), String> {
    bounded::check(world)?;
    cut::ends(world)?;
    super::verify::no_difference(world)?;
    coverage::check(world)
}

/// Whether a record names the present or last life of a node, as its metadata tells it.
pub fn names(record: &Record, node: &Node) -> bool {
    let life = node.life();
    let named = record.in_sync.get(&node.id);
    let same = named == Some(&life.incarnation) || named == Some(&life.continues);
    let present = if node.engine.is_some() { life.incarnation != node.before } else { life.clean };
    same && present
}
