//! Other load generators near capacity, in turn with this one on the same running server: they are
//! stopped (SIGSTOP) while it is not their turn, so that what slows the machine down meets both.

use std::io::{ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use load::Clocks;
use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use record::Workload;
use rig::discover::Found;

use super::lab::{Lab, go_on, pinned};
use super::{Seen, Stop, Trap, quiet};
use rig::server::Server;
use rig::slices::Awake;
use verdict::statistics::median;

/// The checks of this file.
pub const TRAPS: &[Trap] = &[
    Trap {
        name: "wrk-agreement",
        rule: 5,
        claim: "Near the capacity of a server wrk and this client say the same of it, and this one \
                needs less CPU.",
        expected: EXPECTED,
        fails_if: FAILS_IF,
        takes_s: 40.0,
        check: |lab| agreement(lab, &WRK),
    },
    Trap {
        name: "h2load-agreement",
        rule: 5,
        claim: "Near the capacity of a server h2load --h1 and this client say the same of it.",
        expected: EXPECTED,
        fails_if: FAILS_IF,
        takes_s: 40.0,
        check: |lab| agreement(lab, &H2LOAD),
    },
];

const EXPECTED: &str = "requests/s and the server's CPU per request within 2 % (medians of 7 \
                        runs), and the client's CPU per request <= 0.80 x wrk's";
const FAILS_IF: &str = "more than 2 % of what is done are not counted, or counted twice, or CPU \
                        time is billed to the wrong side";

/// Work for each reply, in microseconds: so much that the server is the limit with either client.
/// With a reply that costs nothing wrk is, and then the rates are of two clients.
const PATH: &str = "/work/20";

/// Another load generator: how it is asked, and what it says.
struct Tool {
    name: &'static str,
    package: &'static str,
    arguments: &'static [&'static str],
    /// The line that says how many requests were answered, and which of its words does.
    says: (&'static str, usize),
    /// What it says where something went wrong.
    trouble: &'static [&'static str],
}

const CONNECTIONS: u32 = 64;
/// From the start of the other tool to its end, as its argument says it.
const LIFE: Duration = Duration::from_secs(4);

const WRK: Tool = Tool {
    name: "wrk",
    package: "wrk",
    arguments: &["--threads=1", "--connections=64", "--duration=4s"],
    says: ("requests in", 0),
    trouble: &["Non-2xx", "Socket errors"],
};

const H2LOAD: Tool = Tool {
    name: "h2load",
    package: "nghttp2-client",
    arguments: &["--h1", "--threads=1", "--clients=64", "--duration=4"],
    says: ("requests: ", 7),
    trouble: &["process failure"],
};

/// What one side did in its turns, together.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    requests: f64,
    time_s: f64,
    server_us: f64,
    client_us: f64,
}

impl Done {
    /// Requests/s, and CPU of the server and of the client per request.
    fn figures(self) -> [f64; 3] {
        let Done { requests, time_s, server_us, client_us } = self;
        [requests / time_s, server_us / requests, client_us / requests]
    }

    fn to(self, other: Done) -> [f64; 3] {
        let (ours, theirs) = (self.figures(), other.figures());
        [0, 1, 2].map(|at| ours[at] / theirs[at])
    }
}

fn agreement(lab: &Lab, tool: &Tool) -> Result<Seen, Stop> {
    const RUNS: usize = 7;
    let plain = lab.workload("http-keepalive")?;
    let workload = Workload { connections: CONNECTIONS, path: Some(PATH.to_owned()), ..plain };
    // Where a processor sleeps between two requests, its waking is most of what is compared.
    let _awake = Awake::hold().ok();
    let found = lab.found("epoll")?;
    let runs = (0..RUNS).map(|_| {
        let [ours, theirs] = in_turn(lab, &found, &workload, tool)?;
        Ok::<_, Stop>(ours.to(theirs))
    });
    let runs = runs.collect::<Result<Vec<_>, _>>()?;
    let middle = |at: usize| {
        median(&runs.iter().map(|ratios| ratios[at]).collect::<Vec<_>>()).unwrap_or(0.0)
    };
    let [rate, server, client] = [middle(0), middle(1), middle(2)];
    let told = format!(
        "requests/s {rate:.3} x, the server's CPU per request {server:.3} x, the client's \
         {client:.2} x that of {}",
        tool.name
    );
    Ok(Seen::new(tool.agrees([rate, server, client]), told)
        .figure("requests_ratio", rate)
        .figure("server_cpu_ratio", server)
        .figure("client_cpu_ratio", client))
}

