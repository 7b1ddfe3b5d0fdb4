//! Reads messages from a client's frames (RFC 6455 sections 5 and 6).
//!
//! tungstenite parses the frame heads. Its own reader is not used: it keeps a buffer as long as the
//! WebSocket is open, it checks text only when a frame is complete (section 8.1 allows to refuse it
//! at once), and it reserves the announced length before any payload has come.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::Violation;

/// Longest payload of a control frame (section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// The same with its head: two bytes and the mask. Only a control frame waits in the input until it
/// is complete.
pub(super) const CONTROL_FRAME_BYTES_MAX: usize = 2 + 4 + CONTROL_BYTES_MAX as usize;

/// Owns memory only while a message is incomplete.
#[derive(Debug, Default)]
pub(super) struct Reader {
    frame: Option<PartialFrame>,
    message: Option<bool>,
    buffer: Vec<u8>,
    /// How many bytes of `buffer` were checked to be UTF-8, if it is text.
    valid: usize,
}

#[derive(Debug)]
struct PartialFrame {
    last: bool,
    /// Rotated, so that its first byte belongs to the next byte of payload.
    mask: [u8; 4],
    left: usize,
}

#[derive(Debug)]
pub(super) enum Received<'a> {
    Message { text: bool, payload: Payload<'a> },
    Ping(Masked<'a>),
    Pong,
    Close(Option<CloseCode>),
}

#[derive(Debug)]
pub(super) enum Payload<'a> {
    /// One frame that arrived whole, as most do. Text is not checked yet.
    Whole(Masked<'a>),
    /// Collected from parts. Text is checked.
    Assembled(Vec<u8>),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Masked<'a> {
    bytes: &'a [u8],
    mask: [u8; 4],
}

impl Payload<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Payload::Whole(masked) => masked.len(),
            Payload::Assembled(bytes) => bytes.len(),
        }
    }
}

impl Masked<'_> {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.bytes);
        unmask(&mut out[start..], self.mask);
    }
}

impl Reader {
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Takes one frame, or the part of it that has arrived, from the front of `input`. Returns the
    /// number of bytes taken and what is complete now; `(0, None)`: more bytes are needed.
    pub(super) fn next<'a>(
        &mut self,
        input: &'a [u8],
        message_bytes_max: usize,
    ) -> Result<(usize, Option<Received<'a>>), Violation> {
        if self.frame.is_some() {
            return self.take_payload(input);
        }
        let mut cursor = Cursor::new(input);
        let unknown = |_| Violation::Frame("no such opcode");
        let Some((head, len)) = FrameHeader::parse(&mut cursor).map_err(unknown)? else {
            return Ok((0, None));
        };
        let rest = &input[cursor.position() as usize..];
        let head_len = input.len() - rest.len();
        if head.rsv1 || head.rsv2 || head.rsv3 {
            return Err(Violation::Frame("a reserved bit is set"));
        }
        let Some(mask) = head.mask else {
            return Err(Violation::Frame("a client's frame must be masked"));
        };
        // "The minimal number of bytes MUST be used" (section 5.2).
        if head.len(len) != head_len {
            return Err(Violation::Frame("the length is not in its shortest form"));
        }
        if len >> 63 != 0 {
            return Err(Violation::Frame("the highest bit of the length is set"));
        }
        let data = match head.opcode {
            OpCode::Control(_) if !head.is_final => {
                return Err(Violation::Frame("a control frame must not be fragmented"));
            }
            OpCode::Control(_) if len > CONTROL_BYTES_MAX => {
                return Err(Violation::Frame("a control frame is too long"));
            }
            OpCode::Control(control) => {
                // A control frame is short, so it waits in the input until it is complete.
                let Some(bytes) = rest.get(..len as usize) else { return Ok((0, None)) };
                let event = event(control, Masked { bytes, mask })?;
                return Ok((head_len + bytes.len(), Some(event)));
            }
            OpCode::Data(data) => data,
        };
        let begun = self.message;
        let text = match (data, begun) {
            (Data::Continue, Some(text)) => text,
            (Data::Text, None) => true,
            (Data::Binary, None) => false,
            (Data::Continue, None) => return Err(Violation::Frame("there is nothing to continue")),
            _ => return Err(Violation::Frame("the message before this one is not finished")),
        };
        let room = message_bytes_max.saturating_sub(self.buffer.len());
        let len =
            usize::try_from(len).ok().filter(|&len| len <= room).ok_or(Violation::TooLarge)?;
        if let (true, None, Some(bytes)) = (head.is_final, begun, rest.get(..len)) {
            let payload = Payload::Whole(Masked { bytes, mask });
            return Ok((head_len + len, Some(Received::Message { text, payload })));
        }
        self.message = Some(text);
        self.frame = Some(PartialFrame { last: head.is_final, mask, left: len });
        let (taken, event) = self.take_payload(rest)?;
        Ok((head_len + taken, event))
    }

    fn take_payload<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<(usize, Option<Received<'a>>), Violation> {
        let (Some(frame), Some(text)) = (&mut self.frame, self.message) else {
            return Ok((0, None));
        };
        let piece = &input[..input.len().min(frame.left)];
        Masked { bytes: piece, mask: frame.mask }.append_to(&mut self.buffer);
        frame.mask.rotate_left(piece.len() % 4);
        frame.left -= piece.len();
        let (frame_ends, last) = (frame.left == 0, frame.last);
        if text {
            self.check_text(frame_ends && last)?;
        }
        if !frame_ends {
            return Ok((piece.len(), None));
        }
        self.frame = None;
        if !last {
            return Ok((piece.len(), None));
        }
        let payload = Payload::Assembled(std::mem::take(&mut self.buffer));
        *self = Reader::default();
        Ok((piece.len(), Some(Received::Message { text, payload })))
    }

    /// Checks text as it arrives, so that invalid text is refused at once.
    fn check_text(&mut self, complete: bool) -> Result<(), Violation> {
        match std::str::from_utf8(&self.buffer[self.valid..]) {
            Ok(text) => self.valid += text.len(),
            // The last character may be incomplete if more bytes can come.
            Err(error) if error.error_len().is_none() && !complete => {
                self.valid += error.valid_up_to();
            }
            Err(_) => return Err(Violation::Text),
        }
        Ok(())
    }
}

fn event<'a>(control: Control, payload: Masked<'a>) -> Result<Received<'a>, Violation> {
    match control {
        Control::Ping => Ok(Received::Ping(payload)),
        Control::Pong => Ok(Received::Pong),
        Control::Close => close_code(payload).map(Received::Close),
        Control::Reserved(_) => Err(Violation::Frame("no such opcode")),
    }
}

/// The code in a Close frame's payload (sections 5.5.1 and 7.4).
fn close_code(payload: Masked) -> Result<Option<CloseCode>, Violation> {
    let mut bytes = Vec::new();
    payload.append_to(&mut bytes);
    match *bytes {
        [] => Ok(None),
        [_] => Err(Violation::Frame("half a close code")),
        [high, low, ref reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([high, low]));
            // 1014 (Bad Gateway) was registered later; the library does not know it.
            if !(code.is_allowed() || u16::from(code) == 1014) {
                return Err(Violation::Frame("no such close code"));
            }
            std::str::from_utf8(reason).map(|_| Some(code)).map_err(|_| Violation::Text)
        }
    }
}

/// Removes the mask in place (section 5.3). The same operation adds it.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let word = u32::from_ne_bytes(mask);
    // Whole words first: the compiler vectorises them.
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for chunk in words {
        *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}
