//! A scenario: a workload as a TOML file (toml.io), one of iolab's or the user's own. Its keys are
//! the fields of [`record::Workload`], most of them optional.

use std::ops::Range;
use std::path::Path;

use record::{Arrivals, Protocol, Workload};
use serde::Deserialize;
use toml::Spanned;

pub mod workload;

use workload::{CONNECTIONS, FILE_BYTES, FILE_NAME, FILES_PATH, TEXT_BYTES, WS_CHAT, WS_ECHO};

/// Extension of a scenario file; the rest of its name is that of the workload.
const EXTENSION: &str = "toml";

/// Maximum length of a workload's name, for tables of 100 columns and names of plots.
const NAME_CHARS_MAX: usize = 32;

/// Default size of an echo message, a WebSocket message or a POST's body, in bytes.
const PAYLOAD_BYTES: u64 = 64;

/// The path whose reply is the request's body.
const ECHO_PATH: &str = "/echo";

/// The WebSocket route whose server sends by the clock.
const WS_CLOCK: &str = "/ws/clock";

/// Maximum size of a POST over TLS, in bytes. The verification sends it before it reads, so it must
/// fit into the socket buffers and the server's buffer (64 KiB).
const TLS_PAYLOAD_BYTES_MAX: u64 = 64 * 1024;

/// Maximum size of a WebSocket message, in bytes. Servers accept longer ones (`message_bytes_max`
/// in --describe), but the verification has the same limit as over TLS.
const WS_PAYLOAD_BYTES_MAX: u64 = 64 * 1024;

/// End of a message about a wrong file.
const REMEDY: &str = "compare with a scenario that works: iolab bench --show http-keepalive";

/// The keys of a scenario file, with their positions for messages.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    description: Spanned<String>,
    protocol: Spanned<Protocol>,
    tls: Option<Spanned<bool>>,
    tls_resume: Option<Spanned<bool>>,
    fan_out: Option<Spanned<bool>>,
    post: Option<Spanned<bool>>,
    path: Option<Spanned<String>>,
    payload_bytes: Option<Spanned<u64>>,
    connections: Option<Spanned<u32>>,
    connect_per_request: Option<Spanned<bool>>,
    pipelining: Option<Spanned<u32>>,
    streaming: Option<Spanned<bool>>,
    rate_per_s: Option<Spanned<u32>>,
    arrivals: Option<Spanned<Arrivals>>,
    idle_connections: Option<Spanned<u32>>,
    idle_sample_connections: Option<Spanned<u32>>,
    processors_sleep: Option<Spanned<bool>>,
}

/// The path of a scenario that has none.
fn usual_path(protocol: Protocol) -> Option<String> {
    let path = match protocol {
        Protocol::Echo => None,
        Protocol::Http1 | Protocol::Http2 => Some("/"),
        Protocol::WebSocket => Some(WS_ECHO),
    };
    path.map(str::to_owned)
}

/// The names of the fields of [`Scenario`], from the message about an unknown field.
pub fn keys() -> Vec<String> {
    let refused = toml::from_str::<Scenario>("no-such-key = 1").err();
    let message = refused.map(|error| error.message().to_owned()).unwrap_or_default();
    // "unknown field `no-such-key`, expected one of `description`, `protocol`, ..."
    let quoted = message.split('`').skip(1).step_by(2).skip(1);
    quoted.map(str::to_owned).collect()
}

/// Whether the load generator supports a workload; the error says why not, and what to write
/// instead.
pub type Check = fn(&Workload) -> Result<(), String>;

/// Reads a user's scenario file.
///
/// # Errors
/// One sentence with the file, the line and the remedy.
pub fn read(path: &Path, check: Check) -> Result<Workload, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("--scenario: cannot read {}: {error}", path.display()))?;
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let is_toml = path.extension().is_some_and(|extension| extension == EXTENSION);
    let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !is_toml || stem.is_empty() || stem.len() > NAME_CHARS_MAX || !stem.chars().all(fit) {
        return Err(format!(
            "--scenario: {} must have a name of at most \
             {NAME_CHARS_MAX} characters (a-z, 0-9, -) and .{EXTENSION}: rename it",
            path.display()
        ));
    }
    parse(stem, &path.display().to_string(), &text, check)
}

/// Reads the text of a scenario. `file`: the name for messages.
///
/// # Errors
/// One sentence with the file, the line and the remedy.
pub fn parse(name: &str, file: &str, text: &str, check: Check) -> Result<Workload, String> {
    let scenario: Scenario = toml::from_str(text).map_err(|error| {
        let why = error.message().replace('\n', ", ");
        match error.span() {
            // A missing key has no line.
            Some(span) if !why.starts_with("missing field") => {
                format!("{}: {why}; {REMEDY}", place(file, text, &span))
            }
            _ => format!("{file}: {why}; {REMEDY}"),
        }
    })?;
    let mut draft = Draft { workload: blank(name, &scenario), file, text, check };
    draft.fill(&scenario)?;
    Ok(draft.workload)
}

