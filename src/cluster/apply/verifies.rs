//! Verifies that begin by themselves.

use crate::cluster::{Applied, Cluster, Refusal, Schedule, VerifySchedule};
use crate::units::{Name, ResourceId};

impl Cluster {
    /// What is set again with the same interval goes on: else a command that runs every day would put it off for ever.
    pub(super) fn schedule_verify(&mut self, name: &Name, schedule: Option<VerifySchedule>) -> Result<Applied, Refusal> {
        let id = self.resource_named(name)?.id;
        if schedule.is_some_and(|schedule| schedule.every < Schedule::SHORTEST) {
            return Err(Refusal::VerifyTooOften { shortest: Schedule::SHORTEST });
        }
        let before = self.resource_mut(id).verifies;
        let same = |new: &VerifySchedule| before.filter(|old| old.every == new.every);
        let goes_on = |new: VerifySchedule| same(&new).map_or(new, |old| VerifySchedule { repair: new.repair, ..old });
        self.resource_mut(id).verifies = schedule.map(goes_on);
        Ok(Applied::Done)
    }

    /// A schedule that was taken away while one began stays away.
    pub(super) fn note_verify(&mut self, id: ResourceId, now: u64) -> Result<Applied, Refusal> {
        self.resource(id)?;
        if let Some(schedule) = &mut self.resource_mut(id).verifies {
            schedule.last = Some(now);
        }
        Ok(Applied::Done)
    }
}
