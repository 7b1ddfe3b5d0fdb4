//! Laws of threads: who waits for whom, and what a thread costs.

use std::time::{Duration, Instant};

use rig::client::{self, Client};
use rig::sample;

use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[
    Law {
        id: "L20",
        claim: "A limit of 300 connections and 6 per visitor serves 50 visitors.",
        expected: "50 visitors have 300 answers; the 51st has none until one of them leaves, and \
                   is then served.",
        source: "the notes: 300 / 6 = 50",
        shown_by: "iolab experiment visitors",
        takes_s: 1.0,
        bounds: &[
            Bound::exactly("answers of 50 visitors", 300.0),
            Bound::exactly("answers of the 51st while they stay", 0.0),
            Bound::exactly("answers of the 51st after one has left", 6.0),
        ],
        measure: fifty_visitors,
    },
    Law {
        id: "L24",
        claim: "Idle keep-alive connections starve a pool.",
        expected: "of a pool of 4 threads with 4 idle clients, the 5th client waits until the \
                   keep-alive timeout: 0.8 to 1.5 of it.",
        source: "Apache's event MPM exists for this",
        shown_by: "iolab experiment visitors",
        takes_s: 1.0,
        bounds: &[Bound::between("wait of the 5th client / keep-alive timeout", 0.8, 1.5)],
        measure: starved_pool,
    },
    Law {
        id: "L25",
        claim: "In a serial server the n-th visitor waits n times, and an idle visitor stops \
                everybody.",
        expected: "the 8th of 8 visitors at once has its answer after 8 times the service time \
                   (7.8 to 9), and a visitor behind an idle one waits for the keep-alive timeout.",
        source: "the notes: one teacher, one student at a time",
        shown_by: "iolab experiment teacher",
        takes_s: 2.0,
        bounds: &[
            Bound::between("wait of the 8th visitor / service time", 7.8, 9.0),
            Bound::between("wait behind an idle visitor / keep-alive timeout", 0.8, 1.5),
        ],
        measure: the_line,
    },
    Law {
        id: "L26",
        claim: "Many teachers, one for each student; or one teacher who is called.",
        expected: "for 50 clients threads has 50 threads more and epoll none, and all have their \
                   answers after the same time: epoll's is 0.8 to 1.25 of threads'.",
        source: "the notes: thirty students",
        shown_by: "iolab experiment teacher",
        takes_s: 1.0,
        bounds: &[
            Bound::exactly("threads: threads for 50 clients", 50.0),
            Bound::exactly("epoll: threads for 50 clients", 0.0),
            Bound::between("time of all answers: epoll / threads", 0.8, 1.25),
        ],
        measure: teachers,
    },
];

fn teachers(lab: &Lab) -> Result<Measured, Reason> {
    let (threads, threads_took) = class(lab, "threads")?;
    let (epoll, epoll_took) = class(lab, "epoll")?;
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    Ok(Measured::default()
        .figure("threads: threads for 50 clients", threads, "")
        .figure("epoll: threads for 50 clients", epoll, "")
        .figure("time of all answers: epoll / threads", ms(epoll_took) / ms(threads_took), "")
        .figure("threads: time of all answers", ms(threads_took), "ms")
        .figure("epoll: time of all answers", ms(epoll_took), "ms")
        .note("each client asks for an answer that takes 100 ms"))
}

/// Threads that 50 clients add, and the time in which all of them have their answers.
fn class(lab: &Lab, label: &str) -> Result<(f64, Duration), Reason> {
    const STUDENTS: usize = 50;
    const PATH: &str = "/delay/100";
    let server = lab.start(label, &["--idle-timeout", "600s"])?;
    let before = sample::memory(&server).threads;
    let mut students = Vec::new();
    for _ in 0..STUDENTS {
        let mut student = Client::open(server.address)?;
        student.get("/")?;
        students.push(student);
    }
    let threads = f64::from(sample::memory(&server).threads) - f64::from(before);
    let begun = Instant::now();
    for student in &mut students {
        student.ask(PATH, "")?;
    }
    for student in &mut students {
        student.answer()?;
    }
    let took = begun.elapsed();
    client::part(students);
    server.stop();
    Ok((threads, took))
}

/// Connections of a browser to one host.
const PER_VISITOR: usize = 6;

