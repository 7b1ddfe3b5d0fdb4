//! WebSockets with random fragments, random reads and writes, floods, and every code that a Close
//! may have. Single cases are in `transcripts/websocket*.txt`.

mod support;

use std::time::Duration;

use conn::{Limits, Outcome, Protocol};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use support::driver::{Driver, Habits};
use support::frames::{
    ACCEPTED, BINARY, CLOSE, CONTINUE, PING, PONG, TEXT, client, client_part, close_payload, put,
    take_frames, upgrade,
};
use support::world::{READ_MAX, World};

/// Random connections: seconds in a debug build.
const SEEDS: u64 = 200;

fn world(limits: Limits) -> World {
    World::new(Protocol::Http, limits, &[])
}

fn open(world: &World, path: &str, habits: Habits) -> Driver {
    let mut driver = Driver::new(world, habits);
    driver.arrive(&upgrade((path, "")).expect("a path"));
    assert_eq!(driver.take_output(), ACCEPTED);
    driver
}

fn habits(rng: &mut StdRng) -> Habits {
    Habits {
        write_max: 1 << rng.random_range(0..17),
        by_chunks: rng.random(),
        read_first: rng.random(),
        early_timeouts: rng.random(),
    }
}

/// A message in frames: in parts, each with its own mask, and with pings between them. The expected
/// answers are added to `expected`.
fn message(rng: &mut StdRng, sent: &mut Vec<u8>, expected: &mut Vec<(u8, Vec<u8>)>) {
    const ALPHABET: [char; 5] = ['a', '\u{7f}', 'ß', '€', '😀'];
    let most = 1usize << rng.random_range(0..17);
    let len = rng.random_range(0..most);
    let (opcode, payload) = if rng.random() {
        let text: String =
            (0..len / 2).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())]).collect();
        (TEXT, text.into_bytes())
    } else {
        let mut bytes = vec![0; len];
        rng.fill_bytes(&mut bytes);
        (BINARY, bytes)
    };
    let mut rest = &payload[..];
    let mut kind = opcode;
    while rng.random_ratio(2, 3) {
        let (piece, left) = rest.split_at(rng.random_range(0..=rest.len()));
        put(sent, kind, piece, Some(rng.random()));
        (rest, kind) = (left, CONTINUE);
        if rng.random_ratio(1, 3) {
            let ping = &piece[..piece.len().min(125)];
            put(sent, 0x80 | PING, ping, Some(rng.random()));
            expected.push((PONG, ping.to_vec()));
        }
    }
    put(sent, 0x80 | kind, rest, Some(rng.random()));
    expected.push((opcode, payload));
}

#[test]
fn every_message_comes_back_whatever_the_fragments_and_reads() {
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = world(Limits { output_high_water_bytes: 20_000, ..Limits::default() });
        let habits = habits(&mut rng);
        let mut driver = open(&world, "/ws/echo", habits);
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..rng.random_range(1..8) {
            message(&mut rng, &mut sent, &mut expected);
        }
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let most = 1usize << rng.random_range(0..17);
            let (piece, left) = rest.split_at(rng.random_range(1..=most).min(rest.len()));
            if rng.random_ratio(1, 10) {
                let reads = rng.random::<bool>().then(|| rng.random_range(0..10_000));
                driver.peer_reads(reads);
            }
            driver.arrive(piece);
            rest = left;
        }
        driver.peer_reads(None);
        let mut output = driver.take_output();
        assert!(take_frames(&mut output) == expected, "seed {seed}, {habits:?}");
        assert!(output.is_empty() && driver.conn.is_idle(), "seed {seed}");
        // Above the limit there is one message, or those of one read if they are small.
        let most =
            20_000 + 2 * (expected.iter().map(|(_, p)| p.len()).max().unwrap_or(0) + READ_MAX);
        assert!(driver.output_peak <= most, "seed {seed}: {}", driver.output_peak);
    }
}

#[test]
fn noise_is_answered_with_a_close_or_not_at_all() {
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = world(Limits { message_bytes_max: 1_000, ..Limits::default() });
        let mut driver = open(&world, "/ws/echo", habits(&mut rng));
        for _ in 0..20 {
            let mut bytes = vec![0; rng.random_range(1..300)];
            rng.fill_bytes(&mut bytes);
            // Mostly masked, because others are refused at the head.
            if rng.random_ratio(3, 4) && bytes.len() > 1 {
                bytes[0] &= 0x8f;
                bytes[1] |= 0x80;
            }
            driver.arrive(&bytes);
        }
        driver.arrive_eof();
        driver.pass(Duration::from_secs(2));
        let outcome = driver.ended();
        let known = [Outcome::Rejected, Outcome::Truncated, Outcome::Completed];
        assert!(
            outcome.is_some_and(|outcome| known.contains(&outcome)),
            "seed {seed}: {outcome:?}"
        );
        let mut output = driver.take_output();
        let frames = take_frames(&mut output);
        assert!(output.is_empty(), "seed {seed}: half a frame");
        let closes = frames.iter().filter(|(opcode, _)| *opcode == CLOSE).count();
        assert_eq!(closes, usize::from(outcome != Some(Outcome::Truncated)), "seed {seed}");
    }
}

