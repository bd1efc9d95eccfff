//! A node whose clients' requests are taken elsewhere, and the node that takes them.

use super::*;

/// The one that is asked to take requests, and when: the questions so far.
fn asked(rig: &Rig) -> Vec<NodeId> {
    let question = |(to, m): &(NodeId, Message)| matches!(m, Message::Serve { .. }).then_some(*to);
    rig.sent.iter().filter_map(question).collect()
}

#[test]
fn whoever_has_refused_is_asked_again_though_nothing_else_happens() {
    let mut rig = Rig::bare(&[B]);
    rig.meet(B, CLUSTER);
    rig.tell(Event::Attach(ClientId(1)));
    assert_eq!(asked(&rig), [B]);
    let session = rig.sent.iter().find_map(|(_, m)| if let Message::Serve { session, .. } = m { Some(*session) } else { None });
    // It has lost the last primary a little later than this node, and gives it time to come back.
    let why = "the primary was lost a moment ago and may come back".into();
    rig.hear(B, Message::NotServing { session: session.unwrap(), why });
    rig.sleep();
    assert_eq!(asked(&rig), [B, B]);
}
