//! The smallest server that `iolab` can measure: one thread per connection, echo and three routes
//! of HTTP. It follows the contract (first line, last line, `--describe`, SIGTERM). The tests of
//! `iolab bench` use it; `--fault` makes it break the contract. With `--fault hang=FILE` it answers
//! nothing over HTTP from the moment on at which FILE exists.
//!
//! It is not a model: it does not parse heads fully and has no limits or timeouts.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use nix::sys::signal::{SigSet, Signal};

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Number of requests after which the fault `die` ends the server: during the load.
const DIES_AFTER: u64 = 500;
/// The same for `die-idle`: while idle connections are opened, which are at least 64.
const DIES_EARLY_AFTER: u64 = 20;

/// A server for tests.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    #[arg(long, default_value = "echo")]
    protocol: String,
    #[arg(long)]
    root: Option<String>,
    #[arg(long)]
    idle_timeout: Option<String>,
    #[arg(long)]
    drain_timeout: Option<String>,
    #[arg(long)]
    conns_max: Option<u32>,
    #[arg(long, default_value = "none")]
    fault: String,
    #[arg(long)]
    describe: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.describe {
        println!(
            "{}",
            r#"{"name":"example","description":"a thread per connection, for tests",
            "protocols":["echo","http"],"limits":{"connections_max":500,
            "connections_max_reason":"an example"},"flavours":[{"flag":"fault","values":
            ["none","start","silent","wrong","mute","exit","die","die-idle"
            ],"default":"none"}],"future":[1]}"#
                .replace('\n', "")
        );
        return ExitCode::SUCCESS;
    }
    match serve(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("serve-example: {error}");
            ExitCode::from(2)
        }
    }
}

fn serve(arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    // Blocked before other threads start, so that only sigwait receives it.
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.thread_block()?;
    let fault = arguments.fault.clone();
    if fault == "start" {
        return Err("the fault was asked for".into());
    }
    let listener = TcpListener::bind(&arguments.listen)?;
    if fault == "silent" {
        println!("hello");
    } else {
        println!("listening {} model=example pid={}", listener.local_addr()?, std::process::id());
    }
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (http, root) = (arguments.protocol == "http", arguments.root.clone());
            let fault = arguments.fault.clone();
            // An error means that the client has closed the connection.
            std::thread::spawn(move || match (fault.as_str(), http) {
                ("mute", _) => stream_to_nowhere(stream),
                (fault, true) => http_connection(stream, root, fault).unwrap_or(()),
                (fault, false) => echo_connection(stream, fault).unwrap_or(()),
            });
        }
    });
    stop.wait()?;
    if fault == "exit" {
        return Ok(ExitCode::from(7));
    }
    println!("{}", format_args!("{{\"requests\":{}}}", REQUESTS.load(Ordering::Relaxed)));
    Ok(ExitCode::SUCCESS)
}

/// Counts a request. With the fault `die` the server then ends.
fn count(fault: &str) {
    let served = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    if (fault, served) == ("die", DIES_AFTER) || (fault, served) == ("die-idle", DIES_EARLY_AFTER) {
        eprintln!("serve-example: request {served} was too much");
        std::process::exit(9);
    }
}

fn stream_to_nowhere(mut stream: TcpStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

fn echo_connection(mut stream: TcpStream, fault: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 4096];
    loop {
        let n = stream.read(&mut bytes)?;
        if n == 0 {
            return Ok(());
        }
        if fault == "wrong" {
            bytes[0] ^= 1;
        }
        stream.write_all(&bytes[..n])?;
        count(fault);
    }
}

fn http_connection(
    mut stream: TcpStream,
    root: Option<String>,
    fault: &str,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            let n = stream.read(&mut bytes)?;
            if n == 0 {
                return Ok(());
            }
            head.extend_from_slice(&bytes[..n]);
        }
        if fault.strip_prefix("hang=").is_some_and(|file| Path::new(file).exists()) {
            loop {
                std::thread::park();
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let path = text.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut body = match (path.strip_prefix("/files/"), &root) {
            (Some(name), Some(root)) => std::fs::read(format!("{root}/{name}"))?,
            _ => b"Hello, world!".to_vec(),
        };
        if fault == "wrong" {
            body.pop();
        }
        let close = text.contains("Connection: close");
        let last = if close { "Connection: close\r\n" } else { "" };
        let length = body.len();
        let mut reply =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{last}\r\n").into_bytes();
        reply.extend_from_slice(&body);
        stream.write_all(&reply)?;
        count(fault);
        if close {
            return Ok(());
        }
        head.clear();
    }
}
