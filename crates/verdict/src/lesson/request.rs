//! What keep-alive saves, by the recording of the experiment `request`.

use record::{Recording, Span};

use super::{Answer, Lesson, Sentence, time};

/// A saving counts as that of the round trips if it has at least this share of them: on a loaded
/// machine the two runs may differ by some milliseconds.
const SHARE_MIN: f64 = 0.8;
/// How much later than asked for the server may close, in microseconds: a model looks at its
/// timers up to a second apart on a loaded machine.
const LATE_MAX_US: f64 = 500_000.0;

/// The two runs at one round-trip time.
struct Pair {
    rtt_ms: f64,
    files: f64,
    /// Without and with keep-alive: the time until the last byte of the last file.
    total_us: [f64; 2],
    /// The same: connections that the server accepted.
    accepted: [f64; 2],
    /// The same: the transfers of all files but the first, added.
    later_transfers_us: [f64; 2],
}

impl Pair {
    fn saved_us(&self) -> f64 {
        self.total_us[0] - self.total_us[1]
    }

    /// Lookup and connect, for each file but the first.
    fn round_trips(&self) -> f64 {
        2.0 * (self.files - 1.0)
    }

    fn saves_round_trips(&self) -> bool {
        self.saved_us() >= SHARE_MIN * self.round_trips() * self.rtt_ms * 1e3
    }
}

fn pairs(recording: &Recording) -> Vec<Pair> {
    let runs = recording.runs.iter().filter_map(|run| run.run.strip_prefix("close-"));
    let pair = |place: &str| {
        let names = [format!("close-{place}"), format!("keep-alive-{place}")];
        let [without, with] = &names;
        let accepted = |run: &str| recording.figure(run, "connections_accepted");
        Some(Pair {
            rtt_ms: recording.figure(without, "rtt_ms")?,
            files: recording.spans_of(without).filter(|span| span.kind == "wait").count() as f64,
            total_us: [total_us(recording, without)?, total_us(recording, with)?],
            accepted: [accepted(without)?, accepted(with)?],
            later_transfers_us: [later_us(recording, without), later_us(recording, with)],
        })
    };
    runs.filter_map(pair).collect()
}

fn total_us(recording: &Recording, run: &str) -> Option<f64> {
    let begins = recording.spans_of(run).map(|span| span.from_us).reduce(f64::min)?;
    let transfers = recording.spans_of(run).filter(|span| span.kind == "transfer");
    Some(transfers.map(|span| span.to_us).reduce(f64::max)? - begins)
}

fn later_us(recording: &Recording, run: &str) -> f64 {
    let transfers = recording.spans_of(run).filter(|span| span.kind == "transfer");
    let later = transfers.filter(|span| span.request > Some(0));
    later.map(|span| span.to_us - span.from_us).sum()
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let pairs = pairs(recording);
    let longest = pairs.iter().max_by(|a, b| a.rtt_ms.total_cmp(&b.rtt_ms));
    let mut sentences: Vec<Sentence> = longest.map(connections).into_iter().collect();
    sentences.extend(pairs.iter().filter(|pair| pair.rtt_ms > 0.0).map(saving));
    sentences.extend(longest.filter(|pair| pair.rtt_ms > 0.0).map(window));
    sentences.extend(on_loopback(&pairs));
    sentences.extend(idle(recording));
    let asked = pairs.iter().find(|pair| pair.rtt_ms == 100.0);
    let answer = asked.map(|pair| Answer::Number(pair.saved_us() / 1e3));
    Lesson { finding: longest.map_or_else(nothing, finding), sentences, answer }
}

fn nothing() -> Sentence {
    Sentence { text: "no run was made".to_owned(), holds: false }
}

fn finding(pair: &Pair) -> Sentence {
    let Pair { files, rtt_ms, total_us: [without, with], .. } = pair;
    if pair.rtt_ms == 0.0 {
        let text =
            format!("On loopback keep-alive saves {} for {files} files", time(pair.saved_us()));
        return Sentence { text, holds: false };
    }
    let (without, with) = (time(*without), time(*with));
    Sentence::new(
        pair.saves_round_trips(),
        format!(
            "At {rtt_ms} ms of round trip, keep-alive brings {files} files from {without} to {with}"
        ),
        format!(
            "At {rtt_ms} ms of round trip, {files} files take {without}, and {with} with keep-alive"
        ),
    )
}

fn connections(pair: &Pair) -> Sentence {
    let Pair { files, accepted: [without, with], .. } = pair;
    Sentence::new(
        without == files && *with == 1.0,
        format!(
            "Without keep-alive the server accepted {without} connections for {files} files; with \
             it one connection carried all of them."
        ),
        format!(
            "The server accepted {without} connections for {files} files without keep-alive and \
             {with} with it: the connection was not kept."
        ),
    )
}

fn saving(pair: &Pair) -> Sentence {
    let Pair { rtt_ms, total_us: [without, with], .. } = pair;
    let saved = time(pair.saved_us().max(0.0));
    let times = format!("{} without keep-alive and {} with it", time(*without), time(*with));
    Sentence::new(
        pair.saves_round_trips(),
        format!(
            "At {rtt_ms} ms of round trip: {times}. It saved {saved}, at least the {} round \
             trips for lookup and connect of each file but the first.",
            pair.round_trips()
        ),
        format!(
            "At {rtt_ms} ms of round trip as asked for: {times}. It saved only {saved}, less than \
             the {} round trips of the lookups and connects: they did not take that long.",
            pair.round_trips()
        ),
    )
}

