//! The first frame of a connection: who is there, and which protocol both can speak.

use super::body::Body;
use super::error::Fault;
use crate::units::{ClusterId, NodeId};

/// The protocol versions that this program speaks.
pub const VERSIONS: Versions = Versions { oldest: 1, newest: 1 };

/// What each end of a connection says first, before it has heard the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The versions that the sender speaks; of this program [`VERSIONS`].
    pub versions: Versions,
    /// The sender's program, for messages.
    pub program: Program,
    /// The cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub node: NodeId,
    /// Which of the connections between the two nodes this is.
    pub lane: u16,
    /// What the sender can do and is willing to.
    pub features: Features,
    /// The machine's boot id: another one means that everything that was not flushed may be lost.
    pub boot: u128,
    /// The sender's process.
    pub process: Process,
}

/// What one end offers, or both: a set of bits. Those that an end does not know come to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(pub u16);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);
    /// Going on in plain text after the hellos.
    pub const PLAIN: Self = Self(1);

    /// Whether all of `other` are among these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What both ends of a connection have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The version of every frame from now on.
    pub version: u8,
    /// What both offer.
    pub features: Features,
}

/// A range of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest one; at least 1.
    pub oldest: u8,
    /// The newest one.
    pub newest: u8,
}

/// A program's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// The first number.
    pub major: u16,
    /// The second.
    pub minor: u16,
    /// The third.
    pub patch: u16,
}

impl Program {
    /// This program.
    pub const THIS: Self = Self {
        major: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: number(env!("CARGO_PKG_VERSION_MINOR")),
        patch: number(env!("CARGO_PKG_VERSION_PATCH")),
    };
}

/// A process, as far as it can be told from every other that its machine ever had since its boot. A peer on the same machine can thus be
/// watched, and known dead (rule F3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The process id within its namespace.
    pub id: u32,
    /// The inode number of its process id namespace: in another one the id means another process.
    pub namespace: u64,
    /// When it was started, in clock ticks after boot: an id may have been used before.
    pub started: u64,
}

/// Why two nodes cannot talk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// No version is common to both.
    #[error(
        "node {peer} runs blkrep {}.{}.{} and speaks protocol versions {} to {}; this node runs {}.{}.{} and speaks {} to {}: upgrade \
         {older}",
        their_program.major, their_program.minor, their_program.patch, theirs.oldest, theirs.newest,
        our_program.major, our_program.minor, our_program.patch, ours.oldest, ours.newest,
        older = if theirs.newest < ours.oldest { "that node" } else { "this node" }
    )]
    Versions {
        /// The peer.
        peer: NodeId,
        /// What it speaks.
        theirs: Versions,
        /// What it runs.
        their_program: Program,
        /// What this node speaks.
        ours: Versions,
        /// What this node runs.
        our_program: Program,
    },
    /// The peer belongs to another cluster.
    #[error("node {peer} belongs to cluster {theirs}, this node to {ours}: the address is that of another cluster's node")]
    Cluster {
        /// The peer.
        peer: NodeId,
        /// Its cluster.
        theirs: ClusterId,
        /// This node's.
        ours: ClusterId,
    },
    /// The node has reached itself.
    #[error("the connection leads back to this node ({0}): the peer's address is this node's own")]
    Myself(NodeId),
    /// The two ends disagree on which connection this is.
    #[error("node {peer} takes this connection for lane {theirs}, this node for lane {ours}: a fault of either program")]
    Lane {
        /// The peer.
        peer: NodeId,
        /// Its lane.
        theirs: u16,
        /// This node's.
        ours: u16,
    },
}

impl Hello {
    /// What this end, which said this hello, and the peer, which said `theirs`, go by from now on: the newest version that both know, and
    /// the features that both offer. Both ends come to the same answer without another exchange.
    pub fn agree(&self, theirs: &Self) -> Result<Agreed, HelloError> {
        let (peer, ours) = (theirs.node, self);
        if ours.cluster != theirs.cluster {
            return Err(HelloError::Cluster { peer, theirs: theirs.cluster, ours: ours.cluster });
        }
        if peer == ours.node {
            return Err(HelloError::Myself(peer));
        }
        if theirs.lane != ours.lane {
            return Err(HelloError::Lane { peer, theirs: theirs.lane, ours: ours.lane });
        }
        let version = ours.versions.newest.min(theirs.versions.newest);
        if version < ours.versions.oldest.max(theirs.versions.oldest) {
            return Err(HelloError::Versions {
                peer,
                theirs: theirs.versions,
                their_program: theirs.program,
                ours: ours.versions,
                our_program: ours.program,
            });
        }
        Ok(Agreed { version, features: Features(ours.features.0 & theirs.features.0) })
    }

