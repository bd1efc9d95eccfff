//! The numbers of the handshake: magics, options, replies to them, and kinds of information.

/// Opens a newstyle server's greeting: "NBDMAGIC".
pub const GREETING: u64 = 0x4e42_444d_4147_4943;
/// Follows it, and opens every option: "IHAVEOPT".
pub const OPTION: u64 = 0x4948_4156_454f_5054;
/// Opens every reply to an option.
pub const REPLY: u64 = 0x0003_e889_0455_65a9;

/// The name of the one metadata context that is served.
pub const ALLOCATION: &str = "base:allocation";

/// An option that a client may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum OptionCode {
    /// Opens an export without a way to say no.
    ExportName = 1,
    /// Ends the handshake.
    Abort = 2,
    /// Asks for the exports' names.
    List = 3,
    /// Asks for TLS from here on.
    StartTls = 5,
    /// Asks about an export.
    Info = 6,
    /// Opens an export.
    Go = 7,
    /// Asks for structured replies.
    StructuredReply = 8,
    /// Asks which metadata contexts an export has.
    ListMetaContext = 9,
    /// Selects metadata contexts of an export.
    SetMetaContext = 10,
    /// Asks for extended headers.
    ExtendedHeaders = 11,
}

impl OptionCode {
    /// The option of a number from the wire; `None` for options that this server does not know, or knows as withdrawn (4).
    pub fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::ExportName,
            2 => Self::Abort,
            3 => Self::List,
            5 => Self::StartTls,
            6 => Self::Info,
            7 => Self::Go,
            8 => Self::StructuredReply,
            9 => Self::ListMetaContext,
            10 => Self::SetMetaContext,
            11 => Self::ExtendedHeaders,
            _ => return None,
        })
    }

    /// The number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// Types of replies to options.
pub mod reply {
    /// Done, or agreed.
    pub const ACK: u32 = 1;
    /// One export of a list.
    pub const SERVER: u32 = 2;
    /// One piece of information about an export.
    pub const INFO: u32 = 3;
    /// One metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// Set in every error.
    pub const ERROR: u32 = 1 << 31;
    /// The option is not known.
    pub const ERR_UNSUP: u32 = ERROR | 1;
    /// The option is known and not allowed.
    pub const ERR_POLICY: u32 = ERROR | 2;
    /// The option's data, or the option at this point, makes no sense.
    pub const ERR_INVALID: u32 = ERROR | 3;
    /// The platform lacks something.
    pub const ERR_PLATFORM: u32 = ERROR | 4;
    /// Not without TLS.
    pub const ERR_TLS_REQD: u32 = ERROR | 5;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = ERROR | 6;
    /// The server is ending.
    pub const ERR_SHUTDOWN: u32 = ERROR | 7;
    /// Not without asking for block sizes.
    pub const ERR_BLOCK_SIZE_REQD: u32 = ERROR | 8;
    /// The option is too long.
    pub const ERR_TOO_BIG: u32 = ERROR | 9;
    /// Extended headers are asked for, or are agreed already.
    pub const ERR_EXT_HEADER_REQD: u32 = ERROR | 10;
}

/// Kinds of information about an export.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// The export's own name.
    pub const NAME: u16 = 1;
    /// A text for people.
    pub const DESCRIPTION: u16 = 2;
    /// Minimum and preferred block, largest payload.
    pub const BLOCK_SIZE: u16 = 3;
}
