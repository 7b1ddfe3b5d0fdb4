//! A server process under test: start, first line, stop, last line. man: wait4(2), pidfd_open(2),
//! prctl(2), sched_setaffinity(2).
//!
//! Whatever happens, no server outlives its trial: its process group is killed when the value is
//! dropped, and it is killed by the kernel (PR_SET_PDEATHSIG) when iolab itself is killed.

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

use crate::sys::{self, Birth};

use super::cgroup::{self, Cgroup};
use super::counting::{self, Counters};
use super::sample;

/// Time from the start to the `listening` line: a ring, a thread pool and a scan of the document
/// root take milliseconds; a loaded machine is allowed for.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Time from SIGTERM to the end: the drain timeout that trials ask for (2 s), and room for a loaded
/// machine.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the end of a pipe after the end of its process. It is there at once, unless a process
/// that was left behind holds the pipe; what that one says is not waited for. A thread reads it,
/// which on a loaded machine may wait for a core.
const PIPE_TIMEOUT: Duration = Duration::from_secs(2);

/// Most bytes kept of what a process says on stderr: enough for its reason.
const STDERR_BYTES_MAX: u64 = 16 * 1024;

/// A running server.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    stdout: Receiver<String>,
    /// What it said on stderr, once it has ended.
    stderr: Receiver<String>,
    /// How it ended, once that is known.
    exit: Option<ServerExit>,
    /// Readable when the child has ended.
    pidfd: OwnedFd,
    /// The counters of its system calls, where it was started with them.
    pub counters: Option<Counters>,
    /// Its own memory cgroup, where one can be made.
    pub cgroup: Option<Cgroup>,
    /// Lets the thread go that started it.
    _starter: Sender<()>,
}

impl Server {
    /// Starts `executable` on `cores` (any core if empty) and waits for its `listening` line. The
    /// error is one sentence for the table.
    pub fn start(executable: &Path, arguments: &[String], cores: &[u32]) -> Result<Server, String> {
        Server::start_as(executable, arguments, cores, false)
    }

    /// The same, and its system calls are counted from its birth on.
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
        let entrance = cgroup.as_ref().map(Cgroup::entrance).transpose();
        let entrance = entrance.map_err(|e| format!("cannot start: its cgroup: {e}"))?;
        prepare(&mut command, cores, entrance)?;
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

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// All its processes at this moment: a peer may fork workers when it likes.
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
        let address = line.strip_prefix("listening ").and_then(|rest| rest.split(' ').next());
        address.and_then(|a| a.parse().ok()).ok_or_else(|| {
            format!("its first line is {line:?}, not `listening ADDRESS:PORT model=NAME pid=N`")
        })
    }

    /// How it ended by itself, and what it said, in words; `None` if it still runs after this time.
    /// A process that ends has closed its sockets some time before it counts as ended.
    pub fn obituary(&mut self, within: Duration) -> Option<String> {
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

    /// Asks the server to stop (SIGTERM), waits for its end within a time limit, then kills it.
    pub fn stop(mut self) -> ServerExit {
        if self.exit.is_none() {
            // An error means that it has ended already; its status is collected below.
            let _ = kill(self.pid(), Signal::SIGTERM);
        }
        let mut exit = self.end(STOP_TIMEOUT);
        // Every line is there by now, unless a process that the server left behind holds the pipe.
        let mut last = None;
        while let Ok(line) = self.stdout.recv_timeout(PIPE_TIMEOUT) {
            last = Some(line);
        }
        exit.counters = last
            .and_then(|line| serde_json::from_str::<serde_json::Value>(&line).ok())
            .filter(serde_json::Value::is_object);
        exit
    }

    /// What it said on stderr, after its end.
    fn said(&self) -> String {
        self.stderr.recv_timeout(PIPE_TIMEOUT).unwrap_or_default()
    }

    /// Waits for the end so long, then kills.
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
        // What a server leaves behind (workers in a session of their own) ends with it.
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

/// What [`start`] brings back.
struct Started {
    child: Child,
    counters: Option<Counters>,
    starter: Sender<()>,
    pidfd: OwnedFd,
}

/// Starts a process on a thread made for it, which then sleeps until `starter` is dropped. That
/// thread must outlive the process: the kernel kills the child of a thread that has ended
/// (PR_SET_PDEATHSIG), and counters are inherited from it.
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
            // The other side waits for it; then this thread waits for the end of `starter`.
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

/// Whether the process behind this descriptor ends within the time limit.
fn ends_within(pidfd: &OwnedFd, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up: a poll of 0 ms would spin through the last millisecond.
        let left = left.as_millis() as i32 + i32::from(!left.is_zero());
        let mut watched = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) if Instant::now() >= deadline => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            // Any other error leaves the process unwatched: it is then killed.
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

/// Kills a child that is not reaped yet (so its id cannot belong to anybody else) and the processes
/// that it started, such as the workers of a peer: [`prepare`] made them a process group.
fn kill_group(leader: Pid) {
    // An error means that all of them have ended.
    let _ = killpg(leader, Signal::SIGKILL);
}

/// Pins the child, ties its life to ours, puts it into its cgroup, and keeps the terminal's Ctrl-C
/// from it: iolab stops its servers itself, so that what was measured is written first.
fn prepare(command: &mut Command, cores: &[u32], cgroup: Option<OwnedFd>) -> Result<(), String> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core as usize).map_err(|e| format!("cannot pin to core {core}: {e}"))?;
    }
    command.process_group(0);
    let cores = (!cores.is_empty()).then_some(set);
    sys::prepare_birth(command, Birth { cores, cgroup });
    Ok(())
}

