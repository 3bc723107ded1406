//! Tables: columns aligned by what is seen, two spaces apart.

use rotacast_protocol::Version;

use crate::error::Stop;
use crate::output::{Mark, Output, shown};

/// One field.
pub(crate) struct Cell {
    text: String,
    mark: Mark,
}

impl Cell {
    /// A field with a mark.
    pub(crate) fn marked(text: &str, mark: Mark) -> Self {
        Self { text: shown(text), mark }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::marked(text, Mark::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

macro_rules! from_number {
    ($($number:ty),*) => {$(
        impl From<$number> for Cell {
            fn from(number: $number) -> Self {
                number.to_string().into()
            }
        }
    )*};
}
from_number!(u32, u64);

impl From<Option<Version>> for Cell {
    fn from(version: Option<Version>) -> Self {
        version.map_or_else(|| "-".into(), |version| version.get().into())
    }
}

/// Rows under a head.
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&'static str; N]) -> Self {
        Self { head: head.into(), rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// Further columns.
    pub(crate) fn more<const N: usize>(&mut self, head: [&'static str; N]) {
        self.head.extend(head);
    }

    /// The newest row's cells in them.
    pub(crate) fn more_of_row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.last_mut().expect("a row comes before more of it").extend(cells);
    }

    /// Prints it, each line behind `indent`.
    pub(crate) fn print(&self, output: Output, indent: &str) -> Result<(), Stop> {
        debug_assert!(self.rows.iter().all(|row| row.len() == self.head.len()), "a row has a cell for every column");
        let width = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self.head.iter().map(|name| width(name)).collect();
        for row in &self.rows {
            for (cell, widest) in row.iter().zip(&mut widths) {
                *widest = width(&cell.text).max(*widest);
            }
        }
        let print = |cells: &[(&str, Mark)]| {
            let mut line = indent.to_owned();
            for (column, (text, mark)) in cells.iter().enumerate() {
                let text = if text.is_empty() { "-" } else { text };
                line.push_str(&output.paint(*mark, text));
                if column + 1 < cells.len() {
                    line.extend(std::iter::repeat_n(' ', widths[column].saturating_sub(width(text)) + 2));
                }
            }
            output.line(line.trim_end())
        };
        print(&self.head.iter().map(|name| (*name, Mark::Strong)).collect::<Vec<_>>())?;
        self.rows
            .iter()
            .try_for_each(|row| print(&row.iter().map(|cell| (cell.text.as_str(), cell.mark)).collect::<Vec<_>>()))
    }
}
