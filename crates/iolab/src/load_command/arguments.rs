//! The command line of `iolab load`, and the plan that it means.

use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use humantime::parse_duration;
use load::{ExpectedBody, Length, Method, Pace, Plan};
use record::Arrivals;

use crate::awake::When;

/// Send load to a server, verify every reply, and tell how it went.
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
pub struct LoadArguments {
    /// tcp://HOST:PORT for an echo server, http:// or https://HOST:PORT/PATH for HTTP, ws:// or
    /// wss://HOST:PORT/PATH for a WebSocket whose messages come back. Several: they take turns, and
    /// are compared with the first.
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
    /// Connections that carry load.
    #[arg(short, long, value_name = "N", default_value_t = 64)]
    connections: u32,
    /// Length of the measured window [default: 10s; 1s for each probe of --find-rate].
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Send exactly N requests instead of measuring for a time.
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,
    /// Load before the window that is not counted [default: 1s; 0s with --requests; 300ms before
    /// each probe of --find-rate].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    warmup: Option<Duration>,
    /// Bytes of one echo message, or of the body of a POST (a GET carries none).
    #[arg(short, long, visible_alias = "body-size", value_name = "BYTES")]
    payload: Option<usize>,
    #[command(flatten)]
    pace: PaceArguments,
    /// A new connection for each request. Latency then includes the handshake.
    #[arg(long)]
    reconnect: bool,
    /// Requests on their way at once on each connection.
    #[arg(long, value_name = "DEPTH", default_value_t = 1)]
    pipelining: u32,
    #[command(flatten)]
    protocol: ProtocolArguments,
    /// Echo messages flow without waiting for replies, 256 KiB of them on each connection.
    #[arg(long)]
    streaming: bool,
    /// Silent connections, opened before the window and held until after it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: u32,
    /// Connect from this address; repeated, from each in turn where one has not enough ports. On
    /// loopback this is done by itself.
    #[arg(long, value_name = "ADDR")]
    source: Vec<IpAddr>,
    /// A reply that takes longer is an error.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    /// HTTP method.
    #[arg(short = 'X', long, value_enum, ignore_case = true, default_value_t = MethodName::Get)]
    method: MethodName,
    /// A further header field of each HTTP request; may be repeated.
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The one HTTP status that counts as right.
    #[arg(long, value_name = "STATUS", default_value_t = 200)]
    expect_status: u16,
    /// What the body of each HTTP reply is compared with.
    #[arg(long, value_enum, default_value_t = BodyName::Auto)]
    expect_body: BodyName,
    /// Client threads, each with its share of the connections.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: u32,
    /// Run the client on this core (its second thread on the next one, and so on).
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// The server's process: also tell what it and its children used inside the window. With
    /// several URLs one for each, in their order, with commas between them.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    #[arg(value_delimiter = ',')]
    pub(super) pid: Vec<i32>,
    /// With several URLs: whether the processors are held awake (as root). One that sleeps takes
    /// tens of microseconds to wake, and with few connections that is most of a figure.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub(super) awake: When,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(super) json: bool,
    /// Also write the latency as HdrHistogram percentiles (text, milliseconds), for its plotter.
    #[arg(long, value_name = "FILE", conflicts_with = "find_rate")]
    pub(super) hgrm: Option<PathBuf>,
}

/// What is spoken beside what the URL says.
#[derive(Debug, Args)]
struct ProtocolArguments {
    /// Speak HTTP/2: at once over http://, by agreement (ALPN) over https://.
    #[arg(long)]
    http2: bool,
    /// Streams that are open at once on each HTTP/2 connection.
    #[arg(long, value_name = "N", requires = "http2", conflicts_with = "pipelining")]
    streams: Option<u32>,
    /// Resume TLS sessions: every handshake after the first ones is an abbreviated one.
    #[arg(long)]
    tls_resume: bool,
    /// One connection speaks and all others listen, in the room at this ws:// URL: each message
    /// that each of them hears is counted.
    #[arg(long)]
    fan_out: bool,
}

/// Who decides when requests are sent.
#[derive(Debug, Args)]
struct PaceArguments {
    /// Open loop: so many requests fall due per second, whether the server keeps up or not.
    #[arg(long, value_name = "REQUESTS/S", allow_negative_numbers = true)]
    #[arg(conflicts_with_all = ["find_rate", "streaming"])]
    rate: Option<f64>,
    /// How the due times of an open loop are spread [default: poisson].
    #[arg(long, value_enum)]
    arrivals: Option<ArrivalsName>,
    /// Seed of the due times: the same seed asks every server at the same moments [default: 1].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Find the highest rate at which the server keeps to a latency: --p50, --p99 or --p99.9.
    #[arg(
        long,
        conflicts_with_all = ["requests", "streaming", "pid"],
        requires = "budget"
    )]
    find_rate: bool,
    /// Half of the requests of --find-rate may take longer than this.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, group = "budget")]
    #[arg(requires = "find_rate")]
    p50: Option<Duration>,
    /// One in a hundred may take longer than this.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, group = "budget")]
    #[arg(requires = "find_rate")]
    p99: Option<Duration>,
    /// One in a thousand may take longer than this.
    #[arg(long = "p99.9", value_name = "TIME", value_parser = parse_duration, group = "budget")]
    #[arg(requires = "find_rate")]
    p999: Option<Duration>,
}

