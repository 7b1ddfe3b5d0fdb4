//! One executable through all cases, for points: `make grade SERVER=path`.
//!
//! A case is a point. What the server says that it does not offer is no point, and is told apart
//! from what it does wrongly; what this machine lacks, or what the server's way of waiting has no
//! place for, is skipped and counts for nothing. The exit code is 0 when no case failed, 1 when one
//! did, 2 when the server cannot be graded at all.

mod answer;
pub mod tests;

use std::cell::RefCell;
use std::fs;
use std::io::{IsTerminal, Write, stderr};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use suite::{NotOffered, Process, Server, Variant, be_quiet, describe, set_guard};

use crate::{Outcome, Test, tests_of, threads};

/// Seconds after which a wait has failed. Many servers that are graded hang somewhere, and each
/// case that finds that out waits for so long.
const GUARD_S: u64 = 20;

/// Where to look when a server cannot be graded.
const CONTRACT: &str = "ARCHITECTURE.md, \"A server executable's contract\"";

/// Topics in their order, and the modules whose cases belong to each.
const TOPICS: &[(&str, &[&str])] = &[
    ("contract", &["contract"]),
    ("HTTP/1.1", &["requests", "curl"]),
    ("bad requests", &["errors"]),
    ("files", &["files"]),
    ("news and events", &["news"]),
    ("limits and timeouts", &["limits", "in_time"]),
    ("clients beside each other", &["company", "accepting", "floods"]),
    ("running out of resources", &["exhaustion"]),
    ("stopping", &["stop", "unanswered"]),
    ("echo", &["echo"]),
    ("WebSocket", &["websocket", "chat"]),
    ("HTTP/2", &["http2", "http2_limits", "http2_stop", "http2_tools"]),
    ("TLS", &["tls"]),
];

/// Cases of other topics, or modules, and the protocols that they speak beside or instead of
/// HTTP/1.1. `--protocol echo` and `--tls` are noticed when a server is started with them.
const NEEDS: &[(&str, &[&str])] = &[
    ("websocket", &["websocket"]),
    ("chat", &["websocket"]),
    ("http2", &["h2"]),
    ("http2_limits", &["h2"]),
    ("http2_stop", &["h2"]),
    ("http2_tools", &["h2"]),
    ("tls", &["tls"]),
    ("echo", &["echo"]),
    ("floods::websocket_messages", &["websocket"]),
    ("floods::http2_pings", &["h2"]),
    ("in_time::while_stopped_in_other_protocols", &["websocket", "h2"]),
    ("in_time::slow_reader_of_other_protocols", &["websocket", "h2", "tls"]),
    ("exhaustion::second_threads_run_out", &["websocket"]),
    ("exhaustion::memory_is_bounded", &["websocket"]),
    ("exhaustion::memory_is_given_back", &["websocket"]),
    ("unanswered::streams_that_cross_goaway", &["h2"]),
    ("unanswered::websockets_are_answered_and_told", &["websocket"]),
    ("unanswered::nothing_is_lost_under_load", &["websocket", "h2", "tls"]),
];

/// Modules that test this workspace, not a server.
const NOT_GRADED: &[&str] = &["soak"];

/// What a case came to.
enum Mark {
    Passed,
    Failed(Failure),
    /// The flag or protocol that `--describe` does not name.
    NotOffered(String),
    Skipped(String),
}

/// A panic of a case.
#[derive(Clone, Default)]
struct Failure {
    message: String,
    /// File and line, from the workspace's directory on.
    place: Option<(String, u32)>,
}

/// A case and what it came to.
struct Marked {
    name: String,
    mark: Mark,
}

thread_local! {
    /// The last panic of this thread.
    static LAST: RefCell<Failure> = RefCell::default();
}

/// Grades the server at `given[0]`, in all cases or in the one that `given[1]` names.
pub fn run(given: &[String]) -> ExitCode {
    match grade(given) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::from(2)
        }
    }
}

fn grade(given: &[String]) -> Result<bool, String> {
    let path = given.first().filter(|path| !path.is_empty());
    let path = path.ok_or("no server is named: make grade SERVER=path/to/serve-mine")?;
    let only = given.get(1).filter(|case| !case.is_empty());
    set_guard(GUARD_S);
    set_hook(Box::new(note));
    // Fails where there is a handler already, and there is none.
    let _ = ctrlc::set_handler(interrupted);
    be_quiet();
    let variant = graded(Path::new(path))?;
    let mut tests = tests_of(&variant);
    tests.retain(|test| !NOT_GRADED.contains(&module(&test.name)));
    if let Some(only) = only {
        tests.retain(|test| test.name == *only);
        if tests.is_empty() {
            return Err(format!(
                "no case has the name {only}; `make grade` without CASE lists all"
            ));
        }
    }
    let marked = run_all(&variant, tests);
    println!("{}", answer::text(path, &marked, only.is_some()));
    Ok(!marked.iter().any(|case| matches!(case.mark, Mark::Failed(_))))
}

