//! The command line of `iolab load`, and its translation to a [`Plan`].

use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use humantime::parse_duration;
use load::{ExpectedBody, Length, Method, Pace, Plan};
use record::Arrivals;

use super::over_link::LinkArguments;
use crate::awake::When;

/// Load a server, verify every reply, and report rate, latency and CPU time.
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
pub struct LoadArguments {
    /// tcp://HOST:PORT of an echo server, http:// or https://HOST:PORT/PATH, or ws:// or
    /// wss://HOST:PORT/PATH of a WebSocket that echoes. Several URLs are loaded in alternation and
    /// compared with the first.
    #[arg(required_unless_present = "link", value_name = "URL")]
    pub(super) urls: Vec<String>,
    #[command(flatten)]
    pub(super) over: LinkArguments,
    /// Number of active connections.
    #[arg(short, long, value_name = "N", default_value_t = 64)]
    connections: u32,
    /// Length of the measured window [default: 10s; 1s for each probe of --find-rate].
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Send exactly N requests, in place of a measured window.
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,
    /// Length of the warm-up: load before the window, which is not counted [default: 1s; 0s with
    /// --requests; 300ms before each probe of --find-rate].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    warmup: Option<Duration>,
    /// Size of an echo message or of a POST's body, in bytes.
    #[arg(short, long, visible_alias = "body-size", value_name = "BYTES")]
    payload: Option<usize>,
    #[command(flatten)]
    pace: PaceArguments,
    /// Open a new connection for each request. The latency then includes connect and handshake.
    #[arg(long)]
    reconnect: bool,
    /// Number of requests in flight on each connection.
    #[arg(long, value_name = "DEPTH", default_value_t = 1)]
    pipelining: u32,
    #[command(flatten)]
    protocol: ProtocolArguments,
    /// Send echo messages without waiting for replies, up to 256 KiB ahead on each connection.
    #[arg(long)]
    streaming: bool,
    /// Number of idle connections, which stay open during the window.
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: u32,
    /// Connect from this local address. May be repeated, if one address has too few ports. On
    /// loopback further addresses are chosen automatically.
    #[arg(long, value_name = "ADDR")]
    source: Vec<IpAddr>,
    /// Count a reply that takes longer than this as an error.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    /// HTTP method.
    #[arg(short = 'X', long, value_enum, ignore_case = true, default_value_t = MethodName::Get)]
    method: MethodName,
    /// Add a header field to each HTTP request; may be repeated.
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// HTTP status that each reply must have.
    #[arg(long, value_name = "STATUS", default_value_t = 200)]
    expect_status: u16,
    /// Body that each HTTP reply must have.
    #[arg(long, value_enum, default_value_t = BodyName::Auto)]
    expect_body: BodyName,
    /// Number of client threads, among which the connections are divided.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: u32,
    /// Pin the client to this core (its second thread to the next core, and so on).
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// Process id of the server: also report the CPU time and memory of it and its children. With
    /// several URLs one for each, in their order, separated by commas.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    #[arg(value_delimiter = ',')]
    pub(super) pid: Vec<i32>,
    /// With several URLs: whether to keep processors out of idle states (needs root). Leaving an
    /// idle state takes tens of microseconds, which with few connections is most of a latency.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub(super) awake: When,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(super) json: bool,
    /// Also write the latencies to this file, in HdrHistogram's percentile format (milliseconds).
    #[arg(long, value_name = "FILE", conflicts_with = "find_rate")]
    pub(super) hgrm: Option<PathBuf>,
}

/// Options of the protocol that the URL names.
#[derive(Debug, Args)]
struct ProtocolArguments {
    /// Use HTTP/2: by prior knowledge over http://, by ALPN over https://.
    #[arg(long)]
    http2: bool,
    /// Number of open streams on each HTTP/2 connection.
    #[arg(long, value_name = "N", requires = "http2", conflicts_with = "pipelining")]
    streams: Option<u32>,
    /// Resume TLS sessions: only the first handshakes are full ones.
    #[arg(long)]
    tls_resume: bool,
    /// Use the chat at this ws:// URL: one connection sends, all others receive. Each delivery of a
    /// message to a receiver counts as a request.
    #[arg(long)]
    fan_out: bool,
}

