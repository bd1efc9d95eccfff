//! The client's side of the handshake.

use std::mem;

use crate::nbd::cursor::Cursor;
use crate::nbd::inbox::Inbox;
use crate::nbd::option::{self, OptionCode, info, reply};
use crate::nbd::{BlockSizes, MAX_STRING, Mode, TransmissionFlags, flags};

/// Opens an export.
///
/// [`poll`](Self::poll) it and do what the [`Step`] says until it is [`Step::Done`] or [`Step::Failed`]. What the server does
/// not know of the [`Wish`] is done without; only an export that cannot be had, and TLS, are insisted on.
#[derive(Debug)]
pub struct Handshake {
    wish: Wish,
    state: State,
    inbox: Inbox,
    outbox: Vec<u8>,
    no_zeroes: bool,
    agreed: Agreed,
}

/// What a client would like to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The export's name; empty for the default one. At most 4096 bytes.
    pub export: String,
    /// TLS, before anything else is said.
    pub tls: bool,
    /// Structured replies.
    pub structured: bool,
    /// Extended headers; structured replies are asked for where they are not known.
    pub extended: bool,
    /// `base:allocation`; needs one of the two.
    pub allocation: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send all of these bytes.
    Send(Vec<u8>),
    /// Receive some bytes and [`feed`](Handshake::feed) them.
    Receive,
    /// Do the client's side of a TLS handshake, then call [`secured`](Handshake::secured).
    StartTls,
    /// The export is open. Told once.
    Done(Agreed),
    /// It is not. Close the connection.
    Failed(HandshakeError),
}

/// What was agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// How requests and replies look.
    pub mode: Mode,
    /// The export's size in bytes.
    pub size: u64,
    /// What it can do.
    pub flags: TransmissionFlags,
    /// What requests should be made of, where the server says so.
    pub blocks: Option<BlockSizes>,
    /// Bytes that were fed and belong to the transmission phase already.
    pub early: Vec<u8>,
}

/// Why an export was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The other side does not speak (newstyle) NBD.
    #[error("the server sent {0:#018x}: it does not speak newstyle NBD")]
    NotNewstyle(u64),
    /// The other side broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Violation(&'static str),
    /// The server said no.
    #[error("the server refused option {option} with error {code:#x}: {text}")]
    Refused {
        /// What was asked for.
        option: u32,
        /// The error.
        code: u32,
        /// The server's words.
        text: String,
    },
    /// [`Step::Done`] was told already.
    #[error("the handshake is over")]
    Over,
}

/// The longest reply that is read: a text of 4096 bytes and some fields.
const MAX_REPLY: usize = MAX_STRING + 64;

#[derive(Debug)]
enum State {
    Greeting,
    /// A reply to this option comes next.
    Waiting(OptionCode),
    Securing,
    /// EXPORT_NAME's answer, which is no option reply, comes next.
    ExportName,
    Done,
    Failed(HandshakeError),
}

impl Handshake {
    /// A handshake with a server; the server speaks first.
    pub fn new(wish: Wish) -> Self {
        Self {
            wish,
            state: State::Greeting,
            inbox: Inbox::default(),
            outbox: Vec::new(),
            no_zeroes: false,
            agreed: Agreed::default(),
        }
    }

    /// Takes bytes from the server, in pieces of any size.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.inbox.feed(bytes);
    }

    /// The TLS handshake that [`Step::StartTls`] asked for has succeeded.
    pub fn secured(&mut self) {
        if matches!(self.state, State::Securing) {
            self.ask_for_headers();
        }
    }

    /// What to do next.
    pub fn poll(&mut self) -> Step {
        loop {
            if !self.outbox.is_empty() {
                return Step::Send(mem::take(&mut self.outbox));
            }
            let progress = match &self.state {
                State::Greeting => self.greeting(),
                State::Waiting(option) => self.reply(*option),
                State::ExportName => self.export_name(),
                State::Securing => return Step::StartTls,
                State::Done => {
                    self.state = State::Failed(HandshakeError::Over);
                    self.agreed.early = self.inbox.take_all();
                    return Step::Done(mem::take(&mut self.agreed));
                }
                State::Failed(error) => return Step::Failed(error.clone()),
            };
            match progress {
                Some(Ok(())) => {}
                Some(Err(error)) => self.state = State::Failed(error),
                None => return Step::Receive,
            }
        }
    }
}

