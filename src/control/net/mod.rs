//! Requests between nodes: mTLS on the control port, and who may speak there.
//!
//! A connection carries one request at a time: a length, the service it is for, the request; then a length, whether it was
//! answered, the answer. Several requests to one node at once use several connections, which are kept for the next ones.

mod frame;
mod gate;
mod peers;
mod server;
mod strangers;
#[cfg(test)]
mod tests;

pub use self::frame::Service;
pub use self::gate::Gate;
pub(super) use self::peers::dial;
pub use self::peers::{Peers, ask_to_join};
pub use self::server::{Answering, Answers, bind, serve};
pub use self::strangers::{Stranger, Strangers};
