//! Runs a server: reads the command line, listens, starts the workers, waits for a signal, drains.

use std::io::{self, Write};
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conn::{
    CONNECTION_BYTES, Clock, Common, Counters, FileTable, Memory, MemoryChange, Program, Service,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use rustls::ServerConfig;

use crate::args::{self, Setup};
use crate::describe::Bounds;
use crate::listener::Waiting;
use crate::machine::Bound;
use crate::memory::Watch;
use crate::processes::{self, Places, Processes, Role};
use crate::stop::WAKE_INTERVAL;
use crate::usage::{Process, Usage};
use crate::{CopiedBy, Files, Listener, Model, Slots, Stop, Worker, describe, machine, sys, tls};

/// Descriptors that are not connections: standard streams, listener, epoll, eventfd, ring, a file
/// of `/proc`; and some more for what libraries open.
const DESCRIPTORS_RESERVED: usize = 64;

/// How long threads may take, after the time to drain, to see that their connections were cut.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// What can happen to a running server.
enum Event {
    Signal,
    WorkerEnded(io::Result<()>),
    /// Connections hold much more, or much less, than before.
    Memory(MemoryChange),
}

/// Forks: what a server of many processes does before it serves. It returns in each child, and in
/// the parent when all children have ended.
type Forks = fn(&mut Processes) -> io::Result<Role>;

/// Runs one model until a signal ends it: the whole of a server's `main`.
///
/// Exit code 0 after a signal, 1 when a worker failed, 2 when the server could not start.
pub fn run(model: &'static Model, serve: fn(Worker) -> io::Result<()>) -> ExitCode {
    run_with(model, None, serve)
}

/// The same for a model that serves in processes: each that `forks` makes calls `serve`.
pub fn run_processes(
    model: &'static Model,
    forks: fn(&mut Processes) -> io::Result<Role>,
    serve: fn(Worker) -> io::Result<()>,
) -> ExitCode {
    run_with(model, Some(forks), serve)
}

fn run_with(
    model: &'static Model,
    forks: Option<Forks>,
    serve: fn(Worker) -> io::Result<()>,
) -> ExitCode {
    let setup = args::parse(model);
    match start(model, &setup, forks, serve) {
        Ok(code) => code,
        Err(sentence) => {
            say(model, &sentence);
            ExitCode::from(2)
        }
    }
}

/// What a server has before it serves: no thread yet.
struct Prepared {
    model: &'static Model,
    table: Option<Arc<FileTable>>,
    files: Files,
    tls: Option<Arc<ServerConfig>>,
    /// Connections of one worker.
    conns_max: usize,
    memory_max: usize,
    threads_max: usize,
    listeners: Vec<Listener>,
    /// The first line on stdout.
    listening: String,
    started: Instant,
}

fn start(
    model: &'static Model,
    setup: &Setup,
    forks: Option<Forks>,
    serve: fn(Worker) -> io::Result<()>,
) -> Result<ExitCode, String> {
    let descriptors = raise_descriptor_limit();
    // A process that serves one connection does not run out of them.
    let descriptors = if forks.is_some() { usize::MAX } else { descriptors };
    let memory = memory_max(setup);
    let threads = machine::threads_max(memory.max);
    let conns = conns_max(setup, descriptors, 0, memory.max);
    let bounds = Bounds { conns, threads, memory };
    let (processes, _) = match forks {
        Some(_) => describe::connections_max(model, setup, bounds),
        None => (1, String::new()),
    };
    sys::limit_malloc(machine::addresses_are_limited(), memory.max / processes);
    if setup.describe {
        print_line(&describe::line(model, setup, bounds));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(reason) = (model.unavailable)() {
        return Err(reason);
    }
    let (table, files) = match &setup.root {
        Some(root) => Files::scan(root).map(|(table, files)| (Some(Arc::new(table)), files))?,
        None => (None, Files::default()),
    };
    let tls = tls::config(setup.tls.as_ref(), setup.protocol)?;
    let conns_max = conns_max_of_worker(setup, descriptors, files.len(), memory.max);
    let waiting = waiting(model, setup);
    let listeners = Listener::bind(setup.listen, setup.workers, waiting)
        .map_err(|error| cannot_listen(setup, &error))?;
    let address = listeners[0].local_addr().map_err(|error| cannot_listen(setup, &error))?;
    let prepared = Prepared {
        model,
        table,
        files,
        tls,
        conns_max,
        memory_max: memory.max,
        threads_max: threads.max,
        listeners,
        listening: format!("listening {address} model={} pid={}", model.name, std::process::id()),
        started: Instant::now(),
    };
    match forks {
        None => alone(prepared, setup, serve),
        Some(forks) => parent_and_children(prepared, setup, processes, forks, serve),
    }
}

/// A server in one process.
fn alone(
    prepared: Prepared,
    setup: &Setup,
    serve: fn(Worker) -> io::Result<()>,
) -> Result<ExitCode, String> {
    let counters = prepared.listeners.iter().map(|_| &*Box::leak(Box::default())).collect();
    let process = Arc::new(Process {
        model: prepared.model.name,
        workers: setup.workers,
        counters,
        started: prepared.started,
        memory: Arc::new(Memory::new(prepared.memory_max)),
        memory_max: prepared.memory_max,
        places: None,
    });
    let (line, counters) = (prepared.listening.clone(), process.counters.clone());
    let running = Running { process: Arc::clone(&process), counters, ends: ENDS };
    let code = serve_to_the_end(prepared, setup, running, serve, || print_line(&line))?;
    print_line(&process.stats_json());
    Ok(code)
}

/// A server in many processes: returns in the parent after its children, and in each child when it
/// has served its last client.
fn parent_and_children(
    mut prepared: Prepared,
    setup: &Setup,
    processes: usize,
    forks: Forks,
    serve: fn(Worker) -> io::Result<()>,
) -> Result<ExitCode, String> {
    let no_memory = |error| format!("no memory for {processes} processes to share: {error}");
    let places = Places::new(processes).map_err(no_memory)?;
    if let Some(tls) = &prepared.tls {
        // rustls takes no ticket that is longer than the longest that this process has made, and
        // the first that a child sees may be that of another.
        let _ = tls.ticketer.encrypt(&[0; TICKET_BYTES_MAX]);
    }
    let listener = prepared.listeners[0].clone();
    let mut children = Processes::new(places, listener, prepared.listening.clone())?;
    let role = forks(&mut children).map_err(|error| format!("cannot fork: {error}"))?;
    let place = match role {
        Role::Child(place) => place,
        Role::Parent => usize::MAX,
    };
    let memory = match role {
        Role::Child(place) => places.memory(place, prepared.memory_max),
        Role::Parent => Memory::new(prepared.memory_max),
    };
    let process = Arc::new(Process {
        model: prepared.model.name,
        workers: setup.workers,
        counters: places.counters(),
        started: prepared.started,
        memory: Arc::new(memory),
        memory_max: prepared.memory_max,
        places: Some(places),
    });
    if matches!(role, Role::Parent) {
        print_line(&process.json(Usage::of_parent(children.peak_kib)));
        let Some(failure) = children.failure else { return Ok(ExitCode::SUCCESS) };
        say(prepared.model, &failure);
        return Ok(ExitCode::FAILURE);
    }
    places.enter()?;
    prepared.conns_max = 1;
    let counters = vec![&places.all[place].counters];
    let running = Running { process, counters, ends: &[processes::STOP] };
    serve_to_the_end(prepared, setup, running, serve, || places.ready(place))
}

/// What a process that serves counts, and what ends it.
struct Running {
    process: Arc<Process>,
    /// One for each worker.
    counters: Vec<&'static Counters>,
    ends: &'static [Signal],
}

/// More than the state of a session takes in a ticket, in bytes: secret, name, protocol.
const TICKET_BYTES_MAX: usize = 1024;

/// The signals that end a server.
const ENDS: &[Signal] = &[Signal::SIGTERM, Signal::SIGINT];

/// Starts the workers, and waits until they have drained. `ready` is called when all have started.
fn serve_to_the_end(
    prepared: Prepared,
    setup: &Setup,
    running: Running,
    serve: fn(Worker) -> io::Result<()>,
    ready: impl FnOnce(),
) -> Result<ExitCode, String> {
    let drain_timeout = Duration::from_millis(setup.limits.drain_timeout_ms);
    let stop = Stop::new(drain_timeout).map_err(|error| format!("no eventfd: {error}"))?;
    let stop = Arc::new(stop);
    let threads = Slots::new(prepared.threads_max, &stop);
    // Before any thread starts: all inherit the mask, and only one thread takes signals.
    let signals =
        block_signals(running.ends).map_err(|error| format!("cannot block signals: {error}"))?;
    let (sender, events) = mpsc::channel();
    let memory = Arc::clone(&running.process.memory);
    watch_memory(&memory, sender.clone());
    let files = Arc::new(prepared.files);
    let flavours = Arc::new(setup.flavours.clone());
    let common = Common {
        files: prepared.table,
        tls: prepared.tls,
        origins_allowed: setup.origins_allowed.clone().into(),
        memory: Arc::clone(&memory),
        ..Common::new(running.process as Arc<dyn Program>, clock_since(prepared.started))
    };
    for (listener, counters) in prepared.listeners.into_iter().zip(running.counters) {
        let limits = setup.limits.clone();
        let service = Service::new(setup.protocol, limits, counters, common.clone());
        let worker = Worker {
            listener,
            service: Arc::new(service),
            files: Arc::clone(&files),
            stop: Arc::clone(&stop),
            conns_max: prepared.conns_max,
            threads: Arc::clone(&threads),
            flavours: Arc::clone(&flavours),
        };
        spawn_worker(worker, serve, sender.clone())?;
    }
    spawn_signal_thread(signals, sender)?;
    ready();
    Ok(wait_for_end(prepared.model, setup, &memory, &stop, &events))
}

/// A sentence on stderr.
fn say(model: &Model, sentence: &str) {
    // Fails if stderr is closed; there is no other place for it.
    let _ = writeln!(io::stderr(), "serve-{}: {sentence}", model.name);
}

fn memory_max(setup: &Setup) -> Bound {
    let typed = setup.memory_max.map(|max| Bound { max, reason: "--memory-max" });
    typed.unwrap_or_else(machine::memory_max)
}

fn waiting(model: &Model, setup: &Setup) -> Waiting {
    if model.nonblocking_sockets {
        return Waiting::Nonblocking;
    }
    let write_timeout = Duration::from_millis(setup.limits.write_timeout_ms);
    // A send that has blocked for this long returns, and the deadlines are looked at.
    Waiting::Blocking { send_timeout: write_timeout / 4 }
}

pub(crate) fn clock_since(started: Instant) -> Clock {
    let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Clock { started, started_unix }
}

fn spawn_worker(
    worker: Worker,
    serve: fn(Worker) -> io::Result<()>,
    ended: Sender<Event>,
) -> Result<(), String> {
    let body = move || {
        let result = serve(worker);
        // The receiver is gone only when the process is ending.
        let _ = ended.send(Event::WorkerEnded(result));
    };
    let spawned = thread::Builder::new().name("worker".to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| format!("cannot start a worker thread: {error}"))
}

fn block_signals(ends: &[Signal]) -> nix::Result<SigSet> {
    let signals = SigSet::from_iter(ends.iter().copied());
    signals.thread_block()?;
    sys::catch_wake()?;
    Ok(signals)
}

fn spawn_signal_thread(signals: SigSet, sender: Sender<Event>) -> Result<(), String> {
    let body = move || while signals.wait().is_ok() && sender.send(Event::Signal).is_ok() {};
    let spawned = thread::Builder::new().name("signals".to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| format!("cannot start the signal thread: {error}"))
}

fn watch_memory(memory: &Memory, sender: Sender<Event>) {
    // The receiver is gone only when the process is ending.
    memory.on_change(move |change| drop(sender.send(Event::Memory(change))));
}

/// Waits for the next event, and looks after the memory meanwhile.
fn next_event(
    watch: &mut Watch,
    events: &Receiver<Event>,
    wait: Duration,
) -> Result<Event, RecvTimeoutError> {
    let until = Instant::now().checked_add(wait);
    loop {
        let now = Instant::now();
        let at = watch.look(now).into_iter().chain(until).min();
        let left = at.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
        match events.recv_timeout(left) {
            Ok(Event::Memory(change)) => watch.changed(change, Instant::now()),
            Err(RecvTimeoutError::Timeout) if until.is_none_or(|at| Instant::now() < at) => {}
            other => return other,
        }
    }
}

/// Waits for a signal or a worker's failure, then for all workers to drain.
fn wait_for_end(
    model: &Model,
    setup: &Setup,
    memory: &Memory,
    stop: &Stop,
    events: &Receiver<Event>,
) -> ExitCode {
    let mut running = setup.workers;
    let mut code = ExitCode::SUCCESS;
    let mut cut_at: Option<Instant> = None;
    let mut cut_done = false;
    let mut watch = Watch::new(memory, model.place.copied_by == CopiedBy::Thread);
    while running > 0 {
        let wait = cut_at.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        let waking = stop.requested() && stop.wake();
        let wait = if waking { wait.min(WAKE_INTERVAL) } else { wait };
        match next_event(&mut watch, events, wait) {
            Ok(Event::Memory(_)) => {}
            Ok(Event::Signal) if cut_at.is_none() => {
                stop.request();
                cut_at = stop.ends_at();
            }
            // The second signal: the end of the process cuts the connections that are left.
            Ok(Event::Signal) => return code,
            Ok(Event::WorkerEnded(result)) => {
                running -= 1;
                if let Err(error) = result {
                    say(model, &format!("a worker failed: {error}"));
                    code = ExitCode::FAILURE;
                    stop.request();
                    cut_at.get_or_insert_with(Instant::now);
                }
            }
            Err(RecvTimeoutError::Timeout) if cut_at.is_some_and(|at| Instant::now() < at) => {}
            Err(RecvTimeoutError::Timeout) if !cut_done => {
                stop.cut();
                cut_done = true;
                cut_at = Some(Instant::now() + CUT_TIMEOUT);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                say(model, "a worker did not stop in time");
                return ExitCode::FAILURE;
            }
        }
    }
    code
}

/// How many connections this process may hold at once, over all workers, and what limits it.
fn conns_max(setup: &Setup, descriptors: usize, files: usize, memory_max: usize) -> Bound {
    if let Some(max) = setup.conns_max {
        return Bound { max, reason: "--conns-max" };
    }
    let by_descriptors = descriptors.saturating_sub(DESCRIPTORS_RESERVED + files).max(1);
    let descriptors = (by_descriptors, "descriptors of the process (RLIMIT_NOFILE)");
    // The other half is for the connections' buffers.
    let memory = ((memory_max / 2 / CONNECTION_BYTES).max(1), "memory (--memory-max)");
    let (max, reason) = descriptors.min(memory);
    Bound { max, reason }
}

/// How many connections one worker may hold at once.
fn conns_max_of_worker(
    setup: &Setup,
    descriptors: usize,
    files: usize,
    memory_max: usize,
) -> usize {
    conns_max(setup, descriptors, files, memory_max).max.div_ceil(setup.workers)
}

/// Raises the soft limit of open descriptors to the hard one, and returns it.
fn raise_descriptor_limit() -> usize {
    const FALLBACK: usize = 1024;
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return FALLBACK };
    // If this fails, the soft limit stays. A limit beyond RawFd cannot be used.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(FALLBACK as u64, |(soft, _)| soft);
    usize::try_from(soft.min(RawFd::MAX as u64)).unwrap_or(FALLBACK)
}

fn cannot_listen(setup: &Setup, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "choose another port with --listen ADDR:PORT (0 picks one)",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose a higher one",
        io::ErrorKind::AddrNotAvailable => "choose an address of this machine, such as 127.0.0.1",
        _ => "choose another address with --listen ADDR:PORT",
    };
    format!("cannot listen on {}: {error}; {remedy}", setup.listen)
}

/// A line on stdout, at once. An error means that the reader has closed it.
pub(crate) fn print_line(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
