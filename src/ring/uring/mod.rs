//! The ring.

mod ending;

use std::collections::VecDeque;
use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};
use rustix::io::Errno;

use super::op::{Registered, timespec};
use super::setup::{self, Mode, RingError};
use super::slots::{Handle, Slots};
use super::wake::Waker;
use super::{Fd, Op, Pool, os};
use crate::units::Instant;
pub use ending::DROP_PATIENCE;

/// An io_uring instance that belongs to the thread that made it:
///
/// ```compile_fail
/// let ring = blkrep::ring::Ring::<u64>::new(Default::default()).unwrap();
/// std::thread::spawn(move || drop(ring)); // neither a ring nor a buffer can be sent to another thread
/// ```
///
/// How to drive it, turn by turn:
///
/// 1. [`push`](Self::push) operations. Nothing happens yet. When the ring is full, the operation comes back; keep it until
///    completions have been taken.
/// 2. [`turn`](Self::turn): one system call submits all of them and waits for a completion, a [`Waker`] or a deadline.
/// 3. If it says that it was woken, look into your queues.
/// 4. Take completions with [`next`](Self::next) until there are none, pushing what follows from each.
///
/// An operation owns its buffers from `push` to its completion, so that nobody can free or change memory that the kernel uses.
/// Operations complete in any order; two that must follow each other are pushed one after the other's completion. `T` is the
/// caller's token: it comes back with the completion.
///
/// ```
/// use blkrep::ring::{Fd, Op, Pool, Ring, RingOptions, Span};
///
/// let file = tempfile::tempfile()?;
/// let file = Fd::from(std::os::fd::OwnedFd::from(file));
/// let pool = Pool::new(1 << 20)?;
/// let mut ring = Ring::new(RingOptions::default()).expect("io_uring");
///
/// let mut buffer = pool.try_allocate(4096).expect("an empty pool");
/// buffer.fill(7);
/// let write = Op::Write { file, offset: 0, from: buffer.freeze(), span: Span::all(4096), durable: true };
/// ring.push(write, "my write").expect("an empty ring");
/// loop {
///     ring.turn(None)?;
///     if let Some(completion) = ring.next() {
///         assert_eq!((completion.token, completion.result), ("my write", Ok(4096)));
///         break;
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What was pushed is bounded by [`capacity`](Self::capacity), so that the completion queue cannot overflow.
///
/// Dropping a ring cancels what can be cancelled and waits for the rest, because the kernel may still write to its buffers.
/// What was pushed but not submitted is dropped unheard. Disk operations cannot be cancelled: a device that has not answered
/// after [`DROP_PATIENCE`] keeps its buffers for ever.
pub struct Ring<T> {
    uring: IoUring,
    /// Dropped only when the kernel has let go of everything.
    slots: ManuallyDrop<Slots<T>>,
    capacity: usize,
    /// Completions that were taken from the kernel and not yet by the caller.
    ready: VecDeque<Ready>,
    registered: Registered,
    waker: Waker,
    /// Whether the kernel watches the waker.
    listening: bool,
    /// Cancellations that were not pushed yet, and the descriptors that they name.
    waiting: VecDeque<(squeue::Entry, Option<Fd>)>,
    /// Descriptors of cancellations that were pushed and not submitted yet: their numbers must not come to mean other files.
    named: Vec<Fd>,
    /// Cancellations that were pushed and did not complete yet.
    cancelling: usize,
    /// Disk operations in flight.
    disk: usize,
}

/// How many operations a ring may have in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingOptions {
    /// The length of the submission queue: a power of two from 128 to 32768. A few are for the ring's own use.
    pub entries: u32,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { entries: 4096 }
    }
}

/// What a turn brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// How many completions can be taken.
    pub ready: usize,
    /// Whether a [`Waker`] was used since the last turn.
    pub woken: bool,
}

/// An operation that has come back.
#[derive(Debug)]
pub struct Completion<T> {
    /// What was pushed with it.
    pub token: T,
    /// The operation and all that it owned.
    pub op: Op,
    /// What the kernel said.
    pub result: Result<u32, Errno>,
    /// After a receive: there is more in the socket. If not, say `idle` in the next one.
    pub more: bool,
}

/// An operation that was not taken: the ring is full. Not an error but back-pressure: take completions, then push it again.
#[derive(Debug)]
pub struct Full<T> {
    /// The operation and all that it owns.
    pub op: Op,
    /// Its token.
    pub token: T,
}

#[derive(Clone, Copy, Debug)]
struct Ready {
    handle: Handle,
    result: i32,
    flags: u32,
}

