//! Waking another connection, and being pushed to while sending: what the models do in ways of
//! their own. The protocol itself is for other cases.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;
use suite::{Opcode, Server, Variant, WebSocket, client_frame, get, until};

use crate::Outcome;
use crate::stop::NEVER;

const CHAT: &str = "/ws/chat";

/// Members of a chat, all of whom are in.
#[track_caller]
fn members(server: &Server, count: usize) -> Vec<WebSocket> {
    (0..count).map(|_| WebSocket::open(server, CHAT)).collect()
}

/// A model that serves one at a time says that it has no chat, and is asked for what it has: its
/// one visitor is in the room, alone, and the next one waits outside.
#[track_caller]
fn alone(variant: &Variant) -> Outcome {
    let cannot = variant.model.describe["cannot"].to_string();
    assert!(cannot.contains("chat"), "--describe says that it cannot: {cannot}");
    let server = Server::start(variant, &[]);
    let mut first = WebSocket::open(&server, CHAT);
    first.say("is anybody there?");
    first.expect_pong();
    let mut second = WebSocket::ask(&server, CHAT);
    assert!(second.client().is_silent(), "two at once in a model that serves one at a time");
    drop(first);
    second.expect_opened();
    second.say("and now?");
    second.expect_pong();
    drop(second);
    server.stop();
    Outcome::skipped("it serves one at a time, so nobody is there to chat with")
}

/// A model with a process for each client says that it has no chat: each is in a room of its own.
#[track_caller]
fn apart(variant: &Variant) -> Outcome {
    let cannot = variant.model.describe["cannot"].to_string();
    assert!(cannot.contains("chat"), "--describe says that it cannot: {cannot}");
    let server = Server::start(variant, &[]);
    let mut members = members(&server, 2);
    members[0].say("is anybody there?");
    // The first thing that each of them hears.
    members.iter_mut().for_each(|member| member.expect_pong());
    drop(members);
    server.stop();
    Outcome::skipped("each client has a process of its own, so nobody is there to chat with")
}

/// Runs a case for which at least two must be served at once.
#[track_caller]
fn in_company(variant: &Variant, flags: &[&str], case: impl FnOnce(Server)) -> Outcome {
    if variant.model.one_at_a_time() {
        return alone(variant);
    }
    if variant.model.has_processes() {
        return apart(variant);
    }
    case(Server::start(variant, flags));
    Outcome::Passed
}

/// What one says comes to all others, as it was said, and not back.
#[track_caller]
fn everybody_hears_everybody(server: Server, count: usize) {
    let mut members = members(&server, count);
    for speaker in 0..count {
        let text = format!("{speaker} says: Grüße");
        members[speaker].say(&text);
        members[speaker].send(Opcode::Binary, &[0, 255, speaker as u8]);
        for (listener, member) in members.iter_mut().enumerate() {
            if listener != speaker {
                assert_eq!(member.text(), text, "to {listener}");
                assert_eq!(member.message(), (Opcode::Binary, vec![0, 255, speaker as u8]));
            }
        }
    }
    for member in &mut members {
        // Nothing was left over: not what a member said itself, nor anything twice.
        member.expect_pong();
    }
    drop(members);
    server.stop();
}

pub fn reaches_all_others(variant: &Variant) -> Outcome {
    in_company(variant, &[], |server| everybody_hears_everybody(server, 8))
}

/// The kernel spreads connections over the loops' listeners, so that with two dozen of them both
/// loops have some, but once in millions of times.
pub fn across_loops(variant: &Variant) -> Outcome {
    if !variant.model.has_loops() {
        return Outcome::skipped("it has one loop, or a thread for each");
    }
    in_company(variant, &["--workers", "2"], |server| everybody_hears_everybody(server, 24))
}

/// More than one read of the speaker's, and more than one write to each listener.
pub fn burst_is_whole(variant: &Variant) -> Outcome {
    const MESSAGES: usize = 4_000;
    in_company(variant, &[], |server| {
        let mut members = members(&server, 4);
        let said = |number: usize| format!("message {number}, and something more to fill it up");
        let burst: Vec<u8> = (0..MESSAGES)
            .flat_map(|number| client_frame(Opcode::Text, said(number).as_bytes()))
            .collect();
        members[0].client().send(&burst);
        for member in &mut members[1..] {
            for number in 0..MESSAGES {
                assert_eq!(member.text(), said(number));
            }
        }
        members.iter_mut().for_each(|member| member.expect_pong());
        drop(members);
        server.stop();
    })
}

