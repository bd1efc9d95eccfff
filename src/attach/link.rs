//! The helper's link to the daemon: requests in, answers out, across connections that come and go.
//!
//! # What is asked again
//!
//! A request stays known until it is answered. When the connection breaks, a new one is made, and everything unanswered is sent again
//! in the order in which it came. That is sound because of three rules:
//!
//! - **No two requests that touch the same bytes are in flight at once**, unless both only read: the later one is held back until the
//!   earlier one is answered. So a write that is sent again can never land on top of a younger one that was answered.
//! - **Writes are whole ranges of given bytes**: done twice they leave what they leave done once.
//! - **The daemon admits a link again only when nobody else has written in between** (the token in the export's name); else it
//!   answers *never*, and from then on every request fails: what this machine holds in its caches is not the volume's any more.
//!
//! ESHUTDOWN is no answer: the daemon is ending, and the request is asked again of its successor.
//!
//! # How long requests wait
//!
//! For [`Terms::patience`] after the connection broke. Then all that wait fail with EIO, and new ones do at once, until there is a
//! connection again.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::dial::{DialError, Open, dial};
use crate::nbd::client::{Body, decode, request};
use crate::nbd::{Errno, Mode, Request};

/// What a link is to be.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The export.
    pub export: String,
    /// How long requests wait for a connection that broke.
    pub patience: Duration,
}

/// What becomes of a request: the bytes that were read, or why not.
pub type Answer = Box<dyn FnOnce(Result<Vec<u8>, Errno>) + Send>;

/// A volume at the daemon.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    terms: Terms,
    mode: Mode,
    bytes: AtomicU64,
    state: Mutex<State>,
    /// Told when there may be something to send that nobody else sends.
    pump: Condvar,
    /// The connection that requests are written to, with its number. Taken after `state` was let go, never before.
    writer: Mutex<Option<(u64, UnixStream)>>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// What is not answered, in the order in which it came.
    pending: BTreeMap<u64, Pending>,
    /// How many of them were held back because of another.
    held: usize,
    /// Numbers the connections, from 1; 0 while there is none.
    connection: u64,
    connections: u64,
    standing: Standing,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Standing {
    /// Requests are sent, or wait to be.
    #[default]
    Good,
    /// Patience has ended: requests fail until there is a connection.
    Failing,
    /// The volume was written elsewhere: requests fail for good.
    Fenced,
    /// The link was closed.
    Closed,
}

struct Pending {
    request: Request,
    payload: Arc<[u8]>,
    answer: Answer,
    /// The connection that it was sent on last; 0 for none.
    sent: u64,
}

impl Link {
    /// Opens the export.
    ///
    /// # Errors
    ///
    /// If it cannot be opened at once.
    pub fn open(terms: Terms) -> Result<Self, DialError> {
        let open = dial(&terms.socket, &terms.export, DIAL)?;
        let (mode, bytes) = (open.agreed.mode.clone(), AtomicU64::new(open.agreed.size));
        let writer = Mutex::new(None);
        let shared = Arc::new(Shared { terms, mode, bytes, state: Mutex::default(), pump: Condvar::new(), writer });
        let (keeper, pump) = (shared.clone(), shared.clone());
        thread::Builder::new().name("link".into()).spawn(move || keeper.keep(open)).map_err(DialError::from)?;
        thread::Builder::new().name("link-pump".into()).spawn(move || pump.pump()).map_err(DialError::from)?;
        Ok(Self(shared))
    }