/// Time in which a client that is served at all is served: nothing else is asked for.
const SERVED_WITHIN: Duration = Duration::from_millis(300);

fn fifty_visitors(lab: &Lab) -> Result<Measured, Reason> {
    const VISITORS: usize = 50;
    let server = lab.start("pool+threads=300", &["--idle-timeout", "600s"])?;
    let mut staying = Vec::new();
    for _ in 0..VISITORS * PER_VISITOR {
        let mut visitor = Client::open(server.address)?;
        visitor.get("/")?;
        staying.push(visitor);
    }
    let mut next = Vec::new();
    for _ in 0..PER_VISITOR {
        let mut visitor = Client::open(server.address)?;
        visitor.ask("/", "")?;
        next.push(visitor);
    }
    std::thread::sleep(lab.time(SERVED_WITHIN));
    let mut before = 0;
    for visitor in &mut next {
        before += usize::from(visitor.hears_within(Duration::ZERO)?);
    }
    let answers = staying.len();
    client::part(staying.split_off(answers - PER_VISITOR));
    let mut after = 0;
    for visitor in &mut next {
        visitor.answer()?;
        after += 1;
    }
    staying.extend(next);
    client::part(staying);
    server.stop();
    Ok(Measured::default()
        .figure("answers of 50 visitors", answers as f64, "")
        .figure("answers of the 51st while they stay", before as f64, "")
        .figure("answers of the 51st after one has left", f64::from(after), ""))
}

/// A keep-alive timeout that a law waits for.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
const KEEP_ALIVE_FLAGS: [&str; 2] = ["--idle-timeout", "500ms"];

fn starved_pool(lab: &Lab) -> Result<Measured, Reason> {
    const THREADS: usize = 4;
    let server = lab.start("pool+threads=4", &KEEP_ALIVE_FLAGS)?;
    let mut idle = Vec::new();
    for _ in 0..THREADS {
        let mut visitor = Client::open(server.address)?;
        visitor.get("/")?;
        idle.push(visitor);
    }
    let begun = Instant::now();
    let mut fifth = Client::open(server.address)?;
    fifth.get("/")?;
    let waited = begun.elapsed();
    idle.push(fifth);
    client::part(idle);
    server.stop();
    let ratio = waited.as_secs_f64() / KEEP_ALIVE.as_secs_f64();
    Ok(Measured::default().figure("wait of the 5th client / keep-alive timeout", ratio, "").figure(
        "wait of the 5th client",
        waited.as_secs_f64() * 1e3,
        "ms",
    ))
}

/// All arrive before the first is answered, because its answer takes the service time.
fn the_line(lab: &Lab) -> Result<Measured, Reason> {
    const VISITORS: usize = 8;
    const SERVICE: Duration = Duration::from_millis(100);
    const PATH: &str = "/delay/100";
    let server = lab.start("serial", &KEEP_ALIVE_FLAGS)?;
    let begun = Instant::now();
    let mut line = Vec::new();
    for _ in 0..VISITORS {
        let mut visitor = Client::open(server.address)?;
        visitor.ask(PATH, "Connection: close\r\n")?;
        line.push(visitor);
    }
    let mut waits = Vec::new();
    // Each leaves with its answer.
    for mut visitor in line {
        visitor.answer()?;
        waits.push(begun.elapsed());
    }
    let mut idle = Client::open(server.address)?;
    idle.get("/")?;
    let begun = Instant::now();
    let mut behind = Client::open(server.address)?;
    behind.get("/")?;
    let behind_idle = begun.elapsed();
    client::part(vec![idle, behind]);
    server.stop();
    let times = |wait: Duration, unit: Duration| wait.as_secs_f64() / unit.as_secs_f64();
    let first = waits.first().copied().unwrap_or_default();
    let last = waits.last().copied().unwrap_or_default();
    Ok(Measured::default()
        .figure("wait of the 8th visitor / service time", times(last, SERVICE), "")
        .figure(
            "wait behind an idle visitor / keep-alive timeout",
            times(behind_idle, KEEP_ALIVE),
            "",
        )
        .figure("wait of the 1st visitor", first.as_secs_f64() * 1e3, "ms")
        .figure("wait of the 8th visitor", last.as_secs_f64() * 1e3, "ms"))
}
