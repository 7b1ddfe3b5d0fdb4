//! Transcripts: connections as text files. Each line is an event or an expectation.
//!
//! ```text
//! === a case begins, with its name
//! # a comment
//! % protocol echo              (default: http)
//! % limit head_bytes_max 100   any field of conn::Limits
//! % file a/b.txt 100 text/plain    a file of 100 letters, modified at the start of the clock
//! % merge-chunks               compare chunked replies by content, because a chunk of /echo
//!                              ends where a read ended
//! >> bytes from the client     consecutive lines are one block; \r \n \t \\ \xNN are escapes,
//!                              \{3*ab} is ababab, \{pattern 0 10} and \{letters 0 10} are bytes
//!                              of /bytes/N and of any file
//! << bytes to the client       all of them since the last such block, exactly
//! >u /ws/echo                  a request for a WebSocket; other fields may follow the path
//! <u                           the reply that accepts it
//! >w text hello                a client's frame, masked: [more] [rsv1|rsv2|rsv3|bare] KIND
//!                              PAYLOAD, where KIND is continue, text, binary, close [CODE],
//!                              ping, pong or opN; `more` omits FIN, `bare` the mask
//! <w text hello                a server's frame
//! <! 400 Bad Request: text     a complete refusal with this status and sentence, and the close
//! !! an event: eof, drain, reset, clock +500ms, peer stops reading, peer reads 10 bytes,
//!              peer reads on, files prompt|held|failing|truncated, files short 10
//! ?? a fact: open, closed OUTCOME, fin, no fin, reading, not reading, idle, not idle,
//!            deadline 30s, unread 10, requests 3
//! ```
//!
//! A case ends with `?? open` or `?? closed ...`.

use std::time::Duration;

use conn::{Limits, Outcome, Protocol};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::driver::{Driver, FileReply, Habits};
use super::frames;
use super::world::{FakeFile, STARTED_UNIX_S, World, letters, pattern};

#[derive(Debug)]
pub struct Case {
    pub name: String,
    protocol: Protocol,
    limits: Limits,
    files: Vec<FakeFile>,
    merge_chunks: bool,
    steps: Vec<(usize, Step)>,
}

#[derive(Debug)]
enum Step {
    Send(Vec<u8>),
    Expect(Vec<u8>),
    Event(Event),
    Fact(Fact),
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Eof,
    Drain,
    Reset,
    Clock(Duration),
    PeerReads(Option<usize>),
    Files(FileReply),
}

#[derive(Debug, Clone, Copy)]
enum Fact {
    Open,
    Closed(Outcome),
    Fin(bool),
    Reading(bool),
    Idle(bool),
    Deadline(Duration),
    Unread(usize),
    Requests(u64),
}

/// How the client's bytes are split into reads.
#[derive(Debug, Clone, Copy)]
pub enum Cuts {
    Whole,
    EveryByte,
    /// Split once, after this many bytes of the whole transcript.
    At(usize),
    Random(u64),
}

pub fn parse(name: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let at = index + 1;
        if let Some(title) = line.strip_prefix("=== ") {
            cases.push(Case::new(format!("{name}: {title}")));
        } else if !line.is_empty() && !line.starts_with('#') {
            let case = cases.last_mut();
            let case = case.unwrap_or_else(|| panic!("{name}:{at}: a line before the first ==="));
            case.line(at, line).unwrap_or_else(|error| panic!("{name}:{at}: {error}: {line}"));
        }
    }
    for case in &cases {
        let end = matches!(case.steps.last(), Some((_, Step::Fact(Fact::Open | Fact::Closed(_)))));
        assert!(end, "{}: does not end with ?? open or ?? closed", case.name);
    }
    cases
}

impl Case {
    fn new(name: String) -> Case {
        Case {
            name,
            protocol: Protocol::Http,
            limits: Limits::default(),
            files: Vec::new(),
            merge_chunks: false,
            steps: Vec::new(),
        }
    }