/// A server, asked by this client and by the other tool in turn.
fn in_turn(lab: &Lab, found: &Found, workload: &Workload, tool: &Tool) -> Result<[Done; 2], Stop> {
    /// Short against the drift of a machine; long against the replies of the first and the last
    /// round trip, of which the clock of one side or the other sees a part only.
    const TURN: Duration = Duration::from_millis(250);
    /// The server answers what the other tool asked before it was stopped.
    const SETTLE: Duration = Duration::from_millis(2);
    go_on()?;
    let server = lab.start(found, workload)?;
    let clocks: Vec<i32> = server.processes().iter().map(|pid| pid.as_raw()).collect();
    let mut session = lab.session(&server, workload, Clocks::of(&clocks)?)?;
    session.slice(TURN)?;
    let (mut ours, mut theirs) = (Done::default(), Done::default());
    let collected_s = quiet::collected_cpu_s();
    let mut turn = Turn::begin(&server)?;
    let url = format!("http://{}{}", server.address, workload.path.as_deref().unwrap_or("/"));
    let other = Other::start(lab, tool, &url)?;
    let begun = Instant::now();
    loop {
        std::thread::sleep(TURN);
        if begun.elapsed() + 3 * TURN > LIFE {
            break;
        }
        other.signal(Signal::SIGSTOP)?;
        turn.end(&server, SETTLE, &mut theirs)?;
        let slice = session.slice(TURN)?;
        ours.requests += slice.requests as f64;
        ours.time_s += slice.elapsed_ns as f64 / 1e9;
        ours.server_us += slice.server_cpu_ns.unwrap_or(0) as f64 / 1e3;
        ours.client_us += slice.client_cpu_ns as f64 / 1e3;
        if let Some(why) = slice.ended.or_else(|| (slice.errors > 0).then(|| "errors".into())) {
            return Err(Stop::Wrong(format!("this client: {why}")));
        }
        turn = Turn::begin(&server)?;
        other.signal(Signal::SIGCONT)?;
    }
    theirs.requests = other.requests(tool)?;
    turn.end(&server, Duration::ZERO, &mut theirs)?;
    theirs.client_us = (quiet::collected_cpu_s() - collected_s) * 1e6;
    Ok([ours, theirs])
}

/// The other tool's turn.
struct Turn {
    begun: Instant,
    server_ns: u64,
}

impl Turn {
    fn begin(server: &Server) -> Result<Turn, Stop> {
        Ok(Turn { begun: Instant::now(), server_ns: cpu_ns(server)? })
    }

    fn end(&self, server: &Server, settle: Duration, sum: &mut Done) -> Result<(), Stop> {
        sum.time_s += self.begun.elapsed().as_secs_f64();
        std::thread::sleep(settle);
        sum.server_us += (cpu_ns(server)? - self.server_ns) as f64 / 1e3;
        Ok(())
    }
}

/// CPU time of all processes of a server so far.
fn cpu_ns(server: &Server) -> Result<u64, Stop> {
    let read = |pid| clock_getcpuclockid(pid).and_then(clock_gettime);
    let each = server.processes().into_iter().map(|pid| read(pid).map(Duration::from));
    let sum: Duration = each
        .sum::<Result<_, _>>()
        .map_err(|errno| Stop::Wrong(format!("the server's CPU clock: {errno}")))?;
    Ok(sum.as_nanos() as u64)
}

/// Another load generator that runs.
struct Other(Child);

impl Other {
    fn start(lab: &Lab, tool: &Tool, url: &str) -> Result<Other, Stop> {
        let mut command = Command::new(tool.name);
        command.args(tool.arguments).arg(url).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        pinned(lab.client_core(), || command.spawn())?.map(Other).map_err(|error| {
            let (name, package) = (tool.name, tool.package);
            match error.kind() {
                ErrorKind::NotFound => {
                    Stop::Skip(format!("{name} is not installed: apt-get install {package}"))
                }
                _ => Stop::Wrong(format!("{name}: {error}")),
            }
        })
    }

    fn signal(&self, signal: Signal) -> Result<(), Stop> {
        kill(Pid::from_raw(self.0.id() as i32), signal)
            .map_err(|errno| Stop::Wrong(format!("the other tool is gone: {errno}")))
    }

    /// Waits for its end, and says how many requests it counted.
    fn requests(mut self, tool: &Tool) -> Result<f64, Stop> {
        let mut said = String::new();
        let read = |pipe: Option<&mut dyn Read>, said: &mut String| {
            pipe.map_or(Ok(0), |pipe| pipe.read_to_string(said))
        };
        read(self.0.stdout.as_mut().map(|pipe| pipe as _), &mut said)
            .and_then(|_| read(self.0.stderr.as_mut().map(|pipe| pipe as _), &mut said))
            .and_then(|_| self.0.wait())
            .map_err(|error| Stop::Wrong(format!("{}: {error}", tool.name)))?;
        tool.read(&said).map_err(Stop::Wrong)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may be stopped, and then hears no other signal. Both fail only where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Tool {
    /// Whether ratios of requests/s and of both sides' CPU per request are within the bounds.
    fn agrees(&self, [rate, server, client]: [f64; 3]) -> bool {
        let near = |ratio: f64| (ratio - 1.0).abs() <= 0.02;
        near(rate) && near(server) && (self.name != "wrk" || client <= 0.80)
    }

    /// The number of requests in its summary.
    fn read(&self, text: &str) -> Result<f64, String> {
        if self.trouble.iter().any(|trouble| text.contains(trouble)) {
            return Err(format!("{} saw errors: {text}", self.name));
        }
        let (part, word) = self.says;
        let line = text.lines().find(|line| line.contains(part));
        let number = line.and_then(|line| line.split_whitespace().nth(word)?.parse().ok());
        number.ok_or_else(|| format!("{} did not say how many requests: {text}", self.name))
    }
}
