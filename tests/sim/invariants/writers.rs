//! One writer a reign: no two records of one reign name different primaries, and a reign that is over does not come back.

use blkrep::units::Record;

pub fn check(history: &[Record]) -> Result<(), String> {
    let [.., before, now] = history else { return Ok(()) };
    if now.reign < before.reign {
        return Err(format!("reign {} follows {}", now.reign, before.reign));
    }
    let other = history.iter().rev().take_while(|r| r.reign == now.reign).find(|r| {
        let both = r.primary.is_some() && now.primary.is_some();
        both && r.primary != now.primary
    });
    match other {
        Some(other) => Err(format!("two primaries in one reign: {other:?} and {now:?}")),
        // A reign ends for good: whoever is primary after a time without one has begun a new one.
        None if before.primary.is_none() && now.primary.is_some() && now.reign == before.reign => {
            Err(format!("a reign that had ended goes on: {now:?}"))
        }
        None => Ok(()),
    }
}
