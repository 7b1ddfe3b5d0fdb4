//! What streams on one connection save, and when they lose, by the recording of `streams`.

use record::{Recording, Span};

use super::{Answer, Lesson, Sentence, time};

/// The congestion window grows by half at least in each round trip of slow start. It doubles, but
/// a receiver that acknowledges every second segment makes that less (RFC 3465).
const GROWTH_MIN: f64 = 1.5;

/// From the first request to the last byte.
pub(super) fn total_us(recording: &Recording, run: &str) -> Option<f64> {
    recording.spans_of(run).map(|span| span.to_us).reduce(f64::max)
}

fn requests(recording: &Recording, run: &str) -> usize {
    recording.spans_of(run).filter(|span| span.kind == "transfer").count()
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let tiles = tiles(recording);
    let mut sentences: Vec<Sentence> = tiles.iter().map(by_time).collect();
    sentences.extend(heads(recording));
    sentences.extend(slow(recording));
    sentences.extend(slow_start(recording));
    sentences.extend(loss(recording));
    let nothing = || Sentence {
        text: "A link was not available, so the tiles were not fetched".to_owned(),
        holds: false,
    };
    Lesson {
        finding: tiles.as_ref().map_or_else(nothing, finding),
        sentences,
        answer: tiles.map(|tiles| Answer::Number(tiles.one_us / tiles.streams_us)),
    }
}

struct Tiles {
    count: usize,
    one_us: f64,
    six_us: f64,
    streams_us: f64,
}

impl Tiles {
    fn is_in_order(&self) -> bool {
        self.streams_us < self.six_us && self.six_us < self.one_us
    }
}

fn tiles(recording: &Recording) -> Option<Tiles> {
    Some(Tiles {
        count: requests(recording, "tiles-h2x1"),
        one_us: total_us(recording, "tiles-h1x1")?,
        six_us: total_us(recording, "tiles-h1x6")?,
        streams_us: total_us(recording, "tiles-h2x1")?,
    })
}

fn finding(tiles: &Tiles) -> Sentence {
    let [one, six, streams] = [tiles.one_us, tiles.six_us, tiles.streams_us].map(time);
    let times =
        format!("{} tiles: one connection {one}, six {six}, streams {streams}", tiles.count);
    Sentence::new(
        tiles.is_in_order(),
        format!(
            "{} tiles: one connection of HTTP/1.1 takes {one}, six {six}, streams {streams}",
            tiles.count
        ),
        times,
    )
}

fn by_time(tiles: &Tiles) -> Sentence {
    let [one, six, streams] = [tiles.one_us, tiles.six_us, tiles.streams_us].map(time);
    let seen = format!(
        "{} tiles took {one} on one connection of HTTP/1.1, {six} on six, and {streams} on streams \
         of one connection of HTTP/2",
        tiles.count
    );
    Sentence::new(
        tiles.is_in_order(),
        format!("{seen}: HTTP/1.1 waits a round trip for each reply, streams do not wait."),
        format!("{seen}. Waiting for round trips did not make the difference here."),
    )
}

fn heads(recording: &Recording) -> Option<Sentence> {
    let figures = |name: &str| {
        let of = |kind: &str| {
            let figure = |way: &str| recording.figure(&format!("{kind}-{way}"), name);
            figure("h1x1").zip(figure("h2x1"))
        };
        of("tiles").or_else(|| of("slow"))
    };
    let (asks, replies) = (figures("request_head_bytes")?, figures("reply_head_bytes")?);
    let seen = format!(
        "The head of a request has {:.0} bytes in HTTP/1.1 and {:.0} in HTTP/2, that of a reply \
         {:.0} and {:.0}, on average",
        asks.0, asks.1, replies.0, replies.1
    );
    Some(Sentence::new(
        asks.1 < asks.0 / 2.0 && replies.1 < replies.0 / 2.0,
        format!("{seen}: HPACK sends a field once and then its index."),
        format!("{seen}."),
    ))
}

/// When each request ended, the slow one first.
fn ends(recording: &Recording, run: &str) -> Option<(f64, Vec<f64>)> {
    let ended = |span: &&Span| span.kind == "transfer";
    let of = |slow: bool| {
        let of = recording.spans_of(run).filter(ended);
        of.filter(move |span| (span.request == Some(0)) == slow).map(|span| span.to_us)
    };
    let others: Vec<f64> = of(false).collect();
    let slow = of(true).next()?;
    (!others.is_empty()).then_some((slow, others))
}

fn slow(recording: &Recording) -> Option<Sentence> {
    let ((slow_us, queued), (slow2_us, streams)) =
        (ends(recording, "slow-h1x1")?, ends(recording, "slow-h2x1")?);
    let first = queued.iter().copied().fold(f64::INFINITY, f64::min);
    let last = streams.iter().copied().fold(0.0, f64::max);
    let seen = format!(
        "One of ten replies took {}. On one connection of HTTP/1.1 the first of the others came \
         after {}; as streams all {} others were there after {}",
        time(slow2_us),
        time(first),
        streams.len(),
        time(last)
    );
    Some(Sentence::new(
        first >= slow_us && last < slow2_us / 2.0,
        format!("{seen}: a slow reply delays those behind it, and no other stream."),
        format!("{seen}."),
    ))
}

