//! Carries out a plan: limits, probe, idle connections, engine threads, and the sum of their
//! results.

use std::sync::mpsc::{Receiver, Sender};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use nix::errno::Errno;
use record::{ClientStops, FanOut, Latency, LoadOutcome, OpenLoop, Protocol, TlsOutcome};

use crate::codec::Codec;
use crate::cpu::Clocks;
use crate::echo::Echo;
use crate::engine::{AtEnd, Engine, ExactTimers, Share, Stops, Window};
use crate::gate::Gate;
use crate::http1::Http;
use crate::http2::Http2;
use crate::idle::Idle;
use crate::open_loop::{self, Counts};
use crate::session::{Order, Slice};
use crate::socket::Sockets;
use crate::tally::Tally;
use crate::tls::Agreed;
use crate::websocket::WebSocket;
use crate::{Error, Length, Live, Observer, Pace, Plan, Stage, probe};

/// Descriptors other than connections: standard streams, epoll, those of the caller.
const DESCRIPTORS_SPARE: u64 = 64;

/// A note for runs whose waits are in milliseconds.
const COARSE_WAITS: &str = "epoll_pwait2(2) is not available (it needs Linux 5.11, and a \
     system-call filter that permits it): the client waits with epoll_wait(2), in milliseconds, \
     and spins longer";

/// Carries out a plan: probes the server, opens all connections, warms up, measures.
///
/// The engine runs on the calling thread and on `threads - 1` others. An outcome may have errors: a
/// server that sends wrong replies or ends during the run is a result.
///
/// # Errors
/// If no window could be measured: see [`Error`].
pub fn run(plan: &Plan, observer: &mut dyn Observer) -> Result<LoadOutcome, Error> {
    run_live(plan, observer, &Live::default())
}

/// The same. Other threads can watch the run through `live`, and end it early.
///
/// # Errors
/// As [`run`], and [`Error::Interrupted`] if it was stopped before its window began.
pub fn run_live(
    plan: &Plan,
    observer: &mut dyn Observer,
    live: &Live,
) -> Result<LoadOutcome, Error> {
    begin(plan, live, InWindow { observer })
}

/// Carries out a plan in slices, as ordered; see [`crate::Session`]. The first answer says that the
/// connections are open.
pub(crate) fn sliced(
    plan: &Plan,
    live: &Live,
    clocks: Clocks,
    orders: &Receiver<Order>,
    slices: &Sender<Slice>,
) -> Result<LoadOutcome, Error> {
    let plan = Plan { threads: 1, ..plan.clone() };
    begin(&plan, live, InSlices { clocks, orders, slices })
}

/// A way to use the connections of a plan.
trait Course {
    fn run<C: Codec>(
        self,
        plan: &Plan,
        sockets: &Sockets,
        live: &Live,
        codec: impl Fn() -> C + Sync,
    ) -> Result<LoadOutcome, Error>;
}

/// Probes the server, and continues with the codec of its protocol.
fn begin(plan: &Plan, live: &Live, course: impl Course) -> Result<LoadOutcome, Error> {
    plan.check()?;
    allow_descriptors(plan)?;
    live.enter(Stage::Connecting);
    let plan = &probe::reached(plan)?;
    let sockets = &Sockets::new(plan)?;
    match plan.target.protocol {
        Protocol::Echo => {
            let codec = || Echo::new(plan.payload_bytes, plan.depth());
            probe::verify(plan, sockets, &mut codec())?;
            course.run(plan, sockets, live, codec)
        }
        Protocol::WebSocket => {
            let codec = || WebSocket::new(plan);
            probe::verify(plan, sockets, &mut codec())?;
            course.run(plan, sockets, live, codec)
        }
        Protocol::Http2 => {
            let make = |expected| Http2::new(plan, expected);
            let expected = probe::expected_body(plan, sockets, make, Http2::learnt)?;
            course.run(plan, sockets, live, || Http2::new(plan, expected.clone()))
        }
        Protocol::Http1 => {
            let make = |expected| Http::new(plan, expected);
            let expected = probe::expected_body(plan, sockets, make, Http::learnt)?;
            course.run(plan, sockets, live, || Http::new(plan, expected.clone()))
        }
    }
}

/// One window, all threads at once.
struct InWindow<'o> {
    observer: &'o mut dyn Observer,
}

