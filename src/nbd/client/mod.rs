//! The client's side: enough to use a server of our own or another's from tests, tools and the fallback attach.
//!
//! [`Handshake`] opens an export; [`request()`] encodes what the server's side decodes, with the same [`Request`] type; and
//! [`decode`] takes replies apart. Like the server's side it moves no bytes itself.

mod handshake;
mod reply;
mod request;

pub use handshake::{Agreed, Handshake, HandshakeError, Step, Wish};
pub use reply::{Body, Reply, Violation, decode};
pub use request::request;

#[cfg(doc)]
use super::Request;
