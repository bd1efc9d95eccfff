//! A source file as the rules see it: the paths that its production code names, and how long it is.

use std::collections::BTreeSet;

use crate::lexer::{Kind, Token, lex};

/// A source file of the program, without its tests.
pub(crate) struct Source {
    /// Relative to the repository, with `/`.
    pub(crate) file: String,
    /// `["engine", "order"]` for `src/engine/order.rs`.
    pub(crate) module: Vec<String>,
    /// Every path that production code names, `use` trees expanded, `crate`, `self` and `super` resolved to `crate`.
    pub(crate) paths: Vec<Path>,
    /// Every name in production code with its line.
    pub(crate) names: Vec<(String, usize)>,
    /// The macros that production code calls.
    pub(crate) macros: Vec<(String, usize)>,
    /// Names in the whole file, tests too.
    pub(crate) all_names: Vec<(String, usize)>,
    /// Lines outside test items.
    pub(crate) lines: usize,
    /// The modules that are declared `#[cfg(test)] mod name;`: their files are tests.
    pub(crate) test_modules: BTreeSet<String>,
    /// The modules that are declared in this file without a body.
    pub(crate) modules: BTreeSet<String>,
}

/// A path as it is named in code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) segments: Vec<String>,
    /// From a `use`.
    pub(crate) imported: bool,
    pub(crate) line: usize,
}

impl Path {
    /// Whether the path is `prefix`, or something below it.
    pub(crate) fn is_in(&self, prefix: &str) -> bool {
        let mut own = self.segments.iter().map(String::as_str);
        prefix.split("::").all(|segment| own.next() == Some(segment))
    }

    /// The same path with `core` and `alloc` called `std`.
    pub(crate) fn rooted_in_std(mut self) -> Self {
        if matches!(self.segments[0].as_str(), "core" | "alloc") {
            "std".clone_into(&mut self.segments[0]);
        }
        self
    }

    /// Whether the path is `whole` and nothing below it.
    pub(crate) fn is(&self, whole: &str) -> bool {
        self.segments.join("::") == whole
    }
}

impl Source {
    /// Reads `text`, the contents of `file`, a path below the repository such as `src/engine/mod.rs`.
    pub(crate) fn parse(file: &str, text: &str) -> Self {
        let tokens = lex(text);
        let module = module_of(file);
        let (production, tests) = split_tests(&tokens);
        let test_lines: usize = tests.iter().map(|t| t.last_line + 1 - t.first_line).sum();
        Self {
            file: file.to_owned(),
            paths: paths_of(&production).into_iter().map(|path| resolve(&module, path)).collect(),
            names: names_of(&production),
            macros: production.windows(2).filter(|w| w[0].kind == Kind::Ident && w[1].is("!")).map(|w| named(&w[0])).collect(),
            all_names: names_of(&tokens),
            lines: text.lines().count() - test_lines,
            test_modules: tests.into_iter().filter_map(|t| t.declares).collect(),
            modules: declared_modules(&production),
            module,
        }
    }

    /// The room the file is in: `engine` for all of `src/engine`, `main` and `lib` for the two roots.
    pub(crate) fn room(&self) -> &str {
        self.module.first().map_or_else(|| if self.file.ends_with("main.rs") { "main" } else { "lib" }, String::as_str)
    }
}

fn module_of(file: &str) -> Vec<String> {
    let below = file.split_once("src/").map_or(file, |(_, below)| below).trim_end_matches(".rs");
    let mut module: Vec<String> = below.split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

fn named(token: &Token<'_>) -> (String, usize) {
    (token.text.to_owned(), token.line)
}

fn names_of(tokens: &[Token<'_>]) -> Vec<(String, usize)> {
    tokens.iter().filter(|t| t.kind == Kind::Ident).map(named).collect()
}

fn declared_modules(tokens: &[Token<'_>]) -> BTreeSet<String> {
    tokens.windows(3).filter(|w| w[0].is("mod") && w[2].is(";")).map(|w| w[1].text.to_owned()).collect()
}

/// An item that is compiled for tests only.
struct TestItem {
    first_line: usize,
    last_line: usize,
    /// The name, when it is `mod name;`.
    declares: Option<String>,
}

/// Takes the items under `#[cfg(test)]` out of a file; all of it after `#![cfg(test)]`.
fn split_tests<'a>(tokens: &[Token<'a>]) -> (Vec<Token<'a>>, Vec<TestItem>) {
    let (mut production, mut tests) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let Some(after) = test_attribute(&tokens[at..]) else {
            production.push(tokens[at]);
            at += 1;
            continue;
        };
        let inner = tokens[at + 1].is("!");
        let length = if inner { tokens.len() - at } else { after + item_length(&tokens[at + after..]) };
        let item = &tokens[at..at + length];
        let declares = item.windows(3).find(|w| w[0].is("mod") && w[2].is(";")).map(|w| w[1].text.to_owned());
        tests.push(TestItem { first_line: item[0].line, last_line: item[item.len() - 1].line, declares });
        at += length;
    }
    (production, tests)
}

