//! A cluster with `quorum=majority`, small enough that everything that can happen to it can be visited.
//!
//! Sets of nodes, of blocks and of values are masks. A block is its own extent. The values of a block are the numbers of the writes
//! that wrote them; 0 is what was there before.

use std::hash::{Hash, Hasher};

/// A set of nodes, blocks, values or reigns.
pub type Mask = u8;

pub const NODES: usize = 3;
pub const BLOCKS: usize = 2;

pub fn bit(number: usize) -> Mask {
    1 << number
}

pub fn has(mask: Mask, number: usize) -> bool {
    mask & bit(number) != 0
}

/// A node's number as it is kept in a state.
pub fn small(number: usize) -> u8 {
    u8::try_from(number).expect("the model is small")
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    pub number: u8,
    pub members: Mask,
    pub lives: [u8; NODES],
    pub primary: u8,
    /// Reigns are counted here, not named by the record that began them.
    pub reign: u8,
}

impl Record {
    /// Whether it names this node in this life.
    pub fn names(&self, node: usize, life: u8) -> bool {
        has(self.members, node) && self.lives[node] == life
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    #[default]
    Secondary,
    TakingOver,
    Serving,
}

/// A primary's view of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Session {
    #[default]
    None,
    /// Asked to follow.
    Opening,
    /// Follows, and is named by the record in another life: to be evicted.
    OtherLife,
    /// A member that gets everything.
    Member,
    /// Not a member: is resynced, and gets everything.
    Target,
    /// The flush that comes before it is given anything to keep.
    Flushing,
    /// Stores what its promotion would need.
    Storing,
    /// Has stored it.
    Stored,
}

/// What a node has asked the authority for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    #[default]
    None,
    Reign,
    Evict,
    Admit,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Answer {
    /// Nothing was asked.
    #[default]
    None,
    /// The request is on its way, or has not been looked at.
    Open,
    Granted,
    Refused,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    pub life: u8,
    /// What the disk reads as, and what of it would be there after a loss of power.
    pub cache: [u8; BLOCKS],
    pub disk: [u8; BLOCKS],
    /// Submitted and not landed: a value and one; and who sent it.
    pub submitted: [u8; BLOCKS],
    pub submitter: u8,
    pub hot: Mask,
    pub memory: Mask,
    /// Per replica: bits in memory, bits on disk, and what was sent and is not confirmed durable.
    pub dirty: [Mask; NODES],
    pub stored: [Mask; NODES],
    pub window: [Mask; NODES],
    /// The highest reign it was told of, on disk.
    pub seen: u8,
    /// The primary that it follows, and one.
    pub follows: u8,
    /// Its primary has told it that the record names it.
    pub member: bool,
    /// Reigns that may still believe in a lease from this node.
    pub granted: Mask,
    /// With a rule broken: it does not know what it granted.
    pub forgetful: bool,
    pub role: Role,
    /// The primary's record.
    pub record: Record,
    pub purpose: Purpose,
    /// Per block: the write in flight, and who has not acknowledged it.
    pub flight: [u8; BLOCKS],
    pub missing: [Mask; BLOCKS],
    /// Blocks whose write began when a later reign was serving.
    pub late: Mask,
    pub sessions: [Session; NODES],
    /// The lives that replicas have reported from.
    pub met: [u8; NODES],
    /// Members that have reported in this reign.
    pub reported: Mask,
    /// Blocks of a resync under way.
    pub chunks: [Mask; NODES],
    /// Blocks that were read for a resync and are not sent: a value and one (only with a rule broken).
    pub held: [u8; BLOCKS],
    /// A round of flushes: who has not confirmed, and what was not written again since.
    pub round: bool,
    pub unflushed: Mask,
    pub covered: Mask,
    /// What the client may find after a loss of all power, once the round has ended.
    pub promise: [Mask; BLOCKS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    #[default]
    Nothing,
    Follow,
    Report,
    Write,
    Resync,
    Written,
    Flush,
    Flushed,
    Settled,
    Cool,
    Admit,
    AdmitStored,
    Admitted,
}

impl Kind {
    /// Whether it is a replica's to its primary.
    pub fn is_answer(self) -> bool {
        matches!(self, Self::Report | Self::Written | Self::Flushed | Self::AdmitStored)
    }
}

/// A message; what `a` and `b` are depends on its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message {
    pub kind: Kind,
    pub reign: u8,
    pub a: u8,
    pub b: u8,
}

