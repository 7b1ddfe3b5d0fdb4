//! Plays a case on a connection, by the contract in `conn`'s module text and in any order that it
//! allows. Checks after every event what must hold for every client. A failed check is a panic.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conn::{Address, Conn, FileRead, Limits, Outcome, Protocol, Wants};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};

use super::case::{Case, Event, Security, Setting};
use crate::support::driver::FileReply;
use crate::support::tls::{Client, client_config, server_config};
use crate::support::world::{FakeFile, READ_MAX, World, letters};

/// Length of the file `/files/a`, in bytes: some requests for it, with reads of one byte each, end
/// within [`EVENTS_MAX`].
const FILE_LEN: u64 = 5_000;

const SLICES_MAX: usize = 8;

/// A connection must end within so many events if it gets everything that it waits for: the
/// unprocessed input holds some hundred pipelined requests, each with a deadline, and a long reply
/// needs some thousand writes.
const EVENTS_MAX: usize = 200_000;

/// Most output taken from one connection, in bytes: a reply may be a terabyte long.
const TAKEN_MAX: usize = 4 << 20;

/// A case takes milliseconds. One that takes longer than this is in an endless loop, however busy
/// the machine is.
const ENDLESS: Duration = Duration::from_secs(120);

#[derive(Debug, PartialEq, Eq)]
pub struct Played {
    pub said: Vec<u8>,
    pub outcome: Outcome,
    /// A bit for each kind of event that was seen: a case with a new one is kept.
    pub seen: u64,
}

/// Limits that a short case reaches.
pub fn limits(small: bool) -> Limits {
    if !small {
        return Limits::default();
    }
    Limits {
        head_bytes_max: 300,
        target_bytes_max: 100,
        body_bytes_max: 3_000,
        output_high_water_bytes: 2_000,
        push_high_water_bytes: 3_000,
        file_read_bytes_max: 700,
        streams_max: 8,
        message_bytes_max: 500,
        ..Limits::default()
    }
}

/// Plays the case to its end: after the last event the peer sends FIN and reads everything, and
/// time passes.
pub fn play(case: &Case) -> Played {
    let world = world(case.setting);
    let mut player = Player::new(&world, case.setting);
    for event in &case.events {
        player.event(event);
        player.check();
    }
    player.end();
    let Player { conn, said, client, sent, received, seen, .. } = player;
    let outcome = conn.outcome();
    drop(conn);
    let totals = world.totals();
    assert_eq!((totals.connections_accepted, totals.connections_open), (1, 0));
    assert_eq!((totals.bytes_sent, totals.bytes_received), (sent as u64, received as u64));
    let said = client.map_or(said, |client| client.received);
    Played { said, outcome, seen }
}

fn world(setting: Setting) -> World {
    static CONFIGS: OnceLock<[Arc<ServerConfig>; 2]> = OnceLock::new();
    let configs = CONFIGS.get_or_init(|| [server_config(&["h2", "http/1.1"]), server_config(&[])]);
    let protocol = if setting.echo { Protocol::Echo } else { Protocol::Http };
    let tls = configs[usize::from(setting.echo)].clone();
    let file = FakeFile {
        path: "a".to_owned(),
        len: FILE_LEN,
        modified_unix_s: 0,
        content_type: "text/plain".to_owned(),
    };
    let tls = (setting.tls != Security::Plain).then_some(tls);
    World::secure(protocol, limits(setting.small), &[file], tls)
}

fn client(setting: Setting) -> Option<Client> {
    static CONFIGS: OnceLock<Vec<Arc<ClientConfig>>> = OnceLock::new();
    let alpns: [&[&str]; 3] = [&[], &["h2"], &["http/1.1"]];
    let configs = CONFIGS.get_or_init(|| {
        let versions = [&TLS12, &TLS13];
        let both = versions.iter().flat_map(|version| alpns.map(|alpn| (*version, alpn)));
        both.map(|(version, alpn)| client_config(version, alpn, true)).collect()
    });
    let version = match setting.tls {
        Security::Plain => return None,
        Security::Tls12 => 0,
        Security::Tls13 => 1,
    };
    let alpn = match setting.alpn {
        None => 0,
        Some("h2") => 1,
        Some(_) => 2,
    };
    Some(Client::new(&configs[version * alpns.len() + alpn]))
}

struct Player {
    conn: Conn,
    limits: Limits,
    now: Instant,
    client: Option<Client>,
    unread: VecDeque<u8>,
    eof: bool,
    eof_read: bool,
    fin_sent: bool,
    read_max: usize,
    files: FileReply,
    said: Vec<u8>,
    sent: usize,
    received: usize,
    asked: usize,
    seen: u64,
}

impl Player {
    fn new(world: &World, setting: Setting) -> Player {
        let mut player = Player {
            conn: Conn::new(&world.service, Address::alone(), world.started),
            limits: world.service.limits.clone(),
            now: world.started,
            client: client(setting),
            unread: VecDeque::new(),
            eof: false,
            eof_read: false,
            fin_sent: false,
            read_max: READ_MAX,
            files: FileReply::Prompt,
            said: Vec::new(),
            sent: 0,
            received: 0,
            asked: 0,
            seen: 0,
        };
        player.client_sends();
        player
    }

