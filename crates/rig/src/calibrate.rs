//! The cost of basic operations on this machine. man: getppid(2), clock_gettime(2), eventfd(2).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::EventFd;
use nix::unistd::Pid;
use record::Calibration;
use socket2::SockRef;

use crate::sys;

/// The congestion control of all measured sockets; see `exchange`.
const CONGESTION_CONTROL: &[u8] = b"reno";
const MESSAGE_BYTES: usize = 64;
/// Operations that are timed together, so that the cost of reading the clock is negligible.
const BATCH: u32 = 10_000;
/// Number of batches; the result is their median.
const BATCHES: usize = 15;
/// Round trips timed one by one.
const ROUND_TRIPS: usize = 1_000;

/// Takes about 0.3 s. The threads of a pair run on the cores of server and client.
pub fn calibrate(server_core: Option<u32>, client_core: Option<u32>) -> Calibration {
    let cores = (server_core, client_core);
    Calibration {
        // A failure reads 0, like all unknown figures here.
        null_syscall_ns: batches_of(null_syscall).unwrap_or(0.0),
        clock_read_ns: batches_of(|| {
            std::hint::black_box(Instant::now());
            Ok(())
        })
        .unwrap_or(0.0),
        wake_up_us: wake_up_us(cores).unwrap_or(0.0),
        loopback_round_trip_us: round_trip_us(cores).unwrap_or(0.0),
    }
}

fn null_syscall() -> std::io::Result<()> {
    sys::null_syscall();
    Ok(())
}

/// The median time of an operation, in nanoseconds. The first batch is discarded: caches and TCP
/// windows fill.
fn batches_of(mut operation: impl FnMut() -> std::io::Result<()>) -> std::io::Result<f64> {
    let mut batches = Vec::with_capacity(BATCHES);
    for batch in 0..=BATCHES {
        let begin = Instant::now();
        for _ in 0..BATCH {
            operation()?;
        }
        if batch > 0 {
            batches.push(begin.elapsed().as_nanos() as f64 / f64::from(BATCH));
        }
    }
    Ok(middle(batches))
}

/// Both ends of a loopback connection, with the options of all measured sockets.
fn connected() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    for end in [&client, &server] {
        end.set_nodelay(true)?;
        // A kernel without it uses its default, which the result file records.
        let _ = SockRef::from(end).set_tcp_congestion(CONGESTION_CONTROL);
    }
    Ok((client, server))
}

/// Half of a round trip over two eventfds.
fn wake_up_us(cores: (Option<u32>, Option<u32>)) -> nix::Result<f64> {
    let (there, back) = (EventFd::new()?, EventFd::new()?);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(cores.0);
            for _ in 0..ROUND_TRIPS {
                if there.read().and_then(|_| back.write(1)).is_err() {
                    return;
                }
            }
        });
        let timed = scope.spawn(|| {
            pin(cores.1);
            time_us(|| there.write(1).and_then(|_| back.read()).map(drop).map_err(Into::into))
        });
        Ok(timed.join().ok().and_then(Result::ok).unwrap_or(0.0) / 2.0)
    })
}

/// A round trip of 64 bytes between two blocking sockets.
fn round_trip_us(cores: (Option<u32>, Option<u32>)) -> std::io::Result<f64> {
    let (mut client, mut server) = connected()?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin(cores.0);
            let mut bytes = [0; MESSAGE_BYTES];
            // Ends when the client closes.
            while server.read_exact(&mut bytes).and_then(|()| server.write_all(&bytes)).is_ok() {}
        });
        let timed = scope.spawn(move || {
            pin(cores.1);
            let mut bytes = [7; MESSAGE_BYTES];
            time_us(|| client.write_all(&bytes).and_then(|()| client.read_exact(&mut bytes)))
        });
        Ok(timed.join().ok().and_then(Result::ok).unwrap_or(0.0))
    })
}

/// The median. With so many values either of two middle ones will do.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn time_us(mut round_trip: impl FnMut() -> std::io::Result<()>) -> std::io::Result<f64> {
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let begin = Instant::now();
        round_trip()?;
        times.push(begin.elapsed().as_nanos() as f64 / 1_000.0);
    }
    Ok(middle(times))
}

/// Pins the calling thread. If that is not permitted the figure is that of unpinned threads.
fn pin(core: Option<u32>) {
    let mut set = CpuSet::new();
    if core.is_some_and(|core| set.set(core as usize).is_ok()) {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_figure_is_measured() {
        let c = super::calibrate(None, None);
        assert!(c.null_syscall_ns > 0.0 && c.clock_read_ns > 0.0, "{c:?}");
        assert!(c.wake_up_us > 0.0 && c.loopback_round_trip_us > 0.0, "{c:?}");
    }
}