/// Collects a child that has ended or was killed, with what its whole life used.
fn wait4(pid: Pid) -> ServerExit {
    // ECHILD: collected before. There is nothing left to tell.
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

/// The text comes when the last process that holds the pipe has ended.
fn text_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut kept = Vec::new();
        // Read errors end the text; the rest is drained so that the server never blocks on stderr.
        let _ = reader.by_ref().take(STDERR_BYTES_MAX).read_to_end(&mut kept);
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
        // Nobody asks for what a server said that ended well.
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    });
    receiver
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
pub fn run_briefly(command: Command, timeout: Duration) -> Result<Said, String> {
    run_briefly_in(command, timeout, None)
}

/// The same in a cgroup, given by its entrance.
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

/// The last line that says something: where a program puts its reason.
pub fn tail(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).map_or("it said nothing", str::trim)
}

/// The server of the tests, which is an example of iolab.
#[cfg(test)]
pub fn example() -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/serve-example");
    assert!(example.is_file(), "{} is missing: cargo build -p iolab --examples", example.display());
    example
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A server made of a few lines of shell.
    fn script(lines: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("serve-script");
        std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        (place, path)
    }

    fn start(lines: &str) -> Result<Server, String> {
        let (_place, path) = script(lines);
        Server::start(&path, &[], &[])
    }

    #[test]
    fn workers_that_come_later_are_found_and_none_outlives_the_server() {
        // The first worker comes after the first line, the second leaves the process group.
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
        // The second may still be the shell's own child that is about to call setsid.
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
    fn the_end_of_a_server_is_told_with_its_last_words() {
        let lines = "echo listening 127.0.0.1:1 model=script pid=$$; echo too bad >&2; exit 3";
        let mut server = start(lines).unwrap();
        let told = server.obituary(START_TIMEOUT).unwrap();
        assert_eq!(told, "the server ended by itself with exit code 3: too bad");
        assert_eq!(server.stop().code, Some(3));

        let lines = "echo listening 127.0.0.1:1 model=script pid=$$; kill -9 $$";
        let mut server = start(lines).unwrap();
        assert!(server.obituary(START_TIMEOUT).unwrap().contains("was ended by SIGKILL"));
    }

    #[test]
    fn a_server_that_runs_has_no_obituary_and_is_killed_when_it_does_not_stop() {
        let lines = "trap '' TERM; echo listening 127.0.0.1:1 model=script pid=$$
                     while :; do sleep 1000; done";
        let mut server = start(lines).unwrap();
        assert_eq!(server.obituary(Duration::ZERO), None);
        assert!(server.end(Duration::from_millis(1)).killed);
        assert_eq!(
            server.obituary(START_TIMEOUT).unwrap(),
            "the server was ended by SIGKILL: it said nothing"
        );
    }
}