/// Names of arrival processes on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ArrivalsName {
    /// Exponential gaps: independent clients.
    Poisson,
    /// Equal gaps: a metronome.
    Constant,
}

/// Names of HTTP methods on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodName {
    Get,
    Head,
    Post,
}

/// Names of expected bodies on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BodyName {
    /// /bytes/N: the rule of that route; POST to /echo: the request's body; else: learnt.
    Auto,
    /// The body of a reply that is read before the run.
    Learnt,
    /// Any body; only status and framing are verified.
    Any,
}

/// The latency that a rate must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// The part of the requests that may not take longer, in thousandths.
    pub(super) per_mille: u32,
    /// What they may take.
    pub(super) limit: Duration,
}

/// Window and warm-up of one probe of --find-rate: long enough for the server to reach its steady
/// state, short enough for two dozen of them in a minute.
const PROBE_DURATION: Duration = Duration::from_secs(1);
const PROBE_WARMUP: Duration = Duration::from_millis(300);

impl LoadArguments {
    /// What a rate must keep to, if one is to be found.
    pub(super) fn budget(&self) -> Option<Budget> {
        let PaceArguments { p50, p99, p999, .. } = self.pace;
        let named = [(500, p50), (990, p99), (999, p999)];
        named.into_iter().find_map(|(per_mille, limit)| Some(Budget { per_mille, limit: limit? }))
    }

    /// An open loop of this rate.
    pub(super) fn open(&self, rate_per_s: f64) -> Pace {
        let arrivals = match self.pace.arrivals {
            Some(ArrivalsName::Constant) => Arrivals::Constant,
            Some(ArrivalsName::Poisson) | None => Arrivals::Poisson,
        };
        Pace::Open { rate_per_s, arrivals, seed: self.pace.seed.unwrap_or(1) }
    }

    /// Whether several servers are to be compared.
    pub(super) fn is_for_several(&self) -> bool {
        self.urls.len() > 1
    }

    /// How long the servers take turns, if that was said.
    pub(super) fn duration(&self) -> Option<Duration> {
        self.duration
    }

    /// What the arguments mean for each of several servers.
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
                "{option} is for one server: several take turns in slices of a closed loop, each \
                 with one thread (run iolab load once for each URL, or leave {option} out)"
            )
            .into());
        }
        self.urls.iter().map(|url| self.plan_for(url)).collect()
    }

    /// What the arguments mean.
    pub(super) fn plan(&self) -> Result<Plan, Box<dyn Error>> {
        if self.pid.len() > 1 {
            return Err("--pid names several processes for one server: name its first one".into());
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
                return Err("--arrivals and --seed are for --rate and --find-rate".into());
            }
            None => {}
        }
        plan.reconnect = self.reconnect;
        plan.pipelining = self.protocol.streams.unwrap_or(self.pipelining);
        plan.http2 = self.protocol.http2;
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

    /// What is said in HTTP.
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

    /// Whether a payload was asked for.
    pub(super) fn has_payload(&self) -> bool {
        self.payload.is_some()
    }
}

/// Name and value of a header field as curl's -H takes it.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("--header {text:?} has no colon: write 'NAME: VALUE'"))?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

const LONG_ABOUT: &str = "\
Send load to a server, verify every reply, and tell how it went.

CLOSED LOOP (without --rate). N connections each send a request, wait for its reply, verify it \
byte for byte, and send the next one at once. It shows how much a server can do (its capacity), \
for the server is never left without work. It does not show the latency that users will see. At \
capacity every request waits for the ones before it, so by Little's law the mean latency is \
connections / rate: 64 connections at 100,000 requests/s give 640 us, whatever the server. A \
slow server is also asked less often, so its worst moments are sampled least. Read that latency \
as time in a queue.

OPEN LOOP (--rate). Requests fall due by the clock, as from users who do not know of one \
another. Any free connection takes the oldest one; while none is free it waits, and its latency \
counts from when it was due. This is the latency to quote, at a rate that the server can \
sustain. A request that was never answered is in it with its age. 'Send lag' is what the client \
itself was late by, from due and free to sent; when it, or the client's own speed, decides the \
figures, the run is INVALID and says so: a slow server is a result, a slow client is not. The \
client spins before each due time, so its CPU time is not that of a closed loop.

