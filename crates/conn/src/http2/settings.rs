//! SETTINGS (RFC 9113 section 6.5): this server's, and what it keeps of the peer's.

use super::error::Code;
use super::frame::{self, Kind};
use super::hpack::TABLE_BYTES;
use super::window;
use crate::Limits;

/// Bytes of one setting: identifier and value.
pub(super) const SETTING_LEN: usize = 6;

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
/// RFC 8441 section 3.
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
/// RFC 9218 section 2.1: PRIORITY frames are ignored.
const NO_RFC7540_PRIORITIES: u16 = 0x9;

/// The first frame of this server (section 3.4). What it leaves out has the initial value.
pub(super) fn put_own(out: &mut Vec<u8>, limits: &Limits) {
    let list_max = u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX);
    let own = [
        (MAX_CONCURRENT_STREAMS, limits.streams_max),
        (MAX_HEADER_LIST_SIZE, list_max),
        (ENABLE_CONNECT_PROTOCOL, 1),
        (NO_RFC7540_PRIORITIES, 1),
    ];
    frame::put_head(out, own.len() * SETTING_LEN, Kind::Settings, 0, 0);
    for (id, value) in own {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Settings of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) header_table_size: u32,
    pub(super) initial_window_size: i32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { header_table_size: TABLE_BYTES as u32, initial_window_size: window::INITIAL }
    }
}

impl Settings {
    /// Applies one setting (section 6.5.2). All others are ignored: the server pushes nothing,
    /// opens no streams, and sends short heads and no frame above the least maximum.
    pub(super) fn apply(&mut self, setting: [u8; SETTING_LEN]) -> Result<(), Code> {
        let [a, b, value @ ..] = setting;
        let value = u32::from_be_bytes(value);
        match u16::from_be_bytes([a, b]) {
            HEADER_TABLE_SIZE => self.header_table_size = value,
            ENABLE_PUSH if value > 1 => return Err(Code::Protocol),
            INITIAL_WINDOW_SIZE => {
                self.initial_window_size = i32::try_from(value).map_err(|_| Code::FlowControl)?;
            }
            MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => return Err(Code::Protocol),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_bounds() {
        let apply = |id: u8, value: u32| {
            let [a, b, c, d] = value.to_be_bytes();
            let mut settings = Settings::default();
            settings.apply([0, id, a, b, c, d]).map(|()| settings)
        };
        let initial = Settings::default();
        let largest = Settings { initial_window_size: i32::MAX, ..initial };
        assert_eq!(apply(4, (1 << 31) - 1), Ok(largest));
        assert_eq!(apply(4, 1 << 31), Err(Code::FlowControl));
        assert_eq!(apply(5, 1 << 14), Ok(initial));
        for size in [(1 << 14) - 1, 1 << 24] {
            assert_eq!(apply(5, size), Err(Code::Protocol));
        }
        assert_eq!(apply(2, 1), Ok(initial));
        assert_eq!(apply(2, 2), Err(Code::Protocol));
        assert_eq!(apply(1, 0).map(|settings| settings.header_table_size), Ok(0));
        assert_eq!(apply(0xee, 7), Ok(initial));
    }
}
