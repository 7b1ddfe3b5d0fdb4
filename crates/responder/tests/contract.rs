//! Tests of serve-floor and serve-faulty as processes, over sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const REPLY: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\n\
    Hello, world!";

/// A server under test. Killed if a test fails before it was stopped.
struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
}

fn command(name: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(match name {
        "serve-floor" => env!("CARGO_BIN_EXE_serve-floor"),
        _ => env!("CARGO_BIN_EXE_serve-faulty"),
    });
    command.args(flags);
    command
}

fn run(name: &str, flags: &[&str]) -> Output {
    command(name, flags).output().unwrap()
}

impl Server {
    fn start(name: &str, flags: &[&str]) -> Server {
        let mut child = command(name, flags).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let model = name.strip_prefix("serve-").unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let pid = format!("pid={}", child.id());
        assert_eq!((words[0], words[2]), ("listening", &*format!("model={model}")), "{line}");
        assert_eq!(words[3], pid);
        Server { child, stdout, address: words[1].to_owned() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        // A guard: after a fault the test must not hang.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn ask(&self) -> String {
        let mut stream = self.connect();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        read(&mut stream, REPLY.len())
    }

    /// Stops the server. Returns its counters.
    fn stop(mut self, signal: Signal) -> Value {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        serde_json::from_str(rest.lines().last().unwrap()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(stream: &mut TcpStream, bytes: usize) -> String {
    let mut got = vec![0; bytes];
    stream.read_exact(&mut got).unwrap();
    String::from_utf8(got).unwrap()
}

#[test]
fn it_describes_itself_and_says_what_it_answers() {
    let output = run("serve-floor", &["--describe"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches('\n').count(), 1);
    let said: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((said["name"].as_str(), said["paths"][0].as_str()), (Some("floor"), Some("/")));
    assert_eq!(said["role"], "floor");
    assert!(said["limits"]["connections_max"].as_u64() > Some(0));
    let limited = run("serve-floor", &["--conns-max", "7", "--describe"]);
    let limited: Value = serde_json::from_slice(&limited.stdout).unwrap();
    assert_eq!(limited["limits"]["connections_max"], 7);
}

#[test]
fn heads_cut_and_heads_together_are_all_answered() {
    let server = Server::start("serve-floor", &["--protocol", "http"]);
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for piece in ["GET / HT", "TP/1.1\r\nHost: x\r", "\n\r", "\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    assert_eq!(read(&mut stream, REPLY.len()), REPLY);
    // More replies than are prepared, in one read of the server's or several.
    stream.write_all("GET / HTTP/1.1\r\n\r\n".repeat(1_000).as_bytes()).unwrap();
    assert_eq!(read(&mut stream, 1_000 * REPLY.len()), REPLY.repeat(1_000));
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    let mut stream = server.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all, REPLY);
    assert_eq!(server.stop(Signal::SIGTERM)["requests"], 1_002);
}

/// The client does not read until the server's send buffer and its own receive buffer are full.
#[test]
fn what_does_not_fit_is_sent_later() {
    const BYTES: usize = 32 << 20;
    let server = Server::start("serve-floor", &["--protocol", "echo"]);
    let mut stream = server.connect();
    let mut writer = stream.try_clone().unwrap();
    let sent: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
    let mut got = vec![0; BYTES];
    stream.read_exact(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == sent);
    server.stop(Signal::SIGINT);
}

#[test]
fn more_connections_than_admitted_wait() {
    let server = Server::start("serve-floor", &["--conns-max", "1"]);
    let mut first = server.connect();
    let mut second = server.connect();
    second.write_all(b"\r\n\r\n").unwrap();
    // Iterations of the loop in any of which it could have served the second.
    for _ in 0..100 {
        first.write_all(b"\r\n\r\n").unwrap();
        read(&mut first, REPLY.len());
    }
    second.set_nonblocking(true).unwrap();
    assert!(second.read(&mut [0]).is_err(), "the second was served beside the first");
    drop(first);
    second.set_nonblocking(false).unwrap();
    assert_eq!(read(&mut second, REPLY.len()), REPLY);
    assert_eq!(server.stop(Signal::SIGTERM)["connections"], 2);
}

#[test]
fn faults_are_what_they_are_called() {
    let faulty = |flags: &[&str]| Server::start("serve-faulty", flags);
    let wrong = faulty(&["--fault", "wrong", "--fault-after", "1"]);
    assert_eq!(wrong.ask(), REPLY);
    let other = wrong.ask();
    assert!(other != REPLY && other.len() == REPLY.len());
    let close = faulty(&["--fault", "close"]);
    let mut stream = close.connect();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    for slow in [["--fault", "slow"], ["--fault", "stall"]] {
        assert_eq!(faulty(&[&slow[..], &["--fault-ns", "1000000"]].concat()).ask(), REPLY);
    }
    let mut die = faulty(&["--fault", "die"]);
    let mut stream = die.connect();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut said = String::new();
    die.stdout.read_to_string(&mut said).unwrap();
    assert_eq!((said.as_str(), die.child.wait().unwrap().code()), ("", Some(2)));
}

#[test]
fn bad_input_gets_one_sentence_and_exit_code_2() {
    for (flags, word) in [
        (&["--root", "."][..], "--root"),
        (&["--workers", "2"], "one loop"),
        (&["--protocol", "gopher"], "gopher"),
        (&["--no-such-flag"], "--no-such-flag"),
        // TEST-NET-1 (RFC 5737): an address that no machine has.
        (&["--listen", "192.0.2.1:0"], "--listen"),
    ] {
        let output = run("serve-floor", flags);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {told}");
        assert!(told.contains(word) && output.stdout.is_empty(), "{flags:?}: {told}");
    }
}
