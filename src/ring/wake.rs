//! Waking a ring from another thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Ends a ring's wait from any thread. Put what the ring's thread shall do into a queue first, then wake it.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Bell>);

#[derive(Debug)]
pub(super) struct Bell {
    event: OwnedFd,
    /// Whether the event was rung and not yet heard; then it need not be rung again.
    rung: AtomicBool,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Bell { event, rung: AtomicBool::new(false) })))
    }

    /// Makes the ring's present or next [`turn`](super::Ring::turn) return, with
    /// [`Turn::woken`](super::Turn::woken) set. Cheap when it was woken before and has not noticed yet.
    pub fn wake(&self) {
        // The swap orders what was queued before it against the ring's own swap in `heard`: either this thread sees the flag
        // cleared and rings, or the ring, which clears it before it looks into the queue, sees what was queued.
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // Fails only when the counter is at its end after 2^64 wakes; then the ring is awake.
            #[expect(clippy::host_endian_bytes, reason = "an event descriptor counts in the host's order")]
            let one = 1_u64.to_ne_bytes();
            let _full = rustix::io::write(&self.0.event, &one);
        }
    }

    pub(super) fn event(&self) -> &OwnedFd {
        &self.0.event
    }

    /// Called by the ring before it says that it was woken.
    pub(super) fn heard(&self) {
        self.0.rung.swap(false, Ordering::AcqRel);
    }
}
