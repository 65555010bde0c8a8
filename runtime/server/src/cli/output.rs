//! Printing results: tables for people, JSON for programs, and a quiet end where nobody reads on.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets::UTF8_FULL_CONDENSED,
};
use serde::Serialize;
use thiserror::Error;

/// Sentences in a table are wrapped at this width.
const TEXT_WIDTH: u16 = 48;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Tables for people
    #[default]
    Table,
    /// One JSON document on one line
    Json,
}

/// Whoever read standard output has closed it.
#[derive(Debug, Error)]
#[error("standard output was closed")]
pub struct PipeClosed;

/// A column's heading and alignment.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// Words.
    Left(&'static str),
    /// Figures.
    Right(&'static str),
    /// Sentences.
    Text(&'static str),
}

/// Prints a result in the wanted format.
pub fn print(format: OutputFormat, json: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let line = match format {
        OutputFormat::Table => text(),
        OutputFormat::Json => serde_json::to_string(json)?,
    };
    let mut out = io::stdout().lock();
    written(writeln!(out, "{line}").and_then(|()| out.flush()))
}

/// Tells a closed pipe from other failures to write to standard output.
pub fn written<T>(result: io::Result<T>) -> anyhow::Result<T> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => PipeClosed.into(),
        _ => anyhow::Error::new(error).context("standard output"),
    })
}

/// A table for people.
pub fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| match column {
        Column::Left(name) | Column::Right(name) | Column::Text(name) => Cell::new(name),
    }));
    table.add_rows(rows);
    for (column, shown) in columns.iter().zip(table.column_iter_mut()) {
        match column {
            Column::Left(_) => {}
            Column::Right(_) => shown.set_cell_alignment(CellAlignment::Right),
            Column::Text(_) => {
                shown.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(TEXT_WIDTH)));
            }
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_aligned_to_the_right() {
        let text = table(
            &[Column::Left("topic"), Column::Right("records")],
            [
                vec!["orders".to_owned(), "7".to_owned()],
                vec!["m".to_owned(), "350,000".to_owned()],
            ],
        );
        assert!(text.contains("│ orders ┆       7 │"), "{text}");
        assert!(text.contains("│ m      ┆ 350,000 │"), "{text}");
    }

    #[test]
    fn sentences_are_wrapped() {
        let text = table(&[Column::Text("meaning")], [vec!["what it does ".repeat(10)]]);
        assert!(
            text.lines().count() > 4 && text.lines().all(|line| line.chars().count() < 55),
            "{text}"
        );
    }

    #[test]
    fn a_closed_pipe_is_told_from_other_failures() {
        let closed = written::<()>(Err(io::ErrorKind::BrokenPipe.into())).unwrap_err();
        assert!(closed.is::<PipeClosed>());
        let full = written::<()>(Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert!(!full.is::<PipeClosed>());
    }
}
