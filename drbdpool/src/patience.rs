//! Waiting for a lock that is about to be free.

use std::thread;
use std::time::{Duration, Instant};

/// Tries again for a second while `busy` says that somebody else has what is wanted.
///
/// A lock outlives the one who closed it while any process of his is just being started: until it runs its own program, a new
/// process has copies of all descriptors. That is over in a moment, and must not be mistaken for a user.
pub(crate) fn patiently<T, E>(busy: impl Fn(&E) -> bool, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error) if busy(&error) && start.elapsed() < Duration::from_secs(1) => thread::sleep(Duration::from_millis(10)),
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_busy_is_tried_again() {
        let mut attempts = 0;
        let answer = patiently(
            |&busy| busy,
            || {
                attempts += 1;
                if attempts < 3 { Err(true) } else { Ok(attempts) }
            },
        );
        assert_eq!(answer, Ok(3));
        let start = Instant::now();
        assert_eq!(patiently(|&busy| busy, || Err::<(), _>(false)), Err(false));
        assert!(start.elapsed() < Duration::from_secs(1));
        assert_eq!(patiently(|&busy| busy, || Err::<(), _>(true)), Err(true));
        assert!(start.elapsed() >= Duration::from_secs(1));
    }
}