    /// | bytes | what |
    /// |---|---|
    /// | 0..2 | oldest and newest version |
    /// | 2..8 | program: major, minor, patch |
    /// | 8..24 | cluster |
    /// | 24..28 | node |
    /// | 28..30 | lane |
    /// | 30..32 | features |
    /// | 32..48 | boot id |
    /// | 48..52 | process id |
    /// | 52..56 | zero |
    /// | 56..64 | process id namespace |
    /// | 64..72 | start of the process |
    ///
    /// This layout never changes; later versions may add to its end, which earlier ones do not look at.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.versions.oldest, self.versions.newest]);
        for part in [self.program.major, self.program.minor, self.program.patch] {
            out.extend_from_slice(&part.to_le_bytes());
        }
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        out.extend_from_slice(&self.node.0.to_le_bytes());
        out.extend_from_slice(&self.lane.to_le_bytes());
        out.extend_from_slice(&self.features.0.to_le_bytes());
        out.extend_from_slice(&self.boot.to_le_bytes());
        out.extend_from_slice(&self.process.id.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.process.namespace.to_le_bytes());
        out.extend_from_slice(&self.process.started.to_le_bytes());
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Fault> {
        let mut body = Body(body);
        let [oldest, newest] = body.take()?;
        if oldest == 0 || oldest > newest {
            return Err("its range of versions is empty");
        }
        let program = Program { major: body.u16()?, minor: body.u16()?, patch: body.u16()? };
        let cluster = ClusterId(u128::from_le_bytes(body.take()?));
        let (node, lane, features) = (NodeId(body.u32()?), body.u16()?, Features(body.u16()?));
        let boot = u128::from_le_bytes(body.take()?);
        let (id, _) = (body.u32()?, body.u32()?);
        let process = Process { id, namespace: body.u64()?, started: body.u64()? };
        Ok(Self { versions: Versions { oldest, newest }, program, cluster, node, lane, features, boot, process })
    }
}

const fn number(digits: &str) -> u16 {
    match u16::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => panic!("cargo's version numbers are numbers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: u32, oldest: u8, newest: u8) -> Hello {
        Hello {
            versions: Versions { oldest, newest },
            program: Program { major: 0, minor: u16::from(newest), patch: 0 },
            cluster: ClusterId(7),
            node: NodeId(node),
            lane: 3,
            features: Features(newest.into()),
            boot: 9,
            process: Process { id: 1, namespace: 2, started: 3 },
        }
    }

    #[test]
    fn both_ends_agree_on_the_newest_common_version() {
        for (a, b, version) in [((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((4, 9), (1, 4), 4)] {
            let agreed = Agreed { version, features: Features(u16::from(a.1 & b.1)) };
            let (a, b) = (hello(1, a.0, a.1), hello(2, b.0, b.1));
            assert_eq!(a.agree(&b), Ok(agreed));
            assert_eq!(b.agree(&a), Ok(agreed));
        }
    }

    #[test]
    fn without_a_common_version_the_older_one_is_asked_to_upgrade() {
        let (old, new) = (hello(1, 1, 2), hello(2, 3, 4));
        let error = old.agree(&new).unwrap_err().to_string();
        assert!(error.starts_with("node 2 runs blkrep 0.4.0") && error.ends_with("upgrade this node"), "{error}");
        assert!(new.agree(&old).unwrap_err().to_string().ends_with("upgrade that node"));
    }

    #[test]
    fn strangers_are_refused_by_name() {
        let me = hello(1, 1, 1);
        let other = Hello { cluster: ClusterId(8), ..hello(2, 1, 1) };
        assert!(matches!(me.agree(&other), Err(HelloError::Cluster { theirs: ClusterId(8), .. })));
        assert_eq!(me.agree(&me), Err(HelloError::Myself(NodeId(1))));
        let other = Hello { lane: 4, ..hello(2, 1, 1) };
        assert!(matches!(me.agree(&other), Err(HelloError::Lane { theirs: 4, ours: 3, .. })));
    }

    #[test]
    fn what_a_later_version_adds_to_a_hello_is_not_looked_at() {
        let mut body = Vec::new();
        hello(2, 1, 9).encode(&mut body);
        assert_eq!(body.len(), 72);
        body.extend_from_slice(b"and another thing");
        assert_eq!(Hello::decode(&body), Ok(hello(2, 1, 9)));
    }
}
