//! A server process under test: start, first line, stop, last line. man: wait4(2), prctl(2),
//! sched_setaffinity(2).
//!
//! Whatever happens, no server outlives its trial: its process group is killed when the value is
//! dropped, and it is killed by the kernel (PR_SET_PDEATHSIG) when iolab itself is killed.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::CpuSet;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use record::ServerExit;

use crate::sys;

/// Time from the start to the `listening` line: a ring, a thread pool and a scan of the document
/// root take milliseconds; a loaded machine is allowed for.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Time from SIGTERM to the end: the drain timeout that trials ask for (2 s), and room.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two looks at a process that is about to end.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Most bytes kept of what a process says on stderr: enough for its reason.
const STDERR_BYTES_MAX: u64 = 16 * 1024;

/// A running server.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    stdout: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    reaped: bool,
}

impl Server {
    /// Starts `executable` on `cores` (any core if empty) and waits for its `listening` line. The
    /// error is one sentence for the table.
    pub fn start(executable: &Path, arguments: &[String], cores: &[u32]) -> Result<Server, String> {
        let mut command = Command::new(executable);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command, cores)?;
        let mut child = command.spawn().map_err(|e| format!("cannot start: {e}"))?;
        let stdout = lines_of(child.stdout.take().ok_or("its stdout is not a pipe")?);
        let stderr = Some(text_of(child.stderr.take().ok_or("its stderr is not a pipe")?));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { child, address, stdout, stderr, reaped: false };
        server.address = server.listening()?;
        Ok(server)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn listening(&mut self) -> Result<SocketAddr, String> {
        let line = match self.stdout.recv_timeout(START_TIMEOUT) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("no `listening` line within {} s", START_TIMEOUT.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.end(Instant::now() + STOP_TIMEOUT);
                let said = self.stderr.take().and_then(|reader| reader.join().ok());
                return Err(format!("ended at once: {}", tail(&said.unwrap_or_default())));
            }
        };
        let address = line.strip_prefix("listening ").and_then(|rest| rest.split(' ').next());
        address.and_then(|a| a.parse().ok()).ok_or_else(|| {
            format!("its first line is {line:?}, not `listening ADDRESS:PORT model=NAME pid=N`")
        })
    }

    /// Asks the server to stop (SIGTERM), waits for its end within a time limit, then kills it.
    pub fn stop(mut self) -> ServerExit {
        // An error means that it has ended already; its status is collected below.
        let _ = kill(self.pid(), Signal::SIGTERM);
        let mut exit = self.end(Instant::now() + STOP_TIMEOUT);
        // Every line is there by now, unless a process that the server left behind holds the pipe.
        let mut last = None;
        while let Ok(line) = self.stdout.recv_timeout(Duration::from_millis(100)) {
            last = Some(line);
        }
        exit.counters = last
            .and_then(|line| serde_json::from_str::<serde_json::Value>(&line).ok())
            .filter(serde_json::Value::is_object);
        exit
    }

    /// Waits for the end until `deadline`, then kills.
    fn end(&mut self, deadline: Instant) -> ServerExit {
        let mut killed = false;
        loop {
            match wait4(self.pid()) {
                Some(exit) => {
                    self.reaped = true;
                    return ServerExit { killed, ..exit };
                }
                None if !killed && Instant::now() >= deadline => {
                    kill_group(self.pid());
                    killed = true;
                }
                None => std::thread::sleep(POLL_INTERVAL),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.reaped {
            kill_group(self.pid());
            self.end(Instant::now());
        }
    }
}

/// Kills a child that is not reaped yet (so its id cannot belong to anybody else) and the processes
/// that it started, such as the workers of a peer: [`prepare`] made them a process group.
fn kill_group(leader: Pid) {
    // An error means that all of them have ended.
    let _ = killpg(leader, Signal::SIGKILL);
}

/// Pins the child, ties its life to ours, and keeps the terminal's Ctrl-C from it: iolab stops its
/// servers itself, so that what was measured is written first.
fn prepare(command: &mut Command, cores: &[u32]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core as usize).map_err(|e| format!("cannot pin to core {core}: {e}"))?;
    }
    command.process_group(0);
    sys::tie_and_pin(command, (!cores.is_empty()).then_some(set));
    Ok(())
}

/// Collects a child that has ended, with what its whole life used; `None` while it runs.
fn wait4(pid: Pid) -> Option<ServerExit> {
    let (status, usage) = match sys::wait4(pid) {
        Ok(None) => return None,
        Ok(Some(ended)) => ended,
        // ECHILD: collected before. There is nothing left to tell.
        Err(_) => return Some(ServerExit::default()),
    };
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    Some(ServerExit {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        killed: false,
        cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
        voluntary_switches: usage.ru_nvcsw as u64,
        involuntary_switches: usage.ru_nivcsw as u64,
        resident_max_kib: usage.ru_maxrss as u64,
        counters: None,
    })
}

fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn text_of(pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut kept = Vec::new();
        // Read errors end the text; the rest is drained so that the server never blocks on stderr.
        let _ = reader.by_ref().take(STDERR_BYTES_MAX).read_to_end(&mut kept);
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
        String::from_utf8_lossy(&kept).into_owned()
    })
}

/// What a short-lived process said.
pub struct Said {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its whole stdout.
    pub stdout: String,
    /// The beginning of its stderr.
    pub stderr: String,
}

/// Runs a process that should end by itself, within a time limit.
pub fn run_briefly(mut command: Command, timeout: Duration) -> Result<Said, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    prepare(&mut command, &[])?;
    let mut child = command.spawn().map_err(|e| format!("cannot start: {e}"))?;
    let stdout = text_of(child.stdout.take().ok_or("its stdout is not a pipe")?);
    let stderr = text_of(child.stderr.take().ok_or("its stderr is not a pipe")?);
    let pid = Pid::from_raw(child.id() as i32);
    let deadline = Instant::now() + timeout;
    let exit = loop {
        if let Some(exit) = wait4(pid) {
            break exit;
        }
        if Instant::now() >= deadline {
            kill_group(pid);
            while wait4(pid).is_none() {
                std::thread::sleep(POLL_INTERVAL);
            }
            return Err(format!("did not end within {} s", timeout.as_secs()));
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    Ok(Said {
        code: exit.code,
        signal: exit.signal,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    })
}

/// The last line that says something: where a program puts its reason.
pub fn tail(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).map_or("it said nothing", str::trim)
}
