//! Alone means alone: of two clients on different nodes that do not share, none is answered what it asked for while the other one was there and
//! was answered. One may be there and not know yet that it was cut off: it is not answered any more.

use super::super::world::World;

pub fn answered(world: &mut World, at: usize, began: u64) -> Result<(), String> {
    if !world.manners.shares || !world.clients[at].attached {
        return Ok(());
    }
    let mine = &world.clients[at];
    let in_the_way = world.clients.iter().enumerate().find(|(other, theirs)| {
        let both = theirs.attached && theirs.entered < began && theirs.answered > mine.entered;
        *other != at && both && !theirs.sharing.suits(mine.sharing)
    });
    if let Some((other, theirs)) = in_the_way {
        return Err(format!(
            "a client of n{at} ({:?}) and one of n{other} ({:?}) are answered side by side",
            mine.sharing, theirs.sharing
        ));
    }
    let mine = &mut world.clients[at];
    mine.answered = mine.answered.max(began);
    Ok(())
}
