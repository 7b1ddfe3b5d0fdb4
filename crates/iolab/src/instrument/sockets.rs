//! The same sockets for everybody: what one option that nobody looks at is, and is worth.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use load::Observer;
use procfs::net::{TcpNetEntry, TcpState};

use super::lab::{Lab, SHORT};
use super::{Seen, Stop, Trap};
use rig::{diag, environment};

/// The checks of this file.
pub const TRAPS: &[Trap] = &[Trap {
    name: "same-sockets",
    rule: 8,
    claim: "Both ends of every connection here have the same congestion control, by name; a socket \
            that is not asked has the machine's default, which may pace what never leaves it.",
    expected: "the kernel says reno for both ends of all 64 connections of a run, and the default \
               for a listener without the option",
    fails_if: "either end is made without the option, or the kernel's answer is not read",
    takes_s: 1.0,
    check: congestion,
}];

/// The congestion control that servers and client here ask for.
const OURS: &str = "reno";

fn congestion(lab: &mut Lab) -> Result<Seen, Stop> {
    let default = environment::sysctl("net.ipv4.tcp_congestion_control").unwrap_or_default();
    if default == OURS {
        return Err(Stop::Skip(format!(
            "{OURS} is the default of this machine, so that no option can be seen to be set \
             (sysctl -w net.ipv4.tcp_congestion_control=cubic)"
        )));
    }
    let plain = end_of_a_plain_listener()?;
    let (ours, asked, of) = ends_with(lab, OURS)?;
    Ok(Seen::new(
        ours == of && asked == of && plain == default,
        format!(
            "{ours} of {of} ends have {OURS}, although the default is {default}; a listener \
             without the option has {plain}"
        ),
    )
    .figure("ends_with_reno", f64::from(ours))
    .figure("ends", f64::from(of))
    .wrong("whatever the machine's default is", plain)
    .right("one choice for both ends", OURS))
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
    let server = lab.start(&lab.found("epoll")?, &lab.workload("http-keepalive")?)?;
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
