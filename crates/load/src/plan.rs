//! The plan of a load run.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use record::{Arrivals, Protocol};

use crate::Error;
use crate::histogram::DIGITS;

/// Most connections of one kind in one run: more than a process may have descriptors by default
/// (`nr_open`, proc(5), is 1,048,576).
const CONNECTIONS_MAX: u32 = 1_000_000;
/// Bytes of a stream in flight on one connection. Four reads of the engine's 64 KiB, so that one is
/// sent while another is received. It is also what the buffers of two sockets hold by default
/// (tcp(7): tcp_rmem 128 KiB, tcp_wmem grows), so that a server which writes before it reads does
/// not block.
const STREAM_WINDOW_BYTES: usize = 256 * 1024;
/// Messages of a stream in flight on one connection. With messages of 16 bytes the byte window
/// would be 16,384 messages, and the state of 64 connections would not fit into a cache.
const STREAM_WINDOW_MESSAGES: usize = 4_096;
/// An echo server answers while it reads, so depth x payload is in flight. More than 1,024 makes no
/// further difference.
const PIPELINING_MAX: u32 = 1_024;
/// Each connection holds so many bytes per request and reply at most. A payload of 16 MiB is
/// already a streaming test.
const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// One request in a quarter of an hour: longer than any window.
const RATE_MIN: f64 = 0.001;
/// More than one machine can serve over loopback.
const RATE_MAX: f64 = 10_000_000.0;
/// More than the cores of any machine: larger numbers are typing errors.
const THREADS_MAX: u32 = 1_024;

/// The server, from a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The URL as given.
    pub url: String,
    /// That of the scheme, or HTTP/2: with prior knowledge (`http`) or by ALPN (`https`).
    pub protocol: Protocol,
    /// `https` or `wss`: the connection begins with a TLS handshake.
    pub tls: bool,
    /// `host:port` as given, for the Host field (RFC 9110, section 7.2).
    pub authority: String,
    /// The first address that the host resolves to.
    pub address: SocketAddr,
    /// The other addresses, tried in order if the first does not answer.
    pub others: Vec<SocketAddr>,
    /// Path and query, with the leading `/`. Empty for an echo server.
    pub path: String,
}

impl Target {
    /// Parses `tcp://HOST:PORT`, `http://HOST[:PORT][/PATH]`, or the same with `https`, `ws` or
    /// `wss`, and resolves the host.
    ///
    /// # Errors
    /// [`Error::Plan`] if the text is not such a URL or the host has no address.
    pub fn parse(url: &str) -> Result<Target, Error> {
        let bad = |why: &str| {
            Error::Plan(format!(
                "cannot use {url:?} as a URL: {why}; write tcp://HOST:PORT for an echo server, \
                 http:// or https://HOST:PORT/PATH for HTTP, ws:// or wss:// for a WebSocket"
            ))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("it has no scheme"))?;
        let (protocol, tls) = match scheme {
            "tcp" => (Protocol::Echo, false),
            "http" => (Protocol::Http1, false),
            "https" => (Protocol::Http1, true),
            "ws" => (Protocol::WebSocket, false),
            "wss" => (Protocol::WebSocket, true),
            _ => return Err(bad("its scheme is none of tcp, http, https, ws and wss")),
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let path = path.split('#').next().unwrap_or_default();
        if url.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(bad("it holds a space or a control character"));
        }
        if authority.is_empty() || authority.contains('@') {
            return Err(bad("it names no host, or a user"));
        }
        let path = match protocol {
            Protocol::Echo if path.len() > 1 => return Err(bad("an echo server has no paths")),
            Protocol::Echo => String::new(),
            _ if path.starts_with('/') => path.to_owned(),
            _ => format!("/{path}"),
        };
        let (address, others) = resolve(authority, protocol, tls).map_err(|why| bad(&why))?;
        let (url, authority) = (url.to_owned(), authority.to_owned());
        Ok(Target { url, protocol, tls, authority, address, others, path })
    }

