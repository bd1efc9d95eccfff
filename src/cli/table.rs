//! Tables in drbdmanage's frame.
//!
//! ```text
//! +--------------------------+
//! | Name       | Vol ID | St |
//! |--------------------------|
//! | resource01 |      0 | ok |
//! +--------------------------+
//! ```

use std::cmp::Ordering;
use std::fmt::Write;

use crate::api::state::Level;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its title.
    pub(super) title: &'static str,
    /// Whether title and cells stand at its right edge.
    pub(super) right: bool,
}

/// A column whose cells stand at its left edge.
pub(super) const fn left(title: &'static str) -> Column {
    Column { title, right: false }
}

/// A column whose cells stand at its right edge.
pub(super) const fn right(title: &'static str) -> Column {
    Column { title, right: true }
}

/// What stands in a cell, and how much attention it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    level: Option<Level>,
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.to_string(), level: None }
    }
}

impl Cell {
    /// A cell that is coloured by `level`, where there are colours.
    pub(super) fn state(text: impl ToString, level: Level) -> Self {
        Self { text: text.to_string(), level: Some(level) }
    }
}

/// A table. Every row has as many cells as there are columns.
#[derive(Clone, Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    separators: bool,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new(), separators: false }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    /// With a line between rows.
    #[must_use]
    pub(super) fn separated(self, separators: bool) -> Self {
        Self { separators, ..self }
    }

    /// With the columns whose titles `shown` accepts.
    #[must_use]
    pub(super) fn select(self, shown: impl Fn(&str) -> bool) -> Self {
        let keep: Vec<bool> = self.columns.iter().map(|column| shown(column.title)).collect();
        fn pick<T>(all: Vec<T>, keep: &[bool]) -> Vec<T> {
            all.into_iter().zip(keep).filter_map(|(one, keep)| keep.then_some(one)).collect()
        }
        let rows = self.rows.into_iter().map(|row| pick(row, &keep)).collect();
        Self { columns: pick(self.columns, &keep), rows, ..self }
    }

    /// In the natural order of the columns `titles`, the first being the most important. Titles that there are not are passed over.
    #[must_use]
    pub(super) fn sorted(mut self, titles: &[&str]) -> Self {
        let keys: Vec<usize> = titles.iter().filter_map(|t| self.columns.iter().position(|c| same_title(c.title, t))).collect();
        self.rows.sort_by(|a, b| {
            let orders = keys.iter().map(|&at| natural(&a[at].text, &b[at].text));
            orders.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        self
    }

    /// The titles of its columns.
    pub(super) fn titles(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().map(|column| column.title)
    }

    /// Whether it has the column that someone has typed.
    pub(super) fn has(&self, typed: &str) -> bool {
        self.titles().any(|title| same_title(title, typed))
    }

    /// The table as text, each line ended.
    pub(super) fn render(&self, colours: bool) -> String {
        let widths: Vec<usize> = (0..self.columns.len()).map(|at| self.width(at)).collect();
        let inner = widths.iter().map(|width| width + 3).sum::<usize>().saturating_sub(1);
        let (edge, line) = (format!("+{:-<inner$}+\n", ""), format!("|{:-<inner$}|\n", ""));
        let titles: Vec<Cell> = self.columns.iter().map(|column| Cell::from(column.title)).collect();
        let mut out = edge.clone();
        self.render_row(&mut out, &titles, &widths, false);
        out.push_str(&line);
        for (at, row) in self.rows.iter().enumerate() {
            if self.separators && at > 0 {
                out.push_str(&line);
            }
            self.render_row(&mut out, row, &widths, colours);
        }
        out + &edge
    }

    fn width(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].text.chars().count());
        cells.chain([self.columns[at].title.chars().count()]).max().unwrap_or(0)
    }

    fn render_row(&self, out: &mut String, row: &[Cell], widths: &[usize], colours: bool) {
        for ((cell, column), &width) in row.iter().zip(&self.columns).zip(widths) {
            let padded = match column.right {
                true => format!("{:>width$}", cell.text),
                false => format!("{:<width$}", cell.text),
            };
            let text = if colours { paint(&padded, cell.level) } else { padded };
            write!(out, "| {text} ").expect("a string takes all that is written");
        }
        out.push_str("|\n");
    }
}

