//! Where an experiment takes place: its servers, its links, its clock, and its recording.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use link::Link;
use record::{Call, Figure, Frame, Recording, Run, Skipped, Span};
use rig::client::Failed;
use rig::discover::{self, Found};
use rig::sample;
use rig::server::Server;
use rig::trace::{self, Visit};
use serde_json::Value;

/// The clients have closed when a server is stopped, so this is not reached.
const DRAIN_TIMEOUT: &str = "2s";

/// Why an experiment ended without its recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Ctrl-C.
    Interrupted,
    /// One sentence: what failed, and what to do.
    Because(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Interrupted => f.write_str("interrupted"),
            Refused::Because(why) => f.write_str(why),
        }
    }
}

impl From<Failed> for Refused {
    fn from(why: Failed) -> Refused {
        Refused::Because(why.into())
    }
}

impl From<String> for Refused {
    fn from(why: String) -> Refused {
        Refused::Because(why)
    }
}

/// The time since the start of a run, on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Microseconds since the start.
    pub fn now_us(&self) -> f64 {
        self.at_us(Instant::now())
    }

    /// A later time in microseconds since the start.
    pub fn at_us(&self, time: Instant) -> f64 {
        time.saturating_duration_since(self.0).as_secs_f64() * 1e6
    }
}

/// What becomes of a run that asks for a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Links {
    /// It has the link.
    Made,
    /// It is skipped, because links cannot be made here: the reason, from `link::prepare`.
    Refused(String),
    /// It is on loopback. What an experiment then says shows what it owes to the link.
    LeftOut,
}

/// What the command line gives to an experiment.
pub struct Setting<'a> {
    /// Directories with servers.
    pub servers: Vec<PathBuf>,
    /// The model to run in place of the experiment's own.
    pub model: Option<String>,
    /// What becomes of a run that asks for a link.
    pub links: Links,
    /// Whether Ctrl-C was pressed.
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
    /// Shows what is done now.
    pub progress: &'a dyn Fn(&str),
}

/// The servers, the links and the recording of one experiment.
pub struct Stage<'a> {
    setting: Setting<'a>,
    recording: Recording,
}

