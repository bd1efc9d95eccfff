//! Thin pools: volumes that take space when they are written.
//!
//! The thin pool must zero what it gives out, so that a volume's bytes are the same on every node however it was written. Its owner
//! stands in tags of its own: other volumes of the group are none of this pool's business. It may promise several times what it has;
//! a tag says how many.

use super::report::{LogicalVolume, VolumeGroup};
use super::{LvmPool, tags};
use crate::pool::thin_free;
use crate::{Capacity, Fill, OVERSUBSCRIPTION, PoolError, Promises, Unclaimed};

impl LvmPool {
    /// The thin pool itself, if this is one.
    pub(super) fn thin_pool<'a>(&self, group: &'a VolumeGroup) -> Result<Option<&'a LogicalVolume>, PoolError> {
        let Some(name) = &self.thin else { return Ok(None) };
        match group.volumes.iter().find(|lv| lv.name == *name) {
            Some(lv) if lv.is_thin_pool() => Ok(Some(lv)),
            Some(_) => Err(self.bad(format!("'{name}' is no thin pool"))),
            None => Err(self.bad(format!(
                "it has no thin pool '{name}'; create one with 'lvcreate --type thin-pool --extents 90%FREE --zero y --name {name} {}'",
                self.volume_group
            ))),
        }
    }

    /// Makes sure that the thin pool can be used and is this node's.
    pub(super) fn check_thin(&self, group: &VolumeGroup, unclaimed: Unclaimed) -> Result<(), PoolError> {
        let Some(lv) = self.thin_pool(group)? else { return Ok(()) };
        let name = format!("{}/{}", self.volume_group, lv.name);
        if !lv.zeroes() {
            return Err(self.bad(format!("thin pool '{}' gives out old data; end that with 'lvchange --zero y {name}'", lv.name)));
        }
        if tags::is_unowned(&lv.tags) {
            return match unclaimed {
                Unclaimed::Claim { oversubscription } => self.tag_thin("--addtag", &lv.name, oversubscription),
                Unclaimed::Refuse => Err(self.unclaimed(format!("thin pool '{name}'"))),
            };
        }
        if tags::of_owner(&self.identity).iter().all(|tag| lv.tags.contains(tag)) {
            return Ok(());
        }
        Err(PoolError::OtherOwner {
            pool: format!("thin pool '{name}'"),
            owner: tags::owner(&lv.tags),
            wanted: self.identity.to_string(),
            remedy: tags::removal("lvchange", &name, &lv.tags),
        })
    }

    /// Takes this node's tags off the thin pool.
    pub(super) fn release_thin(&self, group: &VolumeGroup) -> Result<(), PoolError> {
        let Some(lv) = self.thin_pool(group)? else { return Ok(()) };
        self.tag_thin("--deltag", &lv.name, tags::oversubscription(&lv.tags).unwrap_or(OVERSUBSCRIPTION))
    }

    fn tag_thin(&self, option: &str, name: &str, oversubscription: u32) -> Result<(), PoolError> {
        let [cluster, node] = tags::of_owner(&self.identity);
        let promise = tags::oversubscribed(oversubscription);
        let full = format!("{}/{name}", self.volume_group);
        self.change("lvchange", &[option, &cluster, option, &node, option, &promise, "--", &full])
    }

    /// What a thin pool has, and can still promise.
    pub(super) fn thin_capacity(&self, group: &VolumeGroup, lv: &LogicalVolume) -> Capacity {
        let promised = group.volumes.iter().filter(|other| other.pool == lv.name).map(|other| other.size);
        let promised = promised.fold(0, u64::saturating_add);
        // Where LVM does not say, it is not active yet: nothing is known to be amiss.
        let fill = Fill { data: lv.data_fill.unwrap_or(0), metadata: lv.metadata_fill };
        let promises = Promises { times: tags::oversubscription(&lv.tags).unwrap_or(OVERSUBSCRIPTION), made: promised };
        let free = if group.is_partial() { 0 } else { thin_free(lv.size, promises, fill) };
        Capacity { total: lv.size, free, fill: Some(fill), promises: Some(promises), trouble: group.trouble() }
    }

    fn bad(&self, why: String) -> PoolError {
        PoolError::BadVolumeGroup { volume_group: self.volume_group.clone(), why }
    }
}
