//! Tables that fit the terminal without breaking figures.
//!
//! comfy-table breaks a word in a column that is too narrow, and a broken figure looks like two. So
//! each column is at least as wide as its longest word. If the columns do not fit side by side the
//! table continues below, and each part begins with the column that identifies the row.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};

/// Blanks after each column.
const PADDING: u16 = 1;

/// A table without lines, at most `columns` wide. `figures`: columns that are aligned right. `key`:
/// the column that begins each part.
pub fn plain(table: &Table, figures: &[usize], key: usize, columns: usize) -> String {
    let rows: Vec<Vec<String>> =
        table.header().into_iter().chain(table.row_iter()).map(texts).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let has_header = table.header().is_some();
    let widths: Vec<usize> = (0..count).map(|column| narrowest(&rows, column)).collect();
    let parts = parts(&widths, key, columns);
    let drawn = parts.iter().map(|part| draw(&rows, has_header, part, figures, &widths, columns));
    drawn.collect::<Vec<_>>().join("\n")
}

/// Fits a table with lines into `columns`; text is broken at blanks.
pub fn fit(table: &mut Table, columns: usize) {
    let rows: Vec<Vec<String>> =
        table.header().into_iter().chain(table.row_iter()).map(texts).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(saturated(columns));
    // Lines at both ends, and a blank on both sides of each cell.
    let frame = 2 + 2 * count;
    let widths: Vec<usize> = (0..count).map(|column| narrowest(&rows, column)).collect();
    if widths.iter().sum::<usize>() + frame > columns {
        // A word longer than the line must be broken.
        return;
    }
    for (index, width) in widths.into_iter().enumerate() {
        let padded = saturated(width) + 2;
        if let Some(column) = table.column_mut(index) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(padded)));
        }
    }
}

fn saturated(columns: usize) -> u16 {
    u16::try_from(columns).unwrap_or(u16::MAX)
}

fn texts(row: &comfy_table::Row) -> Vec<String> {
    row.cell_iter().map(|cell| cell.content()).collect()
}

/// Characters of the longest word in a column.
fn narrowest(rows: &[Vec<String>], column: usize) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(column));
    let words = cells.flat_map(|cell| cell.split_whitespace());
    words.map(|word| word.chars().count()).max().unwrap_or(0)
}

/// The columns of each part: the key, and as many others as fit.
fn parts(widths: &[usize], key: usize, columns: usize) -> Vec<Vec<usize>> {
    let padded = |column: usize| widths[column] + usize::from(PADDING);
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut used = 0;
    for column in (0..widths.len()).filter(|&column| column != key) {
        let fits = !parts.is_empty() && used + padded(column) <= columns;
        if !fits {
            parts.push(vec![key]);
            used = padded(key);
        }
        used += padded(column);
        if let Some(part) = parts.last_mut() {
            part.push(column);
        }
    }
    // In the order of the table.
    parts.iter_mut().for_each(|part| part.sort_unstable());
    parts
}

fn draw(
    rows: &[Vec<String>],
    has_header: bool,
    part: &[usize],
    figures: &[usize],
    widths: &[usize],
    columns: usize,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(saturated(columns));
    let cells = |row: &Vec<String>| -> Vec<String> {
        part.iter().map(|&column| row.get(column).cloned().unwrap_or_default()).collect()
    };
    for (at, row) in rows.iter().enumerate() {
        match at == 0 && has_header {
            true => table.set_header(cells(row)),
            false => table.add_row(cells(row)),
        };
    }
    for (place, &column) in part.iter().enumerate() {
        let Some(drawn) = table.column_mut(place) else { continue };
        drawn.set_padding((0, PADDING));
        let width = Width::Fixed(saturated(widths[column]) + PADDING);
        drawn.set_constraint(ColumnConstraint::LowerBoundary(width));
        if figures.contains(&column) {
            drawn.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide() -> Table {
        let mut table = Table::new();
        table.set_header(["rank", "model", "req/s", ": epoll", "server us", "limit", "marks"]);
        for (rank, model) in [("1-6", "uring"), ("2-7", "threads+duplex=on")] {
            let row = [rank, model, ">= 1,048,371", "1.21 ~", "1,234.5", "both-bound a", "b"];
            table.add_row(row);
        }
        table
    }

    fn words(text: &str) -> std::collections::BTreeSet<&str> {
        text.split_whitespace().collect()
    }

    #[test]
    fn no_line_is_too_long_and_no_word_is_broken() {
        let whole = plain(&wide(), &[2, 3, 4], 1, 200);
        for columns in [40, 60, 80, 100] {
            let text = plain(&wide(), &[2, 3, 4], 1, columns);
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}\n{text}");
            assert_eq!(words(&text), words(&whole), "{columns}\n{text}");
        }
    }

    #[test]
    fn each_part_says_which_row_it_is_about() {
        let text = plain(&wide(), &[2, 3, 4], 1, 40);
        let parts: Vec<_> = text.split("\n\n").collect();
        assert!(parts.len() > 1, "{text}");
        assert!(parts.iter().all(|part| part.contains("threads+duplex=on")), "{text}");
    }

    #[test]
    fn a_table_with_lines_fits_and_breaks_no_figure() {
        for columns in [60, 80, 100] {
            let mut table = Table::new();
            table.load_style(presets::UTF8_BORDERS_ONLY);
            table.set_header(["rate/s", "answered/s", "p50", "p99", "send lag p99", "verdict"]);
            table.add_row(["1,048,576", "1,048,575", "12.34 ms", "123.45 us", "1.2 us", "held"]);
            fit(&mut table, columns);
            let text = table.to_string();
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}\n{text}");
            assert!(words(&text).contains("1,048,575"), "{columns}\n{text}");
        }
    }
}