fn module(case: &str) -> &str {
    case.split("::").next().unwrap_or(case)
}

/// The server at `path`, if it does what every case stands on: it describes itself, says where it
/// listens, serves one request, and stops when it is told to.
fn graded(path: &Path) -> Result<Variant, String> {
    let shown = path.display();
    let about = fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?;
    if !about.is_file() || about.permissions().mode() & 0o111 == 0 {
        return Err(format!("{shown} is no executable file; make it one: chmod +x {shown}"));
    }
    let unfit = |what: String| format!("{shown} cannot be graded: {what}. See {CONTRACT}.");
    let absolute = std::path::absolute(path).map_err(|error| format!("{shown}: {error}"))?;
    let model = Arc::new(describe(absolute).map_err(unfit)?);
    if let Some(reason) = model.unavailable() {
        return Err(format!("{shown} cannot be graded here: {reason}"));
    }
    let variant = model.plain();
    let first = catch(|| {
        if model.offers("http") {
            let server = Server::start(&variant, &[]);
            server.serves();
            server.stop();
        } else {
            let server = Server::start(&variant, &["--protocol", "echo"]);
            let mut client = server.connect();
            client.send(b"hello");
            assert_eq!(client.read_exact(5), b"hello");
            drop(client);
            server.stop();
        }
        Outcome::Passed
    });
    match first {
        Mark::Failed(failure) => Err(unfit(answer::sentence(&failure))),
        Mark::NotOffered(what) => Err(unfit(format!("it offers neither http nor {what}"))),
        Mark::Passed | Mark::Skipped(_) => Ok(variant),
    }
}

fn run_all(variant: &Variant, tests: Vec<Test>) -> Vec<Marked> {
    let all = tests.len();
    let waiting = Mutex::new(tests.into_iter().enumerate());
    let marked = Mutex::new(Vec::new());
    let lock = || marked.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((number, Test { name, run })) = next else { break };
                    let mark = match missing(variant, &name) {
                        Some(protocol) => Mark::NotOffered(protocol.to_owned()),
                        None => catch(run),
                    };
                    let mut marked = lock();
                    marked.push((number, Marked { name, mark }));
                    progress(marked.len(), all);
                }
            });
        }
    });
    let mut marked = marked.into_inner().unwrap_or_else(PoisonError::into_inner);
    marked.sort_by_key(|(number, _)| *number);
    marked.into_iter().map(|(_, marked)| marked).collect()
}

/// For a person who waits; the line is written over by the next one.
fn progress(done: usize, all: usize) {
    if stderr().is_terminal() {
        let end = if done == all { "\r                     \r" } else { "" };
        // No reader is left.
        let _ = write!(stderr(), "\r{done} of {all} cases{end}");
    }
}

/// A protocol that the case speaks and the server does not.
fn missing(variant: &Variant, case: &str) -> Option<&'static str> {
    let is_for = |(name, _): &&(&str, _)| *name == case || *name == module(case);
    let (_, needs) = NEEDS.iter().find(is_for).unwrap_or(&("", &["http"]));
    needs.iter().copied().find(|protocol| !variant.model.offers(protocol))
}

/// Runs a case on this thread.
fn catch(run: impl FnOnce() -> Outcome) -> Mark {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Outcome::Passed) => Mark::Passed,
        Ok(Outcome::Skipped(reason)) => Mark::Skipped(reason),
        Err(payload) => match payload.downcast::<NotOffered>() {
            Ok(what) => Mark::NotOffered(what.0),
            Err(_) => Mark::Failed(LAST.with_borrow(Clone::clone)),
        },
    }
}

/// Keeps a panic for [`catch`], instead of printing it.
fn note(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("it failed").to_owned();
    let place = panic.location().map(|place| (place.file().to_owned(), place.line()));
    LAST.set(Failure { message, place });
}

/// Ctrl-C: the servers of all threads end with this process.
fn interrupted() {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for thread in threads {
        let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
            let below = Process(child).children().into_iter().map(|Process(pid)| pid);
            for pid in below.chain([child]).filter_map(|pid| i32::try_from(pid).ok()) {
                // Fails for one that has ended.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    eprintln!("interrupted: nothing was graded");
    std::process::exit(130);
}
