//! Laws of a crowd: one client speaks, and thousands are silent.

use std::time::Duration;

use record::Workload;
use rig::slices::{Epoch, requests_per_s, server_us};
use verdict::statistics::{BlockRatio, log_ratio, median};

use crate::turns::{self, Length, Seat, decided, within};
use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[
    Law {
        id: "L1",
        claim: "The cost of select and poll grows with the descriptors watched.",
        expected: "the log-log slope of what watching adds to a request is 0.9 to 1.5: for poll \
                   from 100 to 10,000 idle connections, for select from 100 to 900.",
        source: "Kerrisk, The Linux Programming Interface, table 63-9; the notes",
        shown_by: "iolab experiment crowd",
        takes_s: 55.0,
        bounds: &[
            Bound::between("slope of poll", 0.9, 1.5),
            Bound::between("slope of select", 0.9, 1.5),
        ],
        measure: slopes,
    },
    Law {
        id: "L2",
        claim: "The cost of epoll does not grow with the descriptors watched: it returns only \
                what is ready.",
        expected: "a request beside 10,000 idle connections costs less than 10 times one beside \
                   10, and at most a 50th of what it costs poll.",
        source: "Kerrisk, The Linux Programming Interface, table 63-9; the notes",
        shown_by: "iolab experiment crowd",
        takes_s: 1.0,
        bounds: &[
            Bound::at_most("epoll: cost beside 10,000 / cost beside 10", 10.0),
            Bound::at_least("cost beside 10,000: poll / epoll", 50.0),
        ],
        measure: flat,
    },
    Law {
        id: "L4",
        claim: "10,000 idle connections cripple poll, and not epoll or io_uring.",
        expected: "with 64 active connections the rate of poll is at most 0.5 of that without \
                   idle ones, that of epoll and io_uring 0.9 to 1.1 (select ends before, L5).",
        source: "Gammo, Brecht, Shukla, Pariag, OLS 2004",
        shown_by: "iolab experiment crowd",
        takes_s: 1.0,
        bounds: &[
            Bound::at_most("poll: rate beside 10,000 / rate beside none", 0.5),
            Bound::between("epoll: rate beside 10,000 / rate beside none", 0.9, 1.1),
            Bound::between("uring: rate beside 10,000 / rate beside none", 0.9, 1.1),
        ],
        measure: crippled,
    },
];

const FEW: u32 = 100;
const MANY: u32 = 10_000;
/// As many as select(2) has, with room for the active connections and the server's own.
const SELECT_MANY: u32 = 900;

/// All servers alive at once: 41,000 idle connections.
const SEATS: [Seat; 11] = [
    Seat::of("select"),
    Seat::with_idle("select", FEW),
    Seat::with_idle("select", SELECT_MANY),
    Seat::of("poll"),
    Seat::with_idle("poll", FEW),
    Seat::with_idle("poll", MANY),
    Seat::of("epoll"),
    Seat::with_idle("epoll", 10),
    Seat::with_idle("epoll", MANY),
    Seat::of("uring"),
    Seat::with_idle("uring", MANY),
];

/// An epoch opens all those connections, which takes longer than the load: fewer than elsewhere.
const LENGTH: Length = Length { epochs: 5, each: Duration::from_millis(200) };

/// The epochs of one measurement, which three laws share.
#[derive(Debug)]
pub struct Crowd {
    /// One active connection.
    one: Vec<Epoch>,
    /// 64 of them.
    many: Vec<Epoch>,
}

fn crowd(lab: &Lab) -> Result<&Crowd, Reason> {
    lab.crowd(|| {
        let many = lab.workload("http-keepalive")?;
        let one = Workload { connections: 1, ..many.clone() };
        let mut seen = turns::take(lab, &SEATS, &[one, many], LENGTH)?.into_iter();
        let mut next = || seen.next().unwrap_or_default();
        Ok(Crowd { one: next(), many: next() })
    })
}

/// The place of a server.
fn at(label: &str, idle: u32) -> usize {
    let place = SEATS.iter().position(|seat| seat.label == label && seat.idle == idle);
    place.expect("a constant of this file")
}

fn slopes(lab: &Lab) -> Result<Measured, Reason> {
    let crowd = crowd(lab)?;
    let mut measured = Measured::default();
    for (label, many) in [("poll", MANY), ("select", SELECT_MANY)] {
        let (slope, interval) = slope(&crowd.one, label, many)?;
        measured = measured.figure_within(format!("slope of {label}"), slope, "", interval);
        for idle in [0, FEW, many] {
            let cost = turns::typical(&crowd.one, at(label, idle), server_us);
            let name = format!("{label} beside {idle}");
            measured = measured.figure(name, cost.unwrap_or(f64::NAN), "us");
        }
    }
    Ok(measured.note("server CPU for a request of the only active connection, in slices"))
}

