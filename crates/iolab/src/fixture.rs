//! Results that were never measured, for the tests of what renders them.

use std::collections::BTreeMap;

use base64::Engine as _;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use record::*;

mod protocols;
mod rich;

pub use protocols::protocols;
pub use rich::{instrument, rich, slow_replies};

/// A server as `--describe` tells of it; `select` is the one with a limit.
pub fn model(name: &str) -> Model {
    let limited = name == "select";
    Model {
        label: name.into(),
        name: name.into(),
        description: format!("waits in {name}"),
        protocols: ["echo", "http", "h2", "websocket"].map(str::to_owned).into(),
        arguments: Vec::new(),
        connections_max: limited.then_some(1_000),
        connections_max_reason: limited.then(|| "FD_SETSIZE is 1,024".into()),
        describe: serde_json::json!({ "name": name, "tls": true }),
        executable: None,
    }
}

/// Latencies that are all alike, so many of them.
pub fn latency(us: f64, samples: u64) -> Latency {
    let mut histogram = hdrhistogram::Histogram::<u64>::new(3).unwrap();
    histogram.record_n((us * 1_000.0) as u64, samples).unwrap();
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(&histogram, &mut bytes).unwrap();
    Latency {
        samples,
        mean_us: us,
        p50_us: us,
        p99_us: Some(us),
        histogram: base64::engine::general_purpose::STANDARD.encode(bytes),
        ..Latency::default()
    }
}

/// A window in which `requests` were answered, each for `server_us` of the server's CPU, with the
/// client busy for `client_busy` of the second.
pub fn measured(requests: u64, server_us: f64, client_busy: f64) -> Measured {
    let load = LoadOutcome {
        requests,
        duration_s: 1.0,
        requests_per_s: requests as f64,
        connections: 64,
        mean_in_flight: 64.0,
        latency: latency(64e6 / requests as f64, requests),
        client_cpu_us: (client_busy * 1e6) as u64,
        ..LoadOutcome::default()
    };
    Measured {
        load,
        server: ServerSample {
            cpu_us: (requests as f64 * server_us) as u64,
            voluntary_switches: requests / 10,
            threads_at_start: 1,
            threads_at_end: 1,
            ..ServerSample::default()
        },
        machine: MachineSample {
            busy_s: requests as f64 * server_us / 1e6 + client_busy,
            steal_s: 0.0,
        },
        idle: None,
        idle_connections_lost: 0,
        exit: ServerExit {
            code: Some(0),
            counters: Some(serde_json::json!({ "requests": requests })),
            ..ServerExit::default()
        },
        calls: None,
    }
}

/// The idle sample of a model with so many KiB per connection, busy for a share of a core.
pub fn idle(connections: u32, kib: u64, busy: f64) -> IdleSample {
    let memory_before =
        MemorySample { pss_kib: 2_000, page_tables_kib: 50, threads: 1, kernel_kib: None };
    let pss_kib = 2_000 + kib * u64::from(connections);
    let memory = MemorySample { pss_kib, ..memory_before };
    IdleSample {
        connections,
        duration_s: 0.5,
        cpu_us: (busy * 5e5) as u64,
        wake_ups: 1,
        memory_before,
        memory,
    }
}

/// Two workloads, six rounds, models that differ in known ways: epoll is the reference; poll is 10
/// % slower, steadily; select 1 % faster, which is no difference; busy spins; serial leaves 63
/// connections without progress; threads makes the client the limit.
pub fn results() -> Results {
    let mut results = no_trials();
    fill(&mut results);
    results
}

/// The same before its first trial.
pub fn no_trials() -> Results {
    let models: Vec<Model> =
        ["serial", "threads", "busy", "select", "poll", "epoll"].map(model).into();
    let workloads = ["http-keepalive", "idle-10000"].map(workload);
    Results {
        schema_version: SCHEMA_VERSION,
        environment: environment(),
        settings: Settings {
            preset: Preset::Default,
            seed: 1,
            rounds: 6,
            warm_up_s: 0.1,
            window_s: 1.0,
            idle_sample_s: 0.5,
            idle_sample_rounds: 6,
            counting_rounds: 0,
            budget_s: None,
            server_cores: vec![0],
            client_cores: vec![1],
        },
        workloads: workloads.into(),
        models,
        reference: "epoll".into(),
        floor: None,
        skips: vec![
            Skip {
                model: "select".into(),
                workload: Some("idle-10000".into()),
                reason: "holds 1000 connections at once (FD_SETSIZE is 1,024); this needs 10064"
                    .into(),
                by_design: false,
            },
            Skip {
                model: "uring".into(),
                workload: None,
                reason: "io_uring is not permitted".into(),
                by_design: false,
            },
        ],
        schedule: Vec::new(),
        trials: Vec::new(),
        gauges: Vec::new(),
    }
}

