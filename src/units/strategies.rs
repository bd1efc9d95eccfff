//! Values for the property tests of the rooms that store or send them.

use proptest::collection::btree_map;
use proptest::option;
use proptest::prelude::*;

use super::{Authority, Incarnation, NodeId, Record, RecordId};

/// A record, whether it makes sense or not.
pub(crate) fn record() -> impl Strategy<Value = Record> {
    let in_sync = btree_map(any::<u32>().prop_map(NodeId), any::<u64>().prop_map(Incarnation), 0..=32);
    (any::<[u64; 3]>(), option::of(any::<u64>()), in_sync, option::of(any::<u32>()), any::<(bool, bool)>()).prop_map(
        |([number, id, reign], parent, in_sync, primary, (off, unwritten))| Record {
            number,
            id: RecordId(id),
            parent: parent.map(RecordId),
            in_sync,
            primary: primary.map(NodeId),
            reign,
            authority: if off { Authority::Off } else { Authority::Majority },
            unwritten,
        },
    )
}
