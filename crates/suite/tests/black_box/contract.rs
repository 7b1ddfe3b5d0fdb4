//! The contract of a server executable: command line, first line, last line, mistakes.

use std::hint::black_box;
use std::process::{Command, Output};

use serde_json::Value;
use suite::{Client, Server, Variant, get, run_to_end};

use crate::Outcome;

/// What sets a limit: flag, value, and the limit of `--describe` with the number that it then is.
const SETTINGS: &[(&str, &str, &str, u64)] = &[
    ("conns-max", "1", "connections_max", 1),
    ("memory-max", "64MiB", "memory_max_bytes", 64 << 20),
    ("idle-timeout", "1500ms", "idle_timeout_ms", 1_500),
    ("head-timeout", "2s", "head_timeout_ms", 2_000),
    ("body-timeout", "3s", "body_timeout_ms", 3_000),
    ("write-timeout", "1m", "write_timeout_ms", 60_000),
    ("drain-timeout", "1ms", "drain_timeout_ms", 1),
    ("handshake-timeout", "7s", "handshake_timeout_ms", 7_000),
    ("streams-max", "7", "streams_max", 7),
    ("message-bytes-max", "125", "message_bytes_max", 125),
    ("chat-backlog-bytes-max", "1024", "chat_backlog_bytes_max", 1_024),
    ("keepalive-requests", "9", "keepalive_requests_max", 9),
    ("head-bytes-max", "64", "head_bytes_max", 64),
    ("target-bytes-max", "16", "target_bytes_max", 16),
    ("body-bytes-max", "12345", "body_bytes_max", 12_345),
    ("output-high-water-bytes", "2048", "output_high_water_bytes", 2_048),
];

/// Limits that no flag sets by itself.
const FIXED: &[&str] = &[
    "file_read_bytes_max",
    // Twice --output-high-water-bytes.
    "push_high_water_bytes",
    "delay_ms_max",
    "work_us_max",
    "reply_bytes_max",
    "linger_timeout_ms",
];

/// Values that a flag refuses, and what the message must contain.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("listen", "here", "--listen"),
    ("listen", "127.0.0.1:70000", "--listen"),
    // TEST-NET-1 (RFC 5737): no machine has this address.
    ("listen", "192.0.2.1:0", "127.0.0.1"),
    ("protocol", "gopher", "http"),
    ("workers", "0", "1..="),
    ("root", "no/such/directory", "--root"),
    ("conns-max", "0", "--conns-max"),
    ("conns-max", "-1", "--"),
    ("memory-max", "64MB", "64MiB"),
    ("idle-timeout", "soon", "30s"),
    ("head-timeout", "soon", "30s"),
    ("body-timeout", "2days", "1day"),
    ("write-timeout", "30", "30s"),
    ("drain-timeout", "0s", "1ms"),
    ("cert", "no-such-file", "--key"),
    ("key", "no-such-file", "--cert"),
    ("handshake-timeout", "0s", "1ms"),
    ("allow-origin", "everywhere", "--allow-origin"),
    ("streams-max", "0", "--streams-max"),
    ("message-bytes-max", "1", "125"),
    ("chat-backlog-bytes-max", "1", "1024"),
    ("keepalive-requests", "many", "--keepalive-requests"),
    ("head-bytes-max", "1", "64"),
    ("target-bytes-max", "1", "16"),
    ("body-bytes-max", "many", "--body-bytes-max"),
    ("output-high-water-bytes", "1", "1024"),
];

/// Flags without a value.
const SWITCHES: &[&str] = &["tls", "describe"];

/// The flags that all servers share, as this one says.
fn shared_flags(variant: &Variant) -> Vec<&str> {
    let flags = variant.model.describe["flags"].as_array().into_iter().flatten();
    flags.filter_map(Value::as_str).collect()
}

#[track_caller]
fn ask(variant: &Variant, flags: &[&str]) -> Output {
    run_to_end(Command::new(&variant.model.executable).args(flags))
}

#[track_caller]
fn describe(variant: &Variant, flags: &[&str]) -> Value {
    let output = ask(variant, &[flags, &["--describe"]].concat());
    assert_eq!(output.status.code(), Some(0), "--describe: {output:?}");
    assert!(output.stderr.is_empty(), "--describe talks on stderr: {output:?}");
    let text = String::from_utf8(output.stdout).expect("--describe is UTF-8");
    assert_eq!(text.matches('\n').count(), 1, "--describe is one line: {text}");
    serde_json::from_str(&text).expect("--describe is JSON")
}

pub fn first_line_names_address_model_and_pid(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let address = server.address;
    assert_ne!(address.port(), 0);
    assert!(address.ip().is_loopback());
    let pid = server.process().0;
    let name = &variant.model.name;
    assert_eq!(server.first_line, format!("listening {address} model={name} pid={pid}"));
    server.serves();
    server.stop();
}

