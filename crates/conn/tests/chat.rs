//! The chat between several connections. Each member receives the messages of the others in order.
//! A slow member is removed and costs the others nothing. No driver is woken more often than
//! needed.

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

/// Random chats: seconds in a debug build.
const SEEDS: u64 = 50;

#[derive(Default)]
struct Wakeups {
    tokens: Mutex<Vec<u64>>,
}

impl Wake for Wakeups {
    fn wake(&self, token: u64) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).push(token);
    }
}

impl Wakeups {
    /// The tokens that were woken since the last call, sorted.
    fn take(&self) -> Vec<u64> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.sort_unstable();
        std::mem::take(&mut tokens)
    }
}

struct ChatServer {
    world: World,
    wakeups: Arc<Wakeups>,
}

struct Member {
    driver: Driver,
    /// The beginning of an incomplete frame.
    tail: Vec<u8>,
}

impl ChatServer {
    fn new(limits: Limits) -> ChatServer {
        let world = World::new(Protocol::Http, limits, &[]);
        ChatServer { world, wakeups: Arc::default() }
    }

    fn join(&self, token: u64) -> Member {
        self.join_with(token, Habits::default())
    }

    fn join_with(&self, token: u64, habits: Habits) -> Member {
        let wakeups = Arc::clone(&self.wakeups) as Arc<dyn Wake>;
        let mut driver = Driver::at(&self.world, habits, Address::new(wakeups, token));
        driver.arrive(&upgrade(("/ws/chat", "")).expect("a path"));
        assert_eq!(driver.take_output(), ACCEPTED);
        Member { driver, tail: Vec::new() }
    }

    fn dropped(&self) -> u64 {
        self.world.totals().chat_members_dropped
    }
}

impl Member {
    fn sends(&mut self, text: &str) {
        self.driver.arrive(&client(TEXT, text.as_bytes()));
    }

    /// The frames that the client received since the last call.
    fn received(&mut self) -> Vec<(u8, Vec<u8>)> {
        self.tail.extend(self.driver.take_output());
        take_frames(&mut self.tail)
    }

    fn wake_up(&mut self) -> Vec<(u8, Vec<u8>)> {
        self.driver.wake_up();
        self.received()
    }
}

fn text(text: &str) -> (u8, Vec<u8>) {
    (TEXT, text.as_bytes().to_vec())
}

#[test]
fn a_message_reaches_all_other_members() {
    let server = ChatServer::new(Limits::default());
    let [mut a, mut b, mut c] = [0, 1, 2].map(|token| server.join(token));
    let sent = [
        client(TEXT, b"one"),
        client_part(BINARY, b"tw"),
        client(PING, b""),
        client(CONTINUE, b"o"),
    ];
    a.driver.arrive(&sent.concat());
    assert_eq!(server.wakeups.take(), [1, 2]);
    assert_eq!(a.received(), [(PONG, vec![])], "a member does not get its own message");
    assert_eq!(b.received(), [], "only its own driver runs a connection");
    for member in [&mut b, &mut c] {
        assert_eq!(member.wake_up(), [text("one"), (BINARY, b"two".to_vec())]);
        assert_eq!(member.wake_up(), [], "a second wake-up");
    }
    assert_eq!(a.wake_up(), []);
}

#[test]
fn a_member_with_queued_messages_is_not_woken_again() {
    let server = ChatServer::new(Limits::default());
    let [mut a, mut b, mut c] = [0, 1, 2].map(|token| server.join(token));
    a.sends("1");
    a.sends("2");
    c.sends("3");
    assert_eq!(server.wakeups.take(), [0, 1, 2]);
    assert_eq!(b.wake_up(), [text("1"), text("2"), text("3")]);
    c.sends("4");
    assert_eq!(server.wakeups.take(), [1], "a has not run since 3");
    // Any event of the connection has the effect of a wake-up.
    a.driver.arrive(&client(PING, b""));
    assert_eq!(a.received(), [(PONG, vec![]), text("3"), text("4")]);
}

