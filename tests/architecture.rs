//! The walls of the house: which room may know which, and what no room but one may touch.
//!
//! ARCHITECTURE.md says the same in prose. The rules read the sources' tokens, so that a comment or a string may name anything. Test
//! code is free: only what ships is held to the walls (`unsafe` is held everywhere).

#[path = "architecture/lexer.rs"]
mod lexer;
#[path = "architecture/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// Which rooms each room may name. What is not here is a new room: give it a line and a paragraph in ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("format", &["units"]),
    ("wire", &["units"]),
    ("nbd", &["units"]),
    ("ring", &["units"]),
    ("cluster", &["units"]),
    ("engine", &["units", "format", "wire"]),
    ("api", &["units"]),
    ("runtime", &["units", "format", "wire", "nbd", "engine", "ring"]),
    ("attach", &["units", "nbd", "ring", "api"]),
    ("docker", &["units", "api", "attach"]),
    ("cli", &["units", "nbd", "api"]),
    ("control", &["units", "format", "wire", "nbd", "engine", "ring", "runtime", "cluster", "api", "attach", "docker"]),
    ("main", &["units", "control", "cli", "api", "runtime"]),
];

/// The rooms whose behaviour depends on their arguments alone: time and randomness come in.
const PURE: &[&str] = &["units", "format", "wire", "nbd", "engine", "cluster"];

/// The crates that a pure room may name. Every other dependency is refused there.
const PURE_CRATES: &[&str] = &["blake3", "bytes", "crc32fast", "postcard", "serde", "serde_json", "thiserror"];

/// What a pure room may not name of the standard library, with everything below it.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "io::stderr",
    "io::stdin",
    "io::stdout",
    "std::net::Incoming",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
];

/// Importing one of these whole would hide what is taken from it.
const IMPURE_IMPORTS: &[&str] = &["std", "std::*", "std::io::*", "std::net", "std::net::*", "std::time", "std::time::*"];

/// Hash tables with a random seed iterate in another order in every process: a pure room would not be deterministic.
const RANDOM_ORDER: &[&str] = &["HashMap", "HashSet", "RandomState"];

/// Macros with an effect.
const IMPURE_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg", "thread_local"];

/// Crates that one room wraps for all others.
const OWNED_CRATES: &[(&str, &[&str])] = &[
    ("io_uring", &["ring"]),
    ("openraft", &["control"]),
    ("redb", &["control"]),
    ("drbdpool", &["control"]),
    ("duct", &[]),
    ("clap", &["cli", "main"]),
    ("fuser", &["attach"]),
];

/// Production lines a file may have.
const FILE_LINES: usize = 600;

/// Files that are longer, each with the reason why splitting it would make it harder to read.
const LONG_FILES: &[(&str, &str)] = &[];

/// Lines of `main.rs`.
const MAIN_LINES: usize = 100;

#[test]
fn every_room_is_on_the_map() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared = Source::parse("src/lib.rs", &lib).modules;
    let known: BTreeSet<String> = ARROWS.iter().map(|(room, _)| (*room).to_owned()).filter(|room| room != "main").collect();
    assert_eq!(declared, known, "src/lib.rs and the arrows of tests/architecture.rs name different rooms");
    hold(&lib_problems(&lib));
}

#[test]
fn rooms_know_only_what_the_arrows_allow() {
    hold(&each(program(), arrow_problems));
}

#[test]
fn pure_rooms_are_pure() {
    let crates = dependencies(&fs::read_to_string(root().join("Cargo.toml")).unwrap());
    assert!(crates.contains("tokio") && crates.contains("io_uring"), "the dependencies of Cargo.toml were not found: {crates:?}");
    hold(&each(program(), |source| purity_problems(source, &crates)));
}

#[test]
fn wrapped_crates_stay_wrapped() {
    hold(&each(program(), wrapper_problems));
}

#[test]
fn unsafe_is_in_the_ring_alone() {
    let files = sources("src").into_iter().chain(sources("drbdpool/src")).chain(sources("tests")).chain(sources("benches"));
    hold(&each(files.collect(), unsafe_problems));
}

#[test]
fn the_pool_crate_stands_alone() {
    let problems = each(sources("drbdpool/src"), |source| {
        let known = source.all_names.iter().filter(|(name, _)| name == "blkrep");
        known.map(|(_, line)| (*line, "the pool crate knows nothing of blkrep".to_owned())).collect()
    });
    hold(&problems);
}

#[test]
fn files_are_short() {
    let mut files: Vec<(String, usize)> =
        sources("src").into_iter().chain(sources("drbdpool/src")).map(|s| (s.file, s.lines)).collect();
    files.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    let total: usize = files.iter().map(|(_, lines)| lines).sum();
    println!("{} files, {total} lines without tests; the longest:", files.len());
    for (file, lines) in files.iter().take(10) {
        println!("{lines:6}  {file}");
    }
    hold(&length_problems(&files, LONG_FILES));
    let main = fs::read_to_string(root().join("src/main.rs")).unwrap().lines().count();
    assert!(main < MAIN_LINES, "src/main.rs has {main} lines; it should only choose between daemon and command line");
}

