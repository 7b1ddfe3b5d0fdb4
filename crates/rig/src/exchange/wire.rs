//! A socket, or TLS over a socket (rustls). RFC 8446, RFC 7301 (ALPN).

use std::io::{Read, Result, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

/// A blocking connection.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Makes the TLS handshake; the server must agree to `protocol` (`h2`, `http/1.1`).
    pub fn tls(mut socket: TcpStream, protocol: &str) -> std::result::Result<Wire, String> {
        let failed = |why: String| format!("no TLS handshake: {why}");
        let config =
            load::tls_config(Some(protocol.as_bytes())).map_err(|e| failed(e.to_string()))?;
        let address = socket.peer_addr().map_err(|e| failed(e.to_string()))?;
        let name = ServerName::IpAddress(address.ip().into());
        let mut connection = ClientConnection::new(Arc::new(config), name)
            .map_err(|error| failed(error.to_string()))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(|e| failed(super::why(&e)))?;
        }
        let agreed = connection.alpn_protocol().map(String::from_utf8_lossy);
        if agreed.as_deref() != Some(protocol) {
            let agreed = agreed.as_deref().unwrap_or("nothing");
            return Err(failed(format!("the server chose {agreed} by ALPN, not {protocol}")));
        }
        Ok(Wire::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    /// The socket, without the TLS session.
    pub fn into_socket(self) -> TcpStream {
        match self {
            Wire::Plain(socket) => socket,
            Wire::Tls(stream) => stream.sock,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Wire::Plain(socket) => socket.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Wire::Plain(socket) => socket.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Wire::Plain(socket) => socket.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}
