//! The contract of a server executable: command line, first line, last line, mistakes.

use std::hint::black_box;
use std::process::{Command, Output};

use serde_json::Value;
use suite::{Client, Server, Variant, get, run_to_end};

/// Every flag that all servers share.
const FLAGS: &[&str] = &[
    "listen",
    "protocol",
    "workers",
    "root",
    "conns-max",
    "memory-max",
    "idle-timeout",
    "head-timeout",
    "body-timeout",
    "write-timeout",
    "drain-timeout",
    "keepalive-requests",
    "head-bytes-max",
    "target-bytes-max",
    "body-bytes-max",
    "output-high-water-bytes",
    "describe",
    "help",
];

/// Every limit that `--describe` prints as a number.
const LIMITS: &[&str] = &[
    "head_bytes_max",
    "target_bytes_max",
    "body_bytes_max",
    "output_high_water_bytes",
    "file_read_bytes_max",
    "keepalive_requests_max",
    "delay_ms_max",
    "work_us_max",
    "reply_bytes_max",
    "idle_timeout_ms",
    "head_timeout_ms",
    "body_timeout_ms",
    "write_timeout_ms",
    "linger_timeout_ms",
    "drain_timeout_ms",
    "connections_max",
    "memory_max_bytes",
];

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
    assert!(said["place"]["blocking"].is_boolean(), "place.blocking");
    assert!(said["place"]["synchronous"].is_boolean(), "place.synchronous");
    assert_eq!(said["protocols"], serde_json::json!(["echo", "http", "h2", "websocket"]));
    assert_eq!(said["tls"], true);
    match said["workers"].as_str() {
        Some("loops") => {}
        Some("one") => assert!(said["workers_reason"].is_string(), "why only one worker?"),
        other => panic!("workers: {other:?}"),
    }
    for limit in LIMITS {
        assert!(said["limits"][limit].is_u64(), "limits.{limit}: {}", said["limits"][limit]);
    }
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

pub fn describe_shows_the_limits_in_force(variant: &Variant) {
    let flags = ["--idle-timeout", "1500ms", "--body-bytes-max", "12345", "--conns-max", "1"];
    let limits = &describe(variant, &flags)["limits"];
    assert_eq!(limits["idle_timeout_ms"], 1500);
    assert_eq!(limits["body_bytes_max"], 12345);
    assert_eq!(limits["connections_max"], 1);
}

pub fn help_explains(variant: &Variant) {
    let output = ask(variant, &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("--help is UTF-8");
    assert!(text.contains("curl http://"), "what to try with curl: {text}");
    let flavours = variant.model.describe["flavours"].as_array().into_iter().flatten();
    let own = flavours.filter_map(|flavour| flavour["flag"].as_str());
    for flag in FLAGS.iter().copied().chain(own) {
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
    refuses(variant, &["--listen", "here"], "--listen");
    refuses(variant, &["--listen", "127.0.0.1:70000"], "--listen");
    // TEST-NET-1 (RFC 5737): nobody's address, so not this machine's.
    refuses(variant, &["--listen", "192.0.2.1:0"], "127.0.0.1");
    refuses(variant, &["--protocol", "gopher"], "http");
    refuses(variant, &["--idle-timeout", "soon"], "30s");
    refuses(variant, &["--drain-timeout", "0s"], "1ms");
    refuses(variant, &["--workers", "0"], "1..=");
    refuses(variant, &["--conns-max", "0"], "--conns-max");
    refuses(variant, &["--conns-max", "-1"], "--");
    refuses(variant, &["--head-bytes-max", "1"], "64");
    refuses(variant, &["--body-bytes-max", "many"], "--body-bytes-max");
    refuses(variant, &["--root", "no/such/directory"], "--root");
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
pub fn workers(variant: &Variant) {
    if !variant.model.has_loops() {
        return;
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
