//! Follows the server's threads and processes with ptrace(2). man: ptrace(2), waitpid(2),
//! proc_pid_status(5).
//!
//! **Whether a thread slept in a call.** The kernel counts how often a thread has given up its core
//! to wait (`voluntary_ctxt_switches`). A stop of the tracer is such a switch too: so the count is
//! read at the stop at entry and at the stop at return, and exactly one switch between them belongs
//! to the second stop. Events in the call (a thread or process was started, exec) stop the thread
//! once more each, and are subtracted too; a signal stops it after the return only. What is left
//! are the times when the thread slept. A request of ptrace waits until the thread has left its
//! core, so the count is not read too early. That a thread was preempted is another counter. A
//! short sleep on a lock in the kernel counts as sleep too, because it is one.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use record::SeenBy;

use crate::server::{self, PIPE_TIMEOUT, START_TIMEOUT, STOP_TIMEOUT};
use crate::sys::{self, ChildSetup, SyscallStop};

use super::describe::{Description, describe, waits_for_descriptors};
use super::given::given;
use super::kernel::Kernel;
use super::now_ns;
use super::objects::{Object, Objects};
use super::ring::{Rings, Submission};

/// The largest errno. The values above it that a tracer sees ask the kernel to restart the call
/// after a signal (ERESTARTSYS, 512, and others); the thread itself sees EINTR.
const ERRNO_MAX: i64 = 511;

/// One system call that was seen from entry to return.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) process: Pid,
    pub(super) thread: Pid,
    pub(super) name: &'static str,
    pub(super) arguments: String,
    pub(super) descriptor: Option<i32>,
    /// What the descriptor is. Of accept(2), the peer is that of the new connection.
    pub(super) object: Object,
    pub(super) given: Option<u64>,
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    /// `None`: the thread ended in the call.
    pub(super) result: Option<i64>,
    pub(super) slept: Option<bool>,
    pub(super) seen_by: SeenBy,
}

/// What the tracer and the clients both know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The process of each thread.
    threads: Mutex<BTreeMap<Pid, Pid>>,
    fruitless: AtomicU64,
}

impl Shared {
    /// How many calls of the server have found nothing (EAGAIN) until now.
    pub(super) fn fruitless(&self) -> u64 {
        self.fruitless.load(Ordering::Relaxed)
    }

    /// Whether all threads of the server sleep: state S in proc_pid_stat(5). A thread that was
    /// stopped by the tracer has another state.
    pub(super) fn sleeps(&self) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        !threads.is_empty() && threads.keys().all(|&thread| state(thread).is_none_or(|s| s == 'S'))
    }

    /// The processes of the server.
    pub(super) fn processes(&self) -> Vec<Pid> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut processes: Vec<Pid> = threads.values().copied().collect();
        processes.sort_unstable();
        processes.dedup();
        processes
    }

    fn kill_all(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for process in threads.values() {
            // Fails if it has ended.
            let _ = kill(*process, Signal::SIGKILL);
        }
    }
}

/// `None`: it has ended.
fn state(thread: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next().filter(|&state| state != 'Z')
}

