//! Everything that a verb prints, in the form that was asked for.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::exit::{Exit, Failure};
use super::given::Given;

/// drbdmanage's word for "done".
pub(super) const SUCCESS: &str = "Operation completed successfully";

/// What a list looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Tables and sentences for people.
    Table,
    /// drbdmanage's CSV, without a header (`-m`).
    Csv,
    /// The API's answers (`--output json`).
    Json,
}

/// Where a verb prints to.
pub(super) struct Output {
    /// What lists look like.
    pub(super) format: Format,
    /// Whether states are coloured.
    pub(super) colours: bool,
    /// Whether standard output is a terminal that can be redrawn.
    pub(super) terminal: bool,
    out: RefCell<Box<dyn Write>>,
    err: RefCell<Box<dyn Write>>,
}

impl Output {
    /// Standard output and standard error, as the arguments want it.
    pub(super) fn of_terminal(given: &Given<'_>) -> Self {
        let terminal = io::stdout().is_terminal();
        let colours = terminal && !given.flag("pastable") && std::env::var_os("NO_COLOR").is_none();
        Self { colours, terminal, ..Self::to(given, Box::new(io::stdout()), Box::new(io::stderr())) }
    }

    /// These writers, which are no terminal.
    pub(super) fn to(given: &Given<'_>, out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        let format = match given.maybe::<String>("output").as_deref() {
            Some("json") => Format::Json,
            _ if given.flag("machine-readable") => Format::Csv,
            _ => Format::Table,
        };
        Self { format, colours: false, terminal: false, out: RefCell::new(out), err: RefCell::new(err) }
    }

    /// Prints text as it is.
    pub(super) fn text(&self, text: impl AsRef<str>) -> Result<(), Failure> {
        let mut out = self.out.borrow_mut();
        out.write_all(text.as_ref().as_bytes())?;
        Ok(out.flush()?)
    }

    /// Prints a line.
    pub(super) fn line(&self, line: impl std::fmt::Display) -> Result<(), Failure> {
        self.text(format!("{line}\n"))
    }

    /// Prints a value as JSON.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(value).expect("answers of the API are JSON");
        self.line(json)
    }

    /// Tells people something beside the result, on standard error. Nobody reading it is no failure.
    pub(super) fn note(&self, note: impl std::fmt::Display) {
        self.aside(format_args!("{note}\n"));
    }

    /// As [`note`](Self::note), without ending the line.
    pub(super) fn aside(&self, text: impl std::fmt::Display) {
        let mut err = self.err.borrow_mut();
        let _ = write!(err, "{text}").and_then(|()| err.flush());
    }

    /// A change was made: the answer for programs; its notes and the success for people.
    pub(super) fn done(&self, answer: &impl Serialize, notes: &[String]) -> Result<(), Failure> {
        if self.format == Format::Json {
            return self.json(answer);
        }
        notes.iter().for_each(|note| self.note(note));
        self.line(SUCCESS)
    }

    /// Tells a failure, and what to exit with.
    pub(super) fn failed(&self, failure: &Failure) -> Exit {
        match (self.format, failure) {
            (Format::Json, Failure::Error(error) | Failure::Usage(error)) => {
                self.note(serde_json::to_string(error).expect("an error of the API is JSON"));
            }
            _ => self.aside(failure_text(failure)),
        }
        failure.exit()
    }
}

/// A failure for people: what happened, and what to do next.
pub(super) fn failure_text(failure: &Failure) -> String {
    match failure {
        Failure::OutputClosed => String::new(),
        Failure::Error(error) | Failure::Usage(error) if error.hint.is_empty() => format!("blkrep: {error}\n"),
        Failure::Error(error) | Failure::Usage(error) => format!("blkrep: {error}\n  hint: {}\n", error.hint),
    }
}

/// Prints to standard output before there is an [`Output`].
pub(super) fn to_stdout(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints to standard error before there is an [`Output`].
pub(super) fn to_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ApiError, Code};

    #[test]
    fn a_failure_says_what_happened_and_what_to_do() {
        let error = ApiError::new(Code::NotFound, "resource 'web' does not exist").hint("`blkrep list-resources` lists them");
        let text = "blkrep: resource 'web' does not exist\n  hint: `blkrep list-resources` lists them\n";
        assert_eq!(failure_text(&error.into()), text);
        assert_eq!(failure_text(&ApiError::new(Code::Internal, "it broke").into()), "blkrep: it broke\n");
        assert_eq!(failure_text(&Failure::OutputClosed), "");
    }
}