/// Of the cost that idle connections add, in each epoch. Where nothing is added the slope is 0.
fn slope(epochs: &[Epoch], label: &str, many: u32) -> Result<(f64, Option<(f64, f64)>), Reason> {
    let [none, few, most] = [0, FEW, many].map(|idle| at(label, idle));
    let added = |epoch: &Epoch, seat: usize| {
        let differences = epoch.blocks.iter().filter_map(|block| {
            let of = |seat: usize| block[seat].as_ref().and_then(server_us);
            Some(of(seat)? - of(none)?)
        });
        median(&differences.collect::<Vec<_>>())
    };
    let growth = |epoch: &Epoch| {
        let growth = log_ratio(added(epoch, most)?, added(epoch, few)?);
        Some(vec![growth.unwrap_or(0.0)])
    };
    let growths: Vec<_> = epochs.iter().filter_map(growth).collect();
    let ratio = BlockRatio::of(&growths)
        .ok_or_else(|| Reason::Fault("too few epochs with a whole block".to_owned()))?;
    let decades = f64::from(many / FEW).ln();
    let slope = |ratio: f64| ratio.ln() / decades;
    Ok((slope(ratio.ratio), Some((slope(ratio.inner.low), slope(ratio.inner.high)))))
}

fn flat(lab: &Lab) -> Result<Measured, Reason> {
    let one = &crowd(lab)?.one;
    let (few, many) = (at("epoll", 10), at("epoll", MANY));
    let growth = decided(one, many, few, server_us)?;
    let poll = decided(one, at("poll", MANY), many, server_us)?;
    Ok(Measured::default()
        .figure_within(
            "epoll: cost beside 10,000 / cost beside 10",
            growth.ratio,
            "",
            within(&growth),
        )
        .figure_within("cost beside 10,000: poll / epoll", poll.ratio, "", within(&poll))
        .note("server CPU for a request of the only active connection, in slices; with L1"))
}

fn crippled(lab: &Lab) -> Result<Measured, Reason> {
    let many = &crowd(lab)?.many;
    let mut measured = Measured::default();
    for label in ["poll", "epoll", "uring"] {
        let ratio = decided(many, at(label, MANY), at(label, 0), requests_per_s)?;
        let name = format!("{label}: rate beside 10,000 / rate beside none");
        measured = measured.figure_within(name, ratio.ratio, "", within(&ratio));
    }
    Ok(measured.note("requests/s in slices, of two processes of the same server; with L1"))
}

#[cfg(test)]
mod tests {
    use load::Slice;
    use record::Standing;

    use super::*;
    use crate::decide;

    /// Epochs in which a request of each seat costs so many microseconds.
    fn epochs(cost_us: fn(&Seat) -> f64) -> Vec<Epoch> {
        let slice = |seat: &Seat| {
            let server_cpu_ns = Some((1e3 * 100.0 * cost_us(seat)) as u64);
            Some(Slice { requests: 100, elapsed_ns: 5_000_000, server_cpu_ns, ..Slice::default() })
        };
        let block = || SEATS.iter().map(slice).collect::<Vec<_>>();
        let epoch = || Epoch { blocks: vec![block(), block()], ..Epoch::default() };
        (0..3).map(|_| epoch()).collect()
    }

    /// How L1 stands with these costs.
    fn standing(cost_us: fn(&Seat) -> f64) -> Standing {
        let epochs = epochs(cost_us);
        let of = |label, many| slope(&epochs, label, many).unwrap();
        let ((poll, poll_within), (select, select_within)) =
            (of("poll", MANY), of("select", SELECT_MANY));
        let measured = Measured::default()
            .figure_within("slope of poll", poll, "", poll_within)
            .figure_within("slope of select", select, "", select_within);
        decide(LAWS[0].bounds, &mut { measured.figures })
    }

    #[test]
    fn a_cost_for_each_descriptor_has_the_slope_one_and_a_flat_one_has_none() {
        assert_eq!(standing(|seat| 20.0 + 0.05 * f64::from(seat.idle)), Standing::Holds);
        let told = |standing| match standing {
            Standing::NotHere(why) => why,
            other => panic!("{other:?}"),
        };
        let flat = told(standing(|_| 20.0));
        assert!(flat.contains("slope of poll is 0"), "{flat}");
        // Twice the descriptors, four times the cost.
        let square = told(standing(|seat| 20.0 + 1e-4 * f64::from(seat.idle).powi(2)));
        assert!(square.contains("slope of poll is 2"), "{square}");
    }
}
