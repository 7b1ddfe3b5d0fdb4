//! What all connections together may hold: the soft bound holds back, the hard bound ends the
//! largest, and what has ended holds nothing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conn::{
    Address, CONNECTION_BYTES, Clock, Common, Conn, Counters, Limits, Memory, MemoryChange,
    Outcome, Program, Protocol, Service, Wake,
};

const KIB: usize = 1 << 10;

/// Opens a WebSocket.
const UPGRADE: &[u8] = b"GET /ws/echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

struct Silent;

impl Program for Silent {
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

impl Wake for Notes {
    fn wake(&self, token: u64) {
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
        let bell = Arc::clone(&self.notes) as Arc<dyn Wake>;
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
        conn.resume(room.now);
    }
    assert!(large.wants().is_none() && small.wants().is_some() && other.wants().is_some());
    assert_eq!(large.outcome(), Outcome::Exhausted);
    assert!(room.memory.held() < 1 << 20, "{:?} before it is dropped", room.memory);
    drop((small, large, other, growing));
    assert_eq!(room.memory.held(), 0);
}

/// What an asynchronous send still reads from is there until the driver drops the connection.
#[test]
fn what_is_lent_is_charged_until_the_driver_has_it_back() {
    let room = Room::new(Protocol::Echo, 1 << 20);
    let mut lending = room.conn(1);
    lending.receive(&[7; 100 * KIB], room.now);
    let lent: usize = lending.chunks().map(|bytes| bytes.len()).sum();
    assert_eq!(lent, 100 * KIB);
    let mut conns: Vec<Conn> = (2..12).map(|token| room.conn(token)).collect();
    for (less, conn) in conns.iter_mut().enumerate() {
        conn.receive(&vec![7; 100 * KIB - less], room.now);
        lending.resume(room.now);
    }
    assert!(lending.wants().is_none() && room.told().contains(&1));
    let before = room.memory.held();
    drop(lending);
    assert!(before - room.memory.held() >= lent, "{before} before, {:?}", room.memory);
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
    held_back.resume(room.now);
    assert!(held_back.wants().is_some_and(|wants| wants.read));
    drop((held_back, last, plain));
    assert_eq!(room.memory.held(), 0);
}

/// Where nothing gives memory back, those that wait are let in at the cost of the largest.
#[test]
fn the_soft_bound_is_not_passed_for_long() {
    let room = Room::new(Protocol::Http, 1 << 20);
    let admits = |at_ms| room.memory.admits(room.now + Duration::from_millis(at_ms));
    let small = room.unfinished(1, 250 * KIB);
    let mut large = room.unfinished(2, 500 * KIB);
    assert!(!admits(0) && !admits(490));
    assert_eq!(room.told(), []);
    assert!(!admits(510));
    assert_eq!(room.told(), [2]);
    large.resume(room.now);
    assert!(large.wants().is_none());
    assert!(admits(520));
    drop((small, large));
}

/// Those that come instead of them fill it again: they do not have so much time, or whoever waits
/// behind all of them is never let in. After a pause everything is as before.
#[test]
fn the_soft_bound_that_is_passed_again_and_again_is_passed_shortly() {
    let room = Room::new(Protocol::Http, 1 << 20);
    let admits = |at_ms| room.memory.admits(room.now + Duration::from_millis(at_ms));
    let fill = |token| [room.unfinished(token, 250 * KIB), room.unfinished(token + 1, 500 * KIB)];
    let give_way = |conns: [Conn; 2]| {
        let ended = conns.map(|mut conn| {
            conn.resume(room.now);
            conn.wants().is_none()
        });
        assert_eq!(room.memory.held(), 0);
        ended
    };
    let first = fill(1);
    assert!(!admits(0) && !admits(510));
    assert_eq!(room.told(), [2], "three quarters of the bound may stay");
    assert_eq!(give_way(first), [false, true]);
    for (token, at_ms) in [(3, 520), (5, 700), (7, 1100)] {
        let next = fill(token);
        assert!(!admits(at_ms) && !admits(at_ms + 40));
        assert_eq!(room.told(), []);
        assert!(!admits(at_ms + 60));
        assert_eq!(room.told(), [token + 1], "the largest is enough");
        assert_eq!(give_way(next), [false, true]);
    }
    let last = fill(9);
    assert!(!admits(2000) && !admits(2490));
    assert_eq!(room.told(), []);
    assert!(!admits(2510));
    assert_eq!(room.told(), [10]);
    give_way(last);
}

/// As many connections as there may be, each with less than what makes a holder, do not keep
/// newcomers out; with more than that each of them can be told to go.
#[test]
fn a_crowd_that_holds_little_each_cannot_keep_others_out() {
    const MAX: usize = 1 << 20;
    let room = Room::new(Protocol::Http, MAX);
    let crowd = |bytes: usize| -> Vec<Conn> {
        // What the executables take as the most connections, without another bound.
        let begin = |token| {
            let mut conn = room.conn(token);
            conn.receive(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", room.now);
            conn.receive(&vec![b'y'; bytes], room.now);
            conn
        };
        (0..(MAX / 2 / CONNECTION_BYTES) as u64).map(begin).collect()
    };
    let small = crowd(3 * KIB);
    assert!(room.memory.admits(room.now), "{:?}", room.memory);
    drop(small);
    let large = crowd(12 * KIB);
    assert!(!room.memory.admits(room.now));
    assert!(!room.memory.admits(room.now + Duration::from_secs(1)));
    assert!(room.told().len() > 10);
    drop(large);
    assert_eq!(room.memory.held(), 0);
}

/// The allocator keeps what was given back, so a fall is told; and what comes and goes is none.
#[test]
fn a_fall_is_told_once() {
    const MIB: usize = 1 << 20;
    let memory = Memory::new(1 << 30);
    let changes = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&changes);
    memory.on_change(move |change| noted.lock().expect("notes").push(change));
    let told = || std::mem::take(&mut *changes.lock().expect("notes"));
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
                0 => conn.resume(room.now),
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
