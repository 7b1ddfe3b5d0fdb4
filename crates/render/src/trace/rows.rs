//! The steps of a trace in the order of time: what a client did, a call that a thread made, an
//! operation of a ring. The text and the picture show the same steps.

use record::{Call, Recording, Run, SeenBy, Span};
use verdict::trace::{EAGAIN, Kind, calls, is_call, short, threads};

/// Names of the clients, by number of their connection.
pub(super) const CLIENTS: [&str; 3] = ["A", "B", "C"];

/// EINTR as a result (errno(3)).
const EINTR: i64 = -4;

/// One step.
pub(super) struct Row {
    pub(super) at_us: f64,
    pub(super) what: What,
    /// What the client or the thread does.
    pub(super) does: String,
    /// What the kernel does.
    pub(super) kernel: String,
}

/// Kinds of steps. A lane is a thread that serves clients, by its number from 0.
pub(super) enum What {
    /// Of this client.
    Client(usize, Event),
    /// A call begins in which the thread sleeps.
    Enter(usize),
    /// Such a call returns.
    Return(usize, Option<Copied>),
    /// A call that returns at once.
    Call(usize, Option<Copied>),
    /// Calls that find nothing, with their names; so many, one after the other.
    Fruitless(usize, Vec<String>, usize),
    /// An operation of a ring is done, and was none of the thread's calls.
    Operation(usize, Option<Copied>),
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Connects,
    Waits,
    Sends,
    HasItsReply,
    Closes,
}

/// Where bytes were copied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    ToProcess,
    FromProcess,
}

/// All steps of a run, and the number of its lanes.
pub(super) fn rows(recording: &Recording, run: &Run) -> (Vec<Row>, usize) {
    let threads = threads(recording, &run.run);
    let mut rows: Vec<Row> = Vec::new();
    for span in recording.spans.iter().filter(|span| span.run == run.run) {
        rows.extend(marks(span));
    }
    for call in calls(recording, &run.run) {
        let lane = threads.iter().position(|&id| id == call.thread_id).unwrap_or(0);
        match is_call(call) {
            true => rows.extend(rows_of(call, lane)),
            false => rows.extend(operation(call, lane)),
        }
    }
    // A call returns after the operations that it reports.
    let is_later = |row: &Row| !matches!(row.what, What::Operation(..));
    rows.sort_by(|a, b| a.at_us.total_cmp(&b.at_us).then_with(|| is_later(a).cmp(&is_later(b))));
    (together(rows), threads.len())
}

/// Where the knowledge of a ring's operations comes from; `None` if there are none.
pub(super) fn note(recording: &Recording, run: &Run) -> Option<&'static str> {
    let seen_by = |by: SeenBy| {
        let mut calls = recording.calls.iter().filter(|call| call.run == run.run);
        calls.any(|call| call.seen_by == by && call.result.is_some())
    };
    match (seen_by(SeenBy::Tracepoint), seen_by(SeenBy::Ring)) {
        (false, false) => None,
        (true, false) => Some("kernel: io_uring's operations, by its tracepoint io_uring_complete"),
        (_, true) => Some("kernel: io_uring's operations, as the server saw them in its queue"),
    }
}

/// What a client did.
fn marks(span: &Span) -> Vec<Row> {
    let name = span.lane.trim_start_matches("client ");
    let client = CLIENTS.iter().position(|&client| client == name).unwrap_or(0);
    let row = |at_us, event, does: &str| Row {
        at_us,
        what: What::Client(client, event),
        does: format!("{name} {does}"),
        kernel: String::new(),
    };
    match span.kind.as_str() {
        "connect" => vec![row(span.from_us, Event::Connects, "connects")],
        "pause" => vec![row(span.from_us, Event::Waits, "waits")],
        "request" => vec![
            row(span.from_us, Event::Sends, "sends"),
            row(span.to_us, Event::HasItsReply, "has its reply"),
        ],
        "close" => vec![row(span.from_us, Event::Closes, "closes")],
        _ => Vec::new(),
    }
}

/// A call: one step, or two if the thread slept in it. Calls that neither move a connection or its
/// bytes nor wait are left out, except that a connection is closed.
fn rows_of(call: &Call, lane: usize) -> Vec<Row> {
    let kind = Kind::of(call);
    let slept = call.slept == Some(true);
    let closes = call.name == "close" && call.object == "connection";
    if !(kind.is_io() || kind == Kind::Wait || closes || kind == Kind::Thread && slept) {
        return Vec::new();
    }
    let name = short(&call.name);
    let begun = format!("T{} {name}({})", lane + 1, about(call, kind));
    let returned = format!("{begun} = {}", outcome(call, kind));
    let (copied, told) = copied(call, kind);
    let row = |at_us, what, does, kernel| Row { at_us, what, does, kernel };
    if !slept {
        // What a thread sends is there when it calls, what it gets is there when the call returns.
        let at_us = if kind == Kind::Send { call.from_us } else { call.to_us };
        let what = match call.result {
            Some(EAGAIN) => What::Fruitless(lane, vec![name], 1),
            _ => What::Call(lane, copied),
        };
        return vec![row(at_us, what, returned, told)];
    }
    let enter =
        |kernel: &str| row(call.from_us, What::Enter(lane), begun.clone(), kernel.to_owned());
    if call.result.is_none() {
        return vec![enter("sleeps to the end")];
    }
    let after = format!("slept {:.1} ms", (call.to_us - call.from_us) / 1e3);
    let woken = if told.is_empty() { after } else { format!("{after}; {told}") };
    vec![enter("sleeps"), row(call.to_us, What::Return(lane, copied), returned, woken)]
}

