//! WebSocket (RFC 6455) as every client of every model sees it: who is let in, what comes back, and
//! how it ends.

use std::io::Write;

use suite::{Client, Frame, Head, Opcode, Server, Variant, WebSocket, client_frame, pattern};

const ECHO: &str = "/ws/echo";
/// The key of RFC 6455 section 1.3, and the answer to it.
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const WANTED: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

/// A request from whole lines, each with its CRLF.
fn ask(first: &str, lines: &[&str]) -> Vec<u8> {
    format!("{first}\r\nHost: suite\r\n{}\r\n", lines.concat()).into_bytes()
}

/// The answer to one request on a connection of its own, which ends there.
#[track_caller]
fn answer(server: &Server, request: &[u8]) -> Head {
    let mut client = server.connect();
    client.send(request);
    client.head()
}

/// The next message, whatever frames it comes in.
#[track_caller]
fn whole(websocket: &mut WebSocket) -> (Opcode, Vec<u8>) {
    let Frame { mut is_final, opcode, mut payload } = websocket.frame();
    while !is_final {
        let next = websocket.frame();
        assert_eq!(next.opcode, Opcode::Continuation);
        payload.extend(next.payload);
        is_final = next.is_final;
    }
    (opcode, payload)
}

/// A masked frame of a client, its first octet as it likes.
fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = client_frame(Opcode::Binary, payload);
    frame[0] = first;
    frame
}

pub fn upgrade_is_answered(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let first = format!("GET {ECHO} HTTP/1.1");
    for lines in [
        [WANTED, VERSION, KEY].as_slice(),
        &["upgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\n", VERSION, KEY],
        &["Upgrade: h2c, websocket\r\nConnection: Upgrade\r\n", KEY, VERSION],
        &[WANTED, VERSION, KEY, "Sec-WebSocket-Extensions: permessage-deflate\r\n"],
        &[WANTED, VERSION, KEY, "Sec-WebSocket-Protocol: chat, superchat\r\n"],
    ] {
        let head = answer(&server, &ask(&first, lines));
        assert_eq!(head.status, 101, "{lines:?}: {head:?}");
        assert_eq!(head.field("sec-websocket-accept"), Some(ACCEPT), "{lines:?}");
        // Nothing that was offered is known here, so nothing is accepted.
        assert_eq!(head.field("sec-websocket-extensions"), None, "{lines:?}");
        assert_eq!(head.field("sec-websocket-protocol"), None, "{lines:?}");
        assert_eq!((head.field("content-length"), head.field("transfer-encoding")), (None, None));
    }
    // An upgrade may follow other requests on a connection.
    let mut client = server.connect();
    client.send(&[suite::get("/"), ask(&first, &[WANTED, VERSION, KEY])].concat());
    assert_eq!(client.reply().status, 200);
    assert_eq!(client.head().status, 101);
    drop(client);
    server.serves();
    server.stop();
}

