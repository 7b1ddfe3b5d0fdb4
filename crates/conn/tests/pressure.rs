//! The memory account: above the soft limit connections wait, above the hard limit the largest end,
//! and an ended connection holds no memory.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conn::{
    Address, CONNECTION_BYTES, Clock, Common, Conn, Counters, Limits, Memory, MemoryChange,
    Outcome, Protocol, Service, Wake,
};

const KIB: usize = 1 << 10;

const UPGRADE: &[u8] = b"GET /ws/echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

#[derive(Default)]
struct Wakeups {
    woken: Mutex<Vec<u64>>,
    ended: Mutex<Vec<u64>>,
}

impl Wake for Wakeups {
    fn wake(&self, token: u64) {
        self.woken.lock().expect("wakeups").push(token);
    }

    fn interrupt(&self, token: u64) {
        self.ended.lock().expect("wakeups").push(token);
    }
}

struct Server {
    service: Arc<Service>,
    memory: Arc<Memory>,
    wakeups: Arc<Wakeups>,
    now: Instant,
}

impl Server {
    fn new(protocol: Protocol, max: usize) -> Server {
        let now = Instant::now();
        let clock = Clock { started: now, started_unix: Duration::from_secs(1_000_000_000) };
        let memory = Arc::new(Memory::new(max));
        let shared = Arc::clone(&memory);
        let common = Common { memory: shared, ..Common::new(Arc::new(()), clock) };
        let counters: &Counters = Box::leak(Box::default());
        let service = Arc::new(Service::new(protocol, Limits::default(), counters, common));
        Server { service, memory, wakeups: Arc::default(), now }
    }

    fn conn(&self, token: u64) -> Conn {
        let bell = Arc::clone(&self.wakeups) as Arc<dyn Wake>;
        Conn::new(&self.service, Address::new(bell, token), self.now)
    }

    fn unfinished(&self, token: u64, bytes: usize) -> Conn {
        let mut conn = self.conn(token);
        conn.receive(UPGRADE, self.now);
        let head = [&[0x82, 0xff][..], &(1_u64 << 20).to_be_bytes(), &[0; 4]].concat();
        conn.receive(&head, self.now);
        for _ in 0..bytes / KIB {
            conn.receive(&[7; KIB], self.now);
        }
        conn
    }

    fn told(&self) -> Vec<u64> {
        std::mem::take(&mut *self.wakeups.ended.lock().expect("wakeups"))
    }
}

#[test]
fn beyond_the_hard_bound_the_largest_goes() {
    let server = Server::new(Protocol::Http, 1 << 20);
    let mut small = server.unfinished(1, 100 * KIB);
    let mut large = server.unfinished(2, 500 * KIB);
    let mut other = server.unfinished(3, 100 * KIB);
    assert_eq!(server.told(), [], "all of it has server");
    let growing = server.unfinished(4, 400 * KIB);
    assert_eq!(server.told(), [2], "the largest, and no other");
    for conn in [&mut small, &mut large, &mut other] {
        conn.resume(server.now);
    }
    assert!(large.wants().is_none() && small.wants().is_some() && other.wants().is_some());
    assert_eq!(large.outcome(), Outcome::Exhausted);
    assert!(server.memory.held() < 1 << 20, "{:?} before it is dropped", server.memory);
    drop((small, large, other, growing));
    assert_eq!(server.memory.held(), 0);
}

/// Memory that an asynchronous send reads stays in the account until the driver drops the
/// connection.
#[test]
fn what_is_lent_is_charged_until_the_driver_has_it_back() {
    let server = Server::new(Protocol::Echo, 1 << 20);
    let mut lending = server.conn(1);
    lending.receive(&[7; 100 * KIB], server.now);
    let lent: usize = lending.chunks().map(|bytes| bytes.len()).sum();
    assert_eq!(lent, 100 * KIB);
    let mut conns: Vec<Conn> = (2..12).map(|token| server.conn(token)).collect();
    for (less, conn) in conns.iter_mut().enumerate() {
        conn.receive(&vec![7; 100 * KIB - less], server.now);
        lending.resume(server.now);
    }
    assert!(lending.wants().is_none() && server.told().contains(&1));
    let before = server.memory.held();
    drop(lending);
    assert!(before - server.memory.held() >= lent, "{before} before, {:?}", server.memory);
}

