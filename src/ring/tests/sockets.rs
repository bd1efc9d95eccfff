//! Sending and receiving on streams.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::io::Errno;

use super::*;

fn pair() -> (Fd, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    // As tokio would hand it over.
    ours.set_nonblocking(true).unwrap();
    (Fd::socket(OwnedFd::from(ours)).unwrap(), theirs)
}

fn tcp_pair() -> (Fd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    (Fd::socket(OwnedFd::from(ours)).unwrap(), theirs)
}

fn receive(bench: &Bench, socket: &Fd, len: usize, exact: bool) -> Op {
    let into = bench.pool.try_allocate(len).unwrap();
    Op::Receive { socket: socket.clone(), into, span: Span::all(len), exact, idle: false }
}

#[test]
fn a_receive_takes_what_is_there() {
    let mut bench = Bench::new();
    let (socket, mut theirs) = pair();
    bench.push(receive(&bench, &socket, 100, false), 1);
    bench.submit();
    theirs.write_all(b"abc").unwrap();
    assert_eq!(received(bench.complete()), b"abc");
}

#[test]
fn an_exact_receive_waits_for_all_of_it() {
    let mut bench = Bench::new();
    let (socket, mut theirs) = pair();
    bench.push(receive(&bench, &socket, 6, true), 1);
    theirs.write_all(b"abc").unwrap();
    assert_eq!(bench.submit().ready, 0, "half of it is not enough");
    theirs.write_all(b"defgh").unwrap();
    assert_eq!(received(bench.complete()), b"abcdef");
    assert_eq!(received(bench.run(receive(&bench, &socket, 100, false))), b"gh");
}

#[test]
fn an_exact_receive_is_short_at_the_end_of_the_stream() {
    let mut bench = Bench::new();
    let (socket, mut theirs) = pair();
    bench.push(receive(&bench, &socket, 6, true), 1);
    bench.submit();
    theirs.write_all(b"abc").unwrap();
    drop(theirs);
    assert_eq!(received(bench.complete()), b"abc");
    assert_eq!(bench.run(receive(&bench, &socket, 6, true)).result, Ok(0));
}

#[test]
fn a_receive_fills_only_its_span() {
    let mut bench = Bench::new();
    let (socket, mut theirs) = pair();
    theirs.write_all(b"abcdef").unwrap();
    let into = bench.buffer(b"----------");
    let done = bench.run(Op::Receive { socket, into, span: Span::new(2, 5), exact: false, idle: true });
    assert_eq!(done.result, Ok(3));
    assert!(matches!(done.op, Op::Receive { into, .. } if *into == *b"--abc-----"));
}

#[test]
fn a_receive_is_scattered_over_buffers() {
    let mut bench = Bench::new();
    let (socket, mut theirs) = pair();
    let mut scatter = Scatter::new();
    for (text, idle) in [("payload, then he", false), ("paylo", true)] {
        scatter.push(bench.buffer(b"--------"), Span::new(1, 8));
        scatter.push(bench.buffer(b"................"), Span::new(0, 16));
        assert_eq!(scatter.room(), 23);
        theirs.write_all(text.as_bytes()).unwrap();
        let done = bench.run(Op::ReceiveScattered { socket: socket.clone(), into: scatter, idle });
        let count = done.result.unwrap() as usize;
        assert_eq!(count, text.len());
        let Op::ReceiveScattered { into, .. } = done.op else { panic!("another operation") };
        scatter = into;
        let parts: Vec<_> = scatter.drain(count).map(|(buffer, span)| (buffer[..].to_vec(), span)).collect();
        let (first, rest) = text.split_at(7.min(count));
        assert_eq!(parts[0].0, [b"-", first.as_bytes(), &b"--------"[8 - (7 - first.len())..]].concat());
        assert_eq!((parts[0].1, parts[1].1), (Span::new(1, 1 + first.len()), Span::all(rest.len())));
        assert_eq!(&parts[1].0[..rest.len()], rest.as_bytes());
    }
    assert_eq!(bench.pool.in_use(), 0);
}

#[test]
fn a_receive_says_whether_tcp_has_more() {
    let mut bench = Bench::new();
    let (socket, mut theirs) = tcp_pair();
    theirs.write_all(b"abcdef").unwrap();
    bench.run(Op::Poll { fd: socket.clone(), until: PollFor::Readable });
    let first = bench.run(receive(&bench, &socket, 4, false));
    assert!(first.more);
    assert_eq!(received(first), b"abcd");
    let second = bench.run(receive(&bench, &socket, 4, false));
    assert!(!second.more);
    assert_eq!(received(second), b"ef");
}

/// Much more than socket buffers hold, in more pieces than one system call takes, to a reader that is slow to begin: every byte
/// arrives in order, and the payloads come back.
#[test]
fn a_large_gather_arrives_whole_and_in_order() {
    for (socket, theirs) in [pair().map_stream(), tcp_pair().map_stream()] {
        let mut bench = Bench::new();
        let (mut gather, mut expected) = (Gather::new(), Vec::new());
        for n in 0..1500 {
            let header = pattern(n, 28);
            let payload = pattern(n + 5000, if n % 3 == 0 { 16_384 } else { 100 });
            gather.bytes(&header);
            if n % 2 == 0 {
                let sliced = bench.pool.try_allocate(payload.len() + 10).map(|mut buffer| {
                    buffer[5..payload.len() + 5].copy_from_slice(&payload);
                    buffer.freeze().slice(5..payload.len() + 5)
                });
                gather.payload(sliced.expect("room in the pool"));
            } else {
                gather.bytes(&payload);
            }
            expected.extend([header, payload].concat());
        }
        assert_eq!(gather.len(), expected.len());
        let reader = thread::spawn(move || {
            let (mut theirs, mut got) = (theirs, Vec::new());
            theirs.read_to_end(&mut got).unwrap();
            got
        });
        let mut sends = 0;
        while !gather.is_empty() {
            let done = bench.run(Op::Send { socket: socket.clone(), gather });
            let Op::Send { gather: back, .. } = done.op else { panic!("a send was pushed") };
            gather = back;
            gather.advance(done.result.unwrap() as usize);
            sends += 1;
        }
        assert!((2..10).contains(&sends), "{sends} sends: one for each 1024 pieces, as long as nothing fails");
        assert_eq!(bench.pool.in_use(), 0, "what was sent is given back");
        bench.run(Op::Shutdown { socket, how: Shutdown::Write });
        assert!(reader.join().unwrap() == expected, "the bytes differ");
    }
}