fn place(file: &str, text: &str, span: &Range<usize>) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    format!("{file}, line {}", before.matches('\n').count() + 1)
}

fn blank(name: &str, scenario: &Scenario) -> Workload {
    let protocol = *scenario.protocol.as_ref();
    Workload {
        name: name.to_owned(),
        description: scenario.description.as_ref().clone(),
        protocol,
        path: usual_path(protocol),
        payload_bytes: if protocol.is_http() { TEXT_BYTES } else { PAYLOAD_BYTES },
        post: false,
        tls: false,
        tls_resume: false,
        fan_out: false,
        connections: CONNECTIONS,
        connect_per_request: false,
        pipelining: 1,
        streaming: false,
        rate_per_s: None,
        arrivals: Arrivals::Poisson,
        idle_connections: 0,
        idle_sample_connections: 0,
        processors_sleep: false,
    }
}

struct Draft<'a> {
    workload: Workload,
    file: &'a str,
    text: &'a str,
    check: Check,
}

impl Draft<'_> {
    /// Sets the keys one by one and checks after each, so that a message can name the line.
    fn fill(&mut self, scenario: &Scenario) -> Result<(), String> {
        if scenario.description.as_ref().trim().is_empty() {
            return self.blame(&scenario.description, "describe the workload in one sentence");
        }
        self.set(&scenario.post, |w, post| {
            if post && w.path.is_some() {
                (w.path, w.payload_bytes) = (Some(ECHO_PATH.to_owned()), PAYLOAD_BYTES);
            }
            w.post = post;
        })?;
        self.set(&scenario.tls, |w, tls| w.tls = tls)?;
        self.set(&scenario.fan_out, |w, fan_out| {
            if fan_out && w.protocol == Protocol::WebSocket {
                w.path = Some(WS_CHAT.to_owned());
            }
            w.fan_out = fan_out;
        })?;
        self.reply(scenario)?;
        self.set(&scenario.connections, |w, connections| w.connections = connections)?;
        self.set(&scenario.connect_per_request, |w, each| w.connect_per_request = each)?;
        self.set(&scenario.tls_resume, |w, resume| w.tls_resume = resume)?;
        self.set(&scenario.streaming, |w, streaming| w.streaming = streaming)?;
        self.set(&scenario.pipelining, |w, pipelining| w.pipelining = pipelining)?;
        self.set(&scenario.rate_per_s, |w, rate| w.rate_per_s = Some(rate))?;
        if let (Some(arrivals), None) = (&scenario.arrivals, &scenario.rate_per_s) {
            let why = "arrivals are for an open loop: add rate_per_s, or omit `arrivals`";
            return self.blame(arrivals, why);
        }
        self.set(&scenario.arrivals, |w, arrivals| w.arrivals = arrivals)?;
        self.set(&scenario.idle_connections, |w, idle| w.idle_connections = idle)?;
        self.set(&scenario.idle_sample_connections, |w, idle| w.idle_sample_connections = idle)?;
        self.set(&scenario.processors_sleep, |w, sleep| w.processors_sleep = sleep)
    }

    /// Path and length of the reply, which must agree.
    fn reply(&mut self, scenario: &Scenario) -> Result<(), String> {
        let Some(path) = &scenario.path else {
            return self.payload(&scenario.payload_bytes);
        };
        if self.workload.protocol == Protocol::Echo {
            let why = "an echo server has no paths: omit `path`, or write protocol = \"http\"";
            return self.blame(path, why);
        }
        self.workload.path = Some(path.as_ref().clone());
        match (known_bytes(path.as_ref()), &scenario.payload_bytes) {
            (Some(bytes), _) if !self.workload.post => self.workload.payload_bytes = bytes,
            (None, None) if !self.workload.post && !is_websocket(&self.workload) => {
                let why = "the length of the replies on this path is unknown: add payload_bytes";
                return self.blame(path, why);
            }
            _ => {}
        }
        self.ask(path)?;
        self.payload(&scenario.payload_bytes)
    }

    fn payload(&mut self, given: &Option<Spanned<u64>>) -> Result<(), String> {
        let Some(given) = given else { return Ok(()) };
        let known = self.workload.path.as_deref().and_then(known_bytes);
        if let Some(known) = known.filter(|known| !self.workload.post && known != given.as_ref()) {
            let why = format!("the reply on this path has {known} bytes: omit payload_bytes");
            return self.blame(given, &why);
        }
        self.workload.payload_bytes = *given.as_ref();
        self.ask(given)
    }

    fn set<T: Clone>(
        &mut self,
        value: &Option<Spanned<T>>,
        put: impl FnOnce(&mut Workload, T),
    ) -> Result<(), String> {
        let Some(value) = value else { return Ok(()) };
        put(&mut self.workload, value.as_ref().clone());
        self.ask(value)
    }

    /// Checks the workload so far; `last`, the key set last, is named in the message.
    fn ask<T>(&self, last: &Spanned<T>) -> Result<(), String> {
        let why = complaint(&self.workload).or_else(|| (self.check)(&self.workload).err());
        why.map_or(Ok(()), |why| self.blame(last, &why))
    }

    fn blame<T>(&self, key: &Spanned<T>, why: &str) -> Result<(), String> {
        Err(format!("{}: {why}", place(self.file, self.text, &key.span())))
    }
}

