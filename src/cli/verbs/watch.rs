//! How things are.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::api::{AskStatus, Ping, Service};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::output::{Format, failure_text};
use crate::cli::pace::Pace;
use crate::cli::picture;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};

/// Between two looks of `status --watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// Moves to the terminal's upper left corner and clears everything below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "status",
        aliases: &["st"],
        category: Category::Watching,
        short: "Tell how the cluster and its resources are",
        long: "For each replica: its node's role, the state of its disk, and what is wrong or going on. With --watch it goes on, and \
               shows how far resyncs are and how long they will take.",
        args: &[&[
            Arg::optional_place("resource", Takes::Resource, "This resource only"),
            Arg::flag("watch", Some('w'), "Go on until interrupted"),
        ]],
        examples: &[
            Example { line: "status web", does: "Tell how web is" },
            Example { line: "status --watch", does: "Watch a resync" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(status(session, given)),
    },
    Verb {
        name: "ping",
        aliases: &[],
        category: Category::Watching,
        short: "Tell whether the daemon answers",
        long: "Prints `pong`, or exits with 3 when it does not answer.",
        args: &[],
        examples: &[Example { line: "ping", does: "Tell whether the daemon answers" }],
        runtime: Runtime::Small,
        run: |session, _| Box::pin(ping(session)),
    },
    Verb {
        name: "server-version",
        aliases: &[],
        category: Category::Watching,
        short: "Tell the daemon's version",
        long: "`blkrep --version` tells that of the command line.",
        args: &[],
        examples: &[Example { line: "server-version", does: "Tell the daemon's version" }],
        runtime: Runtime::Small,
        run: |session, _| Box::pin(server_version(session)),
    },
];

async fn status(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let request = AskStatus { resource: given.maybe("resource") };
    if given.flag("watch") {
        return watch(session, request).await;
    }
    let status = session.client.status(request).await?;
    match session.output.format {
        Format::Json => session.output.json(&status),
        Format::Table | Format::Csv => session.output.text(picture::status(&status, &Pace::default(), session.output.colours)),
    }
}

/// Shows the status again and again. A daemon that does not answer is told, and asked again: it may be about to be restarted.
async fn watch(session: &Session<'_>, request: AskStatus) -> Result<(), Failure> {
    let mut pace = Pace::default();
    let clear = session.output.terminal && std::io::stdout().is_terminal();
    loop {
        let shown = match session.client.status(request.clone()).await {
            Ok(status) if session.output.format == Format::Json => {
                serde_json::to_string(&status).expect("a status is JSON") + "\n"
            }
            Ok(status) => {
                pace.look(&status, Instant::now());
                picture::status(&status, &pace, session.output.colours)
            }
            Err(error) => failure_text(&error.into()),
        };
        session.output.text(if clear { format!("{CLEAR}{shown}") } else { shown })?;
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn ping(session: &Session<'_>) -> Result<(), Failure> {
    let pong = session.client.ping(Ping {}).await?;
    match session.output.format {
        Format::Json => session.output.json(&pong),
        Format::Table | Format::Csv => session.output.line("pong"),
    }
}

async fn server_version(session: &Session<'_>) -> Result<(), Failure> {
    let pong = session.client.ping(Ping {}).await?;
    match session.output.format {
        Format::Json => session.output.json(&pong),
        Format::Table | Format::Csv => session.output.line(format_args!("blkrep {} on {}", pong.version, pong.node)),
    }
}
