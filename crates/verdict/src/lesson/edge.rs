//! What level and edge triggers report, and what is forgotten, by the recording of `edge`.

use record::{Call, Recording};

use super::{Answer, Lesson, Sentence};
use crate::trace::{self, EAGAIN, Kind, short};

/// What was seen of one run.
pub struct Case {
    /// Times that epoll_wait(2) returned with the socket, for the message.
    pub reports: usize,
    /// Times that recv(2) copied bytes of it.
    pub reads: usize,
    /// Times that recv(2) said EAGAIN.
    pub nothing: usize,
    /// Whether the server sleeps in a wait without timeout at the end.
    pub sleeps_for_ever: bool,
    message: f64,
    echo: f64,
    unread: f64,
    echo_after_more: f64,
    unread_after_more: f64,
    closed: bool,
}

impl Case {
    /// Of this run; `None` if it was not made.
    pub fn of(recording: &Recording, run: &str) -> Option<Case> {
        let of = |name: &str| recording.figure(run, name);
        let calls = calls_for_message(recording, run);
        let count = |is: &dyn Fn(&Call) -> bool| calls.iter().filter(|call| is(call)).count();
        let receives = |call: &Call| Kind::of(call) == Kind::Receive;
        let last_wait =
            trace::calls(recording, run).filter(|call| short(&call.name) == "epoll_wait");
        Some(Case {
            reports: count(&|call| Kind::of(call) == Kind::Wait && call.result >= Some(1)),
            reads: count(&|call| receives(call) && call.result >= Some(1)),
            nothing: count(&|call| receives(call) && call.result == Some(EAGAIN)),
            sleeps_for_ever: last_wait.last().is_some_and(|call| {
                call.result.is_none_or(|result| result < 1) && call.arguments.contains("no timeout")
            }),
            message: of("message_bytes")?,
            echo: of("echo_bytes")?,
            unread: of("unread_bytes")?,
            echo_after_more: of("echo_bytes_after_more")?,
            unread_after_more: of("unread_bytes_after_more")?,
            closed: of("closed_by_server")? == 1.0,
        })
    }

    fn is_whole(&self) -> bool {
        self.echo == self.message && self.unread == 0.0
    }

    /// The calls in words.
    fn told(&self) -> String {
        let nothing = match self.nothing {
            0 => String::new(),
            nothing => format!(" and {nothing} that found nothing (EAGAIN)"),
        };
        format!(
            "epoll_wait returned {}, for {}{nothing}",
            times(self.reports),
            match self.reads {
                1 => "1 read".to_owned(),
                reads => format!("{reads} reads"),
            }
        )
    }
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

/// The server's calls from the message on, until the client sends more or closes.
pub fn calls_for_message<'a>(recording: &'a Recording, run: &'a str) -> Vec<&'a Call> {
    let span = recording.spans_of(run).find(|span| span.kind == "message");
    let Some((from_us, to_us)) = span.map(|span| (span.from_us, span.to_us)) else {
        return Vec::new();
    };
    let within = |call: &&Call| call.to_us >= from_us && call.from_us <= to_us;
    let ended = |call: &&Call| call.result.is_some() && call.to_us <= to_us;
    trace::calls(recording, run).filter(within).filter(ended).collect()
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let case = |run: &str| Case::of(recording, run);
    let (Some(level), Some(edge), Some(early)) = (case("level"), case("edge"), case("stops-early"))
    else {
        let text = "the calls of the three servers were not all seen";
        let finding = Sentence { text: text.to_owned(), holds: false };
        return Lesson { finding, sentences: Vec::new(), answer: None };
    };
    let mut sentences = vec![of_level(&level), of_edge(&edge), stops_early(&early), more(&early)];
    let both = case("epoll-level").zip(case("epoll-edge"));
    sentences.extend(both.map(|(level, edge)| of_serve_epoll(&level, &edge)));
    Lesson {
        finding: finding(&level, &edge, &early),
        sentences,
        answer: Some(Answer::Number(early.message - early.unread - 16.0)),
    }
}

fn finding(level: &Case, edge: &Case, early: &Case) -> Sentence {
    let (often, once) = (times(level.reports), times(edge.reports));
    let seen = format!("epoll_wait reports the same message {often} by level and {once} by edge");
    Sentence::new(
        level.reports > edge.reports && early.unread > 0.0,
        format!("{seen}; a reader that stops early forgets {:.0} of its bytes", early.unread),
        match early.unread > 0.0 {
            true => format!("{seen}; the reader that stops early leaves {:.0} bytes", early.unread),
            false => format!("{seen}; no byte is forgotten"),
        },
    )
}

fn of_level(level: &Case) -> Sentence {
    let told = level.told();
    Sentence::new(
        level.is_whole() && level.reads > 1 && level.reports == level.reads,
        format!(
            "Level: {told}. What is left is reported again, so one read for each report will do."
        ),
        format!("Level: {told}, and {:.0} bytes were left.", level.unread),
    )
}

fn of_edge(edge: &Case) -> Sentence {
    let told = edge.told();
    Sentence::new(
        edge.is_whole() && edge.reports == 1 && edge.reads > 1 && edge.nothing >= 1,
        format!("Edge: {told}. The reader must go on until EAGAIN: it is not told again."),
        format!("Edge: {told}, and {:.0} bytes were left.", edge.unread),
    )
}

fn stops_early(early: &Case) -> Sentence {
    let told = early.told();
    Sentence::new(
        early.unread > 0.0 && early.sleeps_for_ever,
        format!(
            "Edge, and it stops early: {told}. {:.0} bytes lie in the receive buffer, the server \
             sleeps in epoll_wait without a timeout, and its client waits for ever.",
            early.unread
        ),
        match early.unread > 0.0 {
            true => format!("It stops early: {told}; {:.0} bytes are left.", early.unread),
            false => format!("It does not stop early: {told}, and no byte is left."),
        },
    )
}

/// What one more byte and the end of the stream do to the reader that stops early.
fn more(early: &Case) -> Sentence {
    let read = early.echo_after_more - early.echo;
    Sentence::new(
        early.unread_after_more > 0.0 && read > 0.0 && !early.closed,
        format!(
            "One more byte is a new edge: it then reads {read:.0} old bytes, and {:.0} are left. \
             It stays behind, never reads the end of the stream, and never closes.",
            early.unread_after_more
        ),
        match early.closed {
            true => "It has read the end of the stream, and closed.".to_owned(),
            false => format!("After one more byte {:.0} bytes are left.", early.unread_after_more),
        },
    )
}

fn of_serve_epoll(level: &Case, edge: &Case) -> Sentence {
    let (one, other) = (level.told(), edge.told());
    Sentence::new(
        level.is_whole() && edge.is_whole() && level.closed && edge.closed,
        format!(
            "serve-epoll forgets nothing of {:.0} bytes in either mode. Level: {one}. Edge: \
             {other}.",
            level.message
        ),
        format!(
            "serve-epoll left {:.0} bytes by level and {:.0} by edge.",
            level.unread, edge.unread
        ),
    )
}

#[cfg(test)]
mod tests {
    use record::{Figure, Run, Span};

