//! TLS as curl and OpenSSL see it: what they take for right was not decided here. Every server
//! keeps its certificate in a directory of the test, never in the user's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use suite::http2::{Frame, PREFACE, WINDOW_MAX, hpack, setting};
use suite::{Opcode, Server, Variant, client_frame, get, pattern, run_to_end, until};
use tempfile::TempDir;

use crate::Outcome;

/// Where a server looks for its certificate, if not told otherwise.
const STATE: &str = "XDG_STATE_HOME";

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A server with `--tls`, whose certificate is kept in `state`.
#[track_caller]
fn start(variant: &Variant, state: &Path, flags: &[&str]) -> Server {
    Server::start_with_variable(variant, &[&["--tls"], flags].concat(), (STATE, state))
}

fn pem(state: &Path) -> PathBuf {
    state.join("iolab").join("self-signed.pem")
}

/// Why a case cannot be run, if this program is not there.
fn lacks(program: &str, asked: &str) -> Option<Outcome> {
    let mut command = Command::new(program);
    match command.arg(asked).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => None,
        _ => Some(Outcome::Skipped(format!("{program} is not installed"))),
    }
}

/// What curl gets for `path`, and the version of HTTP that it got it with.
#[track_caller]
fn curl(server: &Server, state: &Path, arguments: &[&str], path: &str) -> (Vec<u8>, String) {
    let mut command = Command::new("curl");
    // No configuration of the user's, no proxy; a time limit as a guard.
    command.args(["-q", "--noproxy", "*", "--silent", "--show-error", "--max-time", "30"]);
    command.args(["--write-out", "%{stderr}HTTP/%{http_version}", "--cacert"]).arg(pem(state));
    command.args(arguments).arg(format!("https://{}{path}", server.address));
    let output = run_to_end(&mut command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "curl {arguments:?} {path}: {stderr}");
    (output.stdout, stderr)
}

/// What OpenSSL's client prints when it sends `input` and then listens until the server has closed.
/// The shell gives it the input, so that it does not see the end of its own before the answer.
#[track_caller]
fn openssl(server: &Server, state: &Path, arguments: &[&str], input: &[u8]) -> (bool, String) {
    let said = state.join("said");
    fs::write(&said, input).expect("the input is written");
    let mut command = Command::new("sh");
    command.args(["-c", "exec openssl s_client \"$@\" < \"$0\""]).arg(said);
    command.args(["-connect", &server.address.to_string(), "-CAfile"]).arg(pem(state));
    command.args(["-verify_return_error", "-ign_eof"]).args(arguments);
    let output = run_to_end(&mut command);
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
}

/// A request after whose reply the server closes.
const LAST: &[u8] = b"GET / HTTP/1.1\r\nHost: suite\r\nConnection: close\r\n\r\n";

pub fn curl_over_both_versions(variant: &Variant) -> Outcome {
    if let Some(skipped) = lacks("curl", "--version") {
        return skipped;
    }
    let version = Command::new("curl").arg("--version").output().expect("curl says its version");
    let speaks_http2 = String::from_utf8_lossy(&version.stdout).contains("HTTP2");
    let state = directory();
    let server = start(variant, state.path(), &[]);
    for tls in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        for (http, found) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")] {
            if http == "--http2" && !speaks_http2 {
                continue;
            }
            let arguments = [&tls[..], &[http]].concat();
            let (body, version) = curl(&server, state.path(), &arguments, "/");
            assert_eq!((body.as_slice(), version.as_str()), (b"Hello, world!".as_slice(), found));
            let (body, _) = curl(&server, state.path(), &arguments, "/bytes/1000000");
            assert!(body == pattern(0, 1_000_000), "{arguments:?}: {} other bytes", body.len());
            let sent = String::from_utf8(pattern(7, 50_000)).expect("the pattern is ASCII");
            let post = [&arguments[..], &["--data-binary", &sent]].concat();
            assert!(curl(&server, state.path(), &post, "/echo").0 == sent.as_bytes());
        }
    }
    server.stop();
    match speaks_http2 {
        true => Outcome::Passed,
        false => Outcome::skipped("this curl does not speak HTTP/2; the rest was right"),
    }
}

