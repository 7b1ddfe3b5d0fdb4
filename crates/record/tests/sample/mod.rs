//! A result file with data in each field, for tests.

use record::{
    Arrivals, Calls, Doubled, Environment, Executable, FanOut, IdleSample, LoadOutcome, Measured,
    Model, Outcome, Preset, Protocol, Results, Role, SCHEMA_VERSION, ServerExit, ServerSample,
    Settings, Skip, Slices, Slot, TlsOutcome, Trial, Workload,
};
use serde_json::json;

fn load() -> LoadOutcome {
    LoadOutcome {
        requests: 12_345,
        duration_s: 0.1 + 0.2,
        requests_per_s: 41_150.000_000_1,
        bytes_sent: u64::MAX,
        ended_early: Some("the server died".into()),
        protocol: Protocol::WebSocket,
        tls: Some(TlsOutcome {
            version: "TLSv1.3".into(),
            alpn: Some("http/1.1".into()),
            handshakes_resumed: 3,
            ..TlsOutcome::default()
        }),
        fan_out: Some(FanOut { members: 100, messages: 125 }),
        ..LoadOutcome::default()
    }
}

fn slices() -> Slices {
    Slices {
        requests: vec![500, 501],
        elapsed_ns: vec![5_000_000, 5_000_001],
        server_cpu_ns: vec![4_000_000, 4_000_001],
        client_cpu_ns: vec![3_000_000, 3_000_001],
    }
}

fn slot(position: u32) -> Slot {
    let (workload, model) = ("echo-64".into(), "epoll".into());
    Slot {
        round: 1,
        position,
        workload,
        model,
        role: if position == 1 { Role::Sentinel } else { Role::Timed },
    }
}

fn trials() -> Vec<Trial> {
    let measured = Measured {
        load: load(),
        server: ServerSample { cpu_us: 3, ..ServerSample::default() },
        machine: Default::default(),
        idle: Some(IdleSample { duration_s: 1.0 / 3.0, ..IdleSample::default() }),
        idle_connections_lost: 0,
        exit: ServerExit { counters: Some(json!({ "requests": 1 })), ..ServerExit::default() },
        calls: Some(Calls { total: 2, ..Calls::default() }),
        slices: slices(),
        doubled: Doubled { single: slices(), double: slices() },
    };
    let failed = Outcome::Failed { reason: "ended at once".into() };
    let trial =
        |position, outcome| Trial { slot: slot(position), started_s: 0.7, took_s: 1e-7, outcome };
    vec![trial(0, Outcome::Measured(Box::new(measured))), trial(1, failed)]
}

/// The file.
pub fn results() -> Results {
    Results {
        schema_version: SCHEMA_VERSION,
        environment: Environment { steal_since_boot_s: Some(0.1), ..Environment::default() },
        settings: Settings {
            preset: Preset::Quick,
            seed: u64::MAX,
            rounds: 1,
            warm_up_s: 0.1,
            window_s: 0.25,
            idle_sample_s: 0.5,
            idle_sample_rounds: 1,
            counting_rounds: 0,
            budget_s: None,
            awake: true,
            server_cores: vec![0],
            client_cores: vec![1],
        },
        workloads: vec![Workload {
            name: "echo-64".into(),
            description: "64 bytes".into(),
            protocol: Protocol::Echo,
            path: None,
            payload_bytes: 64,
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
            idle_connections: 0,
            idle_sample_connections: 0,
            processors_sleep: false,
        }],
        models: vec![Model {
            label: "epoll".into(),
            name: "epoll".into(),
            description: "one thread".into(),
            protocols: vec![Protocol::Echo],
            arguments: vec![],
            connections_max: None,
            connections_max_reason: None,
            describe: json!({ "name": "epoll", "anything": [1, 2.5, null] }),
            executable: Some(Executable {
                sha256: "ba7816bf".into(),
                bytes: 3,
                build: Some("release".into()),
            }),
        }],
        reference: "epoll".into(),
        floor: None,
        skips: vec![Skip {
            model: "uring".into(),
            workload: None,
            reason: "not permitted".into(),
            by_design: false,
        }],
        schedule: vec![slot(0), slot(1)],
        trials: trials(),
    }
}
