//! Laws of HTTP: what a connection carries, and what waits for what on it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use link::Link;
use load::{Length, Plan, Silent};
use rig::client::{self, Client};
use rig::exchange;
use rig::server::Server;
use rig::slices::{Epoch, requests_per_s};
use verdict::statistics::{BlockRatio, log_ratio, median};

use crate::turns::{self, Seat, within};
use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[
    Law {
        id: "L18",
        claim: "Keep-alive saves a connection for each request.",
        expected: "on loopback the rate is at least twice that of a connection for each request; \
                   over a link each further request saves one round trip (0.9 to 1.3); 10 \
                   requests take 1 connection instead of 10.",
        source: "the notes: one connection, reused within a configurable time",
        shown_by: "iolab experiment request",
        takes_s: 9.0,
        bounds: &[
            Bound::at_least("rate, keep-alive : connection for each request", 2.0),
            Bound::between("saved by each further request / round trip", 0.9, 1.3),
            Bound::exactly("connections with keep-alive", 1.0),
            Bound::exactly("connections without", 10.0),
        ],
        measure: kept_alive,
    },
    Law {
        id: "L19",
        claim: "One connection serves files in turn.",
        expected: "with steps of equal length (connect, process, transfer) a ends after 3, b after \
                   6 without keep-alive and after 5 with it, each up to a tenth later.",
        source: "the notes: the serial staircase",
        shown_by: "iolab experiment staircase",
        takes_s: 3.0,
        bounds: &[
            Bound::between("a", 2.9, 3.3),
            Bound::between("b without keep-alive", 5.8, 6.6),
            Bound::between("b with keep-alive", 4.8, 5.5),
        ],
        measure: staircase,
    },
    Law {
        id: "L21",
        claim: "HTTP/2 interleaves: one connection, real concurrency.",
        expected: "200 replies that take d each: HTTP/1.1 has them after 200 d on one connection \
                   and after 34 d on six, HTTP/2 with 100 streams after 2 d on one (a timer has \
                   steps of 1 ms: up to a quarter more, for HTTP/2 a half).",
        source: "RFC 9113; arithmetic; the notes",
        shown_by: "iolab experiment streams",
        takes_s: 4.0,
        bounds: &[
            Bound::between("HTTP/1.1 x1 / 200 d", 0.95, 1.25),
            Bound::between("HTTP/1.1 x6 / 34 d", 0.95, 1.25),
            Bound::between("HTTP/2 x1 / 2 d", 0.95, 1.5),
        ],
        measure: tiles,
    },
    Law {
        id: "L22",
        claim: "One slow reply blocks an HTTP/1.1 connection, not its siblings over HTTP/2.",
        expected: "of nine fast replies asked for behind a slow one the median takes at least 0.9 \
                   of the slow one over HTTP/1.1, and at most 0.2 over HTTP/2.",
        source: "RFC 9113 section 1",
        shown_by: "iolab experiment streams",
        takes_s: 1.0,
        bounds: &[
            Bound::at_least("HTTP/1.1: fast / slow", 0.9),
            Bound::at_most("HTTP/2: fast / slow", 0.2),
        ],
        measure: one_slow,
    },
    Law {
        id: "L23",
        claim: "HTTP/2 still has the head-of-line blocking of TCP.",
        expected: "over a link that loses 2 % of the packets the same replies slow down less on \
                   six connections of HTTP/1.1 than on one of HTTP/2.",
        source: "RFC 9113; direction, not size",
        shown_by: "iolab experiment streams",
        takes_s: 15.0,
        bounds: &[Bound::at_most("slowdown: HTTP/1.1 x6 / HTTP/2 x1", 0.99)],
        measure: lossy,
    },
];

/// Starts a server at the far end of a link.
fn at_the_far_end(lab: &Lab, link: &Link, label: &str, flags: &[&str]) -> Result<Server, Reason> {
    let listen = format!("{}:0", link.server().address());
    let flags: Vec<_> = ["--listen", &listen].iter().chain(flags).copied().collect();
    lab.found(label)?;
    let start = lab.starting(label, &flags)?;
    link.server().run(start)?.map_err(|why| Reason::NotHere(format!("{label} {why}")))
}

/// The rate per epoch of two loads, one after the other on the same process.
fn rate_between(keep: &[Epoch], connect: &[Epoch]) -> Result<BlockRatio, Reason> {
    let rate = |epoch: &Epoch| {
        let slices = epoch.blocks.iter().filter_map(|block| block[0].as_ref());
        median(&slices.filter_map(requests_per_s).collect::<Vec<_>>())
    };
    let logs = keep.iter().zip(connect);
    let logs = logs.filter_map(|(one, other)| Some(vec![log_ratio(rate(one)?, rate(other)?)?]));
    BlockRatio::of(&logs.collect::<Vec<_>>())
        .ok_or_else(|| Reason::Fault("too few epochs with a whole block".to_owned()))
}