/// When requests are sent.
#[derive(Debug, Args)]
struct PaceArguments {
    /// Open loop: send this many requests per second, whether or not the server keeps up.
    #[arg(long, value_name = "REQUESTS/S", allow_negative_numbers = true)]
    #[arg(conflicts_with_all = ["find_rate", "streaming"])]
    rate: Option<f64>,
    /// Distribution of the gaps between due times of an open loop [default: poisson].
    #[arg(long, value_enum)]
    arrivals: Option<ArrivalsName>,
    /// Seed of the due times; the same seed gives the same due times [default: 1].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Find the highest rate at which the latency stays within --p50, --p99 or --p99.9.
    #[arg(
        long,
        conflicts_with_all = ["requests", "streaming", "pid"],
        requires = "budget"
    )]
    find_rate: bool,
    /// With --find-rate: limit of the 50th percentile of the latency.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, group = "budget")]
    #[arg(requires = "find_rate")]
    p50: Option<Duration>,
    /// With --find-rate: limit of the 99th percentile of the latency.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, group = "budget")]
    #[arg(requires = "find_rate")]
    p99: Option<Duration>,
    /// With --find-rate: limit of the 99.9th percentile of the latency.
    #[arg(long = "p99.9", value_name = "TIME", value_parser = parse_duration, group = "budget")]
    #[arg(requires = "find_rate")]
    p999: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ArrivalsName {
    /// Exponentially distributed gaps, as from independent clients.
    Poisson,
    /// Equal gaps.
    Constant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodName {
    Get,
    Head,
    Post,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BodyName {
    /// For /bytes/N its known pattern, for POST to /echo the request's body, else `learnt`.
    Auto,
    /// The body of a first reply, which is read before the run.
    Learnt,
    /// Any body; only status and framing are verified.
    Any,
}

/// The latency limit of `--find-rate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// The percentile that is limited, in thousandths.
    pub(super) per_mille: u32,
    pub(super) limit: Duration,
}

/// Window and warm-up of one probe of --find-rate. Long enough for the server to reach a steady
/// state, short enough for 24 probes in about half a minute.
const PROBE_DURATION: Duration = Duration::from_secs(1);
const PROBE_WARMUP: Duration = Duration::from_millis(300);

impl LoadArguments {
    pub(super) fn budget(&self) -> Option<Budget> {
        let PaceArguments { p50, p99, p999, .. } = self.pace;
        let named = [(500, p50), (990, p99), (999, p999)];
        named.into_iter().find_map(|(per_mille, limit)| Some(Budget { per_mille, limit: limit? }))
    }

    pub(super) fn open(&self, rate_per_s: f64) -> Pace {
        let arrivals = match self.pace.arrivals {
            Some(ArrivalsName::Constant) => Arrivals::Constant,
            Some(ArrivalsName::Poisson) | None => Arrivals::Poisson,
        };
        Pace::Open { rate_per_s, arrivals, seed: self.pace.seed.unwrap_or(1) }
    }

    pub(super) fn is_for_several(&self) -> bool {
        self.urls.len() > 1
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        self.duration
    }

    /// The plans for several servers.
    ///
    /// # Errors
    /// An option that is for one server only.
    pub(super) fn plans(&self) -> Result<Vec<Plan>, Box<dyn Error>> {
        let asked = [
            (self.requests.is_some(), "--requests"),
            (self.pace.rate.is_some(), "--rate"),
            (self.pace.find_rate, "--find-rate"),
            (self.hgrm.is_some(), "--hgrm"),
            (self.warmup.is_some(), "--warmup"),
            (self.threads > 1, "--threads"),
        ];
        if let Some((_, option)) = asked.into_iter().find(|(asked, _)| *asked) {
            return Err(format!(
                "{option} is for one URL: several servers are compared in slices of a closed loop \
                 with one client thread; omit {option}, or run iolab load for each URL"
            )
            .into());
        }
        self.urls.iter().map(|url| self.plan_for(url)).collect()
    }

    /// The plan for one server.
    pub(super) fn plan(&self) -> Result<Plan, Box<dyn Error>> {
        if self.pid.len() > 1 {
            return Err("--pid takes one process for one URL; its children are included".into());
        }
        self.plan_for(&self.urls[0])
    }

    fn plan_for(&self, url: &str) -> Result<Plan, Box<dyn Error>> {
        let mut plan = Plan::new(url)?;
        let find_rate = self.pace.find_rate;
        plan.connections = self.connections;
        plan.length = match self.requests {
            Some(requests) => Length::Requests(requests),
            None if find_rate => Length::Window(self.duration.unwrap_or(PROBE_DURATION)),
            None => Length::Window(self.duration.unwrap_or(Duration::from_secs(10))),
        };
        plan.warmup = self.warmup.unwrap_or(match (self.requests, find_rate) {
            (Some(_), _) => Duration::ZERO,
            (None, true) => PROBE_WARMUP,
            (None, false) => Duration::from_secs(1),
        });
        let paced = self.pace.arrivals.is_some() || self.pace.seed.is_some();
        match self.pace.rate {
            Some(rate_per_s) => plan.pace = self.open(rate_per_s),
            None if paced && !find_rate => {
                return Err("--arrivals and --seed need --rate or --find-rate".into());
            }
            None => {}
        }
        plan.reconnect = self.reconnect;
        plan.pipelining = self.protocol.streams.unwrap_or(self.pipelining);
        if self.protocol.http2 {
            plan.target.use_http2()?;
        }
        plan.tls_resume = self.protocol.tls_resume;
        plan.fan_out = self.protocol.fan_out;
        plan.streaming = self.streaming;
        plan.payload_bytes = self.payload.unwrap_or(plan.payload_bytes);
        plan.idle_connections = self.idle;
        plan.sources = self.source.clone();
        plan.request_timeout = self.timeout;
        plan.threads = self.threads;
        plan.core = self.core;
        self.add_http(&mut plan)?;
        Ok(plan)
    }

    fn add_http(&self, plan: &mut Plan) -> Result<(), Box<dyn Error>> {
        plan.method = match self.method {
            MethodName::Get => Method::Get,
            MethodName::Head => Method::Head,
            MethodName::Post => Method::Post,
        };
        plan.headers = self.header.iter().map(|text| header(text)).collect::<Result<_, _>>()?;
        plan.expected_status = self.expect_status;
        plan.expected_body = match self.expect_body {
            BodyName::Auto => ExpectedBody::Auto,
            BodyName::Learnt => ExpectedBody::Learnt,
            BodyName::Any => ExpectedBody::Any,
        };
        Ok(())
    }

    pub(super) fn has_payload(&self) -> bool {
        self.payload.is_some()
    }
}

/// Splits a header field, written as for curl's -H.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("--header {text:?} has no colon: write 'NAME: VALUE'"))?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

const LONG_ABOUT: &str = "\
Load a server, verify every reply, and report rate, latency and CPU time.

CLOSED LOOP (without --rate). Each connection sends a request, waits for the reply, verifies it \
byte for byte, and sends the next request at once. This measures capacity, because the server \
always has work. It does not measure the latency that users see. At capacity each request waits \
for those before it, so by Little's law the mean latency is connections / rate: 64 connections \
at 100,000 requests/s give 640 us for every server. A slow server also receives fewer requests \
while it is slow, so few samples show it (coordinated omission).

OPEN LOOP (--rate). Requests fall due by the clock, as from independent users. A free connection \
sends the oldest due request. If none is free the request waits, and its latency counts from the \
due time. Quote this latency, at a rate that the server can sustain. A request without a reply \
counts with its age at the end. 'Send lag' is the delay of the client itself: the time from \
when a request is due and a connection is free until it is sent. If the client was too slow for \
the rate, the run is INVALID, because its figures say nothing about the server. The client polls \
before each due time, so its CPU time cannot be compared with that of a closed loop.

HIGHEST RATE (--find-rate --p99 5ms). Runs short open loops (probes), first at growing rates, \
then by bisection, until the highest rate within the latency limit is known to a few percent. \
Two of three probes decide at each rate, so that one disturbance of the machine does not.

STREAMING (--streaming, tcp:// only). Messages flow in both directions without waiting for \
replies. The result is a throughput in MB/s.

HTTP/2 (--http2 --streams 32). Each connection keeps this number of streams open. When some end, \
the same number of requests is sent together. Replies may arrive in any order.

SEVERAL SERVERS (A B C). The servers are loaded in alternation, in slices of some milliseconds, \
so that a disturbance of the machine affects all of them alike. Ratios are formed between \
neighbouring slices and printed with their intervals. The first URL is the reference. It takes \
part twice, and the second copy shows how much two equal servers differ here. --duration is the \
time of all servers together.

A REAL LINK (--link rtt=40ms,rate=10mbit,loss=1% --server epoll /PATH). iolab starts the server in \
one network namespace and loads it from another, with the kernel's own TCP at both ends, and says \
first how exact the link is. The kernel's work for packets that arrive is done by the link and is \
in no CPU time here. Without root this needs user namespaces.

TLS (https://, wss://). Version 1.3 or 1.2. The certificate is not verified, because servers \
under test have self-signed ones; signatures are verified. The handshake is completed before the \
first request and is not part of any latency, except with --reconnect, where each request has a \
handshake. With --tls-resume the handshakes resume a session. The number of handshakes and their \
time, from connect(2) to the end of the client's part, have their own row.

WEBSOCKET (ws://, wss://). The route must echo every message. With --fan-out the URL is a chat: \
the first connection sends a message when all others have received the previous one \
(--pipelining N: it keeps N messages in flight; --rate: by the clock). Each \
delivery counts as a request; its latency is the time from the send to the last byte received. \
-n is a number of messages.

CPU. Over loopback the kernel does the receiver's TCP work in the sender's system call, and \
accounts it to the sender. So a server may use less CPU time because its client uses more. \
--pid prints the CPU time per request of the server, of the client, and the sum.

ERRORS. One request is sent and verified before the run. Errors are counted by kind: connect (no \
connection), closed (the connection ended before the reply did), wrong (a reply with wrong \
bytes), timeout. If a server closes a connection between two replies, as it may, the client \
connects again and counts that separately. Ctrl-C ends the window early and prints the result.

EXIT STATUS. 0: all replies were right. 1: an error was counted, a request was not answered, a \
connection was not served, nothing completed, the server died, no rate was within the limit, or \
the run is INVALID. 2: nothing could be measured, or a file could not be written. 130: Ctrl-C. A \
sentence on stderr gives the reason.";

const EXAMPLES: &str = "\
Examples:
  iolab load http://127.0.0.1:8080/                         64 connections for 10 s
  iolab load http://127.0.0.1:8080/ --rate 20000            latency at 20,000 requests/s
  iolab load http://127.0.0.1:8080/ --find-rate --p99 5ms   the highest rate with p99 <= 5 ms
  iolab load http://127.0.0.1:8080/ --pid $(pidof nginx)    CPU time of server and client
  iolab load http://127.0.0.1:8080/ http://127.0.0.1:8081/ --pid 71,72   compares two servers
  iolab load http://127.0.0.1:8080/bytes/100000 -c 8 -d 2s  a large body, every byte verified
  iolab load http://127.0.0.1:8080/ --reconnect             a new connection for each request
  iolab load tcp://127.0.0.1:7000 --payload 1024 --json     echo, and JSON for a script
  iolab load tcp://127.0.0.1:7000 --streaming -p 65536 -c 4 throughput of 4 streams
  iolab load tcp://127.0.0.1:7000 --idle 10000              64 active and 10,000 idle ones
  iolab load http://127.0.0.1:8080/echo -X post -p 4096     POST; the reply has the same body
  iolab load http://127.0.0.1:8080/ --http2 --streams 32    HTTP/2, 32 streams on each connection
  iolab load https://127.0.0.1:8443/ --http2 -c 4           the same over TLS
  iolab load https://127.0.0.1:8443/ --reconnect            TLS handshakes per second
  iolab load https://127.0.0.1:8443/ --reconnect --tls-resume   resumed TLS handshakes per second
  iolab load ws://127.0.0.1:8080/ws/echo -p 125             messages over a WebSocket
  iolab load ws://127.0.0.1:8080/ws/chat --fan-out -c 101   one sender, 100 receivers
  iolab load --link rtt=40ms,rate=10mbit --server epoll /   a server behind a slow link
  iolab load https://127.0.0.1:8443/ --idle 10000           TLS with 10,000 idle connections";

#[cfg(test)]
mod tests {
    use record::Protocol;

    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        load: LoadArguments,
    }

    fn parse(arguments: &str) -> Result<LoadArguments, clap::Error> {
        let words = ["load", "tcp://127.0.0.1:7"].into_iter().chain(arguments.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.load)
    }

    #[test]
    fn an_open_loop_is_asked_for_by_its_rate() -> Result<(), Box<dyn Error>> {
        let open = |arrivals, seed| Pace::Open { rate_per_s: 1_500.0, arrivals, seed };
        let pace = |text| -> Result<Pace, Box<dyn Error>> { Ok(parse(text)?.plan()?.pace) };
        assert_eq!(pace("")?, Pace::Closed);
        assert_eq!(pace("--rate 1500")?, open(Arrivals::Poisson, 1));
        let text = "--rate 1.5e3 --arrivals constant --seed 9";
        assert_eq!(pace(text)?, open(Arrivals::Constant, 9));
        assert!(parse("--seed 9")?.plan().is_err());
        for text in ["--rate x", "--rate 1 --find-rate --p99 1ms", "--rate 1 --streaming"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("--rate -1")?.plan()?.check().is_err());
        Ok(())
    }

    #[test]
    fn a_search_has_one_budget_and_short_probes() -> Result<(), Box<dyn Error>> {
        let arguments = parse("--find-rate --p99.9 20ms")?;
        let limit = Duration::from_millis(20);
        assert_eq!(arguments.budget(), Some(Budget { per_mille: 999, limit }));
        assert_eq!(arguments.plan()?.length, Length::Window(Duration::from_secs(1)));
        for text in [
            "--find-rate",
            "--p99 1ms",
            "--find-rate --p99 1ms --p50 1ms",
            "--find-rate --p99 5",
            "--find-rate --p99 1ms -n 5",
            "--find-rate --p99 1ms --hgrm x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        Ok(())
    }

    #[test]
    fn protocols_are_asked_for_by_url_and_option() -> Result<(), Box<dyn Error>> {
        let read = |words: &str| -> Result<Plan, Box<dyn Error>> {
            let words = ["load"].into_iter().chain(words.split_whitespace());
            Cli::try_parse_from(words)?.load.plan()
        };
        let plan = read("http://127.0.0.1:7/ --http2 --streams 32")?;
        assert_eq!(plan.target.protocol, Protocol::Http2);
        assert!(plan.pipelining == 32 && plan.check().is_ok());
        let plan = read("https://127.0.0.1:7/ --reconnect --tls-resume")?;
        assert!(plan.target.tls && plan.tls_resume && plan.check().is_ok());
        let plan = read("ws://127.0.0.1:7/ws/chat --fan-out -c 101")?;
        assert!(plan.fan_out && plan.check().is_ok());
        for words in ["--streams 2", "--http2 --streams 2 --pipelining 2"] {
            assert!(read(&format!("http://127.0.0.1:7/ {words}")).is_err(), "{words}");
        }
        for words in ["--fan-out", "--tls-resume"] {
            assert!(read(&format!("http://127.0.0.1:7/ {words}"))?.check().is_err(), "{words}");
        }
        Ok(())
    }

    #[test]
    fn sources_are_addresses() -> Result<(), Box<dyn Error>> {
        let plan = parse("--source 127.0.0.2 --source 127.0.0.3")?.plan()?;
        assert_eq!(plan.sources, [2, 3].map(|last| IpAddr::from([127, 0, 0, last])));
        assert!(parse("--source eth0").is_err());
        Ok(())
    }
}