fn fill(results: &mut Results) {
    for round in 1..=6 {
        // The machine is slower in even rounds, for everybody.
        let speed = if round % 2 == 0 { 80_000.0 } else { 100_000.0 };
        for workload in ["http-keepalive", "idle-10000"] {
            for model in ["serial", "threads", "busy", "select", "poll", "epoll", "epoll"] {
                let cell_before = results.trials.last().map(|t| t.slot.model == model);
                let sentinel = model == "epoll" && cell_before == Some(true);
                let role = if sentinel { Role::Sentinel } else { Role::Timed };
                if (model, workload) == ("select", "idle-10000") {
                    continue;
                }
                let position = results.schedule.len() as u32;
                let (model, workload) = (model.to_owned(), workload.to_owned());
                let slot = Slot { round, position, workload, model, role };
                let outcome = outcome(&slot, speed);
                results.schedule.push(slot.clone());
                results.trials.push(Trial { slot, started_s: 1.0, took_s: 1.0, outcome });
            }
        }
    }
}

fn outcome(slot: &Slot, speed: f64) -> Outcome {
    let (factor, client_busy) = match slot.model.as_str() {
        "serial" => (0.2, 0.1),
        "threads" => (0.7, 0.97),
        "busy" => (0.95, 0.8),
        "select" => (1.01, 0.8),
        "poll" => (0.9, 0.8),
        _ => (1.0, 0.8),
    };
    let requests = (speed * factor) as u64;
    // All are busy for the whole second except threads, whose client is slow.
    let busy = if slot.model == "threads" { 0.5 } else { 0.98 };
    let mut measured = measured(requests, busy * 1e6 / requests as f64, client_busy);
    if slot.model == "serial" {
        measured.load.connections_without_progress = 63;
    }
    if slot.workload == "idle-10000" {
        if slot.model == "serial" {
            return Outcome::Failed { reason: "answered 1 of the 10000 idle connections".into() };
        }
        let kib = if slot.model == "threads" { 20 } else { 1 };
        let spin = if slot.model == "busy" { 1.0 } else { 0.0 };
        measured.idle = Some(idle(10_000, kib, spin));
    }
    Outcome::Measured(Box::new(measured))
}

fn trial(round: u32, workload: &str, model: &str, role: Role, measured: Measured) -> Trial {
    let slot = Slot { round, position: 0, workload: workload.into(), model: model.into(), role };
    Trial { slot, started_s: 1.0, took_s: 1.0, outcome: Outcome::Measured(Box::new(measured)) }
}

/// The same run with a server that parses nothing, 2 % faster than the reference under
/// http-keepalive, where its client is busy all the time.
pub fn with_floor(mut results: Results) -> Results {
    results.models.push(model("floor"));
    results.floor = Some("floor".into());
    for round in 1..=6 {
        let requests = if round % 2 == 0 { 81_600 } else { 102_000 };
        let measured = measured(requests, 7.0, 0.97);
        results.trials.push(trial(round, "http-keepalive", "floor", Role::Timed, measured));
    }
    results
}

/// The same run with a counting pass of http-keepalive in the first round: epoll makes two calls a
/// request and waits once for 25 of them; nothing else is counted.
pub fn with_counts(mut results: Results) -> Results {
    let mut measured = measured(10_000, 9.8, 0.8);
    measured.calls = Some(Calls {
        total: 20_401,
        by_name: [("recvfrom", 10_000), ("sendto", 10_000), ("epoll_wait", 400), ("mmap", 1)]
            .map(|(name, count)| (name.to_owned(), count))
            .into(),
        ring_operations: 0,
        ring_by_name: BTreeMap::new(),
    });
    results.trials.push(trial(1, "http-keepalive", "epoll", Role::Counting, measured));
    results
}