fn kept_alive(lab: &Lab) -> Result<Measured, Reason> {
    const REQUESTS: u32 = 10;
    const ROUND_TRIP: Duration = Duration::from_millis(40);
    let length = turns::Length { epochs: lab.epochs(), each: Duration::from_millis(200) };
    let loads = [lab.workload("http-keepalive")?, lab.workload("http-connect")?];
    let seen = turns::take(lab, &[Seat::of("epoll")], &loads, length)?;
    let rate = rate_between(&seen[0], &seen[1])?;
    let link = lab.link("rtt=40ms")?;
    let mut ends = Vec::new();
    for keep in [true, false] {
        let server = at_the_far_end(lab, &link, "epoll", &[])?;
        let took = link.client().run(|| fetch(server.address, REQUESTS, keep))??;
        ends.push((took, connections(server)?));
    }
    let [(kept, one), (reopened, many)] = ends[..] else {
        return Err(Reason::Fault("two runs have two ends".to_owned()));
    };
    let saved = (reopened.as_secs_f64() - kept.as_secs_f64()) / f64::from(REQUESTS - 1);
    Ok(Measured::default()
        .figure_within(
            "rate, keep-alive : connection for each request",
            rate.ratio,
            "",
            within(&rate),
        )
        .figure("saved by each further request / round trip", saved / ROUND_TRIP.as_secs_f64(), "")
        .figure("connections with keep-alive", one, "")
        .figure("connections without", many, "")
        .note("connections as the server has counted them, over a link with a round trip of 40 ms"))
}

/// Requests one after the other.
fn fetch(address: SocketAddr, requests: u32, keep: bool) -> Result<Duration, Reason> {
    let begun = Instant::now();
    let mut kept = None;
    for _ in 0..requests {
        let mut visitor = match kept.take() {
            Some(visitor) => visitor,
            None => Client::open(address)?,
        };
        visitor.get("/")?;
        kept = keep.then_some(visitor);
    }
    Ok(begun.elapsed())
}