impl Course for InWindow<'_> {
    fn run<C: Codec>(
        self,
        plan: &Plan,
        sockets: &Sockets,
        live: &Live,
        codec: impl Fn() -> C + Sync,
    ) -> Result<LoadOutcome, Error> {
        let idle = Idle::open(plan, sockets, live, &mut codec())?;
        let gate = Gate::new(plan.threads as usize);
        let crew = Crew { plan, sockets, gate: &gate, live };
        let (crew, make) = (&crew, &codec);
        let windows = std::thread::scope(|scope| {
            let others: Vec<_> = (1..plan.threads)
                .map(|thread| scope.spawn(move || crew.work(thread, make(), None)))
                .collect();
            let first = crew.work(0, make(), Some(self.observer));
            let joined = others.into_iter().map(|thread| {
                let gone = Err(Error::Internal("a thread of this run panicked".to_owned()));
                thread.join().unwrap_or(gone)
            });
            std::iter::once(first).chain(joined).collect::<Vec<_>>()
        });
        // An error other than "another thread gave up" is the cause.
        let (windows, errors): (Vec<_>, Vec<_>) = windows.into_iter().partition(Result::is_ok);
        if let Some(Err(error)) =
            errors.into_iter().min_by_key(|error| matches!(error, Err(Error::Internal(_))))
        {
            return Err(error);
        }
        sum_up(
            plan,
            sockets,
            &idle,
            windows.into_iter().flatten().collect(),
            codec().verification(),
        )
    }
}

struct InSlices<'o> {
    clocks: Clocks,
    orders: &'o Receiver<Order>,
    slices: &'o Sender<Slice>,
}

impl Course for InSlices<'_> {
    fn run<C: Codec>(
        mut self,
        plan: &Plan,
        sockets: &Sockets,
        live: &Live,
        codec: impl Fn() -> C + Sync,
    ) -> Result<LoadOutcome, Error> {
        let idle = Idle::open(plan, sockets, live, &mut codec())?;
        let gate = Gate::new(1);
        let crew = Crew { plan, sockets, gate: &gate, live };
        let _pinned = Pinned::to(plan.core)?;
        let _timers = ExactTimers::for_pace(plan.pace)?;
        let mut engine = Engine::new(crew.share(0), codec(), None)?;
        engine.open_all()?;
        let (mut duration_ns, mut cpu_ns, mut concluded) = (0, 0, None);
        // If the caller has gone, no order comes either.
        let _ = self.slices.send(Slice::default());
        while let Ok(order) = self.orders.recv() {
            match order {
                Order::Slice(length) => {
                    let slice = engine.slice(length, &mut self.clocks)?;
                    duration_ns += slice.elapsed_ns;
                    cpu_ns += slice.client_cpu_ns;
                    let _ = self.slices.send(slice);
                }
                Order::Rest(length) => {
                    let _ = self.slices.send(engine.rest(length, &mut self.clocks)?);
                }
                Order::Forget => {
                    engine.forget_slices()?;
                    (duration_ns, cpu_ns) = (0, 0);
                }
                Order::Conclude => concluded = Some(engine.conclude_slices(duration_ns, cpu_ns)?),
            }
        }
        let window = match concluded {
            Some(window) => window,
            None => engine.conclude_slices(duration_ns, cpu_ns)?,
        };
        engine.end_slices();
        sum_up(plan, sockets, &idle, vec![window], codec().verification())
    }
}

struct Crew<'a> {
    plan: &'a Plan,
    sockets: &'a Sockets,
    gate: &'a Gate,
    live: &'a Live,
}

impl Crew<'_> {
    /// The work of one engine thread. If it fails, the others stop waiting for it.
    fn work<'o, C: Codec>(
        &'o self,
        thread: u32,
        codec: C,
        observer: Option<&'o mut dyn Observer>,
    ) -> Result<Window, Error> {
        let work = || {
            let _pinned = Pinned::to(self.plan.core.map(|core| core + thread as usize))?;
            let _timers = ExactTimers::for_pace(self.plan.pace)?;
            Engine::new(self.share(thread), codec, observer)?.run()
        };
        let result = work();
        if result.is_err() {
            self.gate.break_up();
        }
        result
    }

    /// The part of the load for one thread: equal parts, and one more for the first threads.
    fn share(&self, thread: u32) -> Share<'_> {
        let Crew { plan, sockets, gate, live } = *self;
        let part = |total: u64| {
            let (each, more) = (total / u64::from(plan.threads), total % u64::from(plan.threads));
            each + u64::from(u64::from(thread) < more)
        };
        let (each, more) = (plan.connections / plan.threads, plan.connections % plan.threads);
        let requests = match plan.length {
            Length::Requests(requests) => part(requests),
            Length::Window(_) => 0,
        };
        let connections = part(u64::from(plan.connections)) as u32;
        let first = each * thread + thread.min(more);
        Share { plan, sockets, gate, thread, first, connections, requests, live }
    }
}

