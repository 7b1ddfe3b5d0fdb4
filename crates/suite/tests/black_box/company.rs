//! Who else waits meanwhile? The question that the models answer differently.

use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use suite::{Client, Server, Variant, get, pattern, until};

use crate::Outcome;

/// A client that never pauses: one thread writes, one reads.
pub struct Flood {
    over: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    /// Sends `piece` over and over, and drops what comes back, on a connection of its own.
    #[track_caller]
    pub fn begin(server: &Server, piece: &[u8]) -> Flood {
        let mut client = server.connect();
        let over = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicU64::new(0));
        let mut writer = client.second_handle();
        let pieces = piece.repeat((64 << 10) / piece.len());
        let (ended, counted) = (Arc::clone(&over), Arc::clone(&rounds));
        let writing = thread::spawn(move || {
            // An error is the server's end, which some cases bring about.
            while !ended.load(SeqCst) && writer.write_all(&pieces).is_ok() {
                counted.fetch_add(1, SeqCst);
            }
            let _ = writer.shutdown(Shutdown::Write);
        });
        let reading = thread::spawn(move || drop(client.read_until_cut()));
        let flood = Flood { over, rounds, threads: vec![writing, reading] };
        flood.goes_on();
        flood
    }

    /// Some more of it has been taken by the server: more than buffers hold, after a while.
    #[track_caller]
    pub fn goes_on(&self) {
        let enough = self.rounds.load(SeqCst) + 5;
        until("the flood goes on", || self.rounds.load(SeqCst) >= enough);
    }

    /// Ends it.
    #[track_caller]
    pub fn end(self) {
        self.over.store(true, SeqCst);
        for thread in self.threads {
            thread.join().expect("the flood");
        }
    }
}

/// A client whose second request is with the server: the reply to the first says so, because both
/// left in one segment.
#[track_caller]
pub fn in_flight(server: &Server, target: &str) -> Client {
    let mut client = server.connect();
    client.send(&[get("/"), get(target)].concat());
    assert_eq!(client.reply().status, 200);
    client
}

pub fn delay_is_not_early(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    for millis in [0, 1, 7, 120] {
        let begun = Instant::now();
        client.send(&get(&format!("/delay/{millis}")));
        let reply = client.reply();
        assert_eq!(reply.body, format!("waited for {millis} ms\n").as_bytes());
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_millis(millis), "early: {waited:?} of {millis} ms");
    }
    drop(client);
    server.stop();
}

/// A loop that reads the clock once for a batch of events must not date a request back to before it
/// came: this one is completed while another of the same batch burns CPU.
pub fn delay_is_not_early_behind_work(variant: &Variant) -> Outcome {
    if variant.model.blocks_in_io() {
        return Outcome::skipped("its connections share no batch of events");
    }
    let server = Server::start(variant, &[]);
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&get("/"));
        assert_eq!(client.reply().status, 200);
    }
    let [first, worker, delayed] = &mut clients[..] else { unreachable!("three clients") };
    let request = get("/delay/900");
    let (beginning, end) = request.split_at(10);
    // While this one is worked for, the other two become ready: one batch.
    first.send(&get("/work/100000"));
    thread::sleep(Duration::from_millis(30));
    worker.send(&get("/work/300000"));
    delayed.send(beginning);
    assert_eq!(first.reply().status, 200);
    // In the middle of the 300 ms.
    thread::sleep(Duration::from_millis(150));
    let begun = Instant::now();
    delayed.send(end);
    let is_behind_work = worker.is_silent();
    // Each of these makes the loop look at its clock again.
    while delayed.is_silent() {
        first.send(&get("/"));
        assert_eq!(first.reply().status, 200);
    }
    assert_eq!(delayed.reply().body, b"waited for 900 ms\n");
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(900), "early: {waited:?} of 900 ms");
    drop(clients);
    server.stop();
    if is_behind_work {
        Outcome::Passed
    } else {
        Outcome::skipped("the work ended before the request was sent: the machine is busy")
    }
}

/// A waiting request costs an event loop nothing and a thread its thread; the serial server has
/// only one of those, and there everybody waits.
pub fn delay_beside_others(variant: &Variant) {
    let server = Server::start(variant, &[]);
    if variant.model.one_at_a_time() {
        let mut first = in_flight(&server, "/delay/300");
        let mut second = server.connect();
        second.send(&get("/"));
        assert_eq!(first.reply().body, b"waited for 300 ms\n");
        assert!(second.is_silent(), "two at once in a model that serves one at a time");
        drop(first);
        assert_eq!(second.reply().status, 200);
        drop(second);
        server.stop();
    } else {
        let waiting: Vec<Client> = (0..20).map(|_| in_flight(&server, "/delay/60000")).collect();
        server.serves();
        assert!(waiting.iter().all(Client::is_silent), "a delay of 60 s is over");
        // Deadlines come up in their own order, not in that of the requests.
        let mut late = in_flight(&server, "/delay/200");
        let mut early = in_flight(&server, "/delay/50");
        assert_eq!(early.reply().body, b"waited for 50 ms\n");
        assert_eq!(late.reply().body, b"waited for 200 ms\n");
        // Whoever has asked is owed a reply, even after a FIN (a half-close is no farewell): so the
        // server is not stopped here but killed, with twenty replies to come.
        drop((waiting, late, early));
    }
}

