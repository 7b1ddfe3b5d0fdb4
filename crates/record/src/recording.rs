//! A recording: what an experiment or a trace saw, as JSON lines.
//!
//! A picture and a conclusion are pure functions of a recording, so other pictures can be drawn
//! from it later. The first line is the [`Heading`]. Each further line belongs to a [`Run`], which
//! it names, and the line of the run stands before it; only a [`Skipped`] belongs to none. Times
//! are microseconds since the start of the run, on the monotonic clock of the machine.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Environment;

/// Version of the format. A reader refuses others.
pub const RECORDING_VERSION: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// The first line.
    Heading(Box<Heading>),
    /// A run begins.
    Run(Run),
    /// Something that lasted.
    Span(Span),
    /// A system call.
    Call(Call),
    /// A frame.
    Frame(Frame),
    /// A number.
    Figure(Figure),
    /// Something that was left out.
    Skipped(Skipped),
}

/// What was recorded, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Heading {
    /// Version of this format ([`RECORDING_VERSION`]).
    pub recording_version: u32,
    /// Name of the experiment, or `trace`.
    pub experiment: String,
    /// The command that repeats it.
    pub command: String,
    /// What the reader predicted, if asked.
    #[serde(default)]
    pub prediction: Option<String>,
    /// The machine.
    pub environment: Environment,
}

/// One arrangement of clients and server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Short name, unique in the recording, such as `http2` or `epoll`.
    pub run: String,
    /// What is arranged, in a few words for a reader, such as `HTTP/2, 1 connection`.
    pub title: String,
    /// Model of the server; empty if several servers take part.
    pub model: String,
    /// Arguments of the server.
    pub arguments: Vec<String>,
    /// The link between client and server as asked for, such as `rtt=20ms`; `None` for loopback.
    pub link: Option<String>,
}

/// Something that lasted, drawn as a bar over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Span {
    /// The run that it belongs to.
    pub run: String,
    /// The row of the picture: a client, a connection, a file.
    pub lane: String,
    /// What lasted, in one word of the experiment: `connect`, `wait`, `transfer`, `queued`.
    pub kind: String,
    /// Begin, in microseconds.
    pub from_us: f64,
    /// End, in microseconds.
    pub to_us: f64,
    /// Which connection of the run, from 0.
    #[serde(default)]
    pub connection: Option<u32>,
    /// Which request of the run, from 0.
    #[serde(default)]
    pub request: Option<u32>,
    /// Text beside the bar, such as a status or a reason.
    #[serde(default)]
    pub note: String,
}

/// One system call of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Call {
    /// The run that it belongs to.
    pub run: String,
    /// The thread that made it (gettid(2)).
    pub thread_id: u32,
    /// The process of the thread (getpid(2)).
    #[serde(default)]
    pub process_id: u32,
    /// Name, such as `recvfrom`.
    pub name: String,
    /// Its arguments as text, as far as they are known.
    pub arguments: String,
    /// The descriptor that it was about, if one.
    pub descriptor: Option<i32>,
    /// What the descriptor is: `connection`, `listener`, `eventpoll` and other words of proc(5).
    /// Empty if not known.
    #[serde(default)]
    pub object: String,
    /// Which connection of the run the descriptor is, from 0; of accept(2), the new one.
    #[serde(default)]
    pub connection: Option<u32>,
    /// How many descriptors the call gives to the kernel to look at: the entries of poll(2), the
    /// members of the sets of select(2), none of epoll_wait(2). `None` for other calls.
    #[serde(default)]
    pub given: Option<u64>,
    /// Entry, in microseconds.
    pub from_us: f64,
    /// Return, in microseconds.
    pub to_us: f64,
    /// Return value, or the negative errno; `None` if the recording ended before.
    pub result: Option<i64>,
    /// Whether the thread slept in the call. `None` where this was not seen.
    pub slept: Option<bool>,
    /// Who saw it.
    pub seen_by: SeenBy,
}

/// Where the knowledge of a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SeenBy {
    /// ptrace(2), which stops the thread at entry and return.
    Ptrace,
    /// A tracepoint of the kernel.
    Tracepoint,
    /// The queues of io_uring(7) in the memory of the server, read while its thread had stopped.
    Ring,
}

/// One frame of HTTP/2 or WebSocket, as it passed the client's socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// The run that it belongs to.
    pub run: String,
    /// Which connection of the run, from 0.
    pub connection: u32,
    /// When its last byte passed, in microseconds.
    pub at_us: f64,
    /// Whether the server sent it.
    pub from_server: bool,
    /// Type in the RFC's word, such as `DATA`.
    pub kind: String,
    /// Stream identifier; 0 for the connection.
    pub stream: u32,
    /// Bytes with the frame's head.
    pub bytes: u32,
    /// Whether it ends its stream.
    pub ends_stream: bool,
}

/// One number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// The run that it belongs to.
    pub run: String,
    /// Name, which ends in its unit, such as `cpu_per_request_us`.
    pub name: String,
    /// The value on the horizontal axis, where the figure is a point of a line: descriptors,
    /// seconds.
    #[serde(default)]
    pub x: Option<f64>,
    /// The value.
    pub value: f64,
    /// An interval that covers the value with 99 %, where it was measured more than once.
    #[serde(default)]
    pub interval: Option<(f64, f64)>,
}