/// Slow start (RFC 5681 section 3.1) begins again on each new connection.
fn window(pair: &Pair) -> Sentence {
    let [without, with] = pair.later_transfers_us;
    let times = format!(
        "After the first file the transfers took {} on new connections and {} on the kept one",
        time(without),
        time(with)
    );
    Sentence::new(
        with < without / 2.0,
        format!("{times}: TCP's congestion window had grown with the first file."),
        format!("{times}: the congestion window did not matter here."),
    )
}

fn on_loopback(pairs: &[Pair]) -> Option<Sentence> {
    let local = pairs.iter().find(|pair| pair.rtt_ms == 0.0)?;
    let saved = time(local.saved_us().max(0.0));
    let far = pairs.iter().find(|pair| pair.rtt_ms > 0.0);
    let Some(far) = far else {
        let text = format!(
            "On loopback it saved {saved}. What it saves over a distance was not measured here."
        );
        return Some(Sentence { text, holds: false });
    };
    Some(Sentence::new(
        local.saved_us() < far.saved_us() / 10.0,
        format!(
            "On loopback it saved {saved}: a benchmark without a round trip does not show what \
             keep-alive is for."
        ),
        format!(
            "On loopback it saved {saved}, not much less than over {} ms of round trip.",
            far.rtt_ms
        ),
    ))
}

/// When the server closed the idle connection.
fn idle(recording: &Recording) -> Option<Sentence> {
    let idle = recording.spans.iter().find(|span| span.kind == "idle")?;
    let asked_us = recording.figure(&idle.run, "idle_timeout_ms")? * 1e3;
    // The server's clock starts when it has sent, which is before the last byte arrives.
    let transfer = |span: &&Span| span.kind == "transfer" && span.request == idle.request;
    let sent_us = recording.spans_of(&idle.run).find(transfer)?.from_us;
    let (least, most) = (idle.to_us - idle.from_us, idle.to_us - sent_us);
    let seen = time(least);
    Some(Sentence::new(
        asked_us <= most && least <= asked_us + LATE_MAX_US,
        format!(
            "The server closed the idle connection after {seen}; --idle-timeout asked for {}.",
            time(asked_us)
        ),
        format!(
            "The server closed the idle connection after {seen}, although --idle-timeout asked for \
             {}.",
            time(asked_us)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use record::{Figure, Run};

    use super::*;

    /// Spans of a client whose lookups and connects take `trip_ms` each, at `rtt_ms` as asked for.
    fn recording(rtt_ms: f64, trip_ms: f64, accepted: [f64; 2], idle_ms: f64) -> Recording {
        let mut recording = super::super::tests::recording("request");
        for (way, accepted) in ["close", "keep-alive"].iter().zip(accepted) {
            let run = format!("{way}-{rtt_ms}ms");
            recording.runs.push(Run { run: run.clone(), ..Run::default() });
            let mut now = 0.0;
            let mut span = |kind: &str, file: u32, ms: f64| {
                let (run, kind, request) = (run.clone(), kind.to_owned(), Some(file));
                let (from_us, to_us) = (now, now + ms * 1e3);
                now = to_us;
                recording.spans.push(Span {
                    run,
                    kind,
                    request,
                    from_us,
                    to_us,
                    ..Span::default()
                });
            };
            for file in 0..3 {
                if *way == "close" || file == 0 {
                    span("name", file, trip_ms);
                    span("connect", file, trip_ms);
                }
                span("wait", file, trip_ms);
                let grown = *way == "keep-alive" && file > 0;
                span("transfer", file, if grown { 0.1 } else { 1.0 });
            }
            if *way == "keep-alive" {
                span("idle", 2, idle_ms);
            }
            for (name, value) in [
                ("rtt_ms", rtt_ms),
                ("idle_timeout_ms", 1_000.0),
                ("connections_accepted", accepted),
            ] {
                let (run, name) = (run.clone(), name.to_owned());
                recording.figures.push(Figure { run, name, value, ..Figure::default() });
            }
        }
        recording
    }

    fn holds(recording: &Recording) -> Vec<bool> {
        lesson(recording).sentences.iter().map(|sentence| sentence.holds).collect()
    }

    #[test]
    fn keep_alive_saves_round_trips_and_the_server_closes_in_time() {
        let seen = recording(100.0, 100.0, [3.0, 1.0], 1_002.0);
        assert_eq!(holds(&seen), [true, true, true, true]);
        let lesson = lesson(&seen);
        assert!(lesson.finding.holds && lesson.finding.text.contains("from 903 ms to 501 ms"));
        assert_eq!(lesson.answer, Some(Answer::Number(401.8)));
    }

    #[test]
    fn without_its_cause_each_sentence_says_something_else() {
        // A link without delay.
        let seen = recording(100.0, 0.1, [3.0, 1.0], 1_002.0);
        assert_eq!(holds(&seen), [true, false, true, true]);
        assert!(!lesson(&seen).finding.holds);
        // A window that does not grow.
        let mut seen = recording(100.0, 100.0, [3.0, 1.0], 1_002.0);
        for span in seen.spans.iter_mut().filter(|span| span.kind == "transfer") {
            span.to_us = span.from_us + 1e3;
        }
        assert!(!holds(&seen)[2]);
        // A server that does not keep the connection.
        assert!(!holds(&recording(100.0, 100.0, [3.0, 3.0], 1_002.0))[0]);
        // A server that closes at once, and one that closes late.
        for idle_ms in [2.0, 5_000.0] {
            assert!(!holds(&recording(100.0, 100.0, [3.0, 1.0], idle_ms))[3]);
        }
    }

    #[test]
    fn loopback_alone_says_that_a_distance_was_not_measured() {
        let seen = lesson(&recording(0.0, 0.1, [3.0, 1.0], 1_002.0));
        assert!(!seen.finding.holds && seen.answer.is_none());
        assert!(seen.sentences[1].text.contains("was not measured here"));
    }
}