fn sum_up(
    plan: &Plan,
    sockets: &Sockets,
    idle: &Idle,
    windows: Vec<Window>,
    verification: String,
) -> Result<LoadOutcome, Error> {
    let mut tally = Tally::new()?;
    let mut open = OpenSum::default();
    let (mut duration_ns, mut cpu_ns, mut mean_in_flight, mut without) = (0, 0, 0.0, 0);
    let (mut ended_early, mut errors_in_warmup, mut agreed) = (None, 0, None);
    let (mut at_end, mut stops, mut coarse_waits) = (AtEnd::default(), Stops::default(), false);
    for window in windows {
        duration_ns = duration_ns.max(window.duration_ns);
        cpu_ns += window.cpu_ns;
        mean_in_flight += window.mean_in_flight;
        without += window.without_progress;
        errors_in_warmup += window.errors_in_warmup;
        ended_early = ended_early.or(window.ended_early);
        open.add(window.open)?;
        at_end.add(&window.at_end);
        stops.merge(window.stops);
        coarse_waits |= window.coarse_waits;
        agreed = agreed.or(window.agreed);
        tally.merge(window.tally)?;
    }
    let (delayed, stopped) = open.look_at_stops(plan, &tally, &stops, duration_ns);
    let (open_loop, latency) = open.summary(plan, &tally, stopped.as_deref())?;
    let invalid = stopped.or(open_loop.as_ref().and_then(|open| open.invalid.clone()));
    let duration_s = duration_ns as f64 / 1e9;
    Ok(LoadOutcome {
        url: plan.target.url.clone(),
        address: plan.target.address.to_string(),
        protocol: plan.target.protocol,
        tls: agreed.map(|agreed| tls_outcome(agreed, &tally, plan.histogram_digits)).transpose()?,
        fan_out: fan_out(plan, &tally),
        requests: tally.requests,
        errors: tally.errors_sum(),
        errors_in_warmup,
        first_error: tally.first_error.clone(),
        ended_early,
        duration_s,
        requests_per_s: tally.requests as f64 / duration_s,
        connections: plan.connections,
        connections_without_progress: without,
        idle_connections: idle.still_open(),
        idle_connections_asked: plan.idle_connections,
        connects: tally.connects,
        closed_by_server: tally.closed_by_server,
        bytes_sent: tally.bytes_sent,
        bytes_received: tally.bytes_received,
        latency,
        open_loop,
        at_end: at_end.record(),
        client_stops: client_stops(&stops, delayed),
        invalid,
        notes: coarse_waits.then(|| COARSE_WAITS.to_owned()).into_iter().collect(),
        mean_in_flight,
        client_cpu_us: cpu_ns / 1_000,
        reconnect: plan.reconnect,
        pipelining: plan.depth(),
        streaming: plan.streaming,
        payload_bytes: plan.payload_bytes as u64,
        threads: plan.threads,
        warmup_s: plan.warmup.as_secs_f64(),
        congestion_control: sockets.congestion_control().to_owned(),
        verification,
        errors_by_kind: tally.errors,
    })
}

impl AtEnd {
    fn add(&mut self, other: &AtEnd) {
        self.in_flight += other.in_flight;
        self.oldest_ns = self.oldest_ns.max(other.oldest_ns);
        self.unanswered += other.unanswered;
        self.oldest_unanswered_ns = self.oldest_unanswered_ns.max(other.oldest_unanswered_ns);
        self.overdue += other.overdue;
    }

    fn record(&self) -> record::AtEnd {
        record::AtEnd {
            in_flight: self.in_flight,
            oldest_us: self.oldest_ns as f64 / 1e3,
            unanswered: self.unanswered,
            oldest_unanswered_us: self.oldest_unanswered_ns as f64 / 1e3,
            overdue: self.overdue,
        }
    }
}

fn fan_out(plan: &Plan, tally: &Tally) -> Option<FanOut> {
    let (members, messages) = (plan.connections, tally.messages);
    plan.fan_out.then_some(FanOut { members, messages })
}

fn client_stops(stops: &Stops, delayed: u64) -> ClientStops {
    ClientStops {
        count: stops.count,
        total_us: stops.total_ns as f64 / 1e3,
        longest_us: stops.longest_ns as f64 / 1e3,
        longest_at_s: stops.longest_at_ns as f64 / 1e9,
        requests: delayed,
        waited_for_core_us: stops.waited_ns as f64 / 1e3,
    }
}