/// One open loop of 2,000 requests a second, six rounds: poll costs 30 % more CPU per request than
/// epoll, which is the reference, and its client fell behind in round 3; busy answers nine of ten.
pub fn open_loop() -> Results {
    let mut results = no_trials();
    results.models = ["busy", "poll", "epoll"].map(model).into();
    results.skips.clear();
    let workload = Workload { rate_per_s: Some(2_000), ..workload("open-2k") };
    results.workloads = vec![workload];
    for round in 1..=6 {
        for (model, role) in [
            ("busy", Role::Timed),
            ("poll", Role::Timed),
            ("epoll", Role::Timed),
            ("epoll", Role::Sentinel),
        ] {
            let (factor, answered) = match model {
                "busy" => (1.0, 1_800),
                "poll" => (1.3, 2_000),
                _ => (1.0, 2_000),
            };
            let mut measured = measured(answered, 20.0 * factor, 0.1);
            // The slow round is slow for everybody, and shows in the merged percentiles only.
            let us = if round == 6 { 900.0 } else { 100.0 };
            measured.load.latency = latency(us, answered);
            let behind = (model, round) == ("poll", 3);
            measured.load.open_loop = Some(OpenLoop {
                rate_per_s: 2_000.0,
                due: 2_000,
                sent: 2_000,
                unanswered: 2_000 - answered,
                send_lag: latency(5.0, answered),
                from_send: latency(us - 5.0, answered),
                invalid: behind.then(|| "12 % of the requests were sent late".to_owned()),
                ..OpenLoop::default()
            });
            results.trials.push(trial(round, "open-2k", model, role, measured));
        }
    }
    results.schedule = results.trials.iter().map(|trial| trial.slot.clone()).collect();
    results
}

fn workload(name: &str) -> Workload {
    Workload {
        name: name.into(),
        description: format!("the workload {name}"),
        protocol: "http".into(),
        path: Some("/".into()),
        payload_bytes: 13,
        post: false,
        tls: false,
        tls_resume: false,
        fan_out: false,
        connections: 64,
        connect_per_request: false,
        pipelining: 1,
        streaming: false,
        rate_per_s: None,
        arrivals: Arrivals::Poisson,
        idle_connections: if name == "idle-10000" { 10_000 } else { 0 },
        idle_sample_connections: if name == "idle-10000" { 10_000 } else { 0 },
    }
}

fn environment() -> Environment {
    Environment {
        iolab_version: "0.1.0".into(),
        commit: Some("0123456789ab".into()),
        started_at: "2026-01-02T03:04:05Z".into(),
        host: "fixture".into(),
        kernel: "6.18.0 #1 SMP".into(),
        cpu_model: "A CPU".into(),
        cores: 2,
        memory_kib: 8_000_000,
        virtualisation: None,
        mitigations: BTreeMap::from([("retbleed".into(), "Mitigation: untrained".into())]),
        descriptors_soft: 20_000,
        descriptors_hard: 20_000,
        congestion_control: "bbr".into(),
        sysctls: BTreeMap::from([("net.core.somaxconn".into(), "4096".into())]),
        load_average_1min: Some(0.25),
        pressure_cpu: Some(Pressure { avg10_percent: 0.5, avg60_percent: 0.25 }),
        steal_since_boot_s: Some(0.1),
        counting_unavailable: None,
        kernel_memory_unavailable: None,
        calibration: Calibration {
            null_syscall_ns: 140.0,
            clock_read_ns: 30.0,
            wake_up_us: 27.0,
            loopback_round_trip_us: 60.0,
        },
    }
}

/// A closed loop of a few connections: HTTP where there is a path, else echo.
pub fn small_workload(path: Option<&str>) -> Workload {
    Workload {
        name: "small".into(),
        description: "a few connections".into(),
        protocol: if path.is_some() { "http" } else { "echo" }.into(),
        path: path.map(str::to_owned),
        payload_bytes: if path.is_some() { 13 } else { 64 },
        post: false,
        tls: false,
        tls_resume: false,
        fan_out: false,
        connections: 8,
        connect_per_request: false,
        pipelining: 1,
        streaming: false,
        rate_per_s: None,
        arrivals: Arrivals::Poisson,
        idle_connections: 0,
        idle_sample_connections: 0,
    }
}
