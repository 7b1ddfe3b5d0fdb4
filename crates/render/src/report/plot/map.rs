//! The map as a picture, with a panel each for CPU, memory and latency. A cell has the best models
//! and those as good in their colours, and undecided ones in grey.

use record::Results;

use crate::report::map::{By, Grid, grid};
use verdict::summary::{Best, Summary};

use super::Plot;
use super::colour::{GRID, Ink, MUTED, TEXT, of_model};
use super::page::{EDGE, Head, Page, Side, WIDTH, width_of};

/// Width of the heads of rows.
const LEFT: i32 = 110;
/// End of the last column.
const RIGHT: i32 = WIDTH - EDGE;
/// Height of a panel's title with the heads of its columns.
const HEAD: i32 = 52;
/// Height of a line of names.
const LINE: i32 = 21;
/// Above and below the names in a cell.
const PADDING: i32 = 8;
const GAP: i32 = 22;
/// Between two names of a line.
const BETWEEN: i32 = 12;
/// Distance from a marker to its name.
const BESIDE: i32 = 11;
/// Maximum number of models that the title names for each figure.
const NAMED_MAX: usize = 2;

struct Name {
    text: String,
    ink: Ink,
    /// The model's marker; `None`: undecided.
    marker: Option<usize>,
    /// Its line in the cell, and its distance from the cell's left edge.
    line: i32,
    left: i32,
}

/// A panel with the positions of its names.
struct Panel {
    grid: Grid,
    width: i32,
    /// The cells of each row, and the number of lines of the row.
    rows: Vec<(Vec<Vec<Name>>, i32)>,
}

/// `None` without a map.
pub fn plot(results: &Results, summary: &Summary) -> Option<Plot> {
    let all = [By::Cpu, By::Memory, By::Latency];
    let grids = all.into_iter().filter_map(|by| grid(summary, by));
    let panels: Vec<Panel> = grids.map(|grid| Panel::of(results, grid)).collect();
    // A single cell is not drawn.
    if panels.iter().all(|panel| panel.grid.rows.len() * panel.grid.columns.len() < 2) {
        return None;
    }
    let told: Vec<String> = panels.iter().map(|panel| told(&panel.grid)).collect();
    let findings: Vec<String> = panels.iter().map(|panel| finding(&panel.grid)).collect();
    let height = panels.iter().map(|panel| panel.height() + GAP).sum::<i32>();
    let subject = "which model, when: the best, and those within the margin of it; grey: undecided";
    let head = Head {
        name: "map".to_owned(),
        finding: findings.join("; "),
        subject: subject.to_owned(),
        told: told.join(" "),
        ..Head::default()
    };
    Some(head.plot(height, |page, mut top| {
        for panel in &panels {
            panel.draw(page, top);
            top += panel.height() + GAP;
        }
    }))
}

/// `least memory: epoll (12 of 12 points)`: the models that are the only best most often.
fn finding(grid: &Grid) -> String {
    let points: Vec<&Best> = grid.rows.iter().flat_map(|(_, row)| row).flatten().collect();
    let among = |model: &String| points.iter().filter(|best| best.best.contains(model)).count();
    let mut models: Vec<&String> = points.iter().flat_map(|best| &best.best).collect();
    models.sort_unstable();
    models.dedup();
    models.sort_by_key(|model| std::cmp::Reverse(among(model)));
    let (of, word) = (points.len(), grid.title.split(" (").next().unwrap_or_default());
    let named = models.iter().take(NAMED_MAX).map(|m| format!("{m} in {} of {of}", among(m)));
    let named: Vec<String> = named.collect();
    match named.is_empty() {
        true => format!("{word}: undecided"),
        false => format!("{word}: {}", named.join(", ")),
    }
}

impl Panel {
    fn of(results: &Results, grid: Grid) -> Panel {
        let width = (RIGHT - LEFT) / grid.columns.len().max(1) as i32;
        let row = |(_, bests): &(String, Vec<Option<Best>>)| {
            let cells: Vec<_> = bests.iter().map(|best| names(results, best, width)).collect();
            let lines = cells.iter().flatten().map(|name| name.line + 1).max().unwrap_or(1);
            (cells, lines)
        };
        let rows = grid.rows.iter().map(row).collect();
        Panel { grid, width, rows }
    }

    fn height(&self) -> i32 {
        HEAD + self.rows.iter().map(|(_, lines)| lines * LINE + 2 * PADDING).sum::<i32>()
    }

