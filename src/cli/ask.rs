//! Questions before something is destroyed.

use std::io::{self, BufRead, IsTerminal};

use super::exit::Failure;
use super::output::Output;
use crate::api::{ApiError, Code};

/// Who answers.
pub(super) enum Ask {
    /// Nobody is asked: the answer is yes (`-q`).
    Quiet,
    /// Someone at a terminal.
    Person(Box<dyn BufRead>),
    /// There is nobody to ask.
    Nobody,
}

impl Ask {
    /// Whoever is at the terminal, unless nobody shall be asked.
    pub(super) fn of_terminal(quiet: bool) -> Self {
        match quiet {
            true => Self::Quiet,
            false if io::stdin().is_terminal() => Self::Person(Box::new(io::stdin().lock())),
            false => Self::Nobody,
        }
    }

    /// Goes on when the answer is yes, and fails otherwise. `what` says what is about to happen, in whole lines.
    pub(super) fn confirm(&mut self, output: &Output, what: &str) -> Result<(), Failure> {
        match self {
            Self::Quiet => Ok(()),
            Self::Nobody => Err(Failure::usage(
                format_args!("this must be confirmed, and there is no terminal to ask at:\n{}", indented(what)),
                "-q answers yes",
            )),
            Self::Person(keyboard) => {
                output.aside(format_args!("{what}\n\nConfirm:\n\n"));
                if yes(keyboard, output)? { Ok(()) } else { Err(declined()) }
            }
        }
    }
}

/// Asks until the answer is one; the end of the input is a no.
fn yes(keyboard: &mut Box<dyn BufRead>, output: &Output) -> Result<bool, Failure> {
    loop {
        output.aside("  yes/no: ");
        let mut line = String::new();
        let read = keyboard.read_line(&mut line).map_err(|error| Failure::io("cannot read the answer", &error))?;
        match line.trim() {
            "yes" => return Ok(true),
            "no" => return Ok(false),
            _ if read == 0 => return Ok(false),
            _ => output.note("  Please answer 'yes' or 'no'."),
        }
    }
}

fn declined() -> Failure {
    ApiError::new(Code::Denied, "not confirmed; nothing was changed").into()
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}
