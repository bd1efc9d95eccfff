//! An engine that has handled an event has done all that is due: looking again at the same moment brings nothing new.
//!
//! What is left undone is done after the next event, and on an idle resource there need not be one: a resync that was due then never
//! begins. Asking for a lease is no step: it is asked for as long as there is none.

use blkrep::engine::{Command, Event};

use crate::world::World;

/// How often is looked again: a step may need another that is not seen.
const AGAIN: usize = 3;

/// Looks at a node's engine again, whose commands were just taken.
pub fn check(world: &mut World, at: usize) -> Result<(), String> {
    let node = &mut world.nodes[at];
    let now = node.clock.at(world.now);
    let Some(engine) = &mut node.engine else { return Ok(()) };
    let due = engine.timeout();
    let mut left = Vec::new();
    for _ in 0..AGAIN {
        engine.handle(now, &node.links, Event::Timeout);
        engine.take_commands(&mut left);
    }
    match left.iter().find(|command| !matches!(command, Command::AskLease(_))) {
        Some(late) => Err(format!("n{at} sleeps over what is due: {late:?}")),
        None if engine.timeout() != due => {
            Err(format!("n{at} wants to be woken at {:?}, and did not see that: {due:?}", engine.timeout()))
        }
        None => Ok(()),
    }
}