    fn line(&mut self, at: usize, line: &str) -> Result<(), String> {
        let (kind, rest) = line.split_at_checked(2).ok_or("too short")?;
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let step = match kind {
            "% " => return self.setting(line[2..].trim()),
            ">>" | ">u" | ">w" => {
                let bytes = match kind {
                    ">u" => frames::upgrade(rest.split_once(' ').unwrap_or((rest, "")))?,
                    ">w" => frames::frame(rest, Some(frames::MASK))?,
                    _ => unescape(rest)?,
                };
                if let Some((_, Step::Send(block))) = self.steps.last_mut() {
                    block.extend(bytes);
                    return Ok(());
                }
                Step::Send(bytes)
            }
            "<<" | "<u" | "<w" => {
                let bytes = match kind {
                    "<u" => frames::ACCEPTED.to_vec(),
                    "<w" => frames::frame(rest, None)?,
                    _ => unescape(rest)?,
                };
                if let Some((_, Step::Expect(block))) = self.steps.last_mut() {
                    block.extend(bytes);
                    return Ok(());
                }
                Step::Expect(bytes)
            }
            "<!" => {
                let refusal = refusal(rest)?;
                // Behind replies to earlier requests it belongs to the same block.
                if let Some((_, Step::Expect(block))) = self.steps.last_mut() {
                    block.extend(refusal);
                    return Ok(());
                }
                Step::Expect(refusal)
            }
            "!!" => Step::Event(event(rest)?),
            "??" => Step::Fact(fact(rest)?),
            _ => return Err("want one of % >> >u >w << <u <w <! !! ??".to_owned()),
        };
        self.steps.push((at, step));
        Ok(())
    }

    fn setting(&mut self, text: &str) -> Result<(), String> {
        match text.split(' ').collect::<Vec<_>>()[..] {
            ["protocol", "echo"] => self.protocol = Protocol::Echo,
            ["merge-chunks"] => self.merge_chunks = true,
            ["limit", name, value] => set_limit(&mut self.limits, name, number(value)?)?,
            ["file", path, len, content_type] => self.files.push(FakeFile {
                path: path.to_owned(),
                len: number(len)?,
                modified_unix_s: STARTED_UNIX_S,
                content_type: content_type.to_owned(),
            }),
            _ => return Err("no such setting".to_owned()),
        }
        Ok(())
    }

    pub fn sent_len(&self) -> usize {
        let len = |(_, step): &(usize, Step)| match step {
            Step::Send(bytes) => bytes.len(),
            _ => 0,
        };
        self.steps.iter().map(len).sum()
    }

    /// Plays the case, and panics if it differs from the text.
    pub fn replay(&self, cuts: Cuts, habits: Habits) {
        let world = World::new(self.protocol, self.limits.clone(), &self.files);
        let mut driver = Driver::new(&world, habits);
        let mut rng = StdRng::seed_from_u64(if let Cuts::Random(seed) = cuts { seed } else { 0 });
        let mut sent = 0;
        for (at, step) in &self.steps {
            let place = || format!("{}, line {at}, {cuts:?}, {habits:?}", self.name);
            match step {
                Step::Send(bytes) => {
                    send(&mut driver, bytes, sent, cuts, &mut rng);
                    sent += bytes.len();
                }
                Step::Expect(bytes) => self.compare(&driver.take_output(), bytes, &place()),
                Step::Event(event) => event.happen(&mut driver),
                Step::Fact(fact) => fact.check(&driver, &world, &place()),
            }
        }
        let rest = driver.take_output();
        let place = format!("{}, at the end, {cuts:?}, {habits:?}", self.name);
        assert!(rest.is_empty(), "{place}: more output: {}", rest.escape_ascii());
    }

    fn compare(&self, got: &[u8], wanted: &[u8], place: &str) {
        let (got, wanted) = if self.merge_chunks {
            (merge_chunks(got), merge_chunks(wanted))
        } else {
            (got.to_vec(), wanted.to_vec())
        };
        if got == wanted {
            return;
        }
        let same = got.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        let show = |bytes: &[u8]| {
            let from = same.saturating_sub(40);
            bytes[from..bytes.len().min(same + 160)].escape_ascii().to_string()
        };
        panic!(
            "{place}: output differs from byte {same} on\n  \
             wanted ({} bytes) ..{}\n  got    ({} bytes) ..{}",
            wanted.len(),
            show(&wanted),
            got.len(),
            show(&got),
        );
    }
}

fn send(driver: &mut Driver, bytes: &[u8], before: usize, cuts: Cuts, rng: &mut StdRng) {
    match cuts {
        Cuts::Whole => driver.arrive(bytes),
        Cuts::EveryByte => bytes.iter().for_each(|&byte| driver.arrive(&[byte])),
        Cuts::At(at) => {
            let (front, back) = bytes.split_at(at.saturating_sub(before).min(bytes.len()));
            driver.arrive(front);
            driver.arrive(back);
        }
        Cuts::Random(_) => {
            let mut rest = bytes;
            while !rest.is_empty() {
                // Small and large parts: a uniform length would hardly try small ones.
                let most = 1usize << rng.random_range(0..12);
                let (piece, left) = rest.split_at(rng.random_range(1..=most).min(rest.len()));
                driver.arrive(piece);
                rest = left;
            }
        }
    }
}