    /// The volume's size in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Acquire)
    }

    /// Asks the daemon how large the volume is by now; that size.
    ///
    /// # Errors
    ///
    /// If it cannot be opened once more. The size stays what it was.
    pub fn measure(&self) -> Result<u64, DialError> {
        let Open { mut stream, agreed } = dial(&self.0.terms.socket, &self.0.terms.export, DIAL)?;
        // Whether it hears this makes no difference.
        let _ = stream.write_all(&request(&agreed.mode, 0, &Request::Disconnect));
        let before = self.0.bytes.fetch_max(agreed.size, Ordering::AcqRel);
        Ok(before.max(agreed.size))
    }

    /// Makes a request; `answer` is called once, on any thread.
    pub fn ask(&self, request: Request, payload: &[u8], answer: impl FnOnce(Result<Vec<u8>, Errno>) + Send + 'static) {
        let mut state = self.0.state();
        if state.standing != Standing::Good {
            drop(state);
            return answer(Err(Errno::Io));
        }
        let cookie = state.next;
        state.next += 1;
        let pending = Pending { request, payload: payload.into(), answer: Box::new(answer), sent: 0 };
        let blocked = state.pending.values().any(|earlier| conflict(&earlier.request, &request));
        state.held += usize::from(blocked);
        state.pending.insert(cookie, pending);
        let connection = state.connection;
        if blocked || connection == 0 {
            return;
        }
        let payload = mark_sent(&mut state, cookie, connection);
        drop(state);
        self.0.send(connection, cookie, &request, &payload);
    }

    /// Ends the link. What waits fails; call it when nothing does.
    pub fn close(&self) {
        self.0.fail_all(Standing::Closed);
        let mut writer = self.0.writer();
        if let Some((_, stream)) = writer.take() {
            let mut stream = stream;
            // The daemon may be gone already.
            let _ = stream.write_all(&request(&self.0.mode, 0, &Request::Disconnect));
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Option<(u64, UnixStream)>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a request on the connection of this number, if that is still the present one: else it is sent again anyway.
    fn send(&self, connection: u64, cookie: u64, asked: &Request, payload: &[u8]) {
        let head = request(&self.mode, cookie, asked);
        let mut writer = self.writer();
        let Some((number, stream)) = writer.as_mut().filter(|(number, _)| *number == connection) else { return };
        let sent = match payload.is_empty() {
            true => stream.write_all(&head),
            false => write_both(stream, &head, payload),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, connection = *number, "a request could not be sent");
            // Whoever reads from it finds out.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Sends what nobody else does: what was held back, and after a new connection everything.
    fn pump(&self) {
        let mut state = self.state();
        loop {
            if state.standing == Standing::Closed {
                return;
            }
            match next_to_send(&state) {
                Some(cookie) => {
                    let connection = state.connection;
                    let asked = state.pending[&cookie].request;
                    let payload = mark_sent(&mut state, cookie, connection);
                    drop(state);
                    self.send(connection, cookie, &asked, &payload);
                    state = self.state();
                }
                None => state = self.pump.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Holds a connection, and makes a new one when it breaks, until the link is closed or fenced.
    fn keep(&self, first: Open) {
        let mut open = Some(first);
        let mut broken = Instant::now();
        loop {
            if let Some(open) = open.take() {
                self.serve(open);
                broken = Instant::now();
            }
            match self.state().standing {
                Standing::Closed | Standing::Fenced => return,
                Standing::Good | Standing::Failing => {}
            }
            match dial(&self.terms.socket, &self.terms.export, DIAL) {
                Ok(again) if again.agreed.size < self.bytes.load(Ordering::Acquire) || again.agreed.mode != self.mode => {
                    tracing::error!(bytes = again.agreed.size, "the volume has changed: it is not used any more");
                    return self.fail_all(Standing::Fenced);
                }
                Ok(again) => {
                    tracing::info!(waited = ?broken.elapsed(), "connected again");
                    open = Some(again);
                }
                Err(DialError::Never(why)) => {
                    tracing::error!(%why, "the daemon does not admit this attachment any more");
                    return self.fail_all(Standing::Fenced);
                }
                Err(DialError::NotNow(why)) => {
                    tracing::debug!(%why, "no connection yet");
                    if broken.elapsed() > self.terms.patience && self.state().standing == Standing::Good {
                        tracing::error!(%why, "patience has ended: requests fail until there is a connection");
                        self.fail_all(Standing::Failing);
                    }
                    thread::sleep(RETRY);
                }
            }
        }
    }

    /// Takes answers from a connection until it ends.
    fn serve(&self, open: Open) {
        let Open { stream, agreed } = open;
        let Ok(mut reader) = stream.try_clone() else { return };
        let connection = {
            let mut state = self.state();
            if state.standing == Standing::Closed {
                return;
            }
            state.connections += 1;
            state.connections
        };
        *self.writer() = Some((connection, stream));
        {
            let mut state = self.state();
            state.connection = connection;
            if state.standing == Standing::Failing {
                state.standing = Standing::Good;
            }
        }
        self.pump.notify_all();
        let why = self.receive(connection, &mut reader, agreed.early);
        self.state().connection = 0;
        *self.writer() = None;
        // An orderly end is one, too: an answer that did not come does not come any more.
        let _ = reader.shutdown(Shutdown::Both);
        tracing::info!(%why, "the connection to the daemon ended");
    }

    fn receive(&self, connection: u64, reader: &mut UnixStream, early: Vec<u8>) -> io::Error {
        let mut inbox = early;
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.take_answers(connection, &inbox) {
                Ok(taken) => drop(inbox.drain(..taken)),
                Err(error) => return error,
            }
            match reader.read(&mut buffer) {
                Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                Ok(read) => inbox.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error,
            }
        }
    }

    /// Answers every request whose reply is complete; how many bytes those replies had.
    fn take_answers(&self, connection: u64, inbox: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while let Some((head, reply)) = decode(&inbox[taken..], &self.mode).map_err(io::Error::other)? {
            let mut state = self.state();
            let pending = state.pending.get(&reply.cookie).filter(|pending| pending.sent == connection);
            let asked = pending.ok_or_else(|| io::Error::other("the daemon answered what was not asked"))?.request;
            let after = match (&reply.body, asked) {
                (Body::Done, Request::Read { length, .. }) => length as usize,
                _ => 0,
            };
            let start = taken + head;
            if inbox.len() < start + after {
                break;
            }
            taken = start + after;
            let result = match reply.body {
                Body::Done => Ok(inbox[start..taken].to_vec()),
                Body::Failed { errno: Errno::Shutdown, .. } => return Err(io::Error::other("the daemon is ending")),
                Body::Failed { errno, text } => {
                    tracing::warn!(?asked, %errno, %text, "a request failed");
                    Err(errno)
                }
                // Chunks were not asked for.
                _ => return Err(io::Error::other("the daemon sent a chunk")),
            };
            let pending = state.pending.remove(&reply.cookie).expect("it was there");
            if state.held > 0 {
                self.pump.notify_one();
            }
            drop(state);
            (pending.answer)(result);
        }
        Ok(taken)
    }

    fn fail_all(&self, standing: Standing) {
        let mut state = self.state();
        state.standing = standing;
        state.held = 0;
        let all = std::mem::take(&mut state.pending);
        drop(state);
        self.pump.notify_all();
        for (_, pending) in all {
            (pending.answer)(Err(Errno::Io));
        }
    }
}

/// The oldest request that is not under way and may be: nothing before it touches the same bytes.
fn next_to_send(state: &State) -> Option<u64> {
    if state.connection == 0 {
        return None;
    }
    let waits = |pending: &Pending| pending.sent != state.connection;
    let free = |cookie: u64, asked: &Request| !state.pending.range(..cookie).any(|(_, before)| conflict(&before.request, asked));
    state.pending.iter().find(|(cookie, pending)| waits(pending) && free(**cookie, &pending.request)).map(|(cookie, _)| *cookie)
}

fn mark_sent(state: &mut State, cookie: u64, connection: u64) -> Arc<[u8]> {
    let blocked = |s: &State| s.pending.values().filter(|p| p.sent == 0).count();
    let pending = state.pending.get_mut(&cookie).expect("only what is pending is sent");
    pending.sent = connection;
    let payload = pending.payload.clone();
    if state.held > 0 {
        state.held = blocked(state);
    }
    payload
}

/// Whether two requests may not be under way at once.
fn conflict(one: &Request, other: &Request) -> bool {
    let (Some((a, a_end, a_changes)), Some((b, b_end, b_changes))) = (range(one), range(other)) else { return false };
    (a_changes || b_changes) && a < b_end && b < a_end
}

/// The bytes that a request touches, and whether it changes them. A flush covers what was answered before it: it touches nothing.
fn range(request: &Request) -> Option<(u64, u64, bool)> {
    match *request {
        Request::Read { offset, length, .. } => Some((offset, offset + u64::from(length), false)),
        Request::Write { offset, length, .. } => Some((offset, offset + u64::from(length), true)),
        Request::Trim { offset, length, .. } | Request::WriteZeroes { offset, length, .. } => {
            Some((offset, offset + length, true))
        }
        Request::Flush | Request::Cache { .. } | Request::BlockStatus { .. } | Request::Disconnect => None,
    }
}

/// Writes head and payload with as few system calls as there can be.
fn write_both(stream: &mut UnixStream, head: &[u8], payload: &[u8]) -> io::Result<()> {
    let sent = loop {
        match stream.write_vectored(&[io::IoSlice::new(head), io::IoSlice::new(payload)]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    match sent.checked_sub(head.len()) {
        Some(of_payload) => stream.write_all(&payload[of_payload..]),
        None => {
            stream.write_all(&head[sent..])?;
            stream.write_all(payload)
        }
    }
}

/// How much is read at a time.
const CHUNK: usize = 256 * 1024;
/// How long the daemon may take for an answer of the handshake: it waits for replicas before it opens a volume.
const DIAL: Duration = Duration::from_secs(30);
/// How long to wait before trying again.
const RETRY: Duration = Duration::from_millis(20);

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