/// What comes from the server: `None` while it is incomplete.
impl Handshake {
    fn greeting(&mut self) -> Option<Result<(), HandshakeError>> {
        let mut fields = Cursor(self.inbox.front(18)?);
        let (greeting, option, offered) = (fields.u64()?, fields.u64()?, fields.u16()?);
        self.inbox.skip(18);
        let unknown = [(greeting, option::GREETING), (option, option::OPTION)].into_iter().find(|(is, should)| is != should);
        if let Some((magic, _)) = unknown {
            return Some(Err(HandshakeError::NotNewstyle(magic)));
        }
        if offered & flags::HANDSHAKE_FIXED_NEWSTYLE == 0 {
            return Some(Err(HandshakeError::Violation("it does not know fixed newstyle")));
        }
        self.no_zeroes = offered & flags::HANDSHAKE_NO_ZEROES != 0;
        let no_zeroes = if self.no_zeroes { flags::CLIENT_NO_ZEROES } else { 0 };
        self.outbox.extend_from_slice(&(flags::CLIENT_FIXED_NEWSTYLE | no_zeroes).to_be_bytes());
        match self.wish.tls {
            true => self.ask(OptionCode::StartTls, &[]),
            false => self.ask_for_headers(),
        }
        Some(Ok(()))
    }

    fn reply(&mut self, asked: OptionCode) -> Option<Result<(), HandshakeError>> {
        let mut fields = Cursor(self.inbox.front(20)?);
        let (magic, option, kind) = (fields.u64()?, fields.u32()?, fields.u32()?);
        let length = usize::try_from(fields.u32()?).ok()?;
        if magic != option::REPLY || option != asked.code() || length > MAX_REPLY {
            return Some(Err(HandshakeError::Violation("its reply is not one to the option that was sent")));
        }
        let whole = 20 + length;
        let data = self.inbox.front(whole)?[20..].to_vec();
        self.inbox.skip(whole);
        Some(self.answer(asked, kind, &data))
    }

    fn export_name(&mut self) -> Option<Result<(), HandshakeError>> {
        let length = if self.no_zeroes { 10 } else { 134 };
        let mut fields = Cursor(self.inbox.front(length)?);
        let (size, flags) = (fields.u64()?, fields.u16()?);
        self.inbox.skip(length);
        self.exported(size, flags);
        self.state = State::Done;
        Some(Ok(()))
    }
}

/// What follows from it.
impl Handshake {
    fn answer(&mut self, asked: OptionCode, kind: u32, data: &[u8]) -> Result<(), HandshakeError> {
        use OptionCode as O;
        let refused = kind & reply::ERROR != 0;
        match (asked, kind) {
            (O::StartTls, reply::ACK) if self.inbox.peek().is_empty() => self.state = State::Securing,
            (O::StartTls, reply::ACK) => return Err(HandshakeError::Violation("plain text after STARTTLS")),
            (O::ExtendedHeaders, reply::ACK) => {
                self.agreed.mode.structured = true;
                self.agreed.mode.extended = true;
                self.ask_for_contexts();
            }
            (O::ExtendedHeaders, _) if refused => self.ask(O::StructuredReply, &[]),
            (O::StructuredReply, reply::ACK) => {
                self.agreed.mode.structured = true;
                self.ask_for_contexts();
            }
            (O::StructuredReply, _) if refused => self.ask_for_contexts(),
            (O::SetMetaContext, reply::META_CONTEXT) => self.context(data)?,
            (O::SetMetaContext, reply::ACK) => self.go(),
            (O::SetMetaContext, _) if refused => {
                self.agreed.mode.allocation = None;
                self.go();
            }
            (O::Go, reply::INFO) => self.information(data)?,
            (O::Go, reply::ACK) if self.agreed.flags.has(TransmissionFlags::HAS_FLAGS) => self.state = State::Done,
            (O::Go, reply::ERR_UNSUP) if !self.agreed.mode.extended => {
                let name = self.wish.export.clone();
                self.ask(O::ExportName, &[name.as_bytes()]);
                self.state = State::ExportName;
            }
            _ if refused => {
                let text = String::from_utf8_lossy(data).into_owned();
                return Err(HandshakeError::Refused { option: asked.code(), code: kind, text });
            }
            _ => return Err(HandshakeError::Violation("a reply that the option does not have")),
        }
        Ok(())
    }

