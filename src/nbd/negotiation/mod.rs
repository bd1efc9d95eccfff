//! The server's side of the fixed newstyle handshake.
//!
//! ```text
//!  Flags ──▶ Option ◀──────────────────────────────────┐
//!   │          ├─▶ Data ──▶ Asked ──(listed, opened)───┤
//!   │          ├─▶ Skip ──▶ (answered) ────────────────┤
//!   │          │     └────▶ Securing ──(secured)───────┘
//!   └──────────┴─▶ Closed          Asked ──(opened)──▶ Done
//! ```

mod action;
mod answer;
mod data;
mod incoming;

use std::mem;

use super::inbox::Inbox;
use super::option::{self, OptionCode, reply};
use super::{Export, Mode, Refusal, flags};
pub use action::{Action, CloseReason, Listed, Purpose, TlsPolicy};
use data::{ExportQuestion, MetaQuestion};

/// A client's handshake, from the first byte to the transmission phase.
///
/// Drive it by [`poll`](Self::poll) and do what the [`Action`] says, until it is [`Action::Done`] or [`Action::Close`]:
///
/// ```
/// # use blkrep::nbd::{Action, Export, Negotiation, Refusal, TlsPolicy};
/// # let mut socket = std::collections::VecDeque::from(vec![0, 0, 0, 8]);
/// let mut talk = Negotiation::new(TlsPolicy::Off);
/// loop {
///     match talk.poll() {
///         Action::Send(bytes) => { /* write all of them */ }
///         Action::Receive => match socket.pop_front() {
///             Some(byte) => talk.feed(&[byte]), // as many as there are, in reality
///             None => return,
///         },
///         Action::List => talk.listed(Ok(&[])),
///         Action::Open { name, purpose } => talk.opened(Err(Refusal::unknown(format!("there is no volume '{name}'")))),
///         Action::StartTls => talk.secured(), // after the TLS handshake; from here on bytes are those within TLS
///         Action::Done { mode, name, early } => { /* serve `early`, then the socket */ }
///         Action::Close(reason) => return, // close the connection; `reason` is for the log
///     }
/// }
/// ```
///
/// - It never waits for anything but the caller: an [`Action::Open`] or [`Action::List`] may be answered whenever the caller
///   knows the answer, and is asked again if `poll` is called before that. Answers to what was not asked are ignored.
/// - Options are handled one by one, and their replies handed out before the next is looked at: memory is bounded by one
///   option (256 KiB) and what the caller feeds at once.
/// - A client may take any time it likes. The caller should give it some seconds and then close.
/// - A send that fails because an aborting client is gone already is no error.
#[derive(Debug)]
pub struct Negotiation {
    tls: TlsPolicy,
    state: State,
    inbox: Inbox,
    outbox: Vec<u8>,
    /// The client speaks fixed newstyle: it may send options other than EXPORT_NAME.
    fixed: bool,
    no_zeroes: bool,
    secured: bool,
    agreed: Agreed,
}

/// The id under which `base:allocation` is selected. Not zero, which LIST_META_CONTEXT shows.
const ALLOCATION_ID: u32 = 1;

/// What STARTTLS throws away.
#[derive(Debug, Default)]
struct Agreed {
    structured: bool,
    extended: bool,
    /// The export for which `base:allocation` was selected.
    selected: Option<String>,
}

#[derive(Debug)]
enum State {
    /// The client's flags come next.
    Flags,
    /// An option's header comes next.
    Option,
    /// An option's data comes next.
    Data {
        option: OptionCode,
        length: usize,
    },
    /// Data that nobody looks at comes next.
    Skip {
        left: usize,
        option: u32,
        then: Then,
    },
    /// The caller has to say something.
    Asked(Question),
    /// The caller negotiates TLS.
    Securing,
    Done {
        mode: Mode,
        name: String,
    },
    Closed(CloseReason),
}

/// What happens when an option's data has been skipped.
#[derive(Clone, Copy, Debug)]
enum Then {
    Refuse(u32, &'static str),
    Act(OptionCode),
}

#[derive(Debug)]
enum Question {
    List,
    ExportName(String),
    Export(OptionCode, ExportQuestion),
    Meta(OptionCode, MetaQuestion),
}

impl Negotiation {
    /// A handshake with a client that has just connected; the first action sends the greeting.
    pub fn new(tls: TlsPolicy) -> Self {
        let mut outbox = Vec::with_capacity(18);
        outbox.extend_from_slice(&option::GREETING.to_be_bytes());
        outbox.extend_from_slice(&option::OPTION.to_be_bytes());
        outbox.extend_from_slice(&(flags::HANDSHAKE_FIXED_NEWSTYLE | flags::HANDSHAKE_NO_ZEROES).to_be_bytes());
        Self {
            tls,
            state: State::Flags,
            inbox: Inbox::default(),
            outbox,
            fixed: false,
            no_zeroes: false,
            secured: false,
            agreed: Agreed::default(),
        }
    }

    /// Takes bytes from the client, in pieces of any size.
    pub fn feed(&mut self, bytes: &[u8]) {
        match self.state {
            State::Securing if !bytes.is_empty() => self.close(CloseReason::PlainTextAfterStartTls),
            _ => self.inbox.feed(bytes),
        }
    }

    /// What to do next.
    pub fn poll(&mut self) -> Action {
        loop {
            if !self.outbox.is_empty() {
                return Action::Send(mem::take(&mut self.outbox));
            }
            let progress = match &self.state {
                State::Flags => self.client_flags(),
                State::Option => self.header(),
                State::Data { option, length } => self.data(*option, *length),
                State::Skip { left, option, then } => self.skip(*left, *option, *then),
                State::Asked(question) => return question.action(),
                State::Securing => return Action::StartTls,
                State::Done { .. } => return self.finish(),
                State::Closed(reason) => return Action::Close(reason.clone()),
            };
            if !progress {
                return Action::Receive;
            }
        }
    }