/// A part of the experiment that this machine does not allow. It belongs to no run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// What was left out, in the words of [`Run::title`].
    pub what: String,
    /// What is missing here, and the remedy.
    pub why: String,
}

/// All lines of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// What was recorded, and where.
    pub heading: Heading,
    /// The runs, in their order.
    pub runs: Vec<Run>,
    /// The spans of all runs.
    pub spans: Vec<Span>,
    /// The system calls of all runs.
    pub calls: Vec<Call>,
    /// The frames of all runs.
    pub frames: Vec<Frame>,
    /// The numbers of all runs.
    pub figures: Vec<Figure>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

impl Recording {
    /// A recording without runs.
    pub fn new(heading: Heading) -> Recording {
        Recording {
            heading,
            runs: Vec::new(),
            spans: Vec::new(),
            calls: Vec::new(),
            frames: Vec::new(),
            figures: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// The spans of one run.
    pub fn spans_of<'a>(&'a self, run: &'a str) -> impl Iterator<Item = &'a Span> {
        self.spans.iter().filter(move |span| span.run == run)
    }

    /// The number of this name of one run, if it was measured. Of a line: its first point.
    pub fn figure(&self, run: &str, name: &str) -> Option<f64> {
        let mut figures = self.figures.iter();
        figures.find(|figure| figure.run == run && figure.name == name).map(|figure| figure.value)
    }

    /// Reads the text of a recording.
    ///
    /// # Errors
    /// The number of the line that cannot be read, and why.
    pub fn from_json_lines(text: &str) -> Result<Recording, RecordingError> {
        let mut lines = text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty());
        let first = lines.next().ok_or(RecordingError { line: 1, why: "no line".into() })?;
        let Line::Heading(heading) = parse(first)? else {
            return Err(RecordingError { line: 1, why: "it is not a heading".into() });
        };
        let mut recording = Recording::new(*heading);
        for (index, text) in lines {
            recording
                .add(parse((index, text))?)
                .map_err(|why| RecordingError { line: index + 1, why })?;
        }
        Ok(recording)
    }

    /// Adds a line. Its run must stand before it.
    fn add(&mut self, line: Line) -> Result<(), String> {
        let run = match &line {
            Line::Heading(_) => return Err("a second heading".into()),
            Line::Run(_) | Line::Skipped(_) => None,
            Line::Span(span) => Some(&span.run),
            Line::Call(call) => Some(&call.run),
            Line::Frame(frame) => Some(&frame.run),
            Line::Figure(figure) => Some(&figure.run),
        };
        if let Some(run) = run.filter(|run| !self.runs.iter().any(|known| known.run == **run)) {
            return Err(format!("the run {run:?} does not stand before it"));
        }
        match line {
            Line::Heading(heading) => self.heading = *heading,
            Line::Run(run) => self.runs.push(run),
            Line::Span(span) => self.spans.push(span),
            Line::Call(call) => self.calls.push(call),
            Line::Frame(frame) => self.frames.push(frame),
            Line::Figure(figure) => self.figures.push(figure),
            Line::Skipped(skipped) => self.skipped.push(skipped),
        }
        Ok(())
    }

    /// The text of a recording, run after run.
    ///
    /// # Errors
    /// None of these types fails; serde_json's type says that one could.
    pub fn to_json_lines(&self) -> Result<String, serde_json::Error> {
        let mut lines = vec![Line::Heading(Box::new(self.heading.clone()))];
        lines.extend(self.skipped.iter().cloned().map(Line::Skipped));
        for run in &self.runs {
            let of = |name: &str| name == run.run;
            lines.push(Line::Run(run.clone()));
            lines.extend(self.spans.iter().filter(|l| of(&l.run)).cloned().map(Line::Span));
            lines.extend(self.calls.iter().filter(|l| of(&l.run)).cloned().map(Line::Call));
            lines.extend(self.frames.iter().filter(|l| of(&l.run)).cloned().map(Line::Frame));
            lines.extend(self.figures.iter().filter(|l| of(&l.run)).cloned().map(Line::Figure));
        }
        lines.iter().map(|line| Ok(serde_json::to_string(line)? + "\n")).collect()
    }
}

/// Reads one line. The version is checked first, so that a newer file does not fail on a field.
fn parse((index, text): (usize, &str)) -> Result<Line, RecordingError> {
    let error = |why: String| RecordingError { line: index + 1, why };
    let value: Value = serde_json::from_str(text).map_err(|e| error(e.to_string()))?;
    match value.get("recording_version").and_then(Value::as_u64) {
        Some(version) if version != u64::from(RECORDING_VERSION) => Err(error(format!(
            "its recording_version is {version} and this iolab reads {RECORDING_VERSION}"
        ))),
        _ => serde_json::from_value(value).map_err(|e| error(e.to_string())),
    }
}

/// Why a recording cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingError {
    /// Number of the line, from 1.
    pub line: usize,
    /// The reason.
    pub why: String,
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {} is not a line of a recording ({}); give a file that iolab experiment or iolab \
             trace wrote",
            self.line, self.why
        )
    }
}

impl std::error::Error for RecordingError {}

/// The JSON schema of a line of a recording.
pub fn recording_schema() -> Value {
    schemars::schema_for!(Line).to_value()
}
