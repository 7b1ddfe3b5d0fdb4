//! A blocking HTTP/2 client with several requests at once on one connection. RFC 9113.

use std::net::SocketAddr;

use record::Frame;
use rig::client::Client;
use rig::exchange::http2 as wire;

use crate::Clock;
use crate::client::{Phase, connect};

/// One connection.
#[derive(Debug)]
pub struct Session {
    client: Client,
    clock: Clock,
    authority: String,
    /// The stream of the next request: odd, because a client begins it (section 5.1.1).
    next_stream: u32,
}

impl Session {
    /// Connects, and sends the preface and the settings.
    ///
    /// # Errors
    /// One sentence.
    pub fn open(clock: Clock, address: SocketAddr) -> Result<(Session, Phase), String> {
        let (mut client, phase) = connect(clock, address)?;
        client.send(&wire::opening())?;
        let authority = address.to_string();
        Ok((Session { client, clock, authority, next_stream: 1 }, phase))
    }

    /// Sends a request. Returns its stream.
    ///
    /// # Errors
    /// One sentence.
    pub fn send(&mut self, path: &str) -> Result<u32, String> {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.client.send(&wire::head(stream, "http", &self.authority, path))?;
        Ok(stream)
    }

    /// Reads the next frame. Settings and pings are acknowledged. The frame belongs to no run yet.
    ///
    /// # Errors
    /// One sentence: a connection that fails, a stream that is reset, a status that is not 200.
    pub fn receive(&mut self) -> Result<Frame, String> {
        let frame = self.client.until(witness::http2::Frame::parse)?;
        let at_us = self.clock.now_us();
        if let Some(answer) = frame.answer()? {
            self.client.send(&answer)?;
        }
        if let Some(status) = frame.status()?
            && status != 200
        {
            return Err(format!("the server answered with status {status}"));
        }
        Ok(noted(&frame, at_us, true))
    }
}

/// A frame as it is recorded. It belongs to no run yet.
pub(crate) fn noted(frame: &witness::http2::Frame, at_us: f64, from_server: bool) -> Frame {
    Frame {
        run: String::new(),
        connection: 0,
        at_us,
        from_server,
        kind: frame.name().to_owned(),
        stream: frame.stream,
        bytes: frame.wire_bytes() as u32,
        ends_stream: frame.ends_stream(),
    }
}
