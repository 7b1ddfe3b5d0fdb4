//! Which models use CPU while all connections are silent.

use std::time::Duration;

use record::Run;
use rig::exchange::{hang_up_after_server, open_idle};
use rig::sample::Idling;

use crate::{Answer, Clock, Experiment, Predict, Refused, Site, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "idle",
    question: "A hundred clients are connected, each has been answered once, and then none of them \
        sends anything for a second. A model that sleeps in a call until a descriptor is ready has \
        nothing to do; one that asks again and again has. How much CPU does each model use, and \
        how often does it wake up?",
    predict: Predict {
        question: "Which model uses the most CPU while no client sends?",
        answer: Answer::Choice(&MODELS),
    },
    takes_s: 13,
    model: None,
    run,
};

/// serve-serial cannot have a hundred connections, and serve-prefork has 64 processes.
const MODELS: [&str; 9] =
    ["threads", "pool", "busy", "select", "poll", "epoll", "sigio", "tokio", "uring"];
const CONNECTIONS: u32 = 100;
const SILENCE: Duration = Duration::from_secs(1);
/// Between two looks at Ctrl-C.
const STEP: Duration = Duration::from_millis(50);
/// After the last reply, for what a server still has to do, such as setting timers.
const SETTLE: Duration = Duration::from_millis(200);

fn run(stage: &mut Stage) -> Result<(), Refused> {
    for model in MODELS {
        let run = Run {
            run: model.to_owned(),
            title: format!("{model} with {CONNECTIONS} silent connections"),
            model: model.to_owned(),
            ..Run::default()
        };
        match stage.start(run) {
            Ok(Some(site)) => watch(stage, model, site)?,
            Ok(None) => {}
            // A model that this machine does not allow says why.
            Err(Refused::Because(why)) => stage.skip(model, why),
            Err(Refused::Interrupted) => return Err(Refused::Interrupted),
        }
    }
    Ok(())
}

fn watch(stage: &mut Stage, model: &str, site: Site) -> Result<(), Refused> {
    let connections = open_idle(site.address(), CONNECTIONS, &crate::keepalive()?);
    let connections = connections.map_err(|why| format!("{model}: {why}"))?;
    pause(stage, SETTLE)?;
    let (clock, idling) = (Clock::start(), Idling::begin(site.server()));
    pause(stage, SILENCE)?;
    let (usage, elapsed_us) = (idling.end(), clock.now_us());
    stage.figure(model, "connections", f64::from(CONNECTIONS));
    stage.figure(model, "cpu_share_percent", 100.0 * usage.cpu_us as f64 / elapsed_us);
    stage.figure(model, "wake_ups_per_s", usage.wake_ups as f64 * 1e6 / elapsed_us);
    let stopped = site.stop();
    hang_up_after_server(connections);
    stopped?;
    Ok(())
}

/// Waits, and looks for Ctrl-C meanwhile.
fn pause(stage: &Stage, time: Duration) -> Result<(), Refused> {
    let clock = Clock::start();
    while clock.now_us() < time.as_secs_f64() * 1e6 {
        stage.go_on()?;
        std::thread::sleep(STEP);
    }
    stage.go_on()
}
