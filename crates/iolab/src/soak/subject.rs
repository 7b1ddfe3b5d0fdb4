//! One model under soak: a server without TLS, one with it, and what was seen of both.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::judge::{Growth, Outcome, Sample};
use super::traffic::{Asker, Kind, PLAIN, TLS};
use crate::bench::discover::Found;
use crate::bench::sample;
use crate::bench::server::Server;

/// Silent connections that stay for the whole time, where a server can have so many beside the
/// clients of a turn.
const SILENT: u32 = 20;

/// From so many connections on clients of all kinds come at once; below, one kind after the other.
const AT_ONCE_MIN: u32 = 100;

/// The silent ones must not be closed for their age, and time passes while a server is stopped.
const FLAGS: [&str; 6] =
    ["--listen", "127.0.0.1:0", "--idle-timeout", "24h", "--drain-timeout", "5s"];

/// Threads that a pool is told to have: hardly more than the clients of a turn keep busy at once.
/// What a thread touches first (its stack, its buffer) stays with it. With many threads some serve
/// a kind of client for the first time after minutes, and memory grows: that is no leak, and looks
/// like one.
const POOL_THREADS: &str = "80";

/// A server has so long to see that its clients have left. A guard: it is told by their FINs.
const LEAVE_GUARD: Duration = Duration::from_secs(20);

/// A number of descriptors that has not changed for so long is taken for that of a server without
/// clients. One that was taken too early is too high by what a slow machine had not closed, and the
/// only harm is that a leak as large is seen a turn later.
const SETTLED: Duration = Duration::from_millis(300);

/// Time between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One of the two servers.
struct Host {
    server: Server,
    tls: bool,
    connections_max: u32,
    /// Descriptors after the first clients of every kind have left.
    descriptors_at_start: usize,
    /// Requests that it must have counted.
    requests: u64,
    memory: Vec<Sample>,
}

/// A model.
pub struct Subject {
    label: String,
    hosts: [Host; 2],
    silent: Vec<Asker>,
    turns: u32,
    /// What went wrong; after the first of these there are no more turns.
    wrong: Vec<String>,
}

impl Host {
    fn start(found: &Found, tls: bool, root: &Path) -> Result<Host, String> {
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
        let mut host = Host {
            server,
            tls,
            connections_max,
            descriptors_at_start: 0,
            requests: 0,
            memory: Vec::new(),
        };
        // Some descriptors are opened when the first clients come, and kept.
        let wrong = host.traffic();
        if let Some(reason) = wrong.into_iter().next() {
            return Err(format!("{}: {reason}", found.model.label));
        }
        host.descriptors_at_start = host.descriptors_settled();
        Ok(host)
    }

    /// Descriptors once their number has stopped to change: the clients have left.
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
        // Fails only where the server has ended, which its clients will say.
        let _ = kill(self.server.pid(), signal);
    }

    /// Waits until no more descriptors are open than at the start, and `held`.
    fn wait_until_left(&self, held: usize) -> Result<(), String> {
        let (begun, most) = (Instant::now(), self.descriptors_at_start + held);
        loop {
            let open = self.descriptors();
            if open <= most {
                return Ok(());
            }
            if begun.elapsed() > LEAVE_GUARD {
                return Err(format!(
                    "{open} descriptors are open after the clients have left, {most} were before"
                ));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Clients of all kinds come and go; returns what went wrong.
    fn traffic(&mut self) -> Vec<String> {
        let connections_max = self.connections_max;
        let kinds = if self.tls { TLS.as_slice() } else { PLAIN.as_slice() };
        let kinds: Vec<Kind> =
            kinds.iter().copied().filter(|kind| kind.needs_one() || connections_max > 1).collect();
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

/// Whether it makes a number of threads in advance, and nothing else was asked for.
fn has_pool(found: &Found) -> bool {
    let flavours = found.model.describe["flavours"].as_array().into_iter().flatten();
    let mut flags = flavours.map(|flavour| &flavour["flag"]);
    found.model.arguments.is_empty() && flags.any(|flag| flag == "threads")
}

impl Subject {
    /// Starts both servers, opens the silent connections, and lets them wait for their turn.
    pub fn start(found: Found, root: &Path) -> Result<Subject, String> {
        let connections_max = found.connections_max();
        let hosts = [Host::start(&found, false, root)?, Host::start(&found, true, root)?];
        let label = found.model.label;
        let mut subject = Subject { label, hosts, silent: Vec::new(), turns: 0, wrong: Vec::new() };
        if connections_max >= AT_ONCE_MIN {
            let address = subject.hosts[0].server.address;
            let silent = (0..SILENT).map(|_| Asker::connect(address)).collect::<Result<_, _>>();
            subject.silent = silent.map_err(|reason| format!("{}: {reason}", subject.label))?;
            subject.ask_silent();
        }
        subject.hosts.iter().for_each(|host| host.signal(Signal::SIGSTOP));
        Ok(subject)
    }

    fn ask_silent(&mut self) {
        for asker in &mut self.silent {
            match asker.get("/", Duration::ZERO) {
                Ok(_) => self.hosts[0].requests += 1,
                Err(reason) => self.wrong.push(format!("a silent connection: {reason}")),
            }
        }
    }

    /// Clients of all kinds come and go; then the server must be as it was.
    pub fn turn(&mut self, begun: Instant) {
        if !self.wrong.is_empty() {
            return;
        }
        let held = [self.silent.len(), 0];
        for (host, held) in self.hosts.iter_mut().zip(held) {
            host.signal(Signal::SIGCONT);
            self.wrong.extend(host.traffic());
            self.wrong.extend(host.wait_until_left(held).err());
            let memory = sample::memory(&host.server);
            host.memory.push(Sample {
                at_s: begun.elapsed().as_secs_f64(),
                kib: memory.pss_kib + memory.page_tables_kib,
            });
            host.signal(Signal::SIGSTOP);
        }
        self.turns += 1;
    }

    /// The silent connections are asked once more and leave; the servers end, and say what they
    /// have counted.
    pub fn finish(mut self) -> Outcome {
        self.hosts.iter().for_each(|host| host.signal(Signal::SIGCONT));
        self.ask_silent();
        self.silent.clear();
        // Where a client failed nobody knows how much of what it asked arrived.
        let failed = !self.wrong.is_empty();
        let mut outcome = Outcome {
            label: self.label,
            turns: self.turns,
            requests: 0,
            growth: Vec::new(),
            descriptors: Vec::new(),
            wrong: self.wrong,
        };
        for host in self.hosts {
            outcome.wrong.extend(host.wait_until_left(0).err());
            outcome.descriptors.push((host.descriptors_at_start, host.descriptors()));
            outcome.growth.push(Growth::of(&host.memory));
            outcome.requests += host.requests;
            let exit = host.server.stop();
            if exit.code != Some(0) || exit.killed {
                outcome.wrong.push(format!("it did not end with exit code 0: {exit:?}"));
            }
            let counters = exit.counters.unwrap_or(Value::Null);
            let counted = counters["requests"].as_u64();
            if counted != Some(host.requests) && !failed {
                outcome.wrong.push(format!(
                    "its clients made {} requests{}, and it counted {}",
                    host.requests,
                    if host.tls { " over TLS" } else { "" },
                    counted.map_or("nothing".to_owned(), |number| number.to_string()),
                ));
            }
        }
        outcome
    }
}
