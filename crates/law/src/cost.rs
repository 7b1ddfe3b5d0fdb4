//! Laws of what a thread costs: to start it, to keep it, to switch to it.

use std::time::Duration;

use record::Workload;
use rig::hold::{self, Holder, Opening};
use rig::sample;
use rig::slices::{Epoch, requests_per_s, server_us};
use verdict::statistics::median;

use crate::turns::{self, Length, Seat, decided, within};
use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[
    Law {
        id: "L6",
        claim: "A pool removes the cost of creating a thread for each connection.",
        expected: "of a connection's CPU beyond that of the serial server, the pool has at most a \
                   fifth of what threads has.",
        source: "Stevens, UNP chapter 30 (10 times or more)",
        shown_by: "iolab bench --models serial,threads,pool --workloads http-connect",
        takes_s: 10.0,
        bounds: &[Bound::at_most("process control: pool / threads", 0.2)],
        measure: creating_a_thread,
    },
    Law {
        id: "L7",
        claim: "A thread costs tens of KiB for a connection, an event loop less than 1 KiB of its \
                own.",
        expected: "from 0 to 5,000 idle connections threads grows by 10 to 100 KiB for each, with \
                   the kernel's part; epoll by less than 1 KiB, without it.",
        source: "jimblandy, context-switch (20 KiB and 0.4 KiB); nginx (10,000 in 2.5 MB)",
        shown_by: "iolab experiment memory",
        takes_s: 7.0,
        bounds: &[
            Bound::between("threads, for a connection", 10.0, 100.0),
            Bound::at_most("epoll, for a connection", 1.0),
        ],
        measure: memory_of_a_connection,
    },
    Law {
        id: "L8",
        claim: "Switches caused by I/O cost the same for threads and tasks.",
        expected: "the CPU for an echo of threads is 0.7 to 1.3 of tokio's with 1, 8 and 50 \
                   connections, both on one core.",
        source: "jimblandy, context-switch (1.7 us both)",
        shown_by: "iolab bench --models threads,tokio --workloads echo-64",
        takes_s: 12.0,
        bounds: &[
            Bound::between("threads : tokio, 1 connection", 0.7, 1.3),
            Bound::between("threads : tokio, 8 connections", 0.7, 1.3),
            Bound::between("threads : tokio, 50 connections", 0.7, 1.3),
        ],
        measure: threads_and_tasks,
    },
    Law {
        id: "L9",
        claim: "Events beat tuned threads modestly.",
        expected: "with 64 connections the rate of epoll is 1.0 to 1.6 of that of a pool with a \
                   thread for each.",
        source: "Pariag et al., EuroSys 2007 (18 %)",
        shown_by: "iolab bench --models pool,epoll --workloads http-keepalive",
        takes_s: 6.0,
        bounds: &[Bound::between("rate, epoll : pool", 1.0, 1.6)],
        measure: events_and_threads,
    },
];

/// One connection at a time: a serial server has no more.
fn creating_a_thread(lab: &Lab) -> Result<Measured, Reason> {
    const SEATS: [Seat; 3] = [Seat::of("serial"), Seat::of("threads"), Seat::of("pool")];
    let length = Length { epochs: lab.epochs(), each: Duration::from_millis(300) };
    let workload = Workload { connections: 1, ..lab.workload("http-connect")? };
    let epochs = turns::take(lab, &SEATS, &[workload], length)?.remove(0);
    // Beyond the serial server, within each block.
    let beyond = |epoch: &Epoch, seat: usize| {
        let cost =
            |block: &[Option<load::Slice>], seat: usize| block[seat].as_ref().and_then(server_us);
        let blocks = epoch.blocks.iter();
        let each = blocks.filter_map(|block| Some(cost(block, seat)? - cost(block, 0)?));
        median(&each.collect::<Vec<_>>())
    };
    let share = |epoch: &Epoch| Some(beyond(epoch, 2)? / beyond(epoch, 1)?);
    let shares: Vec<_> = epochs.iter().filter_map(share).collect();
    let share = median(&shares)
        .ok_or_else(|| Reason::Fault("no block in which every server answered".to_owned()))?;
    let mut measured = Measured::default().figure("process control: pool / threads", share, "");
    for (seat, Seat { label, .. }) in SEATS.iter().enumerate() {
        let cost = turns::typical(&epochs, seat, server_us).unwrap_or(f64::NAN);
        measured = measured.figure(format!("{label}, for a connection"), cost, "us");
    }
    Ok(measured.note("server CPU for a connection with one request, in slices"))
}

