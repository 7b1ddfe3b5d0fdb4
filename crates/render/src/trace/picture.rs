//! The figure as SVG. Time runs down, as in the text, one line for each step: so what happens
//! within a millisecond can be read beside a wait of twenty. Each thread has two lanes, the
//! application and the kernel.

use record::{Recording, Run};
use verdict::trace::place;

use super::rows::{CLIENTS, Copied, Event, Row, What, note, rows};
use crate::report::plot::Plot;
use crate::report::plot::colour::{CALL_FAMILIES, GRID, Ink, MUTED, TEXT};
use crate::report::plot::page::{EDGE, Head, Page, Side, WIDTH};

/// Height of a line, in pixels.
const LINE: i32 = 20;
/// Width of a lane.
const LANE: i32 = 12;
/// Right end of the times, and place of the first client.
const TIMES: i32 = 62;
const CLIENTS_AT: i32 = 84;
/// From client to client.
const CLIENT: i32 = 24;
/// Place of the first lane, and the width for all of them.
const LANES_AT: i32 = 164;
const LANES: i32 = 420;
/// Most from thread to thread, so that the lanes of few threads stand together.
const THREAD_MAX: i32 = 96;
/// Threads that are drawn: with more the lanes are too narrow. The text shows all.
const THREADS_MAX: usize = 8;

/// With more threads than this there is room for short sentences only.
const SHORT_FROM: usize = 2;

const WAITING: Ink = CALL_FAMILIES[0].1;
const INPUT: Ink = CALL_FAMILIES[1].1;
const OUTPUT: Ink = CALL_FAMILIES[2].1;

/// Places on the page.
struct Layout {
    top: i32,
    /// From thread to thread.
    pitch: i32,
}

impl Layout {
    fn y(&self, row: usize) -> i32 {
        self.top + LINE * row as i32 + LINE / 2
    }

    fn application(&self, lane: usize) -> i32 {
        LANES_AT + self.pitch * lane as i32
    }

    fn kernel(&self, lane: usize) -> i32 {
        self.application(lane) + self.pitch / 2
    }
}

/// The picture of one run.
pub fn picture(recording: &Recording, run: &Run) -> Plot {
    let (rows, threads) = rows(recording, run);
    let rows: Vec<Row> = rows.into_iter().filter(|row| lane(row) < THREADS_MAX).collect();
    let drawn = threads.clamp(1, THREADS_MAX);
    let mut subject = "time runs down, a line for each step; of a thread's lanes the left is the \
                       application, the right the kernel"
        .to_owned();
    if threads > drawn {
        subject = format!("{subject}; {} threads more", threads - drawn);
    }
    let told: Vec<_> = rows.iter().map(sentence).collect();
    let head = Head {
        name: format!("trace-{}", run.run.replace([' ', '-', '/', '+', '='], "_")),
        finding: place(recording, &run.run).finding(run),
        subject,
        told: told.join(". "),
        key: vec![
            ("runs", MUTED, 0.6),
            ("sleeps", WAITING, 1.0),
            ("bytes to the process", INPUT, 1.0),
            ("from it", OUTPUT, 1.0),
        ],
    };
    let note = note(recording, run);
    let height = LINE * (rows.len() as i32 + 1 + i32::from(note.is_some())) + EDGE;
    head.plot(height, |page, top| {
        let layout = Layout { top: top + LINE, pitch: (LANES / drawn as i32).min(THREAD_MAX) };
        headings(page, &layout, drawn);
        for number in 0..CLIENTS.len() {
            client(page, &layout, &rows, number);
        }
        for number in 0..drawn {
            thread_lanes(page, &layout, &rows, number);
        }
        let text_at = layout.application(drawn) - layout.pitch / 2 + LANE + EDGE;
        for (number, row) in rows.iter().enumerate() {
            let y = layout.y(number);
            let at_ms = format!("{:.2}", row.at_us.max(0.0) / 1e3);
            page.text(&at_ms, (TIMES, y), Side::Left, MUTED);
            let ink = if matches!(row.what, What::Client(..)) { MUTED } else { TEXT };
            let text = if drawn > SHORT_FROM { short(row) } else { sentence(row) };
            page.text(&text, (text_at, y), Side::Right, ink);
        }
        if let Some(note) = note {
            page.text(note, (text_at, layout.y(rows.len())), Side::Right, MUTED);
        }
    })
}

