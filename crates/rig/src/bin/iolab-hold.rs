//! `iolab-hold`: silent connections to one server, in a process of their own. See [`rig::hold`].

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
Holds silent connections to one server, for `iolab bench`, which starts it where a workload has
idle connections: servers that are measured in turns have up to 10,000 each, more together than
one process has descriptors.

Usage: iolab-hold < ORDERS

An order is a line of JSON. The first one opens connections, each with one exchange:
    {\"address\": \"127.0.0.1:PORT\", \"connections\": N, \"workload\": {...}}
(the workload is that of a result file; see `iolab schema`). Each further one ends some of them:
    {\"keep\": N}
Each is answered by a line, {\"held\": N, \"lost\": N}, where the lost ones are those that the
server has closed; or by the sentence that says why not, and exit code 1. At the end of its stdin,
or on SIGTERM, it answers once more, and closes each connection when the server has closed it.
";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("iolab-hold: {other:?} is no argument: it takes orders on stdin, see --help");
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
    // From here on it ends in good order; before, it has nothing to tell.
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

/// Says what is held.
fn tell(open: &[TcpStream]) {
    let lost = exchange::count_lost(open);
    let held = Held { held: open.len() as u32, lost };
    say(&serde_json::to_string(&held).unwrap_or_default());
}

/// One line. Who does not read it has left, and the end of stdin says so too.
fn say(line: &dyn Display) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// The lines of stdin, read without a buffer that poll(2) would not see.
#[derive(Default)]
struct Orders {
    bytes: Vec<u8>,
}

impl Orders {
    /// The next order; `None` at the end, and where the signal comes first.
    fn next<T: DeserializeOwned>(&mut self, term: Option<&SignalFd>) -> Result<Option<T>, String> {
        loop {
            if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                let order = serde_json::from_slice(&line);
                return order.map(Some).map_err(|error| format!("this is no order: {error}"));
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

/// Waits until there is something to read on stdin, or the signal has come: then it is true.
fn ends_first(term: &SignalFd) -> bool {
    let stdin = stdin();
    let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut both = [watched(stdin.as_fd()), watched(term.as_fd())];
    // It fails where a signal interrupts it, and the read that follows waits too.
    let _ = poll(&mut both, PollTimeout::NONE);
    both[1].any().unwrap_or(false)
}
