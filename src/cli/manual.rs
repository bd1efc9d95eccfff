//! The manual pages, made from the table of verbs.

use super::parser;
use super::spec::{Category, Verb};
use super::verbs;

/// What is written by hand of the program's page: everything but the list of verbs.
const OVERVIEW: &str = include_str!("overview.8.in");

/// A manual page.
pub(super) struct Page {
    /// The file's name, with its section.
    pub(super) file: String,
    /// The page, in roff.
    pub(super) text: String,
}

/// Every page: the program's, and one for each verb.
pub(super) fn pages() -> Vec<Page> {
    let shown = verbs::all().filter(|verb| verb.category != Category::Internal);
    let verbs = shown.map(|verb| Page { file: format!("{}.8", page_name(verb)), text: verb_page(verb) });
    std::iter::once(Page { file: "blkrep.8".to_owned(), text: overview() }).chain(verbs).collect()
}

/// `blkrep-add-volume`, as git names its pages.
fn page_name(verb: &Verb) -> String {
    format!("blkrep-{}", verb.name.replace(' ', "-"))
}

fn overview() -> String {
    let mut list = String::new();
    for category in Category::ALL {
        list += &format!(".SS {}\n", category.title());
        for verb in verbs::all().filter(|verb| verb.category == category) {
            let names: Vec<&str> = std::iter::once(verb.name).chain(verb.aliases.iter().copied()).collect();
            list += &format!(".TP\n.B {}\n{}.\n", escape(&names.join(", ")), escape(verb.short));
        }
    }
    OVERVIEW.replace("@VERSION@", env!("CARGO_PKG_VERSION")).replace("@VERBS@\n", &list)
}

fn verb_page(verb: &'static Verb) -> String {
    let mut root = parser::command();
    root.build();
    let command = verb
        .name
        .split(' ')
        .fold(&root, |command, name| command.find_subcommand(name).expect("the parser knows every verb of the table"));
    let usage = format!("blkrep {}", verb.name);
    let command =
        parser::without_global(command.clone()).bin_name(usage).display_name(page_name(verb)).after_long_help(None::<&str>);
    let page = clap_mangen::Man::new(command)
        .title(page_name(verb).to_uppercase())
        .section("8")
        .date("")
        .source(format!("blkrep {}", env!("CARGO_PKG_VERSION")))
        .manual("blkrep manual");
    let mut text = Vec::new();
    let rendered = page
        .render_title(&mut text)
        .and_then(|()| page.render_name_section(&mut text))
        .and_then(|()| page.render_synopsis_section(&mut text))
        .and_then(|()| page.render_description_section(&mut text))
        .and_then(|()| page.render_options_section(&mut text));
    rendered.expect("memory takes all that is written");
    let mut text = String::from_utf8(text).expect("clap writes UTF-8");
    if !verb.aliases.is_empty() {
        text += &format!(".SH ALIASES\n{}\n", escape(&verb.aliases.join(", ")));
    }
    text += ".SH EXAMPLES\n";
    for example in verb.examples {
        text += &format!(".TP\n{}:\n.B blkrep {}\n", escape(example.does), escape(example.line));
    }
    text + ".SH SEE ALSO\n.BR blkrep (8),\nwith the options of every verb\n"
}

/// Text as roff: hyphens that can be copied, and no line that could be taken for a request.
fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace("\n.", "\n\\&.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_in_man_are_those_of_the_table() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
        let pages = pages();
        for page in &pages {
            let written = std::fs::read_to_string(directory.join(&page.file)).unwrap_or_default();
            assert!(written == page.text, "man/{} is not up to date: run `blkrep generate man man/`", page.file);
        }
        let known: Vec<&str> = pages.iter().map(|page| page.file.as_str()).collect();
        for entry in std::fs::read_dir(&directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                known.contains(&name.as_str()) || !name.starts_with("blkrep"),
                "man/{name} is the page of no verb: remove it"
            );
        }
    }

    #[test]
    fn the_overview_names_every_verb() {
        let overview = overview();
        assert!(!overview.contains('@'), "something is not filled in");
        for verb in verbs::all().filter(|verb| verb.category != Category::Internal) {
            assert!(overview.contains(&escape(verb.name)), "{} is missing", verb.name);
        }
    }
}