/// None of the connections that must end has run yet: then the one that grows must end itself.
#[test]
fn the_hard_bound_does_not_wait_for_those_that_were_told() {
    let server = Server::new(Protocol::Http, 1 << 20);
    let conns: Vec<Conn> = (0..40).map(|token| server.unfinished(token, 512 * KIB)).collect();
    // One step of one connection: the buffer of a message doubles.
    assert!(server.memory.held() <= (1 << 20) + 512 * KIB, "{:?}", server.memory);
    let ended = conns.iter().filter(|conn| conn.wants().is_none()).count();
    assert!(ended >= 37, "{ended} have ended");
    drop(conns);
    assert_eq!(server.memory.held(), 0);
}

#[test]
fn beyond_the_soft_bound_holders_and_newcomers_wait() {
    let server = Server::new(Protocol::Http, 1 << 20);
    let mut held_back = server.unfinished(1, 200 * KIB);
    assert!(held_back.wants().is_some_and(|wants| wants.read) && server.memory.admits(server.now));
    let large = server.unfinished(2, 510 * KIB);
    let last = server.unfinished(3, 40 * KIB);
    assert!(!server.memory.admits(server.now), "{:?}", server.memory);
    assert!(held_back.wants().is_some_and(|wants| !wants.read), "a holder is not read");
    let mut plain = server.conn(4);
    plain.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", server.now);
    assert!(plain.wants().is_some_and(|wants| wants.read && wants.write), "others are served");
    drop(large);
    assert!(server.memory.admits(server.now));
    assert_eq!(*server.wakeups.woken.lock().expect("wakeups"), [1], "who waits is woken for");
    held_back.resume(server.now);
    assert!(held_back.wants().is_some_and(|wants| wants.read));
    drop((held_back, last, plain));
    assert_eq!(server.memory.held(), 0);
}

/// If no memory is freed, the largest connections are ended to accept those that wait.
#[test]
fn the_soft_bound_is_not_passed_for_long() {
    let server = Server::new(Protocol::Http, 1 << 20);
    let admits = |at_ms| server.memory.admits(server.now + Duration::from_millis(at_ms));
    let small = server.unfinished(1, 250 * KIB);
    let mut large = server.unfinished(2, 500 * KIB);
    assert!(!admits(0) && !admits(490));
    assert_eq!(server.told(), []);
    assert!(!admits(510));
    assert_eq!(server.told(), [2]);
    large.resume(server.now);
    assert!(large.wants().is_none());
    assert!(admits(520));
    drop((small, large));
}

/// New connections fill the account again: the next delay is shorter, so that those which wait are
/// accepted. After a pause the delay is the long one.
#[test]
fn the_soft_bound_that_is_passed_again_and_again_is_passed_shortly() {
    let server = Server::new(Protocol::Http, 1 << 20);
    let admits = |at_ms| server.memory.admits(server.now + Duration::from_millis(at_ms));
    let fill =
        |token| [server.unfinished(token, 250 * KIB), server.unfinished(token + 1, 500 * KIB)];
    let give_way = |conns: [Conn; 2]| {
        let ended = conns.map(|mut conn| {
            conn.resume(server.now);
            conn.wants().is_none()
        });
        assert_eq!(server.memory.held(), 0);
        ended
    };
    let first = fill(1);
    assert!(!admits(0) && !admits(510));
    assert_eq!(server.told(), [2], "three quarters of the bound may stay");
    assert_eq!(give_way(first), [false, true]);
    for (token, at_ms) in [(3, 520), (5, 700), (7, 1100)] {
        let next = fill(token);
        assert!(!admits(at_ms) && !admits(at_ms + 40));
        assert_eq!(server.told(), []);
        assert!(!admits(at_ms + 60));
        assert_eq!(server.told(), [token + 1], "the largest is enough");
        assert_eq!(give_way(next), [false, true]);
    }
    let last = fill(9);
    assert!(!admits(2000) && !admits(2490));
    assert_eq!(server.told(), []);
    assert!(!admits(2510));
    assert_eq!(server.told(), [10]);
    give_way(last);
}

