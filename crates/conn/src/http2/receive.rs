//! Receives frames (RFC 9113 sections 4 to 6), in place from the model's buffer. DATA is passed on
//! as it comes. All other frames that mean something are short, and are taken when they are whole.

use super::Http2;
use super::error::{Code, Fault};
use super::frame::{self, HEAD_LEN, Head, Kind, flag};
use super::hpack;
use super::link;
use super::settings::SETTING_LEN;
use super::state::{Event, State};
use crate::Context;

/// Frames that are received in one turn. A read may hold seven thousand. Twice the number of
/// streams of the standard workload, because many requests are two frames.
const FRAMES_PER_TURN_MAX: usize = 64;

/// A block of fields may be so many times longer than the longest list of fields, because it is
/// decoded for the sake of HPACK's table even if it is refused.
const BLOCKS_MAX: usize = 2;

/// Frames of one block of fields (CONTINUATION flood, CVE-2024-27316). A block of 32 KiB needs
/// two.
const BLOCK_FRAMES_MAX: u32 = 64;

/// Frames of DATA without data that may follow one another. A client has no use for more than one.
const EMPTY_FRAMES_MAX: u32 = 100;

/// Bytes of priority in HEADERS (section 6.2). RFC 9113 ignores them (section 5.3.2), except that
/// a stream cannot depend on itself (RFC 7540 section 5.3.1).
const PRIORITY_LEN: usize = 5;

/// The payload of a frame whose head has come. `left`: bytes still to come, without padding.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// The next bytes are the head of a frame.
    #[default]
    None,
    Data {
        stream: u32,
        left: usize,
        padding: usize,
        ends: bool,
    },
    Ignored {
        left: usize,
    },
}

/// A block of fields whose last frame has not come.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    ends_stream: bool,
    frames: u32,
    fragments: Vec<u8>,
}

impl Block {
    pub(super) fn held(&self) -> usize {
        size_of::<Block>() + self.fragments.capacity()
    }
}

impl Http2 {
    /// Receives frames for one turn. Returns how many bytes were used, and whether more could be
    /// received at once.
    pub(super) fn receive(
        &mut self,
        cx: &mut Context,
        input: &[u8],
    ) -> Result<(usize, bool), Code> {
        let mut used = if link::has_room(cx) { self.take_payload(cx, input)? } else { 0 };
        for _ in 0..FRAMES_PER_TURN_MAX {
            if used == input.len() || !link::has_room(cx) {
                return Ok((used, false));
            }
            match self.take_frame(cx, &input[used..])? {
                0 => return Ok((used, false)),
                step => used += step,
            }
        }
        Ok((used, used < input.len()))
    }

    /// Takes a frame, or what has come of it. Returns 0 if more of it must come first.
    fn take_frame(&mut self, cx: &mut Context, input: &[u8]) -> Result<usize, Code> {
        self.awaits_fields = false;
        let Some(head) = Head::parse(input) else { return Ok(0) };
        // Section 6.10: no other frame between those of a block.
        let continues = self.block.as_ref().map(|block| block.stream);
        if (head.kind == Kind::Continuation).then_some(head.stream) != continues {
            return Err(Code::Protocol);
        }
        let rest = &input[HEAD_LEN..];
        let mut used = HEAD_LEN;
        let taken = match (head.check(), head.kind, rest.get(..head.len)) {
            (Err(fault), ..) => {
                self.ignore(head.len);
                Err(fault)
            }
            (Ok(()), Kind::Data, _) => {
                let Some((prefix, padding)) = padding(&head, rest)? else { return Ok(0) };
                used += prefix;
                self.begin_data(cx, &head, prefix, padding)
            }
            (Ok(()), Kind::Goaway | Kind::PushPromise | Kind::Unknown, _) => {
                self.peer_leaves |= head.kind == Kind::Goaway;
                self.ignore(head.len);
                Ok(())
            }
            (Ok(()), kind, None) => {
                self.awaits_fields = matches!(kind, Kind::Headers | Kind::Continuation);
                return Ok(0);
            }
            (Ok(()), kind, Some(payload)) => {
                used += head.len;
                match kind {
                    Kind::Headers | Kind::Continuation => self.take_fragment(cx, &head, payload),
                    Kind::Settings => self.take_settings(cx, &head, payload),
                    _ => self.take_short_frame(cx, &head, payload),
                }
            }
        };
        self.settle(cx, head.stream, taken)?;
        Ok(used + self.take_payload(cx, &input[used..])?)
    }

