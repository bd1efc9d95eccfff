//! Those who have connected and not proved anything yet.
//!
//! Nobody waits for a place: there are so many, and when they are taken, the one who has been there longest has to go, of the address that
//! has most. Whoever opens a thousand connections and says nothing takes their places from himself; a node that has a certificate, or a
//! client that knows what it wants, is through before its turn comes.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The places.
#[derive(Debug)]
pub struct Strangers {
    places: usize,
    /// In the order in which they came.
    present: Mutex<VecDeque<Present>>,
}

#[derive(Debug)]
struct Present {
    from: IpAddr,
    go: Arc<Notify>,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub struct Stranger {
    all: Arc<Strangers>,
    go: Arc<Notify>,
}

impl Strangers {
    /// So many places.
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places, present: Mutex::new(VecDeque::new()) })
    }

    /// Gives a place to someone who has just connected.
    pub fn admit(self: &Arc<Self>, from: IpAddr) -> Stranger {
        let go = Arc::new(Notify::new());
        let mut present = self.lock();
        if present.len() >= self.places
            && let Some(at) = longest_of_most(&present)
            && let Some(leaving) = present.remove(at)
        {
            leaving.go.notify_one();
        }
        present.push_back(Present { from, go: go.clone() });
        drop(present);
        Stranger { all: self.clone(), go }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Waits until the place is needed for another.
    pub async fn sent_away(&self) {
        self.go.notified().await;
    }

    /// It is no stranger any more, and is not sent away.
    pub fn is_known(&self) {
        self.all.lock().retain(|present| !Arc::ptr_eq(&present.go, &self.go));
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.is_known();
    }
}

/// Who has been there longest, of the address that has most.
fn longest_of_most(present: &VecDeque<Present>) -> Option<usize> {
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for one in present {
        *counts.entry(one.from).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count)?.0;
    present.iter().position(|one| one.from == most)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn has_to_go(stranger: &Stranger) -> bool {
        timeout(Duration::from_millis(20), stranger.sent_away()).await.is_ok()
    }

    #[tokio::test]
    async fn the_longest_of_the_address_with_most_makes_room() {
        let (near, far): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let all = Strangers::new(3);
        let member = all.admit(near);
        let crowd: Vec<Stranger> = (0..4).map(|_| all.admit(far)).collect();
        assert!(!has_to_go(&member).await, "it was there first, and alone");
        assert!(has_to_go(&crowd[0]).await && has_to_go(&crowd[1]).await);
        assert!(!has_to_go(&crowd[2]).await && !has_to_go(&crowd[3]).await);
    }

    #[tokio::test]
    async fn who_has_left_or_is_known_takes_no_place() {
        let from: IpAddr = "10.0.0.1".parse().unwrap();
        let all = Strangers::new(2);
        drop(all.admit(from));
        let (known, waits) = (all.admit(from), all.admit(from));
        known.is_known();
        let _third = all.admit(from);
        assert!(!has_to_go(&known).await && !has_to_go(&waits).await);
        let _fourth = all.admit(from);
        assert!(!has_to_go(&known).await && has_to_go(&waits).await);
    }
}
