//! A recording is read as it was written, and what is wrong in one is named with its line.

use record::{
    Call, Environment, Figure, Frame, Heading, RECORDING_VERSION, Recording, Run, SeenBy, Skipped,
    Span, recording_schema,
};

fn recording() -> Recording {
    let heading = Heading {
        recording_version: RECORDING_VERSION,
        experiment: "request".into(),
        command: "iolab experiment request".into(),
        prediction: Some("less".into()),
        environment: Environment::default(),
    };
    let run = "close".to_owned();
    Recording {
        runs: vec![Run { run: run.clone(), link: Some("rtt=20ms".into()), ..Run::default() }],
        spans: vec![Span { run: run.clone(), to_us: 0.1, request: Some(0), ..Span::default() }],
        calls: vec![Call {
            run: run.clone(),
            thread_id: 7,
            process_id: 6,
            name: "recvfrom".into(),
            arguments: "5, 16384".into(),
            descriptor: Some(5),
            object: "connection".into(),
            connection: Some(1),
            given: Some(9),
            from_us: 1.0,
            to_us: 2.5,
            result: Some(-11),
            slept: Some(false),
            seen_by: SeenBy::Ptrace,
        }],
        frames: vec![Frame {
            run: run.clone(),
            connection: 0,
            at_us: 3.0,
            from_server: true,
            kind: "DATA".into(),
            stream: 1,
            bytes: 22,
            ends_stream: true,
        }],
        figures: vec![Figure { run, name: "rtt_ms".into(), value: 0.1, ..Figure::default() }],
        skipped: vec![Skipped { what: "20 ms of round trip".into(), why: "no link".into() }],
        ..Recording::new(heading)
    }
}

#[test]
fn a_recording_is_read_as_it_was_written() {
    let text = recording().to_json_lines().unwrap();
    assert_eq!(Recording::from_json_lines(&text).unwrap(), recording());
}

#[test]
fn each_line_satisfies_the_schema() {
    let validator = jsonschema::validator_for(&recording_schema()).unwrap();
    for line in recording().to_json_lines().unwrap().lines() {
        let value = serde_json::from_str(line).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "{line}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let good = recording().to_json_lines().unwrap();
    let heading = good.lines().next().unwrap();
    let span = good.lines().nth(3).unwrap();
    let newer = heading.replace("\"recording_version\":1", "\"recording_version\":9");
    for (text, said) in [
        (String::new(), "line 1 is not a line of a recording (no line)"),
        ("{}\n".to_owned(), "line 1 "),
        (span.to_owned(), "line 1 is not a line of a recording (it is not a heading)"),
        (newer, "its recording_version is 9 and this iolab reads 1"),
        (format!("{heading}\n{span}\n"), "line 2 is not a line of a recording (the run \"close\""),
        (format!("{heading}\n{heading}\n"), "line 2 is not a line of a recording (a second"),
        (good[..good.len() - 9].to_owned(), "line 7 "),
    ] {
        let error = Recording::from_json_lines(&text).unwrap_err().to_string();
        assert!(error.contains(said), "{said:?} is not in {error:?}");
    }
}
