//! `iolab load`: closed-loop load on one server, every reply verified.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use humantime::parse_duration;
use load::{ExpectedBody, Length, Method, Observer, Pace, Plan, Progress, Protocol};
use record::{Arrivals, LoadOutcome};

/// Send load to a server, verify every reply, and tell how it went.
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
pub struct LoadArguments {
    /// tcp://HOST:PORT for an echo server, http://HOST:PORT/PATH for an HTTP/1.1 server.
    url: String,
    /// Connections that carry load.
    #[arg(short, long, value_name = "N", default_value_t = 64)]
    connections: u32,
    /// Length of the measured window.
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Send exactly N requests instead of measuring for a time.
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,
    /// Load before the window that is not counted [default: 1s; 0s with --requests].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    warmup: Option<Duration>,
    /// Bytes of one echo message, or of the body of a POST (a GET carries none).
    #[arg(short, long, visible_alias = "body-size", value_name = "BYTES")]
    payload: Option<usize>,
    /// Open loop: so many requests fall due per second, whether the server keeps up or not.
    #[arg(long, value_name = "REQUESTS/S")]
    rate: Option<f64>,
    /// How the due times of an open loop are spread.
    #[arg(long, value_enum, requires = "rate", default_value_t = ArrivalsName::Poisson)]
    arrivals: ArrivalsName,
    /// Seed of the due times: the same seed asks every server at the same moments.
    #[arg(long, value_name = "N", requires = "rate", default_value_t = 1)]
    seed: u64,
    /// A new connection for each request. Latency then includes the handshake.
    #[arg(long)]
    reconnect: bool,
    /// Requests on their way at once on each connection.
    #[arg(long, value_name = "DEPTH", default_value_t = 1)]
    pipelining: u32,
    /// Silent connections, opened before the window and held until after it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: u32,
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
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Names of HTTP methods on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodName {
    Get,
    Head,
    Post,
}

/// Names of arrival processes on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ArrivalsName {
    /// Exponential gaps: independent clients.
    Poisson,
    /// Equal gaps: a metronome.
    Constant,
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

const LONG_ABOUT: &str = "\
Send load to a server, verify every reply, and tell how it went.

N connections each send a request, wait for its reply, verify it byte for byte, and send the \
next one at once. This is called a closed loop. It shows how much a server can do (its capacity), \
for the server is never left without work.

It does not show the latency that users will see. At capacity every request waits for the ones \
before it, so by Little's law the mean latency is connections / rate: 64 connections at 100,000 \
requests/s give 640 us, whatever the server. A slow server is also asked less often, so its worst \
moments are sampled least. Read the latency below as the time in the queue of a busy server.

One request is sent and verified before the run; warm-up is not counted. Whatever fails is counted \
by kind: connect (no connection), closed (the connection ended before the reply), wrong (other \
bytes than promised), timeout. A server that announces the end of a connection is within its \
rights: the client connects again, and counts it.

Exit status: 0 when all replies were right, 1 when any error was counted or nothing completed, 2 \
when nothing could be measured.";

const EXAMPLES: &str = "\
Examples:
  iolab load http://127.0.0.1:8080/                         64 connections for 10 s
  iolab load http://127.0.0.1:8080/bytes/100000 -c 8 -d 2s  a large body, every byte compared
  iolab load http://127.0.0.1:8080/ --reconnect             a new connection for each request
  iolab load tcp://127.0.0.1:7000 --payload 1024 --json     echo, and JSON for a script
  iolab load tcp://127.0.0.1:7000 --idle 10000              64 active among 10,000 silent ones
  iolab load http://127.0.0.1:8080/echo -X post -p 4096     each body must come back";

/// Runs the load and prints its outcome.
///
/// # Errors
/// Bad input and unreachable servers, in one sentence; `main` exits with code 2.
pub fn run(arguments: LoadArguments) -> Result<ExitCode, Box<dyn Error>> {
    let json = arguments.json;
    let plan = plan(&arguments)?;
    let ignored = plan.target.protocol == Protocol::Http && plan.method != Method::Post;
    if ignored && arguments.payload.is_some() {
        let method = plan.method.as_str();
        eprintln!("iolab: note: a {method} carries no payload; --payload is for echo and for POST");
    }
    let mut line = LiveLine { on: io::stderr().is_terminal() && !json, drawn: false };
    let outcome = load::run(&plan, &mut line)?;
    line.clear();
    let text = if json { serde_json::to_string(&outcome)? } else { table(&outcome) };
    match writeln!(io::stdout(), "{text}") {
        // Whoever closed our output (head, say) has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    let invalid = outcome.open_loop.as_ref().is_some_and(|open| open.invalid.is_some());
    let empty = outcome.requests == 0;
    let failed = outcome.errors > 0 || empty || outcome.ended_early.is_some() || invalid;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the arguments mean.
fn plan(arguments: &LoadArguments) -> Result<Plan, Box<dyn Error>> {
    let mut plan = Plan::new(&arguments.url)?;
    plan.connections = arguments.connections;
    plan.length = match arguments.requests {
        Some(requests) => Length::Requests(requests),
        None => Length::Window(arguments.duration),
    };
    let warmup_default = Duration::from_secs(u64::from(arguments.requests.is_none()));
    plan.warmup = arguments.warmup.unwrap_or(warmup_default);
    if let Some(rate_per_s) = arguments.rate {
        let arrivals = match arguments.arrivals {
            ArrivalsName::Poisson => Arrivals::Poisson,
            ArrivalsName::Constant => Arrivals::Constant,
        };
        plan.pace = Pace::Open { rate_per_s, arrivals, seed: arguments.seed };
    }
    plan.reconnect = arguments.reconnect;
    plan.pipelining = arguments.pipelining;
    plan.payload_bytes = arguments.payload.unwrap_or(plan.payload_bytes);
    plan.idle_connections = arguments.idle;
    plan.request_timeout = arguments.timeout;
    plan.method = match arguments.method {
        MethodName::Get => Method::Get,
        MethodName::Head => Method::Head,
        MethodName::Post => Method::Post,
    };
    plan.headers = arguments.header.iter().map(|text| header(text)).collect::<Result<_, _>>()?;
    plan.expected_status = arguments.expect_status;
    plan.expected_body = match arguments.expect_body {
        BodyName::Auto => ExpectedBody::Auto,
        BodyName::Learnt => ExpectedBody::Learnt,
        BodyName::Any => ExpectedBody::Any,
    };
    plan.threads = arguments.threads;
    plan.core = arguments.core;
    Ok(plan)
}

/// Name and value of a header field as curl's -H takes it.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("--header {text:?} has no colon: write 'NAME: VALUE'"))?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// One line on a terminal that says how far the run has come.
struct LiveLine {
    on: bool,
    drawn: bool,
}

impl LiveLine {
    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Observer for LiveLine {
    fn tick(&mut self, progress: &Progress) {
        if self.on {
            let phase = if progress.measuring { "measuring" } else { "warming up" };
            let seconds = progress.elapsed.as_secs_f64();
            let (requests, errors) = (progress.requests, progress.errors);
            eprint!("\r\x1b[K{phase} {seconds:.0} s: {requests} requests, {errors} errors");
            self.drawn = true;
        }
    }
}

/// The outcome for people.
fn table(outcome: &LoadOutcome) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(100);
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        table.force_no_tty();
    }
    table.set_header([
        Cell::new(&outcome.url).add_attribute(Attribute::Bold),
        Cell::new(setting(outcome)),
    ]);
    let mut row = |name: &str, value: String| {
        table.add_row([Cell::new(name), Cell::new(value)]);
    };
    row("requests", format!("{} in {:.3} s", thousands(outcome.requests), outcome.duration_s));
    row("requests/s", thousands(outcome.requests_per_s.round() as u64));
    let per_request = outcome.client_cpu_us as f64 / outcome.requests.max(1) as f64;
    let busy = outcome.client_cpu_us as f64 / (outcome.duration_s * 1e4);
    row("client CPU", format!("{per_request:.2} us/request, {busy:.0} % of a core"));
    row("in flight", format!("{:.1} on average", outcome.mean_in_flight));
    for (name, value) in percentiles(outcome) {
        row(name, value);
    }
    row(
        "bytes",
        format!(
            "{} sent, {} received",
            thousands(outcome.bytes_sent),
            thousands(outcome.bytes_received)
        ),
    );
    row("verified", outcome.verification.clone());
    for (name, value) in remarks(outcome) {
        row(name, value);
    }
    let errors = errors(outcome);
    let colour = if outcome.errors == 0 { Color::Green } else { Color::Red };
    table.add_row([Cell::new("errors"), Cell::new(errors).fg(colour)]);
    if let Some(column) = table.column_mut(0) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    let mut text = table.to_string();
    if outcome.requests > 0 {
        text.push_str(
            "\nLatency is that of a saturated closed loop: time in the queue (see --help).",
        );
    }
    text
}

/// The load in a few words.
fn setting(outcome: &LoadOutcome) -> String {
    let mut text = format!("{} connections", thousands(outcome.connections.into()));
    if outcome.reconnect {
        text.push_str(", a new one per request");
    }
    if outcome.pipelining > 1 {
        text.push_str(&format!(", {} requests deep", outcome.pipelining));
    }
    if outcome.threads > 1 {
        text.push_str(&format!(", {} threads", outcome.threads));
    }
    text.push_str(&format!(", {}", outcome.congestion_control));
    text
}

/// Rows of the latency; percentiles with too few samples beyond them are left out.
fn percentiles(outcome: &LoadOutcome) -> Vec<(&'static str, String)> {
    let latency = &outcome.latency;
    if latency.samples == 0 {
        return Vec::new();
    }
    let rows = [
        ("latency mean", Some(latency.mean_us)),
        ("  p50", Some(latency.p50_us)),
        ("  p90", Some(latency.p90_us)),
        ("  p99", latency.p99_us),
        ("  p99.9", latency.p999_us),
        ("  max", Some(latency.max_us)),
    ];
    rows.into_iter().filter_map(|(name, us)| Some((name, format!("{:.1} us", us?)))).collect()
}

/// Rows that stand there only when there is something to say.
fn remarks(outcome: &LoadOutcome) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if outcome.idle_connections_asked > 0 {
        let (open, asked) = (outcome.idle_connections, outcome.idle_connections_asked);
        rows.push(("idle", format!("{open} of {asked} silent connections still open at the end")));
    }
    if outcome.connects > 0 {
        rows.push(("connects", thousands(outcome.connects)));
    }
    if outcome.closed_by_server > 0 {
        let closed = thousands(outcome.closed_by_server);
        rows.push(("closed", format!("{closed} connections ended by the server, as it may")));
    }
    if outcome.errors_in_warmup > 0 {
        let errors = thousands(outcome.errors_in_warmup);
        rows.push(("warm-up", format!("{errors} errors before the window, not counted below")));
    }
    if outcome.connections_without_progress > 0 {
        let starved = outcome.connections_without_progress;
        rows.push(("starved", format!("{starved} connections completed nothing")));
    }
    if let Some(reason) = &outcome.ended_early {
        rows.push(("ended early", reason.clone()));
    }
    rows
}

/// The errors by kind.
fn errors(outcome: &LoadOutcome) -> String {
    let kinds = &outcome.errors_by_kind;
    let named = [
        ("connect", kinds.connect),
        ("closed", kinds.closed),
        ("wrong", kinds.wrong),
        ("timeout", kinds.timeout),
    ];
    let listed: Vec<_> = named
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    match (&outcome.first_error, listed.is_empty()) {
        (_, true) => "none".to_owned(),
        (Some(first), false) => format!("{} (first: {first})", listed.join(", ")),
        (None, false) => listed.join(", "),
    }
}

/// A number with a comma between groups of three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_groups() {
        let texts = [0, 999, 1_000, 1_234_567].map(thousands);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn the_table_is_at_most_100_columns_wide() {
        let outcome = LoadOutcome {
            url: "http://127.0.0.1:8080/".to_owned() + &"long/".repeat(40),
            requests: 5,
            errors: 1,
            first_error: Some("byte 1 of the body is 0x00, expected 0x01; ".repeat(9)),
            verification: "status 200 and every byte, against a reply read before the run".into(),
            duration_s: 1.0,
            ..LoadOutcome::default()
        };
        let widest = table(&outcome).lines().map(|line| line.chars().count()).max();
        assert!(widest.is_some_and(|columns| columns <= 100), "{widest:?}");
    }
}
