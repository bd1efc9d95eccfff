//! Which message a frame carries.

/// The kind of a frame: the number at byte 3 of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The first frame in each direction of a connection.
    Hello = 1,
    /// A heartbeat.
    Ping = 2,
    /// Its answer.
    Pong = 3,
    /// The resource is not open at the sender.
    NotOpen = 4,
    /// [`Message::Write`](super::Message::Write).
    Write = 16,
    /// [`Message::Zero`](super::Message::Zero).
    Zero = 17,
    /// [`Message::Written`](super::Message::Written).
    Written = 18,
    /// [`Message::Received`](super::Message::Received).
    Received = 19,
    /// [`Message::Flush`](super::Message::Flush).
    Flush = 20,
    /// [`Message::Flushed`](super::Message::Flushed).
    Flushed = 21,
    /// [`Message::Settled`](super::Message::Settled).
    Settled = 22,
    /// [`Message::Read`](super::Message::Read).
    Read = 23,
    /// [`Message::ReadReply`](super::Message::ReadReply).
    ReadReply = 24,
    /// [`Message::Forward`](super::Message::Forward) and [`Message::Answer`](super::Message::Answer): as `Control`, with a payload.
    Forward = 33,
    /// Every other message between engines, in postcard's encoding.
    Control = 32,
}

impl Kind {
    const ALL: [Self; 15] = [
        Self::Hello,
        Self::Ping,
        Self::Pong,
        Self::NotOpen,
        Self::Write,
        Self::Zero,
        Self::Written,
        Self::Received,
        Self::Flush,
        Self::Flushed,
        Self::Settled,
        Self::Read,
        Self::ReadReply,
        Self::Forward,
        Self::Control,
    ];

    pub(super) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether the frame belongs to the connection rather than to a resource.
    pub(super) const fn is_link(self) -> bool {
        matches!(self, Self::Hello | Self::Ping | Self::Pong | Self::NotOpen)
    }

    /// Whether the frame can have a payload.
    pub(super) const fn has_payload(self) -> bool {
        matches!(self, Self::Write | Self::ReadReply | Self::Forward)
    }
}
