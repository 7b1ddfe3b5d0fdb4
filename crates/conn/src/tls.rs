//! TLS around whatever else a connection speaks (RFC 8446, RFC 5246): wire -> TLS -> protocol, and
//! back. No model knows of it: it sees other bytes, and that is all.
//!
//! Plaintext waits in the connection's output, as it does without TLS, and is counted there for
//! every limit; ciphertext waits in a second queue, which is short, because what was encrypted
//! cannot be taken back. rustls keeps nothing on its way to the peer.
//!
//! rustls reads the wall clock by itself, once per handshake, for the age of tickets: the one clock
//! in this crate.

use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use crate::http1;
use crate::http2::Http2;
use crate::output::Output;
use crate::{Close, Conn, Deadline, Outcome, Phase, Protocol, State};

/// Most plaintext in one record, in bytes (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 16 << 10;

/// Ciphertext that waits for the peer, in bytes, above which nothing more is encrypted: enough for
/// a large write, and whole records always, because a record costs the same however short it is.
const SEALED_BYTES_MAX: usize = 64 << 10;

/// Pieces of output that are gathered into one record. A reply is one or two.
const SLICES_MAX: usize = 8;

/// What rustls keeps for an idle session, in bytes.
const SESSION_BYTES: usize = 8 << 10;

/// What rustls keeps of a message that is not whole, in bytes: the longest of a handshake, and a
/// record.
const UNOPENED_BYTES_MAX: usize = (64 << 10) + RECORD_BYTES_MAX;

/// The name by which a client chooses HTTP/2 (RFC 9113 section 3.2, ALPN of RFC 7301).
const ALPN_HTTP2: &[u8] = b"h2";

/// The TLS layer of one connection.
pub(crate) struct Tls {
    session: ServerConnection,
    /// Ciphertext on its way to the peer.
    sealed: Output,
    /// Something has arrived.
    begun: bool,
    /// The handshake is complete.
    established: bool,
    /// The peer has said that nothing of his follows.
    peer_closed: bool,
    /// Bytes that rustls may keep because what they belong to is not whole.
    unopened: usize,
}

/// What has arrived, for rustls to read.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    /// Says at the end that no more is there *yet*: zero would mean the peer's FIN.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.0.read(buffer)
    }
}

/// Where rustls writes what it has encrypted.
struct Sealed<'a>(&'a mut Output);

impl Write for Sealed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A queue of its own for a large record: appended to others it would be copied again each
        // time that they outgrow their buffer.
        if bytes.len() > RECORD_BYTES_MAX / 4 {
            self.0.push(Bytes::copy_from_slice(bytes));
        } else {
            self.0.put(bytes);
        }
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().map(|slice| self.write(slice)).sum()
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tls {
    /// A layer that waits for its handshake; `None` if `config` is of no use at all (rustls looks
    /// at some of it for each connection).
    pub(crate) fn new(config: &Arc<ServerConfig>) -> Option<Box<Tls>> {
        let session = ServerConnection::new(Arc::clone(config)).ok()?;
        let sealed = Output::default();
        Some(Box::new(Tls {
            session,
            sealed,
            begun: false,
            established: false,
            peer_closed: false,
            unopened: 0,
        }))
    }

    /// What is to be written to the socket.
    pub(crate) fn sealed(&self) -> &Output {
        &self.sealed
    }

    /// What is to be written to the socket.
    pub(crate) fn sealed_mut(&mut self) -> &mut Output {
        &mut self.sealed
    }

    /// Bytes of memory that it takes.
    pub(crate) fn held(&self) -> usize {
        SESSION_BYTES + self.sealed.held() + self.unopened.min(UNOPENED_BYTES_MAX)
    }

    /// True once the protocol inside can be spoken.
    pub(crate) fn is_established(&self) -> bool {
        self.established
    }

    /// True while a handshake is under way.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.begun && !self.established
    }

    /// Encrypts the front of `output`, as far as there is room for ciphertext.
    pub(crate) fn seal(&mut self, output: &mut Output) {
        while !output.is_empty() && self.sealed.len() <= SEALED_BYTES_MAX - RECORD_BYTES_MAX {
            let n = self.seal_record(output);
            if n == 0 {
                return;
            }
            output.sent(n);
            self.collect();
        }
    }

    /// One record; returns how much of `output` it holds.
    fn seal_record(&mut self, output: &Output) -> usize {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = output.slices(&mut slices);
        let mut room = RECORD_BYTES_MAX;
        let mut pieces = [IoSlice::new(&[]); SLICES_MAX];
        for (piece, slice) in pieces.iter_mut().zip(&slices[..filled]) {
            *piece = IoSlice::new(&slice[..slice.len().min(room)]);
            room -= piece.len();
        }
        // Fails only after a fatal alert, and then no output is left.
        self.session.writer().write_vectored(&pieces[..filled]).unwrap_or_default()
    }

    /// Nothing of ours follows: says so, once (RFC 8446 section 6.1).
    pub(crate) fn send_close_notify(&mut self) {
        self.session.send_close_notify();
        self.collect();
    }

    /// Takes what rustls has encrypted.
    fn collect(&mut self) {
        while self.session.wants_write() {
            // Writing to memory cannot fail.
            let _ = self.session.write_tls(&mut Sealed(&mut self.sealed));
        }
    }

    /// How a connection ends whose peer has sent FIN now; `None` if that was in order.
    /// `delimited`: the protocol inside knows by itself whether all has arrived.
    pub(crate) fn cut_short(&self, delimited: bool) -> Option<Outcome> {
        if !self.established {
            return self.begun.then_some(Outcome::HandshakeFailed);
        }
        // Whoever can write to the wire can forge a FIN, but no close_notify. HTTP does not need it
        // (RFC 9112 section 9.8), and many clients never send it.
        (!delimited && !self.peer_closed).then_some(Outcome::Truncated)
    }
}

