//! What all connections together may hold: the soft bound holds back, the hard bound ends the
//! largest, and what has ended holds nothing.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conn::{
    Address, CONNECTION_BYTES, Clock, Common, Conn, Counters, Doorbell, Host, Limits, Memory,
    Outcome, Protocol, Service,
};

const KIB: usize = 1 << 10;

/// Opens a WebSocket.
const UPGRADE: &[u8] = b"GET /ws/echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

struct Silent;

impl Host for Silent {
    fn burn(&self, _duration: Duration) {}

    fn stats_json(&self) -> String {
        String::new()
    }
}

/// Notes who was rung for, and who is to end.
#[derive(Default)]
struct Notes {
    rung: Mutex<Vec<u64>>,
    ended: Mutex<Vec<u64>>,
}

impl Doorbell for Notes {
    fn ring(&self, token: u64) {
        self.rung.lock().expect("notes").push(token);
    }

    fn interrupt(&self, token: u64) {
        self.ended.lock().expect("notes").push(token);
    }
}

struct Room {
    service: Arc<Service>,
    memory: Arc<Memory>,
    notes: Arc<Notes>,
    now: Instant,
}

impl Room {
    fn new(protocol: Protocol, max: usize) -> Room {
        let now = Instant::now();
        let clock = Clock { started: now, started_unix: Duration::from_secs(1_000_000_000) };
        let memory = Arc::new(Memory::new(max));
        let shared = Arc::clone(&memory);
        let common = Common { memory: shared, ..Common::new(Arc::new(Silent), clock) };
        let counters = Arc::new(Counters::default());
        let service = Arc::new(Service::new(protocol, Limits::default(), counters, common));
        Room { service, memory, notes: Arc::default(), now }
    }

    fn conn(&self, token: u64) -> Conn {
        let bell = Arc::clone(&self.notes) as Arc<dyn Doorbell>;
        Conn::new(&self.service, Address::new(bell, token), self.now)
    }

    /// A WebSocket in the middle of a message, of which `bytes` have come.
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
        std::mem::take(&mut *self.notes.ended.lock().expect("notes"))
    }
}

#[test]
fn beyond_the_hard_bound_the_largest_goes() {
    let room = Room::new(Protocol::Http, 1 << 20);
    let mut small = room.unfinished(1, 100 * KIB);
    let mut large = room.unfinished(2, 500 * KIB);
    let mut other = room.unfinished(3, 100 * KIB);
    assert_eq!(room.told(), [], "all of it has room");
    let growing = room.unfinished(4, 400 * KIB);
    assert_eq!(room.told(), [2], "the largest, and no other");
    for conn in [&mut small, &mut large, &mut other] {
        conn.woken(room.now);
    }
    assert!(large.wants().is_none() && small.wants().is_some() && other.wants().is_some());
    assert_eq!(large.outcome(), Outcome::Exhausted);
    assert!(room.memory.held() < 1 << 20, "{:?} before it is dropped", room.memory);
    drop((small, large, other, growing));
    assert_eq!(room.memory.held(), 0);
}

/// None of those that were told has run yet: then the one that grows has to go itself.
#[test]
fn the_hard_bound_does_not_wait_for_those_that_were_told() {
    let room = Room::new(Protocol::Http, 1 << 20);
    let conns: Vec<Conn> = (0..40).map(|token| room.unfinished(token, 512 * KIB)).collect();
    // One step of one connection: a message's buffer that doubles.
    assert!(room.memory.held() <= (1 << 20) + 512 * KIB, "{:?}", room.memory);
    let ended = conns.iter().filter(|conn| conn.wants().is_none()).count();
    assert!(ended >= 37, "{ended} have ended");
    drop(conns);
    assert_eq!(room.memory.held(), 0);
}

