//! Who is billed for the work of TCP when both ends are on one machine.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::lab::{Lab, cpu_of, pin};
use super::{Seen, Stop, Trap, ratio, sockets};
use crate::statistics::median;
use crate::text::figure;

/// The checks of this file.
pub const TRAPS: &[Trap] = &[Trap {
    name: "ledger-sum",
    rule: 6,
    claim: "Over loopback the sender of a message is billed for the receiver's TCP work too, so \
            one side's CPU alone says little, and the sum is what a message cost.",
    expected: "the sender's share of the sum >= 75 % (over a wire about half of the TCP work is \
               the receiver's)",
    takes_s: 1.0,
    check: bill,
}];

/// As many as the receiver's buffer takes many times over, so that none waits for a reader.
const MESSAGES: usize = 64;
/// The payload of the small workloads.
const BYTES: usize = 64;

fn bill(lab: &mut Lab) -> Result<Seen, Stop> {
    const SHARE_MIN: f64 = 0.75;
    let core = lab.server_core();
    let billing = std::thread::spawn(move || {
        pin(core);
        repeat()
    });
    let ended = |_| Stop::Wrong("the thread of the transfer ended".into());
    let billed = billing.join().map_err(ended)??;
    let middle = |pick: fn(&Billed) -> f64| {
        median(&billed.iter().map(pick).collect::<Vec<_>>()).unwrap_or(0.0)
    };
    let (send_us, receive_us) = (middle(|b| b.send_us), middle(|b| b.receive_us));
    let (sum_us, share) =
        (middle(Billed::sum_us), middle(|billed| billed.send_us / billed.sum_us()));
    ratio(send_us, receive_us)?;
    Ok(Seen::new(
        share >= SHARE_MIN,
        format!(
            "{} us for sending 64 bytes, {} us for receiving them: the sender's share is {:.0} %",
            figure(send_us),
            figure(receive_us),
            share * 100.0
        ),
    )
    .figure("send_us", send_us)
    .figure("receive_us", receive_us)
    .figure("sum_us", sum_us)
    .figure("sender_share", share)
    .figure("repetitions", billed.len() as f64)
    .wrong("the sending side alone", format!("{} us a message", figure(send_us)))
    .right(
        "both sides",
        format!("{} us, {:.0} % of it billed to the sender", figure(sum_us), share * 100.0),
    ))
}

/// CPU time per message.
struct Billed {
    send_us: f64,
    receive_us: f64,
}

impl Billed {
    fn sum_us(&self) -> f64 {
        self.send_us + self.receive_us
    }
}

/// One thread is both sides, one after the other, so its clock tells them apart.
fn repeat() -> Result<Vec<Billed>, Stop> {
    const REPETITIONS: usize = 200;
    /// The congestion window grows in these, so that no message waits for an acknowledgement later.
    const WARM_UP: usize = 20;
    const REPETITIONS_MIN: usize = 20;
    let (mut to, mut from) = sockets::connection(sockets::OURS)?;
    for end in [&to, &from] {
        end.set_nodelay(true).map_err(|error| Stop::Wrong(error.to_string()))?;
    }
    let mut billed = Vec::new();
    for repetition in 0..WARM_UP + REPETITIONS {
        let one = once(&mut to, &mut from)?;
        if repetition >= WARM_UP {
            billed.extend(one);
        }
    }
    if billed.len() < REPETITIONS_MIN {
        return Err(Stop::Wrong(format!(
            "in {} of {REPETITIONS} repetitions only had all messages arrived when all were sent",
            billed.len()
        )));
    }
    Ok(billed)
}

/// `None` when a message was still on its way after the sending: somebody else then did work that
/// belongs here.
fn once(to: &mut TcpStream, from: &mut TcpStream) -> Result<Option<Billed>, Stop> {
    let wrong = |error: std::io::Error| Stop::Wrong(format!("the transfer: {error}"));
    let us = |cpu: std::time::Duration| cpu.as_secs_f64() * 1e6 / MESSAGES as f64;
    let message = [0; BYTES];
    let (sent, send) = cpu_of(|| (0..MESSAGES).try_for_each(|_| to.write_all(&message)))?;
    sent.map_err(wrong)?;
    let arrived = from.peek(&mut [0; MESSAGES * BYTES]).map_err(wrong)?;
    let mut taken = [0; BYTES];
    let (received, receive) =
        cpu_of(|| (0..MESSAGES).try_for_each(|_| from.read_exact(&mut taken)))?;
    received.map_err(wrong)?;
    let all = arrived == MESSAGES * BYTES;
    Ok(all.then(|| Billed { send_us: us(send), receive_us: us(receive) }))
}