/// The lane of a step; 0 for a client's.
fn lane(row: &Row) -> usize {
    match row.what {
        What::Client(..) => 0,
        What::Enter(lane)
        | What::Return(lane, _)
        | What::Call(lane, _)
        | What::Fruitless(lane, ..)
        | What::Operation(lane, _) => lane,
    }
}

fn sentence(row: &Row) -> String {
    match (row.does.is_empty(), row.kernel.is_empty()) {
        (true, _) => format!("kernel: {}", row.kernel),
        (_, true) => row.does.clone(),
        _ => format!("{}: {}", row.does, row.kernel),
    }
}

/// As [`sentence`], without the bytes of a call that slept: the marker says that it copied.
fn short(row: &Row) -> String {
    let text = sentence(row);
    text.split_once("; ").map_or(text.clone(), |(first, _)| first.to_owned())
}

fn headings(page: &mut Page, layout: &Layout, threads: usize) {
    let y = layout.top - LINE / 2;
    page.text("ms", (TIMES, y), Side::Left, MUTED);
    for (number, name) in CLIENTS.iter().enumerate() {
        page.text(name, (CLIENTS_AT + CLIENT * number as i32, y), Side::Middle, TEXT);
    }
    for number in 0..threads {
        let middle = (layout.application(number) + layout.kernel(number)) / 2;
        page.text(&format!("T{}", number + 1), (middle, y), Side::Middle, TEXT);
    }
    page.line(&[(EDGE, layout.top), (WIDTH - EDGE, layout.top)], GRID, 1);
}

/// A client: a line while it is connected, thick from its request to the reply.
fn client(page: &mut Page, layout: &Layout, rows: &[Row], number: usize) {
    let x = CLIENTS_AT + CLIENT * number as i32;
    let when = |wanted: Event| {
        let is = |row: &Row| matches!(row.what, What::Client(n, e) if n == number && e == wanted);
        rows.iter().position(is).map(|row| layout.y(row))
    };
    if let (Some(from), Some(to)) = (when(Event::Connects), when(Event::Closes)) {
        page.line(&[(x, from), (x, to)], TEXT, 1);
        page.line(&[(x - 4, to), (x + 4, to)], TEXT, 2);
    }
    if let (Some(from), Some(to)) = (when(Event::Sends), when(Event::HasItsReply)) {
        page.area((x - 3, from), (x + 3, to), TEXT, 1.0);
    }
}

/// The two lanes of a thread.
fn thread_lanes(page: &mut Page, layout: &Layout, rows: &[Row], number: usize) {
    let (left, right) = (layout.application(number), layout.kernel(number));
    let bar = |page: &mut Page, x: i32, from: i32, to: i32, ink, opacity| {
        page.area((x - LANE / 2, from), (x + LANE / 2, to), ink, opacity);
    };
    let mut asleep = false;
    let mut since = None;
    let mut last = layout.y(0);
    let mut copies = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let is_own = !matches!(row.what, What::Client(..)) && lane(row) == number;
        if !is_own {
            continue;
        }
        let y = layout.y(place);
        last = y;
        let begun = *since.get_or_insert(y);
        let copied = match row.what {
            What::Enter(_) => {
                bar(page, left, begun, y, MUTED, 0.6);
                (asleep, since) = (true, Some(y));
                None
            }
            What::Return(_, copied) => {
                bar(page, right, begun, y, WAITING, 1.0);
                (asleep, since) = (false, Some(y));
                copied
            }
            What::Call(_, copied) | What::Operation(_, copied) => copied,
            What::Client(..) | What::Fruitless(..) => None,
        };
        let is_operation = matches!(row.what, What::Operation(..));
        if !is_operation {
            page.line(&[(left + LANE / 2, y), (right - LANE / 2, y)], TEXT, 1);
        }
        if !is_operation && !matches!(row.what, What::Enter(_) | What::Return(..)) {
            bar(page, right, y - 4, y + 4, MUTED, 0.6);
        }
        if let Some(copied) = copied {
            copies.push((y, if copied == Copied::ToProcess { INPUT } else { OUTPUT }));
        }
    }
    let end = layout.y(rows.len().saturating_sub(1)) + LINE / 2;
    match since {
        Some(from) if asleep => bar(page, right, from, end, WAITING, 1.0),
        Some(from) => bar(page, left, from, last + LINE / 2, MUTED, 0.6),
        None => {}
    }
    // Above the bars.
    for (y, ink) in copies {
        page.marker(3, (right, y), ink);
    }
}
