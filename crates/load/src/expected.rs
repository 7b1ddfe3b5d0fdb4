//! What the body of an HTTP reply must be, whatever version of HTTP carries it.
//!
//! A codec keeps one [`Bodies`] for all its connections and one [`Body`] for each reply that is
//! arriving (with HTTP/2: for each stream). Bodies pass through and are never held, but for those
//! that are learnt before a run.

use std::sync::Arc;

use crate::codec::Wrong;
use crate::payload::{Mirror, describe_difference};

/// What the rule of `/bytes/N` repeats: byte k of the body is `ALPHABET[k % 64]`.
pub(crate) const ALPHABET: &[u8; 64] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-\n";
/// The alphabet is laid out this often, so that one comparison covers a whole receive buffer.
const ALPHABET_COPIES: usize = 1_025;
/// Learnt bodies up to this size are kept and compared byte by byte; longer ones by CRC-32, for a
/// copy beyond the cache would double what the client reads.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What the body of each reply must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The rule of `/bytes/N`, for N bytes.
    Alphabet(u64),
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// Too long to be kept: so many bytes with this CRC-32.
    Checksum {
        /// Bytes.
        len: u64,
        /// CRC-32 of all of them.
        crc: u32,
    },
    /// The request's own body.
    Echo,
    /// Anything.
    Any,
    /// Anything, and it is remembered: see [`Bodies::learnt`]. Before a run only.
    Learn,
}

/// What is remembered of one body that is arriving.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    bytes: u64,
    crc: crc32fast::Hasher,
}

/// Compares bodies with what they must be, piece by piece.
pub(crate) struct Bodies {
    expected: Expected,
    mirror: Mirror,
    alphabet: Vec<u8>,
    kept: Option<Vec<u8>>,
    learnt: Option<Expected>,
}

impl Bodies {
    /// Bodies as `expected`; `payload_bytes` is the length of a request's own body.
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

    /// Whether a body that has ended is the expected one. `body` is ready for the next.
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
                return Err(Wrong("the body has the right length and other bytes".to_owned()));
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

    /// Adds to the body that is being learnt, as long as it is worth keeping.
    fn keep(&mut self, piece: &[u8]) {
        self.kept = self.kept.take().filter(|kept| kept.len() + piece.len() <= KEPT_BYTES_MAX);
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(piece);
        }
    }

    /// The last whole body, as something to compare others with; `None` unless that was asked for
    /// ([`Expected::Learn`]) and one has come.
    pub(crate) fn learnt(&self) -> Option<Expected> {
        self.learnt.clone()
    }

    /// What of each reply is compared with what, for the record.
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

/// Compares with the rule of `/bytes/N`, from byte `from` of the body on.
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
