//! TLS between the socket and the protocol (RFC 8446, RFC 5246). It knows neither: ciphertext goes
//! in by [`Tls::receive`] and comes out as [`TlsEvent`]s; plaintext goes in by [`Tls::encrypt`] and
//! comes out in [`Tls::encrypted`].
//!
//! Plaintext waits in the connection's output as it does without TLS, and all limits count it
//! there. Ciphertext waits in a second queue. That queue is short, because encrypted bytes cannot
//! be withdrawn. rustls keeps no bytes for the peer.
//!
//! rustls reads the wall clock, once per handshake, for the age of tickets.

use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use crate::output::Output;

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

pub(crate) struct Tls {
    session: ServerConnection,
    encrypted: Output,
    state: TlsState,
    /// Bytes that rustls may keep because their message or record is incomplete.
    incomplete_bytes: usize,
}

/// How far the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsState {
    /// No byte has arrived.
    New,
    Handshaking,
    Established,
    /// The peer has sent close_notify (RFC 8446 section 6.1): it sends no more data.
    PeerClosed,
}

impl TlsState {
    /// True once the protocol can send.
    pub(crate) fn is_established(self) -> bool {
        matches!(self, TlsState::Established | TlsState::PeerClosed)
    }
}

/// What arrived, in the order in which the peer sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TlsEvent<'a> {
    /// The handshake is complete. `alpn`: the protocol that was negotiated, if one was.
    Established {
        resumed: bool,
        alpn: Option<&'a [u8]>,
    },
    Plaintext(&'a [u8]),
    CloseNotify,
}

