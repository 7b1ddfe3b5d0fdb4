//! The experiments on real servers, and on servers without the cause that an experiment shows.
//! Nothing here depends on speed.

use std::path::{Path, PathBuf};

use lesson::{EXPERIMENTS, Setting, Stage};
use record::{Environment, Heading, RECORDING_VERSION, Recording};

/// The directory of the servers, which `cargo build --workspace` fills.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let directory = test.parent().and_then(Path::parent).unwrap().to_owned();
    let epoll = directory.join("serve-epoll");
    assert!(epoll.is_file(), "{} is missing: cargo build --workspace", epoll.display());
    directory
}

/// A directory in which `serve-MODEL` has these arguments too.
fn with_arguments(model: &str, arguments: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let name = format!("serve-{model}");
    let script = format!("exec {}/{name} \"$@\" {arguments}", built().display());
    fixture::script(&place.path().join(name), &script);
    place
}

/// Runs an experiment on loopback alone.
fn recorded(name: &str, servers: Vec<PathBuf>) -> Recording {
    let heading = Heading {
        recording_version: RECORDING_VERSION,
        experiment: name.to_owned(),
        command: String::new(),
        prediction: None,
        environment: Environment::default(),
    };
    let setting = Setting {
        servers,
        model: None,
        no_links: Some("no links in this test; allow them".to_owned()),
        interrupted: &|| false,
        progress: &|_| {},
    };
    let mut stage = Stage::new(setting, Recording::new(heading));
    let experiment = EXPERIMENTS.iter().find(|experiment| experiment.name == name).unwrap();
    (experiment.run)(&mut stage).unwrap();
    stage.into_recording()
}

/// The sentence with this word: whether it holds, and its text.
fn said(recording: &Recording, word: &str) -> (bool, String) {
    let lesson = verdict::lesson::of(recording).unwrap();
    let found = lesson.sentences.iter().find(|sentence| sentence.text.contains(word));
    let sentence = found.unwrap_or_else(|| panic!("{word:?} is not in {:?}", lesson.sentences));
    (sentence.holds, sentence.text.clone())
}

#[test]
fn request_without_links_skips_the_distances() {
    let recording = recorded("request", vec![built()]);
    assert_eq!(recording.runs.len(), 2);
    assert_eq!(recording.skipped.len(), 4);
    assert!(recording.skipped.iter().all(|skipped| skipped.why.contains("no links")));
    assert!(said(&recording, "one connection carried").0);
    let kinds = |run: &str| {
        let spans = recording.spans_of(run).filter(|span| span.request == Some(0));
        spans.map(|span| span.kind.clone()).collect::<Vec<_>>()
    };
    assert_eq!(kinds("close-0ms"), ["name", "connect", "wait", "transfer", "close"]);
    assert_eq!(kinds("keep-alive-0ms"), ["name", "connect", "wait", "transfer"]);
    assert!(recording.spans_of("keep-alive-0ms").any(|span| span.kind == "idle"));
}

#[test]
fn request_on_a_server_that_does_not_keep_alive_says_so() {
    let one = with_arguments("epoll", "--keepalive-requests 1");
    let recording = recorded("request", vec![one.path().to_owned()]);
    let (holds, text) = said(&recording, "was not kept");
    assert!(!holds && text.contains("3 with it"), "{text}");
    assert!(recording.spans.iter().all(|span| span.kind != "idle"));
}

#[test]
fn staircase_without_a_link_has_the_servers_step_alone() {
    let recording = recorded("staircase", vec![built()]);
    assert_eq!((recording.runs.len(), recording.skipped.len()), (5, 1));
    for run in &recording.runs {
        assert_eq!(recording.figure(&run.run, "requests_answered"), Some(7.0), "{}", run.run);
        let waits = recording.spans_of(&run.run).filter(|span| span.kind == "wait");
        assert_eq!(waits.count(), 7, "{}", run.run);
    }
    for (run, connections) in [("close", 7.0), ("keep-alive", 1.0), ("pipelined", 1.0), ("h2", 1.0)]
    {
        assert_eq!(recording.figure(run, "connections_accepted"), Some(connections), "{run}");
    }
    // Nothing connects for a step there, so no file is complete after three.
    assert!(!said(&recording, "Without keep-alive").0);
}

#[test]
fn news_says_what_a_server_without_a_check_of_origin_does() {
    let any = with_arguments("epoll", "--allow-origin '*'");
    let recording = recorded("news", vec![any.path().to_owned()]);
    assert_eq!(recording.skipped.len(), 2);
    let (holds, text) = said(&recording, "user's cookie");
    assert!(!holds && text.contains("status 101, and 101"), "{text}");
    for word in ["like a post office", "both directions", "of another site was"] {
        assert!(said(&recording, word).0, "{word}");
    }
    for run in ["polling", "long-polling", "events", "websocket"] {
        let late: Vec<_> = recording.spans_of(run).filter(|span| span.kind == "late").collect();
        assert!(!late.is_empty(), "{run}");
        // The server's clock is known to the round trip of a request.
        assert!(late.iter().all(|span| span.from_us <= span.to_us + 1e3), "{run}");
    }
}

/// A directory in which `serve-MODEL` is another model.
fn in_place_of(model: &str, other: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(format!("serve-{model}"));
    std::os::unix::fs::symlink(built().join(format!("serve-{other}")), path).unwrap();
    place
}

#[test]
fn teacher_counts_the_threads_of_the_servers() {
    let recording = recorded("teacher", vec![built()]);
    assert_eq!(recording.runs.len(), 5);
    assert!(said(&recording, "students took").0);
    for run in &recording.runs {
        assert_eq!(recording.figure(&run.run, "requests_answered"), Some(90.0), "{}", run.run);
    }
    let place = in_place_of("epoll", "threads");
    let recording = recorded("teacher", vec![place.path().to_owned(), built()]);
    assert!(!said(&recording, "students took").0);
}

#[test]
fn idle_with_a_model_that_sleeps_in_the_place_of_busy_says_so() {
    let other = in_place_of("busy", "epoll");
    let recording = recorded("idle", vec![other.path().to_owned(), built()]);
    let (holds, text) = said(&recording, "busy used");
    assert!(!holds && text.contains("not a loop"), "{text}");
    let figure = |name: &str| recording.figure("epoll", name);
    assert_eq!(figure("connections"), Some(100.0));
    assert!(figure("cpu_share_percent").is_some() && figure("wake_ups_per_s").is_some());
}

#[test]
fn streams_without_links_shows_the_slow_reply_and_the_heads() {
    let recording = recorded("streams", vec![built()]);
    assert_eq!((recording.runs.len(), recording.skipped.len()), (2, 6));
    assert!(said(&recording, "a slow reply delays").0);
    assert!(said(&recording, "HPACK sends a field once").0);
    let ends = |frame: &&record::Frame| frame.from_server && frame.ends_stream;
    let ended: Vec<u32> = recording.frames.iter().filter(ends).map(|frame| frame.stream).collect();
    // The slow reply is on the first stream, and ends last.
    assert_eq!((ended.len(), ended.last()), (10, Some(&1)), "{ended:?}");
    assert!(!verdict::lesson::of(&recording).unwrap().finding.holds);
}
