//! The figure as text, of at most 100 columns. As in Stevens' figures (UNP section 6.2), time runs
//! down, and application and kernel are columns.

use record::{Call, Recording, Run, Span};
use verdict::trace::{Kind, calls, short, threads};

/// Widths of the columns: client, application, kernel.
const CLIENT: usize = 15;
const APPLICATION: usize = 27;

/// Names of the clients, by number of their connection.
const CLIENTS: [&str; 3] = ["A", "B", "C"];

/// A line of the figure.
struct Row {
    at_us: f64,
    client: String,
    application: String,
    kernel: String,
    /// Calls of this thread that found nothing, which are put together with those before.
    fruitless: Option<Fruitless>,
}

struct Fruitless {
    /// Number of the thread, from 0.
    lane: usize,
    names: Vec<String>,
    count: u32,
}

/// The figure of one run.
pub fn text(recording: &Recording, run: &Run) -> String {
    let threads = threads(recording, &run.run);
    let mut rows: Vec<Row> = Vec::new();
    for span in recording.spans.iter().filter(|span| span.run == run.run) {
        rows.extend(marks(span));
    }
    for call in calls(recording, &run.run, &threads) {
        let lane = threads.iter().position(|&id| id == call.thread_id).unwrap_or(0);
        rows.extend(rows_of(call, lane));
    }
    rows.sort_by(|a, b| a.at_us.total_cmp(&b.at_us));
    let mut lines = vec![line("ms", "client", "application", "kernel")];
    let rows = together(rows);
    lines.extend(rows.iter().map(|row| {
        let at_ms = format!("{:.2}", row.at_us.max(0.0) / 1e3);
        let application = match &row.fruitless {
            Some(Fruitless { lane, names, count }) if *count > 1 => {
                format!("T{} {} x {count}", lane + 1, names.join(", "))
            }
            _ => row.application.clone(),
        };
        line(&at_ms, &row.client, &application, &row.kernel)
    }));
    lines.concat()
}

fn line(at: &str, client: &str, application: &str, kernel: &str) -> String {
    let line = format!("{at:>8}  {client:CLIENT$} {application:APPLICATION$} {kernel}");
    line.trim_end().to_owned() + "\n"
}

/// What a client did, as lines.
fn marks(span: &Span) -> Vec<Row> {
    let name = span.lane.trim_start_matches("client ");
    let row = |at_us, what: &str| Row {
        at_us,
        client: format!("{name} {what}"),
        application: String::new(),
        kernel: String::new(),
        fruitless: None,
    };
    match span.kind.as_str() {
        "connect" => vec![row(span.from_us, "connects")],
        "pause" => vec![row(span.from_us, "waits")],
        "request" => vec![row(span.from_us, "sends"), row(span.to_us, "has its reply")],
        "close" => vec![row(span.from_us, "closes")],
        kind => vec![row(span.from_us, kind)],
    }
}

/// The lines of a call: one, or two if the thread slept in it. Calls that neither move a connection
/// or its bytes nor wait are left out, except that a connection is closed.
fn rows_of(call: &Call, lane: usize) -> Vec<Row> {
    let kind = Kind::of(call);
    let slept = call.slept == Some(true);
    let closes = call.name == "close" && call.object == "connection";
    if !(kind.is_io() || kind == Kind::Wait || closes || kind == Kind::Thread && slept) {
        return Vec::new();
    }
    let name = short(&call.name).to_owned();
    let about = match kind {
        Kind::Receive | Kind::Send | Kind::Other => client(call),
        _ => "",
    };
    let begun = format!("T{} {name}({about})", lane + 1);
    let row = |at_us, application, kernel| Row {
        at_us,
        client: String::new(),
        application,
        kernel,
        fruitless: None,
    };
    let returned = format!("{begun} = {}", outcome(call, kind));
    let copied = copied(call, kind);
    if !slept {
        let names = vec![name];
        let found_nothing = call.result == Some(EAGAIN);
        let fruitless = found_nothing.then_some(Fruitless { lane, names, count: 1 });
        // What a thread sends is there when it calls, what it gets is there when the call returns.
        let at_us = if kind == Kind::Send { call.from_us } else { call.to_us };
        return vec![Row { fruitless, ..row(at_us, returned, copied) }];
    }
    if call.result.is_none() {
        return vec![row(call.from_us, begun, "sleeps to the end".to_owned())];
    }
    let after = format!("slept {:.2} ms", (call.to_us - call.from_us) / 1e3);
    let woken = if copied.is_empty() { after } else { format!("{after}; {copied}") };
    vec![row(call.from_us, begun, "sleeps".to_owned()), row(call.to_us, returned, woken)]
}

/// EAGAIN and EINTR, as results.
const EAGAIN: i64 = -11;
const EINTR: i64 = -4;

/// The client of the call's connection.
fn client(call: &Call) -> &'static str {
    call.connection.and_then(|number| CLIENTS.get(number as usize)).copied().unwrap_or("?")
}

fn outcome(call: &Call, kind: Kind) -> String {
    match call.result {
        None => "?".to_owned(),
        Some(EAGAIN) => "EAGAIN".to_owned(),
        Some(EINTR) => "EINTR".to_owned(),
        Some(error @ ..0) => format!("errno {}", -error),
        Some(_) if kind == Kind::Accept => client(call).to_owned(),
        Some(result) => result.to_string(),
    }
}

fn copied(call: &Call, kind: Kind) -> String {
    match (kind, call.result) {
        (_, Some(EAGAIN)) => "nothing there".to_owned(),
        (Kind::Receive, Some(0)) => "end of the stream".to_owned(),
        (Kind::Receive, Some(bytes @ 1..)) => format!("copies {bytes} bytes to the process"),
        (Kind::Send, Some(bytes @ 1..)) => format!("copies {bytes} bytes from it"),
        _ => String::new(),
    }
}

/// Puts calls of a thread that found nothing, one after the other, into one line.
fn together(rows: Vec<Row>) -> Vec<Row> {
    let mut kept: Vec<Row> = Vec::new();
    for row in rows {
        let last = kept.last_mut().and_then(|last| last.fruitless.as_mut());
        if let (Some(last), Some(next)) = (last, &row.fruitless)
            && last.lane == next.lane
        {
            last.count += next.count;
            for name in &next.names {
                if !last.names.contains(name) {
                    last.names.push(name.clone());
                }
            }
            continue;
        }
        kept.push(row);
    }
    kept
}
