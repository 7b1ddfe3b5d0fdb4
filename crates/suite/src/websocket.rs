//! A WebSocket as a client sees it (RFC 6455): the opening handshake, and one frame at a time, as
//! strict about the server as the RFC is.

use std::io::Write;
use std::net::TcpStream;

use crate::{Client, Server};

/// The key of the example in RFC 6455 section 1.3, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Any will do: it protects careless proxies, and there is none here (RFC 6455 section 10.3).
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a frame is (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The rest of a message.
    Continuation = 0x0,
    /// UTF-8.
    Text = 0x1,
    /// Any bytes.
    Binary = 0x2,
    /// The end, perhaps with a code and a reason.
    Close = 0x8,
    /// To be answered with the same bytes.
    Ping = 0x9,
    /// The answer.
    Pong = 0xa,
}

/// One frame of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The last one of its message.
    pub is_final: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Not masked: a server never does.
    pub payload: Vec<u8>,
}

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    client: Client,
}

/// The bytes of one final frame of a client: masked.
pub fn client_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode as u8];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

impl WebSocket {
    /// Opens a WebSocket on a new connection.
    ///
    /// # Panics
    /// When the server does not switch protocols as it should.
    #[track_caller]
    pub fn open(server: &Server, path: &str) -> WebSocket {
        let mut websocket = WebSocket::ask(server, path);
        websocket.expect_opened();
        websocket
    }

    /// Sends the opening handshake and does not wait for its answer.
    ///
    /// # Panics
    /// When there is nobody.
    #[track_caller]
    pub fn ask(server: &Server, path: &str) -> WebSocket {
        let mut client = server.connect();
        client.send(&WebSocket::opening(path));
        WebSocket { client }
    }

    /// The opening handshake of a client (RFC 6455 section 4.1).
    pub fn opening(path: &str) -> Vec<u8> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: suite\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        request.into_bytes()
    }

    /// Reads the answer to the opening handshake (RFC 6455 section 4.1).
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub fn expect_opened(&mut self) {
        let head = self.client.head();
        assert_eq!(head.status, 101, "{head:?}");
        let upgrade = head.field("upgrade").unwrap_or_default();
        assert!(upgrade.eq_ignore_ascii_case("websocket"), "{head:?}");
        let connection = head.field("connection").unwrap_or_default();
        assert!(connection.eq_ignore_ascii_case("upgrade"), "{head:?}");
        assert_eq!(head.field("sec-websocket-accept"), Some(ACCEPT));
        assert_eq!(head.field("sec-websocket-extensions"), None, "none was offered");
        assert_eq!(head.field("sec-websocket-protocol"), None, "none was offered");
    }

    /// The connection below.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// A second handle on the socket, for a thread that writes while this one reads.
    ///
    /// # Panics
    /// Without a descriptor for it.
    #[track_caller]
    pub fn second_handle(&self) -> TcpStream {
        self.client.second_handle()
    }

    /// Sends a message.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.client.send(&client_frame(opcode, payload));
    }

    /// Sends a text.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn say(&mut self, text: &str) {
        self.send(Opcode::Text, text.as_bytes());
    }

    /// The next frame.
    ///
    /// # Panics
    /// When it does not come whole and well-formed (RFC 6455 section 5.2).
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        let head = self.client.read_exact(2);
        let opcode = match head[0] & 0xf {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            other => panic!("opcode {other:#x} is reserved"),
        };
        let is_final = head[0] & 0x80 != 0;
        assert_eq!(head[0] & 0x70, 0, "a reserved bit without an extension");
        assert_eq!(head[1] & 0x80, 0, "a server's frame is masked");
        let len = match head[1] {
            126 => {
                let bytes = self.client.read_exact(2).try_into().expect("two bytes");
                let len = u16::from_be_bytes(bytes);
                assert!(len > 125, "{len} in the long form");
                usize::from(len)
            }
            127 => {
                let bytes = self.client.read_exact(8).try_into().expect("eight bytes");
                let len = u64::from_be_bytes(bytes);
                assert!((0x1_0000..1 << 32).contains(&len), "{len} in the longest form");
                len as usize
            }
            len => usize::from(len),
        };
        if opcode as u8 >= 0x8 {
            assert!(is_final && len <= 125, "control frame: {head:?}");
        }
        Frame { is_final, opcode, payload: self.client.read_exact(len) }
    }

    /// The next frame that is no Ping. A server may send one at any time (RFC 6455 section 5.5.2);
    /// those of this project ask a client that has said nothing for long: on a busy machine every
    /// case is one. It is answered, unless the server takes no more.
    ///
    /// # Panics
    /// As [`WebSocket::frame`].
    #[track_caller]
    pub fn frame_behind_pings(&mut self) -> Frame {
        loop {
            let frame = self.frame();
            if frame.opcode != Opcode::Ping {
                return frame;
            }
            let pong = client_frame(Opcode::Pong, &frame.payload);
            // It may have closed meanwhile.
            let _ = self.client.stream().write_all(&pong);
        }
    }

    /// The next message that stands in one frame.
    ///
    /// # Panics
    /// When something else comes.
    #[track_caller]
    pub fn message(&mut self) -> (Opcode, Vec<u8>) {
        let frame = self.frame_behind_pings();
        let is_data = matches!(frame.opcode, Opcode::Text | Opcode::Binary);
        assert!(is_data && frame.is_final, "wanted a message in one frame, got {frame:?}");
        (frame.opcode, frame.payload)
    }

    /// The next message, a text.
    ///
    /// # Panics
    /// When something else comes.
    #[track_caller]
    pub fn text(&mut self) -> String {
        let (opcode, payload) = self.message();
        assert_eq!(opcode, Opcode::Text);
        String::from_utf8(payload).expect("a text is UTF-8")
    }

    /// The server answers a ping: everything that was said before it has been taken in, and
    /// nothing came back for it.
    ///
    /// # Panics
    /// When something else comes.
    #[track_caller]
    pub fn expect_pong(&mut self) {
        self.send(Opcode::Ping, b"there?");
        let frame = self.frame_behind_pings();
        assert_eq!((frame.opcode, frame.payload.as_slice()), (Opcode::Pong, b"there?".as_slice()));
    }

    /// The server begins the closing handshake (RFC 6455 section 7.1.2) with this code: it is
    /// answered, and the server then ends the connection.
    ///
    /// # Panics
    /// When something else comes.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        let frame = self.frame();
        assert_eq!((frame.opcode, close_code(&frame)), (Opcode::Close, Some(code)), "{frame:?}");
        let answer = client_frame(Opcode::Close, &code.to_be_bytes());
        // A server that has closed its side already need not take it.
        let _ = self.client.stream().write_all(&answer);
        assert!(self.client.read_until_cut().is_empty(), "bytes behind the close frame");
    }
}

/// The code of a close frame, if it has one (RFC 6455 section 5.5.1).
pub fn close_code(frame: &Frame) -> Option<u16> {
    let code = frame.payload.first_chunk()?;
    (frame.opcode == Opcode::Close).then(|| u16::from_be_bytes(*code))
}
