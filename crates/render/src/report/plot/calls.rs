//! System calls per request by name, as bars. The colour shows the purpose of a call.

use crate::text::figure;
use verdict::summary::{CallsPerRequest, Cell, WorkloadSummary};

use super::Plot;
use super::colour::{CALL_FAMILIES, PAGE, TEXT};
use super::data;
use super::page::{self, Drawn, Page, SMALL_PX, Side, TEXT_PX, WIDTH, tick, width_of};
use super::scale::Scale;

/// Height of a model's bar with the space around it.
const ROW: i32 = 34;
/// Height with a second bar for ring operations.
const ROW_WITH_RING: i32 = 56;
/// Start of the bars, after the names.
const LEFT: i32 = 110;
/// End of the longest bar, before the figures.
const RIGHT: i32 = WIDTH - 150;
/// Below title and key.
const TOP: i32 = 78;
/// Height of the axis.
const AXIS: i32 = 52;

/// Index of ring operations among the families.
const RING: usize = 5;
/// Index of the family of all other calls.
const REST: usize = 4;

/// Calls that wait (and, for io_uring, submit).
const WAITING: &[&str] = &[
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "io_uring_enter",
    "poll",
    "ppoll",
    "pselect6",
    "rt_sigtimedwait",
    "select",
];
/// Calls that receive bytes.
const INPUT: &[&str] = &["pread64", "preadv", "read", "readv", "recvfrom", "recvmmsg", "recvmsg"];
/// Calls that send bytes.
const OUTPUT: &[&str] =
    &["pwrite64", "sendfile", "sendmmsg", "sendmsg", "sendto", "splice", "write", "writev"];
/// Calls that open, watch and close connections.
const CONNECTIONS: &[&str] = &[
    "accept",
    "accept4",
    "close",
    "epoll_ctl",
    "fcntl",
    "getsockopt",
    "setsockopt",
    "shutdown",
    "socket",
];

fn family(call: &str) -> usize {
    let families = [WAITING, INPUT, OUTPUT, CONNECTIONS];
    families.iter().position(|family| family.contains(&call)).unwrap_or(REST)
}

/// One row: a model's calls, in the order of the families, and its ring operations.
struct Row {
    model: String,
    calls: Vec<Part>,
    ring: Vec<Part>,
    label: String,
    ring_label: String,
}

struct Part {
    name: String,
    family: usize,
    each: f64,
}

/// The plot of one workload; `None` if its calls were not counted.
pub fn plot(workload: &WorkloadSummary) -> Result<Option<Plot>, String> {
    let row = |cell: &Cell| Some(row(&cell.model, cell.state.as_ref().ok()?.calls.as_ref()?));
    let rows: Vec<Row> = data::cells(workload).filter_map(row).collect();
    let workload = &workload.workload;
    if rows.is_empty() {
        return Ok(None);
    }
    let bottom = TOP + rows.iter().map(height).sum::<i32>();
    let name = format!("calls-{}", workload.name);
    let title = format!("system calls per request: {}", workload.name);
    let told: Vec<String> = rows.iter().map(told).collect();
    let told = told.join(" ");
    page::plot(&name, &title, &told, bottom + AXIS, |page| draw(page, &rows, bottom)).map(Some)
}

fn row(model: &str, calls: &CallsPerRequest) -> Row {
    let parts = |counts: &[(String, f64)], family: &dyn Fn(&str) -> usize| {
        let part = |(name, each): &(String, f64)| Part {
            name: name.clone(),
            family: family(name),
            each: *each,
        };
        let mut parts: Vec<Part> = counts.iter().map(part).collect();
        parts.sort_by(|a, b| a.family.cmp(&b.family).then(b.each.total_cmp(&a.each)));
        parts
    };
    let mut system = parts(&calls.by_name, &family);
    let named: f64 = system.iter().map(|part| part.each).sum();
    let others = calls.total - named;
    if others > 0.0 {
        system.push(Part { name: "others".into(), family: REST, each: others });
    }
    Row {
        model: model.to_owned(),
        calls: system,
        ring: parts(&calls.ring_by_name, &|_| RING),
        label: figure(calls.total),
        ring_label: format!("{} in the ring", figure(calls.ring_operations)),
    }
}

fn height(row: &Row) -> i32 {
    if row.ring.is_empty() { ROW } else { ROW_WITH_RING }
}

fn told(row: &Row) -> String {
    let part = |part: &Part| format!("{} {}", part.name, figure(part.each));
    let calls: Vec<String> = row.calls.iter().map(part).collect();
    let ring: Vec<String> = row.ring.iter().map(part).collect();
    let ring = match ring.is_empty() {
        true => String::new(),
        false => format!("; {}: {}", row.ring_label, ring.join(", ")),
    };
    format!("{}: {} ({}){ring}.", row.model, row.label, calls.join(", "))
}

