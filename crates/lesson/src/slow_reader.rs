//! Clients that do not read: where their bytes wait, what the server does meanwhile, and what it
//! costs another client.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use record::{Run, Span};
use rig::trace::Visit;
use rig::{queues, sample};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Answer, Clock, Experiment, Predict, Refused, Site, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "slow-reader",
    question: "Two clients ask for 8 MiB each and read nothing. The kernel keeps for each what \
        fits in two buffers: that of the server's socket and that of the client's. Then send(2) \
        has no room. A thread in a blocking send waits; a loop is told EAGAIN, or that a part was \
        taken, and asks to be woken when there is room. So where are the 8 MiB? And is a third \
        client, who asks for a short text, served meanwhile?",
    predict: Predict {
        question: "Which servers do not answer the third client while the two read nothing?",
        answer: Answer::Choice(&[
            "none",
            "serial, and a pool of two threads",
            "those with blocking calls",
            "the event loops",
            "all",
        ]),
    },
    takes_s: 12,
    model: None,
    run,
};

/// Clients that read nothing.
const SLOW: usize = 2;
const BODY_BYTES: usize = 8 << 20;
/// Of a client's receive buffer (SO_RCVBUF; the kernel doubles it, socket(7)). Set, because the
/// kernel makes an unset one larger for a client that reads quickly.
const BUFFER_BYTES: usize = 64 * 1024;

/// A model and its arguments.
const MODELS: [(&str, &[&str]); 7] = [
    ("serial", &[]),
    ("pool", &["--threads", "2"]),
    ("threads", &[]),
    ("poll", &[]),
    ("epoll", &[]),
    ("tokio", &[]),
    ("uring", &[]),
];

/// `--write-timeout` of the last run.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The client of the last run that is slow, and reads: so many bytes after each pause. Its receive
/// buffer is small: the kernel acknowledges what is read in pieces of half of it, and these must
/// come more often than the timeout, on a busy machine too.
const SIP_BYTES: usize = 8 * 1024;
const SIP_BUFFER_BYTES: usize = 8 * 1024;
const PAUSE: Duration = Duration::from_millis(25);
/// It is slow for so many timeouts.
const SLOW_TIMEOUTS: u32 = 3;

fn run(stage: &mut Stage) -> Result<(), Refused> {
    for (model, flags) in MODELS {
        let run = Run {
            run: model.to_owned(),
            title: [model].iter().chain(flags).copied().collect::<Vec<_>>().join(" "),
            model: model.to_owned(),
            arguments: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            link: None,
        };
        let mut seen = None;
        let traced = stage.trace(run, "http", |visit| {
            let (spans, what) = talk(visit).map_err(|e| format!("a client failed: {e}"))?;
            seen = Some(what);
            Ok(spans)
        });
        match traced {
            Ok(()) => {}
            // A model that this machine does not allow says why.
            Err(Refused::Because(why)) => stage.skip(model, why),
            Err(Refused::Interrupted) => return Err(Refused::Interrupted),
        }
        for (name, value) in seen.unwrap_or_default() {
            stage.figure(model, name, value);
        }
    }
    timeout(stage)
}