#[test]
fn a_half_sent_gather_goes_on_where_it_was() {
    let bench = Bench::new();
    let mut gather = Gather::new();
    gather.bytes(b"head");
    gather.payload(bench.buffer(b"payload").freeze());
    gather.bytes(b"tail");
    gather.advance(6);
    let (socket, mut theirs) = pair();
    let mut bench = bench;
    let done = bench.run(Op::Send { socket, gather });
    assert_eq!(done.result, Ok(9));
    let mut got = [0; 9];
    theirs.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"yloadtail");
}

#[test]
fn sending_to_nobody_is_an_error_and_no_signal() {
    let mut bench = Bench::new();
    let (socket, theirs) = pair();
    drop(theirs);
    let mut gather = Gather::new();
    gather.bytes(b"lost");
    let done = bench.run(Op::Send { socket, gather });
    assert_eq!(done.result, Err(Errno::PIPE));
    assert!(matches!(done.op, Op::Send { gather, .. } if gather.len() == 4));
}

#[test]
fn a_pending_receive_can_be_cancelled() {
    let mut bench = Bench::new();
    let (socket, _theirs) = pair();
    let handle = bench.push(receive(&bench, &socket, 100, true), 1);
    bench.submit();
    bench.ring.cancel(handle);
    let done = bench.complete();
    assert_eq!((done.token, done.result), (1, Err(Errno::CANCELED)));
    // Its handle names nothing any more: cancelling it again does not hit the slot's next user.
    bench.push(receive(&bench, &socket, 100, true), 2);
    bench.ring.cancel(handle);
    assert_eq!(bench.submit().ready, 0);
    bench.ring.cancel_all(&socket);
    assert_eq!(bench.complete().token, 2);
}

#[test]
fn cancelling_all_of_a_socket_leaves_the_others() {
    let mut bench = Bench::new();
    let ((socket, _theirs), (other, mut others)) = (pair(), pair());
    bench.push(receive(&bench, &socket, 10, false), 1);
    bench.push(Op::Poll { fd: socket.clone(), until: PollFor::Readable }, 2);
    bench.push(receive(&bench, &other, 10, false), 3);
    bench.ring.cancel_all(&socket);
    drop(socket);
    let mut tokens = [bench.complete(), bench.complete()].map(|done| (done.token, done.result));
    tokens.sort_by_key(|&(token, _)| token);
    assert_eq!(tokens, [(1, Err(Errno::CANCELED)), (2, Err(Errno::CANCELED))]);
    others.write_all(b"still here").unwrap();
    assert_eq!(received(bench.complete()), b"still here");
}

#[test]
fn shutting_down_ends_what_is_pending() {
    let mut bench = Bench::new();
    let (socket, _theirs) = pair();
    bench.push(receive(&bench, &socket, 10, true), 1);
    bench.submit();
    bench.push(Op::Shutdown { socket, how: Shutdown::Both }, 2);
    let mut done = [bench.complete(), bench.complete()].map(|done| (done.token, done.result));
    done.sort_by_key(|&(token, _)| token);
    assert_eq!(done, [(1, Ok(0)), (2, Ok(0))]);
}

trait MapStream {
    fn map_stream(self) -> (Fd, Box<dyn Read + Send>);
}

impl<S: Read + Send + 'static> MapStream for (Fd, S) {
    fn map_stream(self) -> (Fd, Box<dyn Read + Send>) {
        (self.0, Box::new(self.1))
    }
}

#[test]
fn what_the_socket_does_not_take_at_once_is_left_for_the_ring() {
    let mut bench = Bench::new();
    let (socket, mut theirs) = pair();
    let mut gather = Gather::new();
    gather.bytes(b"head");
    assert_eq!(gather.send_now(&socket), Ok(4));
    assert!(gather.is_empty());
    let payload = pattern(1, 4 << 20);
    gather.bytes(b"more");
    gather.payload(bench.buffer(&payload).freeze());
    let taken = gather.send_now(&socket).unwrap();
    assert!(taken > 0 && taken < payload.len(), "{taken} bytes");
    assert_eq!(gather.len(), payload.len() + 4 - taken);
    assert_eq!(gather.send_now(&socket), Ok(0), "it is full");
    let reader = thread::spawn(move || {
        let mut got = vec![0; 8 + (4 << 20)];
        theirs.read_exact(&mut got).unwrap();
        got
    });
    let done = bench.run(Op::Send { socket: socket.clone(), gather });
    assert!(done.result.is_ok());
    assert!(reader.join().unwrap() == [b"headmore", &payload[..]].concat(), "the bytes differ");
    let (socket, theirs) = pair();
    drop(theirs);
    let mut gather = Gather::new();
    gather.bytes(b"lost");
    assert_eq!(gather.send_now(&socket), Err(Errno::PIPE));
}
