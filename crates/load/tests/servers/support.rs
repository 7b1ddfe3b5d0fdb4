//! Servers for the generator: a few lines of blocking code each, on a port that the kernel chooses;
//! and checks that hold for every good outcome.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use load::{Error, Length, Plan};
use record::LoadOutcome;

pub type Test = Result<(), Box<dyn std::error::Error>>;

/// A time limit for requests, of which some in a test are never answered. All other replies come in
/// a fraction of it, on a busy machine too.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Serves each connection with `serve(its number from 0 on, stream)` on its own thread. The first
/// connections are the generator's probes: one for echo, three for a learnt HTTP body.
pub fn server<F>(serve: F) -> io::Result<SocketAddr>
where
    F: Fn(u64, TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (number, stream) in (0..).zip(listener.incoming()) {
            let serve = Arc::clone(&serve);
            let Ok(stream) = stream else { continue };
            let Ok(()) = stream.set_nodelay(true) else { continue };
            // A client may leave early; the test checks the outcome.
            std::thread::spawn(move || drop(serve(number, stream)));
        }
    });
    Ok(address)
}

/// Blocks for ever, as a stalled server.
pub fn hang<T>() -> T {
    loop {
        std::thread::park();
    }
}

/// Sends every byte back.
pub fn echo(_: u64, mut stream: impl Read + Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

/// Reads requests and answers each with `answer(its number from 0 on, head, body)` until that is
/// `None` or the client asks for the close.
pub fn http(
    mut stream: impl Read + Write,
    mut answer: impl FnMut(u64, &str, &[u8]) -> Option<Vec<u8>>,
) -> io::Result<()> {
    let (mut held, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let mut number = 0;
    loop {
        while let Some(at) = held.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&held[..at]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let end = at + 4 + length.and_then(|text| text.parse().ok()).unwrap_or(0);
            if held.len() < end {
                break;
            }
            let Some(reply) = answer(number, &head, &held[at + 4..end]) else {
                return Ok(());
            };
            held.drain(..end);
            number += 1;
            stream.write_all(&reply)?;
            if head.contains("Connection: close") {
                return Ok(());
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => held.extend_from_slice(&buffer[..count]),
        }
    }
}

/// A 200 with this body.
pub fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// So many requests on 8 connections.
pub fn plan(scheme: &str, address: SocketAddr, path: &str, requests: u64) -> Result<Plan, Error> {
    let mut plan = Plan::new(&format!("{scheme}://{address}{path}"))?;
    plan.connections = 8;
    plan.length = Length::Requests(requests);
    plan.warmup = Duration::ZERO;
    // Replies are few and right, but the machine may be busy.
    plan.request_timeout = Duration::from_secs(60);
    Ok(plan)
}

/// Exactly so many requests, no error, and a histogram of all of them.
pub fn assert_exact(outcome: &LoadOutcome, requests: u64) {
    assert_eq!((outcome.errors, &outcome.first_error), (0, &None), "{outcome:?}");
    assert_eq!(outcome.requests, requests);
    assert_eq!(outcome.latency.samples, requests);
    assert_eq!(outcome.ended_early, None);
}