/// Every member speaks and listens without waiting for anybody: nobody's words are lost or change
/// their order, and no two connections wait for each other.
pub fn all_talk_at_once(variant: &Variant) -> Outcome {
    let workers: &[&str] = if variant.model.has_loops() { &["--workers", "2"] } else { &[] };
    in_company(variant, workers, |server| {
        const MEMBERS: usize = 8;
        const MESSAGES: usize = 300;
        let speakers =
            members(&server, MEMBERS).into_iter().enumerate().map(|(own, mut member)| {
                thread::spawn(move || {
                    let mut socket = member.second_handle();
                    let speaking = thread::spawn(move || {
                        for number in 0..MESSAGES {
                            let text = format!("{own} {number}");
                            let frame = client_frame(Opcode::Text, text.as_bytes());
                            socket.write_all(&frame).expect("the server listens");
                        }
                    });
                    let mut heard = [0; MEMBERS];
                    for _ in 0..(MEMBERS - 1) * MESSAGES {
                        let text = member.text();
                        let (speaker, number) = text.split_once(' ').expect("two numbers");
                        let speaker: usize = speaker.parse().expect("a number");
                        assert_ne!(speaker, own, "heard itself");
                        assert_eq!(number.parse(), Ok(heard[speaker]), "of {speaker}, by {own}");
                        heard[speaker] += 1;
                    }
                    speaking.join().expect("the speaker");
                    member
                })
            });
        let speakers: Vec<_> = speakers.collect();
        let members: Vec<_> = speakers.into_iter().map(|s| s.join().expect("a member")).collect();
        drop(members);
        server.stop();
    })
}

/// Who does not read is told to go (1013, or not even that), and the others hear everything, while
/// he does not read and after.
pub fn slow_member_is_dropped(variant: &Variant) -> Outcome {
    const LEN: usize = 32 << 10;
    // Some times what the socket buffers of both ends grow to, and then what the server keeps.
    const MESSAGES: usize = 500;
    let said = |number: usize| {
        let mut message = format!("message {number} ").into_bytes();
        message.resize(LEN, b'.');
        message
    };
    in_company(variant, &["--chat-backlog-bytes-max", "100000"], |server| {
        let mut slow = WebSocket::open(&server, CHAT);
        let mut others = members(&server, 3);
        let memory_before = server.process().memory_peak_kib();
        for number in 0..MESSAGES {
            others[0].send(Opcode::Binary, &said(number));
            for member in &mut others[1..] {
                assert!(member.message() == (Opcode::Binary, said(number)), "message {number}");
            }
        }
        let grown = server.process().memory_peak_kib() - memory_before;
        assert!(grown < 8 << 10, "{grown} KiB for one who does not read");
        let mut heard = 0;
        // No longer than it takes to read what is in the buffers.
        let is_over = |frame: &suite::Frame| frame.close_code().is_some();
        loop {
            let frame = slow.frame_behind_pings();
            if is_over(&frame) {
                assert_eq!(frame.close_code(), Some(1013));
                break;
            }
            assert!(frame.payload == said(heard), "message {heard} to the slow one");
            heard += 1;
        }
        assert!(heard < MESSAGES, "nobody was too slow");
        others.iter_mut().for_each(|member| member.expect_pong());
        drop((slow, others));
        server.stop();
    })
}