/// Why the session cannot continue. An alert waits in [`Tls::encrypted`] if there is one for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    /// The bytes are not TLS, or the two sides have no common version, cipher or key.
    Handshake,
    /// The peer ended the session with an alert.
    AlertReceived,
    /// A record or message is malformed, too large, or does not decrypt.
    Malformed,
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
        Some(Box::new(Tls { session, encrypted, state: TlsState::New, incomplete_bytes: 0 }))
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

    pub(crate) fn state(&self) -> TlsState {
        self.state
    }

    /// Ciphertext arrived. All of it is taken, unless `sink` returns false: then the protocol has
    /// ended, and the bytes behind the present read of rustls are dropped.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(TlsEvent<'_>) -> bool,
    ) -> Result<(), TlsFailure> {
        if self.state == TlsState::New {
            self.state = TlsState::Handshaking;
        }
        self.incomplete_bytes += bytes.len();
        let result = self.decrypt(bytes, &mut sink);
        self.collect();
        result
    }

    fn decrypt(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(TlsEvent<'_>) -> bool,
    ) -> Result<(), TlsFailure> {
        let mut wire = Wire(bytes);
        loop {
            match self.session.read_tls(&mut wire) {
                // rustls reads no bytes behind a close_notify.
                Ok(0) => return Ok(()),
                Ok(_) if !self.decrypt_records(sink)? => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The message is larger than rustls accepts.
                Err(_) => return Err(self.failure(None)),
            }
        }
    }

    /// Returns whether `sink` takes more.
    fn decrypt_records(
        &mut self,
        sink: &mut impl FnMut(TlsEvent<'_>) -> bool,
    ) -> Result<bool, TlsFailure> {
        let io = self.session.process_new_packets().map_err(|error| self.failure(Some(error)))?;
        let mut takes_more = true;
        if self.state == TlsState::Handshaking && !self.session.is_handshaking() {
            self.state = TlsState::Established;
            self.incomplete_bytes = 0;
            let resumed = self.session.handshake_kind() == Some(HandshakeKind::Resumed);
            takes_more =
                sink(TlsEvent::Established { resumed, alpn: self.session.alpn_protocol() });
        }
        // Read at once, because rustls reads no more ciphertext while it holds plaintext.
        let mut reader = self.session.reader();
        while let Ok(plaintext @ [_, ..]) = reader.fill_buf() {
            // A record was complete; rustls may hold the beginning of the next.
            self.incomplete_bytes = self.incomplete_bytes.min(RECORD_BYTES_MAX);
            takes_more = sink(TlsEvent::Plaintext(plaintext));
            let len = plaintext.len();
            reader.consume(len);
        }
        if io.peer_has_closed() && self.state == TlsState::Established {
            self.state = TlsState::PeerClosed;
            takes_more = sink(TlsEvent::CloseNotify);
        }
        Ok(takes_more)
    }

    fn failure(&self, error: Option<rustls::Error>) -> TlsFailure {
        match (self.state, error) {
            (TlsState::New | TlsState::Handshaking, _) => TlsFailure::Handshake,
            (_, Some(rustls::Error::AlertReceived(_))) => TlsFailure::AlertReceived,
            _ => TlsFailure::Malformed,
        }
    }

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

    /// Sends close_notify: no more data follows. Only the first call counts.
    pub(crate) fn close(&mut self) {
        self.session.send_close_notify();
        self.collect();
    }

    fn collect(&mut self) {
        while self.session.wants_write() {
            let _ = self.session.write_tls(&mut Encrypted(&mut self.encrypted));
        }
    }
}

#[cfg(test)]
#[path = "../tests/support/tls.rs"]
#[allow(dead_code, reason = "each user needs its own part")]
mod client;

#[cfg(test)]
mod tests {
    use super::client::{Client, client_config, server_config};
    use super::*;

    /// Takes what arrives from `client`; returns the plaintext and the other events.
    fn receive(tls: &mut Tls, bytes: &[u8]) -> (Vec<u8>, Vec<String>) {
        let (mut plaintext, mut events) = (Vec::new(), Vec::new());
        let result = tls.receive(bytes, |event| {
            match event {
                TlsEvent::Plaintext(bytes) => plaintext.extend_from_slice(bytes),
                other => events.push(format!("{other:?}")),
            }
            true
        });
        assert_eq!(result, Ok(()));
        (plaintext, events)
    }

    fn take_encrypted(tls: &mut Tls) -> Vec<u8> {
        let encrypted: Vec<Bytes> = tls.encrypted_mut().chunks().collect();
        let encrypted = encrypted.concat();
        tls.encrypted_mut().sent(encrypted.len());
        encrypted
    }

    fn established() -> (Client, Box<Tls>) {
        let mut client = Client::new(&client_config(&rustls::version::TLS13, &["h2"], true));
        let mut tls = Tls::new(&server_config(&["h2"])).expect("the configuration is usable");
        assert_eq!(tls.state(), TlsState::New);
        assert_eq!(receive(&mut tls, &client.take_encrypted()), (vec![], vec![]));
        assert_eq!(tls.state(), TlsState::Handshaking);
        client.arrive(&take_encrypted(&mut tls));
        let wanted = format!("{:?}", TlsEvent::Established { resumed: false, alpn: Some(b"h2") });
        assert_eq!(receive(&mut tls, &client.take_encrypted()), (vec![], vec![wanted]));
        assert_eq!(tls.state(), TlsState::Established);
        // Tickets (RFC 8446 section 4.6.1).
        client.arrive(&take_encrypted(&mut tls));
        (client, tls)
    }

    #[test]
    fn plaintext_comes_out_on_both_sides_and_then_close_notify() {
        let (mut client, mut tls) = established();
        client.send(&[1; 40_000]);
        client.session.send_close_notify();
        let (plaintext, events) = receive(&mut tls, &client.take_encrypted());
        assert!(plaintext == [1; 40_000]);
        assert_eq!((events, tls.state()), (vec!["CloseNotify".to_owned()], TlsState::PeerClosed));
        let mut output = Output::default();
        output.put(b"reply");
        tls.encrypt(&mut output);
        tls.close();
        tls.close();
        client.arrive(&take_encrypted(&mut tls));
        assert!(client.received == b"reply" && client.close_notify_received);
    }

    #[test]
    fn no_byte_is_decrypted_behind_the_end_of_the_protocol() {
        let (mut client, mut tls) = established();
        // rustls reads 4 KiB at a time. Encryption adds 22 bytes to a record.
        client.send(&[3; (4 << 10) - 22]);
        let mut bytes = client.take_encrypted();
        assert_eq!(bytes.len(), 4 << 10);
        bytes.extend([0xff; 8 << 10]);
        let mut events = 0;
        let result = tls.receive(&bytes, |_| {
            events += 1;
            false
        });
        assert_eq!((result, events), (Ok(()), 1));
        assert!(tls.encrypted().is_empty(), "an alert");
    }

    #[test]
    fn a_failure_says_whether_there_was_a_session() {
        let mut new = Tls::new(&server_config(&[])).expect("the configuration is usable");
        assert_eq!(new.receive(b"no TLS", |_| true), Err(TlsFailure::Handshake));
        let (mut client, mut tls) = established();
        client.send(b"hello");
        let mut bytes = client.take_encrypted();
        *bytes.last_mut().expect("a record") ^= 1;
        assert_eq!(tls.receive(&bytes, |_| true), Err(TlsFailure::Malformed));
        assert_eq!(tls.encrypted().len(), 24, "one alert");
    }

    #[test]
    fn the_queue_of_ciphertext_is_bounded_and_filled_again() {
        let (mut client, mut tls) = established();
        let mut output = Output::default();
        output.push(vec![2; 300_000].into());
        while !output.is_empty() {
            tls.encrypt(&mut output);
            let encrypted = take_encrypted(&mut tls);
            assert!(encrypted.len() <= ENCRYPTED_BYTES_MAX + 5 * 64, "{}", encrypted.len());
            client.arrive(&encrypted);
        }
        assert!(client.received == [2; 300_000]);
    }
}
