//! What a demo tells: its steps as they are taken, and a table of what was shown and measured at the end.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::api::Resync;
use crate::api::state::Level;
use crate::cli::exit::Failure;
use crate::cli::output::{Format, Output};
use crate::cli::picture;
use crate::cli::table::{Cell, Table, left};
use crate::units::human;

/// Tells the steps, and keeps what they have shown.
pub(super) struct Report<'o> {
    output: &'o Output,
    shown: Vec<Shown>,
    /// When the step that is being taken began.
    began: Instant,
}

/// A line of the table.
#[derive(Debug, Serialize)]
struct Shown {
    what: String,
    result: String,
    seconds: f64,
}

impl<'o> Report<'o> {
    /// A report without a line.
    pub(super) fn new(output: &'o Output) -> Self {
        Self { output, shown: Vec::new(), began: Instant::now() }
    }

    /// A step begins.
    pub(super) fn step(&mut self, what: &str) {
        self.began = Instant::now();
        self.output.note(format_args!("- {what}"));
    }

    /// What the step has shown; the time is that since its beginning.
    pub(super) fn shown(&mut self, what: &str, result: impl ToString) {
        self.measured(what, result, self.began.elapsed());
    }

    /// What was shown, with a time of its own.
    pub(super) fn measured(&mut self, what: &str, result: impl ToString, time: Duration) {
        self.shown.push(Shown { what: what.to_owned(), result: result.to_string(), seconds: time.as_secs_f64() });
    }

    /// The time since the step began.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// How far a resync is, in place of what was told of it before.
    pub(super) fn progress(&self, resync: Resync) {
        if self.output.terminal {
            let (back, bar) = ("\r\x1b[K", picture::bar(resync));
            self.output.aside(format_args!("{back}    {bar} of {}", human(resync.total)));
        }
    }

    /// The resync is over.
    pub(super) fn progress_ends(&self) {
        if self.output.terminal {
            self.output.aside("\r\x1b[K");
        }
    }

    /// The table, or JSON.
    pub(super) fn print(&self) -> Result<(), Failure> {
        if self.output.format == Format::Json {
            return self.output.json(&self.shown);
        }
        let mut table = Table::new([left("Shown"), left("Result"), left("Time")]);
        for shown in &self.shown {
            let result = Cell::state(&shown.result, Level::Normal);
            table.row([Cell::from(&shown.what), result, format!("{:.2} s", shown.seconds).into()]);
        }
        self.output.text(format!("\n{}", table.render(self.output.colours)))
    }
}

/// `256 MiB, 213 MiB/s`
pub(super) fn rate(bytes: u64, time: Duration) -> String {
    let per_second = u128::from(bytes) * 1000 / time.as_millis().max(1);
    format!("{}, {}/s", human(bytes), human(u64::try_from(per_second).unwrap_or(u64::MAX)))
}
