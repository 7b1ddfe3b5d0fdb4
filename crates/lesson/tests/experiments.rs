//! The experiments on real servers, and on servers without the cause that an experiment shows: its
//! conclusion must then be another one.
//!
//! What decides is counted or ordered. Where an experiment shows a time, the two cases are so far
//! apart (a wait of two seconds against none) that a busy machine does not make one the other.

use std::path::{Path, PathBuf};

use lesson::{EXPERIMENTS, Links, Setting, Stage};
use record::{Environment, Figure, Heading, RECORDING_VERSION, Recording};
use verdict::lesson::{Answer, Lesson};

/// The directory of the servers, which `cargo build --workspace` fills.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let directory = test.parent().and_then(Path::parent).unwrap().to_owned();
    let epoll = directory.join("serve-epoll");
    assert!(epoll.is_file(), "{} is missing: cargo build --workspace", epoll.display());
    directory
}

/// A directory in which `serve-MODEL` is a shell command; {} in it is the directory of the servers.
fn scripted(model: &str, command: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    add_script(&place, model, command);
    place
}

fn add_script(place: &tempfile::TempDir, model: &str, command: &str) {
    let path = place.path().join(format!("serve-{model}"));
    let command = command.replace("{}", built().to_str().unwrap());
    fixture::script(&path, &format!("exec {command}"));
}

/// A directory in which `serve-MODEL` has these arguments too.
fn with_arguments(model: &str, arguments: &str) -> tempfile::TempDir {
    scripted(model, &format!("{{}}/serve-{model} \"$@\" {arguments}"))
}

/// A directory in which each of these models is the other one.
fn in_place_of(models: &[(&str, &str)]) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for (model, other) in models {
        let path = place.path().join(format!("serve-{model}"));
        std::os::unix::fs::symlink(built().join(format!("serve-{other}")), path).unwrap();
    }
    place
}

/// Runs an experiment on loopback alone.
fn recorded(name: &str, servers: Vec<PathBuf>) -> Recording {
    recorded_with(name, servers, Links::Refused("no links in this test; allow them".to_owned()))
}

/// Runs an experiment with servers of this directory in the place of those that it names.
fn recorded_in(name: &str, place: &tempfile::TempDir) -> Recording {
    recorded(name, vec![place.path().to_owned(), built()])
}

fn recorded_with(name: &str, servers: Vec<PathBuf>, links: Links) -> Recording {
    let heading = Heading {
        recording_version: RECORDING_VERSION,
        experiment: name.to_owned(),
        command: String::new(),
        prediction: None,
        environment: Environment::default(),
    };
    let setting =
        Setting { servers, model: None, links, interrupted: &|| false, progress: &|_| {} };
    let mut stage = Stage::new(setting, Recording::new(heading));
    let experiment = EXPERIMENTS.iter().find(|experiment| experiment.name == name).unwrap();
    (experiment.run)(&mut stage).unwrap();
    stage.into_recording()
}

fn lesson_of(recording: &Recording) -> Lesson {
    verdict::lesson::of(recording).unwrap()
}

/// The sentence with this word: whether it holds, and its text.
fn said(recording: &Recording, word: &str) -> (bool, String) {
    let lesson = lesson_of(recording);
    let found = lesson.sentences.iter().find(|sentence| sentence.text.contains(word));
    let sentence = found.unwrap_or_else(|| panic!("{word:?} is not in {:?}", lesson.sentences));
    (sentence.holds, sentence.text.clone())
}

fn assert_holds(recording: &Recording, word: &str) {
    let (holds, text) = said(recording, word);
    assert!(holds, "{text}");
}

/// That the sentence with this word says something else than what the experiment is there to show.
fn assert_not(recording: &Recording, word: &str) {
    let (holds, text) = said(recording, word);
    assert!(!holds, "{text}");
}

