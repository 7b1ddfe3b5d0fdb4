//! `iolab-hold`: holds idle connections to one server. See [`rig::hold`].

use std::fmt::Display;
use std::io::{Write, stdin};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::read;
use rig::hold::{Held, Keep, Opening};
use rig::{environment, exchange};
use serde::de::DeserializeOwned;

const HELP: &str = "\
Holds idle connections to one server. `iolab bench` starts it for workloads with idle
connections: the servers of an epoch have up to 10,000 each, which together is more than the
limit of descriptors of one process.

Usage: iolab-hold < ORDERS

Each order is a line of JSON. The first opens connections, with one exchange on each:
    {\"address\": \"127.0.0.1:PORT\", \"connections\": N, \"workload\": {...}}
(workload: as in a result file, see `iolab schema`). Each further order closes all but N:
    {\"keep\": N}
The answer to each is a line, {\"held\": N, \"lost\": N}; `lost` counts connections that the
server has closed. After an error the answer is a sentence and the exit code is 1. At the end of
stdin, or on SIGTERM, it answers once more and closes each connection after the server has.
";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!(
                "iolab-hold: unknown argument {other:?}: orders are read from stdin, see --help"
            );
            return ExitCode::from(2);
        }
    }
    environment::raise_descriptor_limit();
    match hold() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            say(&sentence);
            ExitCode::FAILURE
        }
    }
}

fn hold() -> Result<(), String> {
    let mut orders = Orders::default();
    let Some(Opening { address, connections, workload }) = orders.next(None)? else {
        return Ok(());
    };
    let mut open = exchange::open_idle(address, connections, &workload)?;
    // From here on SIGTERM ends the process in order. Before, the default action is enough.
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    let failed = |errno: Errno| format!("cannot wait for SIGTERM: {errno}");
    term.thread_block().map_err(failed)?;
    let term = SignalFd::with_flags(&term, SfdFlags::SFD_CLOEXEC).map_err(failed)?;
    tell(&open);
    while let Some(Keep { keep }) = orders.next(Some(&term))? {
        exchange::part(open.split_off(open.len().min(keep as usize)));
        tell(&open);
    }
    tell(&open);
    exchange::hang_up_after_server(open);
    Ok(())
}

fn tell(open: &[TcpStream]) {
    let lost = exchange::count_lost(open);
    let held = Held { held: open.len() as u32, lost };
    say(&serde_json::to_string(&held).unwrap_or_default());
}

/// A failed write means that the parent has ended, which the end of stdin shows too.
fn say(line: &dyn Display) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// The lines of stdin. Read without BufReader, whose buffer poll(2) does not see.
#[derive(Default)]
struct Orders {
    bytes: Vec<u8>,
}

impl Orders {
    /// The next order; `None` at the end of stdin, or after the signal.
    fn next<T: DeserializeOwned>(&mut self, term: Option<&SignalFd>) -> Result<Option<T>, String> {
        loop {
            if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                let order = serde_json::from_slice(&line);
                return order.map(Some).map_err(|error| format!("invalid order: {error}"));
            }
            if term.is_some_and(ends_first) {
                return Ok(None);
            }
            let mut more = [0; 4096];
            match read(stdin(), &mut more) {
                Ok(0) => return Ok(None),
                Ok(count) => self.bytes.extend(&more[..count]),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(format!("stdin cannot be read: {errno}")),
            }
        }
    }
}

/// Waits for input on stdin or for the signal. Returns whether the signal has come.
fn ends_first(term: &SignalFd) -> bool {
    let stdin = stdin();
    let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut both = [watched(stdin.as_fd()), watched(term.as_fd())];
    // If a signal interrupts poll(2), the following read(2) waits.
    let _ = poll(&mut both, PollTimeout::NONE);
    both[1].any().unwrap_or(false)
}
