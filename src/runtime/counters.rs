//! What a shard has done, for benches and metrics.

/// Counts since the shard's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Turns of the loop: system calls of the ring.
    pub turns: u64,
    /// Requests of NBD clients.
    pub requests: u64,
    /// Bytes that clients have written.
    pub written: u64,
    /// Bytes that clients have read.
    pub read: u64,
    /// Receives, from clients and peers.
    pub receives: u64,
    /// Sends, to clients and peers.
    pub sends: u64,
    /// Messages to and from peers.
    pub messages: u64,
    /// Operations on disks, metadata included.
    pub disk: u64,
}

impl Counters {
    /// The sum of two shards' counts.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            turns: self.turns + other.turns,
            requests: self.requests + other.requests,
            written: self.written + other.written,
            read: self.read + other.read,
            receives: self.receives + other.receives,
            sends: self.sends + other.sends,
            messages: self.messages + other.messages,
            disk: self.disk + other.disk,
        }
    }
}