fn chosen(recording: &Recording) -> String {
    match lesson_of(recording).answer {
        Some(Answer::Choice(choice)) => choice,
        other => panic!("{other:?} is no choice"),
    }
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
    let lesson = lesson_of(&recording);
    assert!(lesson.sentences.iter().all(|sentence| !sentence.holds), "{:?}", lesson.sentences);
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

#[test]
fn teacher_counts_the_threads_of_the_servers() {
    let recording = recorded("teacher", vec![built()]);
    assert_eq!(recording.runs.len(), 5);
    assert!(said(&recording, "students took").0);
    for run in &recording.runs {
        assert_eq!(recording.figure(&run.run, "requests_answered"), Some(90.0), "{}", run.run);
    }
    let place = in_place_of(&[("epoll", "threads")]);
    assert_not(&recorded_in("teacher", &place), "students took");
}

#[test]
fn teacher_waits_are_those_of_one_at_a_time_and_not_of_a_name() {
    // With a thread each no client stands in line, and one at a time is no one who is called.
    let place = in_place_of(&[("serial", "threads"), ("epoll", "serial")]);
    let recording = recorded_in("teacher", &place);
    assert_not(&recording, "One student at a time");
    assert_not(&recording, "One teacher who is called");
    assert!(!lesson_of(&recording).finding.holds);
    assert_ne!(chosen(&recording), "about as long");
}

#[test]
fn idle_with_a_model_that_sleeps_in_the_place_of_busy_says_so() {
    let recording = recorded_in("idle", &in_place_of(&[("busy", "epoll")]));
    let (holds, text) = said(&recording, "busy used");
    assert!(!holds && text.contains("not a loop"), "{text}");
    let figure = |name: &str| recording.figure("epoll", name);
    assert_eq!(figure("connections"), Some(100.0));
    assert!(figure("cpu_share_percent").is_some() && figure("wake_ups_per_s").is_some());
}

#[test]
fn idle_with_busy_in_the_place_of_a_model_that_sleeps_names_it() {
    let recording = recorded_in("idle", &in_place_of(&[("epoll", "busy")]));
    let (holds, text) = said(&recording, "although they could sleep");
    assert!(!holds && text.contains("epoll"), "{text}");
    assert!(!lesson_of(&recording).finding.holds);
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

/// A shell command that describes the model and runs this server, whatever flags it is given.
fn running(model: &str, server: &str) -> String {
    format!(
        "sh -c '[ \"$1\" = --describe ] && exec {{}}/serve-{model} $1; exec {{}}/{server}' - \"$@\""
    )
}

/// Whether this machine allows what the experiment needs; if not, says so.
fn is_allowed(recording: &Recording) -> bool {
    for skipped in &recording.skipped {
        eprintln!("SKIP {}: {}", skipped.what, skipped.why);
    }
    recording.skipped.is_empty()
}

#[test]
fn edge_counts_the_reports_and_what_is_forgotten() {
    let recording = recorded("edge", vec![built()]);
    if is_allowed(&recording) {
        for word in ["Level: ", "Edge: ", "stops early", "One more byte", "serve-epoll"] {
            assert_holds(&recording, word);
        }
        assert_eq!(recording.figure("stops-early", "unread_bytes"), Some(48.0));
    }
}

#[test]
fn edge_with_a_reader_that_goes_on_forgets_nothing() {
    // The last of two flags counts.
    let recording = recorded_in("edge", &with_arguments("faulty", "--fault none"));
    if is_allowed(&recording) {
        let (holds, text) = said(&recording, "does not stop early");
        assert!(!holds && text.contains("no byte is left"), "{text}");
        assert_not(&recording, "read the end of the stream");
        assert_eq!(recording.figure("stops-early", "unread_bytes"), Some(0.0));
    }
}

#[test]
fn edge_with_level_triggers_everywhere_reports_as_often_as_it_reads() {
    let recording = recorded_in("edge", &with_arguments("faulty", "--trigger level"));
    if is_allowed(&recording) {
        let (holds, text) = said(&recording, "Edge: ");
        assert!(!holds && text.contains("4 times, for 4 reads"), "{text}");
        assert!(!lesson_of(&recording).finding.holds);
    }
}

#[test]
fn slow_reader_says_who_waits_and_where_the_bytes_are() {
    let recording = recorded("slow-reader", vec![built()]);
    if is_allowed(&recording) {
        for word in ["lie in its own", "keeps a copy", "sleeps in send(2)", "asks for EPOLLOUT"] {
            assert_holds(&recording, word);
        }
        assert_holds(&recording, "all threads sleep");
        assert_holds(&recording, "counts progress");
    }
}

#[test]
fn slow_reader_with_a_loop_in_the_place_of_the_threads_lets_no_one_wait() {
    let place = in_place_of(&[("serial", "epoll")]);
    let server = "serve-epoll --listen 127.0.0.1:0";
    add_script(&place, "pool", &running("pool", server));
    add_script(&place, "epoll", &running("epoll", server));
    let recording = recorded_in("slow-reader", &place);
    if is_allowed(&recording) {
        assert_not(&recording, "a thread was free");
        assert_not(&recording, "no thread sleeps in send");
        // This epoll was not given the timeout.
        assert_not(&recording, "reads nothing was not closed");
        assert!(!lesson_of(&recording).finding.holds);
    }
}

#[test]
fn cold_file_with_threads_in_the_place_of_a_loop_stops_no_client() {
    let recording = recorded_in("cold-file", &in_place_of(&[("epoll", "threads")]));
    if is_allowed(&recording) {
        let (holds, text) = said(&recording, "stopped no client");
        assert!(!holds && text.starts_with("epoll: "), "{text}");
        assert_holds(&recording, "did not say EAGAIN");
        let waited = lesson_of(&recording).finding.text;
        assert!(waited.contains("of select and poll wait"), "{waited}");
    }
}

#[test]
fn sleep_without_sleeping_processors_says_so() {
    // Held for all slices: the processors sleep in none.
    let held = match rig::slices::Awake::hold() {
        Ok(held) => held,
        Err(why) => return eprintln!("SKIP {why}"),
    };
    let recording = recorded("sleep", vec![built()]);
    drop(held);
    if rig::sample::processor_sleeps().is_none() {
        return eprintln!("SKIP the kernel does not count how often processors sleep");
    }
    let (holds, text) = said(&recording, "something else kept them");
    assert!(!holds && text.starts_with("A processor fell asleep 0.0"), "{text}");
}

/// With its three remedies taken away: keep-alive is as long as before, there are no more workers,
/// and the event loop is a pool too.
#[test]
fn visitors_without_a_remedy_wait_as_before() {
    let place = scripted(
        "pool",
        "{}/serve-pool $(echo \"$@\" | sed 's/ 200ms/ 2000ms/; s/--threads 400/--threads 300/')",
    );
    add_script(&place, "epoll", "{}/serve-pool \"$@\" --threads 300");
    let recording = recorded_in("visitors", &place);
    assert_holds(&recording, "300 workers are 50 visitors");
    assert_holds(&recording, "a kept connection holds a worker without a request");
    for remedy in ["With 300 workers, keep-alive 0.2 s", "With 400 workers", "With an event loop"] {
        let (holds, text) = said(&recording, remedy);
        assert!(!holds && text.contains("no remedy"), "{text}");
    }
    assert_not(&recording, "The event loop had");
    assert_eq!(chosen(&recording), "until the connections of another visitor are closed");
}

/// With a worker for each connection no client needs the worker of another.
#[test]
fn visitors_with_a_worker_for_each_connection_do_not_wait() {
    let place =
        scripted("pool", "{}/serve-pool $(echo \"$@\" | sed 's/--threads 300/--threads 400/')");
    let recording = recorded_in("visitors", &place);
    assert_not(&recording, "No visitor waits for a seat");
    assert_not(&recording, "did not have to wait until a connection was closed");
    assert!(!lesson_of(&recording).finding.holds);
    assert_eq!(chosen(&recording), "it does not wait");
    // By order: all are served before the first leaves.
    let ends = |kind: &'static str| {
        let spans = recording.spans_of("pool").filter(move |span| span.kind == kind);
        spans.map(|span| span.to_us)
    };
    let served = ends("transfer").fold(0.0, f64::max);
    assert!(served < ends("kept").fold(f64::MAX, f64::min), "{served}");
}

/// Requests of the others that began and ended while one computed.
fn served_meanwhile(recording: &Recording, run: &str) -> usize {
    let computes = recording.spans_of(run).find(|span| span.lane == "computes").unwrap();
    let others = recording.spans_of(run).filter(|span| span.lane != "computes");
    let meanwhile =
        others.filter(|span| span.from_us > computes.from_us && span.to_us < computes.to_us);
    meanwhile.count()
}

#[test]
fn stall_is_of_one_thread_for_all_and_not_of_a_name() {
    // The models are those of this directory.
    let place = in_place_of(&[("epoll", "threads"), ("threads", "epoll"), ("poll", "poll")]);
    let recording = recorded("stall", vec![place.path().to_owned()]);
    let (holds, text) = said(&recording, "one thread serves all clients");
    assert!(!holds && text.starts_with("epoll: "), "{text}");
    let (holds, text) = said(&recording, "a thread or process for each client");
    assert!(!holds && text.starts_with("threads: "), "{text}");
    // A loop may serve what came before it read the long request.
    let [threads, epoll] = ["epoll", "threads"].map(|run| served_meanwhile(&recording, run));
    assert!(threads > epoll, "{threads} with a thread each, {epoll} with a loop");
}

/// With poll and epoll changed for each other, and epoll in the place of select too.
#[test]
fn crowd_is_of_what_a_wait_gives_and_not_of_a_name() {
    let place = in_place_of(&[("select", "epoll"), ("poll", "epoll"), ("epoll", "poll")]);
    let recording = recorded_in("crowd", &place);
    let lesson = lesson_of(&recording);
    assert!(!lesson.finding.holds, "{:?}", lesson.finding);
    if let Some(skipped) = recording.skipped.first() {
        eprintln!("SKIP {}", skipped.why);
        return;
    }
    let given = |run: &str| recording.figure(run, "descriptors_given_per_wait");
    assert_eq!((given("select-900"), given("poll-10000")), (Some(0.0), Some(0.0)));
    assert!(given("epoll-10000") >= Some(10_000.0), "{:?}", given("epoll-10000"));
    assert!(recording.figure("poll-10000", "descriptors_watched") >= Some(10_000.0));
    assert_not(&recording, "In each wait");
}

#[test]
fn memory_is_that_of_a_thread_and_not_of_a_name() {
    let place = in_place_of(&[("threads", "epoll"), ("epoll", "threads")]);
    let recording = recorded("memory", vec![place.path().to_owned()]);
    let (holds, text) = said(&recording, "there is no stack for each");
    assert!(!holds && text.contains("0.00 threads for each connection"), "{text}");
    assert_not(&recording, "more than an entry in a table");
    assert!(!lesson_of(&recording).finding.holds);
    assert_eq!(recording.figure("epoll", "threads_per_connection"), Some(1.0));
}

#[test]
fn request_over_links_without_a_delay_saves_no_round_trips() {
    let recording = recorded_with("request", vec![built()], Links::LeftOut);
    assert_eq!((recording.runs.len(), recording.skipped.len()), (6, 0));
    assert!(recording.runs.iter().all(|run| run.link.is_none()));
    assert_holds(&recording, "one connection carried");
    assert_not(&recording, "At 100 ms of round trip");
    assert!(!lesson_of(&recording).finding.holds);
}

/// A server that keeps a connection alive where it should not any more.
#[test]
fn request_on_a_server_that_closes_late_says_so() {
    let late = "{}/serve-epoll $(echo \"$@\" | sed 's/ 1000ms/ 3000ms/')";
    let place = scripted("epoll", late);
    let recording = recorded_in("request", &place);
    assert_not(&recording, "although --idle-timeout asked for 1.00 s");
    assert_holds(&recording, "one connection carried");
}

/// Slow start takes a step in each round trip, and here there is none: all arrives in the first.
#[test]
fn streams_over_links_without_a_delay_show_no_slow_start() {
    let recording = recorded_with("streams", vec![built()], Links::LeftOut);
    assert_eq!((recording.runs.len(), recording.skipped.len()), (8, 0));
    let (holds, text) = said(&recording, "A new connection carried");
    assert!(!holds && text.contains("did not grow"), "{text}");
}

/// Streams that wait for each other are those of HTTP/1.1: its run is put in the place of HTTP/2's.
#[test]
fn streams_that_are_no_streams_wait_for_the_slow_reply() {
    let mut recording = recorded("streams", vec![built()]);
    recording.spans.retain(|span| span.run != "slow-h2x1");
    recording.figures.retain(|figure| figure.run != "slow-h2x1");
    let queued: Vec<_> = recording.spans_of("slow-h1x1").cloned().collect();
    recording.spans.extend(queued.into_iter().map(|mut span| {
        span.run = "slow-h2x1".to_owned();
        span
    }));
    for name in ["request_head_bytes", "reply_head_bytes"] {
        let value = recording.figure("slow-h1x1", name).unwrap();
        let (run, name) = ("slow-h2x1".to_owned(), name.to_owned());
        recording.figures.push(Figure { run, name, value, ..Figure::default() });
    }
    assert_not(&recording, "One of ten replies");
    assert_not(&recording, "The head of a request");
}

/// A process for each client, and a chat of its own in each.
#[test]
fn news_from_a_server_whose_clients_share_nothing_is_not_forwarded() {
    let recording = recorded_in("news", &in_place_of(&[("epoll", "prefork")]));
    let (holds, text) = said(&recording, "One of three clients spoke");
    assert!(!holds && text.contains("In /ws/chat the others heard it 0 times"), "{text}");
}

#[test]
fn news_over_a_link_without_a_delay_misses_no_message() {
    let recording = recorded_with("news", vec![built()], Links::LeftOut);
    assert_not(&recording, "long polling saw");
}
