//! A client of a volume over a unix socket: [`crate::nbd::client`] with the bytes moved.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::nbd::client::{Agreed, Body, Handshake, Step, Wish, decode, request};
use crate::nbd::{Errno, Mode, Request};

/// How much is read from the socket at a time.
const CHUNK: usize = 256 * 1024;

/// An open volume. Requests may be made at the same time; each future ends when the server has answered it.
pub(in crate::cli) struct Volume {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    bytes: u64,
}

struct Shared {
    mode: Mode,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Mutex<Waiting>,
}

/// The requests in flight.
#[derive(Default)]
struct Waiting {
    next: u64,
    answers: HashMap<u64, Expected>,
    /// Why there will be no more answers.
    broken: Option<String>,
}

struct Expected {
    /// How many bytes follow the reply.
    reads: usize,
    answer: oneshot::Sender<io::Result<Vec<u8>>>,
}

impl Volume {
    /// Opens `export` at `socket`.
    pub(in crate::cli) async fn open(socket: &Path, export: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket).await?;
        let agreed = negotiate(&mut stream, export).await?;
        let (read, write) = stream.into_split();
        let writer = tokio::sync::Mutex::new(write);
        let shared = Arc::new(Shared { mode: agreed.mode, writer, waiting: Mutex::default() });
        let reader = tokio::spawn(receive(shared.clone(), read, agreed.early));
        Ok(Self { shared, reader, bytes: agreed.size })
    }

    /// Its size in bytes.
    pub(in crate::cli) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads `length` bytes.
    pub(in crate::cli) async fn read(&self, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        self.ask(Request::Read { offset, length, dont_fragment: false }, &[]).await
    }

    /// Writes `data`.
    pub(in crate::cli) async fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        self.ask(Request::Write { offset, length, fua: false }, data).await.map(drop)
    }

    /// Makes durable what was written.
    pub(in crate::cli) async fn flush(&self) -> io::Result<()> {
        self.ask(Request::Flush, &[]).await.map(drop)
    }

    /// Disconnects, and waits until the server has closed its end.
    pub(in crate::cli) async fn close(mut self) -> io::Result<()> {
        let head = request(&self.shared.mode, 0, &Request::Disconnect);
        let mut writer = self.shared.writer.lock().await;
        writer.write_all(&head).await?;
        writer.shutdown().await?;
        drop(writer);
        (&mut self.reader).await.map_err(io::Error::other)
    }

    async fn ask(&self, asked: Request, payload: &[u8]) -> io::Result<Vec<u8>> {
        let reads = if let Request::Read { length, .. } = asked { length as usize } else { 0 };
        let (answer, answered) = oneshot::channel();
        let cookie = self.shared.expect(Expected { reads, answer })?;
        let head = request(&self.shared.mode, cookie, &asked);
        let mut writer = self.shared.writer.lock().await;
        let sent = async {
            writer.write_all(&head).await?;
            writer.write_all(payload).await
        };
        sent.await?;
        drop(writer);
        answered.await.map_err(|_| io::Error::other("the connection was closed"))?
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shared {
    /// Notes that an answer is expected, and names the request.
    fn expect(&self, expected: Expected) -> io::Result<u64> {
        let mut waiting = self.waiting.lock().expect("no holder of this lock panics");
        if let Some(why) = &waiting.broken {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, why.clone()));
        }
        let cookie = waiting.next;
        waiting.next += 1;
        waiting.answers.insert(cookie, expected);
        Ok(cookie)
    }

    /// How many bytes follow the reply to a request that is in flight.
    fn reads(&self, cookie: u64) -> io::Result<usize> {
        let waiting = self.waiting.lock().expect("no holder of this lock panics");
        let expected = waiting.answers.get(&cookie);
        expected.map(|expected| expected.reads).ok_or_else(|| io::Error::other("the server answered what was not asked"))
    }

    fn answer(&self, cookie: u64, answer: io::Result<Vec<u8>>) {
        let expected = self.waiting.lock().expect("no holder of this lock panics").answers.remove(&cookie);
        if let Some(expected) = expected {
            // Whoever asked may have given up.
            let _ = expected.answer.send(answer);
        }
    }

    /// No more answers will come, for this reason.
    fn end(&self, why: &str) {
        let mut waiting = self.waiting.lock().expect("no holder of this lock panics");
        waiting.broken = Some(why.to_owned());
        for (_, expected) in waiting.answers.drain() {
            let _ = expected.answer.send(Err(io::Error::new(io::ErrorKind::ConnectionReset, why.to_owned())));
        }
    }
}

async fn negotiate(stream: &mut UnixStream, export: &str) -> io::Result<Agreed> {
    let mut handshake = Handshake::new(Wish { export: export.to_owned(), ..Wish::default() });
    let mut buffer = vec![0; 4096];
    loop {
        match handshake.poll() {
            Step::Send(bytes) => stream.write_all(&bytes).await?,
            Step::Receive => match stream.read(&mut buffer).await? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
                read => handshake.feed(&buffer[..read]),
            },
            Step::StartTls => return Err(io::Error::other("TLS was not asked for")),
            Step::Done(agreed) => return Ok(agreed),
            Step::Failed(why) => return Err(io::Error::other(why)),
        }
    }
}