/// One whose own socket is full is still heard: what cannot be written stops no reading, as long
/// as the high-water mark allows it.
pub fn stuck_listener_may_speak(variant: &Variant) -> Outcome {
    const LEN: usize = 64 << 10;
    const MESSAGES: usize = 200;
    // All that is said here fits below the mark; and into the mailbox, because a thread that is
    // blocked in send(2) takes nothing out of it.
    let mark = ["--output-high-water-bytes", "1073741824"];
    let backlog = ["--chat-backlog-bytes-max", "1073741824"];
    in_company(variant, &[mark, backlog].concat(), |server| {
        let mut stuck = WebSocket::open(&server, CHAT);
        let mut others = members(&server, 2);
        for number in 0..MESSAGES {
            others[0].send(Opcode::Binary, &[number as u8; LEN]);
            assert!(others[1].message() == (Opcode::Binary, vec![number as u8; LEN]));
        }
        for number in 0..10 {
            let text = format!("help {number}");
            stuck.say(&text);
            others.iter_mut().for_each(|member| assert_eq!(member.text(), text));
        }
        for number in 0..MESSAGES {
            assert!(stuck.message() == (Opcode::Binary, vec![number as u8; LEN]));
        }
        stuck.expect_pong();
        drop((stuck, others));
        server.stop();
    })
}

/// A place that was left is another's: what was meant for the former is not for the latter.
pub fn newcomers_and_leavers(variant: &Variant) -> Outcome {
    in_company(variant, &[], |server| {
        let mut speaker = WebSocket::open(&server, CHAT);
        let mut member = WebSocket::open(&server, CHAT);
        for round in 0..30 {
            let mut leaver = WebSocket::open(&server, CHAT);
            let text = format!("round {round}");
            speaker.say(&text);
            if round % 2 == 0 {
                leaver.send(Opcode::Close, &1000u16.to_be_bytes());
            }
            // Otherwise with mail under way to it, perhaps.
            drop(leaver);
            server.serves();
            assert_eq!(member.text(), text);
        }
        speaker.expect_pong();
        member.expect_pong();
        drop((speaker, member));
        until("all others are gone", || server.stats()["connections_open"] == 1);
        server.stop();
    })
}