pub fn protocol_is_negotiated(variant: &Variant) -> Outcome {
    if let Some(skipped) = lacks("openssl", "version") {
        return skipped;
    }
    let state = directory();
    let server = start(variant, state.path(), &[]);
    for version in ["-tls1_2", "-tls1_3"] {
        let ask = |offered: &[&str], input: &[u8]| {
            let arguments = [&[version, "-verify_ip", "127.0.0.1"], offered].concat();
            openssl(&server, state.path(), &arguments, input)
        };
        for (offered, chosen) in [
            (["-alpn", "http/1.1"].as_slice(), "ALPN protocol: http/1.1"),
            (&["-alpn", "spdy/3,http/1.1"], "ALPN protocol: http/1.1"),
            (&[], "No ALPN negotiated"),
        ] {
            let (good, printed) = ask(offered, LAST);
            assert!(good && printed.contains(chosen), "{version} {offered:?}: {printed}");
            assert!(printed.contains("Verify return code: 0 (ok)"), "{printed}");
            assert!(printed.contains("Hello, world!"), "{version} {offered:?}: {printed}");
        }
        // The server's choice is HTTP/2, whatever the order; HTTP/1.1 is no preface of it.
        let (_, printed) = ask(&["-alpn", "http/1.1,h2"], LAST);
        assert!(printed.contains("ALPN protocol: h2"), "{version}: {printed}");
        assert!(!printed.contains("Hello, world!"), "HTTP/1.1 where HTTP/2 was agreed: {printed}");
        // RFC 7301 section 3.2.
        let (good, printed) = ask(&["-alpn", "spdy/3"], LAST);
        assert!(!good && printed.contains("no application protocol"), "{version}: {printed}");
    }
    // What is older than TLS 1.2 is refused (RFC 8996), by the server if OpenSSL lets it come.
    let (good, _) = openssl(&server, state.path(), &["-tls1_1"], LAST);
    assert!(!good, "TLS 1.1 was spoken");
    server.stop();
    Outcome::Passed
}

pub fn sessions_are_resumed(variant: &Variant) -> Outcome {
    if let Some(skipped) = lacks("openssl", "version") {
        return skipped;
    }
    let state = directory();
    let server = start(variant, state.path(), &[]);
    let session = state.path().join("session").to_string_lossy().into_owned();
    let cases: [(&str, &[&str]); 3] =
        [("-tls1_2", &[]), ("-tls1_2", &["-no_ticket"]), ("-tls1_3", &[])];
    for (version, more) in cases {
        if variant.model.has_processes() && !more.is_empty() {
            // Another process would be asked, which has not made that session.
            continue;
        }
        for (kept, found) in [("-sess_out", "New, TLSv1."), ("-sess_in", "Reused, TLSv1.")] {
            let arguments = [&[version, kept, &session], more].concat();
            let (good, printed) = openssl(&server, state.path(), &arguments, LAST);
            assert!(good && printed.contains(found), "{arguments:?}: {printed}");
            assert!(printed.contains("Hello, world!"), "{arguments:?}: {printed}");
        }
    }
    server.stop();
    Outcome::Passed
}

pub fn plain_text_is_refused(variant: &Variant) {
    let state = directory();
    let server = start(variant, state.path(), &[]);
    // Whoever forgot the s of https is told so in a language that he understands.
    for bytes in [get("/"), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()] {
        let mut client = server.connect();
        client.send(&bytes);
        let reply = client.reply();
        assert_eq!(reply.status, 400);
        assert!(String::from_utf8_lossy(&reply.body).contains("TLS"), "{reply:?}");
        client.expect_end();
    }
    // Everybody else gets an alert in a record of its own, or nothing (RFC 8446, sections 5.1 and
    // 6.2).
    let mut client = server.connect();
    client.send(&[0; 600]);
    let told = client.read_until_cut();
    assert!(told.is_empty() || told[0] == 21, "{told:?}");
    drop(client);
    // A client that goes during its handshake.
    let mut client = server.connect();
    client.send(&[22, 3, 1]);
    drop(client);
    let counters = server.stop();
    assert_eq!(counters["requests"], 0, "{counters}");
}

