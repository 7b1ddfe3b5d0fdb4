//! Flow control (RFC 9113 sections 5.2 and 6.9): how many bytes of DATA each side may still send,
//! on a stream and on the connection. An error ends the one whose window it is.

use super::error::Code;

/// The size of a new window (section 6.9.2).
pub(super) const INITIAL: i32 = 65_535;

/// The largest window (section 6.9.1).
const MAX: i64 = (1 << 31) - 1;

/// What this side may send. Below zero after the peer has reduced SETTINGS_INITIAL_WINDOW_SIZE
/// (section 6.9.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct SendWindow(i32);

impl Default for SendWindow {
    fn default() -> SendWindow {
        SendWindow(INITIAL)
    }
}

impl SendWindow {
    pub(super) fn new(size: i32) -> SendWindow {
        SendWindow(size)
    }

    pub(super) fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// WINDOW_UPDATE.
    pub(super) fn open(&mut self, increment: u32) -> Result<(), Code> {
        if increment == 0 { Err(Code::Protocol) } else { self.change(i64::from(increment)) }
    }

    /// The difference between two initial sizes.
    pub(super) fn change(&mut self, by: i64) -> Result<(), Code> {
        let size = i64::from(self.0) + by;
        self.0 = i32::try_from(size.max(-MAX)).map_err(|_| Code::FlowControl)?;
        Ok(())
    }

    /// `n` bytes were sent; never more than the room.
    pub(super) fn take(&mut self, n: usize) {
        self.0 -= n as i32;
    }
}

/// What the peer may send.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiveWindow {
    left: i32,
    /// Bytes that were used since the last WINDOW_UPDATE.
    used: i32,
}

impl Default for ReceiveWindow {
    fn default() -> ReceiveWindow {
        ReceiveWindow { left: INITIAL, used: 0 }
    }
}

impl ReceiveWindow {
    /// A frame of DATA came, with its padding (section 6.9.1).
    pub(super) fn take(&mut self, n: usize) -> Result<(), Code> {
        self.left -= n as i32;
        if self.left < 0 { Err(Code::FlowControl) } else { Ok(()) }
    }

    /// `n` bytes were used. The increment of a WINDOW_UPDATE, if one is due: at half a window, so
    /// that few are sent and the peer never waits.
    pub(super) fn release(&mut self, n: usize) -> Option<u32> {
        self.used += n as i32;
        if self.used <= INITIAL / 2 {
            return None;
        }
        self.left += self.used;
        Some(std::mem::take(&mut self.used) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_may_be_negative_and_has_an_end() {
        let mut window = SendWindow::new(100);
        window.take(60);
        window.change(-100).expect("smaller");
        assert_eq!(window.room(), 0);
        window.change(61).expect("larger");
        assert_eq!(window.room(), 1);
        window.change(MAX - 1).expect("the largest");
        assert_eq!(window.change(1), Err(Code::FlowControl));
    }

    #[test]
    fn a_receive_window_is_returned_by_halves() {
        let mut window = ReceiveWindow::default();
        window.take(65_535).expect("the whole window");
        assert_eq!(window.release(32_767), None);
        assert_eq!(window.release(1), Some(32_768));
        window.take(32_768).expect("what was returned");
        assert_eq!(window.take(1), Err(Code::FlowControl));
    }
}
