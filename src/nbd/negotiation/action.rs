//! What a handshake asks of its driver, and how it ends.

#[cfg(doc)]
use super::Negotiation;
use crate::nbd::Mode;
#[cfg(doc)]
use crate::nbd::Refusal;

/// Whether a listener has TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsPolicy {
    /// It has not.
    #[default]
    Off,
    /// Clients may use it; single exports may ask for it ([`Refusal::tls_required`]).
    Offered,
    /// Nothing is told or served without it.
    Required,
}

/// What the caller has to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send all of these bytes.
    Send(Vec<u8>),
    /// Receive some bytes and [`feed`](Negotiation::feed) them.
    Receive,
    /// Answer by [`listed`](Negotiation::listed).
    List,
    /// Answer by [`opened`](Negotiation::opened).
    Open {
        /// The name that the client gave; empty for the default export.
        name: String,
        /// What for.
        purpose: Purpose,
    },
    /// Do the server's side of a TLS handshake on the socket, then call [`secured`](Negotiation::secured); when it fails, close.
    StartTls,
    /// The handshake is over; what follows are requests. Told once.
    Done {
        /// What was agreed on.
        mode: Mode,
        /// The name that the client gave.
        name: String,
        /// Bytes that were fed and belong to the transmission phase already.
        early: Vec<u8>,
    },
    /// Close the connection.
    Close(CloseReason),
}

/// What an export is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To tell about it (INFO and the metadata options). Nothing should be attached for it.
    Inspect,
    /// To serve it (GO and EXPORT_NAME): granted, the next actions are [`Action::Send`] and [`Action::Done`].
    Serve,
}

/// One export of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// A text for people; empty for none.
    pub description: String,
}

/// Why a handshake ended without an export.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CloseReason {
    /// The client wanted to.
    #[error("the client ended the handshake")]
    Aborted,
    /// Its flags have bits that this server did not offer.
    #[error("the client asked for unknown handshake flags {0:#x}")]
    UnknownFlags(u32),
    /// It sent an option that clients without fixed newstyle cannot send.
    #[error("the client sent option {0} without agreeing to fixed newstyle")]
    NotFixed(u32),
    /// It does not speak NBD.
    #[error("the client sent {0:#018x} where an option begins: it does not speak NBD")]
    NotAnOption(u64),
    /// An option of absurd length.
    #[error("the client sent option {option} with {length} bytes of data")]
    TooLong {
        /// The option.
        option: u32,
        /// The length it claims.
        length: u32,
    },
    /// EXPORT_NAME cannot be refused in any other way.
    #[error("the client's EXPORT_NAME was refused: {0}")]
    Refused(String),
    /// Bytes in plain text after STARTTLS: the client, or someone between, wants them taken for encrypted ones.
    #[error("the client sent plain text after STARTTLS")]
    PlainTextAfterStartTls,
    /// [`Action::Done`] was told already.
    #[error("the handshake is over")]
    Over,
}
