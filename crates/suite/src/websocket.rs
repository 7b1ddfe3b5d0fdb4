//! A WebSocket as a client sees it (RFC 6455): the opening handshake, and one frame at a time, held
//! to the RFC by `witness`.

use std::io::Write;
use std::net::TcpStream;

use witness::websocket::{ACCEPT, Frame, Opcode, client_frame};

use crate::{Client, Server};

/// Largest frame of a server that is read: far above any limit of theirs.
const FRAME_BYTES_MAX: u64 = 1 << 32;

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    client: Client,
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
        witness::websocket::opening("suite", path)
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
        let frame = Frame::read(&mut self.client, FRAME_BYTES_MAX);
        frame.unwrap_or_else(|why| panic!("{why}"))
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
        assert_eq!((frame.opcode, frame.close_code()), (Opcode::Close, Some(code)), "{frame:?}");
        let answer = client_frame(Opcode::Close, &code.to_be_bytes());
        // A server that has closed its side already need not take it.
        let _ = self.client.stream().write_all(&answer);
        assert!(self.client.read_until_cut().is_empty(), "bytes behind the close frame");
    }
}
