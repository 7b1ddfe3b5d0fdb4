//! TLS in this process, for cases that must know when a request is with the kernel: what is given
//! to openssl(1) may lie there for a while. Whether the servers' TLS is right, others say (`tls`).

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use suite::{Server, Variant};
use tempfile::TempDir;

/// A connection on which plaintext is read and written.
pub type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A server with `--tls`, the directory of its certificate, and what trusts that.
pub struct Guarded {
    pub server: Server,
    pub trust: Arc<RootCertStore>,
    pub state: TempDir,
}

#[track_caller]
pub fn start(variant: &Variant, flags: &[&str]) -> Guarded {
    let state = tempfile::tempdir().expect("a temporary directory");
    let variable = ("XDG_STATE_HOME", state.path());
    let server = Server::start_with_variable(variant, &[&["--tls"], flags].concat(), variable);
    let mut trust = RootCertStore::empty();
    for certificate in certificates(&state.path().join("iolab").join("self-signed.pem")) {
        trust.add(certificate).expect("a certificate that can be trusted");
    }
    Guarded { server, trust: Arc::new(trust), state }
}

fn certificates(pem: &Path) -> Vec<CertificateDer<'static>> {
    let pem = fs::read(pem).expect("the certificate of the server");
    CertificateDer::pem_slice_iter(&pem).map(|one| one.expect("a certificate")).collect()
}

/// The handshake, to its end.
pub fn connect(stream: TcpStream, trust: &Arc<RootCertStore>, alpn: &str) -> io::Result<Secure> {
    let builder = ClientConfig::builder().with_root_certificates(Arc::clone(trust));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![alpn.into()];
    let name = ServerName::from(stream.peer_addr()?.ip());
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = stream;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(tls, stream))
}
