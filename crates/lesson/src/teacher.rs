//! One teacher and thirty students: a thread for one at a time, a thread for each, and one thread
//! that is called.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::Duration;

use record::{Run, Span};

use crate::client::{Connection, Phase};
use crate::{Answer, Clock, Experiment, Predict, Refused, Site, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "teacher",
    question: "Thirty students work on exercises. Each thinks for 30 ms, asks the teacher, and \
        thinks again, three times; then it leaves. One teacher stays with a student until that one \
        leaves (serial); or each student has a teacher (threads); or one teacher goes to the \
        student who calls (epoll). How long do students wait for an answer, and how many teachers \
        does it take? And what if an answer takes 5 ms of the teacher's own work (/work/5000)?",
    predict: Predict {
        question: "Short answers: how many times as long as with a teacher each do students wait \
            for the one teacher who is called?",
        answer: Answer::Choice(&["about as long", "ten times as long", "thirty times as long"]),
    },
    takes_s: 6,
    model: None,
    run,
};

const STUDENTS: u32 = 30;
const QUESTIONS: u32 = 3;
const THINKS: Duration = Duration::from_millis(30);
const SHORT: &str = "/";
/// Microseconds of CPU.
const LONG: &str = "/work/5000";
/// A client's thread does nothing but think and read.
const STACK_BYTES: usize = 128 * 1024;

/// Name, title, model, path.
const RUNS: [(&str, &str, &str, &str); 5] = [
    ("serial", "one teacher, one student at a time (serial)", "serial", SHORT),
    ("threads", "a teacher each (threads)", "threads", SHORT),
    ("epoll", "one teacher who is called (epoll)", "epoll", SHORT),
    ("threads-work", "a teacher each, answers take 5 ms of CPU", "threads", LONG),
    ("epoll-work", "one who is called, answers take 5 ms of CPU", "epoll", LONG),
];

fn run(stage: &mut Stage) -> Result<(), Refused> {
    for (name, title, model, path) in RUNS {
        let Some(site) = stage.start(Run {
            run: name.to_owned(),
            title: title.to_owned(),
            model: model.to_owned(),
            arguments: Vec::new(),
            link: None,
        })?
        else {
            continue;
        };
        let (seen, threads) = class(&site, path)?;
        let ended = site.stop()?;
        for span in seen {
            stage.span(Span { run: name.to_owned(), ..span });
        }
        stage.figure(name, "server_threads", f64::from(threads));
        stage.figure(name, "server_cpu_ms", ended.cpu_ms());
        stage.figure(name, "requests_answered", ended.counter("requests")?);
    }
    Ok(())
}

/// The spans of all students, and the threads of the server while all are connected.
fn class(site: &Site, path: &'static str) -> Result<(Vec<Span>, u32), String> {
    let (address, clock) = (site.address(), Clock::start());
    // All are connected before the first asks.
    let begin = &Barrier::new(STUDENTS as usize + 1);
    std::thread::scope(|scope| {
        let start = |number| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread =
                thread.spawn_scoped(scope, move || student(clock, address, path, number, begin));
            // Without it the others would wait at the barrier for ever.
            thread.unwrap_or_else(|e| panic!("the client cannot start a thread: {e}"))
        };
        let students: Vec<_> = (0..STUDENTS).map(start).collect();
        begin.wait();
        // Half of the first thinking time, so that every student has its thread, and none has left.
        std::thread::sleep(THINKS / 2);
        let threads = site.threads();
        let mut seen = Vec::new();
        for student in students {
            let ended = student.join();
            seen.extend(ended.unwrap_or_else(|_| Err("a student's thread panicked".to_owned()))?);
        }
        Ok((seen, threads))
    })
}

fn student(
    clock: Clock,
    address: SocketAddr,
    path: &str,
    number: u32,
    begin: &Barrier,
) -> Result<Vec<Span>, String> {
    let connected = Connection::open(clock, address);
    begin.wait();
    let (mut connection, _) = connected?;
    let mut seen = Vec::new();
    for question in 0..QUESTIONS {
        let from_us = clock.now_us();
        std::thread::sleep(THINKS);
        let thinks = Phase { kind: "thinks", from_us, to_us: clock.now_us() };
        let last = question + 1 == QUESTIONS;
        let reply = connection.ask(path, last)?;
        let waits = Phase { kind: "waits", from_us: thinks.to_us, to_us: reply.transfer.to_us };
        seen.extend([thinks, waits].map(|phase| Span {
            lane: (number + 1).to_string(),
            kind: phase.kind.to_owned(),
            from_us: phase.from_us,
            to_us: phase.to_us,
            connection: Some(number),
            request: Some(number * QUESTIONS + question),
            ..Span::default()
        }));
    }
    Ok(seen)
}
