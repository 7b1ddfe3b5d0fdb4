//! The outcome of a run as a table.

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};
use record::{Arrivals, Latency, LoadOutcome, OpenLoop, Protocol, ServerSample, TlsOutcome};

use super::shortfall::{late, little};
use render::grid;
use render::text::{columns, figure, thousands};

pub(super) fn empty() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        table.force_no_tty();
    }
    table
}

/// A time with a unit that fits its size.
pub(super) fn time(us: f64) -> String {
    match us {
        us if us < 1_000.0 => format!("{us:.1} us"),
        us if us < 1_000_000.0 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// The table; `server` adds the rows of the server's process.
pub(super) fn outcome(outcome: &LoadOutcome, server: Option<&ServerSample>) -> String {
    let mut table = empty();
    table.set_header([
        Cell::new(&outcome.url).add_attribute(Attribute::Bold),
        Cell::new(setting(outcome)),
    ]);
    let mut rows = counts(outcome);
    rows.extend(cpu(outcome, server));
    rows.push(("in flight", in_flight(outcome)));
    match &outcome.open_loop {
        Some(open) => rows.extend(open_loop(outcome, open)),
        None => rows.extend(percentiles(latency_of(outcome), &outcome.latency)),
    }
    rows.extend(outcome.tls.iter().flat_map(tls));
    rows.push(("verified", outcome.verification.clone()));
    rows.extend(remarks(outcome));
    for (name, value) in rows {
        table.add_row([Cell::new(name), Cell::new(value)]);
    }
    let colour = if outcome.errors == 0 { Color::Green } else { Color::Red };
    table.add_row([Cell::new("errors"), Cell::new(errors(outcome)).fg(colour)]);
    if let Some(why) = &outcome.invalid {
        let red = |text: &str| Cell::new(text).fg(Color::Red).add_attribute(Attribute::Bold);
        table.add_row([red("INVALID"), red(why)]);
    }
    if let Some(column) = table.column_mut(0) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    grid::fit(&mut table, columns());
    let mut text = table.to_string();
    text.push_str(note(outcome));
    text
}

fn in_flight(outcome: &LoadOutcome) -> String {
    let end = &outcome.at_end;
    let mut text = format!("{:.1} on average", outcome.mean_in_flight);
    if end.unanswered > 0 {
        let (count, oldest) = (thousands(end.unanswered as f64), time(end.oldest_unanswered_us));
        text.push_str(&format!("; {count} not answered by the end, the oldest for {oldest}"));
    } else if end.oldest_us > 0.0 {
        let (count, oldest) = (thousands(end.in_flight as f64), time(end.oldest_us));
        text.push_str(&format!("; {count} at the end of the window, the oldest for {oldest}"));
    }
    text
}

fn setting(outcome: &LoadOutcome) -> String {
    let connections = thousands(outcome.connections.into());
    let mut text = format!("{}, {connections} connections", outcome.protocol);
    if let Some(tls) = &outcome.tls {
        text = format!("{}, {}", tls.version, text);
    }
    if let Some(open) = &outcome.open_loop {
        let arrivals = match open.arrivals {
            Arrivals::Poisson => "Poisson",
            Arrivals::Constant => "constant",
        };
        let rate = figure(open.rate_per_s);
        text.push_str(&format!(", open loop at {rate}/s ({arrivals}, seed {})", open.seed));
    }
    if outcome.reconnect {
        text.push_str(", a new one per request");
    }
    if outcome.streaming {
        text.push_str(&format!(", streams of {} messages", outcome.pipelining));
    } else if outcome.fan_out.is_some() {
        text.push_str(&format!(", {} messages at once", outcome.pipelining));
    } else if outcome.pipelining > 1 && outcome.protocol == Protocol::Http2 {
        text.push_str(&format!(", {} streams each", outcome.pipelining));
    } else if outcome.pipelining > 1 {
        text.push_str(&format!(", {} requests in flight each", outcome.pipelining));
    }
    if outcome.threads > 1 {
        text.push_str(&format!(", {} threads", outcome.threads));
    }
    text.push_str(&format!(", {}", outcome.congestion_control));
    text
}

type Rows = Vec<(&'static str, String)>;

/// Names of what is counted, and of its rate.
fn units(outcome: &LoadOutcome) -> [&'static str; 2] {
    match outcome.protocol.is_http() {
        _ if outcome.fan_out.is_some() => ["deliveries", "deliveries/s"],
        false => ["messages", "messages/s"],
        true => ["requests", "requests/s"],
    }
}

/// Name of the latency of a closed loop.
fn latency_of(outcome: &LoadOutcome) -> &'static str {
    if outcome.fan_out.is_some() { "delivery" } else { "latency" }
}

fn counts(outcome: &LoadOutcome) -> Rows {
    let [what, per_s] = units(outcome);
    let requests = thousands(outcome.requests as f64);
    let seconds = outcome.duration_s.max(1e-9);
    let mb_s = |bytes: u64| figure(bytes as f64 / 1e6 / seconds);
    let (sent, received) = (outcome.bytes_sent, outcome.bytes_received);
    let mut rows = Rows::new();
    if let Some(chat) = &outcome.fan_out {
        let (messages, receivers) = (chat.messages as f64, f64::from(chat.members) - 1.0);
        let (sent, others) = (thousands(messages), thousands(receivers));
        rows.push(("messages", format!("{sent}, each received by all {others} others")));
        rows.push(("messages/s", thousands(messages / seconds)));
    }
    rows.extend([
        (what, format!("{requests} in {:.3} s", outcome.duration_s)),
        (per_s, thousands(outcome.requests_per_s)),
        ("MB/s", format!("{} sent, {} received", mb_s(sent), mb_s(received))),
        (
            "bytes",
            format!("{} sent, {} received", thousands(sent as f64), thousands(received as f64)),
        ),
    ]);
    rows
}

fn tls(tls: &TlsOutcome) -> Rows {
    let alpn = tls.alpn.as_deref().unwrap_or("none");
    let mut rows = vec![("TLS", format!("{}, {}, ALPN {alpn}", tls.version, tls.cipher_suite))];
    let count = |count: u64| thousands(count as f64);
    let (full, resumed) = (count(tls.handshakes_full), count(tls.handshakes_resumed));
    if tls.handshake.samples > 0 {
        let time = brief(&tls.handshake);
        rows.push(("handshakes", format!("{full} full, {resumed} resumed; {time}")));
    }
    rows
}

/// CPU time per request: client, server, sum.
fn cpu(outcome: &LoadOutcome, server: Option<&ServerSample>) -> Rows {
    let requests = outcome.requests.max(1) as f64;
    let one = if outcome.fan_out.is_some() { "delivery" } else { "request" };
    let row = |cpu_us: u64| {
        let busy = cpu_us as f64 / (outcome.duration_s.max(1e-9) * 1e4);
        format!("{:.2} us/{one}, {busy:.0} % of a core", cpu_us as f64 / requests)
    };
    let mut rows = vec![("client CPU", row(outcome.client_cpu_us))];
    let Some(server) = server else { return rows };
    rows.push(("server CPU", row(server.cpu_us)));
    rows.push(("  sum", row(outcome.client_cpu_us + server.cpu_us)));
    let per = |count: u64| figure(count as f64 / requests);
    rows.push((
        "  switches",
        format!(
            "{} voluntary, {} involuntary per request of the server",
            per(server.voluntary_switches),
            per(server.involuntary_switches)
        ),
    ));
    let delay = figure(server.run_queue_delay_us as f64 / requests);
    rows.push(("  run queue", format!("{delay} us per request, waiting for a core")));
    if server.threads_changed > 0 {
        let changed = server.threads_changed;
        rows.push(("  threads", format!("{changed} started or ended: switches are lower bounds")));
    }
    rows
}

/// Rows of a latency, without percentiles that have too few samples.
fn percentiles(name: &'static str, latency: &Latency) -> Rows {
    if latency.samples == 0 {
        return Vec::new();
    }
    let rows = [
        ("  mean", Some(latency.mean_us)),
        ("  p50", Some(latency.p50_us)),
        ("  p90", Some(latency.p90_us)),
        ("  p99", latency.p99_us),
        ("  p99.9", latency.p999_us),
        ("  max", Some(latency.max_us)),
    ];
    let head = (name, format!("of {} samples", thousands(latency.samples as f64)));
    let rows = rows.into_iter().filter_map(|(name, us)| Some((name, time(us?))));
    std::iter::once(head).chain(rows).collect()
}

fn brief(latency: &Latency) -> String {
    if latency.samples == 0 {
        return "no samples".to_owned();
    }
    let p99 = latency.p99_us.map(|us| format!("p99 {}, ", time(us))).unwrap_or_default();
    format!("p50 {}, {p99}max {}", time(latency.p50_us), time(latency.max_us))
}

fn open_loop(outcome: &LoadOutcome, open: &OpenLoop) -> Rows {
    let count = |count: u64| thousands(count as f64);
    let mut rows = vec![(
        "due",
        format!(
            "{} in the window, {} sent in it, {} not answered",
            count(open.due),
            count(open.sent),
            count(open.unanswered)
        ),
    )];
    rows.extend(percentiles("latency from due", &outcome.latency));
    rows.push((
        "from send",
        format!("{} (not corrected for coordinated omission)", brief(&open.from_send)),
    ));
    rows.push(("send lag", format!("{} (delay of the client itself)", brief(&open.send_lag))));
    rows
}

/// Rows that are printed only if there is something to report.
fn remarks(outcome: &LoadOutcome) -> Rows {
    let count = |count: u64| thousands(count as f64);
    let mut rows = Vec::new();
    if !outcome.url.contains(&outcome.address) {
        rows.push(("address", outcome.address.clone()));
    }
    if outcome.idle_connections_asked > 0 {
        let open = count(outcome.idle_connections.into());
        let asked = count(outcome.idle_connections_asked.into());
        rows.push(("idle", format!("{open} of {asked} idle connections still open at the end")));
    }
    if outcome.connects > 0 {
        rows.push(("connects", count(outcome.connects)));
    }
    if outcome.closed_by_server > 0 {
        let closed = count(outcome.closed_by_server);
        rows.push(("closed", format!("{closed} connections closed by the server between replies")));
    }
    if outcome.errors_in_warmup > 0 {
        let errors = count(outcome.errors_in_warmup);
        rows.push(("warm-up", format!("{errors} errors before the window, not counted below")));
    }
    let stops = &outcome.client_stops;
    if stops.count > 0 {
        let (total, longest) = (time(stops.total_us), time(stops.longest_us));
        let (times, at_s, requests) = (stops.count, stops.longest_at_s, stops.requests);
        rows.push((
            "client stopped",
            format!(
                "for {total} in total ({times} times, longest {longest} at {at_s:.1} s): {} \
                 requests were due or in flight meanwhile",
                thousands(requests as f64)
            ),
        ));
    }
    if stops.waited_for_core_us > 0.0 {
        let waited = time(stops.waited_for_core_us);
        rows.push((
            "doubt",
            format!("the client waited {waited} for a core: other processes used them all"),
        ));
    }
    rows.extend(late(outcome).map(|text| ("doubt", text)));
    if outcome.connections_without_progress > 0 {
        let starved = outcome.connections_without_progress;
        rows.push(("starved", format!("{starved} connections completed no request")));
    }
    rows.extend(little(outcome).map(|text| ("doubt", text)));
    rows.extend(outcome.notes.iter().map(|note| ("note", note.clone())));
    if let Some(reason) = &outcome.ended_early {
        rows.push(("ended early", reason.clone()));
    }
    rows
}

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

fn note(outcome: &LoadOutcome) -> &'static str {
    match &outcome.open_loop {
        Some(_) => {
            "\nLatency counts from each request's due time. The client polls before due times: do \
             not\ncompare its CPU time with that of a closed loop (see --help)."
        }
        None if outcome.streaming => {
            "\nThe latency of a message in a stream is mostly that of the messages before it."
        }
        None if outcome.requests > 0 => {
            "\nLatency in a saturated closed loop is mostly time in a queue (see --help)."
        }
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use render::text::COLUMNS_MAX;

    fn long() -> LoadOutcome {
        LoadOutcome {
            url: "http://127.0.0.1:8080/".to_owned() + &"long/".repeat(40),
            requests: 5,
            errors: 1,
            errors_by_kind: record::Errors { wrong: 1, ..record::Errors::default() },
            first_error: Some("byte 1 of the body is 0x00, expected 0x01; ".repeat(9)),
            verification: "status 200 and every byte, against a reply read before the run".into(),
            duration_s: 1.0,
            latency: Latency { samples: 5, p50_us: 1_234.5, ..Latency::default() },
            ..LoadOutcome::default()
        }
    }

    #[test]
    fn tables_are_at_most_100_columns_wide() {
        let mut open = long();
        open.open_loop = Some(OpenLoop { rate_per_s: 1_234_567.0, ..OpenLoop::default() });
        open.invalid = Some("the client fell behind ".repeat(9));
        let server = ServerSample { cpu_us: 123, threads_changed: 1, ..ServerSample::default() };
        for (shown, server) in [(long(), None), (open, Some(server))] {
            let text = outcome(&shown, server.as_ref());
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest.is_some_and(|columns| columns <= COLUMNS_MAX), "{widest:?}");
            assert_eq!(text.contains("INVALID"), shown.open_loop.is_some(), "{text}");
            assert_eq!(text.contains("saturated"), shown.open_loop.is_none(), "{text}");
            assert_eq!(text.contains("server CPU"), server.is_some(), "{text}");
        }
    }

    #[test]
    fn a_fan_out_and_tls_have_rows_of_their_own() {
        let handshake = Latency { samples: 20, p50_us: 150.0, ..Latency::default() };
        let mut shown = LoadOutcome { protocol: Protocol::WebSocket, ..long() };
        shown.fan_out = Some(record::FanOut { members: 101, messages: 1_234 });
        shown.tls = Some(TlsOutcome {
            version: "TLSv1.3".into(),
            cipher_suite: "TLS13_AES_256_GCM_SHA384".into(),
            handshakes_full: 5,
            handshakes_resumed: 15,
            handshake,
            ..TlsOutcome::default()
        });
        let text = outcome(&shown, None);
        for part in [
            "1,234, each received by all 100 others",
            "deliveries/s",
            "us/delivery",
            "TLSv1.3, TLS13_AES_256_GCM_SHA384, ALPN none",
            "5 full, 15 resumed; p50 150.0 us",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS_MAX), "{text}");
    }

    #[test]
    fn cpu_is_told_of_both_sides_and_together() {
        let shown = LoadOutcome { client_cpu_us: 20, requests: 10, ..long() };
        let server = ServerSample { cpu_us: 30, ..ServerSample::default() };
        let rows = cpu(&shown, Some(&server));
        let starts: Vec<_> = rows.iter().map(|(_, text)| text.split(' ').next()).collect();
        assert_eq!(starts[..3], [Some("2.00"), Some("3.00"), Some("5.00")]);
    }

    #[test]
    fn times_have_a_unit_that_suits_them() {
        let texts = [0.4, 999.0, 1_500.0, 2_500_000.0].map(time);
        assert_eq!(texts, ["0.4 us", "999.0 us", "1.50 ms", "2.50 s"]);
    }
}
