//! What RFC 9113 asks of whoever sends, checked frame by frame as the server's frames come.

use super::{Frame, Goaway, Http2, WINDOW, WINDOW_MAX, flag, kind, setting};
use crate::Head;

impl Http2 {
    /// Takes the next frame in, or the end.
    ///
    /// # Panics
    /// When neither comes, or the frame is against the rules.
    #[track_caller]
    pub fn read_frame(&mut self) {
        let mut head = [0; 9];
        if !self.client.read_exact_or_end(&mut head) {
            self.ended = true;
            return;
        }
        let (mut frame, length) =
            Frame::of_head(head, self.receive_frame).unwrap_or_else(|why| panic!("{why}"));
        frame.payload.resize(length, 0);
        if !self.client.read_exact_or_end(&mut frame.payload) {
            self.ended = true;
            return;
        }
        self.take(frame);
    }

    #[track_caller]
    fn take(&mut self, frame: Frame) {
        if let Some(block) = &self.block {
            let continues = frame.kind == kind::CONTINUATION && frame.stream == block.stream;
            assert!(continues, "a field block is interrupted by {frame:?} (section 4.3)");
        }
        if !self.greeted {
            let first = frame.kind == kind::SETTINGS && !frame.has(flag::ACK);
            let refused = frame.kind == kind::GOAWAY;
            assert!(first || refused, "the server's preface is {frame:?} (section 3.4)");
        }
        match frame.kind {
            kind::DATA => self.take_data(&frame),
            kind::HEADERS => self.take_headers(frame),
            kind::CONTINUATION => self.take_continuation(frame),
            kind::RST_STREAM => self.take_reset(&frame),
            kind::SETTINGS => self.take_settings(&frame),
            kind::PING => self.take_ping(&frame),
            kind::GOAWAY => self.take_goaway(&frame),
            kind::WINDOW_UPDATE => self.take_window_update(&frame),
            kind::PUSH_PROMISE => panic!("nobody wants a push: {frame:?}"),
            // PRIORITY is deprecated, and other types are nobody's business (section 5.5).
            _ => {}
        }
    }

