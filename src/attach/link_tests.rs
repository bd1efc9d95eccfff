//! A link against a daemon that answers, dies and comes back.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::nbd::request::{self as server, Decoded};
use crate::nbd::{Action, BlockSizes, Export, Negotiation, Refusal, TlsPolicy, reply};

const BYTES: u64 = 1 << 20;

/// What a daemon of the test does with the requests of one connection.
struct Session {
    stream: UnixStream,
    inbox: Vec<u8>,
    mode: Mode,
}

struct Asked {
    tag: crate::nbd::Tag,
    request: Request,
    payload: Vec<u8>,
}

impl Session {
    /// Accepts a connection and opens the export for it, or refuses for good.
    fn accept(listener: &UnixListener, refusal: Option<Refusal>) -> Option<Self> {
        let (mut stream, _) = listener.accept().unwrap();
        let mut negotiation = Negotiation::new(TlsPolicy::Off);
        loop {
            match negotiation.poll() {
                Action::Send(bytes) => stream.write_all(&bytes).unwrap(),
                Action::Receive => {
                    let mut buffer = [0; 4096];
                    match stream.read(&mut buffer).unwrap() {
                        0 => return None,
                        read => negotiation.feed(&buffer[..read]),
                    }
                }
                Action::Open { name, .. } => {
                    let blocks = BlockSizes::default();
                    let export = Export { name, description: String::new(), size: BYTES, read_only: false, blocks };
                    negotiation.opened(refusal.clone().map_or(Ok(export), Err));
                }
                Action::Done { mode, early, .. } => return Some(Self { stream, inbox: early, mode }),
                Action::Close(_) => return None,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn next(&mut self) -> Asked {
        loop {
            if let Some(Decoded { taken, tag, request }) = server::decode(&self.inbox, &self.mode, BYTES).unwrap() {
                let request = request.unwrap();
                let payload = if let Request::Write { length, .. } = request { length as usize } else { 0 };
                if self.inbox.len() >= taken + payload {
                    let payload = self.inbox[taken..taken + payload].to_vec();
                    self.inbox.drain(..taken + payload.len());
                    return Asked { tag, request, payload };
                }
            }
            let mut buffer = [0; 65536];
            let read = self.stream.read(&mut buffer).unwrap();
            assert_ne!(read, 0, "the link hung up");
            self.inbox.extend_from_slice(&buffer[..read]);
        }
    }

    fn done(&mut self, asked: &Asked) {
        self.stream.write_all(&reply::done(&self.mode, asked.tag)).unwrap();
    }

    fn fail(&mut self, asked: &Asked, errno: Errno) {
        let mut out = Vec::new();
        reply::error(&self.mode, asked.tag, errno, "because", &mut out);
        self.stream.write_all(&out).unwrap();
    }

    /// Whether nothing comes for a while.
    fn is_quiet(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut one = [0];
        let quiet = self.inbox.is_empty() && self.stream.read(&mut one).is_err();
        self.stream.set_read_timeout(None).unwrap();
        quiet
    }
}

fn start(patience: Duration) -> (tempfile::TempDir, UnixListener, Link, Session) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nbd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let terms = Terms { socket, export: "web".into(), patience };
    let opening = thread::spawn(move || Link::open(terms).unwrap());
    let session = Session::accept(&listener, None).unwrap();
    (directory, listener, opening.join().unwrap(), session)
}

type Answered = Receiver<Result<Vec<u8>, Errno>>;

fn ask(link: &Link, request: Request, payload: &[u8]) -> Answered {
    let (tell, told) = channel();
    link.ask(request, payload, move |answer| tell.send(answer).unwrap());
    told
}

fn write(link: &Link, offset: u64, byte: u8) -> Answered {
    ask(link, Request::Write { offset, length: 4096, fua: false }, &[byte; 4096])
}

fn answer(told: &Answered) -> Result<Vec<u8>, Errno> {
    told.recv_timeout(Duration::from_secs(10)).unwrap()
}

#[test]
fn what_was_not_answered_is_asked_again_in_order() {
    let (_directory, listener, link, mut first) = start(Duration::from_secs(60));
    let (a, b, c) = (write(&link, 0, 1), write(&link, 4096, 2), write(&link, 8192, 3));
    let asked: Vec<Asked> = (0..3).map(|_| first.next()).collect();
    first.done(&asked[1]);
    answer(&b).unwrap();
    drop(first);
    let mut second = Session::accept(&listener, None).unwrap();
    let flush = ask(&link, Request::Flush, &[]);
    let mut again: Vec<Asked> = (0..3).map(|_| second.next()).collect();
    // The flush may come before, between or after them; the writes come in their order.
    again.retain(|asked| {
        asked.request != Request::Flush || {
            second.done(asked);
            false
        }
    });
    assert_eq!(again.iter().map(|asked| asked.payload[0]).collect::<Vec<_>>(), [1, 3]);
    again.iter().for_each(|asked| second.done(asked));
    for told in [a, c, flush] {
        answer(&told).unwrap();
    }
}

#[test]
fn a_younger_write_waits_for_an_older_one_that_it_overlaps() {
    let (_directory, listener, link, mut first) = start(Duration::from_secs(60));
    let (a, b) = (write(&link, 0, 1), write(&link, 0, 2));
    let read = ask(&link, Request::Read { offset: 0, length: 512, dont_fragment: false }, &[]);
    let aside = ask(&link, Request::Read { offset: 4096, length: 512, dont_fragment: false }, &[]);
    let one = first.next();
    assert_eq!(one.payload[0], 1);
    // What touches other bytes does not wait.
    assert!(matches!(first.next().request, Request::Read { offset: 4096, .. }));
    assert!(first.is_quiet());
    // A connection that breaks does not change the order.
    drop(first);
    let mut second = Session::accept(&listener, None).unwrap();
    let one = second.next();
    assert_eq!(one.payload[0], 1);
    let other = second.next();
    second.stream.write_all(&reply::done(&second.mode, other.tag)).unwrap();
    second.stream.write_all(&[7; 512]).unwrap();
    assert_eq!(answer(&aside).unwrap(), [7; 512]);
    second.done(&one);
    answer(&a).unwrap();
    let two = second.next();
    assert_eq!(two.payload[0], 2);
    assert!(second.is_quiet());
    second.done(&two);
    answer(&b).unwrap();
    assert!(matches!(second.next().request, Request::Read { offset: 0, .. }));
    drop(read);
}

#[test]
fn a_daemon_that_ends_has_not_answered() {
    let (_directory, listener, link, mut first) = start(Duration::from_secs(60));
    let told = write(&link, 0, 1);
    let asked = first.next();
    first.fail(&asked, Errno::Shutdown);
    let mut second = Session::accept(&listener, None).unwrap();
    let again = second.next();
    second.fail(&again, Errno::NoSpace);
    assert_eq!(answer(&told), Err(Errno::NoSpace));
}

#[test]
fn when_patience_ends_requests_fail_until_there_is_a_connection() {
    let (directory, listener, link, first) = start(Duration::from_millis(100));
    drop(listener);
    let told = write(&link, 0, 1);
    drop(first);
    assert_eq!(answer(&told), Err(Errno::Io));
    assert_eq!(answer(&write(&link, 0, 2)), Err(Errno::Io));
    std::fs::remove_file(directory.path().join("nbd.sock")).unwrap();
    let listener = UnixListener::bind(directory.path().join("nbd.sock")).unwrap();
    let mut second = Session::accept(&listener, None).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let told = loop {
        let told = write(&link, 0, 3);
        match told.try_recv() {
            Ok(Err(Errno::Io)) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            _ => break told,
        }
    };
    let asked = second.next();
    assert_eq!(asked.payload[0], 3, "what had failed is not asked again");
    second.done(&asked);
    answer(&told).unwrap();
}

#[test]
fn a_volume_that_was_used_elsewhere_is_never_written_again() {
    let (_directory, listener, link, first) = start(Duration::from_secs(60));
    let told = write(&link, 0, 1);
    drop(first);
    assert!(Session::accept(&listener, Some(Refusal::policy("used on beta"))).is_none());
    assert_eq!(answer(&told), Err(Errno::Io));
    assert_eq!(answer(&write(&link, 0, 2)), Err(Errno::Io));
}
