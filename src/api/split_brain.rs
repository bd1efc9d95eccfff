//! The end of a split brain.

use serde::{Deserialize, Serialize};

use crate::units::Name;

/// Discards what a replica has had to itself since a split brain. The other side brings it up to date: only what either has written since
/// is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscardMyData {
    /// The resource.
    pub resource: Name,
    /// The node whose data is discarded; the one that is asked when absent.
    #[serde(default)]
    pub node: Option<Name>,
}
