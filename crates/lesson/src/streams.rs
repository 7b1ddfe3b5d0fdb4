//! Many requests at once: one connection, six connections, or streams of HTTP/2 on one; and what a
//! connection that all streams share costs when a packet is lost.

mod http1;
mod http2;

use std::net::SocketAddr;

use record::{Frame, Span};
use rig::client::Client;

use crate::{Answer, Clock, Experiment, Predict, Refused, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "streams",
    question: "A map needs 200 tiles of 2,000 bytes, at 20 ms of round trip and 20 Mbit/s. A \
        browser asks for one after the other on one connection of HTTP/1.1, or on six, or for all \
        on streams of one connection of HTTP/2. How long does each take, how many bytes of heads \
        are sent, what does one slow reply do to the others, how fast does a new connection \
        become, and what happens to all streams when a packet is lost?",
    predict: Predict {
        question: "How many times faster than one connection of HTTP/1.1 is one connection of \
            HTTP/2 for the 200 tiles?",
        answer: Answer::Number("times"),
    },
    takes_s: 16,
    model: Some("epoll"),
    run,
};

/// What a browser sends with each request.
const FIELDS: [(&str, &str); 4] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("cookie", "session=0123456789abcdef; theme=dark"),
];

const TILES: usize = 200;
const TILE_BYTES: usize = 2_000;
/// The round trip of both links.
const RTT_MS: u32 = 20;
const LINK: &str = "rtt=20ms,rate=20mbit";
const LOSSY_LINK: &str = "rtt=20ms,rate=20mbit,loss=2%";
/// Files over the lossy link: at 2 % some dozen of their packets are lost.
const FILES: usize = 60;
const FILE_BYTES: usize = 20_000;
const SLOW_MS: u64 = 300;
/// Over the link of the slow start, in milliseconds.
const START_RTT_MS: u32 = 100;
/// More than the first five round trips carry.
const START_BYTES: usize = 1_000_000;
/// Round trips whose bytes are recorded.
const START_TRIPS: usize = 5;

/// A request and the length of its reply.
struct Asked {
    path: String,
    bytes: usize,
}

impl Asked {
    fn bytes(bytes: usize, number: usize) -> Asked {
        Asked { path: format!("/bytes/{bytes}?tile={number}"), bytes }
    }
}

#[derive(Clone, Copy)]
enum How {
    Http1 { connections: usize },
    Http2,
}

/// What the client saw.
#[derive(Default)]
struct Fetched {
    spans: Vec<Span>,
    frames: Vec<Frame>,
    request_head_bytes: u64,
    reply_head_bytes: u64,
    /// When bytes arrived on any connection, in microseconds, and how many.
    arrivals: Vec<(f64, usize)>,
}

impl Fetched {
    /// A request that was sent, whose reply began, and ended.
    fn note(&mut self, request: usize, connection: usize, [sent, begun, ended]: [f64; 3]) {
        for (kind, from_us, to_us) in [("wait", sent, begun), ("transfer", begun, ended)] {
            self.spans.push(Span {
                lane: format!("connection {}", connection + 1),
                kind: kind.to_owned(),
                from_us,
                to_us,
                connection: Some(connection as u32),
                request: Some(request as u32),
                ..Span::default()
            });
        }
    }

    /// The time in which nothing arrived on any connection for more than a round trip.
    fn silent_us(&self) -> f64 {
        let mut times: Vec<f64> = self.arrivals.iter().map(|(at, _)| *at).collect();
        times.sort_by(f64::total_cmp);
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.filter(|gap| *gap > f64::from(RTT_MS) * 1e3).fold(0.0, |sum, gap| sum + gap)
    }
}

/// When bytes arrived at a client, in microseconds, and how many.
fn arrivals(clock: Clock, client: &Client) -> Vec<(f64, usize)> {
    client.arrivals().iter().map(|(at, bytes)| (clock.at_us(*at), *bytes)).collect()
}

