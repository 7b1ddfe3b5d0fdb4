//! curl as an independent client: what it takes for right was not decided here.

use std::fs;
use std::process::{Command, Stdio};

use suite::{Server, Variant, pattern, run_to_end};

use crate::Outcome;

/// Runs curl with `arguments`, the server's address before each path; returns stdout and stderr.
#[track_caller]
fn curl(server: &Server, arguments: &[&str], paths: &[&str]) -> (Vec<u8>, String) {
    let mut command = Command::new("curl");
    // No configuration of the user's, no proxy; a time limit as a guard.
    command.args(["-q", "--noproxy", "*", "--silent", "--show-error", "--max-time", "30"]);
    command.args(arguments);
    command.args(paths.iter().map(|path| format!("http://{}{path}", server.address)));
    let output = run_to_end(&mut command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "curl {arguments:?} {paths:?}: {stderr}");
    (output.stdout, stderr)
}

fn skipped() -> Option<Outcome> {
    let asked = Command::new("curl").arg("--version").stdout(Stdio::null()).status();
    match asked {
        Ok(status) if status.success() => None,
        _ => Some(Outcome::skipped("curl is not installed")),
    }
}

pub fn get_and_head(variant: &Variant) -> Outcome {
    if let Some(skipped) = skipped() {
        return skipped;
    }
    let server = Server::start(variant, &[]);
    assert_eq!(curl(&server, &[], &["/"]).0, b"Hello, world!");
    assert_eq!(curl(&server, &[], &["/bytes/100000"]).0, pattern(0, 100_000));
    let (head, _) = curl(&server, &["--head"], &["/bytes/100000"]);
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 100000"), "{head}");
    let (status, _) = curl(&server, &["-o", "-", "-w", "%{http_code}"], &["/nowhere"]);
    assert!(status.ends_with(b"404"), "{status:?}");
    server.stop();
    Outcome::Passed
}

pub fn keep_alive_is_reused(variant: &Variant) -> Outcome {
    if let Some(skipped) = skipped() {
        return skipped;
    }
    let server = Server::start(variant, &[]);
    let (body, notes) = curl(&server, &["--verbose"], &["/", "/bytes/64", "/delay/10", "/"]);
    assert!(body.ends_with(b"waited for 10 ms\nHello, world!"));
    let reused = notes.matches("Re-using existing").count();
    assert_eq!(reused, 3, "{notes}");
    assert_eq!(server.stop()["connections_accepted"], 1);
    Outcome::Passed
}

pub fn post_and_upload(variant: &Variant) -> Outcome {
    if let Some(skipped) = skipped() {
        return skipped;
    }
    let server = Server::start(variant, &[]);
    assert_eq!(curl(&server, &["--data", "a=b&c"], &["/echo"]).0, b"a=b&c");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("upload");
    let content = pattern(5, 3_000_000);
    fs::write(&file, &content).expect("writing the upload");
    let upload = file.to_string_lossy();
    let post = ["--request", "POST", "--upload-file", &upload];
    for more in [
        ["--header", "Expect: 100-continue"],
        ["--header", "Transfer-Encoding: chunked"],
        // An empty value takes the field out.
        ["--header", "Expect:"],
    ] {
        let arguments = [&post[..], &more[..], &["--verbose"]].concat();
        let (body, notes) = curl(&server, &arguments, &["/echo"]);
        assert!(body == content, "{more:?}: other bytes came back: {}", body.len());
        let told = notes.contains("< HTTP/1.1 100 ");
        assert_eq!(told, notes.contains("> Expect: 100-continue"), "{more:?}: {notes}");
    }
    server.stop();
    Outcome::Passed
}

pub fn http_1_0(variant: &Variant) -> Outcome {
    if let Some(skipped) = skipped() {
        return skipped;
    }
    let server = Server::start(variant, &[]);
    let (body, _) = curl(&server, &["--http1.0"], &["/bytes/5000", "/"]);
    assert_eq!(body, [pattern(0, 5000).as_slice(), b"Hello, world!"].concat());
    server.stop();
    Outcome::Passed
}

pub fn ranges(variant: &Variant) -> Outcome {
    if let Some(skipped) = skipped() {
        return skipped;
    }
    let root = tempfile::tempdir().expect("a temporary directory");
    fs::write(root.path().join("file.txt"), pattern(0, 100_000)).expect("writing a file");
    let server = Server::start(variant, &["--root", &root.path().to_string_lossy()]);
    for (range, offset, len) in
        [("0-0", 0, 1), ("100-199", 100, 100), ("-500", 99_500, 500), ("99999-", 99_999, 1)]
    {
        let (body, _) = curl(&server, &["--range", range], &["/files/file.txt"]);
        assert_eq!(body, pattern(offset, len), "{range}");
    }
    // A download that goes on where an earlier one broke off.
    let partial = root.path().join("partial");
    fs::write(&partial, pattern(0, 30_000)).expect("writing a part");
    let name = partial.to_string_lossy();
    curl(&server, &["--continue-at", "-", "--output", &name], &["/files/file.txt"]);
    assert!(fs::read(&partial).expect("reading it") == pattern(0, 100_000), "not put together");
    server.stop();
    Outcome::Passed
}
