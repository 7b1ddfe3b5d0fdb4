//! A server process under test: start, first line, stop, last line. man: wait4(2), pidfd_open(2),
//! prctl(2), sched_setaffinity(2).
//!
//! No server outlives its trial: dropping the value kills its process group, and the kernel kills
//! it when iolab is killed (PR_SET_PDEATHSIG).

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CpuSet;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use record::ServerExit;

use crate::sys::{self, ChildSetup};

use super::cgroup::{self, Cgroup};
use super::counting::{self, Counters};
use super::sample;

/// Time limit of the `listening` line. A ring, a thread pool and a scan of the document root take
/// milliseconds; the limit allows for a loaded machine.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of the end after SIGTERM: the drain timeout of trials (2 s), and time for a loaded
/// machine.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of the end of a pipe after the end of its process. The end follows at once, unless a
/// process that the server left behind holds the pipe. The reading thread may have to wait for a
/// core.
pub(crate) const PIPE_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of bytes kept of stderr: enough for the reason of a failure.
const STDERR_BYTES_MAX: u64 = 16 * 1024;

/// A running server.
pub struct Server {
    child: Child,
    /// Address of the listener.
    pub address: SocketAddr,
    stdout: Receiver<String>,
    /// Its stderr, after its end.
    stderr: Receiver<String>,
    exit: Option<ServerExit>,
    pidfd: OwnedFd,
    /// Counters of its system calls, after [`Server::start_counted`].
    pub counters: Option<Counters>,
    /// Its memory cgroup, if one could be made.
    pub cgroup: Option<Cgroup>,
    /// Dropping this ends the thread that started the server.
    _starter: Sender<()>,
}

impl Server {
    /// Starts `executable` on `cores` (on any core if empty) and waits for its `listening` line.
    ///
    /// # Errors
    /// One sentence for the table.
    pub fn start(executable: &Path, arguments: &[String], cores: &[u32]) -> Result<Server, String> {
        Server::start_as(executable, arguments, cores, false)
    }

    /// As [`Server::start`], with system calls counted from the start.
    pub fn start_counted(
        executable: &Path,
        arguments: &[String],
        cores: &[u32],
    ) -> Result<Server, String> {
        Server::start_as(executable, arguments, cores, true)
    }

    fn start_as(
        executable: &Path,
        arguments: &[String],
        cores: &[u32],
        counted: bool,
    ) -> Result<Server, String> {
        let mut command = Command::new(executable);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let cgroup = cgroup::create();
        let join_file = cgroup.as_ref().map(Cgroup::join_file).transpose();
        let join_file = join_file.map_err(|e| format!("cannot start: its cgroup: {e}"))?;
        prepare(&mut command, cores, join_file)?;
        let Started { mut child, counters, starter, pidfd } = start(command, counted)?;
        let stdout = lines_of(child.stdout.take().ok_or("its stdout is not a pipe")?);
        let stderr = text_of(child.stderr.take().ok_or("its stderr is not a pipe")?);
        let mut server = Server {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            stdout,
            stderr,
            exit: None,
            pidfd,
            counters,
            cgroup,
            _starter: starter,
        };
        server.address = server.listening()?;
        Ok(server)
    }

    /// Process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// All its present processes: a server may fork workers at any time.
    pub fn processes(&self) -> Vec<Pid> {
        match &self.cgroup {
            Some(cgroup) => cgroup.processes(),
            None => sample::process_tree(self.pid()),
        }
    }

    fn listening(&mut self) -> Result<SocketAddr, String> {
        let line = match self.stdout.recv_timeout(START_TIMEOUT) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("no `listening` line within {} s", START_TIMEOUT.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.end(STOP_TIMEOUT);
                return Err(format!("ended at once: {}", tail(&self.said())));
            }
        };
        address_in(&line)
    }

    /// How it ended by itself, with its last line on stderr; `None` if it still runs after this
    /// time. An ending process closes its sockets before it counts as ended.
    pub fn how_it_ended(&mut self, within: Duration) -> Option<String> {
        if self.exit.is_none() && !ends_within(&self.pidfd, within) {
            return None;
        }
        let exit = self.end(Duration::ZERO);
        let how = match (exit.code, exit.signal) {
            (_, Some(signal)) => match Signal::try_from(signal) {
                Ok(signal) => format!("was ended by {signal}"),
                Err(_) => format!("was ended by signal {signal}"),
            },
            (code, None) => format!("ended by itself with exit code {}", code.unwrap_or(0)),
        };
        Some(format!("the server {how}: {}", tail(&self.said())))
    }

    /// Sends SIGTERM, waits for the end within the time limit, then kills.
    pub fn stop(mut self) -> ServerExit {
        if self.exit.is_none() {
            // Fails if it has ended already; its status is collected below.
            let _ = kill(self.pid(), Signal::SIGTERM);
        }
        let mut exit = self.end(STOP_TIMEOUT);
        // All lines have arrived by now, unless a process that the server left behind holds the
        // pipe.
        let mut last = None;
        while let Ok(line) = self.stdout.recv_timeout(PIPE_TIMEOUT) {
            last = Some(line);
        }
        exit.counters = last
            .and_then(|line| serde_json::from_str::<serde_json::Value>(&line).ok())
            .filter(serde_json::Value::is_object);
        exit
    }

    /// Its stderr, after its end.
    fn said(&self) -> String {
        self.stderr.recv_timeout(PIPE_TIMEOUT).unwrap_or_default()
    }

    /// Waits for the end up to `limit`, then kills.
    fn end(&mut self, limit: Duration) -> ServerExit {
        if let Some(exit) = &self.exit {
            return exit.clone();
        }
        let killed = !ends_within(&self.pidfd, limit);
        if killed {
            kill_group(self.pid());
        }
        let exit = ServerExit { killed, ..wait4(self.pid()) };
        self.exit = Some(exit.clone());
        // Kills what the server left behind, such as workers in another session.
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill_all();
        }
        exit
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.end(Duration::ZERO);
        }
    }
}