fn run(stage: &mut Stage) -> Result<(), Refused> {
    let ways = [
        ("h1x1", "HTTP/1.1, 1 connection", How::Http1 { connections: 1 }),
        ("h1x6", "HTTP/1.1, 6 connections", How::Http1 { connections: 6 }),
        ("h2x1", "HTTP/2, 1 connection", How::Http2),
    ];
    let tiles: Vec<Asked> = (0..TILES).map(|n| Asked::bytes(TILE_BYTES, n)).collect();
    for (name, title, how) in ways {
        fetch(stage, (&format!("tiles-{name}"), title, Some(LINK)), how, &tiles)?;
    }
    let slow = Asked {
        path: format!("/delay/{SLOW_MS}"),
        bytes: format!("waited for {SLOW_MS} ms\n").len(),
    };
    let nine = (1..10).map(|n| Asked::bytes(TILE_BYTES, n));
    let ten: Vec<Asked> = std::iter::once(slow).chain(nine).collect();
    for (name, title, how) in [ways[0], ways[2]] {
        let title = format!("one slow reply among nine, {title}");
        fetch(stage, (&format!("slow-{name}"), &title, None), how, &ten)?;
    }
    let files: Vec<Asked> = (0..FILES).map(|n| Asked::bytes(FILE_BYTES, n)).collect();
    for (name, title, how) in [ways[1], ways[2]] {
        let title = format!("2 % of the packets lost, {title}");
        fetch(stage, (&format!("loss-{name}"), &title, Some(LOSSY_LINK)), how, &files)?;
    }
    slow_start(stage)
}

/// Fetches all of these and records it. `None`: it was skipped.
fn fetch(
    stage: &mut Stage,
    (name, title, link): (&str, &str, Option<&str>),
    how: How,
    asked: &[Asked],
) -> Result<Option<Fetched>, Refused> {
    let Some(site) = stage.start(stage.arrangement(name, title, link))? else { return Ok(None) };
    let address = site.address();
    let mut fetched = site.as_client(|| all(address, how, asked))??;
    site.stop()?;
    for span in fetched.spans.drain(..) {
        stage.span(Span { run: name.to_owned(), ..span });
    }
    for frame in fetched.frames.drain(..) {
        stage.frame(Frame { run: name.to_owned(), ..frame });
    }
    let count = asked.len() as f64;
    stage.figure(name, "request_head_bytes", fetched.request_head_bytes as f64 / count);
    stage.figure(name, "reply_head_bytes", fetched.reply_head_bytes as f64 / count);
    stage.figure(name, "silent_us", fetched.silent_us());
    Ok(Some(fetched))
}

fn all(address: SocketAddr, how: How, asked: &[Asked]) -> Result<Fetched, String> {
    let clock = Clock::start();
    match how {
        How::Http1 { connections } => http1::fetch(clock, address, asked, connections),
        How::Http2 => http2::fetch(clock, address, asked),
    }
}

/// The bytes of each round trip on a new connection (RFC 5681 section 3.1).
fn slow_start(stage: &mut Stage) -> Result<(), Refused> {
    let (name, link) = ("slow-start", format!("rtt={START_RTT_MS}ms"));
    let title = format!("1 MB on a new connection, {START_RTT_MS} ms of round trip");
    let asked = [Asked::bytes(START_BYTES, 0)];
    let how = How::Http1 { connections: 1 };
    let fetched = fetch(stage, (name, &title, Some(&link)), how, &asked)?;
    let Some(Fetched { arrivals, .. }) = fetched else { return Ok(()) };
    let Some((first_us, _)) = arrivals.first().copied() else { return Ok(()) };
    // A round trip's bytes come together at its begin; half of one before the next is between two.
    let rtt_us = f64::from(START_RTT_MS) * 1e3;
    let trip = |at: f64| ((at - first_us) / rtt_us + 0.5) as usize;
    for number in 0..START_TRIPS {
        let of = arrivals.iter().filter(|(at, _)| trip(*at) == number);
        let bytes: usize = of.map(|(_, bytes)| bytes).sum();
        stage.point(name, "bytes_of_round_trip", number as f64 + 1.0, bytes as f64);
    }
    Ok(())
}