    use super::*;

    /// A server of a thread that makes these calls: name and result.
    fn add(recording: &mut Recording, run: &str, calls: &[(&str, i64)], figures: [f64; 5]) {
        recording.runs.push(Run { run: run.into(), ..Run::default() });
        for (at, &(name, result)) in calls.iter().enumerate() {
            let is_wait = name == "epoll_wait";
            recording.calls.push(Call {
                arguments: if is_wait { "4, no timeout".into() } else { String::new() },
                object: if is_wait { "eventpoll".into() } else { "connection".into() },
                connection: (!is_wait).then_some(0),
                from_us: at as f64 * 10.0,
                to_us: at as f64 * 10.0 + 5.0,
                // The last wait has not returned.
                result: (!is_wait || result > 0).then_some(result),
                slept: None,
                ..fixture::call(run, name)
            });
        }
        let (run, kind) = (run.to_owned(), "message".to_owned());
        recording.spans.push(Span { run: run.clone(), kind, to_us: 1e3, ..Span::default() });
        let names = ["echo_bytes", "unread_bytes", "echo_bytes_after_more"];
        let names = names.into_iter().chain(["unread_bytes_after_more", "closed_by_server"]);
        for (name, value) in names.zip(figures).chain([("message_bytes", 32.0)]) {
            let (run, name) = (run.clone(), name.to_owned());
            recording.figures.push(Figure { run, name, value, ..Figure::default() });
        }
    }

    const WHOLE: [f64; 5] = [32.0, 0.0, 33.0, 0.0, 1.0];
    const LEVEL: [(&str, i64); 5] = [
        ("epoll_wait", 1),
        ("recvfrom", 16),
        ("epoll_wait", 1),
        ("recvfrom", 16),
        ("epoll_wait", 0),
    ];
    const EDGE: [(&str, i64); 5] = [
        ("epoll_wait", 1),
        ("recvfrom", 16),
        ("recvfrom", 16),
        ("recvfrom", EAGAIN),
        ("epoll_wait", 0),
    ];

    fn holds(recording: &Recording) -> (bool, Vec<bool>) {
        let lesson = lesson(recording);
        (lesson.finding.holds, lesson.sentences.iter().map(|one| one.holds).collect())
    }

    #[test]
    fn a_reader_that_stops_early_forgets() {
        let mut seen = super::super::tests::recording("edge");
        add(&mut seen, "level", &LEVEL, WHOLE);
        add(&mut seen, "edge", &EDGE, WHOLE);
        let stops = [("epoll_wait", 1), ("recvfrom", 16), ("epoll_wait", 0)];
        add(&mut seen, "stops-early", &stops, [16.0, 16.0, 32.0, 1.0, 0.0]);
        add(&mut seen, "epoll-level", &LEVEL, WHOLE);
        add(&mut seen, "epoll-edge", &EDGE, WHOLE);
        assert_eq!(holds(&seen), (true, vec![true; 5]));
        assert!(lesson(&seen).finding.text.contains("twice by level and once by edge"));
        assert_eq!(lesson(&seen).answer, Some(Answer::Number(0.0)));
    }

    #[test]
    fn without_its_cause_each_sentence_says_something_else() {
        let mut seen = super::super::tests::recording("edge");
        // The triggers are exchanged, and the last reader goes on until EAGAIN.
        add(&mut seen, "level", &EDGE, WHOLE);
        add(&mut seen, "edge", &LEVEL, WHOLE);
        add(&mut seen, "stops-early", &EDGE, WHOLE);
        assert_eq!(holds(&seen), (false, vec![false; 4]));
    }
}