struct Started {
    child: Child,
    counters: Option<Counters>,
    starter: Sender<()>,
    pidfd: OwnedFd,
}

/// Starts a process from a new thread, which then sleeps until `starter` is dropped. The thread
/// must outlive the process: when a thread ends the kernel kills its children with
/// PR_SET_PDEATHSIG, and the counters are inherited from it.
fn start(mut command: Command, counted: bool) -> Result<Started, String> {
    let (tell, told) = channel();
    let (starter, stop) = channel::<()>();
    let mut born = move || {
        let counters = counted.then(counting::open_here).transpose();
        let counters = counters.map_err(|e| format!("system calls cannot be counted: {e}"))?;
        let child = command.spawn().map_err(|e| format!("cannot start: {e}"))?;
        Ok::<_, String>((child, counters))
    };
    std::thread::Builder::new()
        .name("starter".into())
        .spawn(move || {
            // The receiver waits for this. Then the thread waits until `starter` is dropped.
            let _ = tell.send(born());
            let _ = stop.recv();
        })
        .map_err(|e| format!("cannot start: no thread: {e}"))?;
    let (child, counters) =
        told.recv().unwrap_or_else(|_| Err("cannot start: its thread ended".into()))?;
    let pid = Pid::from_raw(child.id() as i32);
    let pidfd = sys::pidfd(pid).map_err(|error| {
        kill_group(pid);
        wait4(pid);
        format!("cannot watch for its end (pidfd_open, Linux 5.3): {error}")
    })?;
    Ok(Started { child, counters, starter, pidfd })
}

/// Whether the process of this descriptor ends within the time limit.
fn ends_within(pidfd: &OwnedFd, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, because poll(2) with 0 ms would spin during the last millisecond.
        let left = left.as_millis() as i32 + i32::from(!left.is_zero());
        let mut watched = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) if Instant::now() >= deadline => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            // After any other error the process is killed.
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

/// The address in a server's first line.
pub(crate) fn address_in(line: &str) -> Result<SocketAddr, String> {
    let address = line.strip_prefix("listening ").and_then(|rest| rest.split(' ').next());
    address.and_then(|a| a.parse().ok()).ok_or_else(|| {
        format!("its first line is {line:?}, not `listening ADDRESS:PORT model=NAME pid=N`")
    })
}

/// Kills a child and the processes that it started, which [`prepare`] made a process group. The
/// child is not reaped yet, so its id is not reused.
fn kill_group(leader: Pid) {
    // Fails if all of them have ended.
    let _ = killpg(leader, Signal::SIGKILL);
}

/// Pins the child, sets PR_SET_PDEATHSIG, puts it into its cgroup, and makes a process group, so
/// that Ctrl-C on the terminal does not end it: iolab stops its servers after writing the results.
fn prepare(command: &mut Command, cores: &[u32], cgroup: Option<OwnedFd>) -> Result<(), String> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core as usize).map_err(|e| format!("cannot pin to core {core}: {e}"))?;
    }
    command.process_group(0);
    let cores = (!cores.is_empty()).then_some(set);
    sys::set_up_child(command, ChildSetup { cores, cgroup, traced: false });
    Ok(())
}

/// Reaps a child that has ended, with the resources that it used.
fn wait4(pid: Pid) -> ServerExit {
    // ECHILD: it was reaped before.
    let Ok((status, usage)) = sys::wait4(pid) else { return ServerExit::default() };
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    ServerExit {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        killed: false,
        cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
        voluntary_switches: usage.ru_nvcsw as u64,
        involuntary_switches: usage.ru_nivcsw as u64,
        resident_max_kib: usage.ru_maxrss as u64,
        counters: None,
    }
}

pub(crate) fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
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

/// The text arrives when the last process that holds the pipe has ended.
pub(crate) fn text_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut kept = Vec::new();
        // A read error ends the text. The rest is discarded, so that the server never blocks on
        // stderr.
        let _ = reader.by_ref().take(STDERR_BYTES_MAX).read_to_end(&mut kept);
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
        // The receiver is gone if the server ended normally.
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    });
    receiver
}

