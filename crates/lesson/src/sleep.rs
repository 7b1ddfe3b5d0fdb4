//! What a request over one connection costs when the processors may sleep, and when they are held
//! awake.

use std::time::Duration;

use load::{Clocks, Plan, Session};
use record::{Run, SplitMix64};
use rig::sample::processor_sleeps;
use rig::slices::Awake;

use crate::{Answer, Experiment, Predict, Refused, Site, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "sleep",
    question: "One client, one connection, one request at a time: while the server works the \
        client waits, and while the client works the server waits. A processor that has nothing to \
        do goes to sleep (cpuidle), and must be woken for the next message. Held awake \
        (/dev/cpu_dma_latency), it need not. How much of the time of a request is this sleep?",
    predict: Predict {
        question: "How many times as long does a request take when the processors may sleep?",
        answer: Answer::Number("times"),
    },
    takes_s: 5,
    model: Some("epoll"),
    run,
};

/// A block is a slice of each kind, in random order: what slows the machine down meets both.
const BLOCKS: u32 = 24;
/// Some hundred requests.
const SLICE: Duration = Duration::from_millis(60);
/// Caches and TCP windows fill before the first block.
const WARM_UP_BLOCKS: u32 = 2;

/// One of the two runs.
struct Kind {
    run: &'static str,
    /// Whether the processors are held awake in its slices.
    held: bool,
    site: Site,
    session: Session,
}

fn run(stage: &mut Stage) -> Result<(), Refused> {
    let model = stage.model("epoll");
    let mut kinds = Vec::new();
    let named = [("asleep", "processors may sleep"), ("awake", "processors held awake")];
    for (run, how) in named {
        let held = run == "awake";
        // The right to hold them is asked for before a server is started for it.
        if let Some(why) = Awake::hold().err().filter(|_| held) {
            stage.skip(how, format!("{why}; run as root"));
            continue;
        }
        let (title, arguments) = (format!("{model}, {how}"), Vec::new());
        let run_of =
            Run { run: run.to_owned(), title, model: model.clone(), arguments, link: None };
        let Some(site) = stage.start(run_of)? else { continue };
        let session = open(&site)?;
        kinds.push(Kind { run, held, site, session });
    }
    take_turns(stage, &mut kinds)?;
    for Kind { run, site, session, .. } in kinds {
        let latency = session.finish().map_err(failed)?.latency;
        stage.figure(run, "latency_p50_us", latency.p50_us);
        if let Some(p99_us) = latency.p99_us {
            stage.figure(run, "latency_p99_us", p99_us);
        }
        site.stop()?;
    }
    Ok(())
}

fn failed(error: load::Error) -> Refused {
    Refused::Because(error.to_string())
}

fn open(site: &Site) -> Result<Session, Refused> {
    let plan = Plan::new(&format!("http://{}/", site.address())).map_err(failed)?;
    let processes = site.server().processes();
    let clocks = Clocks::of(&processes.iter().map(|one| one.as_raw()).collect::<Vec<_>>());
    let plan = Plan { connections: 1, ..plan };
    Session::open(plan, clocks.map_err(failed)?).map_err(failed)
}

fn take_turns(stage: &mut Stage, kinds: &mut [Kind]) -> Result<(), Refused> {
    let mut random = SplitMix64::new(1);
    for block in 0..WARM_UP_BLOCKS + BLOCKS {
        stage.go_on()?;
        if random.below(2) == 1 {
            kinds.reverse();
        }
        for kind in &mut *kinds {
            if block == WARM_UP_BLOCKS {
                kind.session.forget();
            }
            slice(stage, kind, block.checked_sub(WARM_UP_BLOCKS))?;
        }
    }
    Ok(())
}

/// One slice, and its points in the recording if it is no warm-up.
fn slice(stage: &mut Stage, kind: &mut Kind, block: Option<u32>) -> Result<(), Refused> {
    let held = if kind.held { Some(Awake::hold()?) } else { None };
    let before = processor_sleeps();
    let slice = kind.session.slice(SLICE).map_err(failed)?;
    let sleeps = before.zip(processor_sleeps()).map(|(before, after)| after - before);
    drop(held);
    if slice.errors > 0 || slice.requests == 0 {
        let why = slice.ended.unwrap_or_else(|| format!("{} requests failed", slice.errors));
        return Err(format!("{}: {why}", kind.run).into());
    }
    let Some(block) = block.map(f64::from) else { return Ok(()) };
    let requests = slice.requests as f64;
    let mut point = |name: &str, value: f64| stage.point(kind.run, name, block, value);
    point("requests", requests);
    point("round_trip_us", slice.elapsed_ns as f64 / 1e3 / requests);
    point("client_cpu_us", slice.client_cpu_ns as f64 / 1e3 / requests);
    point("server_cpu_us", slice.server_cpu_ns.unwrap_or(0) as f64 / 1e3 / requests);
    if let Some(sleeps) = sleeps {
        point("processor_sleeps_per_request", sleeps as f64 / requests);
    }
    Ok(())
}
