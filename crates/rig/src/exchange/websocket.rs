//! One message at a time over a WebSocket (RFC 6455).

use std::io::{Read, Write};

/// The key of RFC 6455 section 1.3 and the accept value that follows from it. A fixed key finds a
/// wrong server too, and it is no secret.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The mask of all frames. Random masks protect against proxies (section 10.3), of which there are
/// none.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Largest head of the reply to the upgrade, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Limit of a message: that of the servers.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Upgrades a connection.
///
/// # Errors
/// One sentence: what was received instead.
pub fn open(stream: &mut (impl Read + Write), authority: &str, path: &str) -> Result<(), String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    send(stream, request.as_bytes())?;
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
    frame(BINARY, message)
}

/// Receives one complete message, which may be fragmented. Answers pings.
///
/// # Errors
/// One sentence: what was received instead.
pub fn receive(stream: &mut (impl Read + Write)) -> Result<Vec<u8>, String> {
    let mut message = Vec::new();
    loop {
        let [first, second] = read_bytes(stream)?;
        if second & MASKED != 0 {
            return Err("the server masked a frame (RFC 6455, section 5.1)".into());
        }
        let length = match second {
            126 => u64::from(u16::from_be_bytes(read_bytes(stream)?)),
            127 => u64::from_be_bytes(read_bytes(stream)?),
            length => u64::from(length),
        };
        if message.len() as u64 + length > MESSAGE_BYTES_MAX {
            return Err(format!("a message of more than {MESSAGE_BYTES_MAX} bytes"));
        }
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).map_err(|e| cut(&e))?;
        match first & 0x0f {
            CLOSE => return Err(format!("the server closed: {}", close_code(&payload))),
            PING => send(stream, &frame(PONG, &payload))?,
            PONG => {}
            CONTINUATION..=BINARY => {
                message.extend_from_slice(&payload);
                if first & FIN != 0 {
                    return Ok(message);
                }
            }
            other => return Err(format!("a frame of the unknown kind {other}")),
        }
    }
}

fn close_code(payload: &[u8]) -> String {
    match payload {
        [a, b, reason @ ..] => {
            let reason = String::from_utf8_lossy(reason);
            format!("{} {reason}", u16::from_be_bytes([*a, *b])).trim_end().to_owned()
        }
        _ => "without a reason".into(),
    }
}

/// A masked frame, as clients send them (section 5.2).
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![FIN | kind];
    match payload.len() {
        length @ 0..=125 => frame.push(MASKED | length as u8),
        length @ 126..=0xffff => {
            frame.push(MASKED | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(MASKED | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn send(stream: &mut impl Write, bytes: &[u8]) -> Result<(), String> {
    let sent = stream.write_all(bytes).and_then(|()| stream.flush());
    sent.map_err(|e| format!("cannot send: {}", super::why(&e)))
}

fn cut(error: &std::io::Error) -> String {
    format!("no complete message: {}", super::why(error))
}

fn read_bytes<const N: usize>(stream: &mut impl Read) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map_err(|e| cut(&e))?;
    Ok(bytes)
}

/// Up to the empty line and not a byte further: what follows are frames.
fn read_head(stream: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX {
            return Err(format!("a head of more than {HEAD_BYTES_MAX} bytes"));
        }
        let [byte] =
            read_bytes(stream).map_err(|why| format!("the upgrade was not answered: {why}"))?;
        head.push(byte);
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A stream with fixed input; it records the output.
    struct Canned(Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Canned {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Canned {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn server(says: &[u8]) -> Canned {
        Canned(Cursor::new(says.to_vec()), Vec::new())
    }

    #[test]
    fn an_upgrade_needs_its_status_and_its_key() {
        let answered = |reply: String| open(&mut server(reply.as_bytes()), "x", "/ws/echo");
        let good = format!("HTTP/1.1 101 Go\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n");
        assert_eq!(answered(good.clone()), Ok(()));
        assert!(answered(good.replace("101", "426")).unwrap_err().contains("status 426"));
        assert!(answered(good.replace("s3p", "s3q")).unwrap_err().contains("Accept"));
        assert!(answered("HTTP/1.1 101 Go\r\n".into()).unwrap_err().contains("not answered"));
    }

    /// The example of RFC 6455 section 5.7: "Hello", masked with this very mask.
    #[test]
    fn frames_are_those_of_the_standard() {
        let masked = [0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(frame(1, b"Hello"), [&[0x81, 0x85], &masked[..]].concat());
        assert_eq!(frame(BINARY, &[0; 126])[..4], [0x82, 0x80 | 126, 0, 126]);
        assert_eq!(frame(BINARY, &[0; 65_536])[..10], [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn fragments_are_put_together_and_pings_answered() {
        let mut one = server(&[2, 1, b'a', FIN | PING, 1, b'!', FIN, 1, b'b']);
        assert_eq!(receive(&mut one), Ok(b"ab".to_vec()));
        assert_eq!(one.1, frame(PONG, b"!"));
        let long = [&[FIN | BINARY, 126, 1, 0][..], &[7; 256]].concat();
        assert_eq!(receive(&mut server(&long)), Ok(vec![7; 256]));
        let told = |says: &[u8]| receive(&mut server(says)).unwrap_err();
        assert!(told(&[FIN | CLOSE, 2, 3, 245]).contains("1013"));
        assert!(told(&[FIN | BINARY, MASKED]).contains("masked"));
        assert!(told(&[FIN | BINARY, 3, 1]).contains("no complete message"));
        assert!(told(&[FIN | BINARY, 127, 0, 0, 0, 9, 0, 0, 0, 0]).contains("more than"));
    }
}
