//! What accept(2) may say besides a new connection, brought about by strace(1), and how many new
//! connections a loop takes before it looks at those that it has.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use suite::{Server, Variant, get};

use crate::Outcome;

/// One client only is concerned, or the kernel says no for now: the server goes on.
const GOES_ON: [&str; 18] = [
    "ECONNABORTED",
    "ECONNRESET",
    "EHOSTDOWN",
    "EHOSTUNREACH",
    "EINTR",
    "EMFILE",
    "ENETDOWN",
    "ENETUNREACH",
    "ENFILE",
    "ENOBUFS",
    "ENOMEM",
    "ENONET",
    "ENOPROTOOPT",
    "ENOSR",
    "EOPNOTSUPP",
    "EPERM",
    "EPROTO",
    "ETIMEDOUT",
];

/// Why strace(1) can do nothing here, if so.
fn unobservable(variant: &Variant) -> Option<Outcome> {
    if variant.model.kernel_copies() {
        let reason = "the kernel accepts, without a system call that strace(1) sees";
        return Some(Outcome::skipped(reason));
    }
    let mut command = Command::new("strace");
    command.args([
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=accept4:error=EPERM",
        "true",
    ]);
    let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status();
    if status.is_ok_and(|status| status.success()) {
        return None;
    }
    Some(Outcome::skipped("strace(1) is not installed or may not trace"))
}

/// A server whose calls of accept(2) fail with `error`, `when` being strace's choice of calls.
#[track_caller]
fn failing(variant: &Variant, error: &str, when: &str) -> Server {
    let inject = format!("inject=accept4,accept:error={error}:when={when}");
    Server::start_traced(
        variant,
        &[],
        &["-o", "/dev/null", "-e", "trace=accept4,accept", "-e", &inject],
    )
}

/// The second accept fails: those who come after are served, and a stop is orderly.
pub fn failures_pass(variant: &Variant) -> Outcome {
    if let Some(skipped) = unobservable(variant) {
        return skipped;
    }
    for error in GOES_ON {
        let server = failing(variant, error, "2");
        for _ in 0..3 {
            server.serves();
        }
        let counters = server.stop();
        assert_eq!(counters["requests"], 3, "{error}: {counters}");
    }
    Outcome::Passed
}

/// Every accept but the first fails: whoever is here is served all the same.
pub fn failures_concern_newcomers_only(variant: &Variant) -> Outcome {
    if let Some(skipped) = unobservable(variant) {
        return skipped;
    }
    if variant.model.polls_busily() {
        let reason = "it asks before anybody has come, so no call is the first client's";
        return Outcome::skipped(reason);
    }
    for error in ["EPROTO", "EHOSTUNREACH", "EPERM"] {
        let server = failing(variant, error, "2+");
        let mut here = server.connect();
        here.send(&get("/"));
        assert_eq!(here.reply().status, 200, "{error}");
        let mut newcomer = server.connect();
        newcomer.send(&get("/"));
        for _ in 0..20 {
            here.send(&get("/"));
            assert_eq!(here.reply().status, 200, "{error}");
        }
    }
    Outcome::Passed
}

/// An error of the server itself ends it, with a sentence: no retry could mend it.
pub fn faults_of_the_server_end_it(variant: &Variant) -> Outcome {
    if let Some(skipped) = unobservable(variant) {
        return skipped;
    }
    for (error, number) in [("EBADF", 9), ("EFAULT", 14), ("EINVAL", 22), ("ENOTSOCK", 88)] {
        let server = failing(variant, error, "2");
        // Whether it is accepted or not, the next call fails; one that asks all the time has ended.
        drop(TcpStream::connect(server.address));
        let ended = server.wait();
        assert_eq!(ended.code, Some(1), "{error}: {}", ended.stderr);
        let expected = format!("(os error {number})");
        assert!(ended.stderr.contains(&expected), "{error}: {:?}", ended.stderr);
    }
    Outcome::Passed
}

/// Newcomers, all waiting when the loop next looks.
const NEWCOMERS: usize = 300;

/// Most accepts in a row while one that is connected waits for a reply: a few, in the round that
/// finds the request and in the one before it.
const IN_A_ROW_MAX: usize = 24;

/// A burst of newcomers does not stop those who are here: between two looks at them a loop accepts
/// some and not all.
pub fn burst_is_taken_in_parts(variant: &Variant) -> Outcome {
    if let Some(skipped) = unobservable(variant) {
        return skipped;
    }
    if !variant.model.has_loops() {
        let reason = "it accepts on a thread that serves nobody, or one connection at a time";
        return Outcome::skipped(reason);
    }
    let trace = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = trace.path().to_string_lossy();
    let calls = "trace=accept4,recvfrom,sendto";
    let server = Server::start_traced(variant, &[], &["-o", &path, "-e", calls]);
    let mut here = server.connect();
    here.send(&get("/"));
    assert_eq!(here.reply().status, 200);
    server.signal(Signal::SIGSTOP);
    let newcomers: Vec<_> = (0..NEWCOMERS).map(|_| server.connect()).collect();
    here.send(&get("/"));
    server.signal(Signal::SIGCONT);
    assert_eq!(here.reply().status, 200);
    drop(newcomers);
    drop(here);
    server.stop();
    let trace = fs::read_to_string(trace.path()).expect("what strace(1) wrote");
    // Up to the reply, which is the second that was sent.
    let replied = trace.match_indices("sendto(").nth(1).map(|(at, _)| at);
    let before = &trace[..replied.expect("two replies in the trace")];
    let descriptor = |line: &str| line.rsplit("= ").next()?.parse::<u32>().ok();
    let accepts = before.lines().filter(|line| line.contains("accept4(")).filter_map(descriptor);
    let accepted = accepts.count();
    assert!(accepted <= IN_A_ROW_MAX, "{accepted} newcomers were taken first");
    Outcome::Passed
}