fn tls_outcome(agreed: Agreed, tally: &Tally, digits: u8) -> Result<TlsOutcome, Error> {
    Ok(TlsOutcome {
        version: agreed.version,
        cipher_suite: agreed.cipher_suite,
        alpn: agreed.alpn,
        handshakes_full: tally.handshakes_full,
        handshakes_resumed: tally.handshakes_resumed,
        handshake: tally.handshakes.summary(digits)?,
    })
}

/// The open loops of all threads.
#[derive(Default)]
struct OpenSum {
    counts: Option<Counts>,
    /// The busiest thread's.
    busy_share: f64,
}

impl OpenSum {
    fn add(&mut self, thread: Option<(Counts, f64)>) -> Result<(), Error> {
        let Some((counts, busy_share)) = thread else { return Ok(()) };
        self.busy_share = self.busy_share.max(busy_share);
        match &mut self.counts {
            Some(sum) => sum.merge(&counts)?,
            None => self.counts = Some(counts),
        }
        Ok(())
    }

    /// The number of requests that stops of the client delayed, and why the run is invalid if they
    /// were too many.
    fn look_at_stops(
        &self,
        plan: &Plan,
        tally: &Tally,
        stops: &Stops,
        window_ns: u64,
    ) -> (u64, Option<String>) {
        let (requests, due_delayed, latency) = match &self.counts {
            Some(counts) => (counts.due, counts.delayed, &counts.latency),
            None => (tally.requests, 0, &tally.latencies),
        };
        let delayed = stops.in_flight + due_delayed;
        let (requests, open) = ((delayed, requests), plan.pace != Pace::Closed);
        let quantile_ns = |quantile| latency.quantile_ns(quantile);
        (delayed, stops.invalid(window_ns, requests, quantile_ns, open))
    }

    /// The open-loop part of the outcome, and the latency (the closed loop's if there is no open
    /// loop).
    fn summary(
        self,
        plan: &Plan,
        tally: &Tally,
        stopped: Option<&str>,
    ) -> Result<(Option<OpenLoop>, Latency), Error> {
        let digits = plan.histogram_digits;
        let (Some(counts), Pace::Open { rate_per_s, arrivals, seed }) = (self.counts, plan.pace)
        else {
            return Ok((None, tally.latencies.summary(digits)?));
        };
        let open_loop = OpenLoop {
            arrivals,
            rate_per_s,
            seed,
            due: counts.due,
            sent: counts.sent,
            unanswered: counts.unanswered,
            send_lag: counts.send_lag.summary(digits)?,
            from_send: counts.from_send.summary(digits)?,
            invalid: stopped
                .map(str::to_owned)
                .or_else(|| open_loop::invalid(&counts, self.busy_share)),
        };
        Ok((Some(open_loop), counts.latency.summary(digits)?))
    }
}

/// Raises the soft limit of descriptors if the plan needs more (getrlimit(2)).
fn allow_descriptors(plan: &Plan) -> Result<(), Error> {
    let needed = u64::from(plan.connections) + u64::from(plan.idle_connections) + DESCRIPTORS_SPARE;
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(Error::system::<Errno>("getrlimit"))?;
    if needed > hard {
        return Err(Error::Descriptors { needed, limit: hard });
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard)
            .map_err(Error::system::<Errno>("setrlimit"))?;
    }
    Ok(())
}

/// Pins the calling thread to a core until this is dropped.
struct Pinned {
    before: Option<CpuSet>,
}

impl Pinned {
    /// Pins the calling thread (sched_setaffinity(2)); `None` leaves it alone.
    fn to(core: Option<usize>) -> Result<Self, Error> {
        let Some(core) = core else { return Ok(Pinned { before: None }) };
        let this = Pid::from_raw(0);
        let before =
            sched_getaffinity(this).map_err(Error::system::<Errno>("sched_getaffinity"))?;
        let mut only = CpuSet::new();
        only.set(core).and_then(|()| sched_setaffinity(this, &only)).map_err(|errno| {
            Error::Plan(format!(
                "cannot run on core {core} ({errno}): give the number of a core that this \
                 process may use"
            ))
        })?;
        Ok(Pinned { before: Some(before) })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The core may have been taken away. The thread then stays where it is.
            let _unchanged = sched_setaffinity(Pid::from_raw(0), before);
        }
    }
}
