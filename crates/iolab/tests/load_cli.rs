//! Tests of `iolab load` as a process: exit codes, messages for bad input, JSON.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use record::LoadOutcome;

type Test = Result<(), Box<dyn std::error::Error>>;

fn load(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_iolab")).arg("load").args(arguments).output()
}

/// An echo server. With `spoil` it changes all bytes from its second connection on.
fn echo(spoil: bool) -> std::io::Result<SocketAddr> {
    echo_for(usize::MAX, spoil)
}

/// The same; it closes its listener after `connections`.
fn echo_for(connections: usize, spoil: bool) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().take(connections).enumerate() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if spoil && number > 0 {
                        buffer.iter_mut().for_each(|byte| *byte ^= 1);
                    }
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

#[test]
fn a_clean_run_is_a_table_or_json_and_exit_0() -> Test {
    let url = format!("tcp://{}", echo(false)?);
    let output = load(&[&url, "-c", "4", "-n", "50", "--json"])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let outcome: LoadOutcome = serde_json::from_slice(&output.stdout)?;
    assert_eq!((outcome.requests, outcome.errors, outcome.connections), (50, 0, 4));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&value["requests"], &value["errors"]), (&50.into(), &0.into()));

    let output = load(&[&url, "-c", "4", "-n", "50", "--payload", "1000", "--pipelining", "3"])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("requests") && text.contains("p90") && text.contains("none"), "{text}");
    assert!(!text.contains('\x1b'), "colours on something that is no terminal: {text:?}");
    assert!(output.stderr.is_empty(), "a live line on something that is no terminal");
    Ok(())
}

/// Checks that all servers are measured and reported, not which of them costs more.
#[test]
fn several_servers_take_turns() -> Test {
    let urls = [echo(false)?, echo(false)?].map(|address| format!("tcp://{address}"));
    let this = std::process::id().to_string();
    let pids = format!("{this},{this}");
    let arguments = [&urls[0], &urls[1], "-c", "2", "-d", "300ms"];
    let output = load(&[&arguments[..], &["--pid", &pids, "--json"]].concat())?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let servers = value["servers"].as_array().ok_or("a list")?;
    let labels: Vec<_> = servers.iter().map(|server| server["label"].as_str()).collect();
    assert_eq!(labels, [Some(&urls[0][6..]), Some("again (control)"), Some(&urls[1][6..])]);
    for server in servers {
        assert!(server["blocks"].as_u64() > Some(0) && server["server_us"].as_f64() > Some(0.0));
    }

    let output = load(&arguments)?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    assert!(
        text.contains(&format!("Compared with {}:\n{}: ", &urls[0][6..], &urls[1][6..])),
        "{text}"
    );
    assert!(!text.contains("server us"), "no process was named: {text}");

    let options =
        [&["--pid", &this][..], &["-n", "5"], &["--rate", "5"], &["--threads", "2", "-d", "1s"]];
    for options in options {
        let output = load(&[&[&*urls[0], &urls[1]], options].concat())?;
        assert_eq!(output.status.code(), Some(2), "{options:?} {output:?}");
        let told = String::from_utf8(output.stderr)?;
        assert!(told.starts_with("iolab: ") && told.lines().count() == 1, "{told}");
    }
    Ok(())
}

#[test]
fn what_was_measured_before_a_server_left_is_told() -> Test {
    // Each epoch has a probe and two connections, so the sixth epoch cannot connect.
    let urls = [echo(false)?, echo_for(5 * 3, false)?].map(|address| format!("tcp://{address}"));
    let output = load(&[&urls[0], &urls[1], "-c", "2", "-d", "300ms"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8(output.stderr)?;
    assert!(told.contains("iolab: the figures are of 5 epochs: nothing answers at"), "{told}");
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains(&format!("Compared with {}:", &urls[0][6..])), "{text}");
    Ok(())
}

/// The second connection waits for the end of the first.
#[test]
fn a_server_with_one_client_at_a_time_does_not_hold_up_the_others() -> Test {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let one = format!("tcp://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer)
                && stream.write_all(&buffer[..count]).is_ok()
            {}
        }
    });
    let other = format!("tcp://{}", echo(false)?);
    let output = load(&[&other, &one, "-c", "2", "-d", "300ms", "--timeout", "300ms"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("use fewer connections if it serves fewer at once"), "{text}");
    Ok(())
}

