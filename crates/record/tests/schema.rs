//! The committed schemas are up to date, and written files satisfy them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use record::{
    Check, Environment, Instrument, LawFigure, LawOutcome, Laws, LoadOutcome, OpenLoop,
    SCHEMA_VERSION, Standing, Verdict, Way, instrument_schema, laws_schema, recording_schema,
    schema,
};
use serde_json::{Value, json};

mod sample;

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name)
}

/// The output of `iolab schema`. After a change of the types run the command that the failure
/// names. Raise SCHEMA_VERSION if an older reader would misread a
/// newer file.
#[test]
fn the_committed_schemas_are_up_to_date() {
    for (name, flag, schema) in [
        ("results.json", "", schema()),
        ("instrument.json", " --instrument", instrument_schema()),
        ("recording.json", " --recording", recording_schema()),
        ("laws.json", " --laws", laws_schema()),
    ] {
        let text = std::fs::read_to_string(committed(name)).unwrap_or_default();
        let renew = format!("cargo run -p iolab -- schema{flag} > crates/record/schema/{name}");
        assert!(text == format!("{schema:#}\n"), "{name} is stale; renew it: {renew}");
    }
}

fn errors(schema: &Value, value: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(schema).unwrap();
    let told = |error: jsonschema::ValidationError| format!("{}: {error}", error.instance_path());
    validator.iter_errors(value).map(told).collect()
}

fn instrument() -> Instrument {
    Instrument {
        schema_version: SCHEMA_VERSION,
        environment: Environment::default(),
        seed: u64::MAX,
        checks: vec![Check {
            name: "coordinated-omission".into(),
            rule: 5,
            claim: "a stall is seen".into(),
            expected: "50 times".into(),
            fails_if: "the stall is not seen".into(),
            measured: "90 times".into(),
            figures: BTreeMap::from([("corrected_p99_us".into(), 1.4e6)]),
            wrong: Some(Way { how: "timed from the send".into(), figure: "90 us".into() }),
            right: None,
            verdict: Verdict::Skipped("no second core".into()),
        }],
    }
}

#[test]
fn a_written_file_satisfies_its_schema() {
    let mut results = sample::results();
    if let record::Outcome::Measured(measured) = &mut results.trials[0].outcome {
        let open_loop = Some(OpenLoop { invalid: Some("late".into()), ..OpenLoop::default() });
        measured.load = LoadOutcome { open_loop, ..measured.load.clone() };
    }
    let value: Value = serde_json::from_str(&results.to_json().unwrap()).unwrap();
    assert_eq!(errors(&schema(), &value), Vec::<String>::new());
    let value: Value = serde_json::from_str(&instrument().to_json().unwrap()).unwrap();
    assert_eq!(errors(&instrument_schema(), &value), Vec::<String>::new());
}

fn laws() -> Laws {
    let figure = LawFigure {
        name: "busy".into(),
        value: 99.5,
        unit: "%".into(),
        interval: Some((98.0, 99.9)),
        at_least: Some(95.0),
        at_most: None,
    };
    let law = |standing| LawOutcome {
        id: "L10".into(),
        claim: "A claim.".into(),
        expected: "A figure.".into(),
        source: "A book".into(),
        shown_by: "iolab experiment idle".into(),
        figures: vec![figure.clone()],
        note: None,
        standing,
        others_cores: Some(0.1),
        took_s: 3.0,
    };
    let standings = [
        Standing::Holds,
        Standing::NotHere("busy is 1".into()),
        Standing::Skip("no root".into()),
        Standing::Fault("no block".into()),
    ];
    Laws { seed: u64::MAX, laws: standings.map(law).into() }
}

#[test]
fn what_is_printed_of_the_laws_satisfies_its_schema_and_reads_back() {
    let text = serde_json::to_string(&laws()).unwrap();
    assert_eq!(serde_json::from_str::<Laws>(&text).unwrap(), laws());
    let good: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(errors(&laws_schema(), &good), Vec::<String>::new());
    for (place, value) in [
        ("/laws/0/standing", json!("perhaps")),
        ("/laws/1/figures/0/value", json!("much")),
        ("/laws/2/id", json!(10)),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(place).unwrap() = value;
        assert!(errors(&laws_schema(), &bad)[0].starts_with(place), "{place}");
    }
}

/// The validator finds these errors and their places.
#[test]
fn what_breaks_the_schema_is_seen() {
    let good: Value = serde_json::from_str(&sample::results().to_json().unwrap()).unwrap();
    let broken = |place: &str, value: Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(place).unwrap() = value;
        errors(&schema(), &bad)
    };
    let role = broken("/schedule/0/role", json!("timely"));
    assert!(role[0].starts_with("/schedule/0/role"), "{role:?}");
    assert!(!broken("/trials/0/outcome/measured/load/requests", json!(-1)).is_empty());
    assert!(!broken("/models/0", json!({ "label": "epoll" })).is_empty());
    assert!(!broken("/settings/preset", json!("slow")).is_empty());
}

#[test]
fn a_file_about_the_instrument_reads_back_identically() {
    let text = instrument().to_json().unwrap();
    assert_eq!(Instrument::from_json(&text).unwrap(), instrument());
    let other = text.replacen(&SCHEMA_VERSION.to_string(), "99", 1);
    assert!(Instrument::from_json(&other).unwrap_err().to_string().contains("is 99"));
    assert!(Instrument::from_json(&text[..40]).is_err());
}