/// A writer that never pauses.
struct Flood {
    over: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Flood {
    fn begin(mut socket: TcpStream, piece: &[u8]) -> Flood {
        let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let pieces = piece.repeat((64 << 10) / piece.len());
        let (ended, counted) = (Arc::clone(&over), Arc::clone(&rounds));
        let thread = thread::spawn(move || {
            while !ended.load(SeqCst) {
                socket.write_all(&pieces).expect("the server reads");
                counted.fetch_add(1, SeqCst);
            }
            let _ = socket.shutdown(Shutdown::Write);
        });
        Flood { over, rounds, thread }
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(SeqCst)
    }

    fn end(self) {
        self.over.store(true, SeqCst);
        self.thread.join().expect("the flood");
    }
}

/// The number of a tick.
#[track_caller]
fn tick(payload: &[u8]) -> u64 {
    let text = std::str::from_utf8(payload).expect("a text is UTF-8");
    let number = text.strip_prefix("tick ").and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no tick: {text:?}"))
}

/// Pushes come although the client never stops sending, be it messages that are dropped or pings
/// that are answered: a server that looks at its clock only when the socket has nothing for it
/// never gets to the second tick.
pub fn clock_in_a_flood(variant: &Variant) {
    let pieces = [client_frame(Opcode::Text, &[b'x'; 100]), client_frame(Opcode::Ping, &[7; 100])];
    for piece in pieces {
        let server = Server::start(variant, &[]);
        let mut clock = WebSocket::open(&server, "/ws/clock/10");
        let flood = Flood::begin(clock.second_handle(), &piece);
        let (mut last, mut ticks, mut rounds) = (0, 0, flood.rounds());
        while ticks < 10 {
            let frame = clock.frame();
            if frame.opcode == Opcode::Pong {
                continue;
            }
            let number = tick(&frame.payload);
            assert!(number > last, "tick {number} after {last}");
            last = number;
            // Only ticks with a flood before them count.
            if flood.rounds() > rounds {
                ticks += 1;
                rounds = flood.rounds();
            }
        }
        // Reading goes on, or a flood that is answered would block the one that ends it.
        let reading = thread::spawn(move || drop(clock.client().read_until_cut()));
        flood.end();
        reading.join().expect("the reader");
        server.stop();
    }
}

/// Clocks of several periods, and a client that asks for something else meanwhile.
pub fn clocks_beside_each_other(variant: &Variant) -> Outcome {
    const COUNT: u64 = 6;
    if variant.model.one_at_a_time() {
        return Outcome::skipped("it serves one at a time: no clock is beside another");
    }
    let server = Server::start(variant, &[]);
    let clocks = (0..COUNT).map(|k| WebSocket::open(&server, &format!("/ws/clock/{}", 5 + k)));
    let mut clocks: Vec<WebSocket> = clocks.collect();
    let mut last = [0; COUNT as usize];
    for _ in 0..10 {
        for (clock, last) in clocks.iter_mut().zip(&mut last) {
            let number = tick(clock.text().as_bytes());
            assert!(number > *last, "tick {number} after {last}");
            *last = number;
        }
        server.serves();
    }
    drop(clocks);
    server.stop();
    Outcome::Passed
}

/// What it costs a blocking model that a thread in recv(2) hears nothing else: a member of the chat
/// has a second thread, and nobody else has one, unless `--duplex on` gives one to all.
pub fn threads_of_a_member(variant: &Variant) -> Outcome {
    const COUNT: usize = 3;
    if !variant.model.blocks_in_io() || variant.model.one_at_a_time() {
        return Outcome::skipped("it has no thread for each connection");
    }
    let server = Server::start(variant, &[]);
    let threads = || server.process().threads();
    // Served, so all threads have begun that do before there are clients.
    let mut first = server.connect();
    first.send(&get("/"));
    assert_eq!(first.reply().status, 200);
    let before = threads();
    // Those of a pool, and the processes, were there before.
    let has_pool =
        ["threads", "processes"].iter().any(|flag| variant.model.flavour(flag).is_some());
    let own = if has_pool { 0 } else { 1 };
    let is_duplex = variant.flags.iter().any(|flag| flag == "on");
    let mut echoes: Vec<_> = (0..COUNT).map(|_| WebSocket::open(&server, "/ws/echo")).collect();
    for echo in &mut echoes {
        echo.say("once");
        assert_eq!(echo.text(), "once");
    }
    let each = own + usize::from(is_duplex);
    assert_eq!(threads(), before + COUNT * each, "{COUNT} that nobody can ring for");
    let mut members = members(&server, COUNT);
    members.iter_mut().for_each(|member| member.expect_pong());
    let expected = before + COUNT * each + COUNT * (own + 1);
    assert_eq!(threads(), expected, "{COUNT} members of the chat beside them");
    drop((echoes, members));
    until("their threads have ended", || threads() == before);
    drop(first);
    server.stop();
    Outcome::Passed
}

/// SIGTERM: every WebSocket is told (1001), whatever it is for, and then the server is gone.
pub fn open_websockets_are_closed(variant: &Variant) {
    for paths in groups(variant, ["/ws/echo", CHAT, "/ws/clock/60000"]) {
        let server = Server::start(variant, &NEVER);
        let mut open: Vec<_> = paths.iter().map(|path| WebSocket::open(&server, path)).collect();
        server.signal(Signal::SIGTERM);
        open.iter_mut().for_each(|websocket| websocket.expect_close(1001));
        drop(open);
        let counters = server.wait().counters();
        assert_eq!(counters["connections_open"], 0, "{counters}");
    }
}

/// Told to close, and they say nothing: the server does not wait for ever.
pub fn silent_websockets_are_cut(variant: &Variant) {
    for paths in groups(variant, ["/ws/echo", CHAT, "/ws/clock/1"]) {
        let server = Server::start(variant, &["--drain-timeout", "300ms"]);
        let mut open: Vec<_> = paths.iter().map(|path| WebSocket::open(&server, path)).collect();
        server.signal(Signal::SIGTERM);
        let counters = server.wait().counters();
        assert_eq!(counters["connections_open"], 0, "{counters}");
        for websocket in &mut open {
            websocket.client().read_until_cut();
        }
    }
}

/// Paths of WebSockets that are open at once: three of each, or one at a time.
fn groups(variant: &Variant, paths: [&'static str; 3]) -> Vec<Vec<&'static str>> {
    if variant.model.one_at_a_time() {
        paths.iter().map(|path| vec![*path]).collect()
    } else {
        vec![paths.repeat(3)]
    }
}
