//! TLS between the socket and the protocol (RFC 8446, RFC 5246). The models do not know of it.
//!
//! Plaintext waits in the connection's output as it does without TLS, and all limits count it
//! there. Ciphertext waits in a second queue. That queue is short, because encrypted bytes cannot
//! be withdrawn. rustls keeps no bytes for the peer.
//!
//! rustls reads the wall clock, once per handshake, for the age of tickets.

use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use crate::http1;
use crate::http2::Http2;
use crate::output::Output;
use crate::{Close, Conn, Deadline, Outcome, Phase, Protocol, ProtocolState};

/// Most plaintext in one record, in bytes (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 16 << 10;

/// Most ciphertext that waits for the peer, in bytes: enough for a large write. Below this, only
/// whole records are added, because a short record costs as much as a long one.
const ENCRYPTED_BYTES_MAX: usize = 64 << 10;

/// Slices of output that are gathered into one record. A reply is one or two.
const SLICES_MAX: usize = 8;

/// Memory of rustls for an idle session, in bytes.
const SESSION_BYTES: usize = 8 << 10;

/// Most memory of rustls for an incomplete message, in bytes: the longest handshake message, and a
/// record.
const INCOMPLETE_BYTES_MAX: usize = (64 << 10) + RECORD_BYTES_MAX;

/// The ALPN name of HTTP/2 (RFC 9113 section 3.2, RFC 7301).
const ALPN_HTTP2: &[u8] = b"h2";

pub(crate) struct Tls {
    session: ServerConnection,
    encrypted: Output,
    begun: bool,
    established: bool,
    /// The peer has sent close_notify.
    peer_closed: bool,
    /// Bytes that rustls may keep because their message or record is incomplete.
    incomplete_bytes: usize,
}

/// Bytes that have arrived, for rustls to read.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    /// Reports `WouldBlock` at the end, because zero bytes would mean the peer's FIN.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.0.read(buffer)
    }
}

struct Encrypted<'a>(&'a mut Output);

impl Write for Encrypted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A large record gets its own chunk: appended to the tail it would be copied each time the
        // tail is reallocated.
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
    /// A layer that waits for its handshake. `None` if rustls cannot use `config`: it checks some
    /// of it for each connection.
    pub(crate) fn new(config: &Arc<ServerConfig>) -> Option<Box<Tls>> {
        let session = ServerConnection::new(Arc::clone(config)).ok()?;
        let encrypted = Output::default();
        Some(Box::new(Tls {
            session,
            encrypted,
            begun: false,
            established: false,
            peer_closed: false,
            incomplete_bytes: 0,
        }))
    }

    pub(crate) fn encrypted(&self) -> &Output {
        &self.encrypted
    }

    pub(crate) fn encrypted_mut(&mut self) -> &mut Output {
        &mut self.encrypted
    }

    pub(crate) fn held(&self) -> usize {
        SESSION_BYTES + self.encrypted.held() + self.incomplete_bytes.min(INCOMPLETE_BYTES_MAX)
    }

    /// True once the protocol can send and receive.
    pub(crate) fn is_established(&self) -> bool {
        self.established
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.begun && !self.established
    }

    /// Encrypts the front of `output` while there is room for ciphertext.
    pub(crate) fn encrypt(&mut self, output: &mut Output) {
        while !output.is_empty() && self.encrypted.len() <= ENCRYPTED_BYTES_MAX - RECORD_BYTES_MAX {
            let n = self.encrypt_record(output);
            if n == 0 {
                return;
            }
            output.sent(n);
            self.collect();
        }
    }

    /// Encrypts one record; returns how many bytes of `output` it holds.
    fn encrypt_record(&mut self, output: &Output) -> usize {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = output.slices(&mut slices);
        let mut room = RECORD_BYTES_MAX;
        let mut pieces = [IoSlice::new(&[]); SLICES_MAX];
        for (piece, slice) in pieces.iter_mut().zip(&slices[..filled]) {
            *piece = IoSlice::new(&slice[..slice.len().min(room)]);
            room -= piece.len();
        }
        // Fails only after a fatal alert, when no output is left.
        self.session.writer().write_vectored(&pieces[..filled]).unwrap_or_default()
    }

    /// Tells the peer once that no more data follows (RFC 8446 section 6.1).
    pub(crate) fn send_close_notify(&mut self) {
        self.session.send_close_notify();
        self.collect();
    }

    fn collect(&mut self) {
        while self.session.wants_write() {
            let _ = self.session.write_tls(&mut Encrypted(&mut self.encrypted));
        }
    }

    /// How the connection ends, after the peer's FIN; `None` if the FIN was expected. `delimited`:
    /// the protocol knows itself whether all data has arrived.
    pub(crate) fn eof_outcome(&self, delimited: bool) -> Option<Outcome> {
        if !self.established {
            return self.begun.then_some(Outcome::HandshakeFailed);
        }
        // An attacker on the path can forge a FIN but not a close_notify. HTTP does not need it
        // (RFC 9112 section 9.8), and many clients never send it.
        (!delimited && !self.peer_closed).then_some(Outcome::Truncated)
    }
}