/// Submissions kept back for the waker and for cancellations.
const RESERVED: u32 = 64;

/// The waker's mark. No handle is like it: an index of `u32::MAX` is beyond any capacity.
const WAKER: u64 = u64::MAX;

/// The mark of cancellations.
const CANCEL: u64 = u64::MAX - (1 << 32);

impl<T> Ring<T> {
    /// Makes a ring for this thread.
    ///
    /// # Errors
    ///
    /// What the kernel lacks or forbids, with the remedy.
    pub fn new(options: RingOptions) -> Result<Self, RingError> {
        Self::with_modes(options, &[Mode::Deferred, Mode::Cooperative, Mode::Plain])
    }

    pub(super) fn with_modes(options: RingOptions, modes: &[Mode]) -> Result<Self, RingError> {
        let entries = options.entries.clamp(2 * RESERVED, 32_768).next_power_of_two();
        let uring = setup::build(entries, modes)?;
        // The kernel may have given less than was asked for.
        let capacity = uring.params().sq_entries().saturating_sub(RESERVED);
        if capacity == 0 {
            return Err(RingError::Memory);
        }
        Ok(Self {
            slots: ManuallyDrop::new(Slots::new(capacity)),
            capacity: capacity as usize,
            ready: VecDeque::with_capacity(uring.params().cq_entries() as usize),
            uring,
            registered: Registered::default(),
            waker: Waker::new().map_err(RingError::system("make an event descriptor"))?,
            listening: false,
            waiting: VecDeque::new(),
            named: Vec::new(),
            cancelling: 0,
            disk: 0,
        })
    }

    /// Registers the first `bytes` of a pool, so that disk operations need not pin their pages each time. That memory becomes
    /// resident at once and stays so. Where RLIMIT_MEMLOCK does not allow it the pool works as before, and the answer is
    /// `false`. Once per ring.
    pub fn register(&mut self, pool: &Pool, bytes: usize) -> bool {
        let vectors: Vec<_> = pool
            .stretches(bytes, Registered::STRETCH)
            .into_iter()
            .map(|(at, len)| libc::iovec { iov_base: at.as_ptr().cast(), iov_len: len })
            .collect();
        // SAFETY: the vectors describe the pool's mapping, which stays mapped until the registration is gone: `registered`
        // keeps the pool as long as the ring, and its pages the kernel pins for itself.
        let result = unsafe { self.uring.submitter().register_buffers(&vectors) };
        match result {
            Ok(()) => {
                let bytes = bytes.min(pool.capacity());
                pool.pin(bytes);
                self.registered = Registered::new(pool.clone(), bytes);
                true
            }
            Err(error) => {
                super::note_unregistered(&error);
                false
            }
        }
    }

    /// How many operations can be in flight.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many operations were pushed and not yet taken back as completions.
    pub fn in_flight(&self) -> usize {
        self.slots.used()
    }

    /// A handle for other threads to end this ring's wait.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Lends an operation to the kernel at the next [`turn`](Self::turn). The handle can cancel it.
    ///
    /// # Errors
    ///
    /// The operation and the token, when the ring is full.
    ///
    /// # Panics
    ///
    /// If a span is not inside of its buffer.
    pub fn push(&mut self, op: Op, token: T) -> Result<Handle, Full<T>> {
        op.check();
        if self.slots.is_full() {
            return Err(Full { op, token });
        }
        let disk = op.is_disk();
        let (handle, op, timespec) = self.slots.insert(op, token);
        let entry = op.entry(timespec, &self.registered).user_data(handle.user_data());
        // SAFETY: everything that the entry points to is owned by the operation or its slot. Both stay where they are, and
        // unchanged, until the kernel has said that the operation is complete (`next`, or the end of `drop`).
        let pushed = unsafe { self.uring.submission().push(&entry) };
        pushed.expect("the submission queue holds all that the slots hold, and the reserve");
        self.disk += usize::from(disk);
        Ok(handle)
    }

    /// Asks the kernel to cancel one operation. It completes all the same: with ECANCELED, or with its result when it was
    /// faster. A disk operation that was started cannot be cancelled.
    pub fn cancel(&mut self, handle: Handle) {
        let entry = opcode::AsyncCancel::new(handle.user_data()).build();
        self.waiting.push_back((entry.user_data(CANCEL), None));
    }

