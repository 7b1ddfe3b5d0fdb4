//! When a client knows a message, and what else a WebSocket is, by the recording of `news`.

use record::Recording;

use super::{Answer, Lesson, Sentence, time};

/// A client that polls knows a message half an interval after it is due, on average. A mean counts
/// as that from this share of the interval on: ten messages have no exact mean.
const POLLED_MIN: f64 = 0.3;
/// The others count as told at once below this share of the mean of polling.
const AT_ONCE_MAX: f64 = 0.25;
/// A server told to wait for the client misses at least this share where the next request takes
/// longer than a period.
const MISSED_MIN: f64 = 0.25;
const WAYS: [(&str, &str); 4] = [
    ("polling", "polling"),
    ("long-polling", "long polling"),
    ("events", "server-sent events"),
    ("websocket", "a WebSocket"),
];

/// What one way cost.
struct Way {
    name: &'static str,
    late_us: f64,
    requests: f64,
    seen: f64,
    bytes: f64,
    cpu_us: f64,
}

pub(super) fn mean_late_us(recording: &Recording, run: &str) -> Option<f64> {
    let late = recording.spans_of(run).filter(|span| span.kind == "late");
    let late: Vec<f64> = late.map(|span| span.to_us - span.from_us).collect();
    (!late.is_empty()).then(|| late.iter().sum::<f64>() / late.len() as f64)
}

fn ways(recording: &Recording) -> Option<Vec<Way>> {
    let way = |(run, name): &(&str, &'static str)| {
        let figure = |name: &str| recording.figure(run, name);
        Some(Way {
            name,
            late_us: mean_late_us(recording, run)?,
            requests: figure("requests")?,
            seen: figure("messages_seen")?,
            bytes: figure("bytes_sent")? + figure("bytes_received")?,
            cpu_us: figure("server_cpu_us")?,
        })
    };
    WAYS.iter().map(way).collect()
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let ways = ways(recording);
    let interval_ms = recording.figure("polling", "poll_interval_ms").unwrap_or(0.0);
    let mut sentences = Vec::new();
    if let Some(ways) = &ways {
        sentences.push(lateness(ways, interval_ms));
        sentences.push(requests(ways));
        sentences.push(bytes(ways));
        sentences.push(cpu(ways));
    }
    sentences.extend(far(recording));
    sentences.extend(post_office(recording));
    sentences.extend(duplex(recording));
    sentences.extend(fetch(recording));
    sentences.extend(origin(recording));
    let nothing = || Sentence { text: "nothing was measured".to_owned(), holds: false };
    Lesson {
        finding: ways.as_deref().map_or_else(nothing, |ways| finding(ways, interval_ms)),
        sentences,
        answer: mean_late_us(recording, "polling").map(|us| Answer::Number(us / 1e3)),
    }
}

fn told_at_once(ways: &[Way], interval_ms: f64) -> bool {
    let polled = ways[0].late_us;
    let at_once = |way: &Way| way.late_us < AT_ONCE_MAX * polled;
    polled > POLLED_MIN * interval_ms * 1e3 && ways[1..].iter().all(at_once)
}

fn finding(ways: &[Way], interval_ms: f64) -> Sentence {
    let latest = ways[1..].iter().map(|way| way.late_us).fold(0.0, f64::max);
    let (polled, latest) = (time(ways[0].late_us), time(latest));
    Sentence::new(
        told_at_once(ways, interval_ms),
        format!(
            "Who polls every {interval_ms} ms is {polled} late on average; who is told, at most \
             {latest}"
        ),
        format!("Polling is {polled} late on average, and a way of being told {latest}"),
    )
}

/// `polling 1, long polling 2, ...`.
fn each(ways: &[Way], say: impl Fn(&Way) -> String) -> String {
    let each: Vec<String> = ways.iter().map(|way| format!("{} {}", way.name, say(way))).collect();
    each.join(", ")
}

fn lateness(ways: &[Way], interval_ms: f64) -> Sentence {
    let means = each(ways, |way| time(way.late_us));
    Sentence::new(
        told_at_once(ways, interval_ms),
        format!(
            "From the due time of a message to its arrival, on average: {means}. Only polling \
             waits for its clock, half an interval."
        ),
        format!(
            "From the due time of a message to its arrival, on average: {means}. It was not the \
             interval of polling that made the difference."
        ),
    )
}

fn requests(ways: &[Way]) -> Sentence {
    let all = each(ways, |way| format!("{}", way.requests));
    let seen = ways[0].seen;
    let [polling, long, events, websocket] = ways else { return none() };
    Sentence::new(
        polling.requests > polling.seen
            && long.requests == long.seen
            && events.requests == 1.0
            && websocket.requests == 1.0,
        format!(
            "Requests for {seen} messages: {all}. Polling asks although there is nothing new, long \
             polling once for each message, the others once."
        ),
        format!("Requests for {seen} messages: {all}."),
    )
}

fn none() -> Sentence {
    Sentence { text: "a way was not measured".to_owned(), holds: false }
}