/// Whether two titles are the same to someone who types one: without regard to case, `_` for a space.
pub(super) fn same_title(title: &str, typed: &str) -> bool {
    title.replace(' ', "_").eq_ignore_ascii_case(&typed.replace([' ', '-'], "_"))
}

/// The text in its level's colour, for a terminal.
pub(super) fn paint(text: &str, level: Option<Level>) -> String {
    match level {
        None => text.to_owned(),
        Some(Level::Normal) => format!("\x1b[32m{text}\x1b[0m"),
        Some(Level::Warning) => format!("\x1b[33m{text}\x1b[0m"),
        Some(Level::Alert) => format!("\x1b[31m{text}\x1b[0m"),
    }
}

/// A text in the order that people expect ([`natural`]).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Natural(pub(super) String);

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        // Equal only to itself: `02` and `2` are two names.
        natural(&self.0, &other.0).then_with(|| self.0.cmp(&other.0))
    }
}

/// The order that people expect: runs of digits compare as numbers, so that `node2` comes before `node10`.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    while !a.is_empty() && !b.is_empty() {
        let ((one, rest_a), (other, rest_b)) = (first_run(a), first_run(b));
        let order = match (number(one), number(other)) {
            (Some(x), Some(y)) => x.len().cmp(&y.len()).then_with(|| x.cmp(y)),
            _ => one.cmp(other),
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    a.len().cmp(&b.len())
}

/// The run of digits, or of anything else, at the beginning of a text that is not empty.
fn first_run(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    text.split_at(text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len()))
}

/// A run of digits without leading zeroes: of two, the longer one is the greater number.
fn number(run: &str) -> Option<&str> {
    run.starts_with(|c: char| c.is_ascii_digit()).then(|| run.trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes() -> Table {
        let mut table = Table::new([left("Name"), right("Vol ID"), right("Size"), right("Minor"), right("State")]);
        table.row(["resource01".into(), 0.into(), "9.31 GiB".into(), 100.into(), Cell::state("ok", Level::Normal)]);
        table
    }

    #[test]
    fn a_table_looks_as_drbdmanages() {
        let expected = "\
+------------------------------------------------+
| Name       | Vol ID |     Size | Minor | State |
|------------------------------------------------|
| resource01 |      0 | 9.31 GiB |   100 |    ok |
+------------------------------------------------+
";
        assert_eq!(volumes().render(false), expected);
    }

    #[test]
    fn colours_do_not_move_the_columns() {
        let plain: String = volumes().render(true).replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(plain, volumes().render(false));
    }

    #[test]
    fn columns_can_be_left_out() {
        let few = volumes().select(|title| title == "Name" || title == "State");
        assert!(few.render(false).contains("| Name       | State |\n"));
        assert!(same_title("Vol ID", "vol_id") && same_title("Vol ID", "Vol ID") && !same_title("Vol ID", "Vol"));
    }

    #[test]
    fn numbers_within_names_sort_as_numbers() {
        let mut names = ["node10", "node2", "node02", "n", "node", "node2b", "1", "a1"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["1", "a1", "n", "node", "node2", "node02", "node2b", "node10"]);
    }

    #[test]
    fn rows_can_be_separated_and_sorted() {
        let mut table = Table::new([left("Name"), left("State")]);
        table.row(["b10".into(), "x".into()]);
        table.row(["b9".into(), "x".into()]);
        let text = table.sorted(&["none", "name"]).separated(true).render(false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[3..6], ["| b9   | x     |", "|--------------|", "| b10  | x     |"]);
    }
}
