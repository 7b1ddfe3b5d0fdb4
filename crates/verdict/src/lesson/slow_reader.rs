//! Where the bytes of clients that do not read wait, and who else waits, by the recording of
//! `slow-reader`.

use record::{Call, Recording, Run};

use super::{Answer, Lesson, Sentence, time};
use crate::trace::{self, EAGAIN, Kind, is_call, short};

/// Models whose threads make blocking calls. The first two have no thread for a third client.
const FEW_THREADS: &[&str] = &["serial", "pool"];
const BLOCKING: &[&str] = &["serial", "pool", "threads"];
/// A server that kept a copy of what it has not sent would grow by this share of it at least.
const COPY_SHARE: f64 = 0.5;

/// What was seen of one model.
pub struct Model {
    /// Its name.
    pub name: String,
    /// What is arranged.
    pub title: String,
    /// Bytes of the body that each client has asked for.
    pub body: f64,
    /// Of the first client: bytes in its own receive buffer.
    pub receive_buffer: f64,
    /// Bytes in the server's send buffer.
    pub send_buffer: f64,
    /// By how much the server's own memory has grown, in bytes.
    growth: f64,
    /// Whether the third client was served while the two read nothing.
    pub served: bool,
    served_after: bool,
    /// The last thing that the server did for the first client.
    pub last: Last,
}

/// How the last send for a client that does not read has ended, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// A thread sleeps in it.
    Blocks,
    /// The ring has it (io_uring(7)).
    InRing,
    /// It took a part of what was offered.
    Part,
    /// It said EAGAIN.
    Nothing,
    /// None was seen.
    Unseen,
}

impl Last {
    /// In a few words.
    pub fn words(self) -> &'static str {
        match self {
            Last::Blocks => "sleeps",
            Last::InRing => "in the ring",
            Last::Part => "took a part",
            Last::Nothing => "EAGAIN",
            Last::Unseen => "not seen",
        }
    }
}

impl Model {
    /// Of this run; `None` if it was not made.
    pub fn of(recording: &Recording, run: &Run) -> Option<Model> {
        let of = |name: &str| recording.figure(&run.run, name);
        Some(Model {
            name: run.run.clone(),
            title: run.title.clone(),
            body: of("body_bytes")?,
            receive_buffer: of("receive_buffer_bytes")?,
            send_buffer: of("send_buffer_bytes")?,
            growth: 1024.0 * of("own_memory_growth_kib")?,
            served: of("other_served_meanwhile")? == 1.0,
            served_after: of("other_served_after")? == 1.0,
            last: last(recording, &run.run),
        })
    }

    /// Bytes that the server has not given to the kernel.
    pub fn unsent(&self) -> f64 {
        (self.body - self.receive_buffer - self.send_buffer).max(0.0)
    }
}

/// The last send for the first client before the third has asked.
fn last(recording: &Recording, run: &str) -> Last {
    let filled = recording.spans_of(run).find(|span| span.kind == "fills");
    let Some(until_us) = filled.map(|span| span.to_us) else { return Last::Unseen };
    let sends = |call: &&Call| Kind::of(call) == Kind::Send && call.connection == Some(0);
    let before = |call: &&Call| call.from_us <= until_us;
    let mut sends: Vec<&Call> = trace::calls(recording, run).filter(sends).filter(before).collect();
    sends.sort_by(|a, b| a.from_us.total_cmp(&b.from_us));
    let Some(last) = sends.last() else { return Last::Unseen };
    match last.result {
        _ if last.to_us > until_us && is_call(last) => Last::Blocks,
        _ if last.to_us > until_us => Last::InRing,
        Some(EAGAIN) => Last::Nothing,
        _ => Last::Part,
    }
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let models: Vec<Model> =
        recording.runs.iter().filter_map(|run| Model::of(recording, run)).collect();
    if models.is_empty() {
        let text = "the calls of no server were seen".to_owned();
        let sentences = progress(recording).into_iter().collect();
        return Lesson { finding: Sentence { text, holds: false }, sentences, answer: None };
    }
    let sentences = [
        models.iter().find(|model| model.name == "epoll").map(buffers),
        Some(copies(&models)),
        blocked(&models),
        asked(recording, &models),
        others(&models),
        progress(recording),
    ];
    Lesson {
        finding: finding(&models),
        sentences: sentences.into_iter().flatten().collect(),
        answer: Some(answer(&models)),
    }
}

fn names(models: &[&Model]) -> String {
    super::names(models.iter().map(|model| model.name.as_str()))
}

/// `8.0 MiB`, `96 KiB`.
pub fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 1_048_576.0 => format!("{:.1} MiB", bytes / 1_048_576.0),
        bytes => format!("{:.0} KiB", bytes / 1024.0),
    }
}