#[test]
fn codes_of_a_close() {
    // RFC 6455 section 7.4 and the registry that it sets up; 1004 to 1006, 1015 and 1016 to 2999
    // must not be sent, below 1000 and from 5000 there are none.
    let may_be_sent = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    for code in (0..6_000).chain([u16::MAX]) {
        // Registered after the RFC, by gateways for their own use: either answer is right.
        if code == 1014 {
            continue;
        }
        let world = world(Limits::default());
        let mut driver = open(&world, "/ws/echo", Habits::default());
        driver.arrive(&client(CLOSE, &close_payload(code, "bye")));
        driver.arrive_eof();
        let (payload, outcome) = if may_be_sent(code) {
            (close_payload(code, ""), Outcome::Completed)
        } else {
            (close_payload(1002, "no such close code"), Outcome::Rejected)
        };
        assert_eq!(take_frames(&mut driver.take_output()), [(CLOSE, payload)], "{code}");
        assert_eq!(driver.ended(), Some(outcome), "{code}");
    }
}

#[test]
fn the_clock_is_on_time_while_the_client_floods() {
    let flood = client(BINARY, &[0; 1_000]).repeat(60);
    for habits in [Habits::default(), Habits { read_first: true, ..Habits::default() }] {
        let world = world(Limits::default());
        let mut driver = open(&world, "/ws/clock/10", habits);
        let mut output = Vec::new();
        for number in 1..=100 {
            // Nothing is due in between, however much arrives.
            for _ in 0..9 {
                driver.pass(Duration::from_millis(1));
                driver.arrive(&flood);
                output.extend(driver.take_output());
                assert_eq!(take_frames(&mut output), []);
            }
            // The flood comes first, and the mechanism of time not at all.
            driver.pass(Duration::from_millis(1));
            driver.arrive(&flood);
            output.extend(driver.take_output());
            let tick = format!("tick {number}").into_bytes();
            assert_eq!(take_frames(&mut output), [(TEXT, tick)]);
        }
        assert_eq!(world.totals().requests, 1 + 100 * 10 * 60);
    }
}

#[test]
fn a_client_that_floods_and_never_reads_is_pushed_to_until_the_mark() {
    let limits = Limits {
        output_high_water_bytes: 1_000,
        push_high_water_bytes: 2_000,
        ..Limits::default()
    };
    let world = world(limits);
    let mut driver = open(&world, "/ws/clock/10", Habits::default());
    driver.peer_reads(Some(0));
    for _ in 0..500 {
        driver.pass(Duration::from_millis(10));
        driver.arrive(&client(PING, b"0123456789"));
    }
    assert!((2_000..2_100).contains(&driver.output_len()), "{}", driver.output_len());
    assert!(driver.unread() > 0, "above its own mark nothing is read");
    driver.peer_reads(None);
    let frames = take_frames(&mut driver.take_output());
    let ticks: Vec<_> = frames.iter().filter(|(opcode, _)| *opcode == TEXT).collect();
    let pongs = frames.len() - ticks.len();
    assert_eq!(pongs, 500, "whatever arrived is answered in the end");
    // The first ticks without a gap, none after the mark.
    for (number, (_, tick)) in (1..).zip(&ticks) {
        assert_eq!(*tick, format!("tick {number}").into_bytes());
    }
    assert!(ticks.len() < 400, "{}", ticks.len());
    driver.pass(Duration::from_millis(10));
    let next = take_frames(&mut driver.take_output());
    assert_eq!(next, [(TEXT, b"tick 501".to_vec())], "the gap shows in the number");
}

#[test]
fn a_writer_that_never_reads_is_stopped() {
    for what in [client(TEXT, &[b'x'; 64]), client(PING, b"x"), client_part(TEXT, b"x")] {
        let limits = Limits::default();
        let world = world(limits.clone());
        let mut driver = open(&world, "/ws/echo", Habits::default());
        driver.peer_reads(Some(0));
        let read = what.repeat(READ_MAX / what.len());
        for _ in 0..100 {
            driver.arrive(&read);
        }
        let taken = world.totals().bytes_received as usize;
        assert!(taken <= limits.output_high_water_bytes * 4 + READ_MAX, "{taken} bytes were read");
        assert!(driver.output_peak <= limits.output_high_water_bytes + READ_MAX);
    }
}

#[test]
fn an_empty_fragment_costs_nothing() {
    // Of how many fragments a message is made is the peer's affair, as long as it is short enough.
    let world = world(Limits { message_bytes_max: 3, ..Limits::default() });
    let mut driver = open(&world, "/ws/echo", Habits::default());
    driver.arrive(&client_part(TEXT, b"a"));
    for _ in 0..1_000 {
        driver.arrive(&client_part(CONTINUE, b""));
    }
    driver.arrive(&client(CONTINUE, b"bc"));
    assert_eq!(take_frames(&mut driver.take_output()), [(TEXT, b"abc".to_vec())]);
}