/// Memory that grows with the connections, in KiB for each: of the process (with its page tables),
/// and what the kernel has charged to its cgroup.
fn growth(lab: &Lab, label: &str, connections: u32) -> Result<(f64, Option<f64>), Reason> {
    let most = (connections + 64).to_string();
    let server = lab.start(label, &["--idle-timeout", "600s", "--conns-max", &most])?;
    let (address, workload) = (server.address, lab.workload("http-keepalive")?);
    let executable = hold::executable().map_err(Reason::Skip)?;
    let first = Opening { address, connections: 1, workload: workload.clone() };
    let not_here = |why: String| Reason::NotHere(format!("{label}: {why}"));
    // What the first connection brings with it is not in the slope.
    let mut one = Holder::open(&executable, &first).map_err(not_here)?;
    let before = sample::memory(&server);
    let all = Opening { address, connections, workload };
    let mut holder = Holder::open(&executable, &all).map_err(not_here)?;
    let after = sample::memory(&server);
    one.leave();
    holder.leave();
    server.stop();
    let each = |after: u64, before: u64| (after as f64 - before as f64) / f64::from(connections);
    let kernel = after.kernel_kib.zip(before.kernel_kib);
    // Page tables are in both: here they are the process's.
    let tables = each(after.page_tables_kib, before.page_tables_kib);
    let own = each(after.pss_kib, before.pss_kib) + tables;
    Ok((own, kernel.map(|(after, before)| each(after, before) - tables)))
}

fn memory_of_a_connection(lab: &Lab) -> Result<Measured, Reason> {
    const CONNECTIONS: u32 = 5_000;
    let (threads, threads_kernel) = growth(lab, "threads", CONNECTIONS)?;
    let (epoll, epoll_kernel) = growth(lab, "epoll", CONNECTIONS)?;
    let kernel = |kib: Option<f64>| kib.unwrap_or(f64::NAN);
    Ok(Measured::default()
        .figure("threads, for a connection", threads + threads_kernel.unwrap_or(0.0), "KiB")
        .figure("epoll, for a connection", epoll, "KiB")
        .figure("threads: the process's part", threads, "KiB")
        .figure("threads: the kernel's part", kernel(threads_kernel), "KiB")
        .figure("epoll: the kernel's part", kernel(epoll_kernel), "KiB")
        .note("the kernel's part has the socket and its file in it, for both alike"))
}

fn threads_and_tasks(lab: &Lab) -> Result<Measured, Reason> {
    const SEATS: [Seat; 2] = [Seat::of("threads"), Seat::of("tokio")];
    let length = Length { epochs: lab.epochs(), each: Duration::from_millis(200) };
    let base = lab.workload("echo-64")?;
    let loads = [1, 8, 50].map(|connections| Workload { connections, ..base.clone() });
    let seen = turns::take(lab, &SEATS, &loads, length)?;
    let mut measured = Measured::default();
    for (load, epochs) in loads.iter().zip(&seen) {
        let ratio = decided(epochs, 0, 1, server_us)?;
        let plural = if load.connections == 1 { "" } else { "s" };
        let name = format!("threads : tokio, {} connection{plural}", load.connections);
        measured = measured.figure_within(name, ratio.ratio, "", within(&ratio));
    }
    Ok(measured.note("server CPU for an echo of 64 bytes, in slices"))
}

fn events_and_threads(lab: &Lab) -> Result<Measured, Reason> {
    const SEATS: [Seat; 2] = [Seat::of("epoll"), Seat::of("pool+threads=64")];
    let length = Length { epochs: lab.epochs(), each: Duration::from_millis(250) };
    // One connection is that of the client's probe, which comes first and leaves.
    let workload = Workload { connections: 64, ..lab.workload("http-keepalive")? };
    let epochs = turns::take(lab, &SEATS, &[workload], length)?.remove(0);
    let rate = decided(&epochs, 0, 1, requests_per_s)?;
    let cpu = decided(&epochs, 0, 1, server_us)?;
    Ok(Measured::default()
        .figure_within("rate, epoll : pool", rate.ratio, "", within(&rate))
        .figure_within("server CPU, epoll : pool", cpu.ratio, "", within(&cpu))
        .note("in slices"))
}