fn finding(models: &[Model]) -> Sentence {
    let (served, waits): (Vec<&Model>, Vec<&Model>) = models.iter().partition(|one| one.served);
    Sentence::new(
        !served.is_empty() && !waits.is_empty(),
        format!(
            "While two clients read nothing, a third waits with {}, and is served by {}",
            names(&waits),
            names(&served)
        ),
        match waits.is_empty() {
            true => "While two clients read nothing, a third is served by all models".to_owned(),
            false => "While two clients read nothing, a third waits with all models".to_owned(),
        },
    )
}

fn buffers(model: &Model) -> Sentence {
    let Model { name, body, receive_buffer, send_buffer, .. } = model;
    let (came, sent, unsent) = (size(*receive_buffer), size(*send_buffer), size(model.unsent()));
    Sentence::new(
        *receive_buffer > 0.0 && *send_buffer > 0.0 && model.unsent() > 0.0,
        format!(
            "Of {} for one of them, {came} lie in its own receive buffer and {sent} in the send \
             buffer of {name}. The other {unsent} have not been given to the kernel.",
            size(*body)
        ),
        format!(
            "{name}: {came} are in the receive buffer, {sent} in the send buffer, {unsent} left."
        ),
    )
}

/// Whether a server keeps what it has not sent.
fn copies(models: &[Model]) -> Sentence {
    let grown: Vec<&Model> =
        models.iter().filter(|one| one.growth > COPY_SHARE * one.unsent()).collect();
    let most = models.iter().map(|one| one.growth).fold(0.0, f64::max);
    Sentence::new(
        grown.is_empty(),
        format!(
            "No server keeps a copy of the rest: with two such clients its own memory grew by at \
             most {}.",
            size(most)
        ),
        format!("The memory of {} grew by up to {}.", names(&grown), size(most)),
    )
}

fn blocked(models: &[Model]) -> Option<Sentence> {
    let all: Vec<&Model> =
        models.iter().filter(|one| BLOCKING.contains(&one.name.as_str())).collect();
    let others = all.iter().copied().filter(|one| one.last != Last::Blocks);
    let others: Vec<&Model> = others.collect();
    (!all.is_empty()).then(|| {
        Sentence::new(
            others.is_empty(),
            format!("{}: the thread of the client sleeps in send(2).", names(&all)),
            format!("{}: no thread sleeps in send(2).", names(&others)),
        )
    })
}

/// What models without blocking calls do.
fn asked(recording: &Recording, models: &[Model]) -> Option<Sentence> {
    let all: Vec<&Model> =
        models.iter().filter(|one| !BLOCKING.contains(&one.name.as_str())).collect();
    let blocked: Vec<&Model> = all.iter().copied().filter(|one| one.last == Last::Blocks).collect();
    let told: Vec<String> =
        all.iter().map(|one| format!("{} {}", one.name, one.last.words())).collect();
    let epoll = trace::calls(recording, "epoll");
    let modified = epoll.filter(|call| short(&call.name) == "epoll_ctl");
    let modified = modified.filter(|call| call.arguments.contains("modify")).count();
    let interest = match modified {
        0 => String::new(),
        _ => " serve-epoll then asks for EPOLLOUT (epoll_ctl): to be woken when there is room."
            .to_owned(),
    };
    (!all.is_empty()).then(|| {
        Sentence::new(
            blocked.is_empty(),
            format!(
                "No thread sleeps in send with the others. Their last send: {}.{interest}",
                told.join(", ")
            ),
            format!("{}: a thread sleeps in send(2).", names(&blocked)),
        )
    })
}

fn others(models: &[Model]) -> Option<Sentence> {
    let few: Vec<&Model> =
        models.iter().filter(|one| FEW_THREADS.contains(&one.name.as_str())).collect();
    let served: Vec<&Model> = few.iter().copied().filter(|one| one.served).collect();
    let after = few.iter().all(|one| one.served_after);
    (!few.is_empty()).then(|| {
        Sentence::new(
            served.is_empty() && after,
            format!(
                "{}: all threads sleep for clients that do not read, so the third has no reply \
                 until these have read.",
                names(&few)
            ),
            match served.is_empty() {
                true => format!("{}: the third was not served at all.", names(&few)),
                false => format!("{}: a thread was free, and served the third.", names(&served)),
            },
        )
    })
}

/// What `--write-timeout` counts.
fn progress(recording: &Recording) -> Option<Sentence> {
    let of = |name: &str| recording.figure("write-timeout", name);
    let (closed, whole) = (of("reads_nothing_closed")? == 1.0, of("reads_slowly_whole")? == 1.0);
    let timeout_us = of("write_timeout_us")?;
    let time_of = |kind: &str| {
        let span = recording.spans_of("write-timeout").find(|span| span.kind == kind);
        span.map_or(0.0, |span| span.to_us - span.from_us)
    };
    let (waited, sipped) = (time(time_of("waits")), time(time_of("reads")));
    let (timeout, sips) = (time(timeout_us), size(of("reads_slowly_bytes")?));
    Some(Sentence::new(
        closed && whole,
        format!(
            "With --write-timeout {timeout} the client that reads nothing is closed after \
             {waited}. One that reads {sips} in {sipped} is not: the timeout counts \
             progress, not time."
        ),
        match (closed, whole) {
            (false, _) => format!("The client that reads nothing was not closed in {waited}."),
            (true, _) => format!("The client that reads slowly was closed too, within {sipped}."),
        },
    ))
}

