//! The chat between several connections: everybody hears the others, in order, whoever is slow is
//! put out and costs nobody anything, and bells are rung no more often than they must be.

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use conn::{Address, Limits, Outcome, Protocol, Wake};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::driver::{Driver, Habits};
use support::frames::{
    ACCEPTED, BINARY, CLOSE, CONTINUE, PING, PONG, TEXT, client, client_part, close_payload,
    take_frames, upgrade,
};
use support::world::World;

/// Random conversations: seconds in a debug build.
const SEEDS: u64 = 50;

/// Remembers who was rung for, and wakes nobody.
#[derive(Default)]
struct Recorder {
    rung: Mutex<Vec<u64>>,
}

impl Wake for Recorder {
    fn wake(&self, token: u64) {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner).push(token);
    }
}

impl Recorder {
    /// Who was rung for since the last call, in the order of tokens.
    fn take(&self) -> Vec<u64> {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        rung.sort_unstable();
        std::mem::take(&mut rung)
    }
}

/// One room, and a bell that hears all that is rung in it.
struct Room {
    world: World,
    bell: Arc<Recorder>,
}

/// Somebody in it.
struct Guest {
    driver: Driver,
    /// The beginning of a frame.
    tail: Vec<u8>,
}

impl Room {
    fn new(limits: Limits) -> Room {
        let world = World::new(Protocol::Http, limits, &[]);
        Room { world, bell: Arc::default() }
    }

    fn enter(&self, token: u64) -> Guest {
        self.enter_with(token, Habits::default())
    }

    fn enter_with(&self, token: u64, habits: Habits) -> Guest {
        let bell = Arc::clone(&self.bell) as Arc<dyn Wake>;
        let mut driver = Driver::at(&self.world, habits, Address::new(bell, token));
        driver.arrive(&upgrade(("/ws/chat", "")).expect("a path"));
        assert_eq!(driver.take_output(), ACCEPTED);
        Guest { driver, tail: Vec::new() }
    }

    fn dropped(&self) -> u64 {
        self.world.totals().chat_members_dropped
    }
}

impl Guest {
    fn says(&mut self, text: &str) {
        self.driver.arrive(&client(TEXT, text.as_bytes()));
    }

    /// What the peer got since the last call.
    fn heard(&mut self) -> Vec<(u8, Vec<u8>)> {
        self.tail.extend(self.driver.take_output());
        take_frames(&mut self.tail)
    }

    fn woken(&mut self) -> Vec<(u8, Vec<u8>)> {
        self.driver.woken();
        self.heard()
    }
}

fn text(text: &str) -> (u8, Vec<u8>) {
    (TEXT, text.as_bytes().to_vec())
}

#[test]
fn what_one_says_reaches_all_others() {
    let room = Room::new(Limits::default());
    let [mut a, mut b, mut c] = [0, 1, 2].map(|token| room.enter(token));
    let said = [
        client(TEXT, b"one"),
        client_part(BINARY, b"tw"),
        client(PING, b""),
        client(CONTINUE, b"o"),
    ];
    a.driver.arrive(&said.concat());
    assert_eq!(room.bell.take(), [1, 2]);
    assert_eq!(a.heard(), [(PONG, vec![])], "nobody hears himself");
    assert_eq!(b.heard(), [], "a connection is not touched from outside");
    for guest in [&mut b, &mut c] {
        assert_eq!(guest.woken(), [text("one"), (BINARY, b"two".to_vec())]);
        assert_eq!(guest.woken(), [], "a ring for nothing");
    }
    assert_eq!(a.woken(), []);
}

#[test]
fn a_mailbox_that_is_not_empty_is_not_rung_for() {
    let room = Room::new(Limits::default());
    let [mut a, mut b, mut c] = [0, 1, 2].map(|token| room.enter(token));
    a.says("1");
    a.says("2");
    c.says("3");
    assert_eq!(room.bell.take(), [0, 1, 2]);
    assert_eq!(b.woken(), [text("1"), text("2"), text("3")]);
    c.says("4");
    assert_eq!(room.bell.take(), [1], "a has not looked since 3");
    // Any event of its own is as good as a ring.
    a.driver.arrive(&client(PING, b""));
    assert_eq!(a.heard(), [(PONG, vec![]), text("3"), text("4")]);
}

