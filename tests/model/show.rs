//! States and messages for people to read.

use std::fmt::Write as _;

use crate::cluster::Cluster;
use crate::state::{Kind, Message, NODES, Purpose, Role, State, has, small};

pub fn message(message: &Message) -> String {
    let Message { kind, reign, a, b } = message;
    match kind {
        Kind::Write | Kind::Resync | Kind::Written => format!("{kind:?} block {a} = {b}, reign {reign}"),
        Kind::Report => format!("Report blocks {a:#b}, reign {reign}"),
        Kind::Cool => format!("Cool block {a}, dirty for the third: {}, reign {reign}", *b != 0),
        Kind::Admit => format!("Admit hot {a:#b}, dirty for the third {b:#b}, reign {reign}"),
        _ => format!("{kind:?}, reign {reign}"),
    }
}

/// Record, and of each node: role, what its disk reads as and holds, what it knows.
pub fn state(cluster: &Cluster, s: &State) -> String {
    let mut text = format!("record {} in sync {}", s.register.number, names(s.register.members));
    for (n, node) in s.nodes[..cluster.nodes].iter().enumerate() {
        let name = char::from(b'A' + small(n));
        let role = match node.role {
            Role::Secondary => "",
            Role::TakingOver => "taking over ",
            Role::Serving => "primary ",
        };
        let (cache, disk) = (&node.cache[..cluster.blocks], &node.disk[..cluster.blocks]);
        let _ = write!(text, " | {name} {role}{cache:?}/{disk:?}");
        for (what, mask) in [("hot", node.hot), ("mem", node.memory)] {
            if mask != 0 {
                let _ = write!(text, " {what} {mask:b}");
            }
        }
        for (r, dirty) in node.dirty.iter().enumerate().filter(|(_, d)| **d != 0) {
            let _ = write!(text, " dirty{} {dirty:b}", char::from(b'A' + small(r)));
        }
        if node.purpose != Purpose::None {
            let _ = write!(text, " asks {:?}", node.purpose);
        }
    }
    text
}

fn names(mask: u8) -> String {
    (0..NODES).filter(|&n| has(mask, n)).map(|n| char::from(b'A' + small(n))).collect()
}
