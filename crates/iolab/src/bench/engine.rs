//! The one place that calls the load generator: a workload and the settings become its plan.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use record::{LoadOutcome, Settings, Workload};

/// A request without a reply for so long is an error. Longer than any window, so that a server that
/// serves one client after the other shows as "connections without progress", not as errors.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs one workload against a server; the observer is told the borders of the window.
pub fn run(
    address: SocketAddr,
    workload: &Workload,
    settings: &Settings,
    observer: &mut dyn load::Observer,
) -> Result<LoadOutcome, String> {
    let plan = plan(address, workload, settings).map_err(|e| e.to_string())?;
    // The engine may pin the thread that called it. That thread goes on to do other work here.
    let this_thread = Pid::from_raw(0);
    let cores: Option<CpuSet> = sched_getaffinity(this_thread).ok();
    let outcome = load::run(&plan, observer).map_err(|e| e.to_string());
    if let Some(cores) = cores {
        sched_setaffinity(this_thread, &cores).map_err(|e| format!("cannot unpin: {e}"))?;
    }
    outcome
}

fn plan(
    address: SocketAddr,
    workload: &Workload,
    settings: &Settings,
) -> Result<load::Plan, load::Error> {
    let url = match &workload.path {
        Some(path) => format!("http://{address}{path}"),
        None => format!("tcp://{address}"),
    };
    let mut plan = load::Plan::new(&url)?;
    plan.connections = workload.connections;
    plan.warmup = Duration::from_secs_f64(settings.warm_up_s);
    plan.length = load::Length::Window(Duration::from_secs_f64(settings.window_s));
    plan.reconnect = workload.connect_per_request;
    plan.request_timeout = REQUEST_TIMEOUT;
    plan.core = settings.client_cores.first().map(|&core| core as usize);
    if workload.path.is_none() {
        plan.payload_bytes = workload.payload_bytes as usize;
    }
    Ok(plan)
}
