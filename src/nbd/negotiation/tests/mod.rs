//! A server's half of a handshake, byte by byte; then against our own client, and against noise.

mod meeting;
mod noise;
mod options;
mod tls;

use super::*;
use crate::nbd::BlockSizes;

/// A server with one export, "disk", and what it sent, answered and wanted so far.
struct Server {
    talk: Negotiation,
    sent: Vec<u8>,
    asked: Vec<(String, Purpose)>,
    done: Option<(Mode, String, Vec<u8>)>,
    closed: Option<CloseReason>,
    wants_tls: bool,
}

impl Server {
    /// A server after its greeting.
    fn new(tls: TlsPolicy) -> Self {
        let talk = Negotiation::new(tls);
        let mut server = Self { talk, sent: Vec::new(), asked: Vec::new(), done: None, closed: None, wants_tls: false };
        server.run();
        assert_eq!(server.take(), b"NBDMAGICIHAVEOPT\x00\x03");
        server
    }

    /// A server that has heard from a client with fixed newstyle.
    fn fixed(tls: TlsPolicy) -> Self {
        let mut server = Self::new(tls);
        server.hear(&3u32.to_be_bytes());
        server
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.talk.feed(bytes);
        self.run();
    }

    fn run(&mut self) {
        loop {
            match self.talk.poll() {
                Action::Send(bytes) => self.sent.extend(bytes),
                Action::Receive => return,
                Action::List => {
                    self.talk.listed(Ok(&[Listed { name: "disk".to_owned(), description: "a disk".to_owned() }]));
                }
                Action::Open { name, purpose } => {
                    let answer = match name.as_str() {
                        "disk" => Ok(disk()),
                        "secret" if !self.talk.is_secured() => Err(Refusal::tls_required("only with TLS")),
                        "secret" => Ok(disk()),
                        "always-tls" => Err(Refusal::tls_required("only with TLS")),
                        _ => Err(Refusal::unknown(format!("there is no volume '{name}'"))),
                    };
                    self.asked.push((name, purpose));
                    self.talk.opened(answer);
                }
                Action::StartTls => {
                    self.wants_tls = true;
                    return;
                }
                Action::Done { mode, name, early } => {
                    self.done = Some((mode, name, early));
                    return;
                }
                Action::Close(reason) => {
                    self.closed = Some(reason);
                    return;
                }
            }
        }
    }

    fn take(&mut self) -> Vec<u8> {
        mem::take(&mut self.sent)
    }

    /// Sends an option and takes the replies to it: type and data of each.
    fn option(&mut self, code: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.hear(&option_bytes(code, data));
        let bytes = self.take();
        replies(&bytes)
            .into_iter()
            .map(|(to, kind, data)| {
                assert_eq!(to, code);
                (kind, data)
            })
            .collect()
    }

    /// The types of the replies to an option.
    fn kinds(&mut self, code: u32, data: &[u8]) -> Vec<u32> {
        self.option(code, data).into_iter().map(|(kind, _)| kind).collect()
    }
}

fn disk() -> Export {
    Export {
        name: "disk".to_owned(),
        description: "a disk".to_owned(),
        size: 1 << 30,
        read_only: false,
        blocks: BlockSizes::default(),
    }
}

fn option_bytes(code: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [b"IHAVEOPT".as_slice(), &code.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

fn replies(mut bytes: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[..8], option::REPLY.to_be_bytes());
        let field = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let end = 20 + usize::try_from(field(16)).unwrap();
        all.push((field(8), field(12), bytes[20..end].to_vec()));
        bytes = &bytes[end..];
    }
    all
}

fn counted(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

fn go(name: &str, kinds: &[u16]) -> Vec<u8> {
    let mut data = counted(name);
    data.extend(u16::try_from(kinds.len()).unwrap().to_be_bytes());
    data.extend(kinds.iter().flat_map(|kind| kind.to_be_bytes()));
    data
}

fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = counted(name);
    data.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    data.extend(queries.iter().flat_map(|query| counted(query)));
    data
}

const EXPORT_NAME: u32 = 1;
const ABORT: u32 = 2;
const LIST: u32 = 3;
const PEEK: u32 = 4;
const STARTTLS: u32 = 5;
const INFO: u32 = 6;
const GO: u32 = 7;
const STRUCTURED: u32 = 8;
const LIST_META: u32 = 9;
const SET_META: u32 = 10;
const EXTENDED: u32 = 11;
