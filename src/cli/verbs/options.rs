//! Options of the cluster and of resources.

use serde_json::Value;

use crate::api::{ListOptions, OnNoQuorum, OptionName, OptionValues, Options, Quorum, Service, SetOptions};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::output::Format;
use crate::cli::session::Session;
use crate::cli::size::Bytes;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::cli::table::{Cell, Table, left};
use crate::units::{Name, Protocol, human};

/// The options themselves, as `set-options`, `add-resource` and `add-volume` take them.
pub(super) const RESOURCE_OPTIONS: &[Arg] = &[
    Arg::option(
        "protocol",
        None,
        Takes::OneOf(&["A", "B", "C"]),
        "When a write is answered: A, when it is on its way to the peers; B, when they have received it; C, when it is on their disks",
    ),
    Arg::option(
        "quorum",
        None,
        Takes::OneOf(&["auto", "majority", "off"]),
        "Who decides when a replica is lost: a majority of the voters, or each node for itself; auto: a majority when there are three \
         voters as the resource is made",
    ),
    Arg::option(
        "on-no-quorum",
        None,
        Takes::OneOf(&["suspend-io", "io-error"]),
        "I/O without a quorum: it waits, or fails when it has waited for the peer-timeout and five seconds",
    ),
    Arg::option(
        "after-sb-0pri",
        None,
        Takes::AfterSb0,
        "After a split brain, when neither side is in use: disconnect (an operator decides), discard-younger-primary, discard-older-primary, \
         discard-zero-changes or discard-least-changes",
    ),
    Arg::option(
        "after-sb-1pri",
        None,
        Takes::AfterSb1,
        "When one side is in use: disconnect, consensus, discard-secondary or violently-as0p",
    ),
    Arg::option("after-sb-2pri", None, Takes::AfterSb2, "When both sides are in use: disconnect or violently-as0p"),
    Arg::option("peer-tls", None, Takes::OneOf(&["on", "off"]), "Whether replication is encrypted and authenticated"),
    Arg::option("resync-max", None, Takes::Bytes, "The most that a resync takes per second; 0 for no limit"),
    Arg::option("peer-timeout", None, Takes::Number("MILLISECONDS"), "How long a peer may be silent before it counts as gone"),
];

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "set-options",
        aliases: &["resource-options", "net-options"],
        category: Category::Volumes,
        short: "Change options of the cluster or of a resource",
        long: "A resource's option counts before the cluster's, and that before the default. --unset takes an option back, so that \
               the level above counts again.",
        args: &[
            &[
                Arg::flag("common", None, "Of the whole cluster"),
                Arg::option("resource", None, Takes::Resource, "Of this resource"),
                Arg::options("unset", None, Takes::OptionName, "Take these back"),
            ],
            RESOURCE_OPTIONS,
        ],
        examples: &[
            Example { line: "set-options --resource web --protocol A", does: "Replicate web asynchronously" },
            Example { line: "set-options --common --resync-max 100MiB", does: "Let resyncs take at most 100 MiB/s" },
            Example { line: "set-options --resource web --unset protocol", does: "Replicate web as the cluster does" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(set(session, given)),
    },
    Verb {
        name: "list-options",
        aliases: &["show-options"],
        category: Category::Volumes,
        short: "List the options of the cluster or of a resource",
        long: "It tells which value counts and where it was set.",
        args: &[&[Arg::optional_place("resource", Takes::Resource, "Of this resource")]],
        examples: &[Example { line: "list-options web", does: "List the options of web" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(list(session, given)),
    },
];

/// The options that were typed.
pub(super) fn values(given: Given<'_>) -> OptionValues {
    let word = |id: &str| given.maybe::<String>(id);
    OptionValues {
        protocol: word("protocol").map(|protocol| match protocol.as_str() {
            "A" => Protocol::A,
            "B" => Protocol::B,
            _ => Protocol::C,
        }),
        quorum: word("quorum").map(|quorum| match quorum.as_str() {
            "majority" => Quorum::Majority,
            "off" => Quorum::Off,
            _ => Quorum::Auto,
        }),
        on_no_quorum: word("on-no-quorum").map(|then| match then.as_str() {
            "io-error" => OnNoQuorum::IoError,
            _ => OnNoQuorum::SuspendIo,
        }),
        after_sb_0pri: given.maybe("after-sb-0pri"),
        after_sb_1pri: given.maybe("after-sb-1pri"),
        after_sb_2pri: given.maybe("after-sb-2pri"),
        peer_tls: word("peer-tls").map(|tls| tls == "on"),
        resync_max: given.maybe::<Bytes>("resync-max").map(|bytes| bytes.0),
        peer_timeout: given.maybe("peer-timeout"),
    }
}

async fn set(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let resource: Option<Name> = given.maybe("resource");
    if given.flag("common") == resource.is_some() {
        return Err(Failure::usage("whose options shall be changed?", "write either --common or --resource RES"));
    }
    let request = SetOptions { resource, set: values(given), unset: given.many("unset") };
    if request.set == OptionValues::default() && request.unset.is_empty() {
        return Err(Failure::usage("no option was named", "`blkrep help set-options` lists them"));
    }
    let done = session.client.set_options(request).await?;
    session.output.done(&done, &done.notes)
}

async fn list(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let resource: Option<Name> = given.maybe("resource");
    let mut options = session.client.list_options(ListOptions { resource: resource.clone() }).await?;
    if resource.is_none() && options.common.quorum.is_none() {
        // Each resource decides as it is made; there is no one value that counts.
        options.effective.quorum = Quorum::Auto;
    }
    match session.output.format {
        Format::Json => session.output.json(&options),
        Format::Table | Format::Csv => session.output.text(table(&options).render(session.output.colours)),
    }
}

fn table(options: &Options) -> Table {
    let Value::Object(mut levels) = serde_json::to_value(options).expect("options are JSON") else { unreachable!() };
    let mut level = |name: &str| levels.remove(name).unwrap_or_default();
    let (effective, resource, common) = (level("effective"), level("resource"), level("common"));
    let mut table = Table::new([left("Option"), left("Value"), left("Set for")]);
    for option in OptionName::ALL {
        let name = option.as_str();
        let level = match (resource.get(name), common.get(name)) {
            (Some(_), _) => "the resource",
            (None, Some(_)) => "the cluster",
            (None, None) => "(default)",
        };
        table.row([Cell::from(name), word(option, &effective[name]).into(), level.into()]);
    }
    table
}

/// A value as it is typed.
fn word(option: OptionName, value: &Value) -> String {
    match (option, value) {
        (OptionName::PeerTls, Value::Bool(on)) => (if *on { "on" } else { "off" }).to_owned(),
        (OptionName::PeerTimeout, value) => format!("{value} ms"),
        (OptionName::ResyncMax, Value::Number(bytes)) => match bytes.as_u64() {
            Some(0) | None => "no limit".to_owned(),
            Some(bytes) => format!("{}/s", human(bytes)),
        },
        (_, Value::String(word)) => word.clone(),
        (_, other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_shown_with_where_they_were_set() {
        let common = OptionValues { peer_tls: Some(false), quorum: Some(Quorum::Off), ..OptionValues::default() };
        let resource = OptionValues { quorum: Some(Quorum::Majority), resync_max: Some(100 << 20), ..OptionValues::default() };
        let options = Options { common, resource, effective: resource.over(common).effective() };
        let expected = "\
+-------------------------------------------+
| Option        | Value      | Set for      |
|-------------------------------------------|
| protocol      | C          | (default)    |
| quorum        | majority   | the resource |
| on-no-quorum  | suspend-io | (default)    |
| after-sb-0pri | disconnect | (default)    |
| after-sb-1pri | disconnect | (default)    |
| after-sb-2pri | disconnect | (default)    |
| peer-tls      | off        | the cluster  |
| resync-max    | 100 MiB/s  | the resource |
| peer-timeout  | 2000 ms    | (default)    |
+-------------------------------------------+
";
        assert_eq!(table(&options).render(false), expected);
    }
}