/// The length of the `#[cfg(test)]` that `tokens` begin with, `#[cfg(all(test, …))]` and `#[test]` included.
fn test_attribute(tokens: &[Token<'_>]) -> Option<usize> {
    let length = attribute_length(tokens)?;
    let inside: Vec<&str> = tokens[1..length].iter().map(|t| t.text).filter(|text| *text != "!").collect();
    let is_test = inside.starts_with(&["[", "test"])
        || inside.starts_with(&["[", "cfg", "(", "test", ")"])
        || inside.starts_with(&["[", "cfg", "(", "all", "(", "test"]);
    is_test.then_some(length)
}

fn attribute_length(tokens: &[Token<'_>]) -> Option<usize> {
    let open = if tokens.get(1)?.is("!") { 2 } else { 1 };
    (tokens[0].is("#") && tokens.get(open)?.is("[")).then(|| open + group_length(&tokens[open..]))
}

/// The length of the bracketed group that `tokens` begin with.
fn group_length(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0_usize;
    for (n, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return n + 1;
        }
    }
    tokens.len()
}

/// The length of the item that `tokens` begin with: to its `;`, or to the end of its body.
fn item_length(tokens: &[Token<'_>]) -> usize {
    let mut at = 0;
    while let Some(length) = tokens.get(at..).filter(|rest| rest.len() > 1).and_then(attribute_length) {
        at += length;
    }
    let import = tokens[at..].iter().take_while(|t| !t.is(";") && !t.is("{")).any(|t| t.is("use"));
    while at < tokens.len() {
        match tokens[at].text {
            ";" => return at + 1,
            "{" if !import => return at + group_length(&tokens[at..]),
            "(" | "[" | "{" => at += group_length(&tokens[at..]),
            _ => at += 1,
        }
    }
    tokens.len()
}

fn paths_of(tokens: &[Token<'_>]) -> Vec<Path> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].is("use") {
            at += 1 + use_tree(&tokens[at + 1..], &[], &mut paths);
        } else if tokens[at].kind == Kind::Ident {
            let mut segments = vec![tokens[at].text.to_owned()];
            let line = tokens[at].line;
            at += 1;
            while at + 1 < tokens.len() && tokens[at].is("::") && tokens[at + 1].kind == Kind::Ident {
                segments.push(tokens[at + 1].text.to_owned());
                at += 2;
            }
            if segments.len() > 1 {
                paths.push(Path { segments, imported: false, line });
            }
        } else {
            at += 1;
        }
    }
    paths
}

/// Reads one tree of a `use` and returns how many tokens it had.
fn use_tree(tokens: &[Token<'_>], prefix: &[String], paths: &mut Vec<Path>) -> usize {
    let mut segments = prefix.to_vec();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.text {
            "::" => {}
            "self" if !segments.is_empty() => {}
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|t| !t.is("}")) {
                    at += use_tree(&tokens[at..], &segments, paths);
                    at += usize::from(tokens.get(at).is_some_and(|t| t.is(",")));
                }
                return at + 1;
            }
            "as" => at += 1,
            "," | "}" | ";" => break,
            text => segments.push(text.to_owned()),
        }
        at += 1;
    }
    if let Some(token) = tokens.first() {
        paths.push(Path { segments, imported: true, line: token.line });
    }
    at.max(1)
}

/// Turns `self::`, `super::` and `blkrep::` into `crate::`.
fn resolve(module: &[String], mut path: Path) -> Path {
    let supers = path.segments.iter().take_while(|s| *s == "super").count();
    let head = path.segments[0].as_str();
    let skip = if supers > 0 { supers } else { usize::from(matches!(head, "self" | "blkrep")) };
    if skip > 0 {
        let base = if head == "blkrep" { &[] } else { &module[..module.len().saturating_sub(supers)] };
        let own = path.segments.split_off(skip);
        path.segments = [&["crate".to_owned()], base, &own].concat();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(file: &str, text: &str) -> Vec<String> {
        Source::parse(file, text).paths.iter().map(|p| p.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_expanded() {
        let text = "use crate::{units::{BLOCK, Extent as E}, wire}; pub(crate) use std::{fs::{self, File}, io::*}; use ::rand;";
        let expected =
            ["crate::units::BLOCK", "crate::units::Extent", "crate::wire", "std::fs", "std::fs::File", "std::io::*", "rand"];
        assert_eq!(paths("src/engine/mod.rs", text), expected);
    }

    #[test]
    fn paths_in_code_and_types_are_found() {
        let text = "fn f(x: &crate::ring::Buf) -> Vec<<T as crate::nbd::X>::Y> { $crate::wire::go(std::thread::spawn) }";
        let expected = ["crate::ring::Buf", "crate::nbd::X", "crate::wire::go", "std::thread::spawn"];
        assert_eq!(paths("src/engine/mod.rs", text), expected);
    }

    #[test]
    fn super_and_self_are_resolved() {
        let text = "use super::b; use super::super::ring; use self::x;";
        assert_eq!(paths("src/engine/a.rs", text), ["crate::engine::b", "crate::ring", "crate::engine::a::x"]);
    }

    #[test]
    fn tests_are_left_out_and_do_not_count() {
        let text = "use crate::a;\n#[cfg(test)]\nuse crate::{b, c};\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n use std::fs;\n}\n\
                    fn f() {\n crate::d::e()\n}\n#[cfg(test)] mod model;\n#[cfg(not(test))] use crate::g;\nmod here;";
        let source = Source::parse("src/engine/mod.rs", text);
        let found: Vec<String> = source.paths.iter().map(|p| p.segments.join("::")).collect();
        assert_eq!(found, ["crate::a", "crate::d::e", "crate::g"]);
        assert_eq!(source.lines, 6);
        assert!(source.test_modules.contains("model") && source.modules.contains("here"));
    }

    #[test]
    fn rooms_follow_from_file_names() {
        let room = |file: &str| Source::parse(file, "").room().to_owned();
        assert_eq!(room("src/engine/sync/mod.rs"), "engine");
        assert_eq!(room("src/units.rs"), "units");
        assert_eq!(room("src/main.rs"), "main");
        assert_eq!(room("src/lib.rs"), "lib");
    }
}
