//! One model under soak: a server without TLS and one with TLS.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::judge::{Growth, Sample, SoakResult};
use super::traffic::{Client, Kind, PLAIN, TLS};
use rig::discover::Found;
use rig::sample;
use rig::server::Server;

/// Idle connections for the whole time, if the server can serve them beside the clients of a turn.
const IDLE: u32 = 20;

/// A server with at least this many connections is loaded by all kinds of clients together, others
/// by one kind after the other.
const AT_ONCE_MIN: u32 = 100;

/// The idle timeout must not close the idle connections, also because time passes while a server is
/// stopped.
const FLAGS: [&str; 6] =
    ["--listen", "127.0.0.1:0", "--idle-timeout", "24h", "--drain-timeout", "5s"];

/// Threads of a pool: about as many as the clients of a turn keep busy. A thread keeps the pages of
/// its stack and buffer that it has touched. With more threads some would first serve a kind of
/// client after minutes, and their growth would look like a leak.
const POOL_THREADS: &str = "80";

/// Time limit for the server to close the connections of its clients. It is long, because it is a
/// guard only.
const LEAVE_GUARD: Duration = Duration::from_secs(20);

/// The number of descriptors counts as settled if it did not change for this time. On a slow
/// machine it may then still be too high, and a leak of that size is found a turn later.
const SETTLED: Duration = Duration::from_millis(300);

/// Interval of reading that number.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

struct Endpoint {
    server: Server,
    tls: bool,
    connections_max: u32,
    /// It says that there is no chat between its clients.
    cannot_chat: bool,
    /// Descriptors after the first clients of each kind have closed.
    descriptors_at_start: usize,
    /// Requests that the server must have counted.
    requests: u64,
    memory: Vec<Sample>,
}

pub struct SoakedModel {
    label: String,
    endpoints: [Endpoint; 2],
    idle: Vec<Client>,
    turns: u32,
    /// Failed checks; after the first there are no more turns.
    wrong: Vec<String>,
}

impl Endpoint {
    fn start(found: &Found, tls: bool, root: &Path) -> Result<Endpoint, String> {
        let mut flags: Vec<String> = FLAGS.map(str::to_owned).into();
        flags.extend(["--root".to_owned(), root.display().to_string()]);
        flags.extend(tls.then(|| "--tls".to_owned()));
        if has_pool(found) {
            flags.extend(["--threads", POOL_THREADS].map(str::to_owned));
        }
        flags.extend(found.model.arguments.iter().cloned());
        let server = Server::start(&found.executable, &flags, &[])
            .map_err(|reason| format!("{}: {reason}", found.model.label))?;
        let connections_max = found.connections_max();
        let mut endpoint = Endpoint {
            server,
            tls,
            connections_max,
            cannot_chat: cannot_chat(found),
            descriptors_at_start: 0,
            requests: 0,
            memory: Vec::new(),
        };
        // Some descriptors are opened for the first clients, and kept.
        let wrong = endpoint.traffic();
        if let Some(reason) = wrong.into_iter().next() {
            return Err(format!("{}: {reason}", found.model.label));
        }
        endpoint.descriptors_at_start = endpoint.descriptors_settled();
        Ok(endpoint)
    }

    /// The number of descriptors, once it has settled.
    fn descriptors_settled(&self) -> usize {
        let (mut open, mut since) = (self.descriptors(), Instant::now());
        while since.elapsed() < SETTLED {
            std::thread::sleep(LOOK_AGAIN);
            let now = self.descriptors();
            if now != open {
                (open, since) = (now, Instant::now());
            }
        }
        open
    }

    fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.server.pid());
        std::fs::read_dir(path).map_or(0, Iterator::count)
    }

    fn signal(&self, signal: Signal) {
        // Fails only if the server has ended, which the clients then report.
        let _ = kill(self.server.pid(), signal);
    }

    /// Waits until at most `held` more descriptors are open than at the start.
    fn wait_until_left(&self, held: usize) -> Result<(), String> {
        let (begun, most) = (Instant::now(), self.descriptors_at_start + held);
        loop {
            let open = self.descriptors();
            if open <= most {
                return Ok(());
            }
            if begun.elapsed() > LEAVE_GUARD {
                return Err(format!(
                    "{open} descriptors are open after the clients have closed, {most} were before"
                ));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Runs clients of all kinds. Returns what failed.
    fn traffic(&mut self) -> Vec<String> {
        let connections_max = self.connections_max;
        let kinds = if self.tls { TLS.as_slice() } else { PLAIN.as_slice() };
        let has = |kind: &Kind| {
            let company = kind.needs_one() || connections_max > 1;
            company && !(self.cannot_chat && matches!(kind, Kind::Chat))
        };
        let kinds: Vec<Kind> = kinds.iter().copied().filter(has).collect();
        self.requests += kinds.iter().map(|kind| kind.counted(connections_max)).sum::<u64>();
        let (address, tls) = (self.server.address, self.tls);
        let run = move |kind: Kind| kind.run(address, tls, connections_max).err();
        if connections_max < AT_ONCE_MIN {
            return kinds.into_iter().filter_map(run).collect();
        }
        std::thread::scope(|scope| {
            let all: Vec<_> =
                kinds.into_iter().map(|kind| scope.spawn(move || run(kind))).collect();
            let ended = all.into_iter().map(|thread| thread.join());
            ended.filter_map(|told| told.unwrap_or(Some("a client panicked".into()))).collect()
        })
    }
}

/// Whether the server says that it has no chat between clients.
fn cannot_chat(found: &Found) -> bool {
    let words = found.model.describe["cannot"].as_array().into_iter().flatten();
    words.filter_map(|words| words.as_str()).any(|words| words.starts_with("chat"))
}

/// Whether the server has a pool of threads, and its size was not given in the flavour.
fn has_pool(found: &Found) -> bool {
    let flavours = found.model.describe["flavours"].as_array().into_iter().flatten();
    let mut flags = flavours.map(|flavour| &flavour["flag"]);
    found.model.arguments.is_empty() && flags.any(|flag| flag == "threads")
}

impl SoakedModel {
    /// Starts both servers, opens the idle connections, and stops the servers until their turn.
    pub fn start(found: Found, root: &Path) -> Result<SoakedModel, String> {
        let connections_max = found.connections_max();
        let endpoints =
            [Endpoint::start(&found, false, root)?, Endpoint::start(&found, true, root)?];
        let label = found.model.label;
        let mut subject =
            SoakedModel { label, endpoints, idle: Vec::new(), turns: 0, wrong: Vec::new() };
        if connections_max >= AT_ONCE_MIN {
            let address = subject.endpoints[0].server.address;
            let idle = (0..IDLE).map(|_| Client::connect(address)).collect::<Result<_, _>>();
            subject.idle = idle.map_err(|reason| format!("{}: {reason}", subject.label))?;
            subject.request_on_idle();
        }
        subject.endpoints.iter().for_each(|endpoint| endpoint.signal(Signal::SIGSTOP));
        Ok(subject)
    }

    fn request_on_idle(&mut self) {
        for client in &mut self.idle {
            match client.get("/", Duration::ZERO) {
                Ok(_) => self.endpoints[0].requests += 1,
                Err(reason) => self.wrong.push(format!("an idle connection: {reason}")),
            }
        }
    }

    /// Runs clients of all kinds, and checks the servers.
    pub fn turn(&mut self, begun: Instant) {
        if !self.wrong.is_empty() {
            return;
        }
        let held = [self.idle.len(), 0];
        for (endpoint, held) in self.endpoints.iter_mut().zip(held) {
            endpoint.signal(Signal::SIGCONT);
            self.wrong.extend(endpoint.traffic());
            self.wrong.extend(endpoint.wait_until_left(held).err());
            let memory = sample::memory(&endpoint.server);
            endpoint.memory.push(Sample {
                at_s: begun.elapsed().as_secs_f64(),
                kib: memory.pss_kib + memory.page_tables_kib,
            });
            endpoint.signal(Signal::SIGSTOP);
        }
        self.turns += 1;
    }

    /// Sends one more request on each idle connection and closes it. Then ends the servers and
    /// compares their counts.
    pub fn finish(mut self) -> SoakResult {
        self.endpoints.iter().for_each(|endpoint| endpoint.signal(Signal::SIGCONT));
        self.request_on_idle();
        self.idle.clear();
        // After a failed client the number of requests that arrived is unknown.
        let failed = !self.wrong.is_empty();
        let mut outcome = SoakResult {
            label: self.label,
            turns: self.turns,
            requests: 0,
            growth: Vec::new(),
            descriptors: Vec::new(),
            wrong: self.wrong,
        };
        for endpoint in self.endpoints {
            outcome.wrong.extend(endpoint.wait_until_left(0).err());
            outcome.descriptors.push((endpoint.descriptors_at_start, endpoint.descriptors()));
            outcome.growth.push(Growth::of(&endpoint.memory));
            outcome.requests += endpoint.requests;
            let exit = endpoint.server.stop();
            if exit.code != Some(0) || exit.killed {
                outcome.wrong.push(format!("it did not end with exit code 0: {exit:?}"));
            }
            let counters = exit.counters.unwrap_or(Value::Null);
            let counted = counters["requests"].as_u64();
            if counted != Some(endpoint.requests) && !failed {
                outcome.wrong.push(format!(
                    "its clients sent {} requests{}, but it counted {}",
                    endpoint.requests,
                    if endpoint.tls { " over TLS" } else { "" },
                    counted.map_or("nothing".to_owned(), |number| number.to_string()),
                ));
            }
        }
        outcome
    }
}
