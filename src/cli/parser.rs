//! The table of verbs as clap's parser.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::error::ErrorKind;
use clap::{ArgAction, ArgMatches, Command, ValueHint, value_parser};

use super::exit::{Exit, Failure};
use super::output;
use super::size::{Bytes, Size};
use super::span::Span;
use super::spec::{Arg, Category, Form, Takes, Verb};
use super::target::{Contact, PoolArgument, Target};
use super::verbs;
use crate::api::OptionName;
use crate::api::setup::Root;
use crate::units::{AfterSb0, AfterSb1, AfterSb2, Name, VolumeId};

/// The line under the program's name.
pub(super) const ABOUT: &str = "Replicated block storage without a kernel module";

/// The heading of [`GLOBAL`].
const EVERYWHERE: &str = "Options of every verb";

/// Arguments that every verb takes.
pub(super) const GLOBAL: &[Arg] = &[
    Arg::option("root", None, Takes::Path, "The folder that the node's files hang below")
        .default(Root::DEFAULT)
        .env("BLKREP_ROOT"),
    Arg::option("output", None, Takes::OneOf(&["table", "json"]), "What to print: for people, or JSON for programs")
        .default("table"),
    Arg::flag("quiet", Some('q'), "Answer yes to every question"),
];

/// The whole parser.
pub(super) fn command() -> Command {
    let mut command = Command::new("blkrep")
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .subcommand_value_name("VERB")
        .arg_required_else_help(true)
        .max_term_width(110)
        .help_template("{about}\n\n{usage-heading} {usage}\n\n{before-help}{options}{after-help}")
        .before_help(verbs_by_category())
        .after_help("`blkrep help VERB` tells more of a verb; `man blkrep` of the whole.");
    command = command.args(GLOBAL.iter().map(|arg| argument(arg).global(true).help_heading(EVERYWHERE)));
    for verb in verbs::all() {
        command = match verb.name.split_once(' ') {
            None => command.subcommand(subcommand(verb, verb.name)),
            Some((group, name)) => within(command, group, subcommand(verb, name)),
        };
    }
    command
}

/// A verb's parser without what every verb takes: its manual page leaves that to the program's.
pub(super) fn without_global(command: Command) -> Command {
    GLOBAL.iter().fold(command, |command, global| command.mut_arg(global.id, |arg| arg.hide(true)))
}

/// The verb that was typed, and its arguments.
pub(super) fn verb_of(matches: &ArgMatches) -> (&'static Verb, &ArgMatches) {
    let (first, matches) = matches.subcommand().expect("the parser wants a verb");
    let (name, matches) = match matches.subcommand() {
        Some((second, matches)) => (format!("{first} {second}"), matches),
        None => (first.to_owned(), matches),
    };
    let verb = verbs::all().find(|verb| verb.name == name).expect("the parser knows the table's verbs only");
    (verb, matches)
}

/// Tells what is wrong with a command line, the program's name first, or the help that it asked for.
pub(super) fn explain(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let text = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match output::to_stdout(&styled(&text)) {
            Ok(()) => Exit::Success,
            Err(failure) => failure.exit(),
        },
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::to_stderr(&text.to_string());
            Exit::Usage
        }
        _ => {
            output::to_stderr(&output::failure_text(&complaint(&text.to_string(), arguments)));
            Exit::Usage
        }
    }
}

/// Help in bold and underlined, on a terminal.
fn styled(text: &clap::builder::StyledStr) -> String {
    if std::io::stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() }
}

/// Clap's complaint in the house's form: what is wrong in one line, how it is right in the next.
fn complaint(text: &str, arguments: &[OsString]) -> Failure {
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        words.join(" ")
    });
    let what = paragraphs.next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(&what).to_owned();
    let hints: Vec<String> = paragraphs
        .filter_map(|paragraph| match paragraph.split_once(": ") {
            Some(("tip", tip)) => Some(tip.to_owned()),
            Some(("Usage", usage)) => Some(format!("usage: {usage}")),
            _ => None,
        })
        .collect();
    let hint = if hints.is_empty() { where_to_look(arguments) } else { hints.join("; ") };
    Failure::usage(what, hint)
}

