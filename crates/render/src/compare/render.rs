//! The output formats of a comparison.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::{Arguments, Comparison, Format, Row, Side, wanted};
use crate::export;
use crate::failure::{Failure, because};
use crate::grid;
use crate::text::{columns, figure, thousands, wrap};
use verdict::statistics::Interval;
use verdict::summary::Figure;

/// The comparison as text.
pub fn rendered(comparison: &Comparison, format: Format) -> Result<String, Failure> {
    match format {
        Format::Table | Format::Benchstat => Ok(people(comparison, false)),
        Format::Markdown => Ok(people(comparison, true)),
        Format::Csv => Ok(csv(comparison)),
        Format::Json => serde_json::to_string_pretty(&as_json(comparison))
            .map(|text| text + "\n")
            .map_err(because("cannot write JSON")),
    }
}

fn people(comparison: &Comparison, markdown: bool) -> String {
    let paragraph = |text: &str, indent: usize| match markdown {
        true => format!("- {text}\n"),
        false => wrap(text, indent) + "\n",
    };
    let [a, b] = &comparison.sides;
    let relative = comparison.relative_to.as_ref().map_or(String::new(), |reference| {
        format!(" Figures of two runs are compared relative to {reference} in each of them.")
    });
    let mut out = paragraph(&format!("A = {a}, B = {b}; ratios are B : A.{relative}"), 3);
    for (what, a, b) in &comparison.differences {
        out += &paragraph(&format!("Differs: {what}: {a} -> {b}."), 3);
    }
    out += "\n";
    out += &table(comparison, markdown);
    out += "\n";
    out.extend(comparison.notes.iter().map(|note| paragraph(note, 3)));
    let verdicts = "faster, slower, cheaper, dearer, smaller, larger: beyond chance (99 %) and by \
        more than --threshold; equal: shown to be nearer to 1 than that; ~: not to be told.";
    out + &paragraph(verdicts, 3)
}

fn table(comparison: &Comparison, markdown: bool) -> String {
    let mut table = Table::new();
    if markdown {
        table.load_style(presets::ASCII_MARKDOWN);
    }
    table.set_header(["workload", "model", "figure", "A", "B", "B : A", "99 %", ""]);
    for row in &comparison.rows {
        let interval = |i: Interval| format!("{:.3}-{:.3}", i.low, i.high);
        table.add_row([
            row.workload.clone(),
            row.model.clone(),
            row.figure.name().to_owned(),
            shown(comparison, row.figure, row.a),
            shown(comparison, row.figure, row.b),
            format!("{:.3}", row.ratio.ratio),
            interval(row.ratio.interval),
            row.change.name(row.figure).to_owned(),
        ]);
    }
    if !markdown {
        return grid::plain(&table, &[3, 4, 5, 6], 1, columns());
    }
    for index in 3..7 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn shown(comparison: &Comparison, of: Figure, value: f64) -> String {
    match of {
        _ if comparison.relative_to.is_some() => format!("{value:.3}"),
        Figure::Rate => thousands(value),
        _ => figure(value),
    }
}

fn csv(comparison: &Comparison) -> String {
    let mut out = "workload,model,figure,a,b,ratio,low,high,verdict\n".to_owned();
    for row in &comparison.rows {
        out += &export::csv_line(&[
            row.workload.clone(),
            row.model.clone(),
            row.figure.name().to_owned(),
            row.a.to_string(),
            row.b.to_string(),
            row.ratio.ratio.to_string(),
            row.ratio.interval.low.to_string(),
            row.ratio.interval.high.to_string(),
            row.change.name(row.figure).to_owned(),
        ]);
    }
    out
}

fn as_json(comparison: &Comparison) -> Value {
    let row = |row: &Row| {
        json!({
            "workload": row.workload,
            "model": row.model,
            "figure": row.figure.name(),
            "a": row.a,
            "b": row.b,
            "ratio": row.ratio.ratio,
            "low": row.ratio.interval.low,
            "high": row.ratio.interval.high,
            "verdict": row.change.name(row.figure),
        })
    };
    let difference =
        |(what, a, b): &(String, String, String)| json!({ "what": what, "a": a, "b": b });
    json!({
        "a": comparison.sides[0],
        "b": comparison.sides[1],
        "relative_to": comparison.relative_to,
        "differences": comparison.differences.iter().map(difference).collect::<Vec<_>>(),
        "notes": comparison.notes,
        "rows": comparison.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

/// The rounds of a comparison as Go benchmarks. With two runs the names contain `/run=a` or
/// `/run=b`.
pub fn benchmarks(sides: &[&Side], arguments: &Arguments) -> String {
    let runs: &[&str] = if sides.len() > 1 { &["/run=a", "/run=b"] } else { &[""] };
    let lines = |(side, run): (&&Side, &&str)| {
        let chosen = |workload: &str, model: &str| {
            wanted(&arguments.workloads, workload) && wanted(&arguments.models, model)
        };
        export::benchmarks(&side.results, run, &chosen)
    };
    sides.iter().zip(runs).map(lines).collect()
}
