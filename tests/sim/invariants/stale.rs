//! An older reign is refused in everything (rule F1): a message of a primary whose reign is over for the receiver starts no operation on
//! its disks and is not answered by anything but a refusal.

use blkrep::engine::{BufferId, Command, Event};
use blkrep::units::NodeId;
use blkrep::wire::Message;

use super::super::world::World;

/// Whether the receiver goes by a newer reign than the one that this was sent in.
pub fn is_stale(world: &World, to: usize, reign: u64, message: &Message) -> bool {
    let obeyed = matches!(
        message,
        Message::Write(_)
            | Message::Zero(_)
            | Message::Flush { .. }
            | Message::Settled { .. }
            | Message::Read { .. }
            | Message::SyncBegin
            | Message::Cool { .. }
            | Message::AdmitPart { .. }
            | Message::Admit { .. }
    );
    obeyed && reign < world.nodes[to].reign
}

/// Hands it in, alone, and looks at what it does.
pub fn check(
    world: &mut World,
    to: usize,
    from: NodeId,
    reign: u64,
    message: Message,
    payload: Option<BufferId>,
) -> Result<(), String> {
    // What is due anyway is done first, so that all that follows is because of the message.
    world.look(to)?;
    let node = &mut world.nodes[to];
    let now = node.clock.at(world.now);
    let Some(engine) = &mut node.engine else { return Ok(()) };
    let text = format!("{message:?}");
    engine.handle(now, &node.links, Event::Message { from, reign, message, payload });
    let mut caused = Vec::new();
    engine.take_commands(&mut caused);
    let harmful = caused.iter().find(|c| match c {
        Command::Disk { .. } | Command::Meta { .. } => true,
        Command::Send { to, message, .. } => *to == from && !matches!(message, Message::Fenced { .. } | Message::Standing(_)),
        _ => false,
    });
    if let Some(harmful) = harmful {
        return Err(format!("n{to} obeys n{from} of the older reign {reign}: {harmful:?} for {text}"));
    }
    world.do_all(to, caused)?;
    world.carry_out(to)
}
