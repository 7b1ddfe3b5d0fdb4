//! curl, nghttp and h2load as independent clients of HTTP/2.

use std::process::{Command, Stdio};

use suite::{Server, Variant, pattern, run_to_end};

use crate::Outcome;

/// Runs a tool with `arguments`, then the server's address before each path; returns stdout.
#[track_caller]
fn run(server: &Server, tool: &str, arguments: &[&str], paths: &[&str]) -> Vec<u8> {
    let mut command = Command::new(tool);
    command.args(arguments);
    command.args(paths.iter().map(|path| format!("http://{}{path}", server.address)));
    let output = run_to_end(&mut command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{tool} {arguments:?} {paths:?}: {stderr}");
    output.stdout
}

/// The reason, where a tool is not there or does not know HTTP/2.
fn skipped(tool: &str, knows: &str) -> Option<Outcome> {
    let asked = Command::new(tool).arg("--version").stdin(Stdio::null()).output();
    let Ok(asked) = asked else {
        return Some(Outcome::Skipped(format!("{tool} is not installed")));
    };
    let told = String::from_utf8_lossy(&asked.stdout).into_owned();
    (!told.contains(knows)).then(|| Outcome::Skipped(format!("this {tool} knows no {knows}")))
}

pub fn curl(variant: &Variant) -> Outcome {
    if let Some(skipped) = skipped("curl", "HTTP2") {
        return skipped;
    }
    let server = Server::start(variant, &[]);
    let known = ["-q", "--noproxy", "*", "-sS", "--max-time", "30", "--http2-prior-knowledge"];
    let with =
        |more: &[&str], paths: &[&str]| run(&server, "curl", &[&known, more].concat(), paths);
    assert_eq!(with(&[], &["/"]), b"Hello, world!");
    // One transfer each: curl 7.88 cannot use a connection of prior knowledge twice, with nginx
    // neither.
    assert!(with(&[], &["/bytes/100000"]) == pattern(0, 100_000));
    assert_eq!(with(&["--data", "a=b&c"], &["/echo"]), b"a=b&c");
    let head = String::from_utf8_lossy(&with(&["--head"], &["/bytes/5"])).into_owned();
    assert!(head.starts_with("HTTP/2 200") && head.contains("content-length: 5"), "{head}");
    let status = with(&["-o", "-", "-w", "%{http_code} %{http_version}"], &["/nowhere"]);
    assert!(status.ends_with(b"404 2"), "{:?}", String::from_utf8_lossy(&status));
    // A request to switch from HTTP/1.1, which is not followed (RFC 9113 section 3.1).
    let plain = ["-q", "--noproxy", "*", "-sS", "--http2", "-w", " %{http_version}"];
    assert_eq!(run(&server, "curl", &plain, &["/"]), b"Hello, world! 1.1");
    server.stop();
    Outcome::Passed
}

pub fn nghttp(variant: &Variant) -> Outcome {
    if let Some(skipped) = skipped("nghttp", "nghttp2") {
        return skipped;
    }
    let server = Server::start(variant, &[]);
    // None twice: nghttp asks once for each.
    let paths = ["/", "/bytes/100000", "/delay/5", "/nowhere", "/bytes/5"];
    let told = run(&server, "nghttp", &["--verbose", "--null-out", "--timeout=30"], &paths);
    let told = String::from_utf8_lossy(&told).into_owned();
    for (text, times) in [(":status: 200", 4), (":status: 404", 1), ("RST_STREAM", 0)] {
        assert_eq!(told.matches(text).count(), times, "{text}: {told}");
    }
    let body = run(&server, "nghttp", &["--timeout=30", "--window-bits=8"], &["/bytes/50000"]);
    assert!(body == pattern(0, 50_000), "{} bytes", body.len());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("upload");
    std::fs::write(&file, pattern(2, 300_000)).expect("writing the upload");
    let upload = format!("--data={}", file.display());
    let body = run(&server, "nghttp", &["--timeout=30", &upload], &["/echo"]);
    assert!(body == pattern(2, 300_000), "{} bytes came back", body.len());
    server.stop();
    Outcome::Passed
}

pub fn h2load(variant: &Variant) -> Outcome {
    if let Some(skipped) = skipped("h2load", "nghttp2") {
        return skipped;
    }
    let server = Server::start(variant, &[]);
    // All four would be connected at once, and three of them wait for the first one's end.
    let clients = if variant.model.one_at_a_time() { "1" } else { "4" };
    let load = ["-n", "200", "-c", clients, "-m", "32", "--connection-active-timeout=30s"];
    for path in ["/", "/bytes/100000", "/delay/1"] {
        let told = String::from_utf8_lossy(&run(&server, "h2load", &load, &[path])).into_owned();
        let line =
            "200 total, 200 started, 200 done, 200 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(told.contains(line), "{path}: {told}");
    }
    assert_eq!(server.stop()["requests"], 600);
    Outcome::Passed
}