/// Head, frames and end of a WebSocket that was opened from this origin.
#[track_caller]
fn over_tls(server: &Server, state: &Path, version: &str, origin: &str) -> String {
    let upgrade = format!(
        "GET /ws/echo HTTP/1.1\r\nHost: suite\r\nOrigin: {origin}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    );
    let said = match origin {
        "https://suite" => [
            client_frame(Opcode::Text, b"through the tunnel"),
            client_frame(Opcode::Close, &1000_u16.to_be_bytes()),
        ]
        .concat(),
        // It is to be refused: the next request ends the connection.
        _ => LAST.to_vec(),
    };
    let input = [upgrade.as_bytes(), &said].concat();
    openssl(server, state, &[version, "-quiet"], &input).1
}

pub fn websocket_over_tls(variant: &Variant) -> Outcome {
    if let Some(skipped) = lacks("openssl", "version") {
        return skipped;
    }
    let state = directory();
    let server = start(variant, state.path(), &[]);
    for version in ["-tls1_2", "-tls1_3"] {
        let printed = over_tls(&server, state.path(), version, "https://suite");
        assert!(printed.contains("HTTP/1.1 101 "), "{printed}");
        assert!(printed.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{printed}");
        assert!(printed.contains("\u{12}through the tunnel"), "{printed}");
        // The page came without TLS, so it is another origin.
        let printed = over_tls(&server, state.path(), version, "http://suite");
        assert!(printed.contains("HTTP/1.1 403 ") && !printed.contains(" 101 "), "{printed}");
    }
    server.stop();
    Outcome::Passed
}

/// The same as `http2_limits::wide_windows_unread`, around which TLS has a queue of its own.
pub fn wide_windows_unread(variant: &Variant) -> Outcome {
    for program in [["curl", "--version"], ["openssl", "version"]] {
        if let Some(skipped) = lacks(program[0], program[1]) {
            return skipped;
        }
    }
    let state = directory();
    let server = start(variant, state.path(), &["--write-timeout", "250ms"]);
    let frames = [
        Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, WINDOW_MAX)]),
        Frame::window_update(0, WINDOW_MAX - 65_535),
        Frame::headers(1, hpack::request("GET", "/bytes/1000000000"), true),
    ];
    let frames: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
    let said = state.path().join("said");
    fs::write(&said, [PREFACE, &frames].concat()).expect("the input is written");
    let mut command = Command::new("sh");
    command.args(["-c", "exec openssl s_client \"$@\" < \"$0\""]).arg(said);
    command.args(["-connect", &server.address.to_string()]);
    command.args(["-alpn", "h2", "-quiet", "-ign_eof"]);
    // Its output is a pipe that is not read, so it soon does not read either.
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut client = command.spawn().expect("openssl starts");
    // One at a time: whoever asks waits until it is cut.
    until("the client that does not read is cut", || {
        let (stats, _) = curl(&server, state.path(), &["--http1.1"], "/stats");
        let stats: Value = serde_json::from_slice(&stats).expect("/stats is JSON");
        stats["connections_ended"]["write_timeout"] == 1
    });
    client.kill().expect("openssl is ended");
    client.wait().expect("openssl has ended");
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["write_timeout"], 1, "{counters}");
    Outcome::Passed
}