/// `lib.rs` declares modules and does nothing else.
fn lib_problems(text: &str) -> Vec<String> {
    let code: Vec<&str> = lexer::lex(text).iter().map(|t| t.text).collect();
    let map = code.chunks(4).all(|chunk| matches!(chunk, ["pub", "mod", _, ";"]));
    if map { Vec::new() } else { vec!["src/lib.rs: the map holds no logic, only `pub mod room;`".to_owned()] }
}

type Problems = Vec<(usize, String)>;

fn arrow_problems(source: &Source) -> Problems {
    let room = source.room();
    if room == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
        return vec![(1, format!("the room `{room}` has no arrows"))];
    };
    let named = source.paths.iter().filter(|path| path.segments[0] == "crate" && path.segments.len() > 1);
    let wrong = named.filter(|path| {
        let target = path.segments[1].as_str();
        target == "*" || (target != room && is_room(target) && !allowed.contains(&target))
    });
    wrong.map(|path| (path.line, format!("`{room}` may not know `{}`", path.segments[1]))).collect()
}

fn is_room(name: &str) -> bool {
    ARROWS.iter().any(|(room, _)| *room == name)
}

fn purity_problems(source: &Source, crates: &BTreeSet<String>) -> Problems {
    if !PURE.contains(&source.room()) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for path in &source.paths {
        let head = path.segments[0].as_str();
        let std = path.clone().rooted_in_std();
        if IMPURE.iter().any(|banned| std.is_in(banned)) || path.imported && IMPURE_IMPORTS.iter().any(|banned| std.is(banned)) {
            problems.push((path.line, format!("a pure room names {}", path.segments.join("::"))));
        }
        if crates.contains(head) && !PURE_CRATES.contains(&head) {
            problems.push((path.line, format!("a pure room names the crate {head}")));
        }
    }
    for (name, line) in &source.names {
        if RANDOM_ORDER.contains(&name.as_str()) {
            problems.push((*line, format!("{name} has a random order; use a BTreeMap, a BTreeSet or an index")));
        }
    }
    for (name, line) in &source.macros {
        if IMPURE_MACROS.contains(&name.as_str()) {
            problems.push((*line, format!("a pure room calls {name}!")));
        }
    }
    problems
}

fn wrapper_problems(source: &Source) -> Problems {
    let room = source.room();
    let foreign = |name: &str| OWNED_CRATES.iter().find(|(owned, rooms)| *owned == name && !rooms.contains(&room));
    let named = source.paths.iter().filter_map(|path| Some((path.line, foreign(&path.segments[0])?)));
    named.map(|(line, (name, rooms))| (line, format!("`{room}` names the crate {name}, which belongs to {rooms:?}"))).collect()
}

fn unsafe_problems(source: &Source) -> Problems {
    if source.file.starts_with("src/ring/") {
        return Vec::new();
    }
    let found = source.all_names.iter().filter(|(name, _)| name == "unsafe" || name == "unsafe_code");
    found.map(|(name, line)| (*line, format!("`{name}` outside src/ring"))).collect()
}

fn length_problems(files: &[(String, usize)], exempt: &[(&str, &str)]) -> Vec<String> {
    let reason = |file: &str| exempt.iter().any(|(name, reason)| *name == file && !reason.is_empty());
    let long = files.iter().filter(|(file, lines)| *lines > FILE_LINES && !reason(file));
    let mut problems: Vec<String> = long
        .map(|(file, lines)| format!("{file}: {lines} lines without tests, more than {FILE_LINES}; one idea a file"))
        .collect();
    let needless = exempt.iter().filter(|(name, _)| !files.iter().any(|(file, lines)| file == name && *lines > FILE_LINES));
    problems.extend(needless.map(|(name, _)| format!("{name}: exempt from {FILE_LINES} lines without need")));
    problems
}

/// The names that code uses for the dependencies of a `Cargo.toml`.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut section = "";
    let mut names = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let (Some((name, _)), true) = (line.split_once('='), section.ends_with("dependencies]")) {
            names.insert(name.trim().trim_matches('"').replace('-', "_"));
        }
    }
    names
}