#[test]
fn errors_are_named_and_exit_1() -> Test {
    let url = format!("tcp://{}", echo(true)?);
    let output = load(&[&url, "-c", "4", "-n", "50"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("50 wrong (first: byte 0 of the body"), "{text}");
    Ok(())
}

#[test]
fn bad_input_is_one_sentence_and_exit_2() -> Test {
    let url = format!("tcp://{}", echo(false)?);
    for arguments in [
        vec!["no-url"],
        vec!["tcp://127.0.0.1"],
        vec![&url, "-c", "0"],
        vec![&url, "--payload", "0"],
        vec![&url, "--threads", "100"],
        vec![&url, "--reconnect", "--pipelining", "2"],
        vec![&url, "--idle", "2000000"],
        vec![&url, "--idle", "999999"],
        vec![&url, "--rate", "-5"],
        vec![&url, "--rate", "0"],
        vec![&url, "--seed", "3"],
        vec![&url, "--streaming", "--reconnect"],
        vec!["http://127.0.0.1:1/", "--streaming"],
        vec![&url, "--source", "192.0.2.1"],
        vec![&url, "--pid", "2147483647"],
        vec![&url, "-n", "5", "--hgrm", "no/such/folder/file"],
        vec![&url, "--find-rate", "--p99", "5ms", "-c", "0"],
        vec!["http://127.0.0.1:1/", "-H", "no colon"],
    ] {
        let output = load(&arguments)?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let text = String::from_utf8(output.stderr)?;
        assert!(text.starts_with("iolab: ") && text.lines().count() == 1, "{arguments:?}: {text}");
        assert!(output.stdout.is_empty());
    }
    for arguments in [
        vec![],
        vec![&url, "-c", "many"],
        vec![&url, "-n", "5", "-d", "1s"],
        vec![&url, "--find-rate"],
        vec![&url, "--p99", "5ms"],
        vec![&url, "--rate", "fast"],
        vec![&url, "--rate", "5", "--streaming"],
    ] {
        let output = load(&arguments)?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn an_open_loop_says_whether_its_client_kept_up() -> Test {
    let url = format!("tcp://{}", echo(false)?);
    let common = [url.as_str(), "--rate", "2000", "-n", "100", "--seed", "3"];
    let output = load(&[&common[..], &["--json"]].concat())?;
    let outcome: LoadOutcome = serde_json::from_slice(&output.stdout)?;
    let open = outcome.open_loop.ok_or("no open loop")?;
    assert_eq!((outcome.requests, open.due, open.sent, open.seed), (100, 100, 100, 3));
    // On a busy machine the client may be too slow; then the run must not look successful.
    let expected = i32::from(open.invalid.is_some());
    assert_eq!(output.status.code(), Some(expected), "{open:?}");

    let output = load(&common)?;
    let text = String::from_utf8(output.stdout)?;
    for part in ["latency from due", "send lag", "100 sent in it, 0 not answered", "Poisson"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(text.contains("INVALID"), output.status.code() == Some(1), "{text}");
    Ok(())
}

#[test]
fn a_stream_is_told_in_megabytes() -> Test {
    let url = format!("tcp://{}", echo(false)?);
    let output = load(&[&url, "--streaming", "-p", "16", "-n", "5000", "-c", "2"])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("MB/s") && text.contains("80,000 received"), "{text}");
    Ok(())
}

#[test]
fn the_server_s_process_is_read_beside_the_client_s() -> Test {
    // The server is a thread of this test.
    let url = format!("tcp://{}", echo(false)?);
    let pid = std::process::id().to_string();
    let output = load(&[&url, "-n", "2000", "--pid", &pid, "--json"])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert!(value["server"]["cpu_us"].as_u64() > Some(0), "{value}");
    let text = String::from_utf8(load(&[&url, "-n", "200", "--pid", &pid])?.stdout)?;
    assert!(text.contains("server CPU") && text.contains("sum"), "{text}");
    Ok(())
}

/// Starts `iolab load`, its output in pipes.
fn start(arguments: &[&str]) -> std::io::Result<Child> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iolab"));
    command.arg("load").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

fn interrupt(child: &Child) -> nix::Result<()> {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT)
}

#[test]
fn ctrl_c_ends_the_window_and_prints_it() -> Test {
    // An echo server that counts.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("tcp://{}", listener.local_addr()?);
    let served = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&served);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer).is_ok() {
                    count.fetch_add(1, SeqCst);
                }
            });
        }
    });
    let child = start(&[&url, "-c", "2", "-d", "60s", "--warmup", "0s", "--json"])?;
    while served.load(SeqCst) < 100 {
        std::thread::yield_now();
    }
    interrupt(&child)?;
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let outcome: LoadOutcome = serde_json::from_slice(&output.stdout)?;
    assert!(outcome.requests > 0 && outcome.duration_s < 50.0, "{outcome:?}");
    assert!(outcome.ended_early.is_some_and(|why| why.contains("stopped")));
    Ok(())
}

