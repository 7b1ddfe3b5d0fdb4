//! The wait primitives without a server: nanoseconds of one wait over 1 to 10,000 descriptors, one
//! of them ready, and all of them.
//!
//! Each descriptor is an eventfd(2), the cheapest thing that can become ready: no TCP, no copying.
//! No wait ever sleeps, so what is measured is the question "who is ready?" and not a wake-up.
//!
//! How to subtract:
//! - `poll`, `select` and `epoll-level` are asked again and again while the descriptors stay ready:
//!   the figure is the call alone. `select` has its set copied first, because the call destroys it.
//! - `epoll-edge` and `io_uring` (multishot poll) tell each change once, so every iteration first
//!   writes to the ready descriptors. Subtract `write` of the same row, which is those writes with
//!   nobody watching; what is left is the wait *and* the kernel's call-back at the write, which is
//!   where these two do their work.
//! - `all` divided by the number of descriptors is the price of one event; `one` against `one` of
//!   another row of the same size is the price of those that had nothing to say.
//! - A server pays a wait once for all requests that it announces: divide by the batch.
//!
//! Looking through the result for the ready ones is not included: a loop over an array for poll and
//! select, nothing for epoll and io_uring, which return only those.
//!
//! `cargo bench -p iolab-benches --bench wait`. Man pages: poll(2), select(2), epoll_wait(2),
//! io_uring_enter(2), eventfd(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use io_uring::{IoUring, cqueue, opcode, types};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::select::{FdSet, select};
use nix::sys::time::TimeVal;

/// Numbers of descriptors that are watched.
const SIZES: [usize; 5] = [1, 10, 100, 1_000, 10_000];

/// Descriptors of the process that are not watched: standard streams, epoll, the ring, criterion's.
const DESCRIPTORS_RESERVED: usize = 64;

/// How many of the watched descriptors are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    One,
    All,
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Descriptors to watch, of which the first `ready` are written to.
struct Watched {
    events: Vec<EventFd>,
    ready: usize,
}

impl Watched {
    fn new(size: usize, ready: Ready) -> io::Result<Watched> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = |_| Ok(EventFd::from_value_and_flags(0, flags)?);
        let events = (0..size).map(event).collect::<io::Result<_>>()?;
        Ok(Watched { events, ready: if ready == Ready::All { size } else { 1 } })
    }

    /// Makes them ready; once more makes them ready anew, which is a new edge.
    fn write(&self) -> io::Result<()> {
        for event in &self.events[..self.ready] {
            event.write(1)?;
        }
        Ok(())
    }
}

fn wait(c: &mut Criterion) {
    let descriptors = raise_descriptor_limit();
    for ready in [Ready::One, Ready::All] {
        let mut group = c.benchmark_group(format!("wait/{ready:?}").to_lowercase());
        for size in SIZES {
            if size + DESCRIPTORS_RESERVED > descriptors {
                println!("SKIP {size} descriptors: RLIMIT_NOFILE is {descriptors} (ulimit -n)");
                continue;
            }
            for (name, bench) in PRIMITIVES {
                let result = Watched::new(size, ready)
                    .and_then(|watched| bench(&mut group, BenchmarkId::new(*name, size), &watched));
                if let Err(error) = result {
                    println!("SKIP {name} of {size} descriptors: {error}");
                }
            }
        }
        group.finish();
    }
}

type Bench = fn(&mut Group, BenchmarkId, &Watched) -> io::Result<()>;

const PRIMITIVES: &[(&str, Bench)] = &[
    ("write", bench_write),
    ("poll", bench_poll),
    ("select", bench_select),
    ("epoll-level", bench_epoll_level),
    ("epoll-edge", bench_epoll_edge),
    ("io_uring", bench_io_uring),
];

/// What edge-triggered waits need before each wait, with nobody watching.
fn bench_write(group: &mut Group, id: BenchmarkId, watched: &Watched) -> io::Result<()> {
    watched.write()?;
    group.bench_function(id, |b| b.iter(|| watched.write()));
    Ok(())
}