/// One sentence on stderr that holds all of `says`, and exit code 2.
#[track_caller]
fn refuses(variant: &Variant, state: &Path, flags: &[&str], says: &[&str]) {
    let mut command = Command::new(&variant.model.executable);
    command.env(STATE, state).args(&variant.flags).args(["--listen", "127.0.0.1:0"]).args(flags);
    let output = run_to_end(&mut command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{flags:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{flags:?}: stdout is for the contract");
    assert!(says.iter().all(|part| stderr.contains(part)), "{flags:?}, {says:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{flags:?}: {stderr}");
}

/// Certificate and key as two files in `state`, from a server that made them.
#[track_caller]
fn two_files(variant: &Variant, state: &Path) -> (String, String) {
    start(variant, state, &[]).stop();
    let both = fs::read_to_string(pem(state)).expect("the server made a certificate");
    let at = both.find("-----BEGIN PRIVATE KEY-----").expect("the key is behind it");
    let (cert, key) = both.split_at(at);
    let put = |name: &str, text: &str| {
        let path = state.join(name);
        fs::write(&path, text).expect("a file can be written");
        path.to_string_lossy().into_owned()
    };
    (put("cert.pem", cert), put("key.pem", key))
}

pub fn mistakes_get_one_sentence(variant: &Variant) {
    let (state, other) = (directory(), directory());
    let (cert, key) = two_files(variant, state.path());
    let (_, other_key) = two_files(variant, other.path());
    let nowhere = state.path().join("nowhere").to_string_lossy().into_owned();
    let text = state.path().join("text").to_string_lossy().into_owned();
    fs::write(&text, "no PEM\n").expect("a file can be written");
    let cases: [(&[&str], &[&str]); 8] = [
        (&["--cert", &cert], &["--key"]),
        (&["--key", &key], &["--cert"]),
        (&["--cert", &nowhere, "--key", &key], &["--cert", &nowhere]),
        (&["--cert", &cert, "--key", &nowhere], &["--key", &nowhere]),
        (&["--cert", &text, "--key", &key], &["--cert", &text, "PEM"]),
        (&["--cert", &cert, "--key", &text], &["--key", &text, "PEM"]),
        (&["--cert", &cert, "--key", &cert], &["--key", &cert]),
        (&["--cert", &cert, "--key", &other_key], &["--key", &other_key, &cert]),
    ];
    for (flags, says) in cases {
        refuses(variant, state.path(), flags, says);
    }
    // A state directory that cannot be one.
    let file = state.path().join("text");
    refuses(variant, &file, &["--tls"], &["--tls", "--cert"]);
}

/// Certificate and key are in one file, which only its owner may read, and which stays.
pub fn certificate_is_made_once(variant: &Variant) {
    let state = directory();
    // Many at once: one makes it, the others take that.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| start(variant, state.path(), &[]).stop());
        }
    });
    let file = pem(state.path());
    let made = fs::read_to_string(&file).expect("there is a certificate");
    let mode = fs::metadata(&file).expect("its mode").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    let begins: Vec<_> = made.lines().filter(|line| line.starts_with("-----BEGIN ")).collect();
    assert_eq!(begins, ["-----BEGIN CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----"]);
    start(variant, state.path(), &[]).stop();
    assert_eq!(fs::read_to_string(&file).expect("it is still there"), made, "made anew");
    // What cannot be used is replaced, and the mode with it.
    fs::write(&file, &made[..made.len() / 2]).expect("half a file");
    start(variant, state.path(), &[]).stop();
    let again = fs::read_to_string(&file).expect("it is there again");
    assert!(again != made && again.contains("PRIVATE KEY"), "{again}");
}

/// `--cert` and `--key` alone ask for TLS.
pub fn certificate_of_files(variant: &Variant) -> Outcome {
    if let Some(skipped) = lacks("curl", "--version") {
        return skipped;
    }
    let (state, empty) = (directory(), directory());
    let (cert, key) = two_files(variant, state.path());
    let flags = ["--cert", &cert, "--key", &key];
    let server = Server::start_with_variable(variant, &flags, (STATE, empty.path()));
    assert_eq!(curl(&server, state.path(), &[], "/").0, b"Hello, world!");
    server.stop();
    assert!(!pem(empty.path()).exists(), "a certificate was made although one was given");
    Outcome::Passed
}

/// Files that openssl(1) makes of `make`, a shell script, in a directory of its own.
#[track_caller]
fn made(make: &str) -> TempDir {
    let files = directory();
    let mut command = Command::new("sh");
    let output = run_to_end(command.args(["-e", "-c", make]).current_dir(files.path()));
    assert!(output.status.success(), "{make}: {}", String::from_utf8_lossy(&output.stderr));
    files
}

