//! The law of a cold file: a call that reads from the disk waits, whatever the socket does.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use rig::client::{self, Client};
use rig::cold::{BYTES_PER_S, ColdFile, FILE_BYTES, NoFile, READ_BYTES};

use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[Law {
    id: "L29",
    claim: "A readiness call on a regular file never waits, so the read does; only io_uring reads \
            files asynchronously.",
    expected: "while a client is sent a file that is not in memory, the longest wait of another \
               client of epoll is at least 5 times that beside a warm file, and that of a client \
               of the pool or of io_uring at most half of epoll's; that client of epoll has at \
               most 2 answers for each part of the file that is read.",
    source: "epoll(7) (EPERM), io_uring(7)",
    shown_by: "iolab experiment cold-file",
    takes_s: 5.0,
    bounds: &[
        Bound::at_most("epoll: answers for each part of the cold file", 2.0),
        Bound::at_least("epoll: longest wait, cold / warm", 5.0),
        Bound::at_most("longest wait, cold: pool / epoll", 0.5),
        Bound::at_most("longest wait, cold: uring / epoll", 0.5),
    ],
    measure: cold_file,
}];

const NAME: &str = "cold.bin";

impl From<NoFile> for Reason {
    fn from(none: NoFile) -> Reason {
        match none {
            NoFile::Skip(why) => Reason::Skip(why),
            NoFile::Failed(why) => Reason::Fault(why),
        }
    }
}

/// What another client sees while one is sent the file.
struct Meanwhile {
    longest: Duration,
    answers: u32,
}

impl Meanwhile {
    fn answers_each_part(&self) -> f64 {
        f64::from(self.answers) / (FILE_BYTES / READ_BYTES) as f64
    }
}

fn cold_file(lab: &Lab) -> Result<Measured, Reason> {
    let root = lab.folder().join("cold");
    fs::create_dir_all(&root)?;
    let file = ColdFile::create(&root.join(NAME))?;
    let mut waits = Vec::new();
    for label in ["epoll", "pool", "uring"] {
        let server = lab.start(label, &["--root", &root.display().to_string()])?;
        let warm = meanwhile(server.address, &file, false)?;
        let slow = file.slow_down(&server.processes())?;
        let cold = meanwhile(server.address, &file, true)?;
        drop(slow);
        server.stop();
        waits.push((label, warm, cold));
    }
    let ms = |seen: &Meanwhile| seen.longest.as_secs_f64() * 1e3;
    let measured = waits.iter().fold(Measured::default(), |all, (label, warm, cold)| {
        all.figure(format!("{label}: longest wait, warm"), ms(warm), "ms")
            .figure(format!("{label}: longest wait, cold"), ms(cold), "ms")
            .figure(
                format!("{label}: answers for each part of the cold file"),
                cold.answers_each_part(),
                "",
            )
    });
    let ratio = |one: &Meanwhile, other: &Meanwhile| ms(one) / ms(other);
    let [(_, warm, cold), (_, _, pool), (_, _, uring)] = &waits[..] else {
        return Err(Reason::Fault("three servers have three waits".to_owned()));
    };
    Ok(measured
        .figure("epoll: longest wait, cold / warm", ratio(cold, warm), "")
        .figure("longest wait, cold: pool / epoll", ratio(pool, cold), "")
        .figure("longest wait, cold: uring / epoll", ratio(uring, cold), "")
        .note(format!(
            "a file of {FILE_BYTES} bytes; where the kernel allows it a server is held to \
             {BYTES_PER_S} bytes/s from the disk (cgroups(7), blkio)"
        )))
}

/// What a client that asks for `/` sees while another is sent the file.
fn meanwhile(address: SocketAddr, file: &ColdFile, cold: bool) -> Result<Meanwhile, Reason> {
    let mut other = Client::open(address)?;
    let mut reader = Client::open(address)?;
    other.get("/")?;
    // The reads of a warm file come from memory.
    reader.get(&format!("/files/{NAME}"))?;
    if cold {
        file.cool()?;
    }
    let reading = std::thread::spawn(move || {
        let read = reader.get(&format!("/files/{NAME}"));
        (reader, read)
    });
    // Asked once at least: the file may be there before this thread runs.
    let mut seen = Meanwhile { longest: other.get("/")?, answers: 1 };
    while !reading.is_finished() {
        seen.longest = seen.longest.max(other.get("/")?);
        seen.answers += 1;
    }
    let ended = |_| Reason::Fault("the reader has ended".to_owned());
    let (reader, read) = reading.join().map_err(ended)?;
    read?;
    client::part(vec![reader, other]);
    Ok(seen)
}
