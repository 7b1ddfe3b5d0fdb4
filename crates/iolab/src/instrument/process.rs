//! A process and what it remembers.

use std::time::{Duration, Instant};

use record::{MemorySample, Workload};

use super::lab::{Lab, go_on};
use super::{Seen, Stop, Trap};
use crate::bench::server::Server;
use crate::bench::{environment, exchange, sample};
use crate::statistics::median;

/// The checks of this file.
pub const TRAPS: &[Trap] = &[Trap {
    name: "fresh-process",
    rule: 2,
    claim: "A process remembers its last crowd: its heap has grown and stays, so the second sample \
            of one process is not the first.",
    expected: "user memory per connection grows, and by <= 0.5 x as much for the second crowd of a \
               process as for the first (medians of 3 processes)",
    takes_s: 2.0,
    check: fresh_process,
}];

/// A crowd: enough for the pages of its connections to be far more than the noise of a few.
const CONNECTIONS: u32 = 2_000;

/// Growth per connection, in KiB.
#[derive(Debug, Clone, Copy)]
struct Growth {
    /// Pages of the process and their tables.
    user: f64,
    /// Charged by the kernel; `None` where that cannot be told.
    kernel: Option<f64>,
}

fn fresh_process(lab: &mut Lab) -> Result<Seen, Stop> {
    const PROCESSES: usize = 3;
    const RATIO_MAX: f64 = 0.5;
    const DESCRIPTORS_SPARE: u64 = 200;
    let descriptors = environment::raise_descriptor_limit();
    if descriptors < u64::from(CONNECTIONS) + DESCRIPTORS_SPARE {
        return Err(Stop::Skip(format!(
            "{CONNECTIONS} connections need more than {descriptors} descriptors: raise `ulimit -n`"
        )));
    }
    let subject = lab.subject("epoll")?;
    let workload = lab.workload("http-keepalive")?;
    let mut seen: [Vec<Growth>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..PROCESSES {
        let server = lab.start(&subject, "http")?;
        let nobody = greet(&server, &workload)?;
        for seen in &mut seen {
            go_on()?;
            seen.push(crowd(&server, &workload, nobody)?);
        }
        server.stop();
    }
    let user = |of: &[Growth]| median(&of.iter().map(|g| g.user).collect::<Vec<_>>());
    let kernel = |of: &[Growth]| median(&of.iter().filter_map(|g| g.kernel).collect::<Vec<_>>());
    let (Some(first), Some(second)) = (user(&seen[0]), user(&seen[1])) else {
        return Err(Stop::Wrong("no process was measured".into()));
    };
    let charged = match (kernel(&seen[0]), kernel(&seen[1])) {
        (Some(first), Some(second)) => format!("; kernel memory {first:.2} and {second:.2} KiB"),
        _ => String::new(),
    };
    let each = |kib: f64| format!("{kib:.2} KiB/connection");
    Ok(Seen::new(
        first > 0.0 && second <= RATIO_MAX * first,
        format!(
            "{CONNECTIONS} connections: {} the first time, {} the second: {:.2} x{charged}",
            each(first),
            each(second),
            second / first
        ),
    )
    .figure("fresh_kib", first)
    .figure("second_kib", second)
    .figure("ratio", second / first)
    .figure("fresh_kernel_kib", kernel(&seen[0]).unwrap_or(f64::NAN))
    .figure("second_kernel_kib", kernel(&seen[1]).unwrap_or(f64::NAN))
    .wrong("second sample in the same process", each(second))
    .right("fresh process", each(first)))
}

/// One exchange, which brings the pages of the code that it runs. Returns the descriptors of a
/// server without connections: only one that has answered has certainly made all of its own.
fn greet(server: &Server, workload: &Workload) -> Result<usize, Stop> {
    let open = exchange::open_idle(server.address, 1, workload)?;
    let nobody = descriptors(server)? - open.len();
    drop(open);
    settle(server, nobody)?;
    Ok(nobody)
}

/// What a crowd of silent connections adds to a server that has none; it has none again afterwards.
fn crowd(server: &Server, workload: &Workload, nobody: usize) -> Result<Growth, Stop> {
    let before = sample::memory(server);
    let open = exchange::open_idle(server.address, CONNECTIONS, workload)?;
    let after = sample::memory(server);
    drop(open);
    settle(server, nobody)?;
    let each = |kib: f64| kib / f64::from(CONNECTIONS);
    let user = |memory: &MemorySample| (memory.pss_kib + memory.page_tables_kib) as f64;
    let kernel = before.kernel_kib.zip(after.kernel_kib);
    Ok(Growth {
        user: each(user(&after) - user(&before)),
        kernel: kernel.map(|(before, after)| each(after as f64 - before as f64)),
    })
}

/// Waits until the server has closed its ends.
fn settle(server: &Server, nobody: usize) -> Result<(), Stop> {
    /// It takes milliseconds; a loaded machine is allowed for.
    const LIMIT: Duration = Duration::from_secs(5);
    const LOOK_AGAIN: Duration = Duration::from_millis(2);
    let begin = Instant::now();
    loop {
        let open = descriptors(server)?;
        if open <= nobody {
            return Ok(());
        }
        if begin.elapsed() > LIMIT {
            let late = open - nobody;
            return Err(Stop::Wrong(format!("the server kept {late} connections open for 5 s")));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn descriptors(server: &Server) -> Result<usize, Stop> {
    let listed = std::fs::read_dir(format!("/proc/{}/fd", server.pid()));
    Ok(listed.map_err(|error| Stop::Wrong(format!("the server's descriptors: {error}")))?.count())
}
