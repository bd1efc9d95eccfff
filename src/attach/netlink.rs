//! Generic netlink: talking to a family of the kernel's, with no more of it than that needs.
//!
//! Everything is in the machine's byte order and padded to four bytes; attributes may hold attributes.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::ring::os::join_netlink_group;

/// A family that the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its number, until the kernel is restarted or the module loaded anew.
    pub id: u16,
    /// Its one group of listeners, if it has any.
    pub group: Option<u32>,
}

/// A netlink socket.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
}

/// A message of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub command: u8,
    /// Its attributes, as they came.
    pub attributes: Vec<u8>,
}

impl Netlink {
    /// A socket whose answers may take so long; none to wait for ever.
    ///
    /// # Errors
    ///
    /// Those of the system calls.
    pub fn open(patience: Option<Duration>) -> io::Result<Self> {
        let (flags, protocol) = (SocketFlags::CLOEXEC, Some(GENERIC));
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, patience)?;
        Ok(Self { socket })
    }

    /// Looks a family up; `None` when the kernel has none of this name.
    ///
    /// # Errors
    ///
    /// Those of the system calls.
    pub fn family(&self, name: &str) -> io::Result<Option<Family>> {
        let mut asked = Attributes::default();
        asked.put(CTRL_ATTR_FAMILY_NAME, &[name.as_bytes(), &[0]].concat());
        let told = match self.ask(CTRL, CTRL_GET_FAMILY, &asked) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            told => told?.ok_or(io::ErrorKind::InvalidData)?,
        };
        let mut family = Family { id: 0, group: None };
        for (kind, value) in attributes(&told.attributes) {
            match kind {
                CTRL_ATTR_FAMILY_ID => family.id = half(value).unwrap_or(0),
                CTRL_ATTR_MCAST_GROUPS => {
                    let of_first = attributes(value).next().into_iter().flat_map(|(_, group)| attributes(group));
                    family.group = of_first.filter(|(kind, _)| *kind == CTRL_ATTR_MCAST_GRP_ID).find_map(|(_, id)| word(id));
                }
                _ => {}
            }
        }
        Ok(Some(family))
    }

    /// Hears what is told to a group of listeners from now on.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn join(&self, group: u32) -> io::Result<()> {
        join_netlink_group(&self.socket, group)
    }

    /// Asks a family for something, and waits until it is done; what it has told beside that.
    ///
    /// # Errors
    ///
    /// The family's own, TimedOut, those of the system calls.
    pub fn ask(&self, family: u16, command: u8, attributes: &Attributes) -> io::Result<Option<Message>> {
        let message = message(family, command, attributes);
        rustix::net::sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut told = None;
        loop {
            for part in self.receive()? {
                match part {
                    Part::Done(0) => return Ok(told),
                    Part::Done(error) => return Err(io::Error::from_raw_os_error(error)),
                    Part::Message(_, message) => told = Some(message),
                }
            }
        }
    }

    /// Waits for the next messages of a family.
    ///
    /// # Errors
    ///
    /// ENOBUFS when some were lost; those of the system call.
    pub fn hear(&self, family: u16) -> io::Result<Vec<Message>> {
        let parts = self.receive()?.into_iter();
        Ok(parts
            .filter_map(|part| if let Part::Message(of, message) = part { (of == family).then_some(message) } else { None })
            .collect())
    }

    fn receive(&self) -> io::Result<Vec<Part>> {
        let mut buffer = vec![0; DATAGRAM];
        let received = loop {
            match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                received => break received?.0,
            }
        };
        parse(&buffer[..received])
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel's message makes no sense"))
    }
}

/// A part of what was received.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// What was asked for is done, or failed with this number.
    Done(i32),
    /// A message of the family of this number.
    Message(u16, Message),
}

/// Attributes to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(HEAD + value.len()).expect("attributes are short");
        self.0.extend_from_slice(&bytes16(length));
        self.0.extend_from_slice(&bytes16(kind));
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Adds a number of four bytes.
    pub fn put_word(&mut self, kind: u16, value: u32) {
        self.put(kind, &bytes32(value));
    }

    /// Adds a number of eight bytes.
    #[expect(clippy::host_endian_bytes, reason = "netlink speaks the machine's order")]
    pub fn put_long(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Adds attributes.
    pub fn nest(&mut self, kind: u16, inner: &Self) {
        self.put(kind | NESTED, &inner.0);
    }
}

