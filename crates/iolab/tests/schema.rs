//! The file of `iolab bench` satisfies the printed schema, and can be compared and exported. What
//! `iolab laws --json` prints satisfies its schema too.

mod support;

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use support::{iolab, servers};

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A run of three rounds with two flavours of the example server.
fn measured(place: &Path) -> Value {
    let servers = servers();
    let mut arguments = vec!["bench", "--rounds", "3", "--out", "run"];
    arguments.extend(["--servers", servers.to_str().unwrap(), "--workloads", "echo-64"]);
    let models = "example,example+fault=none";
    let output = iolab(place, &[&arguments[..], &["--models", models]].concat());
    let file = std::fs::read_to_string(place.join("run/results.json"));
    serde_json::from_str(&file.unwrap_or_else(|_| panic!("{output:?}"))).unwrap()
}

#[test]
fn a_real_file_satisfies_the_printed_schema_and_can_be_compared_and_exported() {
    let place = TempDir::new().unwrap();
    let results = measured(place.path());
    let schema = iolab(place.path(), &["schema"]);
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&results).map(|e| e.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new());

    // A run against itself: nothing differs.
    let same = iolab(place.path(), &["compare", "run", "run"]);
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    assert!(text(&same.stdout).contains("1.000") && !text(&same.stdout).contains("Differs"));
    assert!(text(&same.stdout).lines().all(|line| line.chars().count() <= 100), "{same:?}");
    let json = iolab(place.path(), &["compare", "run", "run", "--format", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let same = |row: &Value| row["verdict"] == "equal" || row["verdict"] == "~";
    assert!(json["rows"].as_array().unwrap().iter().all(same), "{json}");

    // Two models of one run.
    let models = ["compare", "run", "--models", "example,example+fault=none", "--format", "csv"];
    let models = iolab(place.path(), &models);
    assert!(text(&models.stdout).contains("example+fault=none : example"), "{models:?}");

    for (format, wanted) in [
        ("csv", "echo-64,example,timed,"),
        ("markdown", "| example"),
        ("json", "\"requests_per_s\""),
        ("benchstat", "BenchmarkEcho64/model=example\t"),
    ] {
        let output = iolab(place.path(), &["export", "run", "--format", format]);
        assert!(output.status.success() && text(&output.stdout).contains(wanted), "{output:?}");
    }
}

#[test]
fn what_laws_prints_satisfies_the_printed_schema() {
    let place = TempDir::new().unwrap();
    let schema = iolab(place.path(), &["schema", "--laws"]);
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    // L28 is decided by three statuses.
    let output = iolab(place.path(), &["laws", "L28", "--json"]);
    let laws: Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors: Vec<String> = validator.iter_errors(&laws).map(|e| e.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(laws["laws"][0]["id"], "L28");
    match laws["laws"][0]["standing"]["skip"].as_str() {
        Some(why) => eprintln!("SKIP {why}"),
        None => assert_eq!(laws["laws"][0]["standing"], "holds", "{laws}"),
    }
}

#[test]
fn what_cannot_be_compared_gets_one_sentence_and_exit_code_2() {
    let place = TempDir::new().unwrap();
    std::fs::create_dir(place.path().join("empty")).unwrap();
    std::fs::write(place.path().join("old.json"), r#"{ "schema_version": 1 }"#).unwrap();
    std::fs::write(place.path().join("cut.json"), r#"{ "schema_version": 2, "trials": ["#).unwrap();
    std::fs::write(place.path().join("page.json"), "<html>").unwrap();
    for (file, wanted) in [
        ("empty", "cannot read empty/results.json"),
        ("old.json", "its schema_version is 1"),
        ("cut.json", "not a complete result file"),
        ("page.json", "not a complete result file"),
        ("missing", "cannot read missing"),
    ] {
        for arguments in [&["compare", file, file][..], &["export", file, "--format", "csv"]] {
            let output = iolab(place.path(), arguments);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert!(said.contains(wanted) && said.lines().count() == 1, "{said}");
        }
    }
}