    /// Takes what has come of the payload of DATA, or of one that is ignored.
    fn take_payload(&mut self, cx: &mut Context, input: &[u8]) -> Result<usize, Code> {
        let mut used = 0;
        if let Payload::Data { stream, left, padding, ends } = self.payload {
            used = left.min(input.len());
            self.take_data(cx, stream, &input[..used]);
            self.payload = Payload::Data { stream, left: left - used, padding, ends };
            if used < left {
                return Ok(used);
            }
            self.ignore(padding);
            let ended = if ends { self.end_request(cx, stream) } else { Ok(()) };
            self.settle(cx, stream, ended)?;
        }
        if let Payload::Ignored { left } = self.payload {
            let step = left.min(input.len() - used);
            self.ignore(left - step);
            used += step;
        }
        Ok(used)
    }

    fn ignore(&mut self, left: usize) {
        self.payload = if left == 0 { Payload::None } else { Payload::Ignored { left } };
    }

    /// The head of DATA (section 6.1). Flow control counts the whole payload (section 6.9.1), on
    /// the connection also for a stream that is over.
    fn begin_data(
        &mut self,
        cx: &mut Context,
        head: &Head,
        prefix: usize,
        padding: usize,
    ) -> Result<(), Fault> {
        let (stream, ends) = (head.stream, head.has(flag::END_STREAM));
        let left = head.len - prefix - padding;
        self.link.receive.take(head.len)?;
        self.link.release(cx.output, prefix + padding);
        self.payload = Payload::Data { stream, left, padding, ends };
        self.empty_frames = if left == 0 && !ends { self.empty_frames + 1 } else { 0 };
        if self.empty_frames > EMPTY_FRAMES_MAX {
            return Err(Code::EnhanceYourCalm.into());
        }
        let Some(open) = self.streams.get_mut(stream) else {
            let is_late = self.is_reset(stream);
            return if is_late { Ok(()) } else { self.allow(stream, Event::ReceiveData) };
        };
        open.begin_data(head.len, left, ends)?;
        open.return_window(cx.output, prefix + padding);
        let end = open.check_body(&mut self.link, cx);
        self.after_turn(cx, stream, end);
        Ok(())
    }

    fn take_data(&mut self, cx: &mut Context, stream: u32, data: &[u8]) {
        match self.streams.get_mut(stream) {
            Some(open) if !data.is_empty() => {
                let used = open.take_body(data);
                open.release(&mut self.link, cx, used);
                self.streams.list(stream);
            }
            Some(_) => {}
            None => self.link.release(cx.output, data.len()),
        }
    }

    /// END_STREAM came.
    pub(super) fn end_request(&mut self, cx: &mut Context, stream: u32) -> Result<(), Fault> {
        let Some(open) = self.streams.get_mut(stream) else { return Ok(()) };
        open.end_request()?;
        if open.state == State::Closed {
            self.forget(cx, stream);
        } else {
            self.streams.list(stream);
        }
        Ok(())
    }

