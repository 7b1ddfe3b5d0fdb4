//! Makes the load generator's plan from a workload and the settings, and runs it.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use record::{LoadOutcome, Protocol, Settings, Workload};

/// A request without a reply for this long is an error. Longer than any window, so that with a
/// server of one client at a time the waiting connections count as without progress, not as errors.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// `observer` is called at the borders of the window.
pub fn run(
    address: SocketAddr,
    workload: &Workload,
    settings: &Settings,
    observer: &mut dyn load::Observer,
) -> Result<LoadOutcome, String> {
    let plan = plan(address, workload, settings).map_err(|e| e.to_string())?;
    // The engine may pin the calling thread, which has other work afterwards.
    let this_thread = Pid::from_raw(0);
    let cores: Option<CpuSet> = sched_getaffinity(this_thread).ok();
    let outcome = load::run(&plan, observer).map_err(|e| e.to_string());
    if let Some(cores) = cores {
        sched_setaffinity(this_thread, &cores).map_err(|e| format!("cannot unpin: {e}"))?;
    }
    outcome
}

/// # Errors
/// One sentence: what is wrong with the workload.
pub fn plan(
    address: SocketAddr,
    workload: &Workload,
    settings: &Settings,
) -> Result<load::Plan, load::Error> {
    let scheme = match (workload.protocol, workload.tls) {
        (Protocol::Echo, _) => "tcp",
        (Protocol::WebSocket, false) => "ws",
        (Protocol::WebSocket, true) => "wss",
        (Protocol::Http1 | Protocol::Http2, false) => "http",
        (Protocol::Http1 | Protocol::Http2, true) => "https",
    };
    let path = workload.path.as_deref().unwrap_or_default();
    let mut plan = load::Plan::new(&format!("{scheme}://{address}{path}"))?;
    plan.target.protocol = workload.protocol;
    plan.tls_resume = workload.tls_resume;
    plan.fan_out = workload.fan_out;
    plan.connections = workload.connections;
    plan.warmup = Duration::from_secs_f64(settings.warm_up_s);
    plan.length = load::Length::Window(Duration::from_secs_f64(settings.window_s));
    plan.reconnect = workload.connect_per_request;
    plan.pipelining = workload.pipelining;
    plan.streaming = workload.streaming;
    plan.request_timeout = REQUEST_TIMEOUT;
    plan.core = settings.client_cores.first().map(|&core| core as usize);
    if workload.post {
        plan.method = load::Method::Post;
    }
    if workload.post || !workload.protocol.is_http() {
        plan.payload_bytes = workload.payload_bytes as usize;
    }
    if let Some(rate) = workload.rate_per_s {
        plan.pace = load::Pace::Open {
            rate_per_s: f64::from(rate),
            arrivals: workload.arrivals,
            seed: settings.seed,
        };
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use scenario::workload;

    fn settings(seed: u64) -> Settings {
        Settings { seed, ..fixture::no_trials().settings }
    }

    fn plan_of(name: &str) -> load::Plan {
        let all = workload::all().unwrap();
        let workload = all.iter().find(|workload| workload.name == name).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        plan(address, workload, &settings(5)).unwrap()
    }

    #[test]
    fn what_a_scenario_asks_for_is_what_the_generator_is_told() {
        let stream = plan_of("stream-64k");
        assert!(stream.streaming && stream.connections == 16 && stream.payload_bytes == 65_536);
        assert_eq!(plan_of("http-pipelined").pipelining, 16);
        assert!(plan_of("http-connect").reconnect);
        assert_eq!(plan_of("echo-64").pace, load::Pace::Closed);
        let chat = plan_of("ws-chat");
        assert!(chat.fan_out && chat.payload_bytes == 64 && chat.connections == 100);
        assert!(chat.target.url.starts_with("ws://") && chat.target.path == "/ws/chat");
        let streams = plan_of("h2-tls-streams");
        assert_eq!(streams.target.protocol, Protocol::Http2);
        assert!(streams.target.tls && streams.pipelining == 32);
        let resumed = plan_of("tls-resume");
        assert!(resumed.tls_resume && resumed.reconnect && resumed.target.tls);
        assert_eq!(resumed.target.protocol, Protocol::Http1);
        let load::Pace::Open { rate_per_s, seed, .. } = plan_of("rate-20000").pace else {
            panic!("not an open loop");
        };
        assert_eq!((rate_per_s, seed), (20_000.0, 5));
    }

    #[test]
    fn a_post_carries_its_payload() {
        let mut workload = workload::all().unwrap().swap_remove(4);
        (workload.post, workload.path) = (true, Some("/echo".into()));
        workload.payload_bytes = 1_000;
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let plan = plan(address, &workload, &settings(1)).unwrap();
        assert_eq!((plan.method, plan.payload_bytes), (load::Method::Post, 1_000));
    }
}
