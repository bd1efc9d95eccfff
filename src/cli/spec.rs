//! What a verb is, as data.

use std::future::Future;
use std::pin::Pin;

use super::exit::Failure;
use super::given::Given;
use super::session::Session;

/// A verb of the command line: everything that the parser, the help, the manual and the completions say of it.
pub(super) struct Verb {
    /// Its name; two words where verbs of a kind are gathered (`generate man`).
    pub(super) name: &'static str,
    /// Other names, drbdmanage's first of all.
    pub(super) aliases: &'static [&'static str],
    /// Where it stands in `--help`.
    pub(super) category: Category,
    /// What it does, in half a line without a full stop.
    pub(super) short: &'static str,
    /// What there is to know beyond that; whole sentences.
    pub(super) long: &'static str,
    /// Its arguments, in groups that verbs share.
    pub(super) args: &'static [&'static [Arg]],
    /// How it is used.
    pub(super) examples: &'static [Example],
    /// What its handler runs on.
    pub(super) runtime: Runtime,
    /// What does it.
    pub(super) run: Handler,
}

/// Does what a verb says.
pub(super) type Handler = for<'a> fn(&'a Session<'a>, Given<'a>) -> Doing<'a>;

/// A verb being done.
pub(super) type Doing<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// A command line and what it does.
pub(super) struct Example {
    /// The command line, without the program's name.
    pub(super) line: &'static str,
    /// What it does, without a full stop.
    pub(super) does: &'static str,
}

/// Groups of verbs, in the order of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    /// Making a cluster of nodes.
    Cluster,
    /// What is stored.
    Volumes,
    /// As it was.
    Snapshots,
    /// Where it is stored.
    Replicas,
    /// Using volumes as block devices and file systems.
    Using,
    /// How it is.
    Watching,
    /// The program itself.
    Program,
    /// What the program starts of itself; in no list.
    Internal,
}

impl Category {
    /// Those that are shown.
    pub(super) const ALL: [Self; 7] =
        [Self::Cluster, Self::Volumes, Self::Snapshots, Self::Replicas, Self::Using, Self::Watching, Self::Program];

    /// The heading.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster and nodes",
            Self::Volumes => "Resources and volumes",
            Self::Snapshots => "Snapshots",
            Self::Replicas => "Replicas",
            Self::Using => "Devices and file systems",
            Self::Watching => "How things are",
            Self::Program => "The program itself",
            Self::Internal => "What the program starts of itself",
        }
    }
}

/// An argument.
#[derive(Clone, Copy)]
pub(super) struct Arg {
    /// Its name: that of the option, and the key that the handler asks by.
    pub(super) id: &'static str,
    /// How it is written.
    pub(super) form: Form,
    /// What it takes.
    pub(super) takes: Takes,
    /// What it means, in a line or two without a full stop.
    pub(super) help: &'static str,
    /// What counts when it is not given.
    pub(super) default: Option<&'static str>,
    /// The environment variable that counts when it is not given.
    pub(super) env: Option<&'static str>,
}

/// How an argument is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In its place; it must be given.
    Place,
    /// In its place, or not at all.
    OptionalPlace,
    /// In its place, once or more.
    Places,
    /// In its place, any number of times.
    OptionalPlaces,
    /// `--id`, and by a letter.
    Flag(Option<char>),
    /// `--id VALUE`, and by a letter.
    Option(Option<char>),
    /// `--id VALUE...`, and by a letter.
    Options(Option<char>),
}

/// What an argument takes: the word for it, how it is read, and how a shell completes it.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    /// Nothing: it is a flag.
    Nothing,
    /// A node's name.
    Node,
    /// A resource's name.
    Resource,
    /// `RES/VOL`, or `RES`.
    Target,
    /// A volume's number.
    Volume,
    /// A size; a number alone counts GiB.
    Size,
    /// A number of bytes, with or without a unit.
    Bytes,
    /// A length of time.
    Span,
    /// A number from 1.
    Count,
    /// A number from 0 of what the word says.
    Number(&'static str),
    /// An IP address.
    Address,
    /// An IP address with or without a port.
    Contact,
    /// A port.
    Port,
    /// Address and port.
    Socket,
    /// A pool, as what it is.
    Pool,
    /// A pool's name.
    PoolName,
    /// A file or directory.
    Path,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// What happens after a split brain, when neither, one or both sides are in use.
    AfterSb0,
    AfterSb1,
    AfterSb2,
    /// The name of an option.
    OptionName,
    /// Anything, called so.
    Text(&'static str),
}

impl Arg {
    const fn new(id: &'static str, form: Form, takes: Takes, help: &'static str) -> Self {
        Self { id, form, takes, help, default: None, env: None }
    }

    /// An argument in its place.
    pub(super) const fn place(id: &'static str, takes: Takes, help: &'static str) -> Self {
        Self::new(id, Form::Place, takes, help)
    }

    /// An argument in its place that can be left out.
    pub(super) const fn optional_place(id: &'static str, takes: Takes, help: &'static str) -> Self {
        Self::new(id, Form::OptionalPlace, takes, help)
    }

    /// One or more arguments in their place.
    pub(super) const fn places(id: &'static str, takes: Takes, help: &'static str) -> Self {
        Self::new(id, Form::Places, takes, help)
    }

    /// Any number of arguments in their place.
    pub(super) const fn optional_places(id: &'static str, takes: Takes, help: &'static str) -> Self {
        Self::new(id, Form::OptionalPlaces, takes, help)
    }

    /// A flag.
    pub(super) const fn flag(id: &'static str, short: Option<char>, help: &'static str) -> Self {
        Self::new(id, Form::Flag(short), Takes::Nothing, help)
    }

    /// An option with a value.
    pub(super) const fn option(id: &'static str, short: Option<char>, takes: Takes, help: &'static str) -> Self {
        Self::new(id, Form::Option(short), takes, help)
    }

    /// An option with values.
    pub(super) const fn options(id: &'static str, short: Option<char>, takes: Takes, help: &'static str) -> Self {
        Self::new(id, Form::Options(short), takes, help)
    }

    /// The same with what counts when it is not given.
    pub(super) const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// The same with the environment variable that counts when it is not given.
    pub(super) const fn env(self, env: &'static str) -> Self {
        Self { env: Some(env), ..self }
    }
}

/// What a handler runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    /// One thread: for verbs that ask a question and print the answer.
    Small,
    /// Two threads: for the daemon, whose control plane must go on while one of them is held up.
    Daemon,
}

impl Runtime {
    /// Runs a verb to its end.
    pub(super) fn block_on(self, doing: Doing<'_>) -> Result<(), Failure> {
        let mut builder = match self {
            Self::Small => tokio::runtime::Builder::new_current_thread(),
            Self::Daemon => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(2).thread_name("control").enable_all().build();
        let runtime = runtime.map_err(|error| Failure::io("cannot start the runtime", &error))?;
        let result = runtime.block_on(doing);
        // A thread that waits for standard input or for a command must not keep the program from ending.
        runtime.shutdown_background();
        result
    }
}
