//! The progress line on a terminal, and Ctrl-C.
//!
//! A thread draws the line from counters that the engine publishes. The engine never waits for the
//! terminal.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use load::{Live, Stage};
use nix::time::{ClockId, clock_gettime};

/// More often than this digits cannot be read.
const REDRAW: Duration = Duration::from_millis(250);
/// Exit code after Ctrl-C: 128 + SIGINT, as in shells.
pub(super) const INTERRUPTED: u8 = 130;

/// Ctrl-C and SIGTERM end the window early; a second one ends the program.
pub(super) fn stop_on_interrupt(live: &Arc<Live>) -> Result<(), ctrlc::Error> {
    let live = Arc::clone(live);
    ctrlc::set_handler(move || {
        if live.is_stopped() {
            std::process::exit(INTERRUPTED.into());
        }
        live.stop();
    })
}

/// The progress line; dropping this removes it.
pub struct Display(Option<(Sender<()>, JoinHandle<Option<Duration>>)>);

impl Display {
    /// Draws on stderr, if `wanted` and if stderr is a terminal.
    pub(super) fn start(live: &Arc<Live>, wanted: bool) -> Display {
        if !wanted || !stderr().is_terminal() {
            return Display(None);
        }
        Display::draw(live, stderr())
    }

    /// Draws on `there`.
    pub fn draw(live: &Arc<Live>, mut there: impl Write + Send + 'static) -> Display {
        let (end, ended) = channel();
        let live = Arc::clone(live);
        let drawer = std::thread::spawn(move || {
            let (mut stage, mut since) = (Stage::Connecting, Instant::now());
            while ended.recv_timeout(REDRAW) == Err(RecvTimeoutError::Timeout) {
                let seen = live.progress();
                if seen.stage != stage {
                    (stage, since) = (seen.stage, Instant::now());
                }
                // A failed write to the terminal does not end the measurement.
                let _unseen = Display::redraw(&mut there, &live, since.elapsed());
            }
            let _unseen = write!(there, "\r\x1b[K");
            clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).ok()
        });
        Display(Some((end, drawer)))
    }

    /// Draws the line once; `elapsed` is the time since the stage began.
    pub fn redraw(there: &mut impl Write, live: &Live, elapsed: Duration) -> std::io::Result<()> {
        write!(there, "\r\x1b[K{}", line(live, elapsed))
    }

    /// Removes the line. Returns the CPU time of the thread (clock_gettime(2),
    /// CLOCK_THREAD_CPUTIME_ID), or `None` if nothing was drawn.
    pub fn end(mut self) -> Option<Duration> {
        self.finish()
    }

    fn finish(&mut self) -> Option<Duration> {
        let (end, drawer) = self.0.take()?;
        drop(end);
        // A panic of the thread does not affect the measurement.
        drawer.join().ok()?
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        let _cpu_time = self.finish();
    }
}

fn line(live: &Live, elapsed: Duration) -> String {
    let seen = live.progress();
    let seconds = elapsed.as_secs_f64();
    let what = match seen.stage {
        Stage::Connecting => return format!("connecting {seconds:.0} s"),
        Stage::WarmingUp => "warming up",
        Stage::Measuring => "measuring",
        Stage::Ending => "ending",
    };
    let (requests, errors) = (render::text::thousands(seen.requests as f64), seen.errors);
    format!("{what} {seconds:.0} s: {requests} requests, {errors} errors")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_going_on() {
        let live = Arc::new(Live::default());
        assert_eq!(line(&live, Duration::from_secs(3)), "connecting 3 s");
        // Without a terminal nothing is drawn.
        assert_eq!(Display::start(&live, false).end(), None);
        assert!(Display::draw(&live, std::io::sink()).end().is_some());
    }
}
