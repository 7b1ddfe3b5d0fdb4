//! Workers of our own for what the kernel does with waiting threads: no model here has several
//! threads that wait for one listener in each of these ways.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::gettid;
use socket2::{Domain, Socket, Type};

use crate::Reason;

/// How workers share the connections of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One listener; each worker blocks in accept(2).
    Accept,
    /// One listener; each worker has an epoll instance that watches it with EPOLLEXCLUSIVE.
    Exclusive,
    /// A listener for each worker (SO_REUSEPORT, socket(7)).
    ReusePort,
}

/// Longest time for a worker to answer: for a machine that is loaded.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than any burst of a law.
const BACKLOG: i32 = 1_024;
/// The first byte of a connection that tells a worker to end.
const END: u8 = 0;

/// Threads that accept connections, one at a time each. A connection says in its first bytes how
/// long it takes (microseconds, big-endian), and gets a byte when that time is over.
struct Workers {
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
    /// Thread ids.
    ids: Vec<i32>,
    /// The worker of each connection, in the order of their acceptance.
    accepted: Receiver<usize>,
    ending: Arc<AtomicBool>,
}

impl Workers {
    fn start(sharing: Sharing, number: usize) -> Result<Workers, Reason> {
        let first = listener(None, sharing == Sharing::ReusePort)?;
        let address = first.local_addr()?;
        let ending = Arc::new(AtomicBool::new(false));
        let ((tell, accepted), (announce, announced)) = (channel(), channel());
        let mut threads = Vec::new();
        for worker in 0..number {
            let listener = match sharing {
                Sharing::ReusePort if worker > 0 => listener(Some(address), true)?,
                _ => first.try_clone()?,
            };
            let wait = Waiter::new(sharing, listener)?;
            let (tell, announce, ending) = (tell.clone(), announce.clone(), Arc::clone(&ending));
            threads.push(std::thread::Builder::new().name("worker".into()).spawn(move || {
                let _ = announce.send(gettid().as_raw());
                work(worker, &wait, &tell, &ending);
            })?);
        }
        let ids = threads.iter().map_while(|_| announced.recv().ok()).collect();
        Ok(Workers { address, threads, ids, accepted, ending })
    }

    /// Waits until every worker sleeps (proc(5), /proc/PID/task/TID/stat, the state).
    fn all_sleep(&self) -> Result<(), Reason> {
        let sleeps = |id: &i32| {
            let stat = fs::read_to_string(format!("/proc/self/task/{id}/stat"));
            // The name is in brackets and may hold anything.
            stat.is_ok_and(|stat| {
                stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S"))
            })
        };
        let begun = Instant::now();
        while !self.ids.iter().all(sleeps) {
            if begun.elapsed() > PATIENCE {
                return Err(Reason::Fault("a worker does not wait".to_owned()));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    fn next_accepted(&self) -> Result<usize, Reason> {
        self.accepted.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => Reason::Fault("no worker has accepted".to_owned()),
            RecvTimeoutError::Disconnected => Reason::Fault("the workers have ended".to_owned()),
        })
    }
}

impl Drop for Workers {
    /// Each connection ends one accept(2). With SO_REUSEPORT the kernel may give several to one
    /// worker, so they are made until all have ended.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            let _ = TcpStream::connect(self.address);
            std::thread::sleep(Duration::from_millis(1));
        }
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn listener(address: Option<SocketAddr>, shared: bool) -> Result<TcpListener, Reason> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None)?;
    socket.set_reuse_port(shared)?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&address.unwrap_or(any).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// How a worker waits for its next connection.
struct Waiter {
    listener: TcpListener,
    epoll: Option<Epoll>,
}

impl Waiter {
    fn new(sharing: Sharing, listener: TcpListener) -> Result<Waiter, Reason> {
        let errno = |errno: nix::Error| Reason::Fault(format!("epoll: {errno}"));
        let epoll = match sharing {
            Sharing::Exclusive => {
                listener.set_nonblocking(true)?;
                let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(errno)?;
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
                epoll.add(&listener, EpollEvent::new(flags, 0)).map_err(errno)?;
                Some(epoll)
            }
            Sharing::Accept | Sharing::ReusePort => None,
        };
        Ok(Waiter { listener, epoll })
    }

    /// The next connection; `None` if another worker took it, or after an error.
    fn next(&self) -> Option<TcpStream> {
        if let Some(epoll) = &self.epoll {
            epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE).ok()?;
        }
        match self.listener.accept() {
            Ok((stream, _)) => stream.set_nonblocking(false).ok().map(|()| stream),
            Err(_) => None,
        }
    }
}

fn work(worker: usize, wait: &Waiter, tell: &Sender<usize>, ending: &AtomicBool) {
    while !ending.load(Ordering::SeqCst) {
        let Some(mut stream) = wait.next() else { continue };
        let mut asked = [0; 4];
        // A connection that ends the worker says nothing.
        if stream.read_exact(&mut asked).is_err() {
            continue;
        }
        // The receiver is gone if the law has failed.
        let _ = tell.send(worker);
        std::thread::sleep(Duration::from_micros(u64::from(u32::from_be_bytes(asked))));
        let _ = stream.write_all(&[END]);
    }
}

fn ask(stream: &mut TcpStream, work: Duration) -> Result<(), Reason> {
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream.write_all(&(work.as_micros() as u32).to_be_bytes())?)
}

fn answer(mut stream: TcpStream) -> Result<(), Reason> {
    stream.read_exact(&mut [0]).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => Reason::Fault("a worker has not answered".to_owned()),
        _ => Reason::from(error),
    })
}

/// Which worker accepts each of so many connections, each of which comes when all workers sleep.
pub fn accept_order(
    sharing: Sharing,
    workers: usize,
    connections: usize,
) -> Result<Vec<usize>, Reason> {
    let workers = Workers::start(sharing, workers)?;
    let mut order = Vec::new();
    for _ in 0..connections {
        workers.all_sleep()?;
        let mut stream = TcpStream::connect(workers.address)?;
        ask(&mut stream, Duration::ZERO)?;
        order.push(workers.next_accepted()?);
        answer(stream)?;
    }
    Ok(order)
}

/// What became of requests.
pub struct Served {
    /// The worker of each, in the order of their acceptance.
    pub workers: Vec<usize>,
    /// What each took beyond its work.
    pub waits: Vec<Duration>,
}

/// Requests that take so long each, and come with this gap, whatever the workers do.
pub fn serve(
    sharing: Sharing,
    workers: usize,
    work: &[Duration],
    gap: Duration,
) -> Result<Served, Reason> {
    let workers = Workers::start(sharing, workers)?;
    workers.all_sleep()?;
    let begun = Instant::now();
    let clients: Vec<_> = work
        .iter()
        .enumerate()
        .map(|(at, &work)| {
            let (due, address) = (begun + gap * at as u32, workers.address);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            std::thread::spawn(move || {
                let begun = Instant::now();
                let mut stream = TcpStream::connect(address)?;
                ask(&mut stream, work)?;
                answer(stream)?;
                Ok::<_, Reason>(begun.elapsed().saturating_sub(work))
            })
        })
        .collect();
    let ended = |_| Reason::Fault("a client has ended".to_owned());
    let waits = clients.into_iter().map(|client| client.join().map_err(ended)?);
    let waits = waits.collect::<Result<Vec<_>, _>>()?;
    let accepted = work.iter().map(|_| workers.next_accepted()).collect::<Result<_, _>>()?;
    Ok(Served { workers: accepted, waits })
}
