//! The client's side of the echo protocol (RFC 862): every byte comes back, in order and unchanged.

use std::ops::Range;

use crate::codec::{Codec, Step, Wrong, unasked};
use crate::payload::{Mirror, Wire, describe_difference};

pub(crate) struct Echo {
    wire: Wire,
    mirror: Mirror,
}

impl Echo {
    /// Messages of `payload_bytes`, `depth` of them in flight.
    pub(crate) fn new(payload_bytes: usize, depth: u32) -> Self {
        Echo { wire: Wire::new(&[], payload_bytes, depth), mirror: Mirror::new(payload_bytes) }
    }
}

impl Codec for Echo {
    /// Bytes of the current message that have come back.
    type Reader = usize;

    fn reader(&self) -> usize {
        0
    }

    fn request_bytes(&self) -> usize {
        self.wire.request_bytes()
    }

    fn outgoing(&mut self, connection: u32, number: u64, requests: u32, offset: usize) -> &[u8] {
        self.wire.outgoing(connection, number, requests, offset)
    }

    fn incoming(
        &mut self,
        connection: u32,
        reader: &mut usize,
        awaited: Range<u64>,
        bytes: &[u8],
    ) -> Result<Step, Wrong> {
        if awaited.is_empty() {
            return Err(unasked(bytes));
        }
        let (number, len) = (awaited.start, self.mirror.len());
        let consumed = bytes.len().min(len - *reader);
        let expected = &self.mirror.payload(connection, number)[*reader..*reader + consumed];
        let found = &bytes[..consumed];
        if found != expected {
            return Err(Wrong(describe_difference(*reader as u64, found, expected)));
        }
        *reader += consumed;
        if *reader < len {
            return Ok(Step::More);
        }
        *reader = 0;
        Ok(Step::Reply { number, consumed, last: false })
    }

    fn verification(&self) -> String {
        "every byte, against the message that was sent".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `piece` bytes; returns the number of complete replies.
    fn feed(echo: &mut Echo, bytes: &[u8], piece: usize) -> Result<u64, Wrong> {
        let (mut reader, mut number) = (echo.reader(), 0);
        for mut piece in bytes.chunks(piece) {
            while !piece.is_empty() {
                match echo.incoming(1, &mut reader, number..number + 1, piece)? {
                    Step::More => break,
                    Step::Reply { consumed, .. } => {
                        number += 1;
                        piece = &piece[consumed..];
                    }
                }
            }
        }
        Ok(number)
    }

    #[test]
    fn right_in_whatever_pieces() {
        let mut echo = Echo::new(300, 3);
        let sent = echo.outgoing(1, 0, 3, 0).to_vec();
        for piece in 1..=sent.len() {
            assert_eq!(feed(&mut echo, &sent, piece), Ok(3), "pieces of {piece}");
        }
    }

    #[test]
    fn one_wrong_byte_is_caught_wherever_it_is() {
        let mut echo = Echo::new(300, 1);
        let sent = echo.outgoing(1, 0, 1, 0).to_vec();
        for at in 0..sent.len() {
            let mut wrong = sent.clone();
            wrong[at] ^= 1;
            let Err(Wrong(text)) = feed(&mut echo, &wrong, 64) else { panic!("byte {at} passed") };
            assert!(text.contains(&format!("byte {at} of")), "{text}");
        }
    }

    #[test]
    fn an_earlier_message_is_not_taken_for_this_one() {
        let mut echo = Echo::new(64, 1);
        let stale = echo.outgoing(1, 0, 1, 0).to_vec();
        assert!(echo.incoming(1, &mut 0, 1..2, &stale).is_err());
        assert!(echo.incoming(2, &mut 0, 0..1, &stale).is_err());
    }
}
