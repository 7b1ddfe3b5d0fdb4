//! Frames of a server (RFC 6455 section 5.2). They are not masked, so one frame can be sent to many
//! peers.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::Violation;
use super::reader::Payload;

pub(super) fn data(text: bool) -> OpCode {
    OpCode::Data(if text { Data::Text } else { Data::Binary })
}

pub(super) fn put_head(out: &mut Vec<u8>, opcode: OpCode, len: usize) {
    let head = FrameHeader { opcode, ..FrameHeader::default() };
    let written = head.format(len as u64, out);
    debug_assert!(written.is_ok(), "a Vec takes whatever is written to it");
}

/// Appends a Close frame. `reason` is for logs (section 5.5.1).
pub(super) fn put_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    put_head(out, OpCode::Control(Control::Close), size_of::<u16>() + reason.len());
    out.extend_from_slice(&u16::from(code).to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Appends a message as one frame. If it is text and not UTF-8, `out` stays as it was.
pub(super) fn put_message(
    out: &mut Vec<u8>,
    text: bool,
    payload: Payload,
) -> Result<(), Violation> {
    let start = out.len();
    out.reserve(FRAME_HEAD_BYTES_MAX + payload.len());
    put_head(out, data(text), payload.len());
    let body = out.len();
    match payload {
        Payload::Whole(masked) => masked.append_to(out),
        // Its text was checked as it arrived.
        Payload::Assembled(bytes) => {
            out.extend_from_slice(&bytes);
            return Ok(());
        }
    }
    if text && std::str::from_utf8(&out[body..]).is_err() {
        out.truncate(start);
        return Err(Violation::Text);
    }
    Ok(())
}

/// Checks a message that is not sent anywhere.
pub(super) fn check(text: bool, payload: Payload) -> Result<(), Violation> {
    match payload {
        Payload::Whole(_) if text => put_message(&mut Vec::new(), text, payload),
        Payload::Whole(_) | Payload::Assembled(_) => Ok(()),
    }
}

/// Two bytes, and a length of eight.
const FRAME_HEAD_BYTES_MAX: usize = 10;
