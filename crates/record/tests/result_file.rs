//! A written result file is read back identically; other files are refused with one sentence.

use record::{ParseError, Results, SCHEMA_VERSION, schema};
use serde_json::{Value, json};

mod sample;

use sample::results;

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
    // A newer file may lack fields: the error must name the version.
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

/// The fields of a written file are those of the schema, object by object.
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
    assert_eq!(defined("Executable"), keys(&value["models"][0]["executable"]));
    assert_eq!(defined("Skip"), keys(&value["skips"][0]));
    let measured = &value["trials"][0]["outcome"]["measured"];
    assert_eq!(defined("Measured"), keys(measured));
    assert_eq!(defined("LoadOutcome"), keys(&measured["load"]));
    assert_eq!(defined("TlsOutcome"), keys(&measured["load"]["tls"]));
    assert_eq!(defined("FanOut"), keys(&measured["load"]["fan_out"]));
    assert_eq!(defined("ServerSample"), keys(&measured["server"]));
    assert_eq!(defined("ServerExit"), keys(&measured["exit"]));
    let described = &schema["$defs"]["IdleSample"]["properties"]["cpu_us"]["description"];
    assert!(described.as_str().unwrap().contains("CPU time"));
}