#[test]
fn beyond_the_soft_bound_holders_and_newcomers_wait() {
    let room = Room::new(Protocol::Http, 1 << 20);
    let mut held_back = room.unfinished(1, 200 * KIB);
    assert!(held_back.wants().is_some_and(|wants| wants.read) && room.memory.admits(room.now));
    let large = room.unfinished(2, 510 * KIB);
    let last = room.unfinished(3, 40 * KIB);
    assert!(!room.memory.admits(room.now), "{:?}", room.memory);
    assert!(held_back.wants().is_some_and(|wants| !wants.read), "a holder is not read");
    let mut plain = room.conn(4);
    plain.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", room.now);
    assert!(plain.wants().is_some_and(|wants| wants.read && wants.write), "others are served");
    drop(large);
    assert!(room.memory.admits(room.now));
    assert_eq!(*room.notes.rung.lock().expect("notes"), [1], "who waits is rung for");
    held_back.woken(room.now);
    assert!(held_back.wants().is_some_and(|wants| wants.read));
    drop((held_back, last, plain));
    assert_eq!(room.memory.held(), 0);
}

/// Where nothing gives memory back, those that wait are let in at the cost of the largest.
#[test]
fn the_soft_bound_is_not_passed_for_long() {
    let room = Room::new(Protocol::Http, 1 << 20);
    let small = room.unfinished(1, 250 * KIB);
    let mut large = room.unfinished(2, 500 * KIB);
    assert!(!room.memory.admits(room.now));
    assert!(!room.memory.admits(room.now + Duration::from_millis(900)));
    assert_eq!(room.told(), []);
    assert!(!room.memory.admits(room.now + Duration::from_millis(1100)));
    assert_eq!(room.told(), [2]);
    large.woken(room.now);
    assert!(large.wants().is_none());
    assert!(room.memory.admits(room.now + Duration::from_millis(1200)));
    drop((small, large));
}

/// The allocator's keeper is told when much is held, and hears once when it is not any more.
#[test]
fn much_memory_is_told_and_its_end_too() {
    let room = Room::new(Protocol::Http, 1 << 30);
    let told = Arc::new(AtomicUsize::new(0));
    let watch = Arc::clone(&told);
    room.memory.on_growth(move || {
        watch.fetch_add(1, Relaxed);
    });
    for turn in 1..=2 {
        let little: Vec<Conn> = (0..40).map(|token| room.unfinished(token, 300 * KIB)).collect();
        assert!(!room.memory.has_grown() && !room.memory.has_shrunk());
        let much: Vec<Conn> = (40..90).map(|token| room.unfinished(token, 900 * KIB)).collect();
        assert_eq!(told.load(Relaxed), turn, "{:?}", room.memory);
        assert!(room.memory.has_grown() && !room.memory.has_shrunk());
        drop(much);
        assert!(room.memory.has_shrunk() && !room.memory.has_shrunk());
        assert!(!room.memory.has_grown(), "the rest is not much");
        drop(little);
    }
}

/// Whatever connections have said and however they end, the account is empty in the end.
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
        let room = Room::new(protocol, 2 << 20);
        let mut conns: Vec<Conn> = Vec::new();
        for round in 0..2_000 {
            if conns.len() < 30 {
                let mut conn = room.conn(round);
                conn.receive(openings[next(openings.len())], room.now);
                conns.push(conn);
            }
            let chosen = next(conns.len());
            let conn = &mut conns[chosen];
            match next(6) {
                0 => conn.woken(room.now),
                1 => conn.receive_eof(room.now),
                2 => {
                    let n = conn.chunks().next().map_or(0, |bytes| bytes.len());
                    conn.sent(n, room.now);
                }
                3 => drop(conns.swap_remove(chosen)),
                _ if conn.wants().is_some_and(|wants| wants.read) => {
                    conn.receive(&vec![next(256) as u8; next(40 * KIB)], room.now);
                }
                _ => conn.timeout(room.now + Duration::from_secs(5)),
            }
            conns.retain(|conn| conn.wants().is_some());
            assert!(room.memory.held() >= conns.len() * CONNECTION_BYTES);
            assert!(room.memory.held() < 3 << 20, "{:?}", room.memory);
        }
        drop(conns);
        assert_eq!(room.memory.held(), 0, "{protocol:?}");
    }
}
