//! Where the state of a connection lives: what a silent connection takes, for each model.

use record::{MemorySample, Run};
use rig::exchange::{hang_up_after_server, open_idle};
use rig::sample::memory;

use crate::{Answer, Experiment, Predict, Refused, Site, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "memory",
    question: "A server must remember something of each client, even of one that says nothing: \
        what it was doing for it, and what the kernel needs for the socket. A thread keeps it on \
        its stack, and needs a stack in the kernel too; a loop keeps it in a table; a runtime \
        keeps it in the future of a task. How much memory does a connection take in each model, \
        when 1,000 are open?",
    predict: Predict {
        question: "How many times as much memory does a connection take with a thread for each as \
            with epoll?",
        answer: Answer::Number("times"),
    },
    takes_s: 10,
    model: None,
    run,
};

/// serve-serial cannot have so many connections; serve-pool has a thread for each. serve-prefork
/// would have a process for each, which share most of their memory: that is another question.
const MODELS: [&str; 9] =
    ["threads", "pool", "busy", "select", "poll", "epoll", "sigio", "tokio", "uring"];
/// The first connections also take what a server allocates once.
const FIRST: u32 = 10;
const CONNECTIONS: u32 = 1_000;

fn run(stage: &mut Stage) -> Result<(), Refused> {
    for model in MODELS {
        let arguments = match model {
            "pool" => vec!["--threads".to_owned(), CONNECTIONS.to_string()],
            _ => Vec::new(),
        };
        let title = format!("{model} with {CONNECTIONS} connections");
        let (run, model) = (model.to_owned(), model.to_owned());
        let run = Run { run, title, model: model.clone(), arguments, link: None };
        match stage.start(run) {
            Ok(Some(site)) => measure(stage, &model, site)?,
            Ok(None) => {}
            // A model that this machine does not allow says why.
            Err(Refused::Because(why)) => stage.skip(&model, why),
            Err(Refused::Interrupted) => return Err(Refused::Interrupted),
        }
    }
    Ok(())
}

fn measure(stage: &mut Stage, model: &str, site: Site) -> Result<(), Refused> {
    let workload = crate::keepalive()?;
    let open = |count| {
        let opened = open_idle(site.address(), count, &workload);
        opened.map_err(|why| Refused::Because(format!("{model}: {why}")))
    };
    let mut connections = open(FIRST)?;
    let before = memory(site.server());
    connections.extend(open(CONNECTIONS - FIRST)?);
    let after = memory(site.server());
    let each = |of: &dyn Fn(&MemorySample) -> f64| {
        (of(&after) - of(&before)) / f64::from(CONNECTIONS - FIRST)
    };
    stage.figure(model, "connections", f64::from(CONNECTIONS));
    stage.figure(model, "own_per_connection_kib", each(&|sample| sample.pss_kib as f64));
    stage.figure(model, "threads_per_connection", each(&|sample| f64::from(sample.threads)));
    if let (Some(before), Some(after)) = (before.kernel_kib, after.kernel_kib) {
        let each = (after as f64 - before as f64) / f64::from(CONNECTIONS - FIRST);
        stage.figure(model, "kernel_per_connection_kib", each);
    }
    let stopped = site.stop();
    hang_up_after_server(connections);
    stopped?;
    Ok(())
}