    /// Speaks HTTP/2 instead of HTTP/1.1.
    ///
    /// # Errors
    /// [`Error::Plan`] if the URL is not one of HTTP.
    pub fn use_http2(&mut self) -> Result<(), Error> {
        if !self.protocol.is_http() {
            let why = "HTTP/2 needs an HTTP URL: give an http:// or https:// URL";
            return Err(Error::Plan(why.to_owned()));
        }
        self.protocol = Protocol::Http2;
        Ok(())
    }

    /// The host as given, without port and brackets, for TLS's server name.
    pub(crate) fn host(&self) -> &str {
        let authority = self.authority.as_str();
        match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, _)) => host,
            None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
        }
    }
}

/// The first address of `host:port`, or of `host` with the default port, and the others.
fn resolve(
    authority: &str,
    protocol: Protocol,
    tls: bool,
) -> Result<(SocketAddr, Vec<SocketAddr>), String> {
    let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && (!host.contains(':') || host.ends_with(']'))
    });
    let with_port = match (has_port, protocol) {
        (true, _) => authority.to_owned(),
        (false, Protocol::Echo) => return Err("it has no port".to_owned()),
        (false, _) if tls => format!("{authority}:443"),
        (false, _) => format!("{authority}:80"),
    };
    let mut addresses = with_port.to_socket_addrs().map_err(|error| error.to_string())?;
    let first = addresses.next().ok_or_else(|| "the host has no address".to_owned())?;
    match first.port() {
        0 => Err("port 0 is no server's port".to_owned()),
        _ => Ok((first, addresses.collect())),
    }
}

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// After this time: requests answered within it are counted.
    Window(Duration),
    /// After exactly so many requests.
    Requests(u64),
}

/// When the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// When a reply arrives: a closed loop. It measures capacity.
    Closed,
    /// At times given by the clock: an open loop. It measures the latency that independent clients
    /// see.
    Open {
        /// Requests due per second, over all connections and threads.
        rate_per_s: f64,
        /// The distribution of the gaps between due times.
        arrivals: Arrivals,
        /// Seed of the gaps: the same seed gives the same due times.
        seed: u64,
    },
}

/// Request methods (RFC 9110, section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The request has no body.
    Get,
    /// Neither request nor reply has a body.
    Head,
    /// The request has a body of [`Plan::payload_bytes`].
    Post,
}

impl Method {
    /// The method's name in a request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
        }
    }
}

/// What the body of each HTTP reply is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedBody {
    /// `/bytes/N`: the pattern of that route. POST to `/echo`: the request's body. Others: as
    /// [`Learnt`].
    ///
    /// [`Learnt`]: ExpectedBody::Learnt
    Auto,
    /// The body that was the reply to two requests before the run.
    Learnt,
    /// Any body of a complete message with the expected status.
    Any,
}

/// The plan of a load run. Start from [`Plan::new`] and change what differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// Connections that carry load.
    pub connections: u32,
    /// Length of the measured window.
    pub length: Length,
    /// When the next request is sent.
    pub pace: Pace,
    /// Echo messages are sent without waiting for replies, within a window of bytes.
    pub streaming: bool,
    /// Load before the window, not counted, to fill caches, branch predictors and TCP windows.
    pub warmup: Duration,
    /// A new connection for each request. The latency then starts at connect(2).
    pub reconnect: bool,
    /// Requests in flight on each connection: pipelined, or as HTTP/2 streams. 1 = one at a time.
    pub pipelining: u32,
    /// Resume TLS sessions on all connections but the first (RFC 8446 section 2.2). Otherwise every
    /// handshake is a full one.
    pub tls_resume: bool,
    /// WebSocket: the first connection sends, the others receive. Each delivery counts as a
    /// request, and its latency starts when the message is sent. `pipelining` messages are in
    /// flight at once. A number of requests, or a rate, is that of messages.
    pub fan_out: bool,
    /// Bytes of one echo message, or of a POST's body.
    pub payload_bytes: usize,
    /// HTTP method; not used for echo.
    pub method: Method,
    /// Further header fields of each request, name and value; not used for echo.
    pub headers: Vec<(String, String)>,
    /// The status that counts as right; not used for echo.
    pub expected_status: u16,
    /// What the reply's body is compared with; not used for echo.
    pub expected_body: ExpectedBody,
    /// Local addresses to connect from, in turn, if one has too few ports. Empty: the kernel
    /// chooses, and on loopback as many of 127.0.0.x as needed.
    pub sources: Vec<IpAddr>,
    /// Idle connections, opened before the window and held until after it.
    pub idle_connections: u32,
    /// A reply that takes longer is an error, and its connection is closed.
    pub request_timeout: Duration,
    /// Significant digits of the histograms in the result (1 to 3). The percentiles beside them
    /// have three, whatever this is.
    pub histogram_digits: u8,
    /// Engine threads, each with an equal part of the connections.
    pub threads: u32,
    /// Core of the first engine thread; thread k runs on core + k. `None`: not pinned.
    pub core: Option<usize>,
}