/// The largest number of connections, each below `CANDIDATE_BYTES`, does not keep new ones out.
/// Above it, each can be told to end.
#[test]
fn a_crowd_that_holds_little_each_cannot_keep_others_out() {
    const MAX: usize = 1 << 20;
    let server = Server::new(Protocol::Http, MAX);
    let crowd = |bytes: usize| -> Vec<Conn> {
        // The servers accept at most so many, if no other limit is lower.
        let begin = |token| {
            let mut conn = server.conn(token);
            conn.receive(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", server.now);
            conn.receive(&vec![b'y'; bytes], server.now);
            conn
        };
        (0..(MAX / 2 / CONNECTION_BYTES) as u64).map(begin).collect()
    };
    let small = crowd(3 * KIB);
    assert!(server.memory.admits(server.now), "{:?}", server.memory);
    drop(small);
    let large = crowd(12 * KIB);
    assert!(!server.memory.admits(server.now));
    assert!(!server.memory.admits(server.now + Duration::from_secs(1)));
    assert!(server.told().len() > 10);
    drop(large);
    assert_eq!(server.memory.held(), 0);
}

/// The allocator keeps freed memory, so a large decrease is notified; small ones are not.
#[test]
fn a_fall_is_told_once() {
    const MIB: usize = 1 << 20;
    let memory = Memory::new(1 << 30);
    let changes = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&changes);
    memory.on_change(move |change| noted.lock().expect("wakeups").push(change));
    let told = || std::mem::take(&mut *changes.lock().expect("wakeups"));
    memory.add(100 * MIB);
    memory.sub(70 * MIB);
    assert_eq!(told(), [], "not by three quarters");
    for step in 0..5 {
        memory.sub(MIB);
        memory.add(MIB);
        memory.sub(MIB);
        assert_eq!(told(), [], "step {step}");
    }
    memory.sub(MIB);
    assert_eq!(told(), [MemoryChange::MuchFreed]);
    memory.sub(16 * MIB);
    assert_eq!(told(), [], "less than three quarters of what was left");
    memory.sub(4 * MIB);
    assert_eq!(told(), [MemoryChange::MuchFreed]);
    memory.sub(4 * MIB);
    memory.add(7 * MIB);
    memory.sub(7 * MIB);
    assert_eq!(told(), [], "too little");
}

/// Whatever connections report and however they end, the account is empty at the end.
#[test]
fn what_has_ended_holds_nothing() {
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let openings: [&[u8]; 4] = [
        b"GET /bytes/1000000000 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        UPGRADE,
    ];
    for protocol in [Protocol::Http, Protocol::Echo] {
        let server = Server::new(protocol, 2 << 20);
        let mut conns: Vec<Conn> = Vec::new();
        for round in 0..2_000 {
            if conns.len() < 30 {
                let mut conn = server.conn(round);
                conn.receive(openings[next(openings.len())], server.now);
                conns.push(conn);
            }
            let chosen = next(conns.len());
            let conn = &mut conns[chosen];
            match next(6) {
                0 => conn.resume(server.now),
                1 => conn.receive_eof(server.now),
                2 => {
                    let n = conn.chunks().next().map_or(0, |bytes| bytes.len());
                    conn.sent(n, server.now);
                }
                3 => drop(conns.swap_remove(chosen)),
                _ if conn.wants().is_some_and(|wants| wants.read) => {
                    conn.receive(&vec![next(256) as u8; next(40 * KIB)], server.now);
                }
                _ => conn.timeout(server.now + Duration::from_secs(5)),
            }
            conns.retain(|conn| conn.wants().is_some());
            assert!(server.memory.held() >= conns.len() * CONNECTION_BYTES);
            assert!(server.memory.held() < 3 << 20, "{:?}", server.memory);
        }
        drop(conns);
        assert_eq!(server.memory.held(), 0, "{protocol:?}");
    }
}
