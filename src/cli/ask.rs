//! Questions before something is destroyed.

use std::io::{self, IsTerminal};

use super::exit::Failure;
use super::output::Output;
use crate::api::{ApiError, Code};

/// Who answers.
pub(super) enum Ask {
    /// Nobody is asked: the answer is yes (`-q`).
    Quiet,
    /// Someone who types lines.
    Person(ReadLine),
    /// There is nobody to ask.
    Nobody,
}

/// Appends the next line to a string; 0 bytes are the end. Standard input is not held on to between two questions: a verb may
/// want to read from it, too.
type ReadLine = Box<dyn FnMut(&mut String) -> io::Result<usize>>;

impl Ask {
    /// Whoever is at the terminal, unless nobody shall be asked.
    pub(super) fn of_terminal(quiet: bool) -> Self {
        match quiet {
            true => Self::Quiet,
            false if io::stdin().is_terminal() => Self::Person(Box::new(|line| io::stdin().read_line(line))),
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
            Self::Person(read_line) => {
                output.aside(format_args!("{what}\n\nConfirm:\n\n"));
                if yes(read_line, output)? { Ok(()) } else { Err(declined()) }
            }
        }
    }
}

/// Asks until the answer is one; the end of the input is a no.
fn yes(read_line: &mut ReadLine, output: &Output) -> Result<bool, Failure> {
    loop {
        output.aside("  yes/no: ");
        let mut line = String::new();
        let read = read_line(&mut line).map_err(|error| Failure::io("cannot read the answer", &error))?;
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

#[cfg(test)]
mod tests {
    use super::super::exit::Exit;
    use super::super::given::Given;
    use super::super::parser;
    use super::*;

    /// What becomes of a question that is answered so.
    fn confirmed(mut ask: Ask) -> Result<(), Exit> {
        let matches = parser::command().try_get_matches_from(["blkrep", "ping"]).unwrap();
        let (_, matches) = parser::verb_of(&matches);
        let output = Output::to(&Given::new(matches), Box::new(io::sink()), Box::new(io::sink()));
        ask.confirm(&output, "You are going to remove it.").map_err(|failure| failure.exit())
    }

    fn typed(lines: &'static str) -> Ask {
        let mut lines = lines.split_inclusive('\n');
        Ask::Person(Box::new(move |line| {
            let next = lines.next().unwrap_or_default();
            line.push_str(next);
            Ok(next.len())
        }))
    }

    #[test]
    fn only_yes_goes_on() {
        assert_eq!(confirmed(typed("yes\n")), Ok(()));
        assert_eq!(confirmed(typed("maybe\ny\nyes\n")), Ok(()));
        assert_eq!(confirmed(typed("no\nyes\n")), Err(Exit::Failure));
        assert_eq!(confirmed(typed("")), Err(Exit::Failure));
    }

    #[test]
    fn without_anyone_to_ask_nothing_is_done_unless_quiet() {
        assert_eq!(confirmed(Ask::Nobody), Err(Exit::Usage));
        assert_eq!(confirmed(Ask::Quiet), Ok(()));
    }
}
