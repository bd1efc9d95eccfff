//! Waiting for something to become true, with a deadline and without hurry.

use std::time::{Duration, Instant};

/// How soon the first look is repeated; each further one waits twice as long, up to [`SLOWEST`].
const FIRST: Duration = Duration::from_millis(20);

/// How long the pauses between two looks get.
const SLOWEST: Duration = Duration::from_millis(500);

/// Looks again and again until there is something to see, or `patience` is at its end. Looks at least once.
pub(super) async fn until<T>(patience: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    let mut pause = FIRST;
    loop {
        if let Some(seen) = look().await {
            return Some(seen);
        }
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(SLOWEST);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn it_looks_until_there_is_something() {
        let looks = Cell::new(0);
        let look = async || {
            looks.set(looks.get() + 1);
            (looks.get() == 3).then_some("there")
        };
        assert_eq!(until(Duration::from_secs(10), look).await, Some("there"));
        assert_eq!(looks.get(), 3);
    }

    #[tokio::test]
    async fn it_looks_once_even_without_patience() {
        assert_eq!(until(Duration::ZERO, async || Some(1)).await, Some(1));
        assert_eq!(until(Duration::ZERO, async || None::<()>).await, None);
    }
}
