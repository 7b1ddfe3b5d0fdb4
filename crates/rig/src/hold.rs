//! Idle connections, held by a separate process: each server of an epoch has up to 10,000, but a
//! process may have only some 20,000 descriptors.
//!
//! The process is `iolab-hold`, next to the running executable. It reads orders from stdin, one per
//! line, and answers each on stdout with a line of JSON or with a sentence that says what failed.
//! At the end of stdin, which also follows the end of the parent process, it exits.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use record::Workload;
use serde::{Deserialize, Serialize};

const NAME: &str = "iolab-hold";

/// Time limit for opening, and further time for each connection. A server with a thread per
/// connection takes some 100 us, one with TLS some milliseconds; the limits allow for a loaded
/// machine.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
const OPEN_TIMEOUT_EACH: Duration = Duration::from_millis(5);

/// Time limit for other answers and for the end of the process. It waits up to 8 s for the server
/// to close first; by then a server that does not stop has been killed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The first order: opens connections, with one exchange on each.
#[derive(Debug, Serialize, Deserialize)]
pub struct Opening {
    /// Address of the server.
    pub address: SocketAddr,
    /// Number of connections.
    pub connections: u32,
    /// The workload whose protocol is used.
    pub workload: Workload,
}

/// Each further order: closes all connections beyond this number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Keep {
    /// Number of connections to keep.
    pub keep: u32,
}

/// The answer to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Connections that are kept.
    pub held: u32,
    /// Those of them that the server has closed, or on which it has sent bytes.
    pub lost: u32,
}

/// The path of the executable.
///
/// # Errors
/// One sentence: where it was searched, and the remedy.
pub fn executable() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("cannot find {NAME}: {e}"))?;
    let beside = own.parent().unwrap_or(Path::new("."));
    // Cargo puts the executables of tests into a subdirectory.
    let places = [Some(beside), beside.parent().filter(|_| beside.ends_with("deps"))];
    let found = places.into_iter().flatten().map(|place| place.join(NAME));
    found.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        format!(
            "{NAME} is missing in {}; it holds the idle connections of a workload: build it \
             (cargo build --release)",
            beside.display()
        )
    })
}

/// A process that holds idle connections to one server.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    /// When this is dropped the process exits.
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Holder {
    /// Opens connections as [`crate::exchange::open_idle`] does, in a separate process.
    ///
    /// # Errors
    /// One sentence: how many connections were answered, and what failed.
    pub fn open(executable: &Path, opening: &Opening) -> Result<Holder, String> {
        let mut command = Command::new(executable);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C on the terminal is for the parent process, which ends this one later.
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| format!("cannot start {NAME}: {e}"))?;
        let (orders, pipe) = (child.stdin.take(), child.stdout.take());
        let (tell, answers) = channel();
        std::thread::spawn(move || {
            let lines = pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).lines());
            for line in lines.map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let mut holder = Holder { child, orders, answers };
        let limit = OPEN_TIMEOUT + OPEN_TIMEOUT_EACH * opening.connections;
        let Held { held, .. } = holder.ask(opening, limit)?;
        match held == opening.connections {
            true => Ok(holder),
            false => Err(format!("{NAME} holds {held} of {} connections", opening.connections)),
        }
    }

    /// Closes all connections beyond the first `keep`, waits until the server has closed its ends
    /// too, and checks the others.
    ///
    /// # Errors
    /// One sentence if the process has ended or does not answer.
    pub fn keep(&mut self, keep: u32) -> Result<Held, String> {
        self.ask(&Keep { keep }, ANSWER_TIMEOUT)
    }

    /// Tells the process to close its connections once the server has closed them. Drop this after
    /// the server was stopped.
    pub fn leave(&mut self) {
        self.orders = None;
    }

    fn ask(&mut self, order: &impl Serialize, limit: Duration) -> Result<Held, String> {
        let mut line = serde_json::to_string(order).map_err(|e| e.to_string())?;
        line.push('\n');
        // If the process has ended its last line says why; it is read below.
        let _ = self.orders.as_mut().map(|orders| orders.write_all(line.as_bytes()));
        match self.answers.recv_timeout(limit) {
            Ok(answer) => serde_json::from_str(&answer).map_err(|_| answer),
            Err(RecvTimeoutError::Timeout) => Err(format!(
                "the idle connections were not opened or counted within {} s",
                limit.as_secs()
            )),
            Err(RecvTimeoutError::Disconnected) => Err(format!("{NAME} ended without an answer")),
        }
    }
}

impl Drop for Holder {
    /// After `leave` waits for its end; else kills it.
    fn drop(&mut self) {
        if self.orders.is_none() {
            while self.answers.recv_timeout(ANSWER_TIMEOUT).is_ok() {}
        }
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