fn is_websocket(workload: &Workload) -> bool {
    workload.protocol == Protocol::WebSocket
}

/// Length of the reply's body on the paths of all servers of this project.
fn known_bytes(path: &str) -> Option<u64> {
    match (path.strip_prefix("/bytes/"), path.strip_prefix(FILES_PATH)) {
        (Some(count), _) => count.parse().ok(),
        (_, Some(FILE_NAME)) => Some(FILE_BYTES),
        _ => (path == "/").then_some(TEXT_BYTES),
    }
}

/// What the load generator supports but this experiment does not. The generator checks its own
/// limits.
fn complaint(workload: &Workload) -> Option<String> {
    let path = workload.path.as_deref();
    let other_file = path.and_then(|path| path.strip_prefix(FILES_PATH));
    let sample = workload.idle_sample_connections;
    let http = workload.protocol == Protocol::Http1;
    let complaints = [
        (
            workload.post && !http,
            format!(
                "a POST is measured over HTTP/1.1, not over {}: omit `post`, or write \
                 protocol = \"http\"",
                workload.protocol
            ),
        ),
        (
            workload.post && path.is_some_and(|path| path != ECHO_PATH),
            format!("a POST needs the route {ECHO_PATH}, which sends the body back: omit `path`"),
        ),
        (
            !workload.post && path == Some(ECHO_PATH),
            format!("{ECHO_PATH} needs POST: add post = true"),
        ),
        (
            other_file.is_some_and(|name| name != FILE_NAME),
            format!(
                "the document root of a run holds only {FILE_NAME}: use {FILES_PATH}{FILE_NAME}"
            ),
        ),
        (
            workload.rate_per_s == Some(0),
            "no request would ever fall due: give at least 1, or omit it for a closed loop".into(),
        ),
        (
            sample > 0 && sample < workload.idle_connections,
            format!(
                "the idle sample includes all idle connections: give at least {}, or 0 for no \
                 sample",
                workload.idle_connections
            ),
        ),
    ];
    let complaints = complaints.into_iter().chain(complaints_of_tls(workload));
    let mut complaints = complaints.chain(complaints_of_websocket(workload));
    complaints.find_map(|(complaint, why)| complaint.then_some(why))
}

/// Errors of TLS: whether it applies, and the message.
fn complaints_of_tls(workload: &Workload) -> [(bool, String); 4] {
    [
        (
            workload.tls && workload.protocol == Protocol::Echo,
            "TLS needs HTTP or WebSocket: omit `tls`, or write protocol = \
             \"http\""
                .into(),
        ),
        (
            workload.tls && workload.post && workload.payload_bytes > TLS_PAYLOAD_BYTES_MAX,
            format!("over TLS a POST may have at most {TLS_PAYLOAD_BYTES_MAX} bytes: give fewer"),
        ),
        (
            workload.tls_resume && !workload.tls,
            "without TLS there is no session to resume: add tls = true".into(),
        ),
        (
            workload.tls_resume && !workload.connect_per_request,
            "a session is resumed by a new connection: add connect_per_request = true".into(),
        ),
    ]
}

