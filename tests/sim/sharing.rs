//! Clients that are to be alone, or that only read (rule W8). On a node one waits beside another that wants something else, and either may give
//! up while the answer is on its way.
//!
//! Only in seeds of [rows](super::row) that say so.

use blkrep::engine::{ClientId, Event};
use blkrep::units::Sharing;

use super::world::{World, client_id};

/// Who is on a node beside its client.
#[derive(Debug, Default)]
pub struct Beside {
    /// It waits to be let in: since when, and how it shares.
    waiting: Option<(ClientId, u64, Sharing)>,
    /// They were let in beside the client, and go at its next step.
    leaving: Vec<ClientId>,
}

/// How the next client shares.
pub fn draw(world: &mut World) -> Sharing {
    if !world.manners.shares || world.quiet {
        return Sharing::Shared;
    }
    [Sharing::Shared, Sharing::Shared, Sharing::Readers, Sharing::Alone][usize::try_from(world.rng.below(4)).expect("four")]
}

/// Another one comes, and who waits gives up.
pub fn step(world: &mut World, at: usize) -> Result<(), String> {
    for gone in std::mem::take(&mut world.clients[at].beside.leaving) {
        world.hand(at, Event::Detach(gone))?;
    }
    if let (Some(id), false) = (world.clients[at].id, world.clients[at].attached)
        && world.rng.chance(5)
    {
        world.clients[at].id = None;
        world.hand(at, Event::Detach(id))?;
    }
    match world.clients[at].beside.waiting {
        Some((id, ..)) if world.quiet || world.rng.chance(5) => {
            world.clients[at].beside.waiting = None;
            world.hand(at, Event::Detach(id))
        }
        None if !world.quiet && world.rng.chance(10) => {
            world.clients[at].count += 1;
            let id = client_id(at, world.clients[at].count);
            let sharing = draw(world);
            world.clients[at].beside.waiting = Some((id, world.now, sharing));
            world.hand(at, Event::AttachAs(id, sharing))
        }
        _ => Ok(()),
    }
}

/// The one that waited is let in or not. It takes the place of a client that waits still; that one waits beside it then.
pub fn attached(world: &mut World, at: usize, id: ClientId, ok: bool) {
    let client = &mut world.clients[at];
    let Some((_, asked, sharing)) = client.beside.waiting.take_if(|(waiting, ..)| *waiting == id) else { return };
    match (ok, client.attached) {
        (false, _) => {}
        (true, true) => client.beside.leaving.push(id),
        (true, false) => {
            client.beside.waiting = client.id.map(|waits| (waits, client.asked, client.sharing));
            (client.id, client.asked, client.sharing) = (Some(id), asked, sharing);
        }
    }
}
