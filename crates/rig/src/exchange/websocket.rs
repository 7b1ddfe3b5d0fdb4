//! One message at a time over a WebSocket (RFC 6455).

use std::io::{Read, Write};

use witness::websocket::{ACCEPT, Frame, Opcode, client_frame, opening};

/// Largest head of the reply to the upgrade, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Limit of a message: that of the servers.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Upgrades a connection.
///
/// # Errors
/// One sentence: what was received instead.
pub fn open(stream: &mut (impl Read + Write), authority: &str, path: &str) -> Result<(), String> {
    send(stream, &opening(authority, path))?;
    let head = read_head(stream)?;
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut reply = httparse::Response::new(&mut fields);
    reply.parse(&head).map_err(|e| format!("malformed reply to the upgrade: {e}"))?;
    if reply.code != Some(101) {
        return Err(format!("the upgrade was answered with status {}", reply.code.unwrap_or(0)));
    }
    let accept = |field: &&httparse::Header| {
        field.name.eq_ignore_ascii_case("sec-websocket-accept") && field.value == ACCEPT.as_bytes()
    };
    match reply.headers.iter().any(|field| accept(&field)) {
        true => Ok(()),
        false => Err("the upgrade was accepted without the right Sec-WebSocket-Accept".into()),
    }
}

/// Sends one binary message in one frame.
///
/// # Errors
/// One sentence.
pub fn send_message(stream: &mut impl Write, message: &[u8]) -> Result<(), String> {
    send(stream, &message_frame(message))
}

/// The one frame of a binary message.
pub fn message_frame(message: &[u8]) -> Vec<u8> {
    client_frame(Opcode::Binary, message)
}

/// Receives one complete message, which may be fragmented. Answers pings.
///
/// # Errors
/// One sentence: what was received instead.
pub fn receive(stream: &mut (impl Read + Write)) -> Result<Vec<u8>, String> {
    let mut message = Vec::new();
    loop {
        let room = MESSAGE_BYTES_MAX - message.len() as u64;
        let frame =
            Frame::read(stream, room).map_err(|why| format!("no complete message: {why}"))?;
        match frame.opcode {
            Opcode::Close => {
                let code = frame.close_code().map_or("no code".to_owned(), |code| code.to_string());
                let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default());
                return Err(format!("the server closed: {code} {reason}").trim_end().to_owned());
            }
            Opcode::Ping => send(stream, &client_frame(Opcode::Pong, &frame.payload))?,
            Opcode::Pong => {}
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                message.extend_from_slice(&frame.payload);
                if frame.is_final {
                    return Ok(message);
                }
            }
        }
    }
}

fn send(stream: &mut impl Write, bytes: &[u8]) -> Result<(), String> {
    let sent = stream.write_all(bytes).and_then(|()| stream.flush());
    sent.map_err(|e| format!("cannot send: {}", super::why(&e)))
}

/// Up to the empty line and not a byte further: what follows are frames.
fn read_head(stream: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX {
            return Err(format!("a head of more than {HEAD_BYTES_MAX} bytes"));
        }
        let mut byte = [0];
        stream
            .read_exact(&mut byte)
            .map_err(|error| format!("the upgrade was not answered: {}", super::why(&error)))?;
        head.extend(byte);
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::super::canned::Canned;
    use super::*;

    #[test]
    fn an_upgrade_needs_its_status_and_its_key() {
        let answered = |reply: String| open(&mut Canned::new(reply.as_bytes()), "x", "/ws/echo");
        let good = format!("HTTP/1.1 101 Go\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n");
        assert_eq!(answered(good.clone()), Ok(()));
        assert!(answered(good.replace("101", "426")).unwrap_err().contains("status 426"));
        assert!(answered(good.replace("s3p", "s3q")).unwrap_err().contains("Accept"));
        assert!(answered("HTTP/1.1 101 Go\r\n".into()).unwrap_err().contains("not answered"));
    }

    #[test]
    fn fragments_are_put_together_and_pings_answered() {
        let mut one = Canned::new(&[2, 1, b'a', 0x89, 1, b'!', 0x80, 1, b'b']);
        assert_eq!(receive(&mut one), Ok(b"ab".to_vec()));
        assert_eq!(one.told, client_frame(Opcode::Pong, b"!"));
        let told = |says: &[u8]| receive(&mut Canned::new(says)).unwrap_err();
        assert!(told(&[0x88, 2, 3, 245]).contains("1013"));
        assert!(told(&[0x82, 3, 1]).contains("no complete message"));
        let half = [&[0x02, 127, 0, 0, 0, 0, 0, 0x0f, 0xff, 0xff][..], &[0; 0xf_ffff]].concat();
        assert!(told(&[&half[..], &[0x80, 2]].concat()).contains("more than 1"));
    }
}