/// CPU work is the other kind of waiting: a loop has one thread for all. Here only that nobody is
/// forgotten and nothing is mixed up; who waits how long is for the measuring side.
pub fn work_beside_others(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut clients: Vec<Client> = (0..6).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let work = get(&format!("/work/{}", 10_000 + number));
        client.send(&[work, get(&format!("/bytes/{number}"))].concat());
    }
    for (number, mut client) in clients.into_iter().enumerate() {
        let worked = format!("worked for {} us\n", 10_000 + number);
        assert_eq!(client.reply().body, worked.as_bytes());
        assert_eq!(client.reply().body, pattern(0, number));
    }
    server.stop();
}

/// A socket that is always ready must not keep the clock from being looked at.
pub fn timers_are_due_in_a_flood(variant: &Variant) -> Outcome {
    if variant.model.one_at_a_time() {
        return Outcome::skipped(WAITS_FOR_THE_FLOOD);
    }
    let server = Server::start(variant, &["--head-timeout", "1s"]);
    let flood = Flood::begin(&server, &get("/"));
    let mut other = server.connect();
    let begun = Instant::now();
    other.send(&get("/delay/20"));
    let mut late = server.connect();
    late.send(b"GET");
    assert_eq!(other.reply().body, b"waited for 20 ms\n");
    assert!(begun.elapsed() >= Duration::from_millis(20), "early: {:?}", begun.elapsed());
    assert_eq!(late.reply().status, 408);
    for _ in 0..5 {
        other.send(&get("/delay/5"));
        assert_eq!(other.reply().body, b"waited for 5 ms\n");
    }
    flood.goes_on();
    flood.end();
    server.stop();
    Outcome::Passed
}

/// Why a case beside a flood shows nothing of a model that serves one at a time. That the others
/// wait is for [`delay_beside_others`].
pub const WAITS_FOR_THE_FLOOD: &str =
    "it serves one at a time: other connections wait for the end of the flood";

pub fn echo_beside_a_flood(variant: &Variant) -> Outcome {
    if variant.model.one_at_a_time() {
        return Outcome::skipped(WAITS_FOR_THE_FLOOD);
    }
    let server = Server::start(variant, &["--protocol", "echo"]);
    let flood = Flood::begin(&server, &pattern(0, 64));
    let mut other = server.connect();
    other.send(b"first");
    assert_eq!(other.read_exact(5), b"first");
    for byte in pattern(0, 50) {
        other.send(&[byte]);
        assert_eq!(other.read_exact(1), [byte]);
    }
    flood.goes_on();
    flood.end();
    server.stop();
    Outcome::Passed
}

/// Clients that ask for much and read nothing.
pub fn stuck_reader_beside_others(variant: &Variant) -> Outcome {
    if variant.model.one_at_a_time() {
        let reason = "it serves one at a time: other connections wait for the stuck client's end";
        return Outcome::skipped(reason);
    }
    let server = Server::start(variant, &[]);
    let mut stuck: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for client in &mut stuck {
        client.send(&get("/bytes/1000000000"));
        assert_eq!(client.head().status, 200);
    }
    for _ in 0..20 {
        server.serves();
    }
    stuck.clear();
    until("the stuck clients are forgotten", || server.stats()["connections_open"] == 1);
    server.stop();
    Outcome::Passed
}

/// A pool of two threads or two processes: the third waits until one of the two has left, however
/// idle they are.
pub fn pool_is_bounded(variant: &Variant) -> Outcome {
    let sizes = ["threads", "processes"];
    let Some(size) = sizes.into_iter().find(|flag| variant.model.flavour(flag).is_some()) else {
        return Outcome::skipped("it has no pool of threads or processes");
    };
    let server = Server::start(variant, &[&format!("--{size}"), "2"]);
    let mut talking: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for client in &mut talking {
        client.send(&get("/"));
        assert_eq!(client.reply().status, 200);
    }
    let mut waiting: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.send(&get("/"));
    }
    for client in &mut talking {
        client.send(&get("/delay/50"));
        assert_eq!(client.reply().status, 200);
    }
    assert!(waiting.iter().all(Client::is_silent), "two have three conversations");
    drop(talking);
    for mut client in waiting {
        assert_eq!(client.reply().status, 200);
    }
    let counters = server.stop();
    assert_eq!(counters["requests"], 14, "{counters}");
    Outcome::Passed
}