    fn ask_for_headers(&mut self) {
        match (self.wish.extended, self.wish.structured) {
            (true, _) => self.ask(OptionCode::ExtendedHeaders, &[]),
            (false, true) => self.ask(OptionCode::StructuredReply, &[]),
            (false, false) => self.go(),
        }
    }

    fn ask_for_contexts(&mut self) {
        if !(self.wish.allocation && self.agreed.mode.structured) {
            return self.go();
        }
        let (name, query) = (self.wish.export.clone(), option::ALLOCATION.as_bytes());
        let one = 1u32.to_be_bytes();
        self.ask(OptionCode::SetMetaContext, &[&length(name.as_bytes()), name.as_bytes(), &one, &length(query), query]);
    }

    fn go(&mut self) {
        let name = self.wish.export.clone();
        let [one, kind] = [1, info::BLOCK_SIZE].map(u16::to_be_bytes);
        self.ask(OptionCode::Go, &[&length(name.as_bytes()), name.as_bytes(), &one, &kind]);
    }

    fn ask(&mut self, option: OptionCode, data: &[&[u8]]) {
        let whole: Vec<u8> = data.concat();
        self.outbox.extend_from_slice(&option::OPTION.to_be_bytes());
        self.outbox.extend_from_slice(&option.code().to_be_bytes());
        self.outbox.extend_from_slice(&length(&whole));
        self.outbox.extend_from_slice(&whole);
        self.state = State::Waiting(option);
    }

    fn context(&mut self, data: &[u8]) -> Result<(), HandshakeError> {
        let mut fields = Cursor(data);
        match fields.u32() {
            Some(id) if fields.0 == option::ALLOCATION.as_bytes() => self.agreed.mode.allocation = Some(id),
            _ => return Err(HandshakeError::Violation("a metadata context that was not asked for")),
        }
        Ok(())
    }

    fn information(&mut self, data: &[u8]) -> Result<(), HandshakeError> {
        let mut fields = Cursor(data);
        let understood = match fields.u16() {
            Some(info::EXPORT) => (|| {
                let (size, flags) = (fields.u64()?, fields.u16()?);
                self.exported(size, flags);
                Some(())
            })(),
            Some(info::BLOCK_SIZE) => (|| {
                let (minimum, preferred, payload) = (fields.u32()?, fields.u32()?, fields.u32()?);
                self.agreed.blocks = Some(BlockSizes { minimum, preferred, payload });
                Some(())
            })(),
            Some(_) => return Ok(()),
            None => None,
        };
        match understood {
            Some(()) if fields.is_empty() => Ok(()),
            _ => Err(HandshakeError::Violation("an information of the wrong length")),
        }
    }

    fn exported(&mut self, size: u64, flags: u16) {
        self.agreed.size = size;
        self.agreed.flags = TransmissionFlags(flags);
        self.agreed.mode.read_only = self.agreed.flags.has(TransmissionFlags::READ_ONLY);
    }
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("options are made of a few strings of at most 4096 bytes").to_be_bytes()
}

#[cfg(test)]
mod tests;