/// The value of a line of proc_pid_status(5).
fn status(thread: Pid, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

/// A server that is traced.
pub(super) struct Traced {
    pub(super) address: SocketAddr,
    pub(super) shared: Arc<Shared>,
    pid: Pid,
    stderr: Receiver<String>,
    outcome: Receiver<Result<Vec<Seen>, String>>,
    ended: bool,
}

impl Traced {
    /// Starts the server and waits for its first line.
    pub(super) fn start(executable: &Path, flags: &[String]) -> Result<Traced, String> {
        let mut command = Command::new(executable);
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C ends iolab. The kernel then kills the server (PTRACE_O_EXITKILL).
        command.process_group(0);
        sys::set_up_child(&mut command, ChildSetup { cores: None, cgroup: None, traced: true });
        let shared = Arc::new(Shared::default());
        let (tell, outcome) = channel();
        let (started, start) = channel();
        let tracer = Tracer::new(Arc::clone(&shared));
        // One thread starts, traces and reaps: a tracer is a thread, not a process.
        let traces = move || tell.send(tracer.trace(command, &started));
        let thread = std::thread::Builder::new().name("tracer".into()).spawn(traces);
        thread.map_err(|e| format!("cannot start: no thread: {e}"))?;
        let Ok(mut child) = start.recv() else {
            let why = outcome.recv().ok().and_then(Result::err);
            return Err(why.unwrap_or_else(|| "cannot start: the tracer ended".to_owned()));
        };
        let stdout = server::lines_of(child.stdout.take().ok_or("its stdout is not a pipe")?);
        let stderr = server::text_of(child.stderr.take().ok_or("its stderr is not a pipe")?);
        let pid = Pid::from_raw(child.id() as i32);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut traced = Traced { address, shared, pid, stderr, outcome, ended: false };
        traced.address = traced.listening(&stdout)?;
        Ok(traced)
    }

    fn listening(&mut self, stdout: &Receiver<String>) -> Result<SocketAddr, String> {
        match stdout.recv_timeout(START_TIMEOUT) {
            Ok(line) => server::address_in(&line),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("no `listening` line within {} s", START_TIMEOUT.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.end()?;
                Err(format!("ended at once: {}", server::tail(&self.said())))
            }
        }
    }

    /// Stops the server: its system calls, and what it wrote to stderr.
    pub(super) fn stop(&mut self) -> Result<(Vec<Seen>, String), String> {
        // Fails if it has ended already.
        let _ = kill(self.pid, Signal::SIGTERM);
        Ok((self.end()?, self.said()))
    }

    fn said(&self) -> String {
        self.stderr.recv_timeout(PIPE_TIMEOUT).unwrap_or_default()
    }

    /// Waits for the end of all its processes, then kills.
    fn end(&mut self) -> Result<Vec<Seen>, String> {
        self.ended = true;
        let ended = self.outcome.recv_timeout(STOP_TIMEOUT).or_else(|_| {
            self.shared.kill_all();
            self.outcome.recv()
        });
        ended.unwrap_or_else(|_| Err("the tracer ended".to_owned()))
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.kill_all();
            // The sender sends once, after the last process has ended.
            let _ = self.outcome.recv();
        }
    }
}

/// A call that has not returned.
struct Entered {
    what: Description,
    arguments: [u64; 6],
    object: Object,
    given: Option<u64>,
    from_ns: u64,
    /// Voluntary switches of the thread, at the stop at entry.
    switches: Option<u64>,
    /// Further stops of the tracer in the call.
    events: u64,
}

#[derive(Default)]
struct Thread {
    process: Option<Pid>,
    /// It has had its first stop, a SIGSTOP that no one has sent.
    started: bool,
    call: Option<Entered>,
}

/// An operation of a ring that goes on.
struct Operation {
    process: Pid,
    thread: Pid,
    asked: Submission,
    object: Object,
    from_ns: u64,
}

pub(super) struct Tracer {
    shared: Arc<Shared>,
    threads: HashMap<Pid, Thread>,
    objects: Objects,
    rings: Rings,
    kernel: Kernel,
    /// Operations of rings that go on.
    operations: Vec<Operation>,
    seen: Vec<Seen>,
    fault: Option<String>,
}

impl Tracer {
    pub(super) fn new(shared: Arc<Shared>) -> Tracer {
        Tracer {
            shared,
            threads: HashMap::new(),
            objects: Objects::default(),
            rings: Rings::default(),
            kernel: Kernel::default(),
            operations: Vec::new(),
            seen: Vec::new(),
            fault: None,
        }
    }

    /// Starts the server, tells the caller, and follows it until its last process has ended.
    fn trace(mut self, mut command: Command, started: &Sender<Child>) -> Result<Vec<Seen>, String> {
        let child = command.spawn().map_err(|error| refused(&error))?;
        let root = Pid::from_raw(child.id() as i32);
        // The stop after exec.
        sys::wait_traced().map_err(|error| refused(&error))?;
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(root, options).map_err(|error| refused(&error.into()))?;
        self.add(root).started = true;
        self.resume(root, 0);
        // The receiver waits for this.
        let _ = started.send(child);
        while let Ok((thread, status)) = sys::wait_traced() {
            self.status(thread, status);
        }
        let at_ns = now_ns();
        for operation in std::mem::take(&mut self.operations) {
            self.seen.push(operation.seen(None, at_ns));
        }
        self.fault.map_or(Ok(self.seen), Err)
    }