fn bytes(ways: &[Way]) -> Sentence {
    let per = each(ways, |way| format!("{:.0}", way.bytes / way.seen));
    Sentence::new(
        ways.windows(2).all(|pair| pair[0].bytes / pair[0].seen > pair[1].bytes / pair[1].seen),
        format!(
            "Bytes for each message, both directions and the opening: {per}. Each saves heads of \
             HTTP."
        ),
        format!("Bytes for each message, both directions and the opening: {per}."),
    )
}

fn cpu(ways: &[Way]) -> Sentence {
    let per = each(ways, |way| format!("{:.0}", way.cpu_us / way.seen));
    let told = ways[2..].iter().map(|way| way.cpu_us / way.seen).fold(0.0, f64::max);
    Sentence::new(
        told < ways[0].cpu_us / ways[0].seen,
        format!(
            "CPU of the server for each message, in microseconds: {per}. A request costs more than \
             a message on a connection that is open."
        ),
        format!(
            "CPU of the server for each message, in microseconds: {per}. The requests of polling \
             did not cost more here."
        ),
    )
}

/// Over a link whose round trip is longer than a period.
fn far(recording: &Recording) -> Option<Sentence> {
    let counts = |run: &str| {
        let figure = |name: &str| recording.figure(run, name);
        Some((figure("messages_seen")?, figure("messages_due")?))
    };
    let (long, events) = (counts("long-polling-far")?, counts("events-far")?);
    let place = "At 100 ms of round trip and a message every 50 ms";
    let seen = format!(
        "{place}, long polling saw {} of {} messages, server-sent events {} of {}",
        long.0, long.1, events.0, events.1
    );
    Some(Sentence::new(
        long.0 <= (1.0 - MISSED_MIN) * long.1 && events.0 == events.1,
        format!("{seen}: the next request of long polling takes a round trip."),
        format!("{seen}."),
    ))
}

fn post_office(recording: &Recording) -> Option<Sentence> {
    let heard = |run: &str| {
        let figure = |name: &str| recording.figure(run, name);
        Some((figure("heard_by_speaker")?, figure("heard_by_others")?))
    };
    let (chat, echo) = (heard("chat")?, heard("echo")?);
    let seen = format!(
        "One of three clients spoke. In /ws/chat the others heard it {} times and the speaker {}; \
         in /ws/echo {} and {}",
        chat.1, chat.0, echo.1, echo.0
    );
    Some(Sentence::new(
        chat == (0.0, 2.0) && echo == (1.0, 0.0),
        format!(
            "{seen}. The protocol is the same: it is the application that forwards, like a post \
             office."
        ),
        format!("{seen}."),
    ))
}

fn duplex(recording: &Recording) -> Option<Sentence> {
    let figure = |name: &str| recording.figure("flood", name);
    let (due, seen) = (figure("messages_due")?, figure("messages_seen")?);
    let sent = figure("flood_bytes")? / 1e6;
    let seen_text = format!(
        "While the client sent {sent:.0} MB without a pause, {seen} of {due} messages came"
    );
    Some(Sentence::new(
        seen == due && sent > 1.0,
        format!("{seen_text}: both directions of a WebSocket are open at once."),
        format!("{seen_text}: the flood held up the other direction."),
    ))
}

fn fetch(recording: &Recording) -> Option<Sentence> {
    let figure = |name: &str| recording.figure("origin-fetch", name);
    let (status, allows) = (figure("status")?, figure("allows_origin")? != 0.0);
    let seen = format!("A GET for a page of another site was answered with status {status}");
    Some(Sentence::new(
        status == 200.0 && !allows,
        format!(
            "{seen}, without Access-Control-Allow-Origin: the server did its work, and the browser \
             does not let the page read the reply."
        ),
        match allows {
            true => format!("{seen}, and with Access-Control-Allow-Origin: the page may read it."),
            false => format!("{seen}."),
        },
    ))
}

/// What protects a WebSocket, for which browsers ask no permission.
fn origin(recording: &Recording) -> Option<Sentence> {
    let figure = |run: &str, name: &str| recording.figure(run, name);
    let checked = figure("origin-checked", "status")?;
    let open = figure("origin-allowed", "status")?;
    let (sent, arrived) = (
        figure("origin-allowed", "bytes_sent")?,
        figure("origin-allowed", "server_bytes_received")?,
    );
    let seen = format!(
        "A WebSocket for the same page, with the user's cookie: status {checked}, and {open} with \
         --allow-origin; the server read {arrived} of the {sent} bytes, the cookie among them"
    );
    Some(Sentence::new(
        checked == 403.0 && open == 101.0 && arrived == sent,
        format!(
            "{seen}. A browser asks no permission for a WebSocket: without a check of Origin, the \
             page acts as the user (hijacking)."
        ),
        format!("{seen}. The check of Origin did not make the difference."),
    ))
}

#[cfg(test)]
mod tests {
    use record::{Environment, Figure, Heading, RECORDING_VERSION, Run, Span};

    use super::*;

