//! `iolab load --link` as a process: what it prints, and what is left of it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

mod support;

/// For a machine that is loaded.
const LIMIT: Duration = Duration::from_secs(60);

fn example() -> String {
    support::servers().join("serve-example").display().to_string()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iolab"));
    command.args(["load", "--server", &example()]).args(arguments);
    command
}

/// The reason, if this machine allows no link.
fn skipped(output: &Output) -> bool {
    let told = String::from_utf8_lossy(&output.stderr);
    let refused = output.status.code() == Some(2) && told.contains("no link can be made here");
    if refused {
        eprintln!("SKIP {told}");
    }
    refused
}

#[test]
fn a_request_takes_a_round_trip() {
    for url in ["/", "tcp://server"] {
        let profile = "rtt=20ms,rate=100mbit,loss=0%";
        let arguments = ["--link", profile, url, "-c", "2", "-n", "10", "--json"];
        let output = command(&arguments).output().unwrap();
        if skipped(&output) {
            return;
        }
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&value["requests"], &value["errors"]), (&10.into(), &0.into()), "{value}");
        let figure = |value: &Value| value.as_f64().unwrap();
        assert!(figure(&value["latency"]["p50_us"]) >= 20_000.0, "{value}");
        assert!(figure(&value["link"]["rtt_ms"]) >= 20.0, "{value}");
        assert!(
            value["server"]["cpu_us"].as_u64().is_some(),
            "the server was not sampled: {value}"
        );
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("iolab: link: asked rtt=20ms,rate=100mbit"), "{told}");
        assert!(told.contains("(0 lost, 0 found the queue full)"), "{told}");
    }
}

#[test]
fn bad_input_gets_a_sentence() {
    let one = |arguments: &[&str], part: &str| {
        let output = command(arguments).output().unwrap();
        if skipped(&output) {
            return;
        }
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(part), "{part} in {told}");
    };
    one(&["--link", "rtt=1ms", "http://127.0.0.1:7/x"], "--server epoll /x");
    one(&["--link", "rtt=1ms", "/", "/"], "name one URL");
    one(&["--link", "rtt=1", "/"], "rtt=40ms");
    one(&["--link", "rtt=1ms,rate=5", "/"], "\"rate=5\"");
    one(&["--link", "rtt=1ms", "--pid", "7", "/"], "--pid");
    one(&["http://127.0.0.1:7/"], "--link");
    let none = ["load", "--link", "rtt=1ms", "--server", "epol", "/"];
    let output = support::iolab(Path::new("."), &none);
    if !skipped(&output) {
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with("iolab: --server: no server serve-epol"), "{told}");
    }
}

/// Network namespaces of the threads and children of a process, other than this test's.
fn networks(of: u32) -> BTreeSet<String> {
    let link = |path: String| fs::read_link(path).map(|link| link.display().to_string());
    let own = link("/proc/self/ns/net".to_owned()).unwrap();
    let mut found = BTreeSet::new();
    for task in fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten() {
        let task = task.path().display().to_string();
        found.extend(link(format!("{task}/ns/net")));
        let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
        for child in children.split_whitespace() {
            found.extend(link(format!("/proc/{child}/ns/net")));
        }
    }
    found.remove(&own);
    found
}

/// Processes that are in one of these namespaces or hold a descriptor of it.
fn holders(networks: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let process = process.path();
        let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let paths = descriptors.map(|entry| entry.path()).chain([process.join("ns/net")]);
        let links = paths.filter_map(|path| fs::read_link(path).ok());
        if links.into_iter().any(|link| networks.contains(&*link.display().to_string())) {
            found.push(process.display().to_string());
        }
    }
    found
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a long load, and returns it with its two namespaces once the server and the client's
/// thread are in them.
fn running() -> io::Result<(Child, Option<BTreeSet<String>>)> {
    let mut command = command(&["--link", "rtt=5ms", "-c", "2", "-d", "60s", "/"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let networks = wait_for("a client and a server", || {
        let found = networks(child.id());
        let ended = child.try_wait().unwrap().is_some();
        (ended || found.len() == 2).then_some((!ended).then_some(found))
    });
    Ok((child, networks))
}

#[test]
fn nothing_is_left_however_it_ends() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let (child, networks) = running().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let Some(networks) = networks else {
            let output = child.wait_with_output().unwrap();
            assert!(skipped(&output), "{output:?}");
            return;
        };
        assert!(!holders(&networks).is_empty());
        kill(pid, signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let code = if signal == Signal::SIGKILL { None } else { Some(130) };
        assert_eq!(output.status.code(), code, "{signal} {output:?}");
        wait_for("an end of all processes", || holders(&networks).is_empty().then_some(()));
    }
}
