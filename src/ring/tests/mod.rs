//! Stories of the whole room: operations against real files, sockets and devices.

mod disks;
mod files;
mod life;
mod sockets;

use std::time::Duration;

use super::*;

/// A ring, its pool and a deadline: a test never waits for ever.
struct Bench {
    ring: Ring<u64>,
    pool: Pool,
}

impl Bench {
    fn new() -> Self {
        Self { ring: Ring::new(RingOptions { entries: 256 }).unwrap(), pool: Pool::new(16 << 20).unwrap() }
    }

    fn push(&mut self, op: Op, token: u64) -> Handle {
        self.ring.push(op, token).expect("room in the ring")
    }

    /// The next completion, whichever it is.
    fn complete(&mut self) -> Completion<u64> {
        let deadline = os::now().after(Duration::from_secs(10));
        loop {
            if let Some(completion) = self.ring.next() {
                return completion;
            }
            assert!(os::now() < deadline, "nothing completed in ten seconds; {:?}", self.ring);
            self.ring.turn(Some(deadline)).unwrap();
        }
    }

    /// Pushes an operation and waits for it; nothing else may be in flight.
    fn run(&mut self, op: Op) -> Completion<u64> {
        self.push(op, u64::MAX);
        let completion = self.complete();
        assert_eq!(completion.token, u64::MAX, "another operation completed");
        completion
    }

    fn buffer(&self, contents: &[u8]) -> Buffer {
        let mut buffer = self.pool.try_allocate(contents.len()).expect("room in the pool");
        buffer.copy_from_slice(contents);
        buffer
    }

    /// Submits what was pushed without waiting.
    fn submit(&mut self) -> Turn {
        self.ring.turn(Some(os::now())).unwrap()
    }
}

/// What a completed read or receive has filled.
fn received(completion: Completion<u64>) -> Vec<u8> {
    let count = completion.result.unwrap() as usize;
    match completion.op {
        Op::Read { into, span, .. } | Op::Receive { into, span, .. } => {
            let start = span.start as usize;
            into[start..start + count].to_vec()
        }
        other => panic!("{other:?} fills nothing"),
    }
}

/// Bytes that differ from place to place and from seed to seed.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| byte()).collect()
}