/// What users have that is not what is wanted: the sentence names it, and the command that makes
/// what is wanted.
pub fn files_of_the_wrong_kind(variant: &Variant) -> Outcome {
    if let Some(skipped) = lacks("openssl", "version") {
        return skipped;
    }
    let files = made(
        "openssl req -newkey rsa:2048 -nodes -keyout key -subj /CN=localhost -out request
         # OpenSSL makes version 1 where it copies a request without extensions.
         openssl x509 -req -in request -signkey key -out version1
         openssl req -x509 -key key -subj /CN=localhost -out cert
         openssl x509 -in cert -outform DER -out cert.der
         openssl pkey -in key -outform DER -out key.der
         openssl pkey -in key -aes128 -passout pass:word -out key.encrypted
         openssl pkcs12 -export -in cert -inkey key -passout pass: -out both.p12
         openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:1024 -out rsa1024
         openssl req -x509 -key rsa1024 -subj /CN=localhost -out rsa1024.cert
         openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:secp256k1 -out secp256k1
         openssl req -x509 -key secp256k1 -subj /CN=localhost -out secp256k1.cert
         openssl genpkey -algorithm ed448 -out ed448
         openssl req -x509 -key ed448 -subj /CN=localhost -out ed448.cert
         : > empty",
    );
    let file = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    const MAKE: &str = "`openssl req -x509 ";
    let cases: [(&str, &str, &[&str]); 13] = [
        ("version1", "key", &["--cert", "X.509 version 1", MAKE]),
        ("rsa1024.cert", "rsa1024", &["--key", "RSA with 1024 bits", MAKE]),
        ("secp256k1.cert", "secp256k1", &["--key", "ECDSA on secp256k1", MAKE]),
        ("ed448.cert", "ed448", &["--key", "Ed448", MAKE]),
        ("cert", "key.encrypted", &["--key", "encrypted", "`openssl pkey "]),
        ("cert", "key.der", &["--key", "DER", "`openssl pkey -inform DER "]),
        ("cert.der", "key", &["--cert", "DER", "`openssl x509 -inform DER "]),
        ("both.p12", "key", &["--cert", "PKCS#12", "`openssl pkcs12 "]),
        ("cert", "both.p12", &["--key", "PKCS#12", "`openssl pkcs12 "]),
        ("empty", "key", &["--cert", "empty", MAKE]),
        ("cert", "empty", &["--key", "empty", MAKE]),
        ("key", "key", &["--cert", "it holds a private key"]),
        (".", "key", &["--cert", "directory"]),
    ];
    for (cert, key, says) in cases {
        refuses(variant, files.path(), &["--cert", &file(cert), "--key", &file(key)], says);
    }
    Outcome::Passed
}

/// The command that the sentences name makes files that are taken.
pub fn files_of_the_command_that_is_named(variant: &Variant) -> Outcome {
    if let Some(skipped) = lacks("openssl", "version") {
        return skipped;
    }
    let (state, empty) = (directory(), directory());
    let none = empty.path().join("none").to_string_lossy().into_owned();
    fs::write(&none, "").expect("an empty file");
    let mut command = Command::new(&variant.model.executable);
    command.args(["--listen", "127.0.0.1:0", "--cert", &none, "--key", &none]);
    let said = run_to_end(command.env(STATE, state.path())).stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    let files = made(said.split('`').nth(1).expect("a command in the sentence"));
    let file = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    let flags = ["--cert", &file("cert.pem"), "--key", &file("key.pem")];
    Server::start_with_variable(variant, &flags, (STATE, state.path())).stop();
    Outcome::Passed
}

/// RFC 9112 section 3.2.2: a server accepts absolute-form, and over TLS the scheme is https.
pub fn absolute_form_over_tls(variant: &Variant) -> Outcome {
    if let Some(skipped) = lacks("curl", "--version") {
        return skipped;
    }
    let state = directory();
    let server = start(variant, state.path(), &[]);
    for target in ["https://localhost/", "HTTPS://localhost:443/?query", "https://localhost"] {
        let arguments = ["--http1.1", "--request-target", target];
        assert_eq!(curl(&server, state.path(), &arguments, "/").0, b"Hello, world!", "{target}");
    }
    server.stop();
    Outcome::Passed
}
