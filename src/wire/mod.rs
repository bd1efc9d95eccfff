#![doc = include_str!("../docs/wire.md")]

mod body;
mod control;
mod diverged;
mod error;
mod frame;
mod header;
mod hello;
mod hot;
mod kind;
mod link;
mod message;
#[cfg(test)]
mod strategies;

pub use diverged::{Diverged, Side};
pub use error::{Blame, FrameError, Unsendable};
pub use frame::{Codec, Frame, Incoming, Parsed};
pub use header::{BODY_MAX, HEADER, Header, PAYLOAD_MAX};
pub use hello::{Agreed, Features, Hello, HelloError, Process, Program, VERSIONS, Versions};
pub use kind::Kind;
pub use link::LinkMessage;
pub use message::{
    BlockHash, FORWARDED_MAX, Failure, Forwarded, Introduction, Message, Origin, RANGES_MAX, RecordPoint, ReplicaStanding,
    Report, Standing, Write, Zero,
};
