//! One request, alone and verified, before any load: a server that answers wrongly must not be
//! timed, and what an HTTP server answers is learnt here.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::{Codec, Step, Wrong};
use crate::expected::Expected;
use crate::http1::{Event, Http, LastHead, ResponseReader, request_head};
use crate::{Error, ExpectedBody, Method, Plan};

/// Learnt bodies up to this size are kept and compared byte by byte; longer ones by CRC-32, for a
/// copy beyond the cache would double what the client reads.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// One read of the probe.
const READ_BYTES: usize = 64 * 1024;

/// Sends one request on a connection of its own and verifies the reply with `codec`.
pub(crate) fn verify<C: Codec>(plan: &Plan, codec: &mut C) -> Result<(), Error> {
    let mut stream = connect(plan)?;
    let length = codec.request_bytes();
    let request = codec.outgoing(0, 0, 1, 0).get(..length).unwrap_or_default().to_vec();
    let mut reader = codec.reader();
    let reply = exchange(&mut stream, &request, |bytes| match bytes {
        Some(bytes) => match codec.incoming(0, &mut reader, 0..1, bytes)? {
            Step::More => Ok(false),
            Step::Reply { consumed, .. } if consumed == bytes.len() => Ok(true),
            Step::Reply { .. } => Err(Wrong("more bytes came than were asked for".to_owned())),
        },
        None => codec.end(0, &mut reader, 0),
    });
    reply.map_err(|reason| Error::Probe { url: plan.target.url.clone(), reason })
}

/// What the replies to `plan` must look like, found out by asking.
pub(crate) fn expected_body(plan: &Plan) -> Result<Expected, Error> {
    let post = plan.method == Method::Post;
    let path = plan.target.path.split('?').next().unwrap_or_default();
    let expected = match plan.expected_body {
        ExpectedBody::Any => Expected::Any,
        // The reply to HEAD has no body to learn.
        _ if plan.method == Method::Head => Expected::Any,
        ExpectedBody::Auto if post && path == "/echo" => Expected::Echo,
        ExpectedBody::Auto if !post && bytes_rule(path).is_some() => {
            Expected::Alphabet(bytes_rule(path).unwrap_or_default())
        }
        _ => learn(plan)?,
    };
    verify(plan, &mut Http::new(plan, expected.clone())).map_err(|error| explain(error, plan))?;
    Ok(expected)
}

/// N of the route `/bytes/N`.
fn bytes_rule(path: &str) -> Option<u64> {
    path.strip_prefix("/bytes/")?.parse().ok()
}

/// Adds the remedy when it was our assumption about a route that did not hold.
fn explain(error: Error, plan: &Plan) -> Error {
    let assumed = plan.expected_body == ExpectedBody::Auto;
    match error {
        Error::Probe { url, reason } if assumed && reason.contains("body") => Error::Probe {
            url,
            reason: format!(
                "{reason}; if that is how this server means it, take its replies as the model \
                 (--expect-body learnt) or do not compare bodies (--expect-body any)"
            ),
        },
        error => error,
    }
}

/// The body of one reply, as something to compare others with.
fn learn(plan: &Plan) -> Result<Expected, Error> {
    let wrong = |reason| Error::Probe { url: plan.target.url.clone(), reason };
    let first = fetch(plan).map_err(|error| error.into_error(plan))?;
    let second = fetch(plan).map_err(|error| error.into_error(plan))?;
    if first != second {
        return Err(wrong(
            "two requests were answered with different bodies; do not compare bodies \
             (--expect-body any)"
                .to_owned(),
        ));
    }
    Ok(match first {
        Learnt { kept: Some(bytes), .. } => Expected::Bytes(Arc::from(bytes)),
        Learnt { len, crc, .. } => Expected::Checksum { len, crc },
    })
}

/// A body that was read.
#[derive(Debug, PartialEq, Eq)]
struct Learnt {
    kept: Option<Vec<u8>>,
    len: u64,
    crc: u32,
}

/// Why a probe failed: before or after there was a connection.
enum Failure {
    Connect(Error),
    Reply(String),
}

