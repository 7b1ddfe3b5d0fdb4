//! Laws of measuring: what a figure says depends on how it was asked for.

use std::time::Duration;

use rig::slices::requests_per_s;
use verdict::statistics::{Finding, MARGIN};

use crate::turns::{self, Length, Seat, decided, within};
use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[Law {
    id: "L14",
    claim: "The order of two servers can flip between ping-pong and streaming.",
    expected: "of threads, poll, epoll and io_uring there is a pair of which one has the higher \
               rate in ping-pong and the lower one in streaming.",
    source: "PhotonLibOS, network performance",
    shown_by: "iolab bench --models threads,poll,epoll,uring --workloads echo-64,stream-64",
    takes_s: 12.0,
    bounds: &[Bound::at_least("pairs whose order flips", 1.0)],
    measure: flips,
}];

fn flips(lab: &Lab) -> Result<Measured, Reason> {
    const SEATS: [Seat; 4] =
        [Seat::of("threads"), Seat::of("poll"), Seat::of("epoll"), Seat::of("uring")];
    let length = Length { epochs: lab.epochs(), each: Duration::from_millis(200) };
    let loads = [lab.workload("echo-64")?, lab.workload("stream-64")?];
    let seen = turns::take(lab, &SEATS, &loads, length)?;
    let (mut measured, mut pairs) = (Measured::default(), Vec::new());
    for (one, first) in SEATS.iter().enumerate() {
        for (other, second) in SEATS.iter().enumerate().take(one) {
            let [ping, stream] =
                [0, 1].map(|load| decided(&seen[load], one, other, requests_per_s));
            let (ping, stream) = (ping?, stream?);
            let pair = format!("{} : {}", first.label, second.label);
            let both = [ping.finding(MARGIN), stream.finding(MARGIN)];
            if matches!(both, [Finding::More, Finding::Less] | [Finding::Less, Finding::More]) {
                pairs.push(pair.clone());
            }
            measured = measured
                .figure_within(format!("ping-pong, {pair}"), ping.ratio, "", within(&ping))
                .figure_within(format!("streaming, {pair}"), stream.ratio, "", within(&stream));
        }
    }
    let note = match pairs.is_empty() {
        true => "requests/s in slices; no pair flips".to_owned(),
        false => format!("requests/s in slices; these flip: {}", pairs.join(", ")),
    };
    Ok(measured.figure("pairs whose order flips", pairs.len() as f64, "").note(note))
}
