//! Sets of a resource's peers.

/// The most peers a resource has.
pub(super) const PEERS_MAX: usize = 31;

/// A set of peers by their place in the engine's list.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PeerSet(u32);

impl PeerSet {
    pub(super) fn insert(&mut self, peer: usize) {
        self.0 |= 1 << peer;
    }

    pub(super) fn remove(&mut self, peer: usize) {
        self.0 &= !(1 << peer);
    }

    pub(super) fn contains(self, peer: usize) -> bool {
        self.0 & (1 << peer) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..PEERS_MAX).filter(move |&peer| self.contains(peer))
    }
}

impl FromIterator<usize> for PeerSet {
    fn from_iter<I: IntoIterator<Item = usize>>(peers: I) -> Self {
        let mut set = Self::default();
        peers.into_iter().for_each(|peer| set.insert(peer));
        set
    }
}

impl std::fmt::Debug for PeerSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
