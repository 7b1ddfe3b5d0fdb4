//! One server of an epoch: start, verification, idle connections, idle sample, stop.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use record::{IdleSample, MemorySample, ServerExit, Settings, Workload};

use crate::hold::{Holder, Opening};
use crate::sample::{self, Idling};
use crate::server::Server;
use crate::slices::{Processes, SILENCE, UNASKED_SHARE};
use crate::trial::{self, server_arguments};
use crate::{diag, exchange};

use super::{Setting, doubled, sampled};

/// Time for a server to finish its work after idle connections were opened (accepting, growth of
/// tables), before the idle sample, and after they were closed (ending threads), before the load.
const SETTLE: Duration = Duration::from_millis(20);

/// A server of an epoch, which takes part in some of its workloads.
pub(super) struct Member {
    /// The server, or why it does not run.
    pub(super) server: Result<Running, String>,
    /// The first workload in which it takes part, for its protocol.
    workload: Workload,
    /// Number of idle connections during the idle sample (0: no sample), and afterwards.
    sampled: u32,
    kept: u32,
    pub(super) idle: Option<IdleSample>,
    /// Its end, after [`Member::stop`].
    pub(super) exit: Option<ServerExit>,
}

pub(super) struct Running {
    // Dropped first, so that a stopped process is continued before it is asked to end.
    stopping: Processes,
    holder: Option<Holder>,
    pub(super) server: Server,
    /// Whether it uses CPU without requests.
    restless: bool,
    memory_before: MemorySample,
    pub(super) congestion_control: Option<String>,
}

impl Running {
    pub(super) fn processes(&self) -> Vec<Pid> {
        self.server.processes()
    }

    /// Continues its processes.
    pub(super) fn go_on(&mut self) {
        self.stopping.go_on();
    }

    /// Stops its processes if it uses CPU without requests, so that the core is free.
    pub(super) fn rest(&mut self) {
        if self.restless {
            self.stopping = Processes::new(self.processes());
            self.stopping.stop();
        }
    }

    /// Measures whether it uses CPU without requests, then rests.
    fn measure_and_rest(&mut self) {
        let begun = Instant::now();
        let idling = Idling::begin(&self.server);
        std::thread::sleep(SILENCE);
        let used_us = idling.end().cpu_us as f64;
        self.restless |= used_us > UNASKED_SHARE * begun.elapsed().as_micros() as f64;
        self.rest();
    }

    /// The number of idle connections that the server has closed.
    pub(super) fn idle_connections_lost(&mut self, kept: u32) -> Result<u32, String> {
        let Some(holder) = &mut self.holder else { return Ok(0) };
        holder.keep(kept).map(|held| held.lost)
    }

    pub(super) fn with_end(&mut self, reason: String) -> String {
        trial::with_end(&mut self.server, reason)
    }
}

impl Member {
    /// Starts and verifies the server with this index.
    pub(super) fn start(setting: &Setting, at: usize) -> Member {
        let entry = &setting.members[at];
        let parts = || setting.workloads.iter().filter(|part| part.members.contains(&at));
        let most =
            entry.model.connections_max.map_or(u32::MAX, |most| most.min(u32::MAX.into()) as u32);
        let kept = parts().map(|part| part.workload.idle_connections).max().unwrap_or(0);
        let asked = parts().filter(|part| part.idle_sample).map(sampled).max();
        // A server with a lower limit is sampled with as many as it allows.
        let sampled = asked.map_or(0, |asked| asked.min(most).max(kept));
        let connections = parts().map(|part| doubled::connections(part.workload, entry.model));
        let connections = connections.max().unwrap_or(0);
        let Some(first) = parts().next() else {
            let server = Err("it takes part in no workload".to_owned());
            let workload = setting.workloads[0].workload.clone();
            return Member { server, workload, sampled, kept, idle: None, exit: None };
        };
        let workload = first.workload.clone();
        let started = match (setting.interrupted)() {
            true => Err("interrupted".to_owned()),
            false => {
                let most = Workload { connections, idle_connections: kept, ..workload.clone() };
                let arguments = server_arguments(&most, entry.model, setting.root, sampled);
                start(entry.executable, &arguments, &setting.settings.server_cores, &workload)
            }
        };
        Member { server: started, workload, sampled, kept, idle: None, exit: None }
    }