    /// Asks the kernel to cancel all operations on a descriptor; see [`cancel`](Self::cancel).
    pub fn cancel_all(&mut self, fd: &Fd) {
        let all = types::CancelBuilder::fd(fd.raw()).all();
        self.waiting.push_back((opcode::AsyncCancel2::new(all).build().user_data(CANCEL), Some(fd.clone())));
    }

    /// Submits all that was pushed. If nothing is ready, waits for a completion, a [`Waker`] or the `deadline`; a deadline in
    /// the past does not wait. A signal ends the wait, too.
    ///
    /// # Errors
    ///
    /// When the ring is broken. There is nothing to do then but drop it.
    pub fn turn(&mut self, deadline: Option<Instant>) -> Result<Turn, RingError> {
        self.listen();
        self.push_cancellations();
        let mut turn = Turn::default();
        self.reap(&mut turn);
        let left = deadline.map(|deadline| deadline.since(os::now()));
        let wait = self.ready.is_empty() && !turn.woken && left != Some(Duration::ZERO);
        self.enter(wait, left)?;
        self.reap(&mut turn);
        turn.ready = self.ready.len();
        Ok(turn)
    }

    /// Takes a completion, if one is ready. It does not ask the kernel: see [`turn`](Self::turn).
    #[expect(clippy::should_implement_trait, reason = "an iterator would borrow the ring, and each completion leads to pushes")]
    pub fn next(&mut self) -> Option<Completion<T>> {
        let Ready { handle, result, flags } = self.ready.pop_front()?;
        let (token, mut op) = self.slots.remove(handle).expect("the kernel completes each operation once");
        self.disk -= usize::from(op.is_disk());
        let result = u32::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
        op.settle(result);
        Some(Completion { token, op, result, more: cqueue::sock_nonempty(flags) })
    }

    /// Has the kernel watch the waker.
    fn listen(&mut self) {
        if !self.listening {
            let event = types::Fd(self.waker.event().as_raw_fd());
            let entry = opcode::PollAdd::new(event, u32::from(libc::POLLIN.cast_unsigned())).multi(true).build();
            // SAFETY: a poll points to no memory, and the descriptor lives as long as the ring.
            let pushed = unsafe { self.uring.submission().push(&entry.user_data(WAKER)) };
            pushed.expect("the reserve has room for the waker");
            self.listening = true;
        }
    }

    fn push_cancellations(&mut self) {
        while self.cancelling < RESERVED as usize / 2
            && let Some((entry, fd)) = self.waiting.pop_front()
        {
            // SAFETY: a cancellation points to no memory.
            let pushed = unsafe { self.uring.submission().push(&entry) };
            pushed.expect("the reserve has room for cancellations");
            self.cancelling += 1;
            self.named.extend(fd);
        }
    }

    /// The one system call of a turn.
    fn enter(&mut self, wait: bool, left: Option<Duration>) -> Result<(), RingError> {
        let submit = self.uring.submission().len();
        let submit = u32::try_from(submit).expect("at most the length of the queue, a u32");
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if self.disk == 0 && self.uring.params().is_feature_no_iowait() {
            // A thread that waits for clients is idle; only one that waits for a disk is waiting for I/O.
            flags |= EnterFlags::NO_IOWAIT;
        }
        let left = left.map(timespec);
        let arguments = match &left {
            Some(left) if wait => types::SubmitArgs::new().timespec(left),
            _ => types::SubmitArgs::new(),
        };
        // SAFETY: `arguments` is what EXT_ARG announces, and it and the time it points to outlive the call. Every submission
        // in the queue was pushed under the promise that its memory stays until it completes.
        let entered = unsafe { self.uring.submitter().enter(submit, u32::from(wait), flags.bits(), Some(&arguments)) };
        if !self.named.is_empty() && self.uring.submission().is_empty() {
            self.named.clear();
        }
        match entered {
            Ok(_) => Ok(()),
            // The time is over; a signal came; the kernel wants its completions taken or some memory freed first. What was
            // not submitted is still queued.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(error) => Err(RingError::System { action: "enter", source: error }),
        }
    }

    /// Takes all completions from the kernel.
    fn reap(&mut self, turn: &mut Turn) {
        for entry in self.uring.completion() {
            match entry.user_data() {
                WAKER => {
                    self.listening = cqueue::more(entry.flags());
                    self.waker.heard();
                    turn.woken = true;
                }
                CANCEL => self.cancelling -= 1,
                user_data => {
                    let handle = Handle::from_user_data(user_data);
                    self.ready.push_back(Ready { handle, result: entry.result(), flags: entry.flags() });
                }
            }
        }
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight()).field("capacity", &self.capacity).finish_non_exhaustive()
    }
}
