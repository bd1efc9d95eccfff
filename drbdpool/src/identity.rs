//! Whose a pool is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::PoolError;

/// The node of a cluster that a pool belongs to, as it is written on the pool: into a marker file, or as tags of a volume group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Identity {
    cluster: String,
    node: String,
}

impl Identity {
    /// An identity from the cluster's and the node's id: 1 to 64 of `[a-zA-Z0-9_.-]`, which can stand in a tag of LVM.
    pub fn new(cluster: impl Into<String>, node: impl Into<String>) -> Result<Self, PoolError> {
        let identity = Self { cluster: cluster.into(), node: node.into() };
        for id in [&identity.cluster, &identity.node] {
            let fits = (1..=64).contains(&id.len());
            if !fits || !id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
                return Err(PoolError::BadIdentity { id: id.chars().take(80).collect() });
            }
        }
        Ok(identity)
    }

    /// The cluster's id.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The node's id within the cluster.
    pub fn node(&self) -> &str {
        &self.node
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {}", self.node, self.cluster)
    }
}

/// An identity as it is read, before it is known to be one.
#[derive(Deserialize)]
struct Fields {
    cluster: String,
    node: String,
}

impl TryFrom<Fields> for Identity {
    type Error = PoolError;

    fn try_from(fields: Fields) -> Result<Self, PoolError> {
        Self::new(fields.cluster, fields.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_can_stand_in_a_tag() {
        assert!(Identity::new("0123456789abcdef0123456789abcdef", "0").is_ok());
        for bad in ["", "a b", "a/b", "a=b", "ä", &"x".repeat(65)] {
            assert!(Identity::new(bad, "0").is_err() && Identity::new("c", bad).is_err(), "{bad:?} was taken");
        }
    }
}