impl Event {
    fn happen(self, driver: &mut Driver) {
        match self {
            Event::Eof => driver.arrive_eof(),
            Event::Drain => driver.drain(),
            Event::Reset => driver.reset(),
            Event::Clock(time) => driver.pass(time),
            Event::PeerReads(bytes) => driver.peer_reads(bytes),
            Event::Files(file_reply) => {
                driver.file_reply = file_reply;
                driver.run();
            }
        }
    }
}

impl Fact {
    fn check(self, driver: &Driver, world: &World, place: &str) {
        let wants = driver.conn.wants();
        match self {
            Fact::Open => assert!(wants.is_some(), "{place}: closed as {:?}", driver.ended()),
            Fact::Closed(outcome) => assert_eq!(driver.ended(), Some(outcome), "{place}"),
            Fact::Fin(sent) => assert_eq!(driver.fin_sent(), sent, "{place}: FIN sent"),
            Fact::Reading(read) => {
                assert_eq!(wants.is_some_and(|w| w.read), read, "{place}: reading");
            }
            Fact::Idle(idle) => assert_eq!(driver.conn.is_idle(), idle, "{place}: idle"),
            Fact::Deadline(after) => {
                let at = wants.and_then(|w| w.deadline).map(|at| at - driver.now());
                assert_eq!(at, Some(after), "{place}: time to the deadline");
            }
            Fact::Unread(bytes) => assert_eq!(driver.unread(), bytes, "{place}: unread"),
            Fact::Requests(count) => assert_eq!(world.totals().requests, count, "{place}"),
        }
    }
}

fn event(text: &str) -> Result<Event, String> {
    Ok(match text.split(' ').collect::<Vec<_>>()[..] {
        ["eof"] => Event::Eof,
        ["drain"] => Event::Drain,
        ["reset"] => Event::Reset,
        ["clock", time] => Event::Clock(duration(time.strip_prefix('+').ok_or("want +TIME")?)?),
        ["peer", "stops", "reading"] => Event::PeerReads(Some(0)),
        ["peer", "reads", "on"] => Event::PeerReads(None),
        ["peer", "reads", n, "bytes"] => Event::PeerReads(Some(number(n)? as usize)),
        ["files", "prompt"] => Event::Files(FileReply::Prompt),
        ["files", "held"] => Event::Files(FileReply::Held),
        ["files", "failing"] => Event::Files(FileReply::Failing),
        ["files", "truncated"] => Event::Files(FileReply::Truncated),
        ["files", "short", n] => Event::Files(FileReply::Short(number(n)? as usize)),
        _ => return Err("no such event".to_owned()),
    })
}

fn fact(text: &str) -> Result<Fact, String> {
    Ok(match text.split(' ').collect::<Vec<_>>()[..] {
        ["open"] => Fact::Open,
        ["closed", name] => Fact::Closed(outcome(name)?),
        ["fin"] => Fact::Fin(true),
        ["no", "fin"] => Fact::Fin(false),
        ["reading"] => Fact::Reading(true),
        ["not", "reading"] => Fact::Reading(false),
        ["idle"] => Fact::Idle(true),
        ["not", "idle"] => Fact::Idle(false),
        ["deadline", time] => Fact::Deadline(duration(time)?),
        ["unread", n] => Fact::Unread(number(n)? as usize),
        ["requests", n] => Fact::Requests(number(n)?),
        _ => return Err("no such fact".to_owned()),
    })
}

fn outcome(name: &str) -> Result<Outcome, String> {
    let all = [
        Outcome::Completed,
        Outcome::Retired,
        Outcome::IdleTimeout,
        Outcome::RequestTimeout,
        Outcome::WriteTimeout,
        Outcome::Rejected,
        Outcome::Truncated,
        Outcome::Reset,
        Outcome::FileFailed,
        Outcome::DrainTimeout,
    ];
    let found = all.into_iter().find(|outcome| format!("{outcome:?}") == name);
    found.ok_or_else(|| format!("no outcome {name}"))
}

