//! From HTTP/1.1 to a WebSocket (RFC 6455 section 4.2).
//!
//! The fields that only this needs are looked for only on the paths that have a WebSocket, in a
//! second look at the head, so that no other request pays for them.

use std::mem::MaybeUninit;
use std::str;

use tungstenite::handshake::derive_accept_key;

use super::CONTINUE;
use super::head::{FIELDS_MAX, Head, split_absolute};
use super::writer::{Persistence, Writer};
use crate::routes::{Field, Method, Reply, TEXT, Writer as _};
use crate::websocket::{self, Route};
use crate::{Context, Service};

/// What a handshake says. Of fields that may be there once, it says how often they are.
#[derive(Default)]
struct Handshake<'a> {
    host: &'a str,
    upgrade: bool,
    connection: bool,
    keys: u32,
    key: &'a [u8],
    versions: u32,
    version: &'a [u8],
    origins: u32,
    origin: Option<&'a [u8]>,
}

/// Why there is no WebSocket.
pub(super) struct Refusal {
    status: &'static str,
    sentence: &'static str,
    /// Fields that belong to the status, each with its line end.
    fields: &'static str,
}

/// RFC 9110 section 15.5.22: a 426 names the protocol; RFC 6455 section 4.4: and the version.
const UPGRADE_FIELDS: &str =
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";

const UPGRADE_REQUIRED: Refusal = Refusal {
    status: "426 Upgrade Required",
    sentence: "this is a WebSocket; connect to it with ws:// or wss://, version 13",
    fields: UPGRADE_FIELDS,
};

/// True for a request that only a WebSocket can answer.
pub(super) fn is_for_websocket(head: &Head) -> bool {
    head.request.path.starts_with(websocket::PATH)
}

/// Answers a good handshake with 101, and says what the WebSocket is for. `bytes` is the head that
/// `head` was parsed from.
pub(super) fn accept(cx: &mut Context, head: &Head, bytes: &[u8]) -> Result<Route, Refusal> {
    let handshake = Handshake::parse(bytes);
    let route = handshake.check(cx.service, head, cx.draining)?;
    let out = cx.output.tail();
    if head.expect_continue {
        // RFC 9110 section 7.8: before the 101, even where no content follows.
        out.extend_from_slice(CONTINUE);
    }
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(derive_accept_key(handshake.key).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    Ok(route)
}

/// The reply to a handshake that is refused. The connection goes on with HTTP/1.1.
pub(super) fn put_refusal(
    cx: &mut Context,
    head: &Head,
    refusal: &Refusal,
    persistence: Persistence,
) -> Reply {
    Writer::new(cx.service, cx.output, cx.now, persistence).begin(refusal.status);
    cx.output.put(refusal.fields.as_bytes());
    let mut out = Writer::new(cx.service, cx.output, cx.now, persistence);
    out.field(Field::ContentType, TEXT);
    out.length(Some(refusal.sentence.len() as u64 + 1));
    out.end();
    if head.request.method != Method::Head {
        out.body(refusal.sentence.as_bytes());
        out.body(b"\n");
    }
    Reply::Complete
}

impl<'a> Handshake<'a> {
    fn parse(bytes: &'a [u8]) -> Handshake<'a> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let mut handshake = Handshake::default();
        // The head was parsed once already, so this cannot fail; if it did, there would be no
        // handshake in it.
        if request.parse_with_uninit_headers(bytes, &mut fields).is_ok() {
            for field in request.headers.iter() {
                handshake.note(field.name, field.value);
            }
            // RFC 9112 section 3.2.2: the host in the target counts, not the one in the field.
            if let Some((authority, _)) = split_absolute(request.path.unwrap_or_default()) {
                handshake.host = authority;
            }
        }
        handshake
    }

    fn note(&mut self, name: &str, value: &'a [u8]) {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("Host") {
            self.host = str::from_utf8(value).unwrap_or_default();
        } else if is("Upgrade") {
            self.upgrade |= has_token(value, b"websocket");
        } else if is("Connection") {
            self.connection |= has_token(value, b"upgrade");
        } else if is("Sec-WebSocket-Key") {
            self.keys += 1;
            self.key = value;
        } else if is("Sec-WebSocket-Version") {
            self.versions += 1;
            self.version = value;
        } else if is("Origin") {
            self.origins += 1;
            self.origin = Some(value);
        }
    }

    fn check(&self, service: &Service, head: &Head, draining: bool) -> Result<Route, Refusal> {
        let bad = |sentence| Refusal { status: "400 Bad Request", sentence, fields: "" };
        if !matches!(head.request.method, Method::Get | Method::Head) {
            return Err(Refusal {
                status: "405 Method Not Allowed",
                sentence: "a WebSocket is opened with GET",
                fields: "Allow: GET, HEAD\r\n",
            });
        }
        // RFC 9110 section 7.8: in HTTP/1.0 an Upgrade means nothing.
        let wanted = self.upgrade && self.connection && !head.http_1_0;
        if !wanted || head.request.method == Method::Head {
            return Err(UPGRADE_REQUIRED);
        }
        if self.versions != 1 || self.version != b"13" {
            let sentence = "the only version of WebSocket known here is 13 (RFC 6455)";
            return Err(Refusal { sentence, ..UPGRADE_REQUIRED });
        }
        if self.keys != 1 || !is_key(self.key) {
            return Err(bad("Sec-WebSocket-Key is not 16 bytes in base64"));
        }
        if head.request.length != Some(0) {
            return Err(bad("a request for a WebSocket has no body"));
        }
        if draining {
            return Err(Refusal {
                status: "503 Service Unavailable",
                sentence: "the server is stopping",
                fields: "",
            });
        }
        let origin = self.origin.map(|origin| str::from_utf8(origin).unwrap_or_default());
        if self.origins > 1 {
            return Err(bad("there are two Origin fields"));
        }
        let secure = service.common.tls.is_some();
        websocket::admit(service, head.request.path, origin, self.host, secure)
            .map_err(|(status, sentence)| Refusal { status, sentence, fields: "" })
    }
}

/// True if a list of tokens (RFC 9110 section 5.6.1) has this one.
fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// Sixteen bytes are 22 digits of base64 and two signs of padding (RFC 4648 section 4).
fn is_key(value: &[u8]) -> bool {
    let is_digit = |&byte: &u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    value.strip_suffix(b"==").is_some_and(|key| key.len() == 22 && key.iter().all(is_digit))
}
