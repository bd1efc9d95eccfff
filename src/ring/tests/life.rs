//! Waiting, waking, being full, and ending.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::setup::Mode;
use super::*;

#[test]
fn a_time_out_ends_at_its_moment() {
    let mut bench = Bench::new();
    let at = os::now().after(Duration::from_millis(30));
    let done = bench.run(Op::Timeout { at });
    assert_eq!(done.result, Err(Errno::TIME));
    assert!(os::now() >= at);
}

#[test]
fn a_turn_ends_at_its_deadline() {
    let mut bench = Bench::new();
    let deadline = os::now().after(Duration::from_millis(30));
    let mut turns = 0;
    while os::now() < deadline {
        assert_eq!(bench.ring.turn(Some(deadline)).unwrap(), Turn::default());
        turns += 1;
    }
    assert!(turns < 10, "{turns} turns in one wait: it does not sleep");
}

/// Every message that is sent before a wake is seen after one, whatever the interleaving.
#[test]
fn other_threads_wake_it() {
    const SENDERS: u32 = 3;
    const EACH: u32 = 20_000;
    let mut bench = Bench::new();
    let (sender, receiver) = mpsc::channel();
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (sender, waker) = (sender.clone(), bench.ring.waker());
            thread::spawn(move || {
                for n in 0..EACH {
                    sender.send(n).unwrap();
                    waker.wake();
                }
            })
        })
        .collect();
    let (mut seen, deadline) = (0, os::now().after(Duration::from_secs(60)));
    while seen < SENDERS * EACH {
        assert!(os::now() < deadline, "a wake was lost after {seen} messages");
        if bench.ring.turn(Some(deadline)).unwrap().woken {
            seen += u32::try_from(receiver.try_iter().count()).unwrap();
        }
    }
    for sender in senders {
        sender.join().unwrap();
    }
}

#[test]
fn a_full_ring_gives_the_operation_back() {
    let mut bench = Bench::new();
    let (socket, _other) = UnixStream::pair().unwrap();
    let socket = Fd::socket(OwnedFd::from(socket)).unwrap();
    let poll = |token| (Op::Poll { fd: socket.clone(), until: PollFor::Readable }, token);
    for (op, token) in (0..bench.ring.capacity() as u64).map(poll) {
        bench.push(op, token);
    }
    let (op, token) = poll(7777);
    let Err(Full { op, token }) = bench.ring.push(op, token) else { panic!("there was no room") };
    assert!(matches!(op, Op::Poll { .. }) && token == 7777);
    // Cancelling needs room, too, and has it.
    bench.ring.cancel_all(&socket);
    bench.submit();
    for _ in 0..bench.ring.capacity() {
        assert_eq!(bench.complete().result, Err(Errno::CANCELED));
    }
    bench.push(op, token);
}

#[test]
fn more_cancellations_than_the_reserve_all_happen() {
    let mut bench = Bench::new();
    let (socket, _other) = UnixStream::pair().unwrap();
    let socket = Fd::socket(OwnedFd::from(socket)).unwrap();
    let handles: Vec<_> = (0..bench.ring.capacity() as u64)
        .map(|token| bench.push(Op::Poll { fd: socket.clone(), until: PollFor::Readable }, token))
        .collect();
    bench.submit();
    handles.into_iter().for_each(|handle| bench.ring.cancel(handle));
    for _ in 0..bench.ring.capacity() {
        assert_eq!(bench.complete().result, Err(Errno::CANCELED));
    }
}

#[test]
fn dropping_a_ring_gives_everything_back() {
    let mut bench = Bench::new();
    let pool = bench.pool.clone();
    let (socket, _other) = UnixStream::pair().unwrap();
    let socket = Fd::socket(OwnedFd::from(socket)).unwrap();
    let file = Fd::from(OwnedFd::from(tempfile::tempfile().unwrap()));
    let receive = |bench: &Bench, exact| {
        let into = bench.pool.try_allocate(65_536).unwrap();
        Op::Receive { socket: socket.clone(), into, span: Span::all(65_536), exact, idle: exact }
    };
    for n in 0..20 {
        let op = receive(&bench, n % 2 == 0);
        bench.push(op, n);
        let from = bench.buffer(&pattern(n, 65_536)).freeze();
        let op = Op::Write { file: file.clone(), offset: n * 65_536, from, span: Span::all(65_536), durable: true };
        bench.push(op, n);
    }
    bench.submit();
    // One that is in the queue only.
    let op = receive(&bench, false);
    bench.push(op, 99);
    assert!(pool.in_use() > 0);
    drop(bench);
    assert_eq!(pool.in_use(), 0);
    assert!(socket.try_into_owned().is_ok(), "no operation holds the socket");
    assert!(file.try_into_owned().is_ok(), "no operation holds the file");
}

