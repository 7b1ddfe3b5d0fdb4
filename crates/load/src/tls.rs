//! TLS between a codec and its socket (RFC 8446, RFC 5246): rustls with ring, its buffered API.
//!
//! The servers use the same library. This is acceptable here, and only here: the server's cost is
//! measured, and another library would only change the client's own cost. An error that both ends
//! of one library share would be in the bytes on the wire; the suite checks these with OpenSSL
//! (curl, nghttp, h2load). An OpenSSL crate would need more than gcc to build.
//!
//! The certificate is not verified against roots (h2load does not either): the user names the
//! server, and servers under test sign their own certificates. The signatures of the handshake are
//! checked, so the server does have the key of its certificate.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use record::Protocol;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    HandshakeKind, NamedGroup, SignatureScheme,
};
use socket2::Socket;

use crate::{Error, Plan};

/// Names of protocols in ALPN (RFC 7301, section 6; RFC 9113, section 3.2).
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// rustls keeps an incomplete record (RFC 8446, section 5.2) until it is complete. Its plaintext
/// must then fit together with that of the next read.
pub(crate) const HELD_BYTES_MAX: usize = 32 * 1024;
/// Tickets kept per connection of the load. Servers send two to four with each handshake, and one
/// is used (RFC 8446, appendix C.4).
const TICKETS_PER_CONNECTION: usize = 4;

/// What the TLS connections of one thread share.
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    http2: bool,
}

impl Client {
    /// The client's side of TLS; `None` if the plan has none.
    pub(crate) fn new(plan: &Plan) -> Result<Option<Client>, Error> {
        if !plan.target.tls {
            return Ok(None);
        }
        let protocol = match plan.target.protocol {
            Protocol::Http2 => Some(HTTP2),
            Protocol::Http1 | Protocol::WebSocket => Some(HTTP1),
            Protocol::Echo => None,
        };
        let mut config = tls_config(protocol)
            .map_err(|error| Error::Internal(format!("TLS cannot be set up: {error}")))?;
        if plan.tls_resume {
            let sessions = Sessions::new(plan.connections as usize);
            config.resumption = Resumption::store(Arc::new(sessions));
        }
        let host = plan.target.host();
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::Plan(format!("{host:?} is neither a name nor an address that TLS could name"))
        })?;
        Ok(Some(Client { config: Arc::new(config), name, http2: plan.is_http2() }))
    }

    /// The state of a new connection, with its first bytes ready to be sent.
    pub(crate) fn begin(&self) -> Result<Session, String> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map(|tls| Session { tls: Box::new(tls), ended: false })
            .map_err(|error| format!("TLS: {error}"))
    }

    /// Whether the negotiated protocol is that of the plan. A server without ALPN negotiates none
    /// and uses HTTP/1.1 (RFC 9113, section 3.2, requires ALPN for HTTP/2 only).
    pub(crate) fn check_protocol(&self, session: &Session) -> Result<(), String> {
        match session.tls.alpn_protocol() {
            Some(agreed) if self.http2 == (agreed == HTTP2) => Ok(()),
            None if !self.http2 => Ok(()),
            other => {
                let agreed = other.map_or("nothing".into(), String::from_utf8_lossy);
                Err(format!(
                    "the server does not accept {} over TLS (ALPN: it chose {agreed}); \
                     {} --http2",
                    if self.http2 { "HTTP/2" } else { "HTTP/1.1" },
                    if self.http2 { "leave out" } else { "add" },
                ))
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) version: String,
    pub(crate) cipher_suite: String,
    pub(crate) alpn: Option<String>,
}

pub(crate) struct Session {
    tls: Box<ClientConnection>,
    /// The server has sent close_notify (RFC 8446, section 6.1).
    ended: bool,
}

impl Session {
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether the server has sent close_notify.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the handshake, which is complete, resumed an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The result of the handshake, which is complete.
    pub(crate) fn agreed(&self) -> Agreed {
        let version = self.tls.protocol_version().and_then(|version| version.as_str());
        let suite = self.tls.negotiated_cipher_suite();
        let suite = suite.and_then(|suite| suite.suite().as_str());
        Agreed {
            version: version.unwrap_or("unknown").replace('_', "."),
            cipher_suite: suite.unwrap_or("unknown").to_owned(),
            alpn: self.tls.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        }
    }

    /// Takes all received bytes, and writes their plaintext to `plain`, which has room for as many
    /// bytes and [`HELD_BYTES_MAX`]; returns how many it wrote. After an error an alert waits to be
    /// sent.
    pub(crate) fn open(&mut self, mut encrypted: &[u8], plain: &mut [u8]) -> Result<usize, String> {
        let mut filled = 0;
        while !encrypted.is_empty() && !self.ended {
            // It reads a slice, and its plaintext is taken out at once, so it always takes some
            // bytes.
            self.tls.read_tls(&mut encrypted).map_err(|error| format!("TLS: {error}"))?;
            let state = self.tls.process_new_packets().map_err(|error| describe(&error))?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let room = plain.get_mut(filled..).unwrap_or_default();
                let read = self.tls.reader().read(room);
                match read.map_err(|error| format!("TLS: {error}"))? {
                    0 => return Err("TLS: more plaintext than ciphertext".to_owned()),
                    count => (filled, left) = (filled + count, left - count),
                }
            }
            self.ended = state.peer_has_closed();
        }
        Ok(filled)
    }

    pub(crate) fn finish(&mut self) {
        self.tls.send_close_notify();
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// Encrypts as many of `bytes` as there is room for, and sends as much as the socket takes.
    /// Returns how many were taken, `AGAIN` for none.
    pub(crate) fn push(
        &mut self,
        socket: &Socket,
        bytes: &[u8],
        bytes_sent: &mut u64,
    ) -> Result<usize, Errno> {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = bytes.get(taken..).unwrap_or_default();
            // It writes to a buffer, so no I/O error is possible.
            let count = self.tls.writer().write(rest).map_err(|_| Errno::PIPE)?;
            taken += count;
            if count == 0 && !self.flush(socket, bytes_sent)? {
                break;
            }
        }
        if taken > 0 { Ok(taken) } else { Err(Errno::AGAIN) }
    }

    /// Sends bytes that wait; returns whether all are sent.
    pub(crate) fn flush(&mut self, socket: &Socket, bytes_sent: &mut u64) -> Result<bool, Errno> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Wire(socket)) {
                Ok(count) => *bytes_sent += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    return Err(Errno::from_io_error(&error).unwrap_or(Errno::PIPE));
                }
            }
        }
        Ok(true)
    }
}