fn set_limit(limits: &mut Limits, name: &str, value: u64) -> Result<(), String> {
    match name {
        "head_bytes_max" => limits.head_bytes_max = value as usize,
        "target_bytes_max" => limits.target_bytes_max = value as usize,
        "body_bytes_max" => limits.body_bytes_max = value,
        "output_high_water_bytes" => limits.output_high_water_bytes = value as usize,
        "file_read_bytes_max" => limits.file_read_bytes_max = value as usize,
        "message_bytes_max" => limits.message_bytes_max = value as usize,
        "push_high_water_bytes" => limits.push_high_water_bytes = value as usize,
        "keepalive_requests_max" => limits.keepalive_requests_max = value,
        "delay_ms_max" => limits.delay_ms_max = value,
        "work_us_max" => limits.work_us_max = value,
        "reply_bytes_max" => limits.reply_bytes_max = value,
        "idle_timeout_ms" => limits.idle_timeout_ms = value,
        "head_timeout_ms" => limits.head_timeout_ms = value,
        "body_timeout_ms" => limits.body_timeout_ms = value,
        "write_timeout_ms" => limits.write_timeout_ms = value,
        "linger_timeout_ms" => limits.linger_timeout_ms = value,
        "drain_timeout_ms" => limits.drain_timeout_ms = value,
        _ => return Err(format!("no limit {name}")),
    }
    Ok(())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{text}: {error}"))
}

/// The complete refusal for `400 Bad Request: sentence`.
fn refusal(text: &str) -> Result<Vec<u8>, String> {
    let (status, sentence) = text.split_once(": ").ok_or("want STATUS: SENTENCE")?;
    let length = sentence.len() + 1;
    Ok(format!(
        "HTTP/1.1 {status}\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{sentence}\n"
    )
    .into_bytes())
}

pub(super) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let kind = rest.chars().next().ok_or("a line ends in \\")?;
        rest = &rest[kind.len_utf8()..];
        match kind {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            '\\' => bytes.push(b'\\'),
            'x' => {
                let digits = rest.get(..2).ok_or("want two digits after \\x")?;
                let byte = u8::from_str_radix(digits, 16).map_err(|e| format!("\\x: {e}"))?;
                bytes.push(byte);
                rest = &rest[2..];
            }
            '{' => {
                let (inside, after) = rest.split_once('}').ok_or("want } after \\{")?;
                bytes.extend(many(inside)?);
                rest = after;
            }
            _ => return Err(format!("no escape \\{kind}")),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

fn many(inside: &str) -> Result<Vec<u8>, String> {
    match inside.split(' ').collect::<Vec<_>>()[..] {
        ["pattern", from, to] => return Ok(pattern(number(from)?, number(to)?)),
        ["letters", from, to] => return Ok(letters(number(from)?, number(to)?)),
        _ => {}
    }
    let (count, text) = inside.split_once('*').ok_or("want N*TEXT, pattern or letters")?;
    Ok(unescape(text)?.repeat(number(count)? as usize))
}

/// Joins the chunks of each chunked reply, so that replies compare by content.
pub fn merge_chunks(output: &[u8]) -> Vec<u8> {
    const HEAD_END: &[u8] = b"Transfer-Encoding: chunked\r\n\r\n";
    let mut merged = Vec::new();
    let mut rest = output;
    while let Some(at) = rest.windows(HEAD_END.len()).position(|window| window == HEAD_END) {
        let (head, mut body) = rest.split_at(at + HEAD_END.len());
        merged.extend_from_slice(head);
        let mut content = Vec::new();
        let mut ended = false;
        while let Some((size, after)) = chunk_size(body).filter(|_| !ended) {
            let Some(chunk) = after.get(..size) else { break };
            content.extend_from_slice(chunk);
            let end = after[size..].strip_prefix(b"\r\n");
            body = end.unwrap_or_else(|| panic!("a chunk without CRLF: {}", after.escape_ascii()));
            ended = size == 0;
        }
        merged.extend(format!("[{} bytes, ended: {ended}]", content.len()).into_bytes());
        merged.extend(content);
        rest = body;
    }
    merged.extend_from_slice(rest);
    merged
}

fn chunk_size(body: &[u8]) -> Option<(usize, &[u8])> {
    let end = body.windows(2).position(|window| window == b"\r\n")?;
    let digits = std::str::from_utf8(&body[..end]).ok()?;
    Some((usize::from_str_radix(digits, 16).ok()?, &body[end + 2..]))
}