/// The help of the verb that was typed.
fn where_to_look(arguments: &[OsString]) -> String {
    let typed = |words: &[OsString]| words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let is = |verb: &&Verb, words: &[OsString]| {
        verb.name == typed(words) || words.len() == 1 && verb.aliases.contains(&&*typed(words))
    };
    let mut places = (1..arguments.len()).flat_map(|at| [2, 1].map(|words| arguments.get(at..at + words)));
    match places.find_map(|words| words.and_then(|words| verbs::all().find(|verb| is(verb, words)))) {
        Some(verb) => format!("`blkrep help {}` tells its arguments", verb.name),
        None => "`blkrep --help` lists the verbs".to_owned(),
    }
}

fn within(command: Command, group: &'static str, subcommand: Command) -> Command {
    if command.find_subcommand(group).is_some() {
        return command.mut_subcommand(group, |command| command.subcommand(subcommand));
    }
    let all: Vec<&str> = verbs::all().filter(|v| v.name.starts_with(&format!("{group} "))).map(|v| v.short).collect();
    let parent = Command::new(group).about(all.join("; ")).subcommand_required(true).arg_required_else_help(true);
    command.subcommand(parent.subcommand(subcommand))
}

fn subcommand(verb: &'static Verb, name: &'static str) -> Command {
    Command::new(name)
        .about(verb.short)
        .long_about(format!("{}.\n\n{}", verb.short, verb.long))
        .aliases(verb.aliases)
        .hide(verb.category == Category::Internal)
        .args(verb.args.iter().copied().flatten().map(argument))
        .allow_missing_positional(has_gap(verb))
        .after_long_help(aliases(verb) + &examples(verb))
}

/// Whether one argument may be left out before the last: `resize-volume RES [VOL] SIZE`.
fn has_gap(verb: &Verb) -> bool {
    let mut places = verb.args.iter().copied().flatten().filter(|arg| matches!(arg.form, Form::Place | Form::OptionalPlace));
    places.any(|arg| arg.form == Form::OptionalPlace) && places.next().is_some()
}

/// The other names of a verb, for its help.
fn aliases(verb: &Verb) -> String {
    if verb.aliases.is_empty() { String::new() } else { format!("Aliases: {}\n\n", verb.aliases.join(", ")) }
}

/// The examples of a verb, for its help.
fn examples(verb: &Verb) -> String {
    let lines = verb.examples.iter().map(|example| format!("  {}:\n    blkrep {}\n", example.does, example.line));
    format!("Examples:\n{}", lines.collect::<String>())
}

fn verbs_by_category() -> String {
    let width = verbs::all().map(|verb| verb.name.len()).max().unwrap_or(0);
    let section = |category: Category| {
        let verbs = verbs::all().filter(|verb| verb.category == category);
        let lines: String = verbs.map(|verb| format!("  {:width$}  {}\n", verb.name, verb.short)).collect();
        format!("{}:\n{lines}\n", category.title())
    };
    Category::ALL.into_iter().map(section).collect()
}

fn argument(arg: &Arg) -> clap::Arg {
    let mut built = clap::Arg::new(arg.id).help(arg.help);
    if let Some(default) = arg.default {
        built = built.default_value(default);
    }
    if let Some(env) = arg.env {
        built = built.env(env);
    }
    built = match arg.form {
        Form::Place => built.required(true),
        Form::OptionalPlace => built,
        Form::OptionalPlaces => built.num_args(0..).action(ArgAction::Append),
        Form::Places => built.required(true).num_args(1..).action(ArgAction::Append),
        Form::Flag(short) => return lettered(built, arg.id, short).action(ArgAction::SetTrue),
        Form::Option(short) => lettered(built, arg.id, short),
        Form::Options(short) => lettered(built, arg.id, short).num_args(1..).action(ArgAction::Append),
    };
    let (word, parser) = reader(arg.takes);
    if let Takes::OneOf(words) = arg.takes {
        return built.value_name(words.join("|")).value_parser(parser).hide_possible_values(true);
    }
    built.value_name(word).value_parser(parser).value_hint(hint(arg.takes))
}

fn lettered(arg: clap::Arg, long: &'static str, short: Option<char>) -> clap::Arg {
    let arg = arg.long(long);
    if let Some(short) = short { arg.short(short) } else { arg }
}

