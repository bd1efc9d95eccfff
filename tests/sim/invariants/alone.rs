//! Alone means alone: of two clients on different nodes that do not share, none is answered what it asked for while the other one was
//! there and was answered. One may be there and not know yet that it was cut off: it gets no answer to what it asks for then, even when
//! the other one has gone. What it takes for true may not be so, and only its owner can see to that, when it comes anew.

use blkrep::units::Sharing;

use super::super::world::World;

/// A client was answered: those elsewhere that do not suffer it are cut off, but for those that share with anybody. That it was let in
/// is not enough: a primary may do so that does not know yet that it was deposed, and is not able to answer it.
fn cut_others(world: &mut World, at: usize) {
    let sharing = world.clients[at].sharing;
    for (other, theirs) in world.clients.iter_mut().enumerate() {
        if other != at && theirs.attached && theirs.sharing != Sharing::Shared && !theirs.sharing.suits(sharing) {
            theirs.cut.get_or_insert(world.now);
        }
    }
}

pub fn answered(world: &mut World, at: usize, began: u64) -> Result<(), String> {
    if !world.manners.shares || !world.clients[at].attached {
        return Ok(());
    }
    let mine = &world.clients[at];
    // What it had asked for before may have been done before.
    if mine.cut.is_some_and(|since| since < began) {
        return Err(format!("a client of n{at} ({:?}) goes on after somebody else has come and gone", mine.sharing));
    }
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
    cut_others(world, at);
    Ok(())
}
