//! What a request costs among silent connections, for select, poll and epoll, and why: how many
//! descriptors each wait gives to the kernel, and how many come back.

use std::time::Duration;

use load::{Plan, Slice};
use record::{Call, Run, SplitMix64, Workload};
use rig::hold::{self, Holder, Opening};
use rig::slices::{self, Awake, Entrant};
use rig::trace;

use crate::client::Connection;
use crate::{Answer, Clock, Experiment, Predict, Refused, Site, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "crowd",
    question: "One client asks, and many others are connected and say nothing. A loop that waits \
        in select(2) or poll(2) gives the kernel all descriptors at each call, and the kernel \
        looks at each; epoll_wait(2) returns from a list of those that are ready. So what does a \
        request cost, when 10, 100, 900 or 10,000 connections are silent? (select(2) takes no \
        descriptor above 1,023.)",
    predict: Predict {
        question: "Among 10,000 silent connections, how many times as much CPU does a request \
            cost with poll as with epoll?",
        answer: Answer::Number("times"),
    },
    takes_s: 20,
    model: None,
    run,
};

const MODELS: [&str; 3] = ["select", "poll", "epoll"];
const SILENT: [u32; 4] = [10, 100, 900, 10_000];
/// FD_SETSIZE is 1,024, and the server has some descriptors of its own.
const SILENT_MAX_SELECT: u32 = 900;
/// Load of each server among each crowd, in slices.
const EACH: Duration = Duration::from_millis(500);

/// A server, its crowd, and the name of its run.
struct Member {
    run: String,
    site: Site,
    crowd: Holder,
}

fn run(stage: &mut Stage) -> Result<(), Refused> {
    // Otherwise a request wakes a processor, and that costs more than a small crowd. Without the
    // right to do this the processors sleep for all servers alike.
    let _awake = Awake::hold().ok();
    let mut random = SplitMix64::new(1);
    for silent in SILENT {
        let members = members(stage, silent)?;
        let slices = take_turns(stage, &members, &mut random)?;
        // After the load: a call that is traced takes some ten times as long.
        for member in &members {
            look(stage, member)?;
        }
        for (Member { run, site, mut crowd }, slices) in members.into_iter().zip(slices) {
            let (requests, cpu_ns) = slices;
            if requests == 0.0 {
                return Err(format!("{run}: no request was answered").into());
            }
            stage.figure(&run, "silent_connections", f64::from(silent));
            stage.figure(&run, "requests", requests);
            stage.figure(&run, "server_cpu_per_request_us", cpu_ns / 1e3 / requests);
            crowd.leave();
            site.stop()?;
        }
    }
    Ok(())
}

fn members(stage: &mut Stage, silent: u32) -> Result<Vec<Member>, Refused> {
    let workload = crate::keepalive()?;
    let mut members = Vec::new();
    for model in MODELS {
        if model == "select" && silent > SILENT_MAX_SELECT {
            continue;
        }
        let run = Run {
            run: format!("{model}-{silent}"),
            title: format!("{model} among {silent} silent connections"),
            model: model.to_owned(),
            ..Run::default()
        };
        let name = run.run.clone();
        let Some(site) = stage.start(run)? else { continue };
        let (address, workload) = (site.address(), Workload { connections: 1, ..workload.clone() });
        let opening = Opening { address, connections: silent, workload };
        let crowd = Holder::open(&hold::executable()?, &opening);
        let crowd = crowd.map_err(|why| format!("{name}: {why}"))?;
        members.push(Member { run: name, site, crowd });
    }
    Ok(members)
}

/// Waits of each server that are traced.
const WAITS: usize = 20;

/// Traces the waits of a server while one client asks.
fn look(stage: &mut Stage, Member { run, site, .. }: &Member) -> Result<(), Refused> {
    stage.go_on()?;
    let process = site.server().pid();
    let (mut client, _) = Connection::open(Clock::start(), site.address())?;
    let calls = match trace::waits(process, WAITS, run, || client.ask("/", false).map(drop)) {
        // What this machine does not allow.
        Err(why) if why.contains("ptrace") => {
            stage.skip(&format!("{run}: descriptors for each wait"), why);
            return Ok(());
        }
        calls => calls.map_err(|why| format!("{run}: {why}"))?,
    };
    let given = |call: &Call| call.given.unwrap_or(0) as f64;
    // The kernel keeps the list of epoll; the others give theirs with each call.
    let epoll = calls.iter().filter(|call| call.object == "eventpoll");
    let kept = epoll.filter_map(|call| trace::watched_by(process, call.descriptor?)).max();
    let watched = kept.map_or_else(|| calls.iter().map(given).fold(0.0, f64::max), |n| n as f64);
    let mean = |of: &dyn Fn(&Call) -> f64| calls.iter().map(of).sum::<f64>() / calls.len() as f64;
    stage.figure(run, "descriptors_watched", watched);
    stage.figure(run, "descriptors_given_per_wait", mean(&given));
    let returned = |call: &Call| call.result.unwrap_or(0).max(0) as f64;
    stage.figure(run, "descriptors_returned_per_wait", mean(&returned));
    calls.into_iter().for_each(|call| stage.call(call));
    Ok(())
}

/// Loads the servers in turn. Returns requests and nanoseconds of server CPU of each.
fn take_turns(
    stage: &Stage,
    members: &[Member],
    random: &mut SplitMix64,
) -> Result<Vec<(f64, f64)>, Refused> {
    let failed = |error: load::Error| Refused::Because(error.to_string());
    let mut entrants = Vec::new();
    for Member { site, .. } in members {
        let plan = Plan::new(&format!("http://{}/", site.address())).map_err(failed)?;
        let plan = Plan { connections: 1, ..plan };
        entrants.push(Entrant::open(plan, &site.server().processes(), true).map_err(failed)?);
    }
    let time = EACH * entrants.len() as u32;
    let epoch = slices::epoch(&mut entrants, time, random, &|| stage.go_on().is_err());
    let epoch = epoch.map_err(failed)?;
    stage.go_on()?;
    let sum = |at: usize| {
        let slices = epoch.blocks.iter().filter_map(|block| block[at].as_ref());
        slices.fold((0.0, 0.0), |(requests, cpu_ns): (f64, f64), slice: &Slice| {
            let cpu = slice.server_cpu_ns.unwrap_or(0) as f64;
            (requests + slice.requests as f64, cpu_ns + cpu)
        })
    };
    Ok((0..members.len()).map(sum).collect())
}
