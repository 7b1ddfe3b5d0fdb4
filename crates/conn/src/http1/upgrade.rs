//! The upgrade from HTTP/1.1 to WebSocket (RFC 6455 section 4.2).
//!
//! The head of such a request is parsed a second time for the fields of the upgrade, so that other
//! requests do not pay for them.

use std::mem::MaybeUninit;
use std::str;

use tungstenite::handshake::derive_accept_key;

use super::CONTINUE;
use super::head::{FIELDS_MAX, Head, split_absolute};
use super::writer::{Http1Writer, Persistence};
use crate::routes::{Field, Method, Reply, ReplyWriter as _, TEXT};
use crate::websocket::{self, Route};
use crate::{Context, Service};

/// The fields of a handshake. Those that may come only once have a count.
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

pub(super) struct UpgradeRefusal {
    status: &'static str,
    sentence: &'static str,
    /// Fields of the reply, each with its CRLF.
    fields: &'static str,
}

/// A 426 reply names the protocol (RFC 9110 section 15.5.22) and its version (RFC 6455 section
/// 4.4).
const UPGRADE_FIELDS: &str =
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";

const UPGRADE_REQUIRED: UpgradeRefusal = UpgradeRefusal {
    status: "426 Upgrade Required",
    sentence: "this is a WebSocket; connect to it with ws:// or wss://, version 13",
    fields: UPGRADE_FIELDS,
};

pub(super) fn is_for_websocket(head: &Head) -> bool {
    head.request.path.starts_with(websocket::PATH)
}

/// Answers a valid handshake with 101 and returns its route. `head` was parsed from `bytes`.
pub(super) fn accept(cx: &mut Context, head: &Head, bytes: &[u8]) -> Result<Route, UpgradeRefusal> {
    let handshake = Handshake::parse(bytes);
    let route = handshake.check(cx.service, head, cx.draining)?;
    let out = cx.output.tail();
    if head.expect_continue {
        // RFC 9110 section 7.8 requires it before the 101, even without a body.
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

/// The reply to a refused handshake. The connection continues with HTTP/1.1.
pub(super) fn put_refusal(
    cx: &mut Context,
    head: &Head,
    refusal: &UpgradeRefusal,
    persistence: Persistence,
) -> Reply {
    Http1Writer::new(cx.service, cx.output, cx.now, persistence).begin(refusal.status);
    cx.output.put(refusal.fields.as_bytes());
    let mut out = Http1Writer::new(cx.service, cx.output, cx.now, persistence);
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
        // The head was parsed before, so this does not fail. If it did, the handshake would be
        // refused.
        if request.parse_with_uninit_headers(bytes, &mut fields).is_ok() {
            for field in request.headers.iter() {
                handshake.note(field.name, field.value);
            }
            // RFC 9112 section 3.2.2: the host in the target replaces that in the field.
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

    fn check(
        &self,
        service: &Service,
        head: &Head,
        draining: bool,
    ) -> Result<Route, UpgradeRefusal> {
        let bad = |sentence| UpgradeRefusal { status: "400 Bad Request", sentence, fields: "" };
        if !matches!(head.request.method, Method::Get | Method::Head) {
            return Err(UpgradeRefusal {
                status: "405 Method Not Allowed",
                sentence: "a WebSocket is opened with GET",
                fields: "Allow: GET, HEAD\r\n",
            });
        }
        // RFC 9110 section 7.8: HTTP/1.0 has no Upgrade.
        let wanted = self.upgrade && self.connection && !head.http_1_0;
        if !wanted || head.request.method == Method::Head {
            return Err(UPGRADE_REQUIRED);
        }
        if self.versions != 1 || self.version != b"13" {
            let sentence = "the only version of WebSocket known here is 13 (RFC 6455)";
            return Err(UpgradeRefusal { sentence, ..UPGRADE_REQUIRED });
        }
        if self.keys != 1 || !is_key(self.key) {
            return Err(bad("Sec-WebSocket-Key is not 16 bytes in base64"));
        }
        if head.request.length != Some(0) {
            return Err(bad("a request for a WebSocket has no body"));
        }
        if draining {
            return Err(UpgradeRefusal {
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
            .map_err(|(status, sentence)| UpgradeRefusal { status, sentence, fields: "" })
    }
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// Sixteen bytes in base64 (RFC 4648 section 4) are 22 characters and two of padding.
fn is_key(value: &[u8]) -> bool {
    let is_digit = |&byte: &u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    value.strip_suffix(b"==").is_some_and(|key| key.len() == 22 && key.iter().all(is_digit))
}