/// An echo server that counts its messages and stops to reply after `answered` of them.
fn counting_echo(answered: u64) -> std::io::Result<(String, Arc<AtomicU64>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("tcp://{}", listener.local_addr()?);
    let served = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&served);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while stream.read_exact(&mut buffer).is_ok() {
                    if count.fetch_add(1, SeqCst) < answered && stream.write_all(&buffer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok((url, served))
}

#[test]
fn a_client_that_was_stopped_does_not_blame_the_server() -> Test {
    const STOP: Duration = Duration::from_millis(700);
    for rate in [None, Some("400"), Some("50")] {
        let (url, served) = counting_echo(u64::MAX)?;
        let pace: Vec<_> = rate.iter().flat_map(|rate| ["--rate", rate]).collect();
        let common = [url.as_str(), "-c", "8", "-d", "3s", "--warmup", "0s", "--json"];
        let child = start(&[&common[..], &pace[..]].concat())?;
        while served.load(SeqCst) < 20 {
            std::thread::yield_now();
        }
        let pid = Pid::from_raw(child.id() as i32);
        kill(pid, Signal::SIGSTOP)?;
        std::thread::sleep(STOP);
        kill(pid, Signal::SIGCONT)?;
        let output = child.wait_with_output()?;
        assert_eq!(output.status.code(), Some(1), "{rate:?}: {output:?}");
        let outcome: LoadOutcome = serde_json::from_slice(&output.stdout)?;
        assert!(outcome.client_stops.longest_us >= 0.9 * STOP.as_micros() as f64, "{outcome:?}");
        assert!(outcome.client_stops.requests > 0 && outcome.errors == 0, "{outcome:?}");
        let told = String::from_utf8(output.stderr)?;
        assert!(told.contains("the client itself was stopped for"), "{rate:?}: {told}");
    }
    Ok(())
}

#[test]
fn a_server_that_got_stuck_is_no_success() -> Test {
    for pace in [&[][..], &["--rate", "2000"]] {
        let (url, _) = counting_echo(50)?;
        let common = [url.as_str(), "-c", "8", "-d", "500ms", "--warmup", "0s"];
        let output = load(&[&common[..], pace].concat())?;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let (told, text) = (String::from_utf8(output.stderr)?, String::from_utf8(output.stdout)?);
        assert!(told.contains("stopped answering"), "{told}");
        assert!(text.contains("not answered by the end, the oldest for 1."), "{text}");
    }
    Ok(())
}

#[test]
fn little_achieved_is_no_success() -> Test {
    // A rate that no server can sustain.
    let url = format!("tcp://{}", echo(false)?);
    let output = load(&[&url, "--rate", "10000000", "-d", "200ms", "--warmup", "0s"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr)?.contains("were never answered"));
    // A server with two workers, each of which keeps its client.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("tcp://{}", listener.local_addr()?);
    for _ in 0..2 {
        let listener = listener.try_clone()?;
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut buffer = [0; 64];
                while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer).is_ok() {}
            }
        });
    }
    let output = load(&[&url, "-c", "8", "-d", "500ms", "--warmup", "0s"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8(output.stderr)?;
    assert!(told.contains("6 of 8 connections completed no request"), "{told}");
    Ok(())
}

#[test]
fn ctrl_c_in_a_search_prints_the_probes_so_far() -> Test {
    let url = format!("tcp://{}", echo(false)?);
    let search = ["--find-rate", "--p50", "1s", "-d", "100ms", "--warmup", "0s", "--json"];
    let mut child = start(&[&[url.as_str()], &search[..]].concat())?;
    let mut stderr = BufReader::new(child.stderr.take().ok_or("no stderr")?);
    let mut line = String::new();
    stderr.read_line(&mut line)?;
    assert!(line.starts_with("probe  1: ") && line.contains("within the limit: p50"), "{line}");
    interrupt(&child)?;
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&value["quantile"], &value["ended_early"]), (&0.5.into(), &"stopped".into()));
    let probes = value["probes"].as_array().ok_or("no probes")?;
    assert!(!probes.is_empty() && probes[0]["verdict"] == "held", "{value}");
    Ok(())
}