impl Failure {
    fn into_error(self, plan: &Plan) -> Error {
        match self {
            Failure::Connect(error) => error,
            Failure::Reply(reason) => Error::Probe { url: plan.target.url.clone(), reason },
        }
    }
}

/// Asks once, on a connection of its own, and keeps the body or its checksum.
fn fetch(plan: &Plan) -> Result<Learnt, Failure> {
    let mut stream = connect(plan).map_err(Failure::Connect)?;
    let mut request = request_head(plan, true).into_bytes();
    if plan.method == Method::Post {
        let mut whole = Http::new(plan, Expected::Any);
        let head = request_head(plan, plan.reconnect).len();
        let length = whole.request_bytes();
        request.extend_from_slice(&whole.outgoing(0, 0, 1, 0)[head..length]);
    }
    let (mut response, mut last) = (ResponseReader::new(), LastHead::default());
    let (mut kept, mut len, mut crc) = (Some(Vec::new()), 0, crc32fast::Hasher::new());
    exchange(&mut stream, &request, |bytes| {
        let Some(mut bytes) = bytes else { return Ok(response.end()) };
        loop {
            let (used, event) = response.read(bytes, false, &mut last)?;
            bytes = &bytes[used..];
            match event {
                Event::More => return Ok(false),
                Event::End => return Ok(true),
                Event::Head(head) if head.status != plan.expected_status => {
                    let (found, expected) = (head.status, plan.expected_status);
                    return Err(Wrong(format!("status {found}, expected {expected}")));
                }
                Event::Head(_) => {}
                Event::Body(piece) => {
                    len += piece.len() as u64;
                    crc.update(piece);
                    kept = kept.take().filter(|kept| kept.len() + piece.len() <= KEPT_BYTES_MAX);
                    if let Some(kept) = &mut kept {
                        kept.extend_from_slice(piece);
                    }
                }
            }
        }
    })
    .map_err(Failure::Reply)?;
    Ok(Learnt { kept, len, crc: crc.finalize() })
}

/// A blocking connection on which nothing waits longer than the plan allows.
fn connect(plan: &Plan) -> Result<TcpStream, Error> {
    let address = plan.target.address;
    let limit = plan.request_timeout.max(Duration::from_secs(1));
    let connected = TcpStream::connect_timeout(&address, limit).and_then(|stream| {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(plan.request_timeout))?;
        stream.set_write_timeout(Some(plan.request_timeout))?;
        Ok(stream)
    });
    connected.map_err(|source| Error::Unreachable { address, source })
}

/// Sends `request`, reading at the same time once the socket takes no more, and hands what arrives
/// to `take` (`None` at the end of the stream) until it says that the reply is complete.
fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    mut take: impl FnMut(Option<&[u8]>) -> Result<bool, Wrong>,
) -> Result<(), String> {
    let mut buffer = vec![0; READ_BYTES];
    let mut unsent = request;
    // An echo of many bytes comes back while it is sent: send a buffer's worth, read, and so on.
    while !unsent.is_empty() {
        let piece = &unsent[..unsent.len().min(READ_BYTES)];
        let sent = stream.write(piece).map_err(|error| describe(&error))?;
        unsent = &unsent[sent..];
        if unsent.is_empty() {
            break;
        }
        stream.set_nonblocking(true).map_err(|error| describe(&error))?;
        let read = stream.read(&mut buffer);
        stream.set_nonblocking(false).map_err(|error| describe(&error))?;
        match read {
            Ok(0) => return Err("the server closed the connection before it was asked".to_owned()),
            Ok(count) => match take(Some(&buffer[..count])) {
                Ok(false) => {}
                Ok(true) => return Err("the reply came before the request was sent".to_owned()),
                Err(Wrong(what)) => return Err(what),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(describe(&error)),
        }
    }
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(describe(&error)),
        };
        let complete = take((count > 0).then(|| &buffer[..count])).map_err(|Wrong(what)| what)?;
        match (complete, count) {
            (true, _) => return Ok(()),
            (false, 0) => return Err("the server closed before its reply was complete".to_owned()),
            (false, _) => {}
        }
    }
}

/// A socket's failure in the words of this room.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "no complete reply in time".to_owned()
        }
        _ => format!("the connection broke ({error})"),
    }
}