    #[track_caller]
    fn take_data(&mut self, frame: &Frame) {
        // Padding counts for the windows (section 6.9.1).
        let len = i64::try_from(frame.payload.len()).unwrap_or(i64::MAX);
        let content = frame.content();
        let content = content.unwrap_or_else(|why| panic!("{why}: {frame:?} (section 6.1)"));
        self.receive_window -= len;
        assert!(self.receive_window >= 0, "beyond the connection's window: {}", self.seen());
        let id = frame.stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            panic!("DATA on stream {id}, which nobody opened");
        };
        stream.receive_window -= len;
        let window = stream.receive_window;
        assert!(window >= 0 || len == 0, "{} bytes beyond the window of stream {id}", -window);
        assert!(stream.head.is_some(), "DATA before HEADERS on stream {id}");
        assert!(!stream.ended && stream.reset.is_none(), "DATA behind the end of stream {id}");
        stream.body.extend(content);
        self.arrivals.push((id, content.len()));
        if frame.has(flag::END_STREAM) {
            self.finish(id);
        }
        if self.refill && len > 0 {
            self.give_back(id, u32::try_from(len).unwrap_or(0));
        }
    }

    /// The server may be closing: then nobody needs the room.
    fn give_back(&mut self, id: u32, len: u32) {
        let mut updates = vec![Frame::window_update(0, len)];
        if self.streams.get(&id).is_some_and(|stream| !stream.ended) {
            updates.push(Frame::window_update(id, len));
        }
        self.send_if_open(updates);
    }

    #[track_caller]
    fn take_headers(&mut self, frame: Frame) {
        let id = frame.stream;
        let Some(stream) = self.streams.get(&id) else {
            panic!("HEADERS on stream {id}, which nobody opened");
        };
        assert!(!stream.ended && stream.reset.is_none(), "HEADERS behind the end of stream {id}");
        assert!(!frame.has(flag::PADDED | flag::PRIORITY), "unusual, not read here: {frame:?}");
        self.block = Some(frame);
        self.block_complete();
    }

    #[track_caller]
    fn take_continuation(&mut self, frame: Frame) {
        let Some(block) = &mut self.block else {
            panic!("CONTINUATION of nothing: {frame:?} (section 6.10)");
        };
        block.payload.extend(&frame.payload);
        block.flags |= frame.flags & flag::END_HEADERS;
        self.block_complete();
    }

    #[track_caller]
    fn block_complete(&mut self) {
        let Some(block) = self.block.take_if(|block| block.has(flag::END_HEADERS)) else {
            return;
        };
        let (id, last) = (block.stream, block.has(flag::END_STREAM));
        let mut fields = self.decoder.decode(&block.payload);
        check_names(&fields);
        let stream = self.streams.entry(id).or_default();
        if stream.head.is_some() {
            assert!(last, "a second head on stream {id} (section 8.1)");
            assert!(fields.iter().all(|(name, _)| !name.starts_with(':')), "{fields:?}");
            stream.trailers = fields;
            return self.finish(id);
        }
        let status = match fields.first() {
            Some((name, value)) if name == ":status" && value.len() == 3 => value.parse().ok(),
            _ => None,
        };
        let Some(status) = status else { panic!("no :status in {fields:?} (section 8.3.2)") };
        fields.remove(0);
        assert!(fields.iter().all(|(name, _)| !name.starts_with(':')), "{fields:?}");
        if status < 200 {
            assert!(!last && status != 101, "status {status} on stream {id} (section 8.1)");
            stream.interim.push(status);
            return;
        }
        stream.head = Some(Head { version: "HTTP/2".to_owned(), status, fields });
        if last {
            self.finish(id);
        }
    }

    /// END_STREAM has come: the body has the length that was promised (section 8.1.1).
    #[track_caller]
    fn finish(&mut self, id: u32) {
        let stream = self.streams.entry(id).or_default();
        stream.ended = true;
        let Some(head) = &stream.head else { return };
        if stream.head_only || head.status == 204 || head.status == 304 {
            assert!(stream.body.is_empty(), "a body on stream {id}: {head:?}");
        } else if let Some(length) = head.field("content-length") {
            assert_eq!(length, stream.body.len().to_string(), "content-length on stream {id}");
        }
    }

    #[track_caller]
    fn take_reset(&mut self, frame: &Frame) {
        assert_eq!(frame.payload.len(), 4, "{frame:?} (section 6.4)");
        // PRIORITY may be at fault on a stream that is idle, and the RFC wants it answered by
        // RST_STREAM (section 6.3): any stream but 0.
        assert_ne!(frame.stream, 0, "{frame:?} (section 6.4)");
        let stream = self.streams.entry(frame.stream).or_default();
        assert_eq!(stream.reset, None, "a second RST_STREAM on stream {}", frame.stream);
        stream.reset = Some(number(frame, 0));
    }

    #[track_caller]
    fn take_settings(&mut self, frame: &Frame) {
        assert_eq!(frame.stream, 0, "{frame:?} (section 6.5)");
        if frame.has(flag::ACK) {
            assert!(frame.payload.is_empty(), "{frame:?} (section 6.5)");
            let Some(values) = self.unacked.pop_front() else {
                panic!("an acknowledgement of SETTINGS that nobody sent");
            };
            self.settings_acks += 1;
            return self.apply(&values, false);
        }
        assert_eq!(frame.payload.len() % 6, 0, "{frame:?} (section 6.5)");
        self.greeted = true;
        for (id, value) in frame.values() {
            self.take_setting(id, value);
        }
        self.send_if_open([Frame::settings(&[]).with_flags(flag::ACK)]);
    }

    #[track_caller]
    fn take_setting(&mut self, id: u16, value: u32) {
        let legal = match id {
            // A server may say 0 only (section 6.5.2).
            setting::ENABLE_PUSH => value == 0,
            setting::ENABLE_CONNECT_PROTOCOL => value <= 1,
            setting::INITIAL_WINDOW_SIZE => value <= WINDOW_MAX,
            setting::MAX_FRAME_SIZE => (1 << 14..1 << 24).contains(&value),
            _ => true,
        };
        assert!(legal, "the server sets {id:#x} to {value} (section 6.5.2)");
        let before = self.settings.insert(id, value);
        if id == setting::INITIAL_WINDOW_SIZE {
            let before = before.map_or(WINDOW, i64::from);
            for stream in self.streams.values_mut() {
                stream.send_window += i64::from(value) - before;
            }
        }
    }

    #[track_caller]
    fn take_ping(&mut self, frame: &Frame) {
        assert_eq!(frame.stream, 0, "{frame:?} (section 6.7)");
        let payload = frame.payload.as_slice().try_into();
        let Ok(payload) = payload else { panic!("{frame:?} (section 6.7)") };
        if frame.has(flag::ACK) {
            assert_eq!(frame.flags, flag::ACK, "flags that nobody defined (section 4.1)");
            self.pongs.push_back(payload);
        } else {
            self.send_if_open([Frame::ping(payload).with_flags(flag::ACK)]);
        }
    }

    #[track_caller]
    fn take_goaway(&mut self, frame: &Frame) {
        assert_eq!(frame.stream, 0, "{frame:?} (section 6.8)");
        let goaway = Goaway { last_stream: number(frame, 0), code: number(frame, 4) };
        let opened = self.streams.keys().next_back().copied().unwrap_or(0);
        let last = goaway.last_stream;
        // The highest possible one announces an end whose streams are not settled (section 6.8).
        assert!(last <= opened || last == WINDOW_MAX, "GOAWAY after {last}, of {opened}");
        if let Some(before) = self.goaway {
            assert!(last <= before.last_stream, "GOAWAY takes back {before:?}: {goaway:?}");
        }
        self.goaway = Some(goaway);
    }

    #[track_caller]
    fn take_window_update(&mut self, frame: &Frame) {
        assert_eq!(frame.payload.len(), 4, "{frame:?} (section 6.9)");
        let increment = i64::from(number(frame, 0));
        assert!(increment > 0, "{frame:?} (section 6.9)");
        let window = match self.streams.get_mut(&frame.stream) {
            _ if frame.stream == 0 => &mut self.send_window,
            Some(stream) => &mut stream.send_window,
            None => panic!("WINDOW_UPDATE on stream {}, which nobody opened", frame.stream),
        };
        *window += increment;
        assert!(*window <= i64::from(WINDOW_MAX), "a window of {window} (section 6.9.1)");
    }
}

#[track_caller]
fn number(frame: &Frame, at: usize) -> u32 {
    frame.number(at).unwrap_or_else(|| panic!("a frame that is too short: {frame:?}"))
}

/// RFC 9113 sections 8.2.1 and 8.2.2.
#[track_caller]
fn check_names(fields: &[(String, String)]) {
    const OF_A_CONNECTION: [&str; 5] =
        ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"];
    for (name, value) in fields {
        let lower = name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
        assert!(lower && !name.is_empty(), "field name {name:?} (section 8.2.1)");
        assert!(!OF_A_CONNECTION.contains(&name.as_str()), "{name}: {value} (section 8.2.2)");
        assert!(value.trim() == value && !value.contains(['\0', '\r', '\n']), "{name}: {value:?}");
    }
}
