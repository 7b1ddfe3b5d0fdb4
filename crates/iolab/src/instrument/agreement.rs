//! What this client says of a server, beside what the server and other load generators say of it.
//!
//! The other tool and this client take turns on one running server: the tool is stopped (SIGSTOP)
//! while it is not its turn, so that what slows the machine down meets both. Each turn is measured
//! from outside, in the same way for both: by the server's own count and by the CPU clocks, from
//! the first request to the moment from which the server does nothing.

use std::io::{ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use load::Session;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use record::Workload;
use rig::discover::Found;

use super::lab::{Lab, go_on, pinned};
use super::own_count::{OwnCount, Work, cpu_ns};
use super::{Seen, Stop, Trap, ratio};
use rig::slices::Awake;
use verdict::statistics::median;

/// The checks of this file.
pub const TRAPS: &[Trap] = &[
    Trap {
        name: "requests-counted",
        rule: 1,
        claim: "This client counts the requests that the server counts, and a client that leaves \
                out 2 % of them is found.",
        expected: "the client's count / the server's own (/stats) is 1 exactly; that of a client \
                   which does not count one slice of 50 is 0.950-0.995",
        fails_if: "replies are left out, counted twice or before they are whole, or the \
                   comparison cannot see 2 %",
        takes_s: 1.0,
        check: requests_counted,
    },
    Trap {
        name: "wrk-agreement",
        rule: 5,
        claim: "Near the capacity of a server wrk and this client say the same of it, and this one \
                needs less CPU.",
        expected: EXPECTED,
        fails_if: FAILS_IF,
        takes_s: 50.0,
        check: |lab| agreement(lab, &WRK),
    },
    Trap {
        name: "h2load-agreement",
        rule: 5,
        claim: "Near the capacity of a server h2load --h1 and this client say the same of it.",
        expected: EXPECTED,
        fails_if: FAILS_IF,
        takes_s: 50.0,
        check: |lab| agreement(lab, &H2LOAD),
    },
];

const EXPECTED: &str = "both count what the server counts (this client exactly, the other but for \
                        its 64 last requests); with 200 us of work for each reply requests/s and \
                        the server's CPU per request within 2 % (medians over pairs of turns); \
                        with 20 us the server's share of a core within 2 %, and the client's CPU \
                        per request <= 0.80 x wrk's";
const FAILS_IF: &str = "replies are left out or counted twice, a slice has not all of what it \
                        asked, or CPU time is billed to the wrong side";

/// Work for each reply, in microseconds: so much that the server is the limit with any client.
const MUCH_WORK: &str = "/work/200";

/// So little that the CPU time of a client can be compared, and still so much that the server is
/// the limit.
const SOME_WORK: &str = "/work/20";

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
const LIFE: Duration = Duration::from_secs(3);

const WRK: Tool = Tool {
    name: "wrk",
    package: "wrk",
    arguments: &["--threads=1", "--connections=64", "--duration=3s"],
    says: ("requests in", 0),
    trouble: &["Non-2xx", "Socket errors"],
};

const H2LOAD: Tool = Tool {
    name: "h2load",
    package: "nghttp2-client",
    arguments: &["--h1", "--threads=1", "--clients=64", "--duration=3"],
    says: ("requests: ", 7),
    trouble: &["process failure"],
};

/// What one side did in one of its turns.
#[derive(Debug, Clone, Copy)]
struct Done {
    /// By the server's own count.
    requests: f64,
    time_s: f64,
    server_us: f64,
    client_us: f64,
}

impl Done {
    fn between([before, after]: [Work; 2], time: Duration, client_ns: u64) -> Done {
        Done {
            requests: (after.requests - before.requests) as f64,
            time_s: time.as_secs_f64(),
            server_us: (after.cpu_ns - before.cpu_ns) as f64 / 1e3,
            client_us: client_ns as f64 / 1e3,
        }
    }

    /// Requests/s, CPU of the server and of the client per request, and the server's share of a
    /// core.
    fn figures(self) -> [f64; 4] {
        let Done { requests, time_s, server_us, client_us } = self;
        let share = server_us / 1e6 / time_s;
        [requests / time_s, server_us / requests, client_us / requests, share]
    }

    fn to(self, other: Done) -> [f64; 4] {
        let (ours, theirs) = (self.figures(), other.figures());
        [0, 1, 2, 3].map(|at| ours[at] / theirs[at])
    }
}

/// What came of one run.
struct Run {
    /// Two turns that followed each other: this client's and the other's.
    pairs: Vec<[Done; 2]>,
    /// Requests that the server counted beyond those that each client did.
    missed: [i64; 2],
}

/// Medians of this client's figures relative to the other's, over the pairs of several runs.
fn middle(runs: &[Run]) -> [f64; 4] {
    // In a turn without a reply other processes had the machine.
    let answered = |pair: &&[Done; 2]| pair.iter().all(|done| done.requests > 0.0);
    let pairs = runs.iter().flat_map(|run| &run.pairs).filter(answered);
    let ratios: Vec<_> = pairs.map(|[ours, theirs]| ours.to(*theirs)).collect();
    let middle = |at: usize| median(&ratios.iter().map(|of| of[at]).collect::<Vec<_>>());
    [0, 1, 2, 3].map(|at| middle(at).unwrap_or(0.0))
}

fn agreement(lab: &Lab, tool: &Tool) -> Result<Seen, Stop> {
    const RUNS: usize = 7;
    // Where a processor sleeps between two requests, its waking is most of what is compared.
    let _awake = Awake::hold().ok();
    let found = lab.found("epoll")?;
    let plain = lab.workload("http-keepalive")?;
    let runs = |path: &str| {
        let path = Some(path.to_owned());
        let workload = Workload { connections: CONNECTIONS, path, ..plain.clone() };
        (0..RUNS).map(|_| in_turn(lab, &found, &workload, tool)).collect::<Result<Vec<_>, _>>()
    };
    let (much, some) = (runs(MUCH_WORK)?, runs(SOME_WORK)?);
    let all = || much.iter().chain(&some);
    let most = |at: usize| all().map(|run| run.missed[at].abs()).max().unwrap_or(0);
    let missed = [most(0), most(1)];
    let counted =
        missed[0] == 0 && all().all(|run| (0..=i64::from(CONNECTIONS)).contains(&run.missed[1]));
    let (much, some) = (middle(&much), middle(&some));
    let told = format!(
        "this client's count differs from the server's by {} at most, that of {} by {}; with 200 \
         us of work requests/s {:.3} x, the server's CPU per request {:.3} x; with 20 us {:.3} x, \
         {:.3} x, the server's share of a core {:.3} x, and the client's CPU {:.2} x",
        missed[0], tool.name, missed[1], much[0], much[1], some[0], some[1], some[3], some[2]
    );
    Ok(Seen::new(counted && tool.agrees(much, some), told)
        .figure("requests_ratio", much[0])
        .figure("server_cpu_ratio", much[1])
        .figure("requests_ratio_20_us", some[0])
        .figure("server_cpu_ratio_20_us", some[1])
        .figure("server_share_ratio_20_us", some[3])
        .figure("client_cpu_ratio", some[2]))
}

/// A server, asked by this client and by the other tool in turn.
fn in_turn(lab: &Lab, found: &Found, workload: &Workload, tool: &Tool) -> Result<Run, Stop> {
    /// Short against the drift of a machine; long against the first and the last round trip.
    const TURN: Duration = Duration::from_millis(100);
    go_on()?;
    let server = lab.start(found, workload)?;
    let mut own = OwnCount::of(&server)?;
    let mut session = lab.session(&server, workload, own.clocks()?)?;
    session.slice(TURN)?;
    let begin = own.read()?.requests;
    let url = format!("http://{}{}", server.address, workload.path.as_deref().unwrap_or("/"));
    let other = Other::start(lab, tool, &url)?;
    let begun = Instant::now();
    // It connects, and is not yet compared.
    std::thread::sleep(TURN);
    other.signal(Signal::SIGSTOP)?;
    own.wait_for_rest()?;
    let (mut pairs, mut missed) = (Vec::new(), 0);
    while begun.elapsed() + 4 * TURN < LIFE {
        // Who is first changes, so that a machine that gets slower does not decide.
        let earlier = match pairs.len() % 2 {
            0 => None,
            _ => Some(theirs(&mut own, &other, TURN)?),
        };
        let (done, not_counted) = ours(&mut own, &mut session, TURN)?;
        missed += not_counted;
        pairs.push([done, earlier.map_or_else(|| theirs(&mut own, &other, TURN), Ok)?]);
    }
    other.signal(Signal::SIGCONT)?;
    let counted = other.requests(tool)?;
    own.wait_for_rest()?;
    let all = (own.read()?.requests - begin) as i64;
    let theirs = all - pairs.iter().map(|[ours, _]| ours.requests as i64).sum::<i64>();
    Ok(Run { pairs, missed: [missed, theirs - counted as i64] })
}

/// A turn of this client, and the requests in it that the server counted and this client did not.
fn ours(own: &mut OwnCount, client: &mut Session, turn: Duration) -> Result<(Done, i64), Stop> {
    let before = own.read()?;
    let begun = Instant::now();
    let slice = client.slice(turn)?;
    let rested = own.wait_for_rest()?;
    let after = own.read()?;
    if let Some(why) = slice.ended.or_else(|| (slice.errors > 0).then(|| "errors".into())) {
        return Err(Stop::Wrong(format!("this client: {why}")));
    }
    let missed = (after.requests - before.requests) as i64 - slice.requests as i64;
    Ok((Done::between([before, after], rested - begun, slice.client_cpu_ns), missed))
}

/// A turn of the other tool.
fn theirs(own: &mut OwnCount, other: &Other, turn: Duration) -> Result<Done, Stop> {
    let (before, client_ns) = (own.read()?, other.cpu_ns()?);
    let begun = Instant::now();
    other.signal(Signal::SIGCONT)?;
    std::thread::sleep(turn);
    other.signal(Signal::SIGSTOP)?;
    let rested = own.wait_for_rest()?;
    let (after, client_ns) = (own.read()?, other.cpu_ns()? - client_ns);
    Ok(Done::between([before, after], rested - begun, client_ns))
}

/// Counts of a client that counts all, and of one that leaves out a fiftieth.
fn requests_counted(lab: &mut Lab) -> Result<Seen, Stop> {
    let (right, wrong) = (counted(lab, None)?, counted(lab, Some(50))?);
    let holds = right == 1.0 && (0.95..0.995).contains(&wrong);
    let told = format!("{right:.4} x, and {wrong:.4} x where one slice of 50 is not counted");
    Ok(Seen::new(holds, told)
        .figure("counted_ratio", right)
        .figure("broken_ratio", wrong)
        .wrong("one slice of 50 not counted", format!("{wrong:.4} of all"))
        .right("all slices counted", format!("{right:.4} of all")))
}

/// What a client counts, relative to the server's own count, where it does not count one slice of
/// so many.
fn counted(lab: &Lab, left_out: Option<u32>) -> Result<f64, Stop> {
    const SLICES: u32 = 100;
    const SLICE: Duration = Duration::from_millis(5);
    go_on()?;
    let workload = lab.workload("http-keepalive")?;
    let server = lab.start(&lab.found("epoll")?, &workload)?;
    let mut own = OwnCount::of(&server)?;
    let mut session = lab.session(&server, &workload, own.clocks()?)?;
    let (before, mut counted) = (own.read()?.requests, 0);
    for at in 0..SLICES {
        let slice = session.slice(SLICE)?;
        let counts = left_out.is_none_or(|each| at % each != each / 2);
        counted += if counts { slice.requests } else { 0 };
    }
    let all = own.read()?.requests - before;
    drop(session);
    server.stop();
    ratio(counted as f64, all as f64)
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

    /// CPU time of all its threads so far.
    fn cpu_ns(&self) -> Result<u64, Stop> {
        cpu_ns(&[Pid::from_raw(self.0.id() as i32)])
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
    /// Whether the ratios with much work and with some are within the bounds.
    fn agrees(&self, much: [f64; 4], some: [f64; 4]) -> bool {
        let near = |ratio: f64| (ratio - 1.0).abs() <= 0.02;
        let cheaper = self.name != "wrk" || some[2] <= 0.80;
        near(much[0]) && near(much[1]) && near(some[3]) && cheaper
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