fn answer(models: &[Model]) -> Answer {
    let waits = |group: &[&str]| {
        let mut all = models.iter().filter(|one| group.contains(&one.name.as_str()));
        all.all(|one| !one.served)
    };
    let loops = models.iter().filter(|one| !BLOCKING.contains(&one.name.as_str()));
    let loops = loops.clone().count() > 0 && loops.clone().all(|one| !one.served);
    let choice = match (waits(FEW_THREADS), waits(&["threads"]), loops) {
        (true, true, true) => "all",
        (true, true, false) => "those with blocking calls",
        (true, false, _) => "serial, and a pool of two threads",
        (false, _, true) => "the event loops",
        (false, _, false) => "none",
    };
    Answer::Choice(choice.to_owned())
}

#[cfg(test)]
mod tests {
    use record::{Figure, Span};

    use super::*;

    /// Model, whether a thread sleeps in the last send, and whether the third is served meanwhile.
    type Row<'a> = (&'a str, bool, bool);

    const USUAL: [Row; 4] = [
        ("serial", true, false),
        ("pool", true, false),
        ("threads", true, true),
        ("epoll", false, true),
    ];

    fn send(run: &str, blocks: bool) -> Call {
        let to_us = if blocks { 5e3 } else { 200.0 };
        let (result, slept) = (Some(4_096), Some(blocks));
        Call { from_us: 100.0, to_us, result, slept, ..fixture::call(run, "sendto") }
    }

    /// `growth_kib`: of each server's memory. `closed`: whether the client that reads nothing is
    /// closed, and the one that reads slowly served to the end.
    fn recording(rows: &[Row], growth_kib: f64, closed: (bool, bool)) -> Recording {
        let mut recording = super::super::tests::recording("slow-reader");
        let number = |yes: bool| f64::from(u8::from(yes));
        let mut add = |run: &str, figures: &[(&str, f64)], kinds: &[&str]| {
            recording.runs.push(Run { run: run.into(), title: run.into(), ..Run::default() });
            for &(name, value) in figures {
                let (run, name) = (run.to_owned(), name.to_owned());
                recording.figures.push(Figure { run, name, value, ..Figure::default() });
            }
            for kind in kinds {
                let (run, kind, to_us) = (run.to_owned(), (*kind).to_owned(), 1e3);
                recording.spans.push(Span { run, kind, to_us, ..Span::default() });
            }
        };
        for &(run, _, served) in rows {
            let figures = [
                ("body_bytes", 8e6),
                ("send_buffer_bytes", 2e6),
                ("receive_buffer_bytes", 1e5),
                ("own_memory_growth_kib", growth_kib),
                ("other_served_meanwhile", number(served)),
                ("other_served_after", 1.0),
            ];
            add(run, &figures, &["fills"]);
        }
        let figures = [
            ("write_timeout_us", 1e6),
            ("reads_nothing_closed", number(closed.0)),
            ("reads_slowly_bytes", 5e5),
            ("reads_slowly_whole", number(closed.1)),
        ];
        add("write-timeout", &figures, &["waits", "reads"]);
        recording.calls = rows.iter().map(|&(run, blocks, _)| send(run, blocks)).collect();
        recording
    }

    fn holds(recording: &Recording) -> (bool, Vec<bool>) {
        let lesson = lesson(recording);
        (lesson.finding.holds, lesson.sentences.iter().map(|one| one.holds).collect())
    }

    #[test]
    fn a_blocked_thread_serves_no_other_client() {
        let seen = recording(&USUAL, 300.0, (true, true));
        assert_eq!(holds(&seen), (true, vec![true; 6]));
        let few = "serial, and a pool of two threads".to_owned();
        assert_eq!(lesson(&seen).answer, Some(Answer::Choice(few)));
    }

    #[test]
    fn without_its_cause_each_sentence_says_something_else() {
        // Loops in the place of the threads and a thread in the place of the loop, copies of what
        // is not sent, and no timeout.
        let rows = [("serial", false, true), ("pool", false, true), ("epoll", true, true)];
        let seen = recording(&rows, 20_000.0, (false, true));
        assert_eq!(holds(&seen), (false, vec![true, false, false, false, false, false]));
        assert_eq!(lesson(&seen).answer, Some(Answer::Choice("none".to_owned())));
        // A timeout that counts the whole time.
        let seen = recording(&USUAL, 300.0, (true, false));
        assert_eq!(holds(&seen).1.last(), Some(&false));
    }
}