    /// Follows one thread of a server that runs, until it has returned from so many calls that wait
    /// for descriptors. Then it runs on as before.
    pub(super) fn follow(mut self, thread: Pid, waits: usize) -> Result<Vec<Seen>, String> {
        let seized = ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD);
        seized.map_err(|error| refused(&error.into()))?;
        self.add(thread).started = true;
        // It sleeps. To stop it ends the call with EINTR, as any signal does.
        ptrace::interrupt(thread).map_err(|error| refused(&error.into()))?;
        let mut count = 0;
        while count < waits {
            let (_, status) = sys::wait_traced().map_err(|error| refused(&error))?;
            if !libc::WIFSTOPPED(status) {
                return Err("the server has ended while it was traced".to_owned());
            }
            let signal = self.stopped(thread, status);
            let is_wait = |seen: &&Seen| waits_for_descriptors(seen.name);
            count = self.seen.iter().filter(is_wait).count();
            match count < waits {
                true => self.resume(thread, signal),
                // ESRCH: it was killed.
                false => drop(ptrace::detach(thread, None)),
            }
        }
        self.fault.map_or(Ok(self.seen), Err)
    }

    /// Adds a thread that is new.
    fn add(&mut self, thread: Pid) -> &mut Thread {
        let entry = self.threads.entry(thread).or_default();
        if entry.process.is_none() {
            let process = status(thread, "Tgid").map_or(thread, |pid| Pid::from_raw(pid as i32));
            entry.process = Some(process);
            let mut threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
            threads.insert(thread, process);
        }
        entry
    }

    fn status(&mut self, thread: Pid, status: libc::c_int) {
        if !libc::WIFSTOPPED(status) {
            self.ended(thread);
            return;
        }
        let signal = self.stopped(thread, status);
        self.resume(thread, signal);
    }

    /// Notes why a thread has stopped. The signal with which it goes on; 0 for none.
    fn stopped(&mut self, thread: Pid, status: libc::c_int) -> libc::c_int {
        match (libc::WSTOPSIG(status), status >> 16) {
            (signal, 0) if signal == libc::SIGTRAP | 0x80 => {
                self.call(thread);
                0
            }
            (signal, 0) => self.signal(thread, signal),
            (_, event) => {
                self.event(thread, event);
                0
            }
        }
    }

    fn resume(&self, thread: Pid, signal: libc::c_int) {
        // ESRCH: it was killed, and its end is reported.
        let _ = sys::resume_traced(thread, signal);
    }

    /// The signal to pass on. The first stop of a new thread is no signal, and neither is the stop
    /// of a whole process, which has no information about a signal (ptrace(2), "Group-stop").
    fn signal(&mut self, thread: Pid, signal: libc::c_int) -> libc::c_int {
        let known = self.add(thread);
        let is_first = signal == libc::SIGSTOP && !known.started;
        known.started = true;
        let is_group_stop = signal == libc::SIGSTOP && ptrace::getsiginfo(thread).is_err();
        if is_first || is_group_stop { 0 } else { signal }
    }

    fn event(&mut self, thread: Pid, event: libc::c_int) {
        if let Some(call) = self.add(thread).call.as_mut() {
            call.events += 1;
        }
        match event {
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                if let Ok(new) = ptrace::getevent(thread) {
                    self.add(Pid::from_raw(new as i32));
                }
            }
            _ => {}
        }
    }

    fn call(&mut self, thread: Pid) {
        let at_ns = now_ns();
        match sys::syscall_stop(thread) {
            Ok(SyscallStop::Entry(number, arguments)) => self.entry(thread, number, &arguments),
            Ok(SyscallStop::Exit(result)) => self.exit(thread, at_ns, result),
            Ok(SyscallStop::Other) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => {
                let why = format!("PTRACE_GET_SYSCALL_INFO (Linux 5.3) failed: {error}");
                self.fault.get_or_insert(why);
                self.shared.kill_all();
            }
        }
    }

    fn entry(&mut self, thread: Pid, number: u64, arguments: &[u64; 6]) {
        let what = describe(number, arguments);
        let process = self.add(thread).process.unwrap_or(thread);
        let object = what.descriptor.map(|fd| self.objects.of(process, fd)).unwrap_or_default();
        let given = given(process, what.name, arguments);
        if what.name == "io_uring_enter" {
            self.submissions(process, thread);
        }
        let switches = status(thread, "voluntary_ctxt_switches");
        let (arguments, from_ns) = (*arguments, now_ns());
        let call = Entered { what, arguments, object, given, from_ns, switches, events: 0 };
        self.add(thread).call = Some(call);
    }

    fn exit(&mut self, thread: Pid, to_ns: u64, result: i64) {
        let known = self.add(thread);
        let process = known.process.unwrap_or(thread);
        // After exec there is a return without entry.
        let Some(call) = known.call.take() else { return };
        let after = status(thread, "voluntary_ctxt_switches");
        // One for the stop that this is.
        let sleeps = |before: u64, after: u64| after.saturating_sub(before + 1 + call.events);
        let slept = call.switches.zip(after).map(|(before, after)| sleeps(before, after) > 0);
        if result == -i64::from(libc::EAGAIN) {
            self.shared.fruitless.fetch_add(1, Ordering::Relaxed);
        }
        let result = if -result > ERRNO_MAX { -i64::from(libc::EINTR) } else { result };
        let mut object = call.object.clone();
        match (call.what.name, call.what.descriptor) {
            ("accept" | "accept4", _) if result >= 0 => {
                self.objects.forget(process, result as i32);
                object.peer = self.objects.of(process, result as i32).peer;
            }
            ("close", Some(fd)) => {
                self.objects.forget(process, fd);
                self.rings.closed(process, fd);
            }
            ("io_uring_setup", _) if result >= 0 => {
                self.rings.set_up(process, result as i32, call.arguments[1]);
                self.kernel.watch(thread);
            }
            ("mmap", _) if result > 0 => {
                let [.., fd, offset] = call.arguments;
                self.rings.mapped(process, fd as i32, offset, result as u64);
            }
            ("io_uring_enter", _) => self.completions(process, to_ns),
            _ => {}
        }
        let call = Entered { object, ..call };
        self.seen.push(call.seen((process, thread), to_ns, Some(result), slept));
    }

    /// Notes what the thread asks its rings for.
    fn submissions(&mut self, process: Pid, thread: Pid) {
        for asked in self.rings.submissions(process) {
            let object = match asked.descriptor {
                ..0 => Object::default(),
                fd => self.objects.of(process, fd),
            };
            let from_ns = now_ns();
            self.operations.push(Operation { process, thread, asked, object, from_ns });
        }
    }

    /// Notes what the kernel has reported to the rings of this process.
    fn completions(&mut self, process: Pid, at_ns: u64) {
        for done in self.rings.completions(process) {
            let asked = |o: &Operation| o.process == process && o.asked.user_data == done.user_data;
            // A message from another ring was not asked for here.
            let Some(place) = self.operations.iter().position(asked) else { continue };
            let result = i64::from(done.result);
            let name = self.operations[place].asked.name;
            let mut seen = self.operations[place].seen(Some(result), at_ns);
            if let Some(at_ns) = self.kernel.when(done.user_data, done.result) {
                (seen.to_ns, seen.seen_by) = (at_ns, SeenBy::Tracepoint);
            }
            match name {
                "ACCEPT" if result >= 0 => {
                    self.objects.forget(process, done.result);
                    seen.object.peer = self.objects.of(process, done.result).peer;
                }
                "CLOSE" => self.objects.forget(process, self.operations[place].asked.descriptor),
                _ => {}
            }
            self.seen.push(seen);
            match done.more {
                true => self.operations[place].from_ns = at_ns,
                false => drop(self.operations.remove(place)),
            }
        }
    }

    fn ended(&mut self, thread: Pid) {
        let call = self.threads.remove(&thread).and_then(|thread| thread.call.zip(thread.process));
        if let Some((call, process)) = call {
            self.seen.push(call.seen((process, thread), now_ns(), None, None));
        }
        let mut threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.remove(&thread);
    }
}