/// An operation of a ring, when the server could see its result.
fn operation(call: &Call, lane: usize) -> Option<Row> {
    let kind = Kind::of(call);
    let closes = call.name == "CLOSE" && call.object == "connection";
    if call.result.is_none() || !(kind.is_io() || closes) {
        return None;
    }
    let (copied, told) = copied(call, kind);
    let (name, about, outcome) = (short(&call.name), about(call, kind), outcome(call, kind));
    let kernel = format!("{name}({about}) = {outcome}");
    let kernel = if told.is_empty() { kernel } else { format!("{kernel}: {told}") };
    let what = What::Operation(lane, copied);
    Some(Row { at_us: call.to_us, what, does: String::new(), kernel })
}

/// The client of the call's connection, if the call is about one.
fn about(call: &Call, kind: Kind) -> &'static str {
    match kind {
        Kind::Receive | Kind::Send | Kind::Other => client(call),
        _ => "",
    }
}

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

fn copied(call: &Call, kind: Kind) -> (Option<Copied>, String) {
    match (kind, call.result) {
        (_, Some(EAGAIN)) => (None, "nothing there".to_owned()),
        (Kind::Receive, Some(0)) => (None, "end of the stream".to_owned()),
        (Kind::Receive, Some(bytes @ 1..)) => {
            (Some(Copied::ToProcess), format!("copies {bytes} bytes to the process"))
        }
        (Kind::Send, Some(bytes @ 1..)) => {
            (Some(Copied::FromProcess), format!("copies {bytes} bytes from it"))
        }
        _ => (None, String::new()),
    }
}

/// Puts calls of a lane that found nothing, one after the other, into one step.
fn together(rows: Vec<Row>) -> Vec<Row> {
    let mut kept: Vec<Row> = Vec::new();
    for row in rows {
        if let Some(Row { what: What::Fruitless(lane, names, count), does, .. }) = kept.last_mut()
            && let What::Fruitless(other, new, _) = &row.what
            && lane == other
        {
            let strangers: Vec<_> = new.iter().filter(|name| !names.contains(name)).collect();
            names.extend(strangers.into_iter().cloned().collect::<Vec<_>>());
            *count += 1;
            *does = format!("T{} {} x {count}", *lane + 1, names.join(", "));
            continue;
        }
        kept.push(row);
    }
    kept
}

#[cfg(test)]
mod tests {
    use record::{Call, SeenBy, Span};

    use super::*;

    /// A thread that sleeps in recv for client A, and an operation of a ring for client B.
    fn recording(seen_by: SeenBy) -> Recording {
        let mut recording = fixture::recording("trace");
        recording.runs.push(Run { run: "x".into(), ..Run::default() });
        let call = Call {
            thread_id: 7,
            process_id: 7,
            from_us: 100.0,
            to_us: 900.0,
            result: Some(16),
            slept: Some(true),
            ..fixture::call("x", "recvfrom")
        };
        let (connection, slept) = (Some(1), None);
        let of_ring = Call { name: "RECV".into(), connection, slept, seen_by, ..call.clone() };
        let again = Call { result: Some(EAGAIN), slept: Some(false), ..call.clone() };
        recording.calls = vec![call, again.clone(), again, of_ring];
        for (lane, kind) in [("client A", "connect"), ("client A", "request")] {
            recording.spans.push(Span {
                run: "x".into(),
                lane: lane.into(),
                kind: kind.into(),
                from_us: 50.0,
                to_us: 1_000.0,
                ..Span::default()
            });
        }
        recording
    }

    #[test]
    fn a_call_that_slept_is_two_steps_and_calls_that_found_nothing_are_one() {
        let recording = recording(SeenBy::Ring);
        let (rows, lanes) = rows(&recording, &recording.runs[0]);
        assert_eq!(lanes, 1);
        let told: Vec<_> = rows.iter().map(|row| (&*row.does, &*row.kernel)).collect();
        assert_eq!(
            told,
            [
                ("A connects", ""),
                ("A sends", ""),
                ("T1 recv(A)", "sleeps"),
                ("", "recv(B) = 16: copies 16 bytes to the process"),
                ("T1 recv(A) = 16", "slept 0.8 ms; copies 16 bytes to the process"),
                ("T1 recv x 2", "nothing there"),
                ("A has its reply", ""),
            ]
        );
    }

    #[test]
    fn the_figure_says_who_saw_the_operations_of_a_ring() {
        let told = |by| {
            let recording = recording(by);
            note(&recording, &recording.runs[0]).unwrap_or_default()
        };
        assert!(told(SeenBy::Ring).contains("in its queue"));
        assert!(told(SeenBy::Tracepoint).contains("tracepoint"));
        assert_eq!(told(SeenBy::Ptrace), "");
    }
}
