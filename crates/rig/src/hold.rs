//! Silent connections, held by a process of their own: servers that are alive together have up to
//! 10,000 each, and a process has some 20,000 descriptors.
//!
//! The process is `iolab-hold`, found beside the running executable. It is told what to do on its
//! stdin, a line for each order, and answers each on its stdout with a line of JSON, or with the
//! sentence that says why not. The end of its stdin, which comes with the end of whoever started it
//! too, tells it to leave.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use record::Workload;
use serde::{Deserialize, Serialize};

/// Its name.
const NAME: &str = "iolab-hold";

/// Time for the opening, and more for each connection: a server with a thread for each takes some
/// 100 us, one under TLS some milliseconds; a loaded machine is allowed for.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
const OPEN_TIMEOUT_EACH: Duration = Duration::from_millis(5);

/// Time for any other answer, and for its end. It waits for the server to close first, for 8 s at
/// most, and a server that does not stop is killed by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The first order: to open connections, each with one exchange.
#[derive(Debug, Serialize, Deserialize)]
pub struct Opening {
    /// The server.
    pub address: SocketAddr,
    /// How many.
    pub connections: u32,
    /// What is spoken on them.
    pub workload: Workload,
}

/// Every further order, as a line: to end all connections beyond these, of which the answer tells.
#[derive(Debug, Serialize, Deserialize)]
pub struct Keep {
    /// So many are kept.
    pub keep: u32,
}

/// The answer to each order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Connections that are held.
    pub held: u32,
    /// Those of them that the server has closed, or broken its silence on.
    pub lost: u32,
}

/// The executable. The error is one sentence that says where it was looked for, and the remedy.
pub fn executable() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("cannot find {NAME}: {e}"))?;
    let beside = own.parent().unwrap_or(Path::new("."));
    // Cargo puts the executables of tests a directory below the others.
    let places = [Some(beside), beside.parent().filter(|_| beside.ends_with("deps"))];
    let found = places.into_iter().flatten().map(|place| place.join(NAME));
    found.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        format!(
            "there is no {NAME} in {}, which holds the silent connections of a workload: build it \
             (cargo build --release)",
            beside.display()
        )
    })
}

/// A process that holds silent connections to one server.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    /// Dropped, it tells the process to leave.
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Holder {
    /// Opens connections, as [`crate::exchange::open_idle`] does, in a process of their own.
    ///
    /// # Errors
    /// One sentence: how many were answered, and what then happened.
    pub fn open(executable: &Path, opening: &Opening) -> Result<Holder, String> {
        let mut command = Command::new(executable);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // The terminal's Ctrl-C is for who started it, which tells it to leave in its own time.
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

    /// Ends all connections beyond the first `keep`, waits until the server has ended its sides
    /// too, and looks at those that are kept.
    ///
    /// # Errors
    /// One sentence, where the process has ended or hangs.
    pub fn keep(&mut self, keep: u32) -> Result<Held, String> {
        self.ask(&Keep { keep }, ANSWER_TIMEOUT)
    }

    /// Tells it to close its connections as soon as the server has closed them. To be dropped when
    /// the server was stopped.
    pub fn leave(&mut self) {
        self.orders = None;
    }

    fn ask(&mut self, order: &impl Serialize, limit: Duration) -> Result<Held, String> {
        let mut line = serde_json::to_string(order).map_err(|e| e.to_string())?;
        line.push('\n');
        // Where it has ended it has said why, which is read below.
        let _ = self.orders.as_mut().map(|orders| orders.write_all(line.as_bytes()));
        match self.answers.recv_timeout(limit) {
            Ok(answer) => serde_json::from_str(&answer).map_err(|_| answer),
            Err(RecvTimeoutError::Timeout) => Err(format!(
                "the silent connections were not opened or counted within {} s",
                limit.as_secs()
            )),
            Err(RecvTimeoutError::Disconnected) => Err(format!("{NAME} ended without a word")),
        }
    }
}

impl Drop for Holder {
    /// Waits for its end, which comes by itself if it was told to leave; else it is killed.
    fn drop(&mut self) {
        if self.orders.is_none() {
            // Its last answer, then the end of its stdout.
            while self.answers.recv_timeout(ANSWER_TIMEOUT).is_ok() {}
        }
        // Fails only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
