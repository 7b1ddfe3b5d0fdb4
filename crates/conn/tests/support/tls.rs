//! The client's side of TLS, and the configurations of both sides. Both are rustls; the suite tests
//! whole servers with other clients (curl, openssl, browsers).

use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig, SupportedProtocolVersion,
};

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A certificate and its key, the same in all tests of a process.
fn identity() -> &'static (CertificateDer<'static>, PrivateKeyDer<'static>) {
    static IDENTITY: OnceLock<(CertificateDer<'static>, PrivateKeyDer<'static>)> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.expect("a certificate can be made");
        let key = made.signing_key.serialize_der();
        (made.cert.into(), PrivateKeyDer::try_from(key).expect("a key"))
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

fn names(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}

pub fn server_config(alpn: &[&str]) -> Arc<ServerConfig> {
    let (certificate, key) = identity();
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&VERSIONS)
        .expect("the versions are supported")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.clone_key());
    let mut config = config.expect("the key is that of the certificate");
    config.alpn_protocols = names(alpn);
    config.ticketer = Ticketer::new().expect("there is randomness");
    Arc::new(config)
}

/// A client of one version. `trusting`: it trusts the server's certificate.
pub fn client_config(
    version: &'static SupportedProtocolVersion,
    alpn: &[&str],
    trusting: bool,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if trusting {
        roots.add(identity().0.clone()).expect("a root");
    }
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]);
    let config = config.expect("the version is supported").with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = names(alpn);
    Arc::new(config)
}

pub struct Client {
    pub session: ClientConnection,
    pub received: Vec<u8>,
    pub close_notify_received: bool,
    pub error: Option<Error>,
}

impl Client {
    pub fn new(config: &Arc<ClientConfig>) -> Client {
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::clone(config), name);
        let mut session = session.expect("the configuration is usable");
        // A test writes all its plaintext at once.
        session.set_buffer_limit(None);
        Client { session, received: Vec::new(), close_notify_received: false, error: None }
    }

    /// Sends plaintext once the handshake is complete.
    pub fn send(&mut self, plaintext: &[u8]) {
        self.session.writer().write_all(plaintext).expect("there is no limit");
    }

    pub fn take_encrypted(&mut self) -> Vec<u8> {
        let mut encrypted = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut encrypted).expect("memory can be written");
        }
        encrypted
    }

    pub fn arrive(&mut self, mut encrypted: &[u8]) {
        while !encrypted.is_empty() && self.error.is_none() && !self.close_notify_received {
            self.session.read_tls(&mut encrypted).expect("it is read as it comes");
            match self.session.process_new_packets() {
                Ok(state) => self.close_notify_received = state.peer_has_closed(),
                Err(error) => self.error = Some(error),
            }
            match self.session.reader().read_to_end(&mut self.received) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
    }
}