EXIT STATUS. 0: what was asked for was done, and every reply was right. 1: errors, requests that \
were never answered, connections that were never served, a server that died or stopped answering, \
or a client that was itself stopped: the run is then INVALID, for its latencies are not the \
server's. 2: nothing could be measured. A sentence on stderr says which.

HIGHEST RATE (--find-rate --p99 5ms). Probes of an open loop, at growing rates and then in \
between, until the highest rate that keeps to the latency is known to a few percent. Two of \
three probes decide at each rate: one hiccup of the machine does not.

STREAMING (--streaming, echo). Messages flow both ways without waiting: MB/s is the figure.

HTTP/2 (--http2 --streams 32). Each connection keeps so many streams open: whenever some have \
ended, as many requests go out together. Replies may come in any order.

SEVERAL SERVERS (A B C). All are loaded in turn, in slices of some milliseconds, so that what \
slows the machine down meets them alike; ratios are formed between slices that lie side by side, \
and each is printed with its interval. \
The first URL is the reference; it takes part twice, and the second time shows how far two equal \
servers lie apart here. --duration is the time of all of them together.

TLS (https://, wss://). 1.3 or 1.2, as agreed. The certificate is not verified, for servers under \
test sign their own; signatures are. The handshake is over before the first request, so it is in \
no latency, unless each request has a connection of its own: --reconnect measures handshakes, \
with --tls-resume those that resume a session. Their number, and the time from connect(2) to the \
end of the client's part, stand in a row of their own.

WEBSOCKET (ws://, wss://). As with tcp://, every message must come back: a route that echoes. \
With --fan-out, the URL names a room: the first connection says a message as soon as all others \
have heard the last one (--pipelining N: the last but N; --rate: by the clock), and each delivery \
counts, from the send of the message to its last byte there. -n is a number of messages.

CPU. Over loopback the kernel does the receiver's TCP work in the sender's system call, and \
bills the sender: what a server saves may land on its client. So --pid prints the server's CPU \
time per request, the client's, and their sum.

One request is sent and verified before the run; warm-up is not counted. Whatever fails is \
counted by kind: connect (no connection), closed (the connection ended before the reply), wrong \
(other bytes than promised), timeout. A server that announces the end of a connection is within \
its rights: the client connects again, and counts it. Ctrl-C ends the window early and prints \
it.

Exit status: 0 when all replies were right, 1 when any error was counted, nothing completed, the \
server died, the run is invalid, or no rate held; 2 when nothing could be measured or a file \
could not be written; 130 after Ctrl-C.";

const EXAMPLES: &str = "\
Examples:
  iolab load http://127.0.0.1:8080/                         64 connections for 10 s
  iolab load http://127.0.0.1:8080/ --rate 20000            latency at 20,000 requests/s
  iolab load http://127.0.0.1:8080/ --find-rate --p99 5ms   the highest rate with p99 <= 5 ms
  iolab load http://127.0.0.1:8080/ --pid $(pidof nginx)    who uses how much CPU per request
  iolab load http://127.0.0.1:8080/ http://127.0.0.1:8081/ --pid 71,72   which of two costs less
  iolab load http://127.0.0.1:8080/bytes/100000 -c 8 -d 2s  a large body, every byte compared
  iolab load http://127.0.0.1:8080/ --reconnect             a new connection for each request
  iolab load tcp://127.0.0.1:7000 --payload 1024 --json     echo, and JSON for a script
  iolab load tcp://127.0.0.1:7000 --streaming -p 65536 -c 4 throughput of 4 streams
  iolab load tcp://127.0.0.1:7000 --idle 10000              64 active among 10,000 silent ones
  iolab load http://127.0.0.1:8080/echo -X post -p 4096     each body must come back
  iolab load http://127.0.0.1:8080/ --http2 --streams 32    HTTP/2, 32 streams on each connection
  iolab load https://127.0.0.1:8443/ --http2 -c 4           the same over TLS
  iolab load https://127.0.0.1:8443/ --reconnect            TLS handshakes per second
  iolab load https://127.0.0.1:8443/ --reconnect --tls-resume   and resumed ones
  iolab load ws://127.0.0.1:8080/ws/echo -p 125             messages over a WebSocket
  iolab load ws://127.0.0.1:8080/ws/chat --fan-out -c 101   what one says, 100 must hear
  iolab load https://127.0.0.1:8443/ --idle 10000           TLS among 10,000 silent sessions";

#[cfg(test)]
mod tests {
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
        assert!(plan.http2 && plan.pipelining == 32 && plan.check().is_ok());
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
