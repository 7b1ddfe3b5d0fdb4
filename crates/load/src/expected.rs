//! The expected body of an HTTP reply, for HTTP/1.1 and HTTP/2.
//!
//! A codec has one [`Bodies`] for all its connections and one [`Body`] for each incomplete reply
//! (HTTP/2: for each stream). Bodies are not stored, except those that are learnt before a run.

use std::sync::Arc;

use crate::codec::Wrong;
use crate::payload::{Mirror, describe_difference};

/// The pattern of `/bytes/N`: byte k of the body is `ALPHABET[k % 64]`.
pub(crate) const ALPHABET: &[u8; 64] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-\n";
/// Repetitions of the alphabet in memory, so that one comparison covers a whole receive buffer.
const ALPHABET_COPIES: usize = 1_025;
/// Learnt bodies up to this size are kept and compared byte by byte. Longer ones are compared by
/// CRC-32, because a copy beyond the cache would double the bytes that the client reads.
const KEPT_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The pattern of `/bytes/N`, for N bytes.
    Alphabet(u64),
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// A long body: its length and CRC-32.
    Checksum {
        len: u64,
        crc: u32,
    },
    Echo,
    /// Anything.
    Any,
    /// Anything, and it is kept: see [`Bodies::learnt`]. Only before a run.
    Learn,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    bytes: u64,
    crc: crc32fast::Hasher,
}

/// Compares bodies piece by piece.
pub(crate) struct Bodies {
    expected: Expected,
    mirror: Mirror,
    alphabet: Vec<u8>,
    kept: Option<Vec<u8>>,
    learnt: Option<Expected>,
}

impl Bodies {
    /// `payload_bytes` is the length of a request's body.
    pub(crate) fn new(expected: Expected, payload_bytes: usize) -> Self {
        let ruled = matches!(expected, Expected::Alphabet(_));
        Bodies {
            mirror: Mirror::new(if expected == Expected::Echo { payload_bytes } else { 0 }),
            alphabet: if ruled { ALPHABET.repeat(ALPHABET_COPIES) } else { Vec::new() },
            kept: Some(Vec::new()),
            learnt: None,
            expected,
        }
    }

    /// Compares one piece of the body of the reply to request `number` of `connection`.
    #[inline]
    pub(crate) fn compare(
        &mut self,
        (connection, number): (u32, u64),
        body: &mut Body,
        piece: &[u8],
    ) -> Result<(), Wrong> {
        let from = body.bytes;
        body.bytes += piece.len() as u64;
        let whole: &[u8] = match &self.expected {
            Expected::Any => return Ok(()),
            Expected::Checksum { .. } => {
                body.crc.update(piece);
                return Ok(());
            }
            Expected::Learn => {
                body.crc.update(piece);
                self.keep(piece);
                return Ok(());
            }
            Expected::Alphabet(len) => return compare_rule(&self.alphabet, *len, from, piece),
            Expected::Bytes(bytes) => bytes,
            Expected::Echo => self.mirror.payload(connection, number),
        };
        let rest =
            usize::try_from(from).ok().and_then(|from| whole.get(from..)).unwrap_or_default();
        match rest.get(..piece.len()) {
            Some(expected) if expected == piece => Ok(()),
            Some(expected) => Err(Wrong(describe_difference(from, piece, expected))),
            None => Err(too_long(whole.len() as u64)),
        }
    }

    /// Whether a complete body is right. `body` is reset for the next.
    #[inline]
    pub(crate) fn conclude(&mut self, body: &mut Body) -> Result<(), Wrong> {
        let found = std::mem::take(&mut body.bytes);
        let expected = match &self.expected {
            Expected::Any => return Ok(()),
            Expected::Learn => found,
            Expected::Alphabet(len) | Expected::Checksum { len, .. } => *len,
            Expected::Bytes(bytes) => bytes.len() as u64,
            Expected::Echo => self.mirror.len() as u64,
        };
        if found != expected {
            return Err(Wrong(format!("the body has {found} bytes, expected {expected}")));
        }
        match self.expected {
            Expected::Checksum { crc, .. } if std::mem::take(&mut body.crc).finalize() != crc => {
                return Err(Wrong("the body has the right length and wrong bytes".to_owned()));
            }
            Expected::Learn => {
                let crc = std::mem::take(&mut body.crc).finalize();
                self.learnt = Some(match self.kept.replace(Vec::new()) {
                    Some(bytes) => Expected::Bytes(Arc::from(bytes)),
                    None => Expected::Checksum { len: found, crc },
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds to the body that is learnt, while it is small enough to keep.
    fn keep(&mut self, piece: &[u8]) {
        self.kept = self.kept.take().filter(|kept| kept.len() + piece.len() <= KEPT_BYTES_MAX);
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(piece);
        }
    }

    /// The last complete body as an expectation; `None` unless it was to be learnt
    /// ([`Expected::Learn`]) and one has come.
    pub(crate) fn learnt(&self) -> Option<Expected> {
        self.learnt.clone()
    }

    /// What each reply is compared with, for the record.
    pub(crate) fn verification(&self, status: u16) -> String {
        match &self.expected {
            Expected::Any | Expected::Learn => {
                format!("status {status} and framing; not the bytes of the body")
            }
            Expected::Alphabet(_) => {
                format!("status {status} and every byte, against the rule of /bytes/N")
            }
            Expected::Echo => format!("status {status} and every byte, against the request's body"),
            Expected::Bytes(_) => {
                format!("status {status} and every byte, against a reply read before the run")
            }
            Expected::Checksum { .. } => {
                format!("status {status}, length and CRC-32, against a reply read before the run")
            }
        }
    }
}

/// Compares with the pattern of `/bytes/N`, from byte `from` of the body on.
fn compare_rule(alphabet: &[u8], len: u64, from: u64, piece: &[u8]) -> Result<(), Wrong> {
    if from + piece.len() as u64 > len {
        return Err(too_long(len));
    }
    let mut from = from;
    for piece in piece.chunks(alphabet.len() - ALPHABET.len()) {
        let start = (from % ALPHABET.len() as u64) as usize;
        let expected = &alphabet[start..start + piece.len()];
        if piece != expected {
            return Err(Wrong(describe_difference(from, piece, expected)));
        }
        from += piece.len() as u64;
    }
    Ok(())
}

fn too_long(expected: u64) -> Wrong {
    Wrong(format!("the body has more than the expected {expected} bytes"))
}
