//! A second reader and writer of HTTP/2 (RFC 9113, RFC 7541) and WebSocket (RFC 6455), by which
//! servers and the load generator are checked.
//!
//! The black-box suite tests servers with it, and the measuring side asks a server once with it
//! before the load. It shares no code with `conn` or `load`: an error of one reader is found by
//! the other. It does no I/O of its own, and writes what it is told, also what no RFC allows. What
//! it reads it holds to the RFC, frame by frame; what follows from several frames is for the
//! caller.

pub mod hpack;
pub mod http2;
pub mod websocket;

use std::io::{Error, ErrorKind, Read};

/// Why a frame cannot be read.
enum Fault {
    /// Bytes did not come.
    Missing(Error),
    /// They did, and are no frame.
    Wrong(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Missing(error)
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> String {
        match fault {
            Fault::Wrong(why) => why,
            Fault::Missing(error) => match error.kind() {
                // Their own texts would mislead: of a read with a time limit they are EAGAIN.
                ErrorKind::WouldBlock | ErrorKind::TimedOut => "nothing came in time".to_owned(),
                ErrorKind::UnexpectedEof => "it ended inside a frame, or before it".to_owned(),
                _ => error.to_string(),
            },
        }
    }
}

fn array<const N: usize>(stream: &mut impl Read) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

/// What `take` finds at the front of `input`, and its length; `None` if more must come.
fn front<T>(
    input: &[u8],
    take: impl FnOnce(&mut &[u8]) -> Result<T, Fault>,
) -> Result<Option<(usize, T)>, String> {
    let mut rest = input;
    match take(&mut rest) {
        Ok(found) => Ok(Some((input.len() - rest.len(), found))),
        Err(Fault::Missing(_)) => Ok(None),
        Err(Fault::Wrong(why)) => Err(why),
    }
}