/// Takes replies until the connection ends.
async fn receive(shared: Arc<Shared>, mut socket: OwnedReadHalf, early: Vec<u8>) {
    let mut buffer = BytesMut::from(&early[..]);
    let why = loop {
        if let Err(why) = take_replies(&shared, &mut buffer) {
            break why.to_string();
        }
        buffer.reserve(CHUNK);
        match socket.read_buf(&mut buffer).await {
            Ok(0) => break "the server closed the connection".to_owned(),
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    shared.end(&why);
}

/// Answers every request whose reply is complete in `buffer`.
fn take_replies(shared: &Shared, buffer: &mut BytesMut) -> io::Result<()> {
    while let Some((taken, reply)) = decode(buffer, &shared.mode).map_err(io::Error::other)? {
        match reply.body {
            Body::Done => {
                let reads = shared.reads(reply.cookie)?;
                if buffer.len() < taken + reads {
                    return Ok(());
                }
                let data = buffer[taken..taken + reads].to_vec();
                buffer.advance(taken + reads);
                shared.answer(reply.cookie, Ok(data));
            }
            Body::Failed { errno, text } => {
                buffer.advance(taken);
                shared.answer(reply.cookie, Err(refused(errno, &text)));
            }
            // Chunks were not asked for.
            _ => return Err(io::Error::other("the server sent a chunk")),
        }
    }
    Ok(())
}

fn refused(errno: Errno, text: &str) -> io::Error {
    let words = if text.is_empty() { errno.name().to_owned() } else { format!("{}: {text}", errno.name()) };
    io::Error::other(words)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;
    use crate::nbd::request::{self as server, Decoded};
    use crate::nbd::{Action, BlockSizes, Export, Negotiation, TlsPolicy, reply};

    /// Serves one client a volume of 64 KiB in memory, and closes the connection after `requests` requests.
    async fn serve(listener: UnixListener, requests: usize) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = BytesMut::new();
        let Some(mode) = open(&mut stream, &mut bytes).await else { return };
        let mut memory = vec![0; 65536];
        let mut served = 0;
        while served < requests {
            let Some(Decoded { taken, tag, request }) = server::decode(&bytes, &mode, 65536).unwrap() else {
                if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                    return;
                }
                continue;
            };
            let mut out = Vec::new();
            match request {
                Err(refusal) => reply::error(&mode, tag, refusal.errno, refusal.text, &mut out),
                Ok(Request::Read { offset, length, .. }) => {
                    let offset = usize::try_from(offset).unwrap();
                    out.extend_from_slice(&reply::data(&mode, tag, offset as u64, length, true));
                    out.extend_from_slice(&memory[offset..offset + length as usize]);
                }
                Ok(Request::Write { offset, length, .. }) => {
                    let (offset, length) = (usize::try_from(offset).unwrap(), length as usize);
                    while bytes.len() < taken + length {
                        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
                    }
                    memory[offset..offset + length].copy_from_slice(&bytes[taken..taken + length]);
                    bytes.advance(length);
                    out.extend_from_slice(&reply::done(&mode, tag));
                }
                Ok(Request::Disconnect) => return,
                Ok(_) => out.extend_from_slice(&reply::done(&mode, tag)),
            }
            bytes.advance(taken);
            stream.write_all(&out).await.unwrap();
            served += 1;
        }
    }

    async fn open(stream: &mut UnixStream, bytes: &mut BytesMut) -> Option<Mode> {
        let mut negotiation = Negotiation::new(TlsPolicy::Off);
        loop {
            match negotiation.poll() {
                Action::Send(out) => stream.write_all(&out).await.unwrap(),
                Action::Receive => {
                    let mut buffer = [0; 1000];
                    match stream.read(&mut buffer).await.unwrap() {
                        0 => return None,
                        read => negotiation.feed(&buffer[..read]),
                    }
                }
                Action::Open { name, .. } => {
                    assert_eq!(name, "web");
                    let export = Export {
                        name: name.clone(),
                        description: String::new(),
                        size: 65536,
                        read_only: false,
                        blocks: BlockSizes::default(),
                    };
                    negotiation.opened(Ok(export));
                }
                Action::Done { mode, early, .. } => {
                    bytes.extend_from_slice(&early);
                    return Some(mode);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("nbd.sock");
        tokio::spawn(serve(UnixListener::bind(&socket).unwrap(), usize::MAX));
        let volume = Volume::open(&socket, "web").await.unwrap();
        assert_eq!(volume.bytes(), 65536);
        let (one, other) = (vec![1; 4096], vec![2; 8192]);
        let (a, b) = tokio::join!(volume.write(0, &one), volume.write(4096, &other));
        a.and(b).unwrap();
        volume.flush().await.unwrap();
        let (a, b) = tokio::join!(volume.read(4096, 8192), volume.read(0, 4096));
        assert_eq!((a.unwrap(), b.unwrap()), (other, one));
        assert!(volume.read(65536, 4096).await.unwrap_err().to_string().starts_with("EINVAL"));
        volume.close().await.unwrap();
    }

    #[tokio::test]
    async fn requests_in_flight_fail_when_the_server_goes() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("nbd.sock");
        tokio::spawn(serve(UnixListener::bind(&socket).unwrap(), 1));
        let volume = Volume::open(&socket, "web").await.unwrap();
        volume.write(0, &[1; 512]).await.unwrap();
        assert!(volume.write(0, &[1; 512]).await.is_err());
        assert!(volume.flush().await.is_err());
    }
}