#[test]
fn a_member_that_has_left_is_not_woken() {
    type Go = fn(&mut Driver);
    let ways: [(&str, Go); 6] = [
        ("close", |d| d.arrive(&client(CLOSE, b""))),
        ("a violation", |d| d.arrive(&client(3, b""))),
        ("FIN", Driver::arrive_eof),
        ("reset", Driver::reset),
        ("drain", Driver::drain),
        ("idle", |d| {
            d.pass(Duration::from_secs(30));
            d.pass(Duration::from_secs(30));
        }),
    ];
    for (way, go) in ways {
        let server = ChatServer::new(Limits::default());
        let [mut a, mut b] = [0, 1].map(|token| server.join(token));
        go(&mut b.driver);
        if way == "reset" {
            drop(b);
        }
        a.sends("hello");
        assert_eq!(server.wakeups.take(), [0; 0], "{way}");
    }
}

#[test]
fn a_slow_member_gets_everything_that_fits() {
    let limits = Limits {
        output_high_water_bytes: 1_000,
        push_high_water_bytes: 2_000,
        chat_backlog_bytes_max: 100_000,
        ..Limits::default()
    };
    let server = ChatServer::new(limits);
    let [mut a, mut b] = [0, 1].map(|token| server.join(token));
    b.driver.peer_reads(Some(0));
    for n in 0..900 {
        a.sends(&format!("{n:0100}"));
        if n % 7 == 0 {
            b.driver.wake_up();
        }
    }
    assert!(b.driver.output_len() < 2_000 + 102, "{}", b.driver.output_len());
    b.driver.peer_reads(None);
    let received = b.received();
    assert_eq!(received.len(), 900);
    for (n, frame) in received.into_iter().enumerate() {
        assert_eq!(frame, text(&format!("{n:0100}")));
    }
    assert_eq!(server.dropped(), 0);
}

#[test]
fn a_member_that_does_not_read_is_removed_with_1013() {
    let limits = Limits { chat_backlog_bytes_max: 10_000, ..Limits::default() };
    let high_water = limits.push_high_water_bytes;
    let server = ChatServer::new(limits);
    let [mut a, mut b, mut c] = [0, 1, 2].map(|token| server.join(token));
    b.driver.peer_reads(Some(0));
    let message = "x".repeat(1_000);
    let mut sent = 0;
    while server.dropped() == 0 {
        a.sends(&message);
        sent += 1;
        b.driver.wake_up();
        assert_eq!(c.wake_up(), [text(&message)], "the others do not wait");
        assert!(sent < 1_000, "b is never dropped");
    }
    // Bytes in the member's queue and output, and one message more for each.
    assert!(sent * 1_004 <= high_water + 1_004 + 10_000 + 1_004, "{sent}");
    server.wakeups.take();
    a.sends("b is out");
    assert_eq!(server.wakeups.take(), [2]);
    // The output is full; its last frame is the Close.
    b.driver.peer_reads(None);
    let received = b.received();
    assert_eq!(received.last(), Some(&(CLOSE, close_payload(1013, "too slow"))));
    assert!(received[..received.len() - 1].iter().all(|frame| *frame == text(&message)));
    assert!(b.driver.fin_sent());
    b.driver.arrive(&client(CLOSE, &close_payload(1013, "")));
    b.driver.arrive_eof();
    assert_eq!(b.driver.ended(), Some(Outcome::Retired));
    // Member d may have got the key of b: dropping b must not remove d.
    let mut d = server.join(3);
    drop(b);
    a.sends("hello, d");
    assert_eq!(d.wake_up(), [text("hello, d")]);
    assert_eq!(server.dropped(), 1);
}

