//! The first words on a replication link: both ends say who they are and what they speak, and come to the same answer.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::runtime::Lane;
use crate::units::{ClusterId, NodeId};
use crate::wire::{
    Agreed, BODY_MAX, Codec, Features, FrameError, HEADER, Hello, HelloError, Incoming, LinkMessage, Parsed, Process, Program,
    VERSIONS,
};

/// Why two nodes do not come together on a link.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetError {
    /// They do not speak the same, or are not of one cluster.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The peer does not say who its certificate says it is.
    #[error("the peer has the certificate of node {certified} and says that it is node {said}: a fault of its program")]
    Identity {
        /// By its certificate.
        certified: NodeId,
        /// By itself.
        said: NodeId,
    },
    /// There are not so many lanes.
    #[error("the peer asks for lane {0}, which there is not: a fault of its program")]
    NoSuchLane(u16),
    /// What it said is no hello.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Something else came first.
    #[error("the peer did not begin with a hello")]
    NoHello,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl GreetError {
    /// Whether it will not pass by itself.
    pub(super) fn needs_an_operator(&self) -> bool {
        matches!(self, Self::Hello(_))
    }
}

/// What this process says on a lane.
pub(super) fn ours(cluster: ClusterId, node: NodeId, lane: Lane, plain: bool) -> Hello {
    let features = if plain { Features::PLAIN } else { Features::NONE };
    Hello { versions: VERSIONS, program: Program::THIS, cluster, node, lane: lane.0, features, boot: *BOOT, process: *PROCESS }
}

/// Says hello.
pub(super) async fn say(stream: &mut (impl AsyncWrite + Unpin), hello: &Hello) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER + 128);
    Codec::HELLO.encode_link(&LinkMessage::Hello(*hello), &mut bytes);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Hears the peer's hello, and nothing that comes after it.
pub(super) async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hello, GreetError> {
    let mut bytes = Vec::new();
    loop {
        match Codec::HELLO.parse(&bytes)? {
            Parsed::More(length) => {
                // The header was checked before its length is believed.
                debug_assert!(length > bytes.len() && length <= HEADER + BODY_MAX as usize);
                let heard = bytes.len();
                bytes.resize(length, 0);
                stream.read_exact(&mut bytes[heard..]).await?;
            }
            Parsed::Whole { incoming: Incoming::Link(LinkMessage::Hello(hello)), header, .. } if header.payload_len == 0 => {
                return Ok(hello);
            }
            Parsed::Whole { .. } => return Err(GreetError::NoHello),
        }
    }
}

/// What both go by, if the peer is the node that its certificate says.
pub(super) fn agree(ours: &Hello, theirs: &Hello, certified: NodeId) -> Result<Agreed, GreetError> {
    let agreed = ours.agree(theirs)?;
    if theirs.node != certified {
        return Err(GreetError::Identity { certified, said: theirs.node });
    }
    Ok(agreed)
}

/// The machine's boot. One that cannot be read is nobody's: random, so that it equals no other.
static BOOT: LazyLock<u128> =
    LazyLock::new(|| crate::ring::os::boot_id().unwrap_or_else(|_| u128::from_le_bytes(crate::control::local::random_bytes())));