/// The word for a value, and what reads it.
fn reader(takes: Takes) -> (&'static str, ValueParser) {
    let name = |text: &str| text.parse::<Name>().map_err(|error| error.to_string());
    match takes {
        Takes::Nothing => ("", value_parser!(bool)),
        Takes::Node => ("NODE", ValueParser::new(name)),
        Takes::Resource => ("RES", ValueParser::new(name)),
        Takes::Target => ("RES[/VOL]", ValueParser::new(|text: &str| text.parse::<Target>())),
        Takes::Volume => ("VOL", ValueParser::new(volume)),
        Takes::Size => ("SIZE", ValueParser::new(|text: &str| text.parse::<Size>())),
        Takes::Bytes => ("BYTES", ValueParser::new(|text: &str| text.parse::<Bytes>())),
        Takes::Span => ("TIME", ValueParser::new(|text: &str| text.parse::<Span>())),
        Takes::Count => ("N", value_parser!(u32).range(1..).into()),
        Takes::Number(word) => (word, value_parser!(u64).into()),
        Takes::Address => ("IP", ValueParser::new(|text: &str| text.parse::<std::net::IpAddr>())),
        Takes::Contact => ("IP[:PORT]", ValueParser::new(|text: &str| text.parse::<Contact>())),
        Takes::Port => ("PORT", value_parser!(u16).range(1..).into()),
        Takes::Socket => ("IP:PORT", ValueParser::new(|text: &str| text.parse::<std::net::SocketAddr>())),
        Takes::Pool => ("SPEC", ValueParser::new(|text: &str| text.parse::<PoolArgument>())),
        Takes::PoolName => ("POOL", ValueParser::new(name)),
        Takes::Path => ("PATH", value_parser!(PathBuf)),
        Takes::OneOf(words) => ("WORD", PossibleValuesParser::new(words).into()),
        Takes::AfterSb0 => ("POLICY", ValueParser::new(|text: &str| text.parse::<AfterSb0>())),
        Takes::AfterSb1 => ("POLICY", ValueParser::new(|text: &str| text.parse::<AfterSb1>())),
        Takes::AfterSb2 => ("POLICY", ValueParser::new(|text: &str| text.parse::<AfterSb2>())),
        Takes::OptionName => ("OPTION", ValueParser::new(|text: &str| text.parse::<OptionName>())),
        Takes::Text(word) => (word, value_parser!(String)),
    }
}

fn volume(text: &str) -> Result<VolumeId, String> {
    text.parse().map(VolumeId).map_err(|_| format!("'{text}' is no volume number (0 to 65535)"))
}

fn hint(takes: Takes) -> ValueHint {
    match takes {
        Takes::Path => ValueHint::AnyPath,
        Takes::Address | Takes::Contact => ValueHint::Hostname,
        _ => ValueHint::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_makes_a_sound_parser() {
        command().debug_assert();
    }

    #[test]
    fn the_volume_may_stand_between_resource_and_size() {
        let parsed = |line: &str| {
            let matches = command().try_get_matches_from(line.split(' ')).unwrap();
            let (_, matches) = verb_of(&matches);
            (matches.get_one::<VolumeId>("volume").copied(), matches.get_one::<Size>("size").copied())
        };
        assert_eq!(parsed("blkrep resize web 5g"), (None, Some(Size(5 << 30))));
        assert_eq!(parsed("blkrep resize web 1 5g --by"), (Some(VolumeId(1)), Some(Size(5 << 30))));
    }

    #[test]
    fn a_wrong_command_line_is_told_in_the_houses_form() {
        let told = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let error = command().try_get_matches_from(&arguments).unwrap_err();
            output::failure_text(&complaint(&error.render().to_string(), &arguments))
        };
        assert_eq!(
            told("blkrep add-volume web"),
            "blkrep: the following required arguments were not provided: <SIZE>\n  hint: usage: blkrep add-volume <RES[/VOL]> <SIZE>\n"
        );
        assert!(told("blkrep ad-volume").starts_with("blkrep: unrecognized subcommand 'ad-volume'\n  hint: "));
        assert!(told("blkrep add-volume web 1q").contains("'1q' is no size"));
        assert!(told("blkrep --root /x av web 1q").ends_with("hint: `blkrep help add-volume` tells its arguments\n"));
        assert!(told("blkrep add-volume -web 1").starts_with("blkrep: unexpected argument"));
    }
}
