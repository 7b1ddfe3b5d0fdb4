//! The calls in which a running server waits for its connections: how many descriptors each gives
//! to the kernel, and how many come back. man: proc_pid_syscall(5), proc_pid_fdinfo(5), ptrace(2).

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;
use record::Call;

use super::describe::{describe, waits_for_descriptors};
use super::tracer::{Tracer, refused};
use super::{now_ns, recorded};

/// Looks for a thread that waits, and the time between two of them: ten seconds for a server that
/// has just served its last request, on a machine that does something else.
const LOOKS: u32 = 2_000;
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Traces the thread of this process that waits for its connections, until it has returned from so
/// many waits; then it runs on untraced. Meanwhile `ask` is called again and again: it lets a
/// client send a request. `run` names the run. Only the waits are returned.
///
/// # Errors
/// One sentence: ptrace(2) is refused, no thread waits, or a client failed.
pub fn waits(
    process: Pid,
    count: usize,
    run: &str,
    mut ask: impl FnMut() -> Result<(), String>,
) -> Result<Vec<Call>, String> {
    let thread = waiting_thread(process)?;
    let begin_ns = now_ns();
    let (tell, outcome) = channel();
    // One thread attaches, traces and detaches: a tracer is a thread, not a process.
    let follows = move || tell.send(Tracer::new(Arc::default()).follow(thread, count));
    let tracer = std::thread::Builder::new().name("tracer".into()).spawn(follows);
    tracer.map_err(|e| format!("cannot trace: no thread: {e}"))?;
    let seen = loop {
        match outcome.try_recv() {
            Ok(seen) => break seen?,
            Err(TryRecvError::Empty) => ask()?,
            Err(TryRecvError::Disconnected) => return Err("the tracer ended".to_owned()),
        }
    };
    let waits = seen.into_iter().filter(|seen| waits_for_descriptors(seen.name));
    Ok(waits.map(|seen| recorded(seen, None, begin_ns, run)).collect())
}

/// The thread that sleeps in a call that waits for descriptors.
fn waiting_thread(process: Pid) -> Result<Pid, String> {
    for _ in 0..LOOKS {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
        let tasks = tasks.map_err(|e| format!("the server has ended: {e}"))?;
        for task in tasks.flatten() {
            // `232 0x5 0x7f... ` while it sleeps, else `running`.
            let call = match std::fs::read_to_string(task.path().join("syscall")) {
                // EACCES and EPERM: what may not be read may not be traced.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Err(refused(&Errno::EPERM.into()));
                }
                call => call.unwrap_or_default(),
            };
            let number = call.split(' ').next().and_then(|number| number.parse().ok());
            let name = number.map(|number: u64| describe(number, &[0; 6]).name);
            let thread = task.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(true), Some(thread)) = (name.map(waits_for_descriptors), thread) {
                return Ok(Pid::from_raw(thread));
            }
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    Err("no thread of the server sleeps in select, poll or epoll_wait".to_owned())
}

/// How many descriptors are on the interest list of this epoll instance of the process; `None` if
/// the descriptor is none.
pub fn watched_by(process: Pid, epoll: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/fdinfo/{epoll}")).ok()?;
    // `tfd:        9 events:       19 data: ...`
    let watched = text.lines().filter(|line| line.starts_with("tfd:")).count();
    (watched > 0).then_some(watched as u64)
}