    /// HEADERS or CONTINUATION (sections 6.2 and 6.10).
    fn take_fragment(
        &mut self,
        cx: &mut Context,
        head: &Head,
        payload: &[u8],
    ) -> Result<(), Fault> {
        // Section 5.1.1: streams of a client have odd numbers.
        if head.stream.is_multiple_of(2) {
            return Err(Code::Protocol.into());
        }
        let is_first = head.kind == Kind::Headers;
        let fragment = if is_first { fragment(head, payload)? } else { payload };
        let (ends_block, ends_stream) = (head.has(flag::END_HEADERS), head.has(flag::END_STREAM));
        if is_first && ends_block {
            // The usual case: nothing is copied.
            return self.end_block(cx, head.stream, ends_stream, fragment);
        }
        let block = self.block.get_or_insert_with(|| {
            let (stream, fragments) = (head.stream, Vec::new());
            Box::new(Block { stream, ends_stream, frames: 0, fragments })
        });
        block.frames += 1;
        let len = block.fragments.len() + fragment.len();
        let len_max = cx.service.limits.head_bytes_max.saturating_mul(BLOCKS_MAX);
        if block.frames > BLOCK_FRAMES_MAX || len > len_max.max(frame::PAYLOAD_LEN_MAX) {
            return Err(Code::EnhanceYourCalm.into());
        }
        block.fragments.extend_from_slice(fragment);
        match self.block.take_if(|_| ends_block) {
            Some(block) => self.end_block(cx, block.stream, block.ends_stream, &block.fragments),
            None => Ok(()),
        }
    }

    /// A block of fields is whole. It is decoded in any case, because it may change HPACK's table
    /// (section 4.3).
    fn end_block(
        &mut self,
        cx: &mut Context,
        stream: u32,
        ends: bool,
        block: &[u8],
    ) -> Result<(), Fault> {
        let mut fields = std::mem::take(&mut self.fields);
        let decoded = self.decoder.decode(block, cx.service.limits.head_bytes_max, &mut fields);
        decoded.map_err(|error| match error {
            hpack::Error::Compression => Code::Compression,
            hpack::Error::Bomb => Code::EnhanceYourCalm,
        })?;
        let taken = self.take_fields(cx, stream, ends, &fields);
        self.fields = fields;
        taken
    }

    /// Section 6.5.3: the acknowledgement follows when all settings are applied.
    fn take_settings(
        &mut self,
        cx: &mut Context,
        head: &Head,
        payload: &[u8],
    ) -> Result<(), Fault> {
        if !head.has(flag::ACK) {
            payload.as_chunks::<SETTING_LEN>().0.iter().try_for_each(|&one| self.apply(one))?;
            frame::put_head(cx.output.tail(), 0, Kind::Settings, flag::ACK, 0);
        }
        Ok(())
    }
}

/// The fragment of a block in HEADERS, between priority and padding.
fn fragment<'a>(head: &Head, payload: &'a [u8]) -> Result<&'a [u8], Code> {
    let (mut prefix, padding) = padding(head, payload)?.unwrap_or_default();
    if head.has(flag::PRIORITY) {
        prefix += PRIORITY_LEN;
    }
    let (before, rest) = payload.split_at_checked(prefix).ok_or(Code::FrameSize)?;
    let len = rest.len().checked_sub(padding).ok_or(Code::Protocol)?;
    if head.has(flag::PRIORITY) && is_own_parent(before, head.stream) {
        return Err(Code::Protocol);
    }
    Ok(&rest[..len])
}

/// The bytes of priority, at the end of `before`, name the stream itself as its parent.
pub(super) fn is_own_parent(before: &[u8], stream: u32) -> bool {
    let parent = before.last_chunk::<PRIORITY_LEN>().and_then(|bytes| bytes.first_chunk());
    parent.is_some_and(|&parent| u32::from_be_bytes(parent) & frame::STREAM_MAX == stream)
}

/// The length of what stands before the content of DATA or HEADERS, and of the padding behind it.
/// `None`: the first byte has not come.
fn padding(head: &Head, rest: &[u8]) -> Result<Option<(usize, usize)>, Code> {
    if !head.has(flag::PADDED) {
        return Ok(Some((0, 0)));
    }
    if head.len == 0 {
        return Err(Code::FrameSize);
    }
    let Some(&padding) = rest.first() else { return Ok(None) };
    if usize::from(padding) >= head.len {
        return Err(Code::Protocol);
    }
    Ok(Some((1, usize::from(padding))))
}
