//! A file that is not in memory is sent to one client: what another client notices, per model.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use record::{Run, Span};
use rig::cold::{ColdFile, FILE_BYTES, NoFile, READ_BYTES};

use crate::client::Connection;
use crate::{Answer, Clock, Experiment, Predict, Refused, Site, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "cold-file",
    question: "Why does my non-blocking file read block? One client is sent a file of 1 MiB that \
        is not in memory, from a disk that gives 1 MiB in a second. A socket without bytes is not \
        ready, and a non-blocking read of it says EAGAIN. A file is always ready, and a read of it \
        waits for the disk, non-blocking or not. So what does another client notice, who asks for \
        a short text every few milliseconds?",
    predict: Predict {
        question: "Whose other clients wait while the disk is read?",
        answer: Answer::Choice(&[
            "those of all models",
            "those of the loops in select, poll and epoll",
            "those of models with a thread for each client",
            "those of no model",
        ]),
    },
    takes_s: 12,
    model: None,
    run,
};

const MODELS: [&str; 7] = ["select", "poll", "epoll", "threads", "pool", "tokio", "uring"];
const NAME: &str = "cold.bin";
/// Between two requests of the other client.
const PAUSE: Duration = Duration::from_millis(3);

impl From<NoFile> for Refused {
    fn from(none: NoFile) -> Refused {
        match none {
            NoFile::Skip(why) | NoFile::Failed(why) => Refused::Because(why),
        }
    }
}

fn run(stage: &mut Stage) -> Result<(), Refused> {
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let file = ColdFile::create(&folder.path().join(NAME));
    let file = match file.and_then(|file| file.slow_down(&[]).map(|_| file)) {
        Ok(file) => file,
        Err(NoFile::Skip(why)) => {
            stage.skip("a file that is not in memory", why);
            return Ok(());
        }
        Err(failed) => return Err(failed.into()),
    };
    own_calls(stage, &file)?;
    for model in MODELS {
        let run = Run {
            run: model.to_owned(),
            title: model.to_owned(),
            model: model.to_owned(),
            arguments: vec!["--root".to_owned(), folder.path().display().to_string()],
            link: None,
        };
        match stage.start(run) {
            Ok(Some(site)) => measure(stage, model, &file, site)?,
            Ok(None) => {}
            // A model that this machine does not allow says why.
            Err(Refused::Because(why)) => stage.skip(model, why),
            Err(Refused::Interrupted) => return Err(Refused::Interrupted),
        }
    }
    Ok(())
}

/// What epoll(7) and a non-blocking read(2) say of the file, in this process.
fn own_calls(stage: &mut Stage, file: &ColdFile) -> Result<(), Refused> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    stage.run(Run {
        run: "read".to_owned(),
        title: "a non-blocking read(2)".to_owned(),
        ..Run::default()
    });
    file.cool()?;
    let mut opened = File::options();
    opened.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let mut opened = opened.open(file.path()).map_err(|e| failed("the file", &e))?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| failed("epoll", &e))?;
    let refused = epoll.add(&opened, EpollEvent::new(EpollFlags::EPOLLIN, 0)).err();
    let clock = Clock::start();
    let read = opened.read(&mut vec![0; READ_BYTES as usize]);
    let took_us = clock.now_us();
    let errno = read.as_ref().err().and_then(std::io::Error::raw_os_error).unwrap_or(0);
    stage.figure(
        "read",
        "epoll_ctl_errno",
        f64::from(refused.map_or(0, |errno: Errno| errno as i32)),
    );
    stage.figure("read", "read_errno", f64::from(errno));
    stage.figure("read", "read_bytes", read.unwrap_or(0) as f64);
    stage.figure("read", "read_us", took_us);
    Ok(())
}

fn measure(stage: &mut Stage, model: &str, file: &ColdFile, site: Site) -> Result<(), Refused> {
    let ask = |cold: bool| ask(&site, file, cold).map_err(|why| format!("{model}: {why}"));
    // The first reads bring it into memory.
    ask(false)?;
    let warm = ask(false)?;
    let slow = file.slow_down(&site.server().processes())?;
    let cold = ask(true)?;
    drop(slow);
    site.stop()?;
    stage.figure(model, "file_bytes", FILE_BYTES as f64);
    stage.figure(model, "reads", (FILE_BYTES / READ_BYTES) as f64);
    let waits = warm.iter().filter(|span| span.kind == "waits");
    let longest_us = waits.map(|span| span.to_us - span.from_us).fold(0.0, f64::max);
    stage.figure(model, "longest_wait_warm_us", longest_us);
    for span in cold {
        stage.span(Span { run: model.to_owned(), ..span });
    }
    Ok(())
}

/// The file for one client, and short texts for another until the file is there.
fn ask(site: &Site, file: &ColdFile, cold: bool) -> Result<Vec<Span>, String> {
    let (address, done) = (site.address(), &AtomicBool::new(false));
    if cold {
        file.cool().map_err(|none| match none {
            NoFile::Skip(why) | NoFile::Failed(why) => why,
        })?;
    }
    let clock = Clock::start();
    let (mut reader, _) = Connection::open(clock, address)?;
    std::thread::scope(|scope| {
        let other = scope.spawn(move || others(clock, address, done));
        let read = reader.ask(&format!("/files/{NAME}"), false);
        done.store(true, Relaxed);
        let others = other.join().unwrap_or_else(|_| Err("a client panicked".to_owned()));
        let reply = read?;
        let mut seen = others?;
        seen.insert(0, span("the file", "read", reply.wait.from_us, reply.transfer.to_us));
        Ok(seen)
    })
}

/// Asks until the file is there, and once at least.
fn others(clock: Clock, address: SocketAddr, done: &AtomicBool) -> Result<Vec<Span>, String> {
    let (mut connection, _) = Connection::open(clock, address)?;
    let mut seen = Vec::new();
    loop {
        let reply = connection.ask("/", false)?;
        seen.push(span("another client", "waits", reply.wait.from_us, reply.transfer.to_us));
        if done.load(Relaxed) {
            return Ok(seen);
        }
        std::thread::sleep(PAUSE);
    }
}

fn span(lane: &str, kind: &str, from_us: f64, to_us: f64) -> Span {
    let (lane, kind) = (lane.to_owned(), kind.to_owned());
    Span { lane, kind, from_us, to_us, ..Span::default() }
}