    /// Answers [`Action::List`]. Exports that only TLS clients may know of should be left out while this one has none
    /// ([`is_secured`](Self::is_secured)).
    pub fn listed(&mut self, exports: Result<&[Listed], Refusal>) {
        let State::Asked(Question::List) = self.state else { return };
        self.state = State::Option;
        match exports {
            Ok(exports) => {
                for export in exports {
                    answer::server(&mut self.outbox, export);
                }
                self.acknowledge(OptionCode::List);
            }
            Err(refusal) => self.refuse(OptionCode::List, &refusal),
        }
    }

    /// Answers [`Action::Open`]. An export that is refused is not the end: the client may ask for another.
    pub fn opened(&mut self, export: Result<Export, Refusal>) {
        if !matches!(self.state, State::Asked(Question::ExportName(_) | Question::Export(..) | Question::Meta(..))) {
            return;
        }
        let State::Asked(question) = mem::replace(&mut self.state, State::Option) else { return };
        match (question, export) {
            (Question::ExportName(name), Ok(export)) => self.enter(name, &export),
            (Question::ExportName(_), Err(refusal)) => self.close(CloseReason::Refused(refusal.text)),
            (Question::Export(option, question), Ok(export)) => self.inform(option, question, &export),
            (Question::Meta(option, question), Ok(_)) => self.contexts(option, question),
            (Question::Export(option, _) | Question::Meta(option, _), Err(refusal)) => self.refuse(option, &refusal),
            (Question::List, _) => {}
        }
    }

    /// The TLS handshake that [`Action::StartTls`] asked for has succeeded: bytes are those within TLS from here on. What was
    /// agreed on before is forgotten.
    pub fn secured(&mut self) {
        if matches!(self.state, State::Securing) {
            self.secured = true;
            self.agreed = Agreed::default();
            self.state = State::Option;
        }
    }

    /// Whether the connection has TLS.
    pub fn is_secured(&self) -> bool {
        self.secured
    }
}

/// What the caller's answers lead to.
impl Negotiation {
    fn enter(&mut self, name: String, export: &Export) {
        let mode = self.mode(&name, export);
        self.outbox.extend_from_slice(&export.size.to_be_bytes());
        self.outbox.extend_from_slice(&mode.flags().0.to_be_bytes());
        if !self.no_zeroes {
            self.outbox.extend_from_slice(&[0; 124]);
        }
        self.state = State::Done { mode, name };
    }

    fn inform(&mut self, option: OptionCode, question: ExportQuestion, export: &Export) {
        let mode = self.mode(&question.name, export);
        answer::informations(&mut self.outbox, option, &question, export, mode.flags());
        self.acknowledge(option);
        if option == OptionCode::Go {
            self.state = State::Done { mode, name: question.name };
        }
    }

    fn contexts(&mut self, option: OptionCode, question: MetaQuestion) {
        let set = option == OptionCode::SetMetaContext;
        if question.allocation {
            answer::context(&mut self.outbox, option, if set { ALLOCATION_ID } else { 0 }, option::ALLOCATION);
        }
        self.acknowledge(option);
        if set && question.allocation {
            self.agreed.selected = Some(question.name);
        }
    }

    /// What was agreed on, for an export. Contexts that were selected for another are not selected for this one.
    fn mode(&self, name: &str, export: &Export) -> Mode {
        let selected = self.agreed.selected.as_deref() == Some(name);
        Mode {
            structured: self.agreed.structured,
            extended: self.agreed.extended,
            allocation: selected.then_some(ALLOCATION_ID),
            read_only: export.read_only,
        }
    }

    fn finish(&mut self) -> Action {
        match mem::replace(&mut self.state, State::Closed(CloseReason::Over)) {
            State::Done { mode, name } => Action::Done { mode, name, early: self.inbox.take_all() },
            _ => Action::Close(CloseReason::Over),
        }
    }

    fn acknowledge(&mut self, option: OptionCode) {
        answer::reply(&mut self.outbox, option.code(), reply::ACK, &[]);
    }

    fn refuse(&mut self, option: OptionCode, refusal: &Refusal) {
        // "The server MUST NOT send NBD_REP_ERR_TLS_REQD" where TLS is there already, not to be had, or (under selective TLS)
        // to options other than INFO and GO.
        let may_ask_for_tls = self.tls != TlsPolicy::Off && !self.secured && matches!(option, OptionCode::Info | OptionCode::Go);
        let code = match refusal.code {
            reply::ERR_TLS_REQD if !may_ask_for_tls => reply::ERR_POLICY,
            code => code,
        };
        answer::error(&mut self.outbox, option.code(), code, &refusal.text);
    }

    fn close(&mut self, reason: CloseReason) {
        self.state = State::Closed(reason);
    }
}

impl Question {
    fn action(&self) -> Action {
        let (name, purpose) = match self {
            Self::List => return Action::List,
            Self::ExportName(name) => (name, Purpose::Serve),
            Self::Export(OptionCode::Go, question) => (&question.name, Purpose::Serve),
            Self::Export(_, question) => (&question.name, Purpose::Inspect),
            Self::Meta(_, question) => (&question.name, Purpose::Inspect),
        };
        Action::Open { name: name.clone(), purpose }
    }
}

#[cfg(test)]
mod tests;