fn bench_poll(group: &mut Group, id: BenchmarkId, watched: &Watched) -> io::Result<()> {
    watched.write()?;
    let interest = |event| PollFd::new(AsFd::as_fd(event), PollFlags::POLLIN);
    let mut fds: Vec<PollFd> = watched.events.iter().map(interest).collect();
    group.bench_function(id, |b| {
        b.iter(|| {
            let ready = poll(&mut fds, PollTimeout::ZERO);
            assert_eq!(ready, Ok(watched.ready as i32));
        });
    });
    Ok(())
}

fn bench_select(group: &mut Group, id: BenchmarkId, watched: &Watched) -> io::Result<()> {
    watched.write()?;
    let mut set = FdSet::new();
    for event in &watched.events {
        if event.as_fd().as_raw_fd() as usize >= libc::FD_SETSIZE {
            let limit = libc::FD_SETSIZE;
            return Err(io::Error::other(format!("select takes descriptors below {limit} only")));
        }
        set.insert(event.as_fd());
    }
    let past_highest = set.highest().map_or(0, |fd| fd.as_raw_fd() + 1);
    group.bench_function(id, |b| {
        b.iter(|| {
            let mut result = set;
            let ready = select(past_highest, &mut result, None, None, &mut TimeVal::new(0, 0));
            assert_eq!(ready, Ok(watched.ready as i32));
        });
    });
    Ok(())
}

fn epoll(watched: &Watched, trigger: EpollFlags) -> io::Result<(Epoll, Vec<EpollEvent>)> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (index, event) in watched.events.iter().enumerate() {
        epoll.add(event, EpollEvent::new(EpollFlags::EPOLLIN | trigger, index as u64))?;
    }
    Ok((epoll, vec![EpollEvent::empty(); watched.events.len()]))
}

fn bench_epoll_level(group: &mut Group, id: BenchmarkId, watched: &Watched) -> io::Result<()> {
    let (epoll, mut events) = epoll(watched, EpollFlags::empty())?;
    watched.write()?;
    group.bench_function(id, |b| {
        b.iter(|| {
            let ready = epoll.wait(&mut events, EpollTimeout::ZERO);
            assert_eq!(ready, Ok(watched.ready));
        });
    });
    Ok(())
}

fn bench_epoll_edge(group: &mut Group, id: BenchmarkId, watched: &Watched) -> io::Result<()> {
    let (epoll, mut events) = epoll(watched, EpollFlags::EPOLLET)?;
    group.bench_function(id, |b| {
        b.iter(|| {
            assert!(watched.write().is_ok());
            let ready = epoll.wait(&mut events, EpollTimeout::ZERO);
            assert_eq!(ready, Ok(watched.ready));
        });
    });
    Ok(())
}

fn bench_io_uring(group: &mut Group, id: BenchmarkId, watched: &Watched) -> io::Result<()> {
    const SQ_ENTRIES: u32 = 1024;
    // Room for a completion of every descriptor, twice: an overflow would end the multishot.
    let cq_entries = (2 * watched.events.len() as u32).max(SQ_ENTRIES).next_power_of_two();
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(cq_entries)
        .build(SQ_ENTRIES)?;
    for (index, event) in watched.events.iter().enumerate() {
        let fd = types::Fd(event.as_fd().as_raw_fd());
        let armed = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        if ring.submission().is_full() {
            ring.submit()?;
        }
        // SAFETY: this operation refers to no memory, and `watched` owns the descriptor for longer
        // than the ring lives.
        unsafe { ring.submission().push(&armed.user_data(index as u64)) }
            .map_err(io::Error::other)?;
    }
    ring.submit()?;
    group.bench_function(id, |b| {
        b.iter(|| {
            assert!(watched.write().is_ok());
            let entered = ring.submit_and_wait(watched.ready);
            let ready =
                ring.completion().filter(|entry: &cqueue::Entry| entry.result() > 0).count();
            assert!(entered.is_ok() && ready == watched.ready, "{ready} of {}", watched.ready);
        });
    });
    Ok(())
}

/// Raises the soft limit of open descriptors to the hard one, and returns it.
fn raise_descriptor_limit() -> usize {
    let limits = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        getrlimit(Resource::RLIMIT_NOFILE)
    });
    // Not known, so what every system gives.
    limits.map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

/// Short, because there are many, and what they show spans four orders of magnitude.
fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
}

criterion_group! { name = benches; config = short(); targets = wait }
criterion_main!(benches);
