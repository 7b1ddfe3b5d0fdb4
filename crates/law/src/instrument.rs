//! Laws of measuring: what a figure says depends on how it was asked for.

use std::time::Duration;

use load::Silent;
use record::Settings;
use rig::server::Server;
use rig::slices::requests_per_s;
use rig::{engine, trial};
use verdict::statistics::{Finding, MARGIN};

use crate::omission::{P99, Stall};
use crate::turns::{self, Length, Seat, decided, within};
use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[
    Law {
        id: "L14",
        claim: "The order of two servers can flip between ping-pong and streaming.",
        expected: "of threads, poll, epoll and io_uring there is a pair of which one has the \
                   higher rate in ping-pong and the lower one in streaming.",
        source: "PhotonLibOS, network performance",
        shown_by: "iolab bench --models threads,poll,epoll,uring --workloads echo-64,stream-64",
        takes_s: 12.0,
        bounds: &[Bound::at_least("pairs whose order flips", 1.0)],
        measure: flips,
    },
    Law {
        id: "L17",
        claim: "Coordinated omission hides stalls.",
        expected: "of a server that answers nobody for 1.4 s, once, the 99th percentile from the \
                   due time is at least 50 times that from the send.",
        source: "wrk2, README; Tene 2013",
        shown_by: "iolab check-instrument --only coordinated-omission",
        takes_s: 5.0,
        bounds: &[Bound::at_least("p99 from the due time / p99 from the send", 50.0)],
        measure: omission,
    },
];

fn omission(lab: &Lab) -> Result<Measured, Reason> {
    let length = Duration::from_millis(1_400);
    let stall = Stall { rate_per_s: 2_000, length, warm_up_s: 0.2, window_s: 4.0 };
    let found = lab.found(&stall.label())?;
    let workload = stall.workload(lab.workload("http-keepalive")?);
    let arguments = trial::server_arguments(&workload, &found.model, lab.folder(), 0);
    let server = Server::start(&found.executable, &arguments, &lab.settings().server_cores);
    let server = server.map_err(Reason::NotHere)?;
    let (warm_up_s, window_s) = (stall.warm_up_s, stall.window_s);
    let settings = Settings { warm_up_s, window_s, ..lab.settings().clone() };
    let load = engine::run(server.address, &workload, &settings, &mut Silent);
    let load = load.map_err(Reason::NotHere)?;
    server.stop();
    if let Some(why) = &load.invalid {
        return Err(Reason::Skip(format!("the client was too slow for its schedule: {why}")));
    }
    let P99 { due_us, send_us } = Stall::p99(&load).map_err(Reason::NotHere)?;
    Ok(Measured::default()
        .figure("p99 from the due time / p99 from the send", due_us / send_us, "")
        .figure("p99 from the due time", due_us / 1e3, "ms")
        .figure("p99 from the send", send_us / 1e3, "ms"))
}

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
