//! Traces a server with ptrace(2) while three clients talk to it, for the figure that Stevens drew
//! by hand (UNP section 6.2): which call waited, and who copied the bytes.
//!
//! The server is a child of this process, so neither root nor a tool is needed. All its threads and
//! the processes that it forks stop at the entry and return of each system call
//! (PTRACE_GET_SYSCALL_INFO), and signals pass through. See [`tracer`] for how a call that slept is
//! known. The operations of io_uring are no calls: see [`ring`] and [`kernel`]. A stop takes some
//! ten microseconds, so the order of what happened is right and the lengths are too long: nothing
//! here is a measurement of speed.

mod clients;
mod describe;
mod given;
mod kernel;
mod objects;
mod ring;
mod tracer;
mod visit;
mod waits;

use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use record::{Call, SeenBy, Span};

pub use clients::NAMES;
pub use tracer::REFUSED;
pub use visit::{Heard, Visit};
pub use waits::{waits, watched_by};

use tracer::{Seen, Traced};

/// What was seen of one server.
#[derive(Debug)]
pub struct Trace {
    /// The system calls while the clients were connected, by the time of entry.
    pub calls: Vec<Call>,
    /// What the clients did.
    pub spans: Vec<Span>,
}

/// Starts the server, lets the three clients talk to it, and stops it. `run` names the run.
///
/// # Errors
/// One sentence: ptrace(2) is refused ([`REFUSED`]), or the server or a client failed.
pub fn run(executable: &Path, flags: &[String], run: &str) -> Result<Trace, String> {
    let echo = ["--protocol", "echo"].map(str::to_owned);
    let flags: Vec<String> = echo.into_iter().chain(flags.iter().cloned()).collect();
    watch(executable, &flags, run, clients::talk)
}

/// As [`run`], with the clients of an experiment. They return what they did; `flags` say the
/// protocol too.
///
/// # Errors
/// As [`run`].
pub fn watch(
    executable: &Path,
    flags: &[String],
    run: &str,
    clients: impl FnOnce(&mut Visit) -> Result<Vec<Span>, String>,
) -> Result<Trace, String> {
    let mut traced = Traced::start(executable, flags)?;
    let mut visit = Visit::begin(traced.address, &traced.shared);
    let spans = clients(&mut visit);
    let end_ns = now_ns();
    let (seen, said) = traced.stop()?;
    let spans = spans.map_err(|why| match said.trim() {
        "" => why,
        said => format!("{why}; the server said: {said}"),
    })?;
    let calls = seen.into_iter().filter_map(|c| call(c, &visit, end_ns, run));
    let mut calls: Vec<Call> = calls.collect();
    calls.sort_by(|a, b| a.from_us.total_cmp(&b.from_us));
    let of_run = |span: Span| Span { run: run.to_owned(), ..span };
    Ok(Trace { calls, spans: spans.into_iter().map(of_run).collect() })
}

/// The monotonic clock of the machine, in nanoseconds.
fn now_ns() -> u64 {
    // The clock exists on every Linux.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
}

/// Microseconds from `begin_ns`; negative before it.
fn since_us(begin_ns: u64, at_ns: u64) -> f64 {
    (i128::from(at_ns) - i128::from(begin_ns)) as f64 / 1e3
}

/// The call for the recording; `None` if it was before or after the clients. A call that slept when
/// they had ended was still waiting: what ended it is the stop of the server.
fn call(seen: Seen, visit: &Visit, end_ns: u64, run: &str) -> Option<Call> {
    if seen.to_ns < visit.begin_ns || seen.from_ns > end_ns {
        return None;
    }
    let is_operation = seen.seen_by != SeenBy::Ptrace;
    let waits = seen.slept == Some(true) || seen.result.is_none() || is_operation;
    let still_waits = waits && seen.to_ns > end_ns;
    let to_ns = if still_waits { end_ns } else { seen.to_ns };
    let connection = seen.object.peer.and_then(|port| visit.connection(port));
    let seen = Seen { to_ns, result: seen.result.filter(|_| !still_waits), ..seen };
    Some(recorded(seen, connection, visit.begin_ns, run))
}

/// What was seen, as the recording has it.
fn recorded(seen: Seen, connection: Option<u32>, begin_ns: u64, run: &str) -> Call {
    Call {
        run: run.to_owned(),
        thread_id: seen.thread.as_raw() as u32,
        process_id: seen.process.as_raw() as u32,
        name: seen.name.to_owned(),
        arguments: seen.arguments,
        descriptor: seen.descriptor,
        object: seen.object.name,
        connection,
        given: seen.given,
        from_us: since_us(begin_ns, seen.from_ns),
        to_us: since_us(begin_ns, seen.to_ns),
        result: seen.result,
        slept: seen.slept,
        seen_by: seen.seen_by,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A thread for each connection, and one that accepts.
    #[test]
    fn a_blocking_server_sleeps_in_recv_and_copies_there() {
        let trace = run(&crate::server::example(), &[], "example").unwrap();
        let of = |name| trace.calls.iter().filter(move |call: &&Call| call.name == name);
        let accepted: Vec<_> = of("accept4").filter_map(|call| call.connection).collect();
        assert_eq!(accepted, [0, 1, 2], "{trace:#?}");
        assert!(of("accept4").all(|call| call.object == "listener"));
        // The clients send when the server sleeps, so each of them was waited for.
        let mut slept: Vec<_> = of("recvfrom")
            .filter(|call| call.result == Some(16))
            .map(|call| (call.connection, call.slept))
            .collect();
        slept.sort_unstable();
        assert_eq!(slept, [0, 1, 2].map(|client| (Some(client), Some(true))), "{trace:#?}");
        assert!(of("sendto").all(|call| call.slept == Some(false)), "{trace:#?}");
        let request = |span: &&Span| span.kind == "request";
        assert_eq!(trace.spans.iter().filter(request).count(), 3);
    }

    /// A server written in shell, and its directory.
    fn script(lines: &str) -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("serve-script");
        fixture::script(&path, lines);
        (place, path)
    }

    #[test]
    fn signals_pass_and_processes_that_it_starts_are_followed() {
        // 40 is a real-time signal. The first line comes from a process that the shell starts.
        let (_place, path) = script(
            "trap 'rt=yes' 40; kill -40 $$; trap 'kill $!; exit 0' TERM
             sh -c \"echo listening 127.0.0.1:1 model=$rt pid=1; exit 0\"
             sleep 1000 & wait",
        );
        let mut traced = Traced::start(&path, &[]).unwrap();
        let (seen, _) = traced.stop().unwrap();
        let written: Vec<_> = seen.iter().filter(|c| c.name == "write").collect();
        let processes: std::collections::BTreeSet<_> = seen.iter().map(|c| c.process).collect();
        assert!(processes.len() >= 2 && !written.is_empty(), "{seen:#?}");
        assert!(written.iter().any(|call| call.result == Some(38)), "{written:#?}");
    }

    #[test]
    fn a_server_that_cannot_start_says_why_and_none_is_left() {
        let (_place, path) = script("echo no port >&2; exit 2");
        assert_eq!(run(&path, &[], "script").unwrap_err(), "ended at once: no port");
        // No one listens there: the clients fail, and the server is stopped.
        let (_place, path) = script("echo listening 127.0.0.1:1 model=x pid=$$; exec sleep 1000");
        let why = run(&path, &[], "script").unwrap_err();
        assert!(why.starts_with("client A cannot connect"), "{why}");
    }
}
