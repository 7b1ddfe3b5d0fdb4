//! Receives frames (RFC 9113 sections 4 to 6), in place from the model's buffer. A frame need not
//! be whole: DATA is passed on as it comes, and a block of fields is kept until it is whole.

use super::Http2;
use super::error::{Code, Fault};
use super::frame::{self, HEAD_LEN, Head, Kind, flag};
use super::hpack::{self, Fields};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// The next bytes are the head of a frame.
    None,
    Data {
        stream: u32,
        left: usize,
        padding: usize,
        ends: bool,
    },
    Fields {
        left: usize,
        padding: usize,
    },
    Settings {
        left: usize,
    },
    Ignored {
        left: usize,
    },
}

/// A block of fields that is not whole.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    ends_stream: bool,
    ends_block: bool,
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
        let (mut used, mut frames, mut fields) = (0, 0, Fields::default());
        while frames < FRAMES_PER_TURN_MAX {
            if used == input.len() || !link::has_room(cx) {
                return Ok((used, false));
            }
            let rest = &input[used..];
            let step = if self.payload == Payload::None {
                frames += 1;
                self.begin_frame(cx, rest, &mut fields)?
            } else {
                self.take_payload(cx, rest, &mut fields)?
            };
            if step == 0 {
                return Ok((used, false));
            }
            used += step;
            // An empty rest ends here, so that no turn is spent on it.
            while self.has_empty_payload() {
                self.take_payload(cx, &[], &mut fields)?;
            }
        }
        Ok((used, used < input.len()))
    }

    fn has_empty_payload(&self) -> bool {
        match self.payload {
            Payload::None => false,
            Payload::Data { left, .. } | Payload::Fields { left, .. } => left == 0,
            Payload::Settings { left } | Payload::Ignored { left } => left == 0,
        }
    }

    /// A frame begins. Returns 0 if more of it must come first.
    fn begin_frame(
        &mut self,
        cx: &mut Context,
        input: &[u8],
        fields: &mut Fields,
    ) -> Result<usize, Code> {
        let Some(head) = Head::parse(input) else { return Ok(0) };
        // Section 6.10: no other frame between those of a block.
        let continues = self.block.as_ref().map(|block| block.stream);
        if (head.kind == Kind::Continuation).then_some(head.stream) != continues {
            return Err(Code::Protocol);
        }
        if let Err(fault) = head.check() {
            self.payload = Payload::Ignored { left: head.len };
            self.fault(cx, head.stream, fault)?;
            return Ok(HEAD_LEN);
        }
        let rest = &input[HEAD_LEN..];
        let used = match head.kind {
            Kind::Data => self.begin_data(cx, &head, rest)?,
            Kind::Headers | Kind::Continuation => self.begin_fields(cx, &head, rest, fields)?,
            Kind::Settings if head.has(flag::ACK) => Some(0),
            Kind::Settings => {
                self.payload = Payload::Settings { left: head.len };
                Some(0)
            }
            Kind::RstStream | Kind::WindowUpdate | Kind::Ping | Kind::Priority => {
                match rest.get(..head.len) {
                    None => None,
                    Some(payload) => {
                        self.take_short_frame(cx, &head, payload)?;
                        Some(head.len)
                    }
                }
            }
            Kind::Goaway | Kind::PushPromise | Kind::Unknown => {
                self.peer_leaves |= head.kind == Kind::Goaway;
                self.payload = Payload::Ignored { left: head.len };
                Some(0)
            }
        };
        Ok(used.map_or(0, |used| HEAD_LEN + used))
    }

    fn take_payload(
        &mut self,
        cx: &mut Context,
        input: &[u8],
        fields: &mut Fields,
    ) -> Result<usize, Code> {
        match self.payload {
            Payload::None => Ok(0),
            Payload::Ignored { left } => {
                let step = left.min(input.len());
                self.ignore(left - step);
                Ok(step)
            }
            Payload::Data { stream, left, padding, ends } => {
                let step = left.min(input.len());
                self.payload = Payload::Data { stream, left: left - step, padding, ends };
                self.take_data(cx, stream, &input[..step]);
                if left == step {
                    self.ignore(padding);
                    if ends {
                        self.end_request(cx, stream)?;
                    }
                }
                Ok(step)
            }
            Payload::Fields { left, padding } => {
                let step = left.min(input.len());
                self.payload = Payload::Fields { left: left - step, padding };
                if let Some(block) = &mut self.block {
                    block.fragments.extend_from_slice(&input[..step]);
                }
                if left == step {
                    self.ignore(padding);
                    if let Some(block) = self.block.take_if(|block| block.ends_block) {
                        let (stream, ends) = (block.stream, block.ends_stream);
                        self.end_block(cx, stream, ends, &block.fragments, fields)?;
                    }
                }
                Ok(step)
            }
            Payload::Settings { left } => self.take_settings(cx, left, input),
        }
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
        rest: &[u8],
    ) -> Result<Option<usize>, Code> {
        let Some((prefix, padding)) = padding(head, rest)? else { return Ok(None) };
        let (stream, ends) = (head.stream, head.has(flag::END_STREAM));
        let left = head.len - prefix - padding;
        self.link.receive.take(head.len).map_err(|_| Code::FlowControl)?;
        self.payload = Payload::Data { stream, left, padding, ends };
        self.empty_frames = if left == 0 && !ends { self.empty_frames + 1 } else { 0 };
        if self.empty_frames > EMPTY_FRAMES_MAX {
            return Err(Code::EnhanceYourCalm);
        }
        let begun = match self.streams.get_mut(stream) {
            Some(open) => open.begin_data(head.len, left, ends),
            None => self.late_data(stream),
        };
        if let Err(fault) = begun {
            self.fault(cx, stream, fault)?;
        }
        let link = &mut self.link;
        match self.streams.get_mut(stream) {
            Some(open) => {
                open.release(link, cx, prefix + padding);
                let end = open.check_body(link, cx);
                self.after_turn(cx, stream, end);
            }
            None => link.release(cx.output, prefix + padding),
        }
        Ok(Some(prefix))
    }

    fn late_data(&self, stream: u32) -> Result<(), Fault> {
        if self.is_reset(stream) {
            return Ok(());
        }
        self.state_without_stream(stream).after(Event::ReceiveData).map(|_| ())
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
    pub(super) fn end_request(&mut self, cx: &mut Context, stream: u32) -> Result<(), Code> {
        let Some(open) = self.streams.get_mut(stream) else { return Ok(()) };
        match open.end_request() {
            Ok(()) if open.state == State::Closed => self.forget(cx, stream),
            Ok(()) => self.streams.list(stream),
            Err(fault) => self.fault(cx, stream, fault)?,
        }
        Ok(())
    }

    /// The head of HEADERS or CONTINUATION (sections 6.2 and 6.10).
    fn begin_fields(
        &mut self,
        cx: &mut Context,
        head: &Head,
        rest: &[u8],
        fields: &mut Fields,
    ) -> Result<Option<usize>, Code> {
        // Section 5.1.1: streams of a client have odd numbers.
        if head.stream.is_multiple_of(2) {
            return Err(Code::Protocol);
        }
        let is_first = head.kind == Kind::Headers;
        let (mut prefix, mut pad) = (0, 0);
        if is_first {
            let Some(padding) = padding(head, rest)? else { return Ok(None) };
            (prefix, pad) = padding;
            if head.has(flag::PRIORITY) {
                prefix += PRIORITY_LEN;
            }
        }
        let left = head.len.checked_sub(prefix).ok_or(Code::FrameSize)?;
        let left = left.checked_sub(pad).ok_or(Code::Protocol)?;
        let Some(before) = rest.get(..prefix) else { return Ok(None) };
        if head.has(flag::PRIORITY) && is_own_parent(before, head.stream) {
            return Err(Code::Protocol);
        }
        let ends_block = head.has(flag::END_HEADERS);
        let whole = rest.get(prefix..prefix + left);
        if let (true, true, Some(fragment)) = (is_first, ends_block, whole) {
            // The usual case: nothing is copied.
            self.ignore(pad);
            self.end_block(cx, head.stream, head.has(flag::END_STREAM), fragment, fields)?;
            return Ok(Some(prefix + left));
        }
        let block = self.block.get_or_insert_with(|| {
            let (stream, ends_stream) = (head.stream, head.has(flag::END_STREAM));
            let fragments = Vec::new();
            Box::new(Block { stream, ends_stream, ends_block, frames: 0, fragments })
        });
        block.ends_block = ends_block;
        block.frames += 1;
        let len = block.fragments.len() + left;
        let len_max = cx.service.limits.head_bytes_max.saturating_mul(BLOCKS_MAX);
        if block.frames > BLOCK_FRAMES_MAX || len > len_max.max(frame::PAYLOAD_LEN_MAX) {
            return Err(Code::EnhanceYourCalm);
        }
        self.payload = Payload::Fields { left, padding: pad };
        Ok(Some(prefix))
    }

    /// A block of fields is whole. It is decoded in any case, because it may change HPACK's table
    /// (section 4.3).
    fn end_block(
        &mut self,
        cx: &mut Context,
        stream: u32,
        ends: bool,
        block: &[u8],
        fields: &mut Fields,
    ) -> Result<(), Code> {
        let decoded = self.decoder.decode(block, cx.service.limits.head_bytes_max, fields);
        decoded.map_err(|error| match error {
            hpack::Error::Compression => Code::Compression,
            hpack::Error::Bomb => Code::EnhanceYourCalm,
        })?;
        let taken = self.take_fields(cx, stream, ends, fields);
        taken.or_else(|fault| self.fault(cx, stream, fault))
    }

    /// Settings, each applied as it comes; the acknowledgement follows the last (section 6.5.3).
    fn take_settings(
        &mut self,
        cx: &mut Context,
        left: usize,
        input: &[u8],
    ) -> Result<usize, Code> {
        let (settings, _) = input[..left.min(input.len())].as_chunks::<SETTING_LEN>();
        for &setting in settings {
            self.apply(setting)?;
        }
        let used = settings.len() * SETTING_LEN;
        self.payload = Payload::Settings { left: left - used };
        if used == left {
            frame::put_head(cx.output.tail(), 0, Kind::Settings, flag::ACK, 0);
            self.payload = Payload::None;
        }
        Ok(used)
    }
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
