//! The same sockets for everybody: what one option that nobody looks at is worth.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpCongestion};

use super::lab::{Lab, SHORT, go_on, pin};
use super::{Seen, Stop, Trap, ratio};
use crate::statistics::median;
use crate::text::figure;

/// The checks of this file.
pub const TRAPS: &[Trap] = &[Trap {
    name: "same-sockets",
    rule: 8,
    claim: "Congestion control decides a bulk transfer over loopback, where nothing can be \
            congested; so both ends of every connection here get the same, by name.",
    expected: "reno >= 1.2 x bbr (medians of 5 pairs), and the client says that it used reno",
    takes_s: 4.0,
    check: congestion,
}];

/// The congestion control that servers and client here ask for.
const OURS: &str = "reno";
/// The one that some machines have as their default.
const OTHER: &str = "bbr";

fn congestion(lab: &mut Lab) -> Result<Seen, Stop> {
    const PAIRS: usize = 5;
    const RATIO_MIN: f64 = 1.2;
    let mut seen: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..PAIRS {
        for (name, seen) in [OURS, OTHER].into_iter().zip(&mut seen) {
            go_on()?;
            seen.push(bulk_gbit_per_s(lab, name)?);
        }
    }
    let [ours, other] = seen.map(|rates| median(&rates).unwrap_or(0.0));
    let ratio = ratio(ours, other)?;
    let subject = lab.subject("floor")?;
    let client = lab.trial(&subject, &lab.workload("http-keepalive")?, SHORT)?.load;
    let client = client.congestion_control;
    Ok(Seen::new(
        ratio >= RATIO_MIN && client == OURS,
        format!(
            "{OURS} {} Gbit/s, {OTHER} {} Gbit/s: {} x; the client used {client}",
            figure(ours),
            figure(other),
            figure(ratio)
        ),
    )
    .figure("reno_gbit_per_s", ours)
    .figure("bbr_gbit_per_s", other)
    .figure("ratio", ratio)
    .wrong("whatever the system's default is", format!("{} Gbit/s with {OTHER}", figure(other)))
    .right("one choice for both ends", format!("{} Gbit/s with {OURS}", figure(ours))))
}

/// 64 KiB after 64 KiB from one thread to another over loopback.
fn bulk_gbit_per_s(lab: &Lab, congestion: &str) -> Result<f64, Stop> {
    const TIME: Duration = Duration::from_millis(250);
    const BYTES: usize = 64 * 1024;
    let wrong = |error: std::io::Error| Stop::Wrong(error.to_string());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(wrong)?;
    choose(&listener, congestion)?;
    let address = listener.local_addr().map_err(wrong)?;
    let mut to = TcpStream::connect(address).map_err(wrong)?;
    choose(&to, congestion)?;
    let (mut from, _) = listener.accept().map_err(wrong)?;
    for end in [&to, &from] {
        let used = getsockopt(end, TcpCongestion).map_err(|e| wrong(e.into()))?;
        if used.to_string_lossy().trim_end_matches('\0') != congestion {
            return Err(Stop::Wrong(format!("one end uses {used:?}, not {congestion}")));
        }
    }
    let cores = (lab.server_core(), lab.client_core());
    let reading = std::thread::spawn(move || {
        pin(cores.1);
        let (begin, mut bytes, mut received) = (Instant::now(), vec![0; BYTES], 0_u64);
        loop {
            match from.read(&mut bytes) {
                Ok(0) | Err(_) => {
                    return received as f64 * 8.0 / 1e9 / begin.elapsed().as_secs_f64();
                }
                Ok(read) => received += read as u64,
            }
        }
    });
    let writing = std::thread::spawn(move || {
        pin(cores.0);
        let (begin, bytes) = (Instant::now(), vec![0; BYTES]);
        while begin.elapsed() < TIME {
            to.write_all(&bytes)?;
        }
        Ok(())
    });
    let ended = |_| Stop::Wrong("a thread of the transfer ended".into());
    writing.join().map_err(ended)?.map_err(wrong)?;
    reading.join().map_err(ended)
}

fn choose(socket: &impl std::os::fd::AsFd, congestion: &str) -> Result<(), Stop> {
    setsockopt(socket, TcpCongestion, &congestion.into()).map_err(|errno| match errno {
        Errno::ENOENT => Stop::Skip(format!(
            "{congestion} is not in this kernel (sysctl net.ipv4.tcp_available_congestion_control)"
        )),
        Errno::EPERM => Stop::Skip(format!(
            "{congestion} may not be chosen here \
             (sysctl net.ipv4.tcp_allowed_congestion_control)"
        )),
        errno => Stop::Wrong(format!("cannot choose {congestion}: {errno}")),
    })
}
