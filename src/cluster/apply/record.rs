//! The compare-and-swap of a resource's record: what makes the Raft log the authority of `quorum=majority`.

use crate::cluster::{Applied, Cluster, Refusal};
use crate::units::{Authority, NodeId, Record, RecordId, ResourceId};

impl Cluster {
    pub(super) fn change_record(&mut self, id: ResourceId, expect: RecordId, record: Record) -> Result<Applied, Refusal> {
        let resource = self.resource(id)?;
        let Some(present) = &resource.record else {
            return Err(Refusal::NoSuchResource(resource.name.to_string()));
        };
        if present.id == record.id {
            // The same proposal once more, after its answer was lost; a different one under that id is a proposer's error.
            return if *present == record { Ok(Applied::Done) } else { Err(Refusal::RecordIs(Box::new(present.clone()))) };
        }
        if present.id != expect {
            return Err(Refusal::RecordIs(Box::new(present.clone())));
        }
        check_succession(present, &record).map_err(|why| Refusal::BadRecord(why.to_owned()))?;
        if let Some(stranger) =
            record.in_sync.keys().find(|node| !present.in_sync.contains_key(node) && !self.may_enter(id, **node))
        {
            return Err(Refusal::BadRecord(format!("node {stranger} has no replica of '{}'", resource.name)));
        }
        if record.primary.is_some_and(|primary| present.primary != Some(primary) && !resource.assignments.contains_key(&primary))
        {
            return Err(Refusal::BadRecord("the new primary is not assigned the resource".to_owned()));
        }
        let wanted = self.options(resource).quorum;
        if record.authority != present.authority && record.authority != wanted {
            return Err(Refusal::BadRecord("it names another authority than the resource's options".to_owned()));
        }
        self.resource_mut(id).record = Some(record);
        self.drop_evicted(id);
        Ok(Applied::Done)
    }

    /// Drops the leaving replicas that the record does not name any more.
    fn drop_evicted(&mut self, id: ResourceId) {
        let resource = &self.resources[&id];
        let named = |node: &NodeId| resource.record.as_ref().is_some_and(|record| record.in_sync.contains_key(node));
        let gone: Vec<NodeId> = resource.assignments.iter().filter(|(n, a)| a.leaving && !named(n)).map(|(&n, _)| n).collect();
        for &node in &gone {
            self.drop_assignment(id, node);
        }
        if !gone.is_empty() {
            self.drop_leavers();
        }
    }

    /// Whether `node` may be admitted to the in-sync set.
    fn may_enter(&self, id: ResourceId, node: NodeId) -> bool {
        self.resources[&id].assignments.get(&node).is_some_and(|a| a.replica.is_some() && !a.leaving)
    }
}

/// Whether `next` may follow `present`.
fn check_succession(present: &Record, next: &Record) -> Result<(), &'static str> {
    if next.in_sync.is_empty() {
        return Err("no replica would be in sync");
    }
    if next.number <= present.number {
        return Err("its number is not greater");
    }
    // Under `quorum=off` records were changed elsewhere in between; the one that hands over to the Raft log may have any parent.
    if present.authority == Authority::Majority && (next.parent != Some(present.id) || next.number != present.number + 1) {
        return Err("it names another parent");
    }
    if next.primary.is_some() && next.primary != present.primary && next.reign <= present.reign {
        return Err("a new primary needs a new reign");
    }
    if next.reign < present.reign {
        return Err("its reign is older");
    }
    Ok(())
}