    fn draw(&self, page: &mut Page, top: i32) {
        page.text(self.grid.title, (EDGE, top + 10), Side::Right, TEXT);
        page.text(self.grid.columns_name, (RIGHT, top + 10), Side::Left, TEXT);
        for (at, head) in self.grid.columns.iter().enumerate() {
            let middle = LEFT + self.width * at as i32 + self.width / 2;
            page.text(head, (middle, top + 36), Side::Middle, TEXT);
        }
        let mut upper = top + HEAD;
        for ((cells, lines), (head, _)) in self.rows.iter().zip(&self.grid.rows) {
            let lower = upper + lines * LINE + 2 * PADDING;
            page.text(head, (LEFT - 10, (upper + lower) / 2), Side::Left, TEXT);
            page.line(&[(LEFT, upper), (RIGHT, upper)], GRID, 1);
            for (at, cell) in cells.iter().enumerate() {
                let left = LEFT + self.width * at as i32;
                page.line(&[(left, upper), (left, lower)], GRID, 1);
                cell.iter().for_each(|name| draw_name(page, name, (left, upper)));
            }
            upper = lower;
        }
        page.line(&[(LEFT, upper), (RIGHT, upper)], GRID, 1);
    }
}

fn draw_name(page: &mut Page, name: &Name, (left, upper): (i32, i32)) {
    let y = upper + PADDING + name.line * LINE + LINE / 2;
    let mut left = left + name.left;
    if let Some(marker) = name.marker {
        page.marker(marker, (left, y), name.ink);
        left += BESIDE;
    }
    page.text(&name.text, (left, y), Side::Right, name.ink);
}

/// The names of a cell, in lines that fit its width.
fn names(results: &Results, best: &Option<Best>, width: i32) -> Vec<Name> {
    let none = Best::default();
    let best = best.as_ref().unwrap_or(&none);
    let named = best.best.iter().map(|model| {
        let marker = results.models.iter().position(|of| of.label == *model);
        (model.clone(), of_model(results, model), marker)
    });
    let undecided = best.undecided.iter().map(|model| (model.clone(), MUTED, None));
    let (mut line, mut left) = (0, BETWEEN);
    let mut place = |(text, ink, marker): (String, Ink, Option<usize>)| {
        let size = marker.map_or(0, |_| BESIDE) + width_of(&text) + BETWEEN;
        if left > BETWEEN && left + size > width {
            (line, left) = (line + 1, BETWEEN);
        }
        let name = Name { text, ink, marker, line, left };
        left += size;
        name
    };
    named.chain(undecided).map(&mut place).collect()
}

fn told(grid: &Grid) -> String {
    let cell = |(column, best): (&String, &Option<Best>)| {
        let best = best.as_ref()?;
        let undecided = match best.undecided.is_empty() {
            true => String::new(),
            false => format!(" (undecided: {})", best.undecided.join(", ")),
        };
        Some(format!("{column}: {}{undecided}", best.best.join(", ")))
    };
    let row = |(head, row): &(String, Vec<Option<Best>>)| {
        let cells: Vec<String> = grid.columns.iter().zip(row).filter_map(cell).collect();
        format!("{head}, {}: {}.", grid.columns_name, cells.join("; "))
    };
    let rows: Vec<String> = grid.rows.iter().map(row).collect();
    format!("{}: {}", grid.title, rows.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use verdict::summary::summarise;

    #[test]
    fn the_picture_names_the_best_and_what_is_undecided_is_grey() {
        let results = fixture::map();
        let svg = plot(&results, &summarise(&results)).unwrap().svg;
        assert!(svg.contains("1: threads; 8: epoll, uring; "), "{svg}");
        assert!(svg.contains("epoll, poll (undecided: uring)"), "{svg}");
        assert!(svg.contains("fill=\"#68707A\""), "{svg}");
        assert!(plot(&fixture::no_trials(), &summarise(&fixture::no_trials())).is_none());
    }

    #[test]
    fn names_stay_in_their_cell() {
        let mut results = fixture::results();
        let best: Vec<String> = (0..9).map(|i| format!("a-model-{i}")).collect();
        results.models = best.iter().map(|name| fixture::model(name)).collect();
        let all = names(&results, &Some(Best { best, undecided: Vec::new() }), 190);
        assert!(all.iter().all(|n| n.left + BESIDE + width_of(&n.text) <= 190));
        assert_eq!(all.last().unwrap().line, 8);
    }
}
