//! Holds of a snapshot.

use super::*;

const HOLD: HoldId = HoldId(9);

impl Rig {
    fn holds(&mut self) -> Option<Result<Held, HoldError>> {
        let told = self.done.iter().find_map(|c| match c {
            Command::Held { id, result } if *id == HOLD => Some(result.clone()),
            _ => None,
        });
        self.done.retain(|c| !matches!(c, Command::Held { .. }));
        told
    }

    fn released_whole(&mut self) -> bool {
        self.tell(Event::ReleaseHold(HOLD));
        self.done.contains(&Command::Released { id: HOLD, whole: true })
    }

    /// The peer answers the flushes that it was asked for.
    fn flushed_by(&mut self, node: NodeId, durable: u64) {
        let asked = |(to, m): &(NodeId, Message)| match m {
            Message::Flush { id } if *to == node => Some(*id),
            _ => None,
        };
        let ids: Vec<u64> = self.sent.iter().filter_map(asked).collect();
        self.sent.clear();
        ids.into_iter().for_each(|id| self.hear(node, Message::Flushed { id, durable }));
    }
}

fn write(block: u64, buffer: u32) -> Request {
    Request::Write { volume: VolumeId(0), offset: block * 4096, len: 4096, buffer: BufferId(buffer), fua: false }
}

#[test]
fn a_hold_waits_for_what_is_under_way_and_lets_nothing_begin() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.flushed_by(B, 0);
    rig.request(1, write(0, 1));
    rig.tell(Event::Hold { id: HOLD, lease: Duration::from_secs(5) });
    rig.request(2, write(8, 2));
    assert_eq!(rig.holds(), None, "B has not written the first");
    rig.hear(B, Message::Written { seqs: vec![1] });
    assert_eq!((rig.answer_to(1), rig.holds()), (Some(Ok(())), None), "nor flushed it");
    (0..3).for_each(|_| rig.flushed_by(B, 1));
    let held = rig.holds().expect("all is there").unwrap();
    assert_eq!((held.reign, held.in_sync), (rig.record.reign, [ME, B].into()));
    assert!(rig.engine.status().suspended.contains(&Suspension::Snapshot));
    assert!(!rig.sent.iter().any(|(_, m)| matches!(m, Message::Write(w) if w.seq == 2)));
    assert!(rig.released_whole());
    assert!(rig.sent.iter().any(|(_, m)| matches!(m, Message::Write(w) if w.seq == 2)), "what waited begins");
}

#[test]
fn a_hold_that_nobody_releases_ends_and_says_so_later() {
    let mut rig = Rig::new(Authority::Majority, &[]);
    rig.tell(Event::Hold { id: HOLD, lease: Duration::from_secs(5) });
    rig.holds().expect("it becomes primary for it").unwrap();
    rig.now = rig.now.after(Duration::from_secs(4));
    rig.tell(Event::RenewHold { id: HOLD, lease: Duration::from_secs(5) });
    rig.now = rig.now.after(Duration::from_secs(4));
    rig.tell(Event::Timeout);
    assert!(rig.engine.status().suspended.contains(&Suspension::Snapshot), "it was renewed");
    rig.now = rig.now.after(Duration::from_secs(1));
    rig.tell(Event::Timeout);
    assert!(rig.engine.status().suspended.is_empty());
    rig.tell(Event::RenewHold { id: HOLD, lease: Duration::from_secs(5) });
    assert!(!rig.released_whole(), "what is over is not begun again");
}

#[test]
fn a_second_hold_is_refused_and_a_replica_names_the_primary() {
    let mut rig = Rig::new(Authority::Majority, &[]);
    rig.tell(Event::Hold { id: HoldId(1), lease: Duration::from_secs(5) });
    rig.tell(Event::Hold { id: HOLD, lease: Duration::from_secs(5) });
    assert_eq!(rig.holds(), Some(Err(HoldError::Busy)));
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.record.primary = Some(B);
    rig.meet(B, CLUSTER);
    let standing = Standing { role: Role::Primary, ..rig.standing(B) };
    rig.hear(B, Message::Standing(Box::new(standing)));
    rig.tell(Event::Hold { id: HOLD, lease: Duration::from_secs(5) });
    assert_eq!(rig.holds(), Some(Err(HoldError::Elsewhere(B))));
}

#[test]
fn a_primary_that_nobody_needs_after_a_hold_wants_to_be_woken_to_give_the_role_up() {
    let mut rig = Rig::new(Authority::Majority, &[]);
    rig.tell(Event::Hold { id: HOLD, lease: Duration::from_secs(5) });
    assert!(rig.holds().is_some_and(|held| held.is_ok()), "{:?}", rig.done);
    rig.pass(Duration::from_secs(20));
    assert_eq!(rig.record.primary, None, "{:?}", rig.engine.status());
}