impl Plan {
    /// 64 keep-alive connections, 10 s after a warm-up of 1 s, one thread, 64 bytes of echo or GET.
    ///
    /// # Errors
    /// [`Error::Plan`] if the URL is not usable.
    pub fn new(url: &str) -> Result<Plan, Error> {
        Ok(Plan {
            target: Target::parse(url)?,
            connections: 64,
            length: Length::Window(Duration::from_secs(10)),
            pace: Pace::Closed,
            streaming: false,
            warmup: Duration::from_secs(1),
            reconnect: false,
            pipelining: 1,
            tls_resume: false,
            fan_out: false,
            payload_bytes: 64,
            method: Method::Get,
            headers: Vec::new(),
            expected_status: 200,
            expected_body: ExpectedBody::Auto,
            sources: Vec::new(),
            idle_connections: 0,
            request_timeout: Duration::from_secs(5),
            histogram_digits: DIGITS,
            threads: 1,
            core: None,
        })
    }

    /// Whether requests are streams of HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.target.protocol == Protocol::Http2
    }

    /// Most requests in flight on each connection: the pipeline, or the messages of a stream's
    /// window, at least two so that it does not stop.
    pub fn depth(&self) -> u32 {
        let window = STREAM_WINDOW_BYTES / self.payload_bytes.max(1);
        match self.streaming {
            true => window.clamp(2, STREAM_WINDOW_MESSAGES) as u32,
            false => self.pipelining,
        }
    }

    /// Checks whether the plan is possible; [`crate::run`] calls this first.
    ///
    /// # Errors
    /// [`Error::Plan`] with one sentence: what is wrong, and what to do.
    pub fn check(&self) -> Result<(), Error> {
        let http = self.target.protocol.is_http();
        let carries_payload = !http || self.method == Method::Post;
        let complaints = [
            (
                self.connections == 0 || self.connections > CONNECTIONS_MAX,
                format!("connections must be 1 to {CONNECTIONS_MAX}, not {}", self.connections),
            ),
            (
                self.idle_connections > CONNECTIONS_MAX,
                format!(
                    "idle connections must be at most {CONNECTIONS_MAX}, not {}",
                    self.idle_connections
                ),
            ),
            (
                self.threads == 0 || self.threads > THREADS_MAX || self.threads > self.connections,
                format!("threads must be 1 to the number of connections, not {}", self.threads),
            ),
            (
                self.pipelining == 0 || self.pipelining > PIPELINING_MAX,
                format!("pipelining must be 1 to {PIPELINING_MAX}, not {}", self.pipelining),
            ),
            (
                self.reconnect && self.pipelining > 1,
                "one request per connection leaves no pipeline: choose one of the two".into(),
            ),
            (
                carries_payload && (self.payload_bytes > PAYLOAD_BYTES_MAX),
                format!(
                    "payload must be at most {PAYLOAD_BYTES_MAX} bytes, not {}",
                    self.payload_bytes
                ),
            ),
            (!http && self.payload_bytes == 0, "an echo message needs at least 1 byte".into()),
            (
                self.length == Length::Window(Duration::ZERO) || self.length == Length::Requests(0),
                "the run must have a length: give a duration or a number of requests".into(),
            ),
            (
                self.request_timeout < Duration::from_millis(1),
                "the time limit of a request must be at least 1 ms".into(),
            ),
            (
                http && !(200..=599).contains(&self.expected_status),
                format!("a final status is 200 to 599, not {}", self.expected_status),
            ),
        ];
        let complaints = complaints.into_iter().chain(self.complaints_of_pace());
        let mut complaints = complaints.chain(self.complaints_of_protocol());
        if let Some((_, text)) = complaints.find(|(complaint, _)| *complaint) {
            return Err(Error::Plan(text));
        }
        if let Some(text) = crate::http2_requests::complaint(self).filter(|_| self.is_http2()) {
            return Err(Error::Plan(text));
        }
        self.headers.iter().try_for_each(|(name, value)| check_header(name, value))
    }

    /// Combinations that the protocol does not support: each applies if its `bool` is true.
    fn complaints_of_protocol(&self) -> [(bool, String); 5] {
        let fan_out = self.fan_out;
        [
            (
                self.tls_resume && !self.target.tls,
                "only TLS has sessions to resume: give an https:// or wss:// URL".into(),
            ),
            (
                fan_out && self.target.protocol != Protocol::WebSocket,
                "a fan-out needs WebSockets: give the ws:// or wss:// URL of a chat, such as \
                 /ws/chat"
                    .into(),
            ),
            (
                fan_out && self.connections < 2,
                "a fan-out needs a sender and a receiver: use 2 connections or more".into(),
            ),
            (
                fan_out && self.threads > 1,
                "a fan-out is measured by one thread, which sends and receives every message: \
                 leave out the threads"
                    .into(),
            ),
            (
                fan_out && (self.reconnect || self.streaming || self.idle_connections > 0),
                "in a fan-out every connection stays open and receives: leave out \
                 reconnecting, streaming and idle connections"
                    .into(),
            ),
        ]
    }

    /// Errors in the pace: each applies if its `bool` is true.
    fn complaints_of_pace(&self) -> [(bool, String); 4] {
        let http = self.target.protocol.is_http();
        [
            (
                self.streaming && http,
                "only echo messages can be streamed: give a tcp:// URL".into(),
            ),
            (
                self.streaming && (self.reconnect || self.pipelining > 1),
                "a stream has no pipeline and keeps its connections: choose one of them".into(),
            ),
            (
                self.streaming && self.pace != Pace::Closed,
                "a stream is as fast as the server: leave out the rate".into(),
            ),
            (
                matches!(self.pace, Pace::Open { rate_per_s, .. }
                    if !(RATE_MIN..=RATE_MAX).contains(&rate_per_s)),
                format!("the rate of an open loop must be {RATE_MIN} to {RATE_MAX} requests/s"),
            ),
        ]
    }
}

