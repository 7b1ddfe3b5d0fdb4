//! The same sockets for everybody: what one option that nobody looks at is, and is worth.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use load::Observer;
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpCongestion};
use procfs::net::{TcpNetEntry, TcpState};

use super::lab::{Lab, SHORT, go_on, pin};
use super::{Seen, Stop, Trap, ratio};
use crate::bench::{diag, environment};
use crate::statistics::median;
use crate::text::figure;

/// The checks of this file.
pub const TRAPS: &[Trap] = &[Trap {
    name: "same-sockets",
    rule: 8,
    claim: "Both ends of every connection here have the same congestion control, by name; a socket \
            that is not asked has the machine's default, which may pace what never leaves it.",
    expected: "the kernel says reno for both ends of all 64 connections of a run, and the default \
               for a listener without the option",
    takes_s: 4.0,
    check: congestion,
}];

/// The congestion control that servers and client here ask for.
pub const OURS: &str = "reno";

fn congestion(lab: &mut Lab) -> Result<Seen, Stop> {
    const PAIRS: usize = 5;
    let default = environment::sysctl("net.ipv4.tcp_congestion_control").unwrap_or_default();
    if default == OURS {
        return Err(Stop::Skip(format!(
            "{OURS} is the default of this machine, so that no option can be seen to be set \
             (sysctl -w net.ipv4.tcp_congestion_control=cubic)"
        )));
    }
    let plain = end_of_a_plain_listener()?;
    let (ours, asked, of) = ends_with(lab, OURS)?;
    let mut rates: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..PAIRS {
        for (name, rates) in [OURS, &default].into_iter().zip(&mut rates) {
            go_on()?;
            rates.push(bulk_gbit_per_s(lab, name)?);
        }
    }
    let [chosen, by_default] = rates.map(|rates| median(&rates).unwrap_or(0.0));
    let ratio = ratio(chosen, by_default)?;
    Ok(Seen::new(
        ours == of && asked == of && plain == default,
        format!(
            "{ours} of {of} ends have {OURS}, although the default is {default}; a listener \
             without the option has {plain}; 64 KiB after 64 KiB go {} x as fast",
            figure(ratio)
        ),
    )
    .figure("ends_with_reno", f64::from(ours))
    .figure("ends", f64::from(of))
    .figure("bulk_reno_gbit_per_s", chosen)
    .figure("bulk_default_gbit_per_s", by_default)
    .figure("bulk_ratio", ratio)
    .wrong(
        "whatever the machine's default is",
        format!("{} Gbit/s with {default}", figure(by_default)),
    )
    .right("one choice for both ends", format!("{} Gbit/s with {OURS}", figure(chosen))))
}

/// Asks the kernel for both ends of each connection of a run, when its window begins.
struct Ends {
    server: SocketAddr,
    /// The congestion control of each end, where the kernel tells.
    names: Vec<Option<String>>,
}

impl Observer for Ends {
    fn window_started(&mut self) {
        let server = self.server;
        // No list leaves no names, which is told.
        let all = procfs::net::tcp().unwrap_or_default();
        // The client's probe may still be closing.
        let open = |socket: &&TcpNetEntry| socket.state == TcpState::Established;
        for client in all.iter().filter(|socket| socket.remote_address == server).filter(open) {
            let client = client.local_address;
            self.names.push(diag::congestion_control(server, client));
            self.names.push(diag::congestion_control(client, server));
        }
    }

    fn window_ended(&mut self) {}
}

/// Of the ends of a run's connections: how many have this congestion control, how many there were,
/// and how many there should have been.
fn ends_with(lab: &Lab, name: &str) -> Result<(u32, u32, u32), Stop> {
    let server = lab.start(&lab.subject("epoll")?, "http")?;
    let plan = lab.plan(server.address, "/", SHORT)?;
    let mut ends = Ends { server: server.address, names: Vec::new() };
    load::run(&plan, &mut ends).map_err(|error| Stop::Wrong(error.to_string()))?;
    server.stop();
    let have = |end: &&Option<String>| end.as_deref() == Some(name);
    let ours = ends.names.iter().filter(have).count() as u32;
    Ok((ours, ends.names.len() as u32, 2 * plan.connections))
}

/// The server's end where nobody chose.
fn end_of_a_plain_listener() -> Result<String, Stop> {
    let wrong = |error: std::io::Error| Stop::Wrong(error.to_string());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(wrong)?;
    let server = listener.local_addr().map_err(wrong)?;
    let client = TcpStream::connect(server).map_err(wrong)?;
    let (_server_end, _) = listener.accept().map_err(wrong)?;
    diag::congestion_control(server, client.local_addr().map_err(wrong)?).ok_or_else(|| {
        Stop::Skip("the kernel does not tell of its sockets (CONFIG_INET_DIAG)".into())
    })
}

/// A connection over loopback whose two ends have this congestion control.
pub fn connection(congestion: &str) -> Result<(TcpStream, TcpStream), Stop> {
    let wrong = |error: std::io::Error| Stop::Wrong(error.to_string());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(wrong)?;
    choose(&listener, congestion)?;
    let address = listener.local_addr().map_err(wrong)?;
    let to = TcpStream::connect(address).map_err(wrong)?;
    choose(&to, congestion)?;
    let (from, _) = listener.accept().map_err(wrong)?;
    for end in [&to, &from] {
        let used = getsockopt(end, TcpCongestion).map_err(|e| wrong(e.into()))?;
        if used.to_string_lossy().trim_end_matches('\0') != congestion {
            return Err(Stop::Wrong(format!("one end uses {used:?}, not {congestion}")));
        }
    }
    Ok((to, from))
}

/// 64 KiB after 64 KiB from one thread to another over loopback.
fn bulk_gbit_per_s(lab: &Lab, congestion: &str) -> Result<f64, Stop> {
    const TIME: Duration = Duration::from_millis(250);
    const BYTES: usize = 64 * 1024;
    let wrong = |error: std::io::Error| Stop::Wrong(error.to_string());
    let (mut to, mut from) = connection(congestion)?;
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