pub fn describe_is_one_line_of_json(variant: &Variant) {
    let said = describe(variant, &[]);
    let name = said["name"].as_str().expect("name");
    let file_name = variant.model.executable.file_name().and_then(|name| name.to_str());
    assert_eq!(file_name, Some(format!("serve-{name}").as_str()));
    assert!(said["description"].as_str().is_some_and(|text| text.len() > 20), "description");
    assert!(said["place"]["blocks_in"].is_array(), "place.blocks_in");
    let copied_by = &said["place"]["copied_by"];
    assert!(copied_by == "the thread" || copied_by == "the kernel", "place.copied_by");
    assert!(said["protocols"].is_array() && said["tls"].is_boolean(), "protocols, tls");
    match said["workers"].as_str() {
        Some("loops") => {}
        Some("one") => assert!(said["workers_reason"].is_string(), "why only one worker?"),
        other => panic!("workers: {other:?}"),
    }
    for (limit, value) in said["limits"].as_object().expect("limits") {
        let is_right = if limit.ends_with("_reason") { value.is_string() } else { value.is_u64() };
        assert!(is_right, "limits.{limit}: {value}");
    }
    assert!(shared_flags(variant).contains(&"describe"), "flags: {}", said["flags"]);
    assert!(said["limits"]["connections_max"].as_u64() > Some(0));
    assert!(said["limits"]["connections_max_reason"].is_string());
    assert!(said["unavailable"].is_null());
    assert!(["release", "debug"].contains(&said["build"].as_str().unwrap_or_default()), "build");
    for flavour in said["flavours"].as_array().expect("flavours") {
        let default = flavour["default"].as_str().expect("a flavour's default is a string");
        assert!(flavour["flag"].is_string() && flavour["help"].is_string(), "{flavour}");
        if let Some(words) = flavour["values"].as_array() {
            assert!(words.iter().any(|word| word == default), "{flavour}");
        } else {
            let number: u64 = default.parse().expect("a numeric flavour's default");
            let (from, to) = (flavour["values"]["from"].as_u64(), flavour["values"]["to"].as_u64());
            assert!(from <= Some(number) && Some(number) <= to, "{flavour}");
        }
    }
}

pub fn describe_offers_every_protocol(variant: &Variant) {
    let said = describe(variant, &[]);
    assert_eq!(said["protocols"], serde_json::json!(["echo", "http", "h2", "websocket"]));
    assert_eq!(said["tls"], true);
}

pub fn describe_shows_the_limits_in_force(variant: &Variant) {
    let before = describe(variant, &[])["limits"].take();
    for (flag, value, limit, number) in SETTINGS {
        // A model that serves one at a time cannot be limited further.
        if before[limit] != 1 {
            assert_ne!(before[limit], *number, "limits.{limit} without --{flag}");
        }
        let limits = &describe(variant, &[&format!("--{flag}"), value])["limits"];
        assert_eq!(limits[limit], *number, "limits.{limit} with --{flag} {value}");
    }
    for (limit, _) in before.as_object().into_iter().flatten() {
        let is_set = SETTINGS.iter().any(|(_, _, set, _)| set == limit);
        let is_known = is_set || FIXED.contains(&limit.as_str()) || limit.ends_with("_reason");
        assert!(is_known, "limits.{limit}: this case does not know which flag sets it");
    }
}