/// The output of a short-lived process.
pub struct Said {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The whole stdout.
    pub stdout: String,
    /// The first bytes of stderr.
    pub stderr: String,
}

/// Runs a process to its end, within a time limit.
pub fn run_briefly(command: Command, timeout: Duration) -> Result<Said, String> {
    run_briefly_in(command, timeout, None)
}

/// As [`run_briefly`], in a cgroup.
pub fn run_briefly_in(
    mut command: Command,
    timeout: Duration,
    cgroup: Option<OwnedFd>,
) -> Result<Said, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    prepare(&mut command, &[], cgroup)?;
    let Started { mut child, pidfd, starter, .. } = start(command, false)?;
    let stdout = text_of(child.stdout.take().ok_or("its stdout is not a pipe")?);
    let stderr = text_of(child.stderr.take().ok_or("its stderr is not a pipe")?);
    let pid = Pid::from_raw(child.id() as i32);
    let in_time = ends_within(&pidfd, timeout);
    if !in_time {
        kill_group(pid);
    }
    let exit = wait4(pid);
    drop(starter);
    if !in_time {
        return Err(format!("did not end within {} s", timeout.as_secs()));
    }
    Ok(Said {
        code: exit.code,
        signal: exit.signal,
        stdout: stdout.recv_timeout(PIPE_TIMEOUT).unwrap_or_default(),
        stderr: stderr.recv_timeout(PIPE_TIMEOUT).unwrap_or_default(),
    })
}

/// The reason in what a program has printed: its last line that begins with "error: " (behind
/// which clap prints the usage), or else the last line that is not blank.
pub fn tail(text: &str) -> &str {
    let last = |is: fn(&str) -> bool| text.lines().rev().find(|line| is(line));
    let reason = last(|line| line.starts_with("error: "));
    let reason = reason.or_else(|| last(|line| !line.trim().is_empty()));
    reason.map_or("it printed nothing", str::trim)
}

/// The server of the tests: an example of the package iolab.
#[cfg(test)]
pub fn example() -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/serve-example");
    assert!(example.is_file(), "{} is missing: cargo build -p iolab --examples", example.display());
    example
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_reason_is_the_error_and_not_the_hint_behind_it() {
        let clap = "error: unexpected argument '--nope' found\n\nFor more, try '--help'.";
        assert_eq!(tail(clap), "error: unexpected argument '--nope' found");
        assert_eq!(tail("listening\nno memory\n\n"), "no memory");
        assert_eq!(tail(""), "it printed nothing");
    }

    /// A server written in shell.
    fn script(lines: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("serve-script");
        fixture::script(&path, lines);
        (place, path)
    }

    fn start(lines: &str) -> Result<Server, String> {
        let (_place, path) = script(lines);
        Server::start(&path, &[], &[])
    }

    #[test]
    fn workers_that_come_later_are_found_and_none_outlives_the_server() {
        // The first worker starts after the first line; the second leaves the process group.
        let server = start(
            "echo listening 127.0.0.1:1 model=script pid=$$
             sleep 1000 &
             setsid sleep 1000 &
             while :; do wait; done",
        );
        let server = server.unwrap();
        if server.cgroup.is_none() {
            eprintln!("SKIP {}", cgroup::unavailable().unwrap());
            return;
        }
        let limit = Instant::now() + START_TIMEOUT;
        let mut processes = server.processes();
        while processes.len() < 3 && Instant::now() < limit {
            processes = server.processes();
        }
        assert!(processes.len() >= 3, "{processes:?}");
        // The second may still be a child of the shell before its call of setsid.
        drop(server);
        let runs = |pid: &Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains("(sleep)") && !stat.contains(") Z ")
        };
        while processes.iter().any(runs) {
            assert!(Instant::now() < limit, "{processes:?}");
        }
    }

    #[test]
    fn the_end_of_a_server_is_told_with_its_last_line() {
        let lines = "echo listening 127.0.0.1:1 model=script pid=$$; echo too bad >&2; exit 3";
        let mut server = start(lines).unwrap();
        let told = server.how_it_ended(START_TIMEOUT).unwrap();
        assert_eq!(told, "the server ended by itself with exit code 3: too bad");
        assert_eq!(server.stop().code, Some(3));

        let lines = "echo listening 127.0.0.1:1 model=script pid=$$; kill -9 $$";
        let mut server = start(lines).unwrap();
        assert!(server.how_it_ended(START_TIMEOUT).unwrap().contains("was ended by SIGKILL"));
    }

    #[test]
    fn a_server_that_runs_has_not_ended_and_is_killed_when_it_does_not_stop() {
        let lines = "trap '' TERM; echo listening 127.0.0.1:1 model=script pid=$$
                     while :; do sleep 1000; done";
        let mut server = start(lines).unwrap();
        assert_eq!(server.how_it_ended(Duration::ZERO), None);
        assert!(server.end(Duration::from_millis(1)).killed);
        assert_eq!(
            server.how_it_ended(START_TIMEOUT).unwrap(),
            "the server was ended by SIGKILL: it printed nothing"
        );
    }
}