impl<'a> Stage<'a> {
    /// A stage that adds to this recording.
    pub fn new(setting: Setting<'a>, recording: Recording) -> Stage<'a> {
        Stage { setting, recording }
    }

    /// What was recorded.
    pub fn into_recording(self) -> Recording {
        self.recording
    }

    /// The model to run: the experiment's `own`, or that of `--model`.
    pub fn model(&self, own: &str) -> String {
        self.setting.model.clone().unwrap_or_else(|| own.to_owned())
    }

    /// A run with one server: epoll, or that of `--model`.
    pub fn arrangement(&self, name: &str, title: &str, link: Option<&str>) -> Run {
        Run {
            run: name.to_owned(),
            title: title.to_owned(),
            model: self.model("epoll"),
            arguments: Vec::new(),
            link: link.map(str::to_owned),
        }
    }

    /// Fails after Ctrl-C. To be called between two steps of an experiment.
    ///
    /// # Errors
    /// [`Refused::Interrupted`].
    pub fn go_on(&self) -> Result<(), Refused> {
        if (self.setting.interrupted)() { Err(Refused::Interrupted) } else { Ok(()) }
    }

    /// All models that can run here, in reading order. The others are recorded as skipped, with the
    /// reason in the server's words.
    ///
    /// # Errors
    /// A directory without servers.
    pub fn models(&mut self) -> Result<Vec<String>, Refused> {
        let (found, skips) = discover::servers(&self.setting.servers, &[])?;
        for skip in skips {
            self.skip(&skip.model, skip.reason);
        }
        let labels = found.into_iter().map(|found| found.model.label);
        // A flavour beside its model differs from it in a protocol that is not spoken here.
        Ok(labels.filter(|label| !label.contains('+')).collect())
    }

    /// Starts the server of a run, at the other end of the run's link if it has one. `None` if no
    /// link can be made here: the run is then recorded as skipped.
    ///
    /// # Errors
    /// Ctrl-C, or a server or a link that cannot be started.
    pub fn start(&mut self, mut run: Run) -> Result<Option<Site>, Refused> {
        self.go_on()?;
        (self.setting.progress)(&run.title);
        if self.setting.links == Links::LeftOut {
            run.link = None;
        }
        let link = match &run.link {
            None => None,
            Some(asked) => match self.link(asked)? {
                Ok(link) => Some(link),
                Err(why) => {
                    self.skip(&run.title, why);
                    return Ok(None);
                }
            },
        };
        let site = self.site(&run, link)?;
        self.recording.runs.push(run);
        Ok(Some(site))
    }

    /// For experiments that also say something on loopback: the link as asked for, or `None` if no
    /// link can be made here, and then `what` it would have shown is recorded as skipped.
    ///
    /// # Errors
    /// A link that is written wrongly.
    pub fn link_or_skip(&mut self, what: &str, asked: &str) -> Result<Option<String>, Refused> {
        if self.setting.links == Links::LeftOut {
            return Ok(None);
        }
        match self.link(asked)? {
            Ok(_) => Ok(Some(asked.to_owned())),
            Err(why) => {
                self.skip(what, why);
                Ok(None)
            }
        }
    }

    /// A link, or the reason why none can be made here.
    fn link(&self, asked: &str) -> Result<Result<Link, String>, Refused> {
        let profile = asked.parse()?;
        Ok(match &self.setting.links {
            Links::Refused(why) => Err(why.clone()),
            _ => Link::up(&profile).map_err(|refused| refused.to_string()),
        })
    }

    /// Starts the server of a run under ptrace(2), on loopback, with the protocol `echo` or `http`;
    /// lets the clients talk to it, and stops it. They return what they did, as spans. The system
    /// calls are recorded too. If this machine allows no tracing, the run is recorded as skipped.
    ///
    /// # Errors
    /// Ctrl-C, or what failed in the server or in the clients.
    pub fn trace(
        &mut self,
        run: Run,
        protocol: &str,
        clients: impl FnOnce(&mut Visit) -> Result<Vec<Span>, String>,
    ) -> Result<(), Refused> {
        self.go_on()?;
        (self.setting.progress)(&run.title);
        let found = self.found(&run.model)?;
        let common = ["--protocol", protocol, "--drain-timeout", DRAIN_TIMEOUT].map(str::to_owned);
        let flags = found.model.arguments.iter().chain(&run.arguments).cloned();
        let flags: Vec<String> = common.into_iter().chain(flags).collect();
        match trace::watch(&found.executable, &flags, &run.run, clients) {
            Ok(seen) => {
                self.recording.calls.extend(seen.calls);
                self.recording.spans.extend(seen.spans);
                self.recording.runs.push(run);
                Ok(())
            }
            Err(why) if why.starts_with(trace::REFUSED) => {
                self.skip(&run.title, why);
                Ok(())
            }
            Err(why) => Err(format!("{}: {why}", run.run).into()),
        }
    }

    /// The executable of a model.
    fn found(&self, model: &str) -> Result<Found, String> {
        let found = discover::servers(&self.setting.servers, &[model.to_owned()]);
        let (mut found, _) = found.map_err(|why| why.replace("--models", "--model"))?;
        found.pop().ok_or_else(|| format!("there is no server {model}"))
    }

    fn site(&self, run: &Run, link: Option<Link>) -> Result<Site, Refused> {
        let found = self.found(&run.model)?;
        let host = link.as_ref().map(|link| format!("{}:0", link.server().address()));
        let listen = ["--listen", host.as_deref().unwrap_or("127.0.0.1:0"), "--protocol", "http"];
        let common = listen.into_iter().chain(["--drain-timeout", DRAIN_TIMEOUT]);
        let arguments = found.model.arguments.iter().chain(&run.arguments).cloned();
        let arguments: Vec<String> = common.map(str::to_owned).chain(arguments).collect();
        let start = || Server::start(&found.executable, &arguments, &[]);
        let server = match &link {
            Some(link) => link.server().run(start).map_err(|e| cannot_enter(&e))?,
            None => start(),
        };
        let server = server.map_err(|why| format!("{}: {why}", run.model))?;
        Ok(Site { name: run.model.clone(), server, link })
    }

    /// Records a run without a server of its own.
    pub fn run(&mut self, run: Run) {
        self.recording.runs.push(run);
    }

    /// Records that a part was left out.
    pub fn skip(&mut self, what: &str, why: String) {
        self.recording.skipped.push(Skipped { what: what.to_owned(), why });
    }

    /// Records a span.
    pub fn span(&mut self, span: Span) {
        self.recording.spans.push(span);
    }

    /// Records a system call.
    pub fn call(&mut self, call: Call) {
        self.recording.calls.push(call);
    }

    /// Records a frame.
    pub fn frame(&mut self, frame: Frame) {
        self.recording.frames.push(frame);
    }

    /// Records a point of a line.
    pub fn point(&mut self, run: &str, name: &str, x: f64, value: f64) {
        let (run, name, x) = (run.to_owned(), name.to_owned(), Some(x));
        self.recording.figures.push(Figure { run, name, x, value, interval: None });
    }

    /// Records a number of a run.
    pub fn figure(&mut self, run: &str, name: &str, value: f64) {
        let (run, name) = (run.to_owned(), name.to_owned());
        self.recording.figures.push(Figure { run, name, value, ..Figure::default() });
    }
}

fn cannot_enter(error: &std::io::Error) -> String {
    format!("a network namespace cannot be entered: {error}")
}

/// A running server, and the link to it if there is one. Dropping it kills the server, then ends
/// the link.
pub struct Site {
    name: String,
    server: Server,
    link: Option<Link>,
}

impl Site {
    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The process of the server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The threads of the server now.
    pub fn threads(&self) -> u32 {
        sample::memory(&self.server).threads
    }