fn describe(error: &rustls::Error) -> String {
    match error {
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the server accepts none of the protocols that it was offered over TLS (ALPN): try \
             with --http2, or without it"
                .to_owned()
        }
        rustls::Error::InvalidMessage(_) => {
            format!(
                "the server does not use TLS ({error}): try the URL without the s in its scheme"
            )
        }
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => format!(
            "TLS: the handshake is not signed with the key of the certificate, or that key is of a \
             kind that is not read here, such as RSA with less than 2,048 bits ({error})"
        ),
        error => format!("TLS: {error}"),
    }
}

/// rustls writes ciphertext to this socket.
struct Wire<'a>(&'a Socket);

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [one] => self.write(one),
            many => self.0.send_vectored_with_flags(many, SendFlags::NOSIGNAL.bits() as i32),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The TLS configuration of a load generator. `protocol` is offered by ALPN (RFC 7301), no session
/// is kept for the next connection, and every certificate is accepted, because servers under test
/// sign their own. Whether the server has its key is checked.
///
/// # Errors
/// The error of rustls about its own defaults.
pub fn tls_config(protocol: Option<&[u8]>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(NoRoots(Arc::clone(&provider)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Accepts every certificate, and checks every signature.
#[derive(Debug)]
struct NoRoots(Arc<CryptoProvider>);

impl ServerCertVerifier for NoRoots {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let unread = || rustls::Error::from(CertificateError::BadEncoding);
        let key = public_key(certificate).ok_or_else(unread)?;
        let (algorithm, key) = split_key(key).ok_or_else(unread)?;
        let mapping = self.0.signature_verification_algorithms.mapping;
        let of_scheme = mapping.iter().filter(|(scheme, _)| *scheme == signature.scheme);
        let mut candidates = of_scheme.flat_map(|(_, algorithms)| *algorithms);
        candidates
            .any(|one| {
                one.public_key_alg_id().as_ref() == algorithm
                    && one.verify_signature(key, message, signature.signature()).is_ok()
            })
            .then(HandshakeSignatureValid::assertion)
            .ok_or_else(|| CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = public_key(certificate).ok_or(CertificateError::BadEncoding)?;
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key.into(), signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The public key of a certificate (`subjectPublicKeyInfo`; RFC 5280, section 4.1). The rest is not
/// read, because it is not verified: rustls's own parser refuses certificates that no verifier
/// would trust, such as X.509 version 1.
fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    const VERSION: u8 = 0xa0;
    let (_, signed, _) = element(certificate)?;
    let (_, mut rest, _) = element(signed)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // Serial number, signature algorithm, issuer, validity, subject.
    for _ in 0..5 {
        rest = element(rest)?.2;
    }
    let after = element(rest)?.2;
    rest.get(..rest.len() - after.len())
}

/// The algorithm and the bits of a public key.
fn split_key(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, content, _) = element(key)?;
    let (_, algorithm, rest) = element(content)?;
    let (_, bits, _) = element(rest)?;
    // The first octet is the number of unused bits in the last one: zero for a key.
    Some((algorithm, bits.strip_prefix(&[0])?))
}

/// The first element of some DER (X.690, section 8.1): its tag, its content, and the rest.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let long = usize::from(first & 0x7f);
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (octets, rest) = rest.split_at_checked(long)?;
            (octets.iter().fold(0, |len, &octet| len << 8 | usize::from(octet)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// Sessions that can be resumed, all of one server and for one thread. rustls's own store keeps
/// eight tickets per server, too few for hundreds of connections that begin at once.
#[derive(Debug)]
struct Sessions {
    tickets_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    /// Each is used once (RFC 8446, appendix C.4), the youngest first.
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Sessions {
    fn new(connections: usize) -> Self {
        Sessions { tickets_max: connections * TICKETS_PER_CONNECTION, kept: Mutex::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.with(|kept| kept.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|kept| kept.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.with(|kept| kept.tls12 = Some(value));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.with(|kept| kept.tls12.clone())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.with(|kept| kept.tls12 = None);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.with(|kept| {
            if kept.tickets.len() == self.tickets_max {
                kept.tickets.pop_front();
            }
            kept.tickets.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.with(|kept| kept.tickets.pop_back())
    }
}