#[test]
fn who_is_gone_is_not_rung_for_whichever_way_he_went() {
    type Go = fn(&mut Driver);
    let ways: [(&str, Go); 6] = [
        ("close", |d| d.arrive(&client(CLOSE, b""))),
        ("a fault", |d| d.arrive(&client(3, b""))),
        ("FIN", Driver::arrive_eof),
        ("reset", Driver::reset),
        ("drain", Driver::drain),
        ("silence", |d| {
            d.pass(Duration::from_secs(30));
            d.pass(Duration::from_secs(30));
        }),
    ];
    for (way, go) in ways {
        let room = Room::new(Limits::default());
        let [mut a, mut b] = [0, 1].map(|token| room.enter(token));
        go(&mut b.driver);
        if way == "reset" {
            // A model drops a connection that wants nothing more.
            drop(b);
        }
        a.says("anybody?");
        assert_eq!(room.bell.take(), [0; 0], "{way}");
    }
}

#[test]
fn who_reads_slowly_gets_everything_that_fits() {
    let limits = Limits {
        output_high_water_bytes: 1_000,
        push_high_water_bytes: 2_000,
        chat_backlog_bytes_max: 100_000,
        ..Limits::default()
    };
    let room = Room::new(limits);
    let [mut a, mut b] = [0, 1].map(|token| room.enter(token));
    b.driver.peer_reads(Some(0));
    for n in 0..900 {
        a.says(&format!("{n:0100}"));
        if n % 7 == 0 {
            b.driver.woken();
        }
    }
    assert!(b.driver.output_len() < 2_000 + 102, "{}", b.driver.output_len());
    b.driver.peer_reads(None);
    let heard = b.heard();
    assert_eq!(heard.len(), 900);
    for (n, frame) in heard.into_iter().enumerate() {
        assert_eq!(frame, text(&format!("{n:0100}")));
    }
    assert_eq!(room.dropped(), 0);
}

#[test]
fn who_does_not_read_is_put_out_and_told_with_1013() {
    let limits = Limits { chat_backlog_bytes_max: 10_000, ..Limits::default() };
    let high_water = limits.push_high_water_bytes;
    let room = Room::new(limits);
    let [mut a, mut b, mut c] = [0, 1, 2].map(|token| room.enter(token));
    b.driver.peer_reads(Some(0));
    let letter = "x".repeat(1_000);
    let mut said = 0;
    while room.dropped() == 0 {
        a.says(&letter);
        said += 1;
        b.driver.woken();
        assert_eq!(c.woken(), [text(&letter)], "the others are not kept waiting");
        assert!(said < 1_000, "b is never dropped");
    }
    // What waits outside the core, what is in its output, and what may be in the mailbox.
    assert!(said * 1_004 <= high_water + 1_004 + 10_000 + 1_004, "{said}");
    room.bell.take();
    a.says("b is out");
    assert_eq!(room.bell.take(), [2]);
    // His output is full, and his Close is the last thing in it.
    b.driver.peer_reads(None);
    let heard = b.heard();
    assert_eq!(heard.last(), Some(&(CLOSE, close_payload(1013, "too slow"))));
    assert!(heard[..heard.len() - 1].iter().all(|frame| *frame == text(&letter)));
    assert!(b.driver.fin_sent());
    b.driver.arrive(&client(CLOSE, &close_payload(1013, "")));
    b.driver.arrive_eof();
    assert_eq!(b.driver.ended(), Some(Outcome::Retired));
    // His place may be somebody else's by now: his going must not put that one out.
    let mut d = room.enter(3);
    drop(b);
    a.says("hello, d");
    assert_eq!(d.woken(), [text("hello, d")]);
    assert_eq!(room.dropped(), 1);
}