/// Requests all of these paths at once over one connection (pipelining, RFC 9112 section 9.3.2).
/// Returns how long each took.
fn ask_pipelined(address: SocketAddr, paths: &[&str]) -> Result<Vec<Duration>, Reason> {
    let (begun, mut client) = (Instant::now(), Client::open(address)?);
    for path in paths {
        client.ask(path, "")?;
    }
    let mut took = Vec::new();
    for _ in paths {
        client.answer()?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// How many the server has accepted, by its own last line.
fn connections(server: Server) -> Result<f64, Reason> {
    let counters = server.stop().counters;
    let accepted = counters.as_ref().and_then(|all| all["connections_accepted"].as_f64());
    accepted.ok_or_else(|| Reason::NotHere("the server counts no connections".to_owned()))
}

/// Connecting takes a round trip, processing as long, and the way there and back a round trip.
fn staircase(lab: &Lab) -> Result<Measured, Reason> {
    const STEP: Duration = Duration::from_millis(100);
    const PATH: &str = "/delay/100";
    let link = lab.link("rtt=100ms")?;
    let server = at_the_far_end(lab, &link, "serial", &[])?;
    let address = server.address;
    let walk = |keep: bool| {
        let (begun, mut ends) = (Instant::now(), Vec::new());
        let fields = if keep { "" } else { "Connection: close\r\n" };
        let mut visitor = Client::open(address)?;
        visitor.ask(PATH, fields)?;
        visitor.answer()?;
        ends.push(begun.elapsed());
        if !keep {
            visitor = Client::open(address)?;
        }
        visitor.ask(PATH, fields)?;
        visitor.answer()?;
        ends.push(begun.elapsed());
        client::part(vec![visitor]);
        Ok::<_, Reason>(ends)
    };
    let without = link.client().run(|| walk(false))??;
    let with = link.client().run(|| walk(true))??;
    server.stop();
    let steps = |end: &Duration| end.as_secs_f64() / STEP.as_secs_f64();
    Ok(Measured::default()
        .figure("a", steps(&without[0]), "steps")
        .figure("b without keep-alive", steps(&without[1]), "steps")
        .figure("b with keep-alive", steps(&with[1]), "steps")
        .note("a step is 100 ms: the round trip of the link, and the server's own delay"))
}

/// So many requests on these connections, and how long they take together.
fn requests(
    address: SocketAddr,
    path: &str,
    number: u64,
    connections: u32,
    streams: Option<u32>,
) -> Result<Duration, Reason> {
    let mut plan = Plan::new(&format!("http://{address}{path}"))?;
    plan.connections = connections;
    plan.length = Length::Requests(number);
    plan.warmup = Duration::ZERO;
    if let Some(streams) = streams {
        plan.target.use_http2()?;
        plan.pipelining = streams;
    }
    plan.request_timeout = Duration::from_secs(6);
    let outcome = load::run(&plan, &mut Silent)?;
    match outcome.requests == number && outcome.errors == 0 {
        true => Ok(Duration::from_secs_f64(outcome.duration_s)),
        false => Err(Reason::NotHere(format!(
            "{} of {number} requests were answered: {}",
            outcome.requests,
            outcome.first_error.or(outcome.ended_early).unwrap_or_default()
        ))),
    }
}

/// Streams of one connection: fewer than a server allows (RFC 9113 section 6.5.2: at least 100).
const STREAMS: u32 = 100;

fn tiles(lab: &Lab) -> Result<Measured, Reason> {
    const TILES: u64 = 200;
    const DELAY: Duration = Duration::from_millis(10);
    const PATH: &str = "/delay/10";
    let server = lab.start("epoll", &[])?;
    let one = requests(server.address, PATH, TILES, 1, None)?;
    lab.go_on()?;
    let six = requests(server.address, PATH, TILES, 6, None)?;
    let h2 = requests(server.address, PATH, TILES, 1, Some(STREAMS))?;
    server.stop();
    let rounds = |took: Duration, rounds: u32| took.as_secs_f64() / (DELAY * rounds).as_secs_f64();
    Ok(Measured::default()
        .figure("HTTP/1.1 x1 / 200 d", rounds(one, 200), "")
        .figure("HTTP/1.1 x6 / 34 d", rounds(six, 34), "")
        .figure("HTTP/2 x1 / 2 d", rounds(h2, 2), "")
        .note("d is 10 ms: the server answers after that time"))
}

fn one_slow(lab: &Lab) -> Result<Measured, Reason> {
    const SLOW: &str = "/delay/200";
    const FAST: usize = 9;
    let server = lab.start("epoll", &[])?;
    let paths: Vec<_> = [SLOW].into_iter().chain(["/"; FAST]).collect();
    let h1 = ask_pipelined(server.address, &paths)?;
    let h2 = exchange::ask_streams(server.address, &paths).map_err(Reason::NotHere)?;
    server.stop();
    let share = |waits: &[Duration]| {
        let fast: Vec<_> = waits[1..].iter().map(Duration::as_secs_f64).collect();
        median(&fast).unwrap_or(f64::NAN) / waits[0].as_secs_f64()
    };
    Ok(Measured::default()
        .figure("HTTP/1.1: fast / slow", share(&h1), "")
        .figure("HTTP/2: fast / slow", share(&h2), "")
        .figure("slow reply over HTTP/1.1", h1[0].as_secs_f64() * 1e3, "ms")
        .figure("slow reply over HTTP/2", h2[0].as_secs_f64() * 1e3, "ms"))
}

fn lossy(lab: &Lab) -> Result<Measured, Reason> {
    const REPLIES: u64 = 100;
    const PATH: &str = "/bytes/10000";
    const CLEAN: &str = "rtt=20ms,rate=20mbit";
    /// Different packets are lost with each.
    const SEEDS: u64 = 5;
    let times = |profile: &str| {
        let link = lab.link(profile)?;
        let server = at_the_far_end(lab, &link, "epoll", &[])?;
        let address = server.address;
        let both = link.client().run(|| {
            let h1 = requests(address, PATH, REPLIES, 6, None)?;
            Ok::<_, Reason>((h1, requests(address, PATH, REPLIES, 1, Some(STREAMS))?))
        })??;
        server.stop();
        Ok::<_, Reason>(both)
    };
    let (h1_clean, h2_clean) = times(CLEAN)?;
    let (mut h1, mut h2) = (Vec::new(), Vec::new());
    for seed in 0..SEEDS {
        lab.go_on()?;
        let (one, other) = times(&format!("{CLEAN},loss=2%,seed={}", lab.seed() + seed))?;
        h1.push(one.as_secs_f64() / h1_clean.as_secs_f64());
        h2.push(other.as_secs_f64() / h2_clean.as_secs_f64());
    }
    let typical = |slowdowns: &[f64]| median(slowdowns).unwrap_or(f64::NAN);
    let ratios: Vec<_> = h1.iter().zip(&h2).map(|(one, other)| one / other).collect();
    Ok(Measured::default()
        .figure("slowdown: HTTP/1.1 x6 / HTTP/2 x1", typical(&ratios), "")
        .figure("slowdown of HTTP/1.1 x6", typical(&h1), "")
        .figure("slowdown of HTTP/2 x1", typical(&h2), "")
        .note(format!(
            "100 replies of 10,000 bytes over {CLEAN}; medians of {SEEDS} losses of 2 %"
        )))
}
