//! The end of a ring: nothing that the kernel may still write to is given up.

use std::io;
use std::mem::ManuallyDrop;
use std::time::Duration;

use io_uring::{EnterFlags, opcode, types};

use super::{CANCEL, Handle, Ring, Turn, WAKER};
use crate::ring::op::timespec;
use crate::ring::os;
use crate::units::Instant;

/// How long dropping a ring waits for operations that cannot be cancelled.
pub const DROP_PATIENCE: Duration = Duration::from_secs(30);

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        if !self.drain() {
            // The kernel may write to their memory at any time: it must never be used for anything else.
            tracing::error!(operations = self.in_flight(), "a device does not answer; the memory of its operations is lost");
            return;
        }
        while let Some(completion) = self.next() {
            drop(completion);
        }
        // SAFETY: dropped here and nowhere else, and not used afterwards. The kernel has completed every operation that it
        // was given, so that what is left was never submitted, and closing the ring forgets it.
        unsafe { ManuallyDrop::drop(&mut self.slots) };
    }
}

impl<T> Ring<T> {
    /// Cancels everything and waits until the kernel has let go of all memory; whether it has.
    fn drain(&mut self) -> bool {
        self.waiting.clear();
        let everything = types::CancelBuilder::any().all();
        let second = types::Timespec::new().sec(1);
        if let Err(error) = self.uring.submitter().register_sync_cancel(Some(second), everything)
            && error.raw_os_error() == Some(libc::EINVAL)
        {
            self.cancel_each();
        }
        let deadline = os::now().after(DROP_PATIENCE);
        let mut turn = Turn::default();
        self.reap(&mut turn);
        while self.outstanding() > 0 {
            if os::now() >= deadline || self.wait_only(deadline).is_err() {
                return false;
            }
            self.reap(&mut turn);
        }
        true
    }

    /// How many submissions the kernel has taken and not completed.
    fn outstanding(&mut self) -> usize {
        let pushed = self.slots.used() + self.cancelling + usize::from(self.listening);
        pushed - self.ready.len() - self.uring.submission().len()
    }

    /// For kernels before 6.0, which cannot cancel all at once.
    fn cancel_each(&mut self) {
        let handles: Vec<_> = self.slots.handles().map(Handle::user_data).chain(self.listening.then_some(WAKER)).collect();
        for user_data in handles {
            self.waiting.push_back((opcode::AsyncCancel::new(user_data).build().user_data(CANCEL), None));
        }
        while !self.waiting.is_empty() {
            self.push_cancellations();
            if self.enter(false, None).is_err() {
                return;
            }
            self.reap(&mut Turn::default());
        }
    }

    /// Waits for a completion. Unlike [`enter`](Self::enter) it submits nothing: what was not submitted must not happen now.
    fn wait_only(&self, deadline: Instant) -> io::Result<()> {
        let left = timespec(deadline.since(os::now()));
        let arguments = types::SubmitArgs::new().timespec(&left);
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: `arguments` is what EXT_ARG announces, and it and the time it points to outlive the call.
        let entered = unsafe { self.uring.submitter().enter(0, 1, flags.bits(), Some(&arguments)) };
        match entered {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => Err(error),
            _ => Ok(()),
        }
    }
}
