//! A client of one connection: raw bytes, and a strict reader of HTTP/1.1 replies (RFC 9112).

use std::fmt::Debug;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use crate::guard;

/// A connection. Reads are buffered, writes are not.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<Counted>,
}

/// A TLS session on a socket: plaintext is read and written.
pub trait Session: Read + Write + Debug + Send {}

impl<T: Read + Write + Debug + Send> Session for T {}

/// A socket, the TLS session on it, if any, and how many bytes were read.
#[derive(Debug)]
struct Counted {
    stream: TcpStream,
    tls: Option<Box<dyn Session>>,
    bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.tls {
            Some(tls) => tls.read(buffer)?,
            None => self.stream.read(buffer)?,
        };
        self.bytes += n as u64;
        Ok(n)
    }
}

impl Counted {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
            None => self.stream.write_all(bytes),
        }
    }
}

/// Status line and fields of a reply.
#[derive(Debug, Clone)]
pub struct Head {
    /// `HTTP/1.1`.
    pub version: String,
    /// Three digits.
    pub status: u16,
    /// Names in lower case, in order.
    pub fields: Vec<(String, String)>,
}

/// A reply, its body whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// All of the head.
    pub head: Head,
    /// Body, decoded.
    pub body: Vec<u8>,
}

/// An error of a read. EAGAIN (`WouldBlock`) is the time limit of the socket: nothing came.
fn why(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock => format!("nothing came within {:?}", guard()),
        _ => error.to_string(),
    }
}

/// A GET request.
pub fn get(target: &str) -> Vec<u8> {
    request("GET", target, "")
}

/// A request without a body. `fields` are whole lines, each with its CRLF.
pub fn request(method: &str, target: &str, fields: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: suite\r\n{fields}\r\n").into_bytes()
}

/// What `/bytes/N` is made of, from byte `offset` on.
pub fn pattern(offset: usize, len: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] =
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-\n";
    (offset..offset + len).map(|at| ALPHABET[at % ALPHABET.len()]).collect()
}

impl Head {
    /// The value of a field that may be there once at most.
    ///
    /// # Panics
    /// When it is there twice.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "a second {name} field in {self:?}");
        value
    }

    /// Whether the server says that it closes after this reply.
    #[track_caller]
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Reads through the buffer.
impl Read for Client {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.reader.read(bytes)
    }
}