    /// Does the client's work at the client's end of the link. Threads that it starts are there
    /// too.
    ///
    /// # Errors
    /// A namespace that cannot be entered.
    pub fn as_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, String> {
        match &self.link {
            Some(link) => link.client().run(work).map_err(|e| cannot_enter(&e)),
            None => Ok(work()),
        }
    }

    /// Does work at the server's end of the link.
    ///
    /// # Errors
    /// A namespace that cannot be entered.
    pub fn beside_server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, String> {
        match &self.link {
            Some(link) => link.server().run(work).map_err(|e| cannot_enter(&e)),
            None => Ok(work()),
        }
    }

    /// Stops the server. Returns its counters.
    ///
    /// # Errors
    /// A server that had ended before, or did not end as it should.
    pub fn stop(mut self) -> Result<Ended, String> {
        if let Some(how) = self.server.how_it_ended(Duration::ZERO) {
            return Err(format!("{}: {how}", self.name));
        }
        let exit = self.server.stop();
        let counters = exit.counters.filter(|_| exit.code == Some(0));
        let none = || format!("{}: the server did not end with its counters", self.name);
        let counters = counters.ok_or_else(none)?;
        Ok(Ended { name: self.name, counters, cpu_us: exit.cpu_us })
    }
}

/// The counters of a server that has ended.
#[derive(Debug)]
pub struct Ended {
    name: String,
    counters: Value,
    cpu_us: u64,
}

impl Ended {
    /// CPU time of the server, from its start to its end, in milliseconds.
    pub fn cpu_ms(&self) -> f64 {
        self.cpu_us as f64 / 1e3
    }

    /// The counter of this name, such as `connections_accepted`.
    ///
    /// # Errors
    /// A server that does not count it.
    pub fn counter(&self, name: &str) -> Result<f64, String> {
        let counter = self.counters.get(name).and_then(Value::as_f64);
        counter.ok_or_else(|| format!("{}: its last line has no {name}", self.name))
    }
}
