//! A replica's metadata, looked at and mended while its node is stopped.

use std::fmt::Write;
use std::path::PathBuf;

use crate::api::metadata::{MetadataOf, MetadataReport, RecordReport, RestoreMetadata};
use crate::api::{ApiError, Code};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::output::Format;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::units::{Name, human};

/// Whose metadata.
const OF: Arg =
    Arg::place("of", Takes::Text("RES|FILE"), "The resource, or with a slash in it the file or device of the metadata");

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "metadata show",
        aliases: &[],
        category: Category::Replicas,
        short: "Explain the metadata of a stopped node's replica",
        long: "Whose it is, how its last life ended, which record it knows, where it may differ from others, and what will come of \
               that. The node must be stopped (`blkrep shutdown`), for its daemon changes metadata all the time; `blkrep status` \
               tells of a running one.",
        args: &[&[OF]],
        examples: &[
            Example { line: "metadata show web", does: "Explain the metadata of this node's replica of web" },
            Example { line: "metadata show /mnt/old/pool/web_meta", does: "Explain the metadata in a file" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(show(session, given)),
    },
    Verb {
        name: "metadata check",
        aliases: &[],
        category: Category::Replicas,
        short: "Check the metadata of a stopped node's replica",
        long: "Reads all of it. What is damaged is named, and the exit status is 1 then. Damage loses nothing: at the next start what is \
               below a damaged page counts as different, and is compared with a peer.",
        args: &[&[OF]],
        examples: &[Example { line: "metadata check web", does: "Check the metadata of this node's replica of web" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(check(session, given)),
    },
    Verb {
        name: "metadata dump",
        aliases: &[],
        category: Category::Replicas,
        short: "Print the metadata of a stopped node's replica",
        long: "A document in JSON that `blkrep metadata restore` takes. It has a checksum over all it says, and is refused when it was changed.",
        args: &[&[OF]],
        examples: &[Example { line: "metadata dump web > web.json", does: "Keep the metadata of this node's replica of web" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(dump(session, given)),
    },
    Verb {
        name: "metadata restore",
        aliases: &[],
        category: Category::Replicas,
        short: "Bring back the metadata of a stopped node's replica",
        long: "For metadata that was lost or moved while the data is still there. A dump knows nothing of what came after it: therefore \
               everything counts as different from every peer, and the data as an old state that is used only after a peer with the \
               newest was met. With --exact it counts for what it says, which is right when the replica was not started since the \
               dump was made, and loses data when it was.",
        args: &[&[
            OF,
            Arg::place("dump", Takes::Path, "The document, of `blkrep metadata dump`"),
            Arg::flag("exact", None, "The replica was not started since the dump was made"),
            Arg::flag("force", Some('f'), "Also over what belongs to another replica or is no metadata"),
        ]],
        examples: &[Example {
            line: "metadata restore web web.json",
            does: "Bring the metadata of this node's replica of web back",
        }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(restore(session, given)),
    },
];

async fn show(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let report = session.setup.metadata_report(session.root.clone(), of(given)?).await?;
    match session.output.format {
        Format::Json => session.output.json(&report),
        Format::Table | Format::Csv => session.output.text(explained(&report)),
    }
}

async fn check(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let report = session.setup.metadata_report(session.root.clone(), of(given)?).await?;
    if report.problems.is_empty() {
        return session.output.done(&report.problems, &[]);
    }
    let problems = report.problems.join("\n  ");
    Err(ApiError::new(Code::Storage, format_args!("{}:\n  {problems}", report.area))
        .hint("a damaged page is taken for the worst when the node is started, and mended by what is written then")
        .into())
}

async fn dump(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    session.output.line(session.setup.metadata_dump(session.root.clone(), of(given)?).await?)
}

async fn restore(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (of, path, exact) = (of(given)?, given.one::<PathBuf>("dump"), given.flag("exact"));
    let dump = std::fs::read_to_string(&path).map_err(|error| Failure::io(path.display(), &error))?;
    if exact {
        session.confirm(
            "You are going to say that this replica was not started since the dump was made.\nIf it was, data is lost later on \
             without a word.",
        )?;
    }
    let asked = RestoreMetadata { root: session.root.clone(), of, dump, exact, force: given.flag("force") };
    let done = session.setup.metadata_restore(asked).await?;
    session.output.done(&done, &done.notes)
}

/// A name has no slash in it; a path that has none can be written with one.
fn of(given: Given<'_>) -> Result<MetadataOf, Failure> {
    let text: String = given.one("of");
    if text.contains('/') {
        return Ok(MetadataOf::File(text.into()));
    }
    let name: Result<Name, _> = text.parse();
    name.map(MetadataOf::Replica)
        .map_err(|error| Failure::usage(error, format_args!("write the name of a resource, or ./{text} for a file")))
}

fn explained(report: &MetadataReport) -> String {
    let mut lines = vec![
        ("metadata", report.area.clone()),
        ("resource", format!("{}, on {}, cluster {}", report.resource, report.node, report.cluster)),
        ("replica", report.replica.clone()),
        ("life", life(report)),
        ("data", report.disk.to_string()),
        ("in sync", report.synced.as_ref().map_or_else(|| "never".to_owned(), |at| format!("as of record {}", point(at)))),
    ];
    lines.extend(report.record.as_ref().map(|record| ("record", told(record))));
    if !report.lineage.is_empty() {
        lines.push(("before it", report.lineage.join(" ")));
    }
    for volume in &report.volumes {
        let what = format!("{}, of which {} hot", human(volume.bytes), human(volume.hot_bytes));
        lines.push(("volume", format!("{}: {what}", volume.volume)));
        for peer in &volume.peers {
            let since =
                peer.since.as_ref().map_or_else(|| "never in sync".to_owned(), |at| format!("since record {}", point(at)));
            lines.push(("", format!("{}: {} dirty, {since}", peer.node, human(peer.dirty_bytes))));
        }
    }
    let titles = ["meaning"].into_iter().chain(std::iter::repeat(""));
    lines.extend(titles.zip(report.meaning.iter().cloned()));
    let titles = ["problem"].into_iter().chain(std::iter::repeat(""));
    lines.extend(titles.zip(report.problems.iter().cloned()));
    lines.iter().fold(String::new(), |mut out, (title, text)| {
        writeln!(out, "{title:<9}  {text}").expect("a string takes all that is written");
        out
    })
}

fn life(report: &MetadataReport) -> String {
    let end = if report.clean { "ended cleanly" } else { "did not end cleanly" };
    match report.incarnation == report.continues {
        true => format!("{}, {end}", report.incarnation),
        false => format!("{}, which goes on from {}, {end}", report.incarnation, report.continues),
    }
}

fn told(record: &RecordReport) -> String {
    let members: Vec<String> = record.in_sync.iter().map(|(node, life)| format!("{node} ({life})")).collect();
    let primary = record
        .primary
        .as_ref()
        .map_or_else(|| "no primary".to_owned(), |primary| format!("primary {primary} since record {}", record.reign));
    let point = point(&(record.number, record.id.clone()));
    format!("{point}, quorum={}, {primary}, in sync: {}", record.quorum, members.join(", "))
}

fn point((number, id): &(u64, String)) -> String {
    format!("{number} ({id})")
}