/// Errors of a WebSocket: whether it applies, and the message.
fn complaints_of_websocket(workload: &Workload) -> [(bool, String); 6] {
    let path = workload.path.as_deref().unwrap_or_default();
    let (websocket, chat) = (is_websocket(workload), workload.fan_out);
    [
        (chat && !websocket, "a fan-out needs WebSockets: write protocol = \"websocket\"".into()),
        (
            websocket && chat && path != WS_CHAT,
            format!("a fan-out needs the route {WS_CHAT}: omit `path`"),
        ),
        (
            chat && workload.connections < 2,
            "a chat needs a sender and a receiver: give at least 2 connections".into(),
        ),
        (
            websocket && !chat && path == WS_CHAT,
            format!("{WS_CHAT} sends a message to the others only: add fan_out = true"),
        ),
        (
            websocket && path.starts_with(WS_CLOCK),
            format!("{WS_CLOCK} sends without requests, which cannot be measured: use {WS_ECHO}"),
        ),
        (
            websocket && workload.payload_bytes > WS_PAYLOAD_BYTES_MAX,
            format!("a message may have at most {WS_PAYLOAD_BYTES_MAX} bytes: give fewer"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(text: &str) -> Workload {
        parse("mine", "mine.toml", text, |_| Ok(())).unwrap()
    }

    #[test]
    fn an_unknown_key_gets_one_sentence_with_all_that_are_known() {
        let text = "description = \"x\"\nprotocol = \"http\"\nconections = 5\n";
        let told = parse("mine", "mine.toml", text, |_| Ok(())).unwrap_err();
        assert!(told.starts_with("mine.toml, line 3: unknown field `conections`"), "{told}");
        assert!(keys().iter().all(|key| told.contains(&format!("`{key}`"))), "{told}");
        assert_eq!(told.lines().count(), 1);
    }

    #[test]
    fn what_is_left_out_is_as_in_most_comparisons() {
        let http = good("description = \"d\"\nprotocol = \"http\"");
        assert_eq!((http.path.as_deref(), http.payload_bytes), (Some("/"), 13));
        assert_eq!((http.connections, http.pipelining, http.rate_per_s), (64, 1, None));
        let echo = good("description = \"d\"\nprotocol = \"echo\"");
        assert_eq!((echo.path, echo.payload_bytes, echo.post), (None, 64, false));
        let h2 = good("description = \"d\"\nprotocol = \"h2\"");
        assert_eq!((h2.path.as_deref(), h2.payload_bytes, h2.tls), (Some("/"), 13, false));
        let ws = good("description = \"d\"\nprotocol = \"websocket\"");
        assert_eq!((ws.path.as_deref(), ws.payload_bytes), (Some("/ws/echo"), 64));
    }

    #[test]
    fn every_key_is_read() {
        let text = "description = \"d\"\nprotocol = \"http\"\npost = true\n\
                    payload_bytes = 1_000\nconnections = 8\nrate_per_s = 500\n\
                    arrivals = \"constant\"\nidle_connections = 10\nidle_sample_connections = 20";
        let posted = good(text);
        assert_eq!((posted.path.as_deref(), posted.payload_bytes), (Some("/echo"), 1_000));
        assert_eq!((posted.connections, posted.rate_per_s), (8, Some(500)));
        assert_eq!(posted.arrivals, Arrivals::Constant);
        assert_eq!((posted.idle_connections, posted.idle_sample_connections), (10, 20));
        let text = "description = \"d\"\nprotocol = \"http\"\npath = \"/bytes/1000\"\n\
                    connect_per_request = true";
        let bytes = good(text);
        assert!(bytes.connect_per_request && bytes.payload_bytes == 1_000);
        let text = "description = \"d\"\nprotocol = \"echo\"\nstreaming = true\nconnections = 8";
        let stream = good(text);
        assert!(stream.streaming && stream.connections == 8);
        let text = "description = \"d\"\nprotocol = \"websocket\"\nfan_out = true\ntls = true\n\
                    payload_bytes = 9\nconnections = 3";
        let chat = good(text);
        assert_eq!((chat.path.as_deref(), chat.payload_bytes), (Some("/ws/chat"), 9));
        assert!(chat.fan_out && chat.tls && chat.connections == 3);
        let text = "description = \"d\"\nprotocol = \"http\"\ntls = true\ntls_resume = true\n\
                    connect_per_request = true";
        assert!(good(text).tls_resume);
        let own = "description = \"d\"\nprotocol = \"http\"\npath = \"/x\"\npayload_bytes = 7";
        assert_eq!(good(own).payload_bytes, 7);
    }

    #[test]
    fn a_file_names_its_workload() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "description = \"d\"\nprotocol = \"echo\"").unwrap();
            path
        };
        assert_eq!(read(&path("my-own-1.toml"), |_| Ok(())).unwrap().name, "my-own-1");
        for name in ["a b.toml", "Echo.toml", "echo.txt", ".toml", "a,b.toml"] {
            assert!(read(&path(name), |_| Ok(())).unwrap_err().contains("rename it"), "{name}");
        }
        let missing = read(&folder.path().join("none.toml"), |_| Ok(()));
        assert!(missing.unwrap_err().contains("cannot read"));
    }
}