/// Accepts a header field that does not change the request's framing (RFC 9110, sections 5.1 and
/// 5.5).
fn check_header(name: &str, value: &str) -> Result<(), Error> {
    /// Fields that determine the end of a message, its host, and the end of the connection.
    const RESERVED: [&str; 5] =
        ["host", "connection", "content-length", "transfer-encoding", "upgrade"];
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(Error::Plan(format!("{name:?} is not the name of a header field")));
    }
    if value.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
        return Err(Error::Plan(format!("the value of {name} holds a control character")));
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || lower.starts_with("sec-websocket-") {
        return Err(Error::Plan(format!(
            "{name} is written by the generator itself; leave it out"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_can_be_used() -> Result<(), Error> {
        let target = Target::parse("tcp://127.0.0.1:7")?;
        assert_eq!((target.protocol, target.address.port()), (Protocol::Echo, 7));
        let target = Target::parse("http://127.0.0.1:8080/bytes/5?a=b#top")?;
        assert_eq!(
            (target.path.as_str(), target.authority.as_str()),
            ("/bytes/5?a=b", "127.0.0.1:8080")
        );
        assert_eq!(Target::parse("http://127.0.0.1")?.address.port(), 80);
        assert_eq!(Target::parse("http://127.0.0.1?x")?.path, "/?x");
        assert_eq!(Target::parse("http://[::1]:81/")?.address.port(), 81);
        assert_eq!(Target::parse("http://[::1]/")?.address.port(), 80);
        Ok(())
    }

    #[test]
    fn urls_that_cannot() {
        for url in [
            "",
            "127.0.0.1:80",
            "ftp://127.0.0.1:1",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:7/path",
            "http://",
            "http:///x",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:0/",
            "http://a b/",
            "http://user@127.0.0.1/",
            "http://127.0.0.1:8080/a\r\nX: y",
        ] {
            assert!(matches!(Target::parse(url), Err(Error::Plan(_))), "{url:?} was accepted");
        }
    }

    #[test]
    fn plans_that_cannot_be_carried_out() -> Result<(), Error> {
        let good = Plan::new("tcp://127.0.0.1:7")?;
        good.check()?;
        let open = |rate_per_s| Pace::Open { rate_per_s, arrivals: Arrivals::Poisson, seed: 0 };
        let bad = [
            Plan { connections: 0, ..good.clone() },
            Plan { threads: 65, ..good.clone() },
            Plan { pipelining: 0, ..good.clone() },
            Plan { reconnect: true, pipelining: 2, ..good.clone() },
            Plan { payload_bytes: 0, ..good.clone() },
            Plan { streaming: true, reconnect: true, ..good.clone() },
            Plan { streaming: true, pace: open(1.0), ..good.clone() },
            Plan { streaming: true, ..Plan::new("http://127.0.0.1:7/")? },
            Plan { pace: open(0.0), ..good.clone() },
            Plan { pace: open(f64::NAN), ..good.clone() },
            Plan { length: Length::Requests(0), ..good.clone() },
            Plan { request_timeout: Duration::ZERO, ..good.clone() },
            Plan { headers: vec![("Host".into(), "x".into())], ..good.clone() },
            Plan { headers: vec![("A".into(), "x\r\nB: y".into())], ..good.clone() },
            Plan { tls_resume: true, ..good.clone() },
            Plan { tls_resume: true, ..Plan::new("http://127.0.0.1:7/")? },
            Plan { fan_out: true, ..good },
        ];
        assert!(bad.iter().all(|plan| matches!(plan.check(), Err(Error::Plan(_)))));
        Ok(())
    }

    #[test]
    fn what_a_room_and_http2_allow() -> Result<(), Error> {
        let fan_out = Plan { fan_out: true, ..Plan::new("ws://127.0.0.1:7/ws/chat")? };
        fan_out.check()?;
        let bad = [
            Plan { connections: 1, ..fan_out.clone() },
            Plan { threads: 2, ..fan_out.clone() },
            Plan { reconnect: true, ..fan_out.clone() },
            Plan { streaming: true, ..fan_out.clone() },
            Plan { idle_connections: 1, ..fan_out.clone() },
            Plan { headers: vec![("Sec-WebSocket-Key".into(), "x".into())], ..fan_out },
        ];
        assert!(bad.iter().all(|plan| matches!(plan.check(), Err(Error::Plan(_)))));
        let mut secure = Plan { tls_resume: true, ..Plan::new("https://127.0.0.1:7/")? };
        secure.target.use_http2()?;
        assert!(Target::parse("ws://127.0.0.1:7/")?.use_http2().is_err());
        secure.check()?;
        let headers = vec![("Keep-Alive".into(), "5".into())];
        assert!(Plan { headers, ..secure.clone() }.check().is_err());
        Ok(())
    }

    #[test]
    fn the_host_is_what_tls_names() -> Result<(), Error> {
        for (url, host) in [
            ("https://127.0.0.1:8443/x", "127.0.0.1"),
            ("https://localhost/", "localhost"),
            ("wss://[::1]:81/", "::1"),
            ("wss://[::1]/", "::1"),
        ] {
            assert_eq!(Target::parse(url)?.host(), host);
        }
        Ok(())
    }
}