fn slow_start(recording: &Recording) -> Option<Sentence> {
    let points = recording.figures.iter().filter(|figure| figure.name == "bytes_of_round_trip");
    let bytes: Vec<f64> = points.map(|figure| figure.value).take(3).collect();
    let [first, second, third] = bytes[..] else { return None };
    let seen = format!(
        "A new connection carried {:.0} kB in its first round trip, {:.0} in the second and {:.0} \
         in the third",
        first / 1e3,
        second / 1e3,
        third / 1e3
    );
    Some(Sentence::new(
        second > GROWTH_MIN * first && third > GROWTH_MIN * second,
        format!("{seen}: slow start. Each new connection begins with it again."),
        format!("{seen}: it did not grow as slow start does."),
    ))
}

fn loss(recording: &Recording) -> Option<Sentence> {
    let of = |run: &str| Some((total_us(recording, run)?, recording.figure(run, "silent_us")?));
    let (six, streams) = (of("loss-h1x6")?, of("loss-h2x1")?);
    let seen = format!(
        "With 2 % of the packets lost, {} files took {} on six connections and {} on streams of \
         one. For {} and {} of that, nothing arrived for more than a round trip",
        requests(recording, "loss-h2x1"),
        time(six.0),
        time(streams.0),
        time(six.1),
        time(streams.1)
    );
    Some(Sentence::new(
        streams.1 > six.1 && streams.0 > six.0,
        format!(
            "{seen}: TCP delivers bytes in order, so one lost packet stops all streams. This is \
             the case that HTTP/2 loses."
        ),
        format!("{seen}. The losses of this run did not hit the one connection harder."),
    ))
}

#[cfg(test)]
mod tests {
    use record::{Environment, Figure, Heading, RECORDING_VERSION, Run};

    use super::*;

    fn empty() -> Recording {
        Recording::new(Heading {
            recording_version: RECORDING_VERSION,
            experiment: "streams".into(),
            command: String::new(),
            prediction: None,
            environment: Environment::default(),
        })
    }

    /// Adds a run with the ends of its requests, in milliseconds, and figures.
    fn add(recording: &mut Recording, run: &str, ends_ms: &[f64], figures: &[(&str, f64)]) {
        recording.runs.push(Run { run: run.to_owned(), ..Run::default() });
        for (request, end_ms) in ends_ms.iter().enumerate() {
            recording.spans.push(Span {
                run: run.to_owned(),
                kind: "transfer".into(),
                to_us: end_ms * 1e3,
                request: Some(request as u32),
                ..Span::default()
            });
        }
        for &(name, value) in figures {
            let (run, name) = (run.to_owned(), name.to_owned());
            recording.figures.push(Figure { run, name, value, ..Figure::default() });
        }
    }

    fn holds(recording: &Recording) -> Vec<bool> {
        lesson(recording).sentences.iter().map(|sentence| sentence.holds).collect()
    }

    fn tiles(ends_ms: [f64; 3], asks: [f64; 3]) -> Recording {
        let mut seen = empty();
        for ((run, end_ms), head) in
            ["tiles-h1x1", "tiles-h1x6", "tiles-h2x1"].iter().zip(ends_ms).zip(asks)
        {
            let figures = [("request_head_bytes", head), ("reply_head_bytes", head / 2.0)];
            add(&mut seen, run, &[end_ms / 2.0, end_ms], &figures);
        }
        seen
    }

    #[test]
    fn streams_do_not_wait_and_name_a_field_once() {
        let seen = tiles([4_000.0, 800.0, 200.0], [300.0, 300.0, 50.0]);
        assert_eq!(holds(&seen), [true, true]);
        let lesson = lesson(&seen);
        assert!(lesson.finding.holds, "{}", lesson.finding.text);
        assert_eq!(lesson.answer, Some(Answer::Number(20.0)));
        // Without a round trip, and with fields that are sent whole.
        let seen = tiles([10.0, 20.0, 30.0], [300.0, 300.0, 290.0]);
        assert_eq!(holds(&seen), [false, false]);
        assert!(!super::lesson(&seen).finding.holds);
    }

    #[test]
    fn a_slow_reply_holds_up_those_behind_it() {
        let slow = |queued: &[f64], streams: &[f64]| {
            let mut seen = empty();
            add(&mut seen, "slow-h1x1", queued, &[]);
            add(&mut seen, "slow-h2x1", streams, &[]);
            holds(&seen)
        };
        assert_eq!(slow(&[300.0, 301.0, 302.0], &[300.0, 2.0, 3.0]), [true]);
        // A connection that answers out of order, and streams that wait.
        assert_eq!(slow(&[300.0, 2.0, 3.0], &[300.0, 2.0, 3.0]), [false]);
        assert_eq!(slow(&[300.0, 301.0, 302.0], &[300.0, 301.0, 302.0]), [false]);
    }

    #[test]
    fn the_window_grows_and_a_lost_packet_stops_all_streams() {
        let start = |bytes: [f64; 3]| {
            let mut seen = empty();
            for bytes in bytes {
                add(&mut seen, "slow-start", &[], &[("bytes_of_round_trip", bytes)]);
            }
            holds(&seen)
        };
        assert_eq!(start([14e3, 28e3, 57e3]), [true]);
        assert_eq!(start([900e3, 50e3, 50e3]), [false]);
        let loss = |six_ms: f64, streams_ms: f64, silence_ms: f64| {
            let mut seen = empty();
            let silence = |ms: f64| [("silent_us", ms * 1e3)];
            add(&mut seen, "loss-h1x6", &[six_ms], &silence(30.0));
            add(&mut seen, "loss-h2x1", &[streams_ms], &silence(silence_ms));
            holds(&seen)
        };
        assert_eq!(loss(900.0, 2_000.0, 200.0), [true]);
        // A link without loss.
        assert_eq!(loss(900.0, 700.0, 20.0), [false]);
    }
}