#[test]
fn a_removed_member_is_woken() {
    let limits = Limits { chat_backlog_bytes_max: 1_000, ..Limits::default() };
    let server = ChatServer::new(limits);
    let [mut a, mut b] = [0, 1].map(|token| server.join(token));
    // The first message is queued whatever its size.
    a.sends(&"x".repeat(5_000));
    assert_eq!((server.wakeups.take(), server.dropped()), (vec![1], 0));
    a.sends("y");
    assert_eq!((server.wakeups.take(), server.dropped()), (vec![1], 1));
    assert_eq!(b.wake_up(), [(CLOSE, close_payload(1013, "too slow"))], "its queue is freed");
    assert!(b.driver.fin_sent());
}

/// The number that must come next from each sender.
#[derive(Default)]
struct Order(HashMap<u64, u64>);

impl Order {
    fn check(&mut self, frames: Vec<(u8, Vec<u8>)>) {
        for (opcode, payload) in frames {
            assert_eq!(opcode, TEXT);
            let line = String::from_utf8(payload).expect("text");
            let (sender, number) = line.split_once(' ').expect("sender and number");
            let next = self.0.entry(sender.parse().expect("a token")).or_default();
            assert_eq!(number.parse(), Ok(*next), "of sender {sender}");
            *next += 1;
        }
    }
}

#[test]
fn messages_arrive_in_order_for_any_chunks() {
    const MEMBERS: usize = 5;
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let server = ChatServer::new(Limits::default());
        let habits = |rng: &mut StdRng| Habits {
            write_max: 1 << rng.random_range(0..12),
            by_chunks: rng.random(),
            read_first: rng.random(),
            early_timeouts: rng.random(),
        };
        let mut members: Vec<_> =
            (0..MEMBERS as u64).map(|token| server.join_with(token, habits(&mut rng))).collect();
        let mut orders: Vec<_> = (0..MEMBERS).map(|_| Order::default()).collect();
        let mut sent = [0u64; MEMBERS];
        let mut waiting: Vec<Vec<u8>> = vec![Vec::new(); MEMBERS];
        for _ in 0..400 {
            let index = rng.random_range(0..MEMBERS);
            match rng.random_range(0..4) {
                0 => {
                    for _ in 0..rng.random_range(1..20) {
                        let line = format!("{index} {}", sent[index]);
                        waiting[index].extend(client(TEXT, line.as_bytes()));
                        sent[index] += 1;
                    }
                }
                1 => {
                    let n = rng.random_range(0..=waiting[index].len());
                    let piece: Vec<u8> = waiting[index].drain(..n).collect();
                    members[index].driver.arrive(&piece);
                }
                2 => {
                    let reads = rng.random::<bool>().then(|| rng.random_range(0..200));
                    members[index].driver.peer_reads(reads);
                }
                _ => {
                    for token in server.wakeups.take() {
                        members[token as usize].driver.wake_up();
                    }
                }
            }
        }
        for (index, member) in members.iter_mut().enumerate() {
            member.driver.arrive(&waiting[index]);
            member.driver.peer_reads(None);
        }
        for (index, member) in members.iter_mut().enumerate() {
            orders[index].check(member.wake_up());
            for (sender, sent) in sent.iter().enumerate().filter(|(sender, _)| *sender != index) {
                let received = orders[index].0.get(&(sender as u64)).copied().unwrap_or_default();
                assert_eq!(received, *sent, "seed {seed}: {index} of {sender}");
            }
        }
    }
}

#[test]
fn senders_on_many_threads() {
    const THREADS: u64 = 4;
    const LINES: u64 = 500;
    let server = ChatServer::new(Limits::default());
    let members: Vec<_> = (0..THREADS).map(|token| server.join(token)).collect();
    let send_all = |(token, mut member): (u64, Member)| {
        let mut order = Order::default();
        for number in 0..LINES {
            member.sends(&format!("{token} {number}"));
            order.check(member.received());
        }
        (member, order)
    };
    let finished: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(members)
            .map(|(token, member)| scope.spawn(move || send_all((token, member))))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for (mut member, mut order) in finished {
        order.check(member.wake_up());
        assert_eq!(order.0.len() as u64, THREADS - 1);
        assert!(order.0.values().all(|&received| received == LINES));
    }
}