/// Names and values of figures.
type Figures = Vec<(&'static str, f64)>;

/// Asks with `Connection: close`: a server that serves one client at a time then goes on to the
/// next.
fn ask(address: SocketAddr, path: &str, buffer_bytes: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_recv_buffer_size(buffer_bytes)?;
    socket.connect(&address.into())?;
    let mut socket = TcpStream::from(socket);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    Ok(socket)
}

fn body() -> String {
    format!("/bytes/{BODY_BYTES}")
}

/// Lets two clients ask and not read, and a third ask; then all read.
fn talk(visit: &mut Visit) -> io::Result<(Vec<Span>, Figures)> {
    let mut spans = Vec::new();
    let mut step = |visit: &Visit, lane: &str, kind: &str, from_us: f64| {
        let (lane, kind) = (lane.to_owned(), kind.to_owned());
        spans.push(Span { lane, kind, from_us, to_us: visit.now_us(), ..Span::default() });
    };
    let own_kib = |visit: &Visit| sample::memory(visit).pss_kib as f64;
    let (before_kib, begun_us) = (own_kib(visit), visit.now_us());
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        slow.push(ask(visit.address(), &body(), BUFFER_BYTES)?);
        visit.register(&slow[slow.len() - 1]).map_err(io::Error::other)?;
    }
    visit.until_quiet(Duration::ZERO);
    step(visit, "slow", "fills", begun_us);
    let after_kib = own_kib(visit);
    let (server, client) = (slow[0].peer_addr()?, slow[0].local_addr()?);
    let (sent, came) = (queues::of(server, client), queues::of(client, server));
    let asked_us = visit.now_us();
    let other = ask(visit.address(), "/", BUFFER_BYTES)?;
    visit.register(&other).map_err(io::Error::other)?;
    let served = visit.hear(&other, 1)?.bytes == 1;
    step(visit, "other", if served { "served" } else { "waits" }, asked_us);
    let reads_us = visit.now_us();
    let mut bytes = Vec::new();
    for socket in &slow {
        bytes.push(visit.hear(socket, usize::MAX)?.bytes);
    }
    step(visit, "slow", "reads", reads_us);
    let served_after = served || visit.hear(&other, 1)?.bytes == 1;
    let figures = vec![
        ("body_bytes", BODY_BYTES as f64),
        ("send_buffer_bytes", sent.map_or(0, |queues| queues.unacknowledged) as f64),
        ("receive_buffer_bytes", came.map_or(0, |queues| queues.unread) as f64),
        ("own_memory_growth_kib", after_kib - before_kib),
        ("other_served_meanwhile", f64::from(u8::from(served))),
        ("other_served_after", f64::from(u8::from(served_after))),
        ("slow_bytes", bytes.into_iter().sum::<usize>() as f64),
    ];
    Ok((spans, figures))
}

/// One client that reads nothing, and one that reads slowly, with a write timeout.
fn timeout(stage: &mut Stage) -> Result<(), Refused> {
    let run = Run {
        run: "write-timeout".to_owned(),
        title: format!("epoll --write-timeout {} s", TIMEOUT.as_secs()),
        model: "epoll".to_owned(),
        arguments: vec!["--write-timeout".to_owned(), format!("{}s", TIMEOUT.as_secs())],
        link: None,
    };
    let name = run.run.clone();
    let Some(site) = stage.start(run)? else { return Ok(()) };
    let seen = sip(stage, &site);
    let (spans, figures) = seen.map_err(|e| format!("{name}: a client failed: {e}"))?;
    stage.go_on()?;
    site.stop()?;
    for span in spans {
        stage.span(Span { run: name.clone(), ..span });
    }
    for (what, value) in figures {
        stage.figure(&name, what, value);
    }
    Ok(())
}

fn sip(stage: &Stage, site: &Site) -> io::Result<(Vec<Span>, Figures)> {
    let clock = Clock::start();
    let stopped = ask(site.address(), &body(), BUFFER_BYTES)?;
    let slow = ask(site.address(), &body(), SIP_BUFFER_BYTES)?;
    let (own, peer) = (stopped.peer_addr()?, stopped.local_addr()?);
    let (mut closed_us, mut bytes, mut buffer) = (None, 0, vec![0; SIP_BYTES]);
    let until_us = TIMEOUT.as_secs_f64() * 1e6 * f64::from(SLOW_TIMEOUTS);
    while clock.now_us() < until_us && stage.go_on().is_ok() {
        std::thread::sleep(PAUSE);
        if closed_us.is_none() && queues::of(own, peer).is_none() {
            closed_us = Some(clock.now_us());
        }
        match (&slow).read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(came) => bytes += came,
        }
    }
    let sipped_us = clock.now_us();
    let mut rest = Vec::new();
    // An error is the end of a client that the server has given up.
    let whole = (&slow).read_to_end(&mut rest).is_ok() && bytes + rest.len() > BODY_BYTES;
    let span = |lane: &str, kind: &str, to_us| {
        let (lane, kind) = (lane.to_owned(), kind.to_owned());
        Span { lane, kind, to_us, ..Span::default() }
    };
    let spans = vec![
        span("reads nothing", "waits", closed_us.unwrap_or(sipped_us)),
        span("reads slowly", "reads", sipped_us),
    ];
    let figures = vec![
        ("write_timeout_us", TIMEOUT.as_secs_f64() * 1e6),
        ("reads_nothing_closed", f64::from(u8::from(closed_us.is_some()))),
        ("reads_slowly_bytes", bytes as f64),
        ("reads_slowly_whole", f64::from(u8::from(whole))),
    ];
    Ok((spans, figures))
}