impl Client {
    /// Connects. Each byte written leaves at once, so that small writes arrive as small reads.
    ///
    /// # Panics
    /// When there is nobody.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, guard())
            .unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(guard())).expect("SO_RCVTIMEO");
        stream.set_write_timeout(Some(guard())).expect("SO_SNDTIMEO");
        let counted = Counted { stream, tls: None, bytes: 0 };
        Client { reader: BufReader::with_capacity(64 << 10, counted) }
    }

    /// What is sent and read from now on is the plaintext of a session on this socket. Only
    /// [`Client::stream`] and what goes past the buffer (`is_silent`, second handles) still show
    /// the socket itself.
    ///
    /// # Panics
    /// Without a descriptor for it, or when the session cannot be made.
    #[track_caller]
    pub fn over<S: Session + 'static>(
        mut self,
        session: impl FnOnce(TcpStream) -> io::Result<S>,
    ) -> Client {
        let session = session(self.second_handle());
        let session = session.unwrap_or_else(|error| panic!("a TLS handshake: {error}"));
        self.reader.get_mut().tls = Some(Box::new(session));
        self
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.reader.get_ref().stream
    }

    /// Bytes that were read so far, whole replies or not.
    pub fn bytes_read(&self) -> u64 {
        self.reader.get_ref().bytes - self.reader.buffer().len() as u64
    }

    /// A second handle on the socket, for a thread that writes while this one reads.
    ///
    /// # Panics
    /// Without a descriptor for it.
    #[track_caller]
    pub fn second_handle(&self) -> TcpStream {
        self.stream().try_clone().expect("a second descriptor")
    }

    /// Writes all of it.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        let sent = self.reader.get_mut().write_all(bytes);
        sent.unwrap_or_else(|error| panic!("sending {} bytes: {error}", bytes.len()));
    }

    /// The same where the server may have closed; false when it takes no more.
    pub fn send_if_open(&mut self, bytes: &[u8]) -> bool {
        self.reader.get_mut().write_all(bytes).is_ok()
    }

    /// Writes as much as the server takes before it has let nothing in for `patience`, at most
    /// `limit` bytes of what `content` makes. Returns how many went.
    ///
    /// # Panics
    /// When the connection breaks.
    #[track_caller]
    pub fn send_until_stalled(
        &mut self,
        content: impl Fn(usize, usize) -> Vec<u8>,
        limit: usize,
        patience: Duration,
    ) -> usize {
        self.stream().set_write_timeout(Some(patience)).expect("SO_SNDTIMEO");
        let mut sent = 0;
        while sent < limit {
            match self.stream().write(&content(sent, 64 << 10)) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("sending after {sent} bytes: {error}"),
            }
        }
        self.stream().set_write_timeout(Some(guard())).expect("SO_SNDTIMEO");
        sent
    }

    /// Sends FIN: the server's next read finds the end.
    ///
    /// # Panics
    /// When the connection is broken.
    #[track_caller]
    pub fn finish_sending(&mut self) {
        self.stream().shutdown(Shutdown::Write).expect("shutdown(SHUT_WR)");
    }

    /// Ends the connection by RST.
    ///
    /// # Panics
    /// When the socket does not take the option.
    #[track_caller]
    pub fn reset(self) {
        SockRef::from(self.stream()).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Exactly `len` bytes.
    ///
    /// # Panics
    /// When they do not come.
    #[track_caller]
    pub fn read_exact(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.reader
            .read_exact(&mut bytes)
            .unwrap_or_else(|error| panic!("reading {len} bytes: {}", why(&error)));
        bytes
    }

    /// Fills `bytes`; false when the connection ends, by FIN or by RST, at or in them.
    ///
    /// # Panics
    /// When nothing comes.
    #[track_caller]
    pub(crate) fn read_exact_or_end(&mut self, bytes: &mut [u8]) -> bool {
        match self.reader.read_exact(bytes) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("nothing came within {:?}, and no end", guard())
            }
            Err(_) => false,
        }
    }

    /// Everything up to the server's FIN.
    ///
    /// # Panics
    /// When the connection is reset instead, or nothing ends it.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let result = self.reader.read_to_end(&mut bytes);
        result.unwrap_or_else(|error| panic!("after {} bytes: {error}", bytes.len()));
        bytes
    }

    /// The server closes, and says nothing before.
    ///
    /// # Panics
    /// When it says something, resets the connection, or does not close.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let rest = self.read_to_end();
        let text = String::from_utf8_lossy(&rest[..rest.len().min(200)]);
        assert!(rest.is_empty(), "expected the end, got {} bytes: {text:?}", rest.len());
    }

    /// The connection ends, whether by FIN or by RST; returns what came before.
    ///
    /// # Panics
    /// When nothing ends it.
    #[track_caller]
    pub fn read_until_cut(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.reader.read_to_end(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("the connection is still open after {:?}", guard())
            }
            Ok(_) | Err(_) => bytes,
        }
    }

    /// Waits for what comes next: true when it is the end, by FIN or by RST, and no byte.
    ///
    /// # Panics
    /// When nothing comes.
    #[track_caller]
    pub fn next_is_end(&mut self) -> bool {
        match self.reader.fill_buf() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("nothing came within {:?}, and no end", guard())
            }
            told => told.map_or(true, <[u8]>::is_empty),
        }
    }

    /// True when there is nothing to read now: neither bytes nor an end.
    ///
    /// # Panics
    /// When the socket cannot be asked.
    #[track_caller]
    pub fn is_silent(&self) -> bool {
        if !self.reader.buffer().is_empty() {
            return false;
        }
        let stream = self.stream();
        stream.set_nonblocking(true).expect("O_NONBLOCK");
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("O_NONBLOCK");
        peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// The next reply to anything but HEAD.
    ///
    /// # Panics
    /// When it does not come whole and well-formed.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        let head = self.head();
        let body = self.body(&head);
        Reply { status: head.status, head, body }
    }

    /// The next head.
    ///
    /// # Panics
    /// When it does not come whole and well-formed.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        let line = self.line();
        let mut words = line.splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_owned();
        let status = words.next().and_then(|word| word.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in the line {line:?}"));
        assert!(version == "HTTP/1.1" && (100..600).contains(&status), "status line {line:?}");
        let mut fields = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return Head { version, status, fields };
            }
            let (name, value) =
                line.split_once(':').unwrap_or_else(|| panic!("a field without a colon: {line:?}"));
            assert!(!name.is_empty() && !name.contains(' '), "field name in {line:?}");
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The body that belongs to `head` (RFC 9112 section 6.3).
    ///
    /// # Panics
    /// When it does not come whole.
    #[track_caller]
    pub fn body(&mut self, head: &Head) -> Vec<u8> {
        if head.status < 200 || head.status == 204 || head.status == 304 {
            return Vec::new();
        }
        if let Some(coding) = head.field("transfer-encoding") {
            assert_eq!(coding, "chunked");
            assert_eq!(head.field("content-length"), None, "two framings");
            return self.chunked();
        }
        match head.field("content-length") {
            Some(length) => self.read_exact(length.parse().expect("Content-Length is a number")),
            None => {
                assert!(head.closes(), "no length, and the connection stays open: {head:?}");
                self.read_to_end()
            }
        }
    }

    #[track_caller]
    fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                .unwrap_or_else(|_| panic!("chunk size {line:?}"));
            if size == 0 {
                while !self.line().is_empty() {}
                return body;
            }
            body.extend(self.read_exact(size));
            assert_eq!(self.line(), "", "CRLF after a chunk");
        }
    }

    /// A line without its CRLF.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let result = self.reader.read_until(b'\n', &mut line);
        let so_far = String::from_utf8_lossy(&line).into_owned();
        if let Err(error) = result {
            panic!("{} where a line of a reply should be, after {so_far:?}", why(&error));
        }
        let Some(text) = line.strip_suffix(b"\r\n") else {
            panic!("the connection ended, or no CRLF, where a line should end: {so_far:?}");
        };
        String::from_utf8_lossy(text).into_owned()
    }
}