    fn empty() -> Recording {
        Recording::new(Heading {
            recording_version: RECORDING_VERSION,
            experiment: "news".into(),
            command: String::new(),
            prediction: None,
            environment: Environment::default(),
        })
    }

    fn add(recording: &mut Recording, run: &str, figures: &[(&str, f64)]) {
        recording.runs.push(Run { run: run.to_owned(), ..Run::default() });
        for &(name, value) in figures {
            let (run, name) = (run.to_owned(), name.to_owned());
            recording.figures.push(Figure { run, name, value, ..Figure::default() });
        }
    }

    /// A recording of what the servers do. `late_ms`, `requests`, `bytes` and `cpu_us` of each way.
    fn recording(ways: [(f64, f64, f64, f64); 4]) -> Recording {
        let mut recording = empty();
        for ((run, _), (late_ms, requests, bytes, cpu_us)) in WAYS.iter().zip(ways) {
            let figures = [
                ("poll_interval_ms", 100.0),
                ("requests", requests),
                ("messages_seen", 10.0),
                ("bytes_sent", bytes / 2.0),
                ("bytes_received", bytes / 2.0),
                ("server_cpu_us", cpu_us),
            ];
            add(&mut recording, run, &figures);
            for number in 1..=10 {
                let from_us = f64::from(number) * 130e3;
                recording.spans.push(Span {
                    run: (*run).to_owned(),
                    kind: "late".into(),
                    from_us,
                    to_us: from_us + late_ms * 1e3,
                    ..Span::default()
                });
            }
        }
        recording
    }

    const SEEN: [(f64, f64, f64, f64); 4] = [
        (50.0, 14.0, 3_000.0, 600.0),
        (0.3, 10.0, 2_000.0, 500.0),
        (0.2, 1.0, 500.0, 200.0),
        (0.2, 1.0, 300.0, 200.0),
    ];

    fn holds(recording: &Recording) -> Vec<bool> {
        lesson(recording).sentences.iter().map(|sentence| sentence.holds).collect()
    }

    #[test]
    fn who_is_told_is_not_late() {
        let seen = lesson(&recording(SEEN));
        assert!(seen.finding.holds, "{}", seen.finding.text);
        assert_eq!(holds(&recording(SEEN)), [true; 4]);
        assert_eq!(seen.answer, Some(Answer::Number(50.0)));
    }

    #[test]
    fn without_its_cause_each_sentence_about_the_ways_says_something_else() {
        // An interval that does not matter.
        let mut ways = SEEN;
        ways[0] = (0.5, 10.0, 2_000.0, 100.0);
        let seen = recording(ways);
        assert_eq!(holds(&seen), [false; 4]);
        assert!(!lesson(&seen).finding.holds);
        // Events that come late.
        ways = SEEN;
        ways[2].0 = 40.0;
        assert_eq!(holds(&recording(ways)), [false, true, true, true]);
    }

    /// What is said of runs with these figures alone: `RUN NAME VALUE`, separated by commas.
    fn of(figures: &str) -> Sentence {
        let mut seen = empty();
        for figure in figures.split(", ") {
            let [run, name, value] = figure.split(' ').collect::<Vec<_>>()[..] else { panic!() };
            add(&mut seen, run, &[(name, value.parse().unwrap())]);
        }
        let [sentence] = &lesson(&seen).sentences[..] else { panic!("{figures}") };
        sentence.clone()
    }

    #[test]
    fn over_a_round_trip_long_polling_misses_messages() {
        let far = |seen: u32| {
            of(&format!(
                "long-polling-far messages_seen {seen}, long-polling-far messages_due 20, \
                 events-far messages_seen 20, events-far messages_due 20"
            ))
        };
        assert!(far(10).holds && !far(20).holds);
    }

    #[test]
    fn the_application_forwards_and_both_directions_are_open() {
        let heard = |speaker: u32, others: u32| {
            of(&format!(
                "chat heard_by_speaker {speaker}, chat heard_by_others {others}, \
                 echo heard_by_speaker 1, echo heard_by_others 0"
            ))
        };
        assert!(heard(0, 2).holds && !heard(1, 0).holds);
        let beside = |seen: u32| {
            of(&format!(
                "flood messages_due 50, flood messages_seen {seen}, flood flood_bytes 50000000"
            ))
        };
        assert!(beside(50).holds && !beside(1).holds);
    }

    #[test]
    fn the_check_of_origin_is_seen_by_the_status_and_the_cookie_by_the_bytes() {
        let fetch = |allows: u32| {
            of(&format!("origin-fetch status 200, origin-fetch allows_origin {allows}"))
        };
        assert!(fetch(0).holds);
        assert!(!fetch(1).holds && fetch(1).text.contains("may read it"));
        let origins = |checked: u32, arrived: u32| {
            of(&format!(
                "origin-checked status {checked}, origin-allowed status 101, \
                 origin-allowed bytes_sent 250, origin-allowed server_bytes_received {arrived}"
            ))
        };
        assert!(origins(403, 250).holds);
        assert!(!origins(101, 250).holds && !origins(403, 220).holds);
    }
}