/// This process; what of it cannot be read is zero, which is nobody's.
static PROCESS: LazyLock<Process> = LazyLock::new(|| {
    let namespace = std::fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino());
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name comes second, in parentheses, and may have spaces; the start is the twentieth field after it.
    let started = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).and_then(|ticks| ticks.parse().ok());
    Process { id: std::process::id(), namespace, started: started.unwrap_or(0) }
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Versions;

    fn hello(node: u32, oldest: u8, newest: u8) -> Hello {
        let program = Program { major: 1, minor: newest.into(), patch: 0 };
        Hello { versions: Versions { oldest, newest }, program, ..ours(ClusterId(7), NodeId(node), Lane(3), node == 1) }
    }

    /// Both ends say and hear over a stream that gives little at a time.
    async fn greet(one: Hello, two: Hello) -> (Result<Agreed, GreetError>, Result<Agreed, GreetError>) {
        let (mut near, mut far) = tokio::io::duplex(7);
        let speak = async |stream: &mut tokio::io::DuplexStream, mine: Hello, peer: NodeId| {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let (said, theirs) = tokio::join!(say(&mut writer, &mine), hear(&mut reader));
            said.unwrap();
            agree(&mine, &theirs.unwrap(), peer)
        };
        tokio::join!(speak(&mut near, one, NodeId(2)), speak(&mut far, two, NodeId(1)))
    }

    #[tokio::test]
    async fn an_older_and_a_newer_peer_agree_on_the_newest_version_that_both_know() {
        for (one, two, version) in [((1, 1), (1, 1), 1), ((1, 1), (1, 4), 1), ((2, 5), (1, 3), 3)] {
            let (one, two) = greet(hello(1, one.0, one.1), hello(2, two.0, two.1)).await;
            let agreed = Agreed { version, features: Features::NONE };
            assert_eq!((one.unwrap(), two.unwrap()), (agreed, agreed), "only one of them offers plain text");
        }
    }

    #[tokio::test]
    async fn without_a_common_version_both_say_which_they_have_and_who_is_to_upgrade() {
        let (old, new) = greet(hello(1, 1, 2), hello(2, 3, 4)).await;
        let (old, new) = (old.unwrap_err().to_string(), new.unwrap_err().to_string());
        for told in [&old, &new] {
            assert!(told.contains("1 to 2") && told.contains("3 to 4"), "{told}");
        }
        assert!(old.contains("node 2 runs blkrep 1.4.0") && old.ends_with("upgrade this node"), "{old}");
        assert!(new.contains("node 1 runs blkrep 1.2.0") && new.ends_with("upgrade that node"), "{new}");
    }

    #[tokio::test]
    async fn a_stranger_and_one_that_is_not_who_it_says_are_refused_by_name() {
        let stranger = Hello { cluster: ClusterId(8), ..hello(2, 1, 1) };
        let (refused, _) = greet(hello(1, 1, 1), stranger).await;
        let told = refused.unwrap_err().to_string();
        assert!(told.contains(&ClusterId(8).to_string()) && told.contains(&ClusterId(7).to_string()), "{told}");
        let (refused, _) = greet(hello(1, 1, 1), hello(5, 1, 1)).await;
        assert!(matches!(refused, Err(GreetError::Identity { certified: NodeId(2), said: NodeId(5) })));
    }

    #[tokio::test]
    async fn what_is_no_hello_is_refused_and_what_follows_one_is_left_in_the_stream() {
        let mut junk: &[u8] = b"GET / HTTP/1.1\r\n\r\n and enough more to fill a whole header of a frame";
        assert!(matches!(hear(&mut junk).await, Err(GreetError::Frame(_))));
        let mut short: &[u8] = b"bk";
        assert!(matches!(hear(&mut short).await, Err(GreetError::Io(_))));
        let mut ping = Vec::new();
        Codec::new(1, false).encode_link(&LinkMessage::Ping { seq: 1, sent_at: 2 }, &mut ping);
        assert!(hear(&mut &ping[..]).await.is_err());
        let mut bytes = Vec::new();
        Codec::HELLO.encode_link(&LinkMessage::Hello(hello(2, 1, 1)), &mut bytes);
        bytes.push(0x50);
        let mut stream = &bytes[..];
        assert_eq!(hear(&mut stream).await.unwrap(), hello(2, 1, 1));
        assert_eq!(stream, [0x50]);
    }

    #[test]
    fn this_process_is_told_from_others() {
        assert!(PROCESS.id == std::process::id() && PROCESS.namespace > 0 && PROCESS.started > 0, "{:?}", *PROCESS);
    }
}