/// What is on its way from one node to another, first things first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    length: u8,
    messages: [Message; QUEUE],
}

/// More than ever are under way at once; `push` says so if not.
const QUEUE: usize = 7;

impl Queue {
    pub fn push(&mut self, message: Message) {
        assert!(usize::from(self.length) < QUEUE, "more messages are under way than the model has room for: {self:?}");
        self.messages[usize::from(self.length)] = message;
        self.length += 1;
    }

    pub fn first(&self) -> Option<Message> {
        (self.length > 0).then_some(self.messages[0])
    }

    pub fn pop(&mut self) {
        self.messages.rotate_left(1);
        self.messages[QUEUE - 1] = Message::default();
        self.length -= 1;
    }

    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.messages[..usize::from(self.length)].iter()
    }

    pub fn retain(&mut self, stays: impl Fn(&Message) -> bool) {
        if self.iter().all(&stays) {
            return;
        }
        let was = std::mem::take(self);
        was.iter().filter(|message| stays(message)).for_each(|message| self.push(*message));
    }
}

impl Hash for Queue {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.length.hash(hasher);
        for Message { kind, reign, a, b } in self.iter() {
            hasher.write_u32(u32::from_le_bytes([*kind as u8, *reign, *a, *b]));
        }
    }
}

/// What is left of everything that is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub writes: u8,
    pub crashes: u8,
    pub breaks: u8,
    pub stops: u8,
    pub reigns: u8,
}

/// What clients were promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Promise {
    /// Per block: what a read may return.
    pub allowed: [Mask; BLOCKS],
    /// Per block: what it may return once all that are in sync have lost their power.
    pub durable: [Mask; BLOCKS],
    /// Writes that a read has shown never to have happened.
    pub never: Mask,
    /// Writes that were under way when all that were in sync lost their power: an answer to them comes too late to promise anything.
    pub excused: Mask,
    pub last_write: u8,
    /// All that were in sync have lost their power, and nobody has begun to serve since.
    pub lost: bool,
    /// The last reign that has served.
    pub served: u8,
    /// What a step has broken; 0 is nothing.
    pub broken: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How many nodes there are; the others are as they were made.
    pub count: usize,
    pub nodes: [Node; NODES],
    /// `open[i][j]`: the end at i of the connection between i and j.
    pub open: [[bool; NODES]; NODES],
    pub queues: [[Queue; NODES]; NODES],
    pub register: Record,
    /// What every node has asked the authority for, and the answer.
    pub asked: [Record; NODES],
    pub answers: [Answer; NODES],
    pub promise: Promise,
    pub left: Budget,
}

impl State {
    /// Whether both ends are open.
    pub fn connected(&self, a: usize, b: usize) -> bool {
        self.open[a][b] && self.open[b][a]
    }

    /// Sends a message; to an end that is closed it is lost at once.
    pub fn send(&mut self, from: usize, to: usize, kind: Kind, reign: u8, a: u8, b: u8) {
        if self.connected(from, to) {
            self.queues[from][to].push(Message { kind, reign, a, b });
        }
    }

    /// Whether the record names this node in the life that it is in, or in one that ended cleanly.
    pub fn is_good(&self, node: usize) -> bool {
        self.register.names(node, self.nodes[node].life)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { count, nodes, open, queues, register, asked, answers, promise, left } = self;
        for n in 0..*count {
            (nodes[n], asked[n], answers[n]).hash(hasher);
            (0..*count).for_each(|m| (open[n][m], queues[n][m]).hash(hasher));
        }
        (register, promise, left).hash(hasher);
    }
}
