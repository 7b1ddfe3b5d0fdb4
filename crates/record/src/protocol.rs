//! The protocols in which clients ask.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A protocol, in the words of scenario files and of `--describe`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Every byte is sent back (RFC 862).
    #[serde(rename = "echo")]
    Echo,
    /// HTTP/1.1 (RFC 9112).
    #[default]
    #[serde(rename = "http")]
    Http1,
    /// HTTP/2 (RFC 9113).
    #[serde(rename = "h2")]
    Http2,
    /// Messages over a WebSocket (RFC 6455), opened by an upgrade of HTTP/1.1.
    #[serde(rename = "websocket")]
    WebSocket,
}

impl Protocol {
    /// Whether requests have paths, and replies a status.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::Http1 | Protocol::Http2)
    }

    /// What a server is started with (`--protocol`): HTTP/2 and WebSocket use the port of HTTP/1.1.
    pub fn of_server(self) -> &'static str {
        if self == Protocol::Echo { "echo" } else { "http" }
    }
}

/// The name in tables.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Echo => "echo",
            Protocol::Http1 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
            Protocol::WebSocket => "WebSocket",
        })
    }
}

/// The same protocols as the outcome of a load names them: by their names in tables.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Protocol")]
#[schemars(rename = "ProtocolName")]
pub(crate) enum Named {
    /// RFC 862.
    #[serde(rename = "echo")]
    Echo,
    /// RFC 9112.
    #[serde(rename = "HTTP/1.1")]
    Http1,
    /// RFC 9113.
    #[serde(rename = "HTTP/2")]
    Http2,
    /// RFC 6455.
    WebSocket,
}