/// The attributes in some bytes: kind and value. What is cut off ends them.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (half(bytes)?, half(bytes.get(2..)?)?);
        let value = bytes.get(HEAD..usize::from(length))?;
        bytes = bytes.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED, value))
    })
}

/// A number of four bytes.
#[expect(clippy::host_endian_bytes, reason = "netlink speaks the machine's order")]
pub fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

#[expect(clippy::host_endian_bytes, reason = "netlink speaks the machine's order")]
fn half(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

#[expect(clippy::host_endian_bytes, reason = "netlink speaks the machine's order")]
fn bytes16(value: u16) -> [u8; 2] {
    value.to_ne_bytes()
}

#[expect(clippy::host_endian_bytes, reason = "netlink speaks the machine's order")]
fn bytes32(value: u32) -> [u8; 4] {
    value.to_ne_bytes()
}

/// A request with its heads: netlink's, and generic netlink's.
fn message(family: u16, command: u8, attributes: &Attributes) -> Vec<u8> {
    let length = u32::try_from(HEADS + attributes.0.len()).expect("messages are short");
    let mut message = Vec::with_capacity(HEADS + attributes.0.len());
    message.extend_from_slice(&bytes32(length));
    message.extend_from_slice(&bytes16(family));
    message.extend_from_slice(&bytes16(REQUEST | ACK));
    // A sequence number and a port: there is one request at a time on a socket.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[command, VERSION, 0, 0]);
    message.extend_from_slice(&attributes.0);
    message
}

/// The parts of a datagram.
fn parse(mut bytes: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(word(bytes)?).ok()?;
        let (family, rest) = (half(bytes.get(4..)?)?, bytes.get(NETLINK_HEAD..length)?);
        parts.push(match family {
            ERROR => Part::Done(word(rest)?.wrapping_neg().cast_signed()),
            _ => Part::Message(family, Message { command: *rest.first()?, attributes: rest.get(4..)?.to_vec() }),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(parts)
}

/// An attribute's head: length and kind.
const HEAD: usize = 4;
const NETLINK_HEAD: usize = 16;
const HEADS: usize = NETLINK_HEAD + 4;
/// As much as the kernel puts into one.
const DATAGRAM: usize = 32 << 10;
const VERSION: u8 = 1;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const ERROR: u16 = 2;
const NESTED: u16 = 1 << 15;
/// The family that knows the families.
const CTRL: u16 = 16;
const CTRL_GET_FAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut inner = Attributes::default();
        inner.put_word(1, 7);
        let mut all = Attributes::default();
        all.put(3, b"odd");
        all.nest(7, &inner);
        all.put_long(8, 1 << 40);
        let read: Vec<_> = attributes(&all.0).collect();
        assert_eq!(read[0], (3, &b"odd"[..]));
        assert_eq!(read[1].0, 7);
        assert_eq!(attributes(read[1].1).map(|(kind, value)| (kind, word(value))).collect::<Vec<_>>(), [(1, Some(7))]);
        assert_eq!((read[2].0, read[2].1.len()), (8, 8));
        assert_eq!(read.len(), 3);
        // Whatever is cut off is no attribute, and no panic.
        for end in 0..all.0.len() {
            assert!(attributes(&all.0[..end]).count() < 3);
        }
    }

    #[test]
    fn what_makes_no_sense_is_no_message() {
        let whole = message(20, 4, &Attributes::default());
        assert_eq!(parse(&whole), Some(vec![Part::Message(20, Message { command: 4, attributes: Vec::new() })]));
        for end in 1..whole.len() {
            assert_eq!(parse(&whole[..end]), None);
        }
    }

    #[test]
    fn the_kernel_tells_its_families() {
        let netlink = Netlink::open(Some(Duration::from_secs(5))).unwrap();
        let own = netlink.family("nlctrl").unwrap().unwrap();
        assert_eq!(own.id, CTRL);
        assert!(own.group.is_some());
        assert_eq!(netlink.family("no-such-family").unwrap(), None);
        // One that is wrongly asked says so.
        let error = netlink.ask(CTRL, CTRL_GET_FAMILY, &Attributes::default()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
