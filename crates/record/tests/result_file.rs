//! A written result file reads back identically, and files that are none say so in one sentence.

use record::{
    Arrivals, Calls, Environment, Gauge, IdleSample, LoadOutcome, Measured, Model, Outcome,
    ParseError, Preset, Results, Role, SCHEMA_VERSION, ServerExit, ServerSample, Settings, Skip,
    Slot, Trial, Workload, schema,
};
use serde_json::{Value, json};

fn load() -> LoadOutcome {
    LoadOutcome {
        requests: 12_345,
        duration_s: 0.1 + 0.2,
        requests_per_s: 41_150.000_000_1,
        bytes_sent: u64::MAX,
        ended_early: Some("the server died".into()),
        ..LoadOutcome::default()
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
    };
    let failed = Outcome::Failed { reason: "ended at once".into() };
    let trial =
        |position, outcome| Trial { slot: slot(position), started_s: 0.7, took_s: 1e-7, outcome };
    vec![trial(0, Outcome::Measured(Box::new(measured))), trial(1, failed)]
}

fn results() -> Results {
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
            server_cores: vec![0],
            client_cores: vec![1],
        },
        workloads: vec![Workload {
            name: "echo-64".into(),
            description: "64 bytes".into(),
            protocol: "echo".into(),
            path: None,
            payload_bytes: 64,
            post: false,
            connections: 64,
            connect_per_request: false,
            pipelining: 1,
            streaming: false,
            rate_per_s: None,
            arrivals: Arrivals::Poisson,
            idle_connections: 0,
            idle_sample_connections: 0,
        }],
        models: vec![Model {
            label: "epoll".into(),
            name: "epoll".into(),
            description: "one thread".into(),
            protocols: vec!["echo".into()],
            arguments: vec![],
            connections_max: None,
            connections_max_reason: None,
            describe: json!({ "name": "epoll", "anything": [1, 2.5, null] }),
        }],
        reference: "epoll".into(),
        floor: None,
        skips: vec![Skip { model: "uring".into(), workload: None, reason: "not permitted".into() }],
        schedule: vec![slot(0), slot(1)],
        trials: trials(),
        gauges: vec![Gauge { round: 1, ..Gauge::default() }],
    }
}

#[test]
fn what_was_written_reads_back_identically() {
    let results = results();
    let text = results.to_json().unwrap();
    assert_eq!(Results::from_json(&text).unwrap(), results);
    assert!(results.is_complete());
}

#[test]
fn a_file_of_another_version_is_named_as_such() {
    let mut value: Value = serde_json::from_str(&results().to_json().unwrap()).unwrap();
    value["schema_version"] = json!(SCHEMA_VERSION + 1);
    // A newer file may lack what this reader wants: the version must be what is complained about.
    value.as_object_mut().unwrap().remove("trials");
    let error = Results::from_json(&value.to_string()).unwrap_err();
    assert_eq!(error, ParseError::UnknownVersion(u64::from(SCHEMA_VERSION + 1)));
    assert!(error.to_string().contains("with the iolab that wrote it"));
}

#[test]
fn a_truncated_file_is_an_error_wherever_it_ends() {
    let text = results().to_json().unwrap();
    for end in (0..text.len() - 2).step_by(7) {
        let error = Results::from_json(&text[..end]).unwrap_err();
        assert!(matches!(error, ParseError::Malformed(_)), "cut at {end}: {error}");
    }
    assert!(!Results::from_json("[]").unwrap_err().to_string().contains('\n'));
}

/// Every field of a written file stands in the schema and the other way round, object by object.
#[test]
fn the_schema_describes_what_is_written() {
    let schema = schema();
    let value: Value = serde_json::from_str(&results().to_json().unwrap()).unwrap();
    let keys = |value: &Value| {
        let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let defined = |name: &str| keys(&schema["$defs"][name]["properties"]);
    assert_eq!(keys(&schema["properties"]), keys(&value));
    assert_eq!(defined("Environment"), keys(&value["environment"]));
    assert_eq!(defined("Settings"), keys(&value["settings"]));
    assert_eq!(defined("Workload"), keys(&value["workloads"][0]));
    assert_eq!(defined("Model"), keys(&value["models"][0]));
    assert_eq!(defined("Skip"), keys(&value["skips"][0]));
    let measured = &value["trials"][0]["outcome"]["measured"];
    assert_eq!(defined("Measured"), keys(measured));
    assert_eq!(defined("LoadOutcome"), keys(&measured["load"]));
    assert_eq!(defined("ServerSample"), keys(&measured["server"]));
    assert_eq!(defined("ServerExit"), keys(&measured["exit"]));
    let described = &schema["$defs"]["IdleSample"]["properties"]["cpu_us"]["description"];
    assert!(described.as_str().unwrap().contains("CPU time"));
}
