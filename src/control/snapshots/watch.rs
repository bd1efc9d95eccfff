//! How long a node's part of a snapshot is waited for, while writes wait for all of them.
//!
//! A copy may take long, and nobody can say how long. So what counts is whether it goes on: the node is asked again and again how often
//! anything of its part was done. Where nothing is copied there is little to be done, and so the same bound does for a snapshot that is made
//! at once.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::{ApiError, Code};

/// Ends when a part does not go on any more, with why. `look` asks its node how often anything of it was done.
pub(super) async fn standstill<L>(mut look: impl FnMut() -> L) -> ApiError
where
    L: Future<Output = Result<Option<u64>, ApiError>>,
{
    let mut watch = Watch::new(Instant::now());
    loop {
        sleep(LOOK).await;
        let told = look().await;
        if let Err(error) = watch.told(Instant::now(), told) {
            return error;
        }
    }
}

/// What is known of a part that is being taken.
struct Watch {
    moves: Option<u64>,
    /// When its node said something.
    heard: Instant,
    /// When that was something new.
    moved: Instant,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self { moves: None, heard: now, moved: now }
    }

    /// Notes what its node says, or why it says nothing. An error when it is not to be waited for any longer.
    fn told(&mut self, now: Instant, told: Result<Option<u64>, ApiError>) -> Result<(), ApiError> {
        match told {
            Ok(moves) => {
                self.heard = now;
                if moves != self.moves {
                    (self.moves, self.moved) = (moves, now);
                }
            }
            Err(error) if now - self.heard >= SILENCE => return Err(error),
            Err(_) => {}
        }
        if now - self.moved < STILL {
            return Ok(());
        }
        let message =
            format!("nothing of it was done for {} s, and writes waited for it: its pool does not answer", STILL.as_secs());
        Err(ApiError::new(Code::Storage, message).hint("look at the disk: `blkrep list-pools`, and that node's kernel log"))
    }
}

/// How often a node is asked.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How long it may answer nothing. One that is switched off never says that it is gone.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a part may stand still: long enough for LVM on a busy machine, and for a slow disk to write a lap of a copy; less than the half
/// minute after which many clients give I/O up.
const STILL: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many seconds a part is waited for whose node says this at each second, and what ends it; at most an hour.
    fn waited(mut says: impl FnMut(u64) -> Option<Option<u64>>) -> (u64, Option<Code>) {
        let begin = Instant::now();
        let mut watch = Watch::new(begin);
        for second in 1..3600 {
            let told = says(second).ok_or_else(|| ApiError::new(Code::Unreachable, "no answer"));
            if let Err(error) = watch.told(begin + Duration::from_secs(second), told) {
                return (second, Some(error.code));
            }
        }
        (3600, None)
    }

    #[test]
    fn a_copy_that_goes_on_may_take_long() {
        assert_eq!(waited(|second| Some(Some(second / 15))), (3600, None), "a piece every quarter of a minute");
        let answers = |second: u64| second.is_multiple_of(4).then_some(Some(second));
        assert_eq!(waited(answers), (3600, None), "on a node that is slow to answer");
    }

    #[test]
    fn what_stands_still_is_not_waited_for() {
        assert_eq!(waited(|_| Some(None)), (20, Some(Code::Storage)), "not even begun");
        assert_eq!(waited(|_| Some(Some(0))), (21, Some(Code::Storage)), "begun, and nothing done");
        assert_eq!(waited(|second| Some(Some(second.min(60)))), (80, Some(Code::Storage)), "after a minute of copying");
        let answers = |second: u64| second.is_multiple_of(4).then_some(Some(0));
        assert_eq!(waited(answers), (24, Some(Code::Storage)), "and hardly answers");
    }

    #[test]
    fn a_silent_node_is_not_waited_for() {
        assert_eq!(waited(|_| None), (5, Some(Code::Unreachable)));
        assert_eq!(waited(|second| (second < 60).then_some(Some(second))), (64, Some(Code::Unreachable)));
    }
}
