//! What a server of this workspace says of itself: the requests that it has answered, by `/stats`,
//! asked over a connection that nothing else uses. It shares no counter with any client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use load::Clocks;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use procfs::ProcError;
use procfs::process::Process;

use super::Stop;
use rig::server::Server;

/// How long an answer may take: it waits for whatever the server does meanwhile.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two looks whether a server rests.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// How long a server must rest to have answered everything. What it is sent may wait for a core
/// too, in ksoftirqd, but not for longer than others run on a machine that is quiet.
const AT_REST: Duration = Duration::from_millis(2);

/// The state of a thread that waits for an event (proc_pid_stat(5)).
const SLEEPS: char = 'S';

/// A server that is asked.
pub struct OwnCount {
    stream: TcpStream,
    processes: Vec<Pid>,
    /// Answers so far: each is a request that the server counts too.
    asked: u64,
}

/// What a server has done by now.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Requests, without those of [`OwnCount`].
    pub requests: u64,
    /// CPU time of all its processes, in nanoseconds.
    pub cpu_ns: u64,
}

impl OwnCount {
    /// Connects.
    pub fn of(server: &Server) -> Result<OwnCount, Stop> {
        let stream = TcpStream::connect(server.address).and_then(|stream| {
            stream.set_read_timeout(Some(TIMEOUT))?;
            Ok(stream)
        });
        let stream = stream.map_err(|error| Stop::Wrong(format!("/stats: {error}")))?;
        let mut own = OwnCount { stream, processes: server.processes(), asked: 0 };
        own.read()?;
        Ok(own)
    }

    /// The CPU clocks of the server.
    pub fn clocks(&self) -> Result<Clocks, Stop> {
        let processes: Vec<i32> = self.processes.iter().map(|pid| pid.as_raw()).collect();
        Ok(Clocks::of(&processes)?)
    }

    /// What the server has done. Nothing else is to be asked of it meanwhile.
    pub fn read(&mut self) -> Result<Work, Stop> {
        let body = self.ask().map_err(|error| Stop::Wrong(format!("/stats: {error}")))?;
        let stats: serde_json::Value = serde_json::from_slice(&body)
            .map_err(|error| Stop::Wrong(format!("/stats is no JSON: {error}")))?;
        let requests = stats["requests"].as_u64();
        let requests = requests.ok_or_else(|| Stop::Wrong("/stats has no requests".into()))?;
        // A server counts a request once it has been answered: this one is not in its answer.
        let own = self.asked;
        self.asked += 1;
        Ok(Work { requests: requests - own, cpu_ns: cpu_ns(&self.processes)? })
    }

    /// Waits until the server has answered everything, and says when that was. No client may ask it
    /// meanwhile. All its threads then sleep, and have used no CPU since. The clock alone does not
    /// say it: that of a thread that runs is late by a tick, and a thread that waits for a core
    /// uses none.
    pub fn wait_for_rest(&self) -> Result<Instant, Stop> {
        let begun = Instant::now();
        let (mut used, mut since) = (None, begun);
        while begun.elapsed() < TIMEOUT {
            let now = cpu_ns(&self.processes)?;
            if !self.sleeps()? {
                used = None;
            } else if used != Some(now) {
                (used, since) = (Some(now), Instant::now());
            } else if since.elapsed() >= AT_REST {
                return Ok(since);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Err(Stop::Wrong(format!(
            "the server works on {} s after the last request",
            TIMEOUT.as_secs()
        )))
    }

    /// Whether no thread runs or waits for a core.
    fn sleeps(&self) -> Result<bool, Stop> {
        let state = |pid: &Pid| -> Result<bool, ProcError> {
            let mut tasks = Process::new(pid.as_raw())?.tasks()?;
            tasks.try_fold(true, |all, task| Ok(all && task?.stat()?.state == SLEEPS))
        };
        let states = self.processes.iter().map(state).collect::<Result<Vec<_>, _>>();
        let states = states.map_err(|why| Stop::Wrong(format!("the server's threads: {why}")))?;
        Ok(states.into_iter().all(|sleeps| sleeps))
    }

    fn ask(&mut self) -> std::io::Result<Vec<u8>> {
        self.stream.write_all(b"GET /stats HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        loop {
            if let Some(body) = body(&answer) {
                return Ok(body.to_vec());
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => answer.extend_from_slice(&bytes[..read]),
            }
        }
    }
}

/// The body of an answer, once it is whole.
fn body(answer: &[u8]) -> Option<&[u8]> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    answer[end..].get(..length.trim().parse().ok()?)
}

/// CPU time of a process, or of several, so far.
pub fn cpu_ns(processes: &[Pid]) -> Result<u64, Stop> {
    let read = |&pid: &Pid| clock_getcpuclockid(pid).and_then(clock_gettime).map(Duration::from);
    let sum: Duration = processes
        .iter()
        .map(read)
        .sum::<Result<_, _>>()
        .map_err(|errno| Stop::Wrong(format!("a CPU clock: {errno}")))?;
    Ok(sum.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::body;

    #[test]
    fn a_body_is_read_when_it_is_whole() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: x\r\n\r\n{}";
        assert_eq!(body(whole), Some(&b"{}"[..]));
        assert_eq!(body(&whole[..whole.len() - 1]), None);
        assert_eq!(body(&whole[..30]), None);
    }
}