    fn event(&mut self, event: &Event) {
        if let Some(bytes) = event.bytes() {
            return self.send(&bytes);
        }
        match event {
            Event::Wire(bytes) => {
                self.unread.extend(bytes);
                self.read_all();
            }
            Event::Notify => {
                if let Some(client) = &mut self.client {
                    client.session.send_close_notify();
                    self.client_sends();
                    self.read_all();
                }
            }
            Event::Reads(n) => self.read_max = (*n).clamp(1, READ_MAX),
            Event::Take(n) => self.write(*n),
            Event::Run => self.run(),
            Event::Files(file_reply) => {
                self.files = *file_reply;
                while self.answer_file() {}
            }
            Event::Pass(millis) => {
                self.now += Duration::from_millis(*millis);
                self.time();
            }
            Event::Deadline => self.pass_to_deadline(),
            Event::Early => self.early(),
            Event::Woken => self.conn.resume(self.now),
            Event::Drain => self.conn.drain(self.unread.len(), self.now),
            Event::Eof => {
                self.eof = true;
                self.read_all();
            }
            Event::Abort => self.conn.abort(),
            _ => {}
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.asked += bytes.len();
        match &mut self.client {
            // Its session has failed and can send nothing.
            Some(client) if client.error.is_some() => {}
            Some(client) => client.send(bytes),
            None => self.unread.extend(bytes),
        }
        self.client_sends();
        self.read_all();
    }

    fn client_sends(&mut self) {
        if let Some(client) = &mut self.client {
            self.unread.extend(client.take_encrypted());
        }
    }

    /// Reads as long as the connection wants to and bytes are there.
    fn read_all(&mut self) {
        while self.read() {
            self.check();
        }
    }

    fn read(&mut self) -> bool {
        let wanted = self.conn.wants().is_some_and(|wants| wants.read);
        if !wanted || self.eof_read {
            return false;
        }
        if self.unread.is_empty() {
            self.eof_read = self.eof;
            if self.eof {
                self.conn.receive_eof(self.now);
            }
            return self.eof;
        }
        let len = self.read_max.min(self.unread.len());
        let mut bytes: Vec<u8> = self.unread.drain(..len).collect();
        self.received += len;
        self.conn.receive(&bytes, self.now);
        // "The slice may be reused."
        bytes.fill(0xff);
        true
    }

    fn write(&mut self, most: usize) {
        if self.conn.wants().is_none() {
            return;
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = self.conn.slices(&mut slices);
        let mut written = Vec::new();
        for slice in &slices[..filled] {
            written.extend_from_slice(&slice[..slice.len().min(most - written.len())]);
        }
        if self.sent.is_multiple_of(2) {
            let handles: Vec<Bytes> = self.conn.chunks().take(SLICES_MAX).collect();
            let joined = handles.concat();
            let both = joined.len().min(written.len());
            assert!(joined[..both] == written[..both], "chunks() and slices() differ");
        }
        self.sent += written.len();
        self.conn.sent(written.len(), self.now);
        match &mut self.client {
            Some(client) => client.arrive(&written),
            None => self.said.extend_from_slice(&written),
        }
        self.client_sends();
    }

    fn answer_file(&mut self) -> bool {
        let Some(part) = self.conn.wants().and_then(|wants| wants.file) else { return false };
        let bytes = |part: FileRead, most: usize| {
            let len = part.len.min(most) as u64;
            Bytes::from(letters(part.offset, part.offset + len))
        };
        match self.files {
            FileReply::Prompt => self.conn.file_read(bytes(part, usize::MAX), self.now),
            FileReply::Short(most) => self.conn.file_read(bytes(part, most), self.now),
            FileReply::Truncated => self.conn.file_read(Bytes::new(), self.now),
            FileReply::Failing => self.conn.file_failed(self.now),
            FileReply::Held => return false,
        }
        self.check();
        true
    }

    /// Everything happens except that time passes.
    fn run(&mut self) {
        for _ in 0..EVENTS_MAX + self.unread.len() {
            let Some(wants) = self.conn.wants() else { return };
            if wants.write && self.sent < TAKEN_MAX {
                self.write(usize::MAX);
            } else if wants.file.is_some() && self.answer_file() {
                // Its bytes are written next.
            } else if wants.shutdown {
                assert!(!self.fin_sent, "FIN is asked for twice");
                self.fin_sent = true;
                self.conn.shutdown_done(self.now);
            } else if wants.turn {
                self.conn.resume(self.now);
            } else if !self.read() {
                return;
            }
            self.check();
        }
        panic!("it goes on for ever: {:?}", self.conn.wants());
    }

    /// Handles the deadlines that are due; then none may be due.
    fn time(&mut self) {
        let due = |conn: &Conn, now| {
            conn.wants().and_then(|wants| wants.deadline).is_some_and(|at| at <= now)
        };
        if due(&self.conn, self.now) {
            self.conn.timeout(self.now);
            assert!(!due(&self.conn, self.now), "timeout() left something due");
        }
    }

    fn pass_to_deadline(&mut self) {
        if let Some(at) = self.conn.wants().and_then(|wants| wants.deadline) {
            self.now = self.now.max(at);
            self.time();
        }
    }

    /// "Early or repeated calls are harmless."
    fn early(&mut self) {
        self.time();
        let before = self.conn.wants();
        self.conn.timeout(self.now);
        assert_eq!(self.conn.wants(), before, "an early timeout() changed something");
    }

    fn check(&mut self) {
        assert_eq!(self.conn.wants(), self.conn.wants(), "wants() changes by itself");
        self.time();
        match self.conn.wants() {
            Some(wants) => self.check_open(&wants),
            None => self.note(63),
        }
    }

    fn check_open(&mut self, wants: &Wants) {
        let waiting = self.conn.slices(&mut [IoSlice::new(&[])]) > 0;
        assert_eq!(wants.write, waiting, "write is wanted exactly while there is output");
        assert!(!(wants.shutdown && wants.write), "FIN before the output is out");
        let goes_on = wants.shutdown || wants.turn || wants.file.is_some();
        let timed = wants.deadline.is_some() || goes_on;
        assert!(timed, "a connection that can wait for ever: {wants:?}");
        if let Some(part) = wants.file {
            let max = self.limits.file_read_bytes_max;
            assert!(part.len > 0 && part.len <= max && part.offset < FILE_LEN, "{part:?}");
        }
        self.check_memory();
        let bits = [wants.read, wants.write, wants.shutdown, wants.file.is_some(), self.eof_read];
        self.note(bits.iter().enumerate().map(|(at, &bit)| u32::from(bit) << at).sum());
    }

    /// Output and unprocessed input are bounded. One read adds to both.
    fn check_memory(&self) {
        let text = format!("{:?}", self.conn);
        let number = |name: &str| {
            let rest = text.split_once(name).map_or("", |(_, rest)| rest);
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<usize>().unwrap_or_else(|_| panic!("{name} in {text}"))
        };
        let (unprocessed, output) = (number("unprocessed: "), number("output: "));
        let read = READ_MAX.min(self.asked + (16 << 10));
        let unprocessed_max = self.limits.head_bytes_max.max(1_000) + read;
        assert!(unprocessed <= unprocessed_max, "{unprocessed} bytes of input are kept");
        // A chunk of one byte is echoed with six around it; a head is about 300 bytes; a run of the
        // pattern is 64 KiB.
        let output_max = self.limits.push_high_water_bytes + 8 * read + (64 << 10) + 2_000;
        assert!(output <= output_max, "{output} bytes of output wait");
    }

    fn note(&mut self, bit: u32) {
        self.seen |= 1 << (bit % 64);
    }

    /// The peer has sent FIN and reads everything: then the connection must end.
    fn end(&mut self) {
        self.files = FileReply::Prompt;
        self.eof = true;
        for _ in 0..EVENTS_MAX {
            self.run();
            if self.conn.wants().is_none() {
                return self.after_close();
            }
            self.pass_to_deadline();
            self.check();
        }
        panic!("it never ends: {:?} {:?}", self.conn, self.conn.wants());
    }

    fn after_close(&mut self) {
        let outcome = self.conn.outcome();
        let later = self.now + Duration::from_secs(3_600);
        self.conn.receive_eof(later);
        self.conn.timeout(later);
        self.conn.sent(0, later);
        self.conn.shutdown_done(later);
        self.conn.file_read(Bytes::from_static(b"late"), later);
        self.conn.file_failed(later);
        self.conn.resume(later);
        self.conn.drain(0, later);
        self.conn.abort();
        assert!(self.conn.wants().is_none(), "closed, and then open again");
        assert_eq!(self.conn.outcome(), outcome);
    }
}

/// Runs `check` on `case`, and ends the process after [`ENDLESS`]: no assertion detects an endless
/// loop.
pub fn guard<T>(case: &Case, check: impl FnOnce() -> T) -> T {
    static BEGUN: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());
    static WATCHING: Once = Once::new();
    let lock = || BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    WATCHING.call_once(|| {
        std::thread::spawn(move || {
            let mut seen: Vec<u64> = Vec::new();
            loop {
                std::thread::sleep(ENDLESS);
                let running = lock();
                if let Some((_, text)) = running.iter().find(|(number, _)| seen.contains(number)) {
                    eprintln!("this case never ends:\n{text}");
                    std::process::abort();
                }
                seen = running.iter().map(|(number, _)| *number).collect();
            }
        });
    });
    let number = NUMBER.fetch_add(1, Relaxed);
    lock().push((number, case.to_string()));
    let result = catch_unwind(AssertUnwindSafe(check));
    lock().retain(|(other, _)| *other != number);
    result.unwrap_or_else(|panic| resume_unwind(panic))
}