#[test]
fn who_never_runs_is_rung_for_when_he_is_put_out() {
    let limits = Limits { chat_backlog_bytes_max: 1_000, ..Limits::default() };
    let room = Room::new(limits);
    let [mut a, mut b] = [0, 1].map(|token| room.enter(token));
    // However large, the first letter is taken: it is not the listener who made it large.
    a.says(&"x".repeat(5_000));
    assert_eq!((room.bell.take(), room.dropped()), (vec![1], 0));
    a.says("y");
    assert_eq!((room.bell.take(), room.dropped()), (vec![1], 1));
    assert_eq!(b.woken(), [(CLOSE, close_payload(1013, "too slow"))], "his mail is gone");
    assert!(b.driver.fin_sent());
}

/// A member's view: of each speaker, the number that must come next.
#[derive(Default)]
struct Listener(HashMap<u64, u64>);

impl Listener {
    fn hear(&mut self, frames: Vec<(u8, Vec<u8>)>) {
        for (opcode, payload) in frames {
            assert_eq!(opcode, TEXT);
            let line = String::from_utf8(payload).expect("text");
            let (speaker, number) = line.split_once(' ').expect("speaker and number");
            let next = self.0.entry(speaker.parse().expect("a token")).or_default();
            assert_eq!(number.parse(), Ok(*next), "of speaker {speaker}");
            *next += 1;
        }
    }
}

#[test]
fn everybody_hears_each_speaker_in_order_whatever_the_chunks() {
    const GUESTS: usize = 5;
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let room = Room::new(Limits::default());
        let habits = |rng: &mut StdRng| Habits {
            write_max: 1 << rng.random_range(0..12),
            by_chunks: rng.random(),
            read_first: rng.random(),
            early_timeouts: rng.random(),
        };
        let mut guests: Vec<_> =
            (0..GUESTS as u64).map(|token| room.enter_with(token, habits(&mut rng))).collect();
        let mut listeners: Vec<_> = (0..GUESTS).map(|_| Listener::default()).collect();
        let mut said = [0u64; GUESTS];
        let mut waiting: Vec<Vec<u8>> = vec![Vec::new(); GUESTS];
        for _ in 0..400 {
            let who = rng.random_range(0..GUESTS);
            match rng.random_range(0..4) {
                0 => {
                    for _ in 0..rng.random_range(1..20) {
                        let line = format!("{who} {}", said[who]);
                        waiting[who].extend(client(TEXT, line.as_bytes()));
                        said[who] += 1;
                    }
                }
                1 => {
                    let n = rng.random_range(0..=waiting[who].len());
                    let piece: Vec<u8> = waiting[who].drain(..n).collect();
                    guests[who].driver.arrive(&piece);
                }
                2 => {
                    let reads = rng.random::<bool>().then(|| rng.random_range(0..200));
                    guests[who].driver.peer_reads(reads);
                }
                _ => {
                    for token in room.bell.take() {
                        guests[token as usize].driver.woken();
                    }
                }
            }
        }
        for (who, guest) in guests.iter_mut().enumerate() {
            guest.driver.arrive(&waiting[who]);
            guest.driver.peer_reads(None);
        }
        for (who, guest) in guests.iter_mut().enumerate() {
            listeners[who].hear(guest.woken());
            for (speaker, said) in said.iter().enumerate().filter(|(speaker, _)| *speaker != who) {
                let heard = listeners[who].0.get(&(speaker as u64)).copied().unwrap_or_default();
                assert_eq!(heard, *said, "seed {seed}: {who} of {speaker}");
            }
        }
    }
}

#[test]
fn speakers_on_many_threads() {
    const THREADS: u64 = 4;
    const LINES: u64 = 500;
    let room = Room::new(Limits::default());
    let guests: Vec<_> = (0..THREADS).map(|token| room.enter(token)).collect();
    let speak = |(token, mut guest): (u64, Guest)| {
        let mut listener = Listener::default();
        for number in 0..LINES {
            guest.says(&format!("{token} {number}"));
            listener.hear(guest.heard());
        }
        (guest, listener)
    };
    let spoken: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(guests)
            .map(|(token, guest)| scope.spawn(move || speak((token, guest))))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for (mut guest, mut listener) in spoken {
        listener.hear(guest.woken());
        assert_eq!(listener.0.len() as u64, THREADS - 1);
        assert!(listener.0.values().all(|&heard| heard == LINES));
    }
}