impl Entered {
    /// As it is recorded.
    fn seen(
        self,
        (process, thread): (Pid, Pid),
        to_ns: u64,
        result: Option<i64>,
        slept: Option<bool>,
    ) -> Seen {
        let Entered { what, object, given, from_ns, .. } = self;
        let Description { name, descriptor, arguments } = what;
        let seen_by = SeenBy::Ptrace;
        Seen {
            process,
            thread,
            name,
            arguments,
            descriptor,
            object,
            given,
            from_ns,
            to_ns,
            result,
            slept,
            seen_by,
        }
    }
}

impl Operation {
    /// As it is recorded. Whether a thread slept does not apply.
    fn seen(&self, result: Option<i64>, to_ns: u64) -> Seen {
        Seen {
            process: self.process,
            thread: self.thread,
            name: self.asked.name,
            arguments: String::new(),
            descriptor: Some(self.asked.descriptor).filter(|&fd| fd >= 0),
            object: self.object.clone(),
            given: None,
            from_ns: self.from_ns,
            to_ns,
            result,
            slept: None,
            seen_by: SeenBy::Ring,
        }
    }
}

/// How the sentence begins that says why this machine allows no tracing.
pub const REFUSED: &str = "ptrace(2) is refused";

/// Why the server cannot be traced.
pub(super) fn refused(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => format!(
            "{REFUSED} ({error}): set kernel.yama.ptrace_scope to 0 or 1; in a \
             container, allow ptrace in its seccomp profile (docker: --cap-add SYS_PTRACE); and \
             do not run iolab under strace or a debugger"
        ),
        _ => format!("cannot start: {error}"),
    }
}
