//! Replicas that are compared.

use super::*;

const ASK: AskId = AskId(4);

impl Rig {
    fn operate(&mut self, operation: Operation) -> Option<Result<(), OperateError>> {
        self.tell(Event::Operate { id: ASK, operation });
        self.operated()
    }

    fn operated(&mut self) -> Option<Result<(), OperateError>> {
        let told = self.done.iter().find_map(|c| match c {
            Command::Operated { id, result } if *id == ASK => Some(result.clone()),
            _ => None,
        });
        self.done.retain(|c| !matches!(c, Command::Operated { .. }));
        told
    }

    /// The first blocks of the pieces that a peer was asked to hash.
    fn hashed(&self, node: NodeId) -> Vec<u64> {
        let first = |(to, m): &(NodeId, Message)| match m {
            Message::Hash { range, .. } if *to == node => Some(range.first),
            _ => None,
        };
        self.sent.iter().filter_map(first).collect()
    }

    fn found(&self, node: NodeId) -> Option<VerifyStatus> {
        self.engine.status().peers.into_iter().find(|peer| peer.node == node)?.verify
    }

    /// Node 0 serves, and what older reigns left is equal and durable on B.
    fn serve_equal(&mut self) {
        self.serve(&[B]);
        let asked: Vec<u64> =
            self.sent.iter().filter_map(|(_, m)| if let Message::Flush { id } = m { Some(*id) } else { None }).collect();
        asked.into_iter().for_each(|id| self.hear(B, Message::Flushed { id, durable: 0 }));
        self.sent.clear();
    }
}

#[test]
fn a_verify_waits_for_writes_under_way_and_holds_up_those_that_come() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve_equal();
    rig.request(1, WRITE);
    assert_eq!(rig.operate(Operation::Verify { repair: false }), Some(Ok(())));
    assert_eq!(rig.hashed(B), [64, 128, 192], "the first blocks are being written");
    rig.hear(B, Message::Written { seqs: vec![1] });
    assert_eq!(rig.hashed(B), [64, 128, 192, 0]);
    rig.sent.clear();
    rig.request(2, WRITE);
    assert!(!rig.sent.iter().any(|(_, m)| matches!(m, Message::Write(_))), "they are being compared");
    assert_eq!(rig.found(B).map(|found| (found.state, found.done)), Some((VerifyState::Running, 0)));
    assert_eq!(rig.operate(Operation::StopVerify), Some(Ok(())));
    assert!(rig.sent.iter().any(|(_, m)| matches!(m, Message::Write(_))), "nobody compares any more");
    assert_eq!(rig.found(B).map(|found| found.state), Some(VerifyState::Broken));
}

#[test]
fn a_replica_that_is_lost_is_not_waited_for() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve_equal();
    assert_eq!(rig.operate(Operation::Verify { repair: false }), Some(Ok(())));
    rig.tell(Event::LinkDown { peer: B, silent: false });
    assert_eq!(rig.found(B).map(|found| found.state), Some(VerifyState::Broken));
    assert!(matches!(rig.operate(Operation::StopVerify), Some(Err(OperateError::Refused(_)))), "it is over");
}

#[test]
fn whoever_wants_the_role_gets_it_before_the_end_of_a_verify() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve_equal();
    rig.tell(Event::Detach(ClientId(1)));
    assert_eq!(rig.operate(Operation::Verify { repair: false }), Some(Ok(())));
    rig.hear(B, Message::StepDown);
    assert_eq!(rig.found(B).map(|found| found.state), Some(VerifyState::Broken));
    assert!(!rig.sent.iter().any(|(_, m)| matches!(m, Message::InUse)), "a comparison is no use");
}

#[test]
fn there_have_to_be_two_to_be_compared_and_one_who_compares() {
    let mut rig = Rig::new(Authority::Majority, &[]);
    rig.serve(&[]);
    assert!(matches!(rig.operate(Operation::Verify { repair: false }), Some(Err(OperateError::Refused(_)))));
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve_equal();
    assert_eq!(rig.operate(Operation::Verify { repair: false }), Some(Ok(())));
    assert!(matches!(rig.operate(Operation::Verify { repair: true }), Some(Err(OperateError::Refused(_)))), "one at a time");
}

#[test]
fn two_copies_decide_nothing_while_a_third_is_away() {
    for (peers, repaired) in [(&[B][..], 64), (&[B, C][..], 0)] {
        let mut rig = Rig::new(Authority::Majority, peers);
        rig.serve(peers);
        rig.request(9, Request::Flush);
        while rig.answer_to(9).is_none() {
            peers.iter().for_each(|peer| rig.durable_on(*peer, 0));
        }
        if peers.contains(&C) {
            rig.tell(Event::LinkDown { peer: C, silent: false });
        }
        rig.sent.clear();
        assert_eq!(rig.operate(Operation::Verify { repair: true }), Some(Ok(())));
        let (op, range) = rig.hashing[0];
        let asked = |(to, m): &(NodeId, Message)| match m {
            Message::Hash { id, range: of } if *to == B && *of == range => Some(*id),
            _ => None,
        };
        let id = rig.sent.iter().find_map(asked).expect("B is asked for the same blocks");
        let hashes = |byte| vec![BlockHash([byte; 16]); 64];
        rig.hear(B, Message::Hashes { id, hashes: hashes(1) });
        rig.tell(Event::DiskDone { op, outcome: DiskOutcome::Hashed(hashes(2)) });
        let found = rig.found(B).expect("B is compared");
        assert_eq!((found.different, found.repaired), (64, repaired), "with {peers:?} (rule R8)");
    }
}

#[test]
fn the_only_user_elsewhere_gets_the_role_after_the_verify() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve_equal();
    rig.serve_guest(B);
    rig.tell(Event::Detach(ClientId(1)));
    assert_eq!(rig.operate(Operation::Verify { repair: false }), Some(Ok(())));
    rig.pass(Duration::from_secs(5));
    let dismissed = |rig: &Rig| rig.sent.iter().any(|(to, m)| *to == B && matches!(m, Message::NotServing { .. }));
    assert!(!dismissed(&rig), "it would ask again at once, and be dismissed again: {:?}", rig.sent);
    assert_eq!(rig.operate(Operation::StopVerify), Some(Ok(())));
    rig.pass(Duration::from_secs(5));
    assert!(dismissed(&rig), "{:?}", rig.sent);
}