pub fn help_explains(variant: &Variant) {
    let output = ask(variant, &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("--help is UTF-8");
    assert!(text.contains("curl http://"), "what to try with curl: {text}");
    let flavours = variant.model.describe["flavours"].as_array().into_iter().flatten();
    let own = flavours.filter_map(|flavour| flavour["flag"].as_str());
    for flag in shared_flags(variant).into_iter().chain(["help"]).chain(own) {
        assert!(text.contains(&format!("--{flag}")), "--{flag} is not explained: {text}");
    }
    let description = variant.model.describe["description"].as_str().unwrap_or_default();
    assert!(text.contains(description), "the model is not explained: {text}");
}

/// Exit code 2, nothing on stdout, and on stderr a line that names the remedy.
#[track_caller]
fn refuses(variant: &Variant, flags: &[&str], remedy: &str) {
    let output = ask(variant, flags);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{flags:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{flags:?} prints on stdout: {output:?}");
    assert!(!stderr.contains("panicked"), "{flags:?}: {stderr}");
    let about = stderr.lines().filter(|line| !line.trim().is_empty()).count();
    // clap adds a usage line and where to look; a sentence is a sentence all the same.
    assert!((1..=6).contains(&about), "{flags:?}: {about} lines: {stderr}");
    assert!(stderr.contains(remedy), "{flags:?}: no {remedy:?} in: {stderr}");
}

pub fn mistakes_get_one_sentence(variant: &Variant) {
    refuses(variant, &["--no-such-flag"], "--help");
    refuses(variant, &["stray"], "--help");
    for (flag, value, remedy) in MISTAKES {
        refuses(variant, &[&format!("--{flag}={value}")], remedy);
    }
    for flag in shared_flags(variant) {
        let is_tried = MISTAKES.iter().any(|(tried, _, _)| *tried == flag);
        assert!(is_tried || SWITCHES.contains(&flag), "--{flag}: this case tries no wrong value");
    }
    let not_a_directory = variant.model.executable.to_string_lossy().into_owned();
    refuses(variant, &["--root", &not_a_directory], "--root");
    for flavour in variant.model.describe["flavours"].as_array().into_iter().flatten() {
        let flag = format!("--{}", flavour["flag"].as_str().unwrap_or_default());
        refuses(variant, &[&flag, "no-such-choice"], &flag);
    }
    if !variant.model.has_loops() {
        let reason = variant.model.describe["workers_reason"].as_str().unwrap_or_default();
        refuses(variant, &["--workers", "2"], reason);
    }
}

pub fn port_in_use_is_refused(variant: &Variant) {
    let server = Server::start(variant, &[]);
    refuses(variant, &["--listen", &server.address.to_string()], "--listen ADDR:PORT");
    if variant.model.has_loops() {
        // SO_REUSEPORT must not let a second server join the first in silence.
        let address = server.address.to_string();
        refuses(variant, &["--workers", "2", "--listen", &address], "--listen ADDR:PORT");
    }
    server.serves();
    server.stop();
}

pub fn last_line_counts(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    for _ in 0..3 {
        client.send(&get("/"));
        assert_eq!(client.reply().status, 200);
    }
    drop(client);
    let mut rude = server.connect();
    rude.send(b"nonsense\r\n\r\n");
    assert_eq!(rude.reply().status, 400);
    drop(rude);
    let counters = server.stop();
    assert_eq!(counters["model"], variant.model.name.as_str());
    assert_eq!(counters["requests"], 3);
    assert_eq!(counters["connections_accepted"], 2);
    assert_eq!(counters["connections_open"], 0);
    assert_eq!(counters["connections_refused"], 0);
    let ended = counters["connections_ended"].as_object().expect("connections by outcome");
    assert_eq!(ended["rejected"], 1, "{counters}");
    let sum: u64 = ended.values().filter_map(Value::as_u64).sum();
    assert_eq!(sum, 2, "every connection ended in one way: {counters}");
    let sent = 3 * get("/").len() as u64 + "nonsense\r\n\r\n".len() as u64;
    assert_eq!(counters["bytes_received"], sent);
    assert!(counters["bytes_sent"].as_u64() > Some(3 * 13));
    for field in [
        "cpu_user_us",
        "cpu_system_us",
        "context_switches_voluntary",
        "context_switches_involuntary",
        "memory_peak_kib",
        "uptime_ms",
    ] {
        assert!(counters[field].is_u64(), "{field}: {counters}");
    }
    assert!(counters["memory_peak_kib"].as_u64() > Some(0));
}

/// Two loops where the model has loops; [`mistakes_get_one_sentence`] has the others.
pub fn workers(variant: &Variant) -> Outcome {
    if !variant.model.has_loops() {
        let reason = variant.model.describe["workers_reason"].as_str().unwrap_or_default();
        return Outcome::Skipped(format!("it has one worker: {reason}"));
    }
    let server = Server::start(variant, &["--workers", "2"]);
    // The kernel spreads connections by a hash of the address pair, so that 64 all on one loop
    // would be one chance in 2^63.
    let mut clients: Vec<Client> = (0..64).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&get("/bytes/1000"));
    }
    for client in &mut clients {
        assert_eq!(client.reply().body, suite::pattern(0, 1000));
    }
    let stats = server.stats();
    assert_eq!(stats["workers"], 2);
    assert_eq!(stats["connections_accepted"], 65);
    drop(clients);
    let counters = server.stop();
    assert_eq!(counters["requests"], 65);
    Outcome::Passed
}

/// ru_maxrss of getrusage(2) is inherited over exec(2): a server that is started by a large program
/// would show that program's memory as its own.
pub fn memory_is_its_own(variant: &Variant) {
    const BALLAST_BYTES: usize = 64 << 20;
    // Written to, page by page: memory that was only asked for is not resident.
    let ballast = vec![1_u8; BALLAST_BYTES];
    let server = Server::start(variant, &[]);
    drop(black_box(ballast));
    server.serves();
    let seen = server.process().memory_peak_kib();
    let told = server.stop()["memory_peak_kib"].as_u64().unwrap_or_default();
    // It goes on to grow a little after it was looked at.
    assert!(told < seen + (32 << 10), "it says {told} KiB, the kernel {seen} KiB");
}
