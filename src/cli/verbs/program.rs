//! The program itself.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap_complete::Shell;
use tracing_subscriber::EnvFilter;

use crate::api::setup::DaemonOptions;
use crate::api::{ApiError, Code, Ping, Service, Shutdown};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::cli::target::Target;
use crate::cli::{demo, manual, nbd, parser, wait};

/// How long a daemon may take to end: it gives up its resources in order.
const GOODBYE: Duration = Duration::from_secs(60);

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "daemon",
        aliases: &[],
        category: Category::Program,
        short: "Run this node",
        long: "Runs in the foreground until it is told to end: by SIGTERM, SIGINT or `blkrep shutdown`. It then gives its resources up \
               in order. `blkrep init` and `blkrep join` start it by themselves.",
        args: &[&[
            Arg::flag("detached", None, "Leave the session and the terminal that it was started from"),
            Arg::flag("with-parent", None, "End when the process that started it ends"),
            Arg::option("log", None, Takes::Text("FILTER"), "What to log: error, warn, info, debug, or per module")
                .default("info")
                .env("BLKREP_LOG"),
            Arg::flag("log-json", None, "Log JSON, a line for each event"),
        ]],
        examples: &[Example { line: "daemon --log debug", does: "Run the node and log more" }],
        runtime: Runtime::Daemon,
        run: |session, given| Box::pin(daemon(session, given)),
    },
    Verb {
        name: "shutdown",
        aliases: &[],
        category: Category::Program,
        short: "End this node's daemon",
        long: "Its resources are given up in order: flushed, and marked clean; the command returns when it is gone. The node stays a member. With clients connected, it is \
               refused without --force.",
        args: &[&[Arg::flag("force", Some('f'), "Also when clients are connected, which are cut off")]],
        examples: &[Example { line: "shutdown -q", does: "End the daemon without being asked" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(shutdown(session, given)),
    },
    Verb {
        name: "demo",
        aliases: &[],
        category: Category::Program,
        short: "Show on this machine how a crash loses nothing",
        long: "Starts three nodes on this machine, makes a replicated volume, kills the primary in the middle of writes, reads \
               everything back from the other, starts the killed node again, and compares the replicas byte for byte. It needs \
               neither root nor a second machine, takes less than a minute and twice the volume's size in the temporary directory, \
               and leaves nothing behind. A daemon that runs on this machine is not disturbed.",
        args: &[&[
            Arg::option("size", None, Takes::Size, "The volume's size").default("256MiB"),
            Arg::option("replicas", None, Takes::OneOf(&["2", "3"]), "How many replicas it has").default("2"),
            Arg::flag("keep", None, "Leave the nodes running, and tell how to use them"),
        ]],
        examples: &[
            Example { line: "demo", does: "Run it" },
            Example { line: "demo --replicas 3 --keep", does: "Run it with three replicas, and go on by hand" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(demo::run(session, given)),
    },
    Verb {
        name: "nbd serve",
        aliases: &[],
        category: Category::Program,
        short: "Serve a volume to a client that starts its server",
        long: "For NBD clients that start their server themselves, at the end of a pipe or with a listening socket as systemd does \
               (LISTEN_FDS): `nbdfuse DIR --command ssh alpha blkrep nbd serve --stdio web` shows a volume of another machine as a \
               file, `nbdcopy -- [ blkrep nbd serve web ] backup.img` copies one. The client asks for the export without a name.",
        args: &[&[
            Arg::flag("stdio", None, "On standard input and output; otherwise on the sockets that it was started with"),
            Arg::place("export", Takes::Target, "The volume"),
        ]],
        examples: &[Example { line: "nbd serve --stdio web", does: "Serve the volume 0 of web on a pipe" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(async move { nbd_serve(session, given) }),
    },
    Verb {
        name: "generate man",
        aliases: &[],
        category: Category::Program,
        short: "Write the manual pages into a directory",
        long: "One page for the program, and one for each verb.",
        args: &[&[Arg::place("directory", Takes::Path, "The directory")]],
        examples: &[Example { line: "generate man man/", does: "Write the pages into man/" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(async move { pages(session, given) }),
    },
    Verb {
        name: "generate completions",
        aliases: &[],
        category: Category::Program,
        short: "Print a shell's completions",
        long: "Put them where the shell looks for them.",
        args: &[&[Arg::place("shell", Takes::OneOf(&["bash", "elvish", "fish", "powershell", "zsh"]), "The shell")]],
        examples: &[Example {
            line: "generate completions bash > /etc/bash_completion.d/blkrep",
            does: "Complete verbs and options in bash",
        }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(async move { completions(session, given) }),
    },
];

async fn daemon(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    if given.flag("detached") {
        // Fails only for the leader of a process group, who has nobody to be detached from.
        let _ = rustix::process::setsid();
    }
    if given.flag("with-parent") {
        let term = Some(rustix::process::Signal::TERM);
        let set = rustix::process::set_parent_process_death_signal(term);
        set.map_err(|error| Failure::io("cannot be told of the parent's end", &error.into()))?;
    }
    log(given)?;
    session.setup.daemon(DaemonOptions { root: session.root.clone() }).await.map_err(Failure::from)
}

/// Sends what the daemon tells to standard error.
pub(super) fn log(given: Given<'_>) -> Result<(), Failure> {
    let wanted: String = given.one("log");
    // Raft's own library tells every refused connection, again and again; what matters of it the control plane tells.
    let whole = if wanted.contains("openraft") { wanted.clone() } else { format!("{wanted},openraft=off") };
    let filter = EnvFilter::try_new(whole).map_err(|error| {
        Failure::usage(format_args!("'{wanted}' is no log filter: {error}"), "write error, warn, info or debug")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match given.flag("log-json") {
        true => builder.json().try_init(),
        false => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    set.map_err(|error| Failure::usage(format_args!("cannot log: {error}"), "this is a defect"))
}

async fn shutdown(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    session
        .confirm("You are going to end the daemon of this node.\nIts volumes cannot be used here until it is started again.")?;
    let done = session.client.shutdown(Shutdown { force: given.flag("force") }).await?;
    let gone = wait::until(GOODBYE, async || {
        let silent = session.client.ping(Ping {}).await.is_err();
        (silent && has_let_go(&session.root.state().join("lock"))).then_some(())
    });
    if gone.await.is_none() {
        return Err(ApiError::new(Code::TimedOut, "the daemon is still ending").hint("its log tells what it waits for").into());
    }
    session.output.done(&done, &done.notes)
}

/// Whether nobody holds the lock of a node's directory: its daemon, which answers no more, has really ended, and another may start.
fn has_let_go(lock: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    std::fs::File::open(lock).is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

fn nbd_serve(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (socket, export) = (session.root.nbd_socket(), given.one::<Target>("export").to_string());
    let listeners = if given.flag("stdio") { Vec::new() } else { session.setup.listeners()? };
    let served = match (given.flag("stdio"), listeners.is_empty()) {
        (true, _) => nbd::stdio::serve(&socket, &export),
        (false, false) => nbd::listening::serve(listeners, &socket, &export),
        (false, true) => {
            let hint = "write --stdio, or have it started with a listening socket: `nbdinfo -- [ blkrep nbd serve web ]`";
            return Err(Failure::usage("where shall the volume be served?", hint));
        }
    };
    served.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            ApiError::new(Code::Unreachable, format_args!("nobody serves NBD at {}: {error}", socket.display()))
                .hint("is the daemon running? `blkrep ping` tells")
                .into()
        }
        _ => Failure::io(format_args!("cannot serve {export}"), &error),
    })
}

fn pages(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let directory: PathBuf = given.one("directory");
    let failed = |error: std::io::Error| Failure::io(format_args!("cannot write into {}", directory.display()), &error);
    std::fs::create_dir_all(&directory).map_err(failed)?;
    for page in manual::pages() {
        std::fs::write(directory.join(&page.file), &page.text).map_err(failed)?;
    }
    session.output.done(&(), &[])
}

fn completions(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let shell: Shell = given.one::<String>("shell").parse().expect("the table's words are shells");
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut parser::command(), "blkrep", &mut script);
    session.output.text(String::from_utf8_lossy(&script))
}