impl Conn {
    /// Ciphertext arrived. All of it is taken.
    pub(crate) fn receive_sealed(&mut self, bytes: &[u8], now: Instant) {
        let Some(mut tls) = self.tls.take() else { return };
        if !tls.begun && bytes[0].is_ascii_uppercase() && self.service.protocol == Protocol::Http {
            // Without the layer: what is answered is not encrypted either.
            return self.refuse_plain_http(now);
        }
        tls.begun = true;
        tls.unopened += bytes.len();
        let mut wire = Wire(bytes);
        while self.phase == Phase::Open {
            match tls.session.read_tls(&mut wire) {
                // It reads nothing behind a close_notify.
                Ok(0) => break,
                Ok(_) => self.open_records(&mut tls, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // More than rustls keeps for one message.
                Err(_) => self.tls_failed(&mut tls, None),
            }
        }
        tls.collect();
        self.tls = Some(tls);
    }

    /// Decrypts what has been read, and hands it on.
    fn open_records(&mut self, tls: &mut Tls, now: Instant) {
        match tls.session.process_new_packets() {
            Ok(state) => tls.peer_closed = state.peer_has_closed(),
            Err(error) => return self.tls_failed(tls, Some(&error)),
        }
        if !tls.established && !tls.session.is_handshaking() {
            tls.established = true;
            tls.unopened = 0;
            self.tls_established(&tls.session, now);
        }
        // Drained at once, because rustls reads no more while it holds plaintext.
        let mut reader = tls.session.reader();
        while let Ok(plaintext @ [_, ..]) = reader.fill_buf() {
            // A record was whole; of the next one there may be as much as was read at once.
            tls.unopened = tls.unopened.min(RECORD_BYTES_MAX);
            self.receive_plain(plaintext, now);
            let len = plaintext.len();
            reader.consume(len);
        }
        if tls.peer_closed && !self.eof {
            self.eof = true;
            self.advance_open(now);
        }
    }

    /// The handshake is complete: what was negotiated begins.
    fn tls_established(&mut self, session: &ServerConnection, now: Instant) {
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        self.service.counters.handshake(resumed);
        self.deadlines.clear(Deadline::Handshake);
        self.deadlines.set(Deadline::Idle, now + self.service.limits.idle_timeout(), now);
        let http2 = session.alpn_protocol() == Some(ALPN_HTTP2);
        if http2 && self.service.protocol == Protocol::Http {
            self.state = State::Http2(Box::new(Http2::new(&self.service)));
            self.advance_open(now);
        }
    }

    fn advance_open(&mut self, now: Instant) {
        if self.phase == Phase::Open {
            self.advance_stash(now);
        }
    }

    /// What arrived is no TLS, or was not meant for us, or no version, cipher or key is known to
    /// both sides. rustls has written the alert that says so, if there is one.
    fn tls_failed(&mut self, tls: &mut Tls, error: Option<&rustls::Error>) {
        tls.collect();
        // Nothing may follow an alert, and nothing can be encrypted after it.
        self.output = Output::default();
        let outcome = match error {
            _ if !tls.established => Outcome::HandshakeFailed,
            // It was the peer who gave up.
            Some(rustls::Error::AlertReceived(_)) => Outcome::Reset,
            _ => Outcome::Rejected,
        };
        self.flush_and_close(Close { linger: true, outcome });
    }

    /// The first byte of TLS is never a letter, and the first of HTTP always is: whoever typed
    /// `http:` for `https:` can be told so, in the language that he speaks.
    fn refuse_plain_http(&mut self, now: Instant) {
        let sentence = "this port speaks TLS: ask for https:// instead of http://";
        http1::put_refusal(&self.service, &mut self.output, now, "400 Bad Request", sentence);
        self.flush_and_close(Close { linger: true, outcome: Outcome::HandshakeFailed });
    }
}
