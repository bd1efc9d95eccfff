//! Whose a volume group is: its tags say so, and are set and taken away here.

use super::report::VolumeGroup;
use super::{LvmPool, tags};
use crate::{PoolError, Unclaimed};

impl LvmPool {
    /// Makes sure that the group is this node's.
    pub(super) fn check_or_claim(&self, group: &VolumeGroup, unclaimed: Unclaimed) -> Result<(), PoolError> {
        let unowned = tags::is_unowned(&group.tags);
        if unowned && self.thin.is_none() {
            return match unclaimed {
                Unclaimed::Claim { .. } => self.tag_group("--addtag"),
                Unclaimed::Refuse => Err(self.unclaimed(format!("volume group '{}'", self.volume_group))),
            };
        }
        if unowned || tags::of_owner(&self.identity).iter().all(|tag| group.tags.contains(tag)) {
            return self.check_thin(group, unclaimed);
        }
        Err(PoolError::OtherOwner {
            pool: format!("volume group '{}'", self.volume_group),
            owner: tags::owner(&group.tags),
            wanted: self.identity.to_string(),
            remedy: tags::removal("vgchange", &self.volume_group, &group.tags),
        })
    }

    pub(super) fn unclaimed(&self, pool: String) -> PoolError {
        PoolError::Unclaimed { pool, wanted: self.identity.to_string(), why: "it does not have their tags".to_owned() }
    }

    fn tag_group(&self, option: &str) -> Result<(), PoolError> {
        let [cluster, node] = tags::of_owner(&self.identity);
        self.change("vgchange", &[option, &cluster, option, &node, "--", &self.volume_group])
    }

    pub(crate) fn release(self) -> Result<(), PoolError> {
        let group = self.report()?;
        let volumes = group.volumes.iter().filter(|lv| self.volume_of(lv).is_some()).count();
        if volumes > 0 {
            return Err(PoolError::NotEmpty { pool: self.spec.to_string(), volumes });
        }
        match self.thin {
            Some(_) => self.release_thin(&group),
            None => self.tag_group("--deltag"),
        }
    }
}