fn hold(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn each(sources: Vec<Source>, rule: impl Fn(&Source) -> Problems) -> Vec<String> {
    assert!(!sources.is_empty(), "no sources were found");
    sources.iter().flat_map(|s| rule(s).into_iter().map(|(line, what)| format!("{}:{line}: {what}", s.file))).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn program() -> Vec<Source> {
    sources("src")
}

/// Every source file below `folder` that is not a test of its own.
fn sources(folder: &str) -> Vec<Source> {
    let mut files = BTreeMap::new();
    collect(&root().join(folder), &mut files);
    let is_test = |source: &Source| {
        (1..=source.module.len()).any(|depth| {
            let (parent, name) = (&source.module[..depth - 1], &source.module[depth - 1]);
            // A file that a `#[path]` names has its role in its name.
            name == "tests"
                || name.ends_with("_tests")
                || files.values().any(|other: &Source| other.module == parent && other.test_modules.contains(name))
        })
    };
    let tests: BTreeSet<String> = files.values().filter(|s| is_test(s)).map(|s| s.file.clone()).collect();
    files.into_values().filter(|s| !tests.contains(&s.file)).collect()
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            files.insert(path, Source::parse(&name, &text));
        }
    }
}

/// The rules themselves: each passes a good sample and refuses a bad one.
mod rules {
    use super::*;

    fn refusals(file: &str, text: &str, rule: impl Fn(&Source) -> Problems) -> usize {
        rule(&Source::parse(file, text)).len()
    }

    #[test]
    fn arrows_point_one_way() {
        let at = |file, text| refusals(file, text, arrow_problems);
        assert_eq!(at("src/engine/a.rs", "use crate::{units::X, wire::Y}; use crate::engine::b; // crate::runtime::z"), 0);
        assert_eq!(at("src/runtime/plane.rs", "mode: crate::nbd::Mode"), 0);
        assert_eq!(at("src/engine/a.rs", "use crate::{units::X, runtime::Y};"), 1);
        assert_eq!(at("src/engine/a.rs", "fn f(x: super::super::nbd::Mode) {}"), 1);
        assert_eq!(at("src/units/mod.rs", "use crate::*;"), 1);
        assert_eq!(at("src/cli/mod.rs", "use crate::control::Daemon;"), 1);
        assert_eq!(at("src/attic/mod.rs", ""), 1);
    }

    #[test]
    fn purity_is_noticed_when_it_goes() {
        let crates = dependencies("[dependencies]\ntokio = \"1\"\nio-uring = { version = \"0.7\" }\nserde = \"1\"\n");
        let at = |text| refusals("src/engine/a.rs", text, |s| purity_problems(s, &crates));
        assert_eq!(at("use std::{time::Duration, collections::BTreeMap, io}; use serde::Serialize; // std::fs"), 0);
        assert_eq!(at("#[cfg(test)] mod tests { use std::fs; }"), 0);
        for bad in [
            "use std::{fs::{self}, fmt};",
            "use std::time::{Duration, Instant};",
            "use core::time::Instant;",
            "use std::time;",
            "use std as s;",
            "let t = std::time::SystemTime::now();",
            "std::thread::sleep(d);",
            "tokio::spawn(x);",
            "use io_uring::IoUring;",
            "use std::collections::HashMap;",
            "println!(\"x\");",
        ] {
            assert_eq!(at(bad), 1, "{bad}");
        }
        assert_eq!(refusals("src/runtime/a.rs", "use std::fs; use tokio::x;", |s| purity_problems(s, &crates)), 0);
    }

    #[test]
    fn wrappers_and_unsafe_are_noticed() {
        assert_eq!(refusals("src/runtime/a.rs", "use io_uring::opcode;", wrapper_problems), 1);
        assert_eq!(refusals("src/ring/a.rs", "use io_uring::opcode;", wrapper_problems), 0);
        assert_eq!(refusals("src/control/a.rs", "#[cfg(test)] mod t { fn f() { unsafe { g() } } }", unsafe_problems), 1);
        assert_eq!(refusals("src/control/a.rs", "#![allow(unsafe_code)]", unsafe_problems), 1);
        assert_eq!(refusals("src/control/a.rs", "// unsafe\nlet s = \"unsafe\";", unsafe_problems), 0);
        assert_eq!(refusals("src/ring/a.rs", "unsafe { g() }", unsafe_problems), 0);
    }

    #[test]
    fn long_files_need_a_reason_and_reasons_a_long_file() {
        let files = [("src/a.rs".to_owned(), FILE_LINES + 1), ("src/b.rs".to_owned(), 10)];
        assert_eq!(length_problems(&files, &[]).len(), 1);
        assert_eq!(length_problems(&files, &[("src/a.rs", "a flat table")]).len(), 0);
        assert_eq!(length_problems(&files, &[("src/a.rs", "")]).len(), 1);
        assert_eq!(length_problems(&files, &[("src/a.rs", "a table"), ("src/b.rs", "was long once")]).len(), 1);
    }

    #[test]
    fn the_map_holds_no_logic() {
        assert!(lib_problems("//! The map.\npub mod a;\npub mod b;").is_empty());
        assert_eq!(lib_problems("pub mod a; pub fn f() {}").len(), 1);
        assert_eq!(lib_problems("pub mod a; pub use a::X;").len(), 1);
    }
}