#[test]
fn a_server_that_dies_is_one_sentence_beside_the_figures() -> Test {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("tcp://{}", listener.local_addr()?);
    std::thread::spawn(move || -> std::io::Result<()> {
        let mut buffer = [0; 64];
        let (mut probe, _) = listener.accept()?;
        probe.read_exact(&mut buffer)?;
        probe.write_all(&buffer)?;
        let mut streams = [listener.accept()?.0, listener.accept()?.0];
        drop(listener);
        for stream in &mut streams {
            stream.read_exact(&mut buffer)?;
            stream.write_all(&buffer)?;
            stream.read_exact(&mut buffer)?;
        }
        Ok(())
    });
    let output = load(&[&url, "-c", "2", "-d", "60s", "--warmup", "0s"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (told, text) = (String::from_utf8(output.stderr)?, String::from_utf8(output.stdout)?);
    assert!(told.contains("died") && told.lines().count() == 1, "{told}");
    assert!(text.contains("2 in ") && text.contains("ended early"), "{text}");
    Ok(())
}

#[test]
fn a_full_disk_loses_nothing() -> Test {
    const FULL: &str = "/dev/full";
    if File::options().write(true).open(FULL).is_err() {
        println!("SKIP: {FULL} cannot be opened here");
        return Ok(());
    }
    let url = format!("tcp://{}", echo(false)?);
    let output = load(&[&url, "-n", "50", "--json", "--hgrm", FULL])?;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let outcome: LoadOutcome = serde_json::from_slice(&output.stdout)?;
    assert_eq!(outcome.requests, 50);
    let told = String::from_utf8(output.stderr)?;
    assert!(told.contains("cannot write /dev/full") && told.lines().count() == 1, "{told}");

    let mut command = Command::new(env!("CARGO_BIN_EXE_iolab"));
    command.args(["load", &url, "-n", "50", "--json"]);
    let output = command.stdout(File::options().write(true).open(FULL)?).output()?;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = String::from_utf8(output.stderr)?;
    let first = told.lines().next().unwrap_or_default();
    assert_eq!(serde_json::from_str::<LoadOutcome>(first)?.requests, 50);
    Ok(())
}

#[test]
fn percentiles_are_written_for_the_plotter() -> Test {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("latency.hgrm");
    let url = format!("tcp://{}", echo(false)?);
    let output = load(&[&url, "-n", "500", "--hgrm", &path.to_string_lossy()])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = std::fs::read_to_string(path)?;
    let last = text.lines().rfind(|line| !line.starts_with("#["));
    let columns: Vec<_> = last.unwrap_or_default().split_whitespace().collect();
    assert_eq!(columns[1..], ["1.000000000000", "500"], "{text}");
    Ok(())
}