impl Conn {
    /// Ciphertext arrived. All of it is taken.
    pub(crate) fn receive_encrypted(&mut self, bytes: &[u8], now: Instant) {
        let Some(mut tls) = self.tls.take() else { return };
        if !tls.begun && bytes[0].is_ascii_uppercase() && self.service.protocol == Protocol::Http {
            // Drops the TLS layer, so that the reply is not encrypted.
            return self.refuse_plain_http(now);
        }
        tls.begun = true;
        tls.incomplete_bytes += bytes.len();
        let mut wire = Wire(bytes);
        while self.phase == Phase::Open {
            match tls.session.read_tls(&mut wire) {
                // rustls reads no bytes behind a close_notify.
                Ok(0) => break,
                Ok(_) => self.decrypt_records(&mut tls, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The message is larger than rustls accepts.
                Err(_) => self.tls_failed(&mut tls, None),
            }
        }
        tls.collect();
        self.tls = Some(tls);
    }

    fn decrypt_records(&mut self, tls: &mut Tls, now: Instant) {
        match tls.session.process_new_packets() {
            Ok(state) => tls.peer_closed = state.peer_has_closed(),
            Err(error) => return self.tls_failed(tls, Some(&error)),
        }
        if !tls.established && !tls.session.is_handshaking() {
            tls.established = true;
            tls.incomplete_bytes = 0;
            self.tls_established(&tls.session, now);
        }
        // Read at once, because rustls reads no more ciphertext while it holds plaintext.
        let mut reader = tls.session.reader();
        while let Ok(plaintext @ [_, ..]) = reader.fill_buf() {
            // A record was complete; rustls may hold the beginning of the next.
            tls.incomplete_bytes = tls.incomplete_bytes.min(RECORD_BYTES_MAX);
            self.receive_plaintext(plaintext, now);
            let len = plaintext.len();
            reader.consume(len);
        }
        if tls.peer_closed && !self.eof {
            self.eof = true;
            self.advance_open(now);
        }
    }

    /// The handshake is complete: the negotiated protocol begins.
    fn tls_established(&mut self, session: &ServerConnection, now: Instant) {
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        self.service.counters.handshake(resumed);
        self.deadlines.clear(Deadline::Handshake);
        self.deadlines.set(Deadline::Idle, now + self.service.limits.idle_timeout(), now);
        let http2 = session.alpn_protocol() == Some(ALPN_HTTP2);
        if http2 && self.service.protocol == Protocol::Http {
            self.state = ProtocolState::Http2(Box::new(Http2::new()));
            self.advance_open(now);
        }
    }

    fn advance_open(&mut self, now: Instant) {
        if self.phase == Phase::Open {
            self.advance_unprocessed(now);
        }
    }

    /// The bytes are not TLS, or do not decrypt, or the two sides have no common version, cipher or
    /// key. rustls has written an alert if there is one for this.
    fn tls_failed(&mut self, tls: &mut Tls, error: Option<&rustls::Error>) {
        tls.collect();
        // No data may follow an alert, and none can be encrypted.
        self.output = Output::default();
        let outcome = match error {
            _ if !tls.established => Outcome::HandshakeFailed,
            // The peer ended the session.
            Some(rustls::Error::AlertReceived(_)) => Outcome::Reset,
            _ => Outcome::Rejected,
        };
        self.flush_and_close(Close { linger: true, outcome });
    }

    /// Answers HTTP without TLS in plaintext. The first byte of TLS is never a letter, and that of
    /// HTTP always is.
    fn refuse_plain_http(&mut self, now: Instant) {
        let sentence = "this port uses TLS: use https:// instead of http://";
        http1::put_refusal(&self.service, &mut self.output, now, "400 Bad Request", sentence);
        self.flush_and_close(Close { linger: true, outcome: Outcome::HandshakeFailed });
    }
}