/// Kernels before 6.1 have neither deferred completions nor, before 5.19, cooperative ones.
#[test]
fn older_kinds_of_rings_do_the_same() {
    for mode in [Mode::Deferred, Mode::Cooperative, Mode::Plain] {
        let ring = Ring::with_modes(RingOptions { entries: 128 }, &[mode]).unwrap();
        let mut bench = Bench { ring, pool: Pool::new(16 << 20).unwrap() };
        let file = Fd::from(OwnedFd::from(tempfile::tempfile().unwrap()));
        let from = bench.buffer(&pattern(1, 8192)).freeze();
        let write = Op::Write { file: file.clone(), offset: 0, from, span: Span::all(8192), durable: false };
        assert_eq!(bench.run(write).result, Ok(8192));
        assert_eq!(bench.run(Op::Sync { file: file.clone() }).result, Ok(0));
        let into = bench.pool.try_allocate(8192).unwrap();
        let read = bench.run(Op::Read { file, offset: 0, into, span: Span::all(8192) });
        assert!(received(read) == pattern(1, 8192));
        let (socket, _other) = UnixStream::pair().unwrap();
        let socket = Fd::socket(OwnedFd::from(socket)).unwrap();
        let poll = |bench: &mut Bench, token| bench.push(Op::Poll { fd: socket.clone(), until: PollFor::Readable }, token);
        let first = poll(&mut bench, 1);
        poll(&mut bench, 2);
        bench.submit();
        bench.ring.cancel(first);
        let cancelled = bench.complete();
        assert_eq!((cancelled.token, cancelled.result), (1, Err(Errno::CANCELED)));
        let waker = bench.ring.waker();
        let other = thread::spawn(move || waker.wake());
        let deadline = os::now().after(Duration::from_secs(10));
        while !bench.ring.turn(Some(deadline)).unwrap().woken {
            assert!(os::now() < deadline, "{mode:?}: not woken");
        }
        other.join().unwrap();
        drop((bench, cancelled));
        assert!(socket.try_into_owned().is_ok(), "{mode:?}: the poll still holds the socket");
    }
}

/// Registration is pinned memory, which an unprivileged user has little of: with it or without it, I/O is the same.
#[test]
fn what_cannot_be_registered_is_used_as_it_is() {
    let mut bench = Bench::new();
    let registered = bench.ring.register(&bench.pool, usize::MAX);
    assert!(!bench.ring.register(&bench.pool, usize::MAX) || !registered, "a ring registers once");
    let file = Fd::from(OwnedFd::from(tempfile::tempfile().unwrap()));
    let elsewhere = Pool::new(1).unwrap();
    for pool in [bench.pool.clone(), elsewhere] {
        let mut buffer = pool.try_allocate(65_536).unwrap();
        buffer.copy_from_slice(&pattern(5, 65_536));
        let write = Op::Write { file: file.clone(), offset: 0, from: buffer.freeze(), span: Span::all(65_536), durable: true };
        assert_eq!(bench.run(write).result, Ok(65_536));
    }
    // Freed memory that the ring has pinned is not given back behind its back.
    bench.pool.release_unused();
    let into = bench.pool.try_allocate(65_536).unwrap();
    let read = bench.run(Op::Read { file, offset: 0, into, span: Span::all(65_536) });
    assert!(received(read) == pattern(5, 65_536));
}

#[test]
#[should_panic(expected = "of a buffer of 10 bytes")]
fn a_span_outside_of_its_buffer_is_a_bug() {
    let mut bench = Bench::new();
    let (socket, _other) = UnixStream::pair().unwrap();
    let socket = Fd::socket(OwnedFd::from(socket)).unwrap();
    let into = bench.buffer(&[0; 10]);
    bench.push(Op::Receive { socket, into, span: Span::new(5, 11), exact: false, idle: false }, 0);
}

#[test]
fn idle_rings_of_many_threads_do_not_meet() {
    let threads: Vec<_> = (0..4)
        .map(|n| {
            thread::spawn(move || {
                let mut bench = Bench::new();
                for _ in 0..100 {
                    assert_eq!(bench.run(Op::Nop).result, Ok(0));
                }
                n
            })
        })
        .collect();
    assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i32>(), 6);
}
