//! Frames of a client into messages (RFC 6455 sections 5 and 6).
//!
//! tungstenite knows what a frame's head looks like. Its own reader above that is not used, because
//! it keeps a buffer for as long as the WebSocket lasts (an idle one is to own none), waits for the
//! whole frame before it looks at the text (section 8.1 lets a peer be told at once), and reserves
//! what a head announces before anything of it has come.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::Fault;

/// Longest payload of a control frame (section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// The same with its head: two bytes and the mask. No part of a frame longer than this is left in
/// the input.
pub(super) const CONTROL_FRAME_BYTES_MAX: usize = 2 + 4 + CONTROL_BYTES_MAX as usize;

/// Takes frames apart. Owns memory only while a message is under way.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The frame whose payload is arriving; some of it is still to come.
    frame: Option<Arriving>,
    /// Of a message that has begun: whether it is text.
    message: Option<bool>,
    /// What there is of that message, unmasked.
    buffer: Vec<u8>,
    /// How much of it is known to be UTF-8, if it is text.
    valid: usize,
}

/// A data frame that has not arrived whole.
#[derive(Debug)]
struct Arriving {
    last: bool,
    /// Turned so that its first byte is for the next byte of payload.
    mask: [u8; 4],
    left: usize,
}

/// What the peer said.
#[derive(Debug)]
pub(super) enum Event<'a> {
    Message {
        text: bool,
        payload: Payload<'a>,
    },
    Ping(Masked<'a>),
    Pong,
    /// With its code, if it had one.
    Close(Option<CloseCode>),
}

/// A message's content.
#[derive(Debug)]
pub(super) enum Payload<'a> {
    /// One frame that arrived whole, as most do; text is not checked yet.
    Whole(Masked<'a>),
    /// Put together from pieces; text is checked.
    Assembled(Vec<u8>),
}

/// Payload as it came.
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

    /// Appends what was meant.
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.bytes);
        unmask(&mut out[start..], self.mask);
    }
}

impl Reader {
    /// Bytes of memory that the message under way takes.
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Takes one frame, or what there is of it, from the front of `input`. Returns how much was
    /// taken, and what has become whole by it; `(0, None)`: more bytes are needed.
    pub(super) fn next<'a>(
        &mut self,
        input: &'a [u8],
        message_bytes_max: usize,
    ) -> Result<(usize, Option<Event<'a>>), Fault> {
        if self.frame.is_some() {
            return self.take_payload(input);
        }
        let mut cursor = Cursor::new(input);
        let unknown = |_| Fault::Frame("no such opcode");
        let Some((head, len)) = FrameHeader::parse(&mut cursor).map_err(unknown)? else {
            return Ok((0, None));
        };
        let rest = &input[cursor.position() as usize..];
        let head_len = input.len() - rest.len();
        if head.rsv1 || head.rsv2 || head.rsv3 {
            return Err(Fault::Frame("a reserved bit is set"));
        }
        let Some(mask) = head.mask else {
            return Err(Fault::Frame("a client's frame must be masked"));
        };
        // "The minimal number of bytes MUST be used" (section 5.2).
        if head.len(len) != head_len {
            return Err(Fault::Frame("the length is not in its shortest form"));
        }
        if len >> 63 != 0 {
            return Err(Fault::Frame("the highest bit of the length is set"));
        }
        let data = match head.opcode {
            OpCode::Control(_) if !head.is_final => {
                return Err(Fault::Frame("a control frame must not be fragmented"));
            }
            OpCode::Control(_) if len > CONTROL_BYTES_MAX => {
                return Err(Fault::Frame("a control frame is too long"));
            }
            OpCode::Control(control) => {
                // Short enough to wait for the whole of it.
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
            (Data::Continue, None) => return Err(Fault::Frame("there is nothing to continue")),
            _ => return Err(Fault::Frame("the message before this one is not finished")),
        };
        let room = message_bytes_max.saturating_sub(self.buffer.len());
        let len = usize::try_from(len).ok().filter(|&len| len <= room).ok_or(Fault::TooLarge)?;
        if let (true, None, Some(bytes)) = (head.is_final, begun, rest.get(..len)) {
            let payload = Payload::Whole(Masked { bytes, mask });
            return Ok((head_len + len, Some(Event::Message { text, payload })));
        }
        self.message = Some(text);
        self.frame = Some(Arriving { last: head.is_final, mask, left: len });
        let (taken, event) = self.take_payload(rest)?;
        Ok((head_len + taken, event))
    }

    /// Takes what `input` has of the frame that is arriving.
    fn take_payload<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Option<Event<'a>>), Fault> {
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
        Ok((piece.len(), Some(Event::Message { text, payload })))
    }

    /// Text is checked as it comes: who sends what cannot become UTF-8 is told at once.
    fn check_text(&mut self, complete: bool) -> Result<(), Fault> {
        match std::str::from_utf8(&self.buffer[self.valid..]) {
            Ok(text) => self.valid += text.len(),
            // The last character may be cut, as long as more can come.
            Err(error) if error.error_len().is_none() && !complete => {
                self.valid += error.valid_up_to();
            }
            Err(_) => return Err(Fault::Text),
        }
        Ok(())
    }
}

fn event<'a>(control: Control, payload: Masked<'a>) -> Result<Event<'a>, Fault> {
    match control {
        Control::Ping => Ok(Event::Ping(payload)),
        Control::Pong => Ok(Event::Pong),
        Control::Close => close_code(payload).map(Event::Close),
        // tungstenite has refused it already.
        Control::Reserved(_) => Err(Fault::Frame("no such opcode")),
    }
}

/// The code in a Close frame's payload (sections 5.5.1 and 7.4).
fn close_code(payload: Masked) -> Result<Option<CloseCode>, Fault> {
    let mut bytes = Vec::new();
    payload.append_to(&mut bytes);
    match *bytes {
        [] => Ok(None),
        [_] => Err(Fault::Frame("half a close code")),
        [high, low, ref reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([high, low]));
            // 1014 (Bad Gateway) was registered later, and the library does not know it.
            if !(code.is_allowed() || u16::from(code) == 1014) {
                return Err(Fault::Frame("no such close code"));
            }
            std::str::from_utf8(reason).map(|_| Some(code)).map_err(|_| Fault::Text)
        }
    }
}

/// Takes the mask away, in place (section 5.3); the same puts it on.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let word = u32::from_ne_bytes(mask);
    // Whole words first: the compiler makes vectors of them.
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for chunk in words {
        *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}