    pub(super) fn open_silent(&mut self, executable: &Path) {
        let (connections, workload) = (self.sampled.max(self.kept), &self.workload);
        let Ok(running) = &mut self.server else { return };
        if connections == 0 {
            return;
        }
        running.go_on();
        let address = running.server.address;
        let opening = Opening { address, connections, workload: workload.clone() };
        match Holder::open(executable, &opening) {
            Ok(holder) => {
                running.holder = Some(holder);
                std::thread::sleep(SETTLE);
                running.measure_and_rest();
            }
            Err(reason) => self.server = Err(running.with_end(reason)),
        }
    }

    /// Closes the connections that were for the idle sample only.
    pub(super) fn part_from_sampled(&mut self) {
        let kept = self.kept;
        let Ok(running) = &mut self.server else { return };
        if self.sampled > kept
            && let Some(holder) = &mut running.holder
        {
            running.stopping.go_on();
            match holder.keep(kept) {
                Ok(_) => {
                    std::thread::sleep(SETTLE);
                    running.rest();
                }
                Err(reason) => self.server = Err(running.with_end(reason)),
            }
        }
    }

    /// The number of idle connections after the idle sample.
    pub(super) fn kept(&self) -> u32 {
        self.kept
    }

    /// Stops the server with its idle connections open. So it closes first and no client port stays
    /// in TIME_WAIT, and each epoch tests a stop with open connections.
    pub(super) fn stop(&mut self) {
        let stopped = Err("it was stopped".to_owned());
        let Ok(running) = std::mem::replace(&mut self.server, stopped) else { return };
        let Running { mut stopping, mut holder, server, .. } = running;
        stopping.go_on();
        holder.iter_mut().for_each(Holder::leave);
        self.exit = Some(server.stop());
    }
}

fn start(
    executable: &Path,
    arguments: &[String],
    cores: &[u32],
    workload: &Workload,
) -> Result<Running, String> {
    let mut server = Server::start(executable, arguments, cores)?;
    let verified = match exchange::verify(server.address, workload) {
        Ok(verified) => verified,
        // If the server has ended, that is the cause of the client's error.
        Err(reason) => return Err(trial::with_end(&mut server, reason)),
    };
    let client = verified.local_addr().ok();
    let congestion_control =
        client.and_then(|client| diag::congestion_control(server.address, client));
    drop(verified);
    let mut running = Running {
        stopping: Processes::new(Vec::new()),
        holder: None,
        memory_before: sample::memory(&server),
        server,
        restless: false,
        congestion_control,
    };
    running.measure_and_rest();
    Ok(running)
}

/// Takes the idle samples, without load on any server: first of all servers that rest, together,
/// because they do not disturb each other; then of each other server alone.
pub(super) fn sample_idle(members: &mut [Member], settings: &Settings) {
    let is_restless = |member: &Member| member.server.as_ref().is_ok_and(|one| one.restless);
    let (restless, resting): (Vec<_>, Vec<_>) = members
        .iter_mut()
        .filter(|member| member.sampled > 0 && member.server.is_ok())
        .partition(|member| is_restless(member));
    sample_together(resting, settings);
    for member in restless {
        sample_together(vec![member], settings);
    }
}

fn sample_together(mut members: Vec<&mut Member>, settings: &Settings) {
    let running = |member: &mut &mut Member, act: fn(&mut Running)| {
        member.server.iter_mut().for_each(act);
    };
    members.iter_mut().for_each(|member| running(member, Running::go_on));
    let begun: Vec<_> = members.iter().map(|member| Sampling::begin(member)).collect();
    if begun.is_empty() {
        return;
    }
    std::thread::sleep(Duration::from_secs_f64(settings.idle_sample_s));
    let samples: Vec<_> = begun.into_iter().map(|one| one.map(Sampling::end)).collect();
    for (member, sample) in members.iter_mut().zip(samples) {
        member.idle = sample;
        running(member, Running::rest);
    }
}

struct Sampling<'a> {
    member: &'a Member,
    running: &'a Running,
    begin: Instant,
    idling: Idling<'a>,
}

impl<'a> Sampling<'a> {
    /// `None`: the server does not run.
    fn begin(member: &'a Member) -> Option<Sampling<'a>> {
        let running = member.server.as_ref().ok()?;
        let idling = Idling::begin(&running.server);
        Some(Sampling { member, running, begin: Instant::now(), idling })
    }

    fn end(self) -> IdleSample {
        let used = self.idling.end();
        IdleSample {
            connections: self.member.sampled,
            duration_s: self.begin.elapsed().as_secs_f64(),
            cpu_us: used.cpu_us,
            wake_ups: used.wake_ups,
            memory_before: self.running.memory_before,
            memory: sample::memory(&self.running.server),
        }
    }
}