fn draw(page: &Page, rows: &[Row], bottom: i32) -> Drawn {
    let sum = |parts: &[Part]| parts.iter().map(|part| part.each).sum::<f64>();
    let most = rows.iter().map(|row| sum(&row.calls).max(sum(&row.ring))).fold(0.0, f64::max);
    let x = Scale::from_zero(most, (LEFT, RIGHT));
    page.ticks_below(&x, &x.ticks(70), (TOP, bottom), &tick)?;
    let axis = "calls per request, counted in passes of their own";
    page.text(axis, ((LEFT + RIGHT) / 2, bottom + 36), Side::Middle, SMALL_PX, TEXT)?;
    let mut top = TOP;
    for row in rows {
        draw_parts(page, &x, &row.calls, (top + 6, top + ROW - 6))?;
        let middle = top + ROW / 2;
        let beside = |parts: &[Part]| x.at(sum(parts)) + 9;
        page.text(&row.label, (beside(&row.calls), middle), Side::Right, TEXT_PX, TEXT)?;
        page.text(&row.model, (LEFT - 9, middle), Side::Left, TEXT_PX, TEXT)?;
        if !row.ring.is_empty() {
            let edges = (top + ROW - 2, top + ROW_WITH_RING - 6);
            draw_parts(page, &x, &row.ring, edges)?;
            let at = (beside(&row.ring), (edges.0 + edges.1) / 2);
            page.text(&row.ring_label, at, Side::Right, SMALL_PX, TEXT)?;
        }
        top += height(row);
    }
    page.axes((LEFT, TOP), (RIGHT, bottom))?;
    draw_key(page, rows)
}

/// Boxes side by side, with those names that fit.
fn draw_parts(page: &Page, x: &Scale, parts: &[Part], (upper, lower): (i32, i32)) -> Drawn {
    let mut from = 0.0;
    for part in parts {
        let (left, right) = (x.at(from), x.at(from + part.each));
        from += part.each;
        if right <= left {
            continue;
        }
        page.area((left, upper), (right, lower), CALL_FAMILIES[part.family].1, 1.0)?;
        // A thin line in the page's colour separates neighbours of one family.
        page.line(vec![(right, upper), (right, lower)], PAGE, 1)?;
        let words = format!("{} {}", part.name, figure(part.each));
        let middle = ((left + right) / 2, (upper + lower) / 2);
        let fits = |text: &str| width_of(text, SMALL_PX) + 4 <= right - left;
        if let Some(text) = [&words, &part.name].into_iter().find(|text| fits(text)) {
            page.text(text, middle, Side::Middle, SMALL_PX, PAGE)?;
        }
    }
    Ok(())
}

/// The families that occur, below the title.
fn draw_key(page: &Page, rows: &[Row]) -> Drawn {
    const BOX: i32 = 14;
    let y = 54;
    let mut left = LEFT;
    for (i, (name, ink)) in CALL_FAMILIES.iter().enumerate() {
        let occurs = |row: &Row| row.calls.iter().chain(&row.ring).any(|part| part.family == i);
        if rows.iter().any(occurs) {
            page.area((left, y - 7), (left + BOX, y + 7), *ink, 1.0)?;
            page.text(name, (left + BOX + 7, y), Side::Right, SMALL_PX, TEXT)?;
            left += BOX + 7 + width_of(name, SMALL_PX) + 22;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use verdict::summary::summarise;

    #[test]
    fn calls_without_a_name_are_not_lost() {
        let by_name = [("write", 1.0), ("epoll_wait", 0.25)].map(|(n, each)| (n.to_owned(), each));
        let calls = CallsPerRequest {
            total: 2.0,
            by_name: by_name.into(),
            ring_operations: 0.0,
            ring_by_name: Vec::new(),
        };
        let row = row("epoll", &calls);
        let parts: Vec<_> = row.calls.iter().map(|p| (p.name.as_str(), p.each)).collect();
        // In the order of the families, not of the alphabet.
        assert_eq!(parts, [("epoll_wait", 0.25), ("write", 1.0), ("others", 0.75)]);
    }

    #[test]
    fn ring_operations_stand_beside_the_calls() {
        let results = fixture::rich();
        let plot = plot(&summarise(&results).workloads[0]).unwrap().unwrap();
        assert_eq!(plot.name, "calls-http-keepalive");
        for words in ["epoll_wait", "io_uring_enter", "2.00 in the ring", "ring operations"] {
            assert!(plot.svg.contains(words), "{words}");
        }
    }
}