pub fn upgrade_is_refused(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let get = "GET /ws/echo HTTP/1.1";
    let right = [WANTED, VERSION, KEY];
    let cases: [(u16, &str, &[&str]); 13] = [
        (426, get, &[]),
        (426, "GET /ws/chat HTTP/1.1", &["Connection: Upgrade\r\n", VERSION, KEY]),
        (426, get, &["Upgrade: websocket\r\n", VERSION, KEY]),
        (426, get, &["Upgrade: h2c\r\nConnection: Upgrade\r\n", VERSION, KEY]),
        (426, get, &[WANTED, "Sec-WebSocket-Version: 8\r\n", KEY]),
        (426, get, &[WANTED, KEY]),
        (426, "GET /ws/echo HTTP/1.0", &right),
        (400, get, &[WANTED, VERSION]),
        (400, get, &[WANTED, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n"]),
        (400, get, &[WANTED, VERSION, KEY, KEY]),
        (400, "GET /ws/clock/0 HTTP/1.1", &right),
        (404, "GET /ws/nowhere HTTP/1.1", &right),
        (405, "POST /ws/echo HTTP/1.1", &[WANTED, VERSION, KEY, "Content-Length: 0\r\n"]),
    ];
    for (status, first, lines) in cases {
        let mut client = server.connect();
        client.send(&ask(first, lines));
        let reply = client.reply();
        assert_eq!(reply.status, status, "{first} {lines:?}");
        assert!(!reply.body.is_empty(), "a sentence says why");
        if status == 426 {
            // RFC 9110 section 15.5.22, RFC 6455 section 4.4.
            assert_eq!(reply.head.field("upgrade"), Some("websocket"), "{:?}", reply.head);
            assert_eq!(reply.head.field("sec-websocket-version"), Some("13"));
        }
    }
    server.serves();
    server.stop();
}

/// Status of an upgrade with this Host and Origin.
#[track_caller]
fn status_from(server: &Server, host: &str, origin: Option<&str>) -> u16 {
    let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    let request =
        format!("GET {ECHO} HTTP/1.1\r\nHost: {host}\r\n{WANTED}{VERSION}{KEY}{origin}\r\n");
    answer(server, request.as_bytes()).status
}

pub fn origin_is_checked(variant: &Variant) {
    let server = Server::start(variant, &[]);
    for (host, origin, status) in [
        ("suite", None, 101),
        ("suite", Some("http://suite"), 101),
        ("suite:81", Some("http://suite:81"), 101),
        ("SUITE", Some("http://suite:80"), 101),
        ("suite", Some("http://suite:81"), 403),
        ("suite", Some("https://suite"), 403),
        ("suite", Some("http://suite-elsewhere"), 403),
        ("suite", Some("http://elsewhere"), 403),
        ("suite", Some("null"), 403),
        ("suite", Some(""), 403),
    ] {
        assert_eq!(status_from(&server, host, origin), status, "{origin:?} on {host}");
    }
    server.stop();
    let flags = ["--allow-origin", "http://elsewhere", "--allow-origin", "https://there:8443"];
    let server = Server::start(variant, &flags);
    for (origin, status) in [
        (None, 101),
        (Some("http://suite"), 101),
        (Some("http://elsewhere"), 101),
        (Some("https://there:8443"), 101),
        (Some("https://elsewhere"), 403),
        (Some("http://other"), 403),
    ] {
        assert_eq!(status_from(&server, "suite", origin), status, "{origin:?}");
    }
    server.stop();
    let server = Server::start(variant, &["--allow-origin", "*"]);
    assert_eq!(status_from(&server, "suite", Some("http://anywhere")), 101);
    server.stop();
}

pub fn frames_right_behind_the_upgrade(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut websocket = WebSocket::ask(&server, ECHO);
    websocket.say("already here");
    websocket.expect_opened();
    assert_eq!(websocket.text(), "already here");
    drop(websocket);
    // In one segment, up to the end.
    let mut client = server.connect();
    let frames = [
        ask(&format!("GET {ECHO} HTTP/1.1"), &[WANTED, VERSION, KEY]),
        client_frame(Opcode::Text, b"one"),
        client_frame(Opcode::Binary, b"two"),
        client_frame(Opcode::Close, &1000_u16.to_be_bytes()),
    ];
    client.send(&frames.concat());
    assert_eq!(client.head().status, 101);
    assert_eq!(client.read_to_end(), b"\x81\x03one\x82\x03two\x88\x02\x03\xe8");
    drop(client);
    server.stop();
}

pub fn echo_of_every_length(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut websocket = WebSocket::open(&server, ECHO);
    for len in [0, 1, 125, 126, 127, 4_096, 65_535, 65_536, 300_000, 1 << 20] {
        let payload = pattern(len % 64, len);
        for opcode in [Opcode::Text, Opcode::Binary] {
            websocket.send(opcode, &payload);
            let (kind, back) = whole(&mut websocket);
            assert!(kind == opcode && back == payload, "{len} bytes: {kind:?} {}", back.len());
        }
    }
    let text = "Grüße, 世界, \u{1f600}\0";
    websocket.say(text);
    assert_eq!(websocket.text(), text);
    websocket.send(Opcode::Binary, &[0xff, 0xfe, 0x80, 0]);
    assert_eq!(websocket.message(), (Opcode::Binary, vec![0xff, 0xfe, 0x80, 0]));
    drop(websocket);
    server.stop();
}

/// Many messages at once: more than one read's, and more than one write's.
pub fn echo_in_order(variant: &Variant) {
    const MESSAGES: usize = 2_000;
    let server = Server::start(variant, &[]);
    let mut websocket = WebSocket::open(&server, ECHO);
    let said = |number: usize| format!("message {number}").repeat(1 + number % 20);
    let mut writer = websocket.second_handle();
    let burst: Vec<u8> = (0..MESSAGES)
        .flat_map(|number| client_frame(Opcode::Text, said(number).as_bytes()))
        .collect();
    // A server that does not take more than it may answer is right: somebody has to read.
    let writing = std::thread::spawn(move || writer.write_all(&burst));
    for number in 0..MESSAGES {
        assert_eq!(websocket.text(), said(number));
    }
    writing.join().expect("the writer").expect("all is taken");
    websocket.expect_pong();
    drop(websocket);
    server.stop();
}

pub fn echo_of_fragments(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut websocket = WebSocket::open(&server, ECHO);
    let text = "Grüße in Stücken";
    // Cut inside characters too: only the whole must be UTF-8.
    for size in 1..text.len() {
        let mut pieces = text.as_bytes().chunks(size).peekable();
        let mut opcode = Opcode::Text as u8;
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { 0x80 } else { 0 };
            websocket.client().send(&raw(last | opcode, piece));
            opcode = Opcode::Continuation as u8;
        }
        assert_eq!(whole(&mut websocket), (Opcode::Text, text.into()), "pieces of {size}");
    }
    // A ping between fragments is answered before the message is whole.
    websocket.client().send(&raw(0x02, b"be"));
    websocket.expect_pong();
    websocket.client().send(&[raw(0x00, b""), raw(0x80, b"hind")].concat());
    assert_eq!(whole(&mut websocket), (Opcode::Binary, b"behind".to_vec()));
    drop(websocket);
    server.stop();
}

pub fn byte_at_a_time(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client: Client = server.connect();
    let bytes = [
        ask(&format!("GET {ECHO} HTTP/1.1"), &[WANTED, VERSION, KEY]),
        client_frame(Opcode::Text, b"slowly"),
        client_frame(Opcode::Ping, b"?"),
        client_frame(Opcode::Binary, &pattern(0, 300)),
        client_frame(Opcode::Close, b"\x03\xe8bye"),
    ]
    .concat();
    for byte in &bytes {
        client.send(&[*byte]);
    }
    assert_eq!(client.head().status, 101);
    let rest = client.read_to_end();
    let expected = [b"\x81\x06slowly\x8a\x01?\x82\x7e\x01\x2c".as_slice(), &pattern(0, 300)];
    assert_eq!(rest[..expected.concat().len()], expected.concat());
    assert_eq!(rest[expected.concat().len()..][..4][2..], [0x03, 0xe8]);
    drop(client);
    server.stop();
}

pub fn pings(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut websocket = WebSocket::open(&server, ECHO);
    for payload in [b"".as_slice(), b"x", &[0xff; 125]] {
        websocket.send(Opcode::Ping, payload);
        let pong = websocket.frame();
        assert_eq!((pong.opcode, pong.payload.as_slice()), (Opcode::Pong, payload));
    }
    // Nobody has asked for it, and nobody answers it.
    websocket.send(Opcode::Pong, b"unasked");
    websocket.say("on we go");
    assert_eq!(websocket.text(), "on we go");
    drop(websocket);
    server.stop();
}

pub fn closing(variant: &Variant) {
    let server = Server::start(variant, &[]);
    for code in [Some(1000_u16), Some(1001), Some(3000), Some(4999), None] {
        let mut websocket = WebSocket::open(&server, ECHO);
        let payload = match code {
            Some(code) => [code.to_be_bytes().as_slice(), b"done"].concat(),
            None => Vec::new(),
        };
        websocket.say("last words");
        websocket.send(Opcode::Close, &payload);
        assert_eq!(websocket.text(), "last words");
        let frame = websocket.frame();
        assert_eq!((frame.opcode, frame.close_code()), (Opcode::Close, code), "{frame:?}");
        websocket.client().expect_end();
    }
    // Whoever just goes is let go.
    drop(WebSocket::open(&server, ECHO));
    server.serves();
    server.stop();
}

pub fn faults_have_codes(variant: &Variant) {
    let server = Server::start(variant, &["--message-bytes-max", "1000"]);
    let mut unmasked = client_frame(Opcode::Text, b"");
    unmasked[1] = 0;
    unmasked.truncate(2);
    let cases: Vec<(u16, &str, Vec<u8>)> = vec![
        (1002, "an opcode that means nothing", raw(0x83, b"x")),
        (1002, "a control opcode that means nothing", raw(0x8b, b"x")),
        (1002, "a frame without a mask", unmasked),
        (1002, "the first reserved bit", raw(0xc1, b"x")),
        (1002, "the last reserved bit", raw(0x91, b"x")),
        (1002, "a ping in pieces", raw(0x09, b"x")),
        (1002, "a long ping", raw(0x89, &[0; 126])),
        (1002, "the rest of nothing", raw(0x80, b"x")),
        (1002, "a message in a message", [raw(0x01, b"x"), raw(0x81, b"y")].concat()),
        (1002, "half a code", raw(0x88, &[3])),
        (1002, "a code that must not be sent", raw(0x88, &1005_u16.to_be_bytes())),
        (1002, "a code below all codes", raw(0x88, &999_u16.to_be_bytes())),
        (1007, "a reason that is no text", raw(0x88, b"\x03\xe8\xff")),
        (1007, "a text that is none", raw(0x81, b"\xc0\xaf")),
        (1007, "half a character", raw(0x81, b"\xe4\xb8")),
        (1007, "a surrogate in pieces", [raw(0x01, b"\xed"), raw(0x80, b"\xa0\x80")].concat()),
        (1009, "one byte too many", raw(0x82, &[0; 1_001])),
        (1009, "too many in pieces", [raw(0x02, &[0; 600]), raw(0x80, &[0; 401])].concat()),
    ];
    for (code, what, bytes) in cases {
        let mut websocket = WebSocket::open(&server, ECHO);
        websocket.client().send(&bytes);
        let frame = websocket.frame();
        assert_eq!((frame.opcode, frame.close_code()), (Opcode::Close, Some(code)), "{what}");
    }
    // The limit itself is within the limit.
    let mut websocket = WebSocket::open(&server, ECHO);
    websocket.send(Opcode::Binary, &[7; 1_000]);
    assert_eq!(whole(&mut websocket).1, [7; 1_000]);
    websocket.client().send(&raw(0x83, b""));
    websocket.expect_close(1002);
    drop(websocket);
    server.serves();
    server.stop();
}
