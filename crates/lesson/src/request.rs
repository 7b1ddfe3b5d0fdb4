//! One request in its phases, without and with keep-alive, at three round-trip times.

use std::net::SocketAddr;

use record::{Run, Span};

use crate::client::{Connection, Phase};
use crate::name::{NameServer, look_up};
use crate::{Answer, Clock, Experiment, Predict, Refused, Site, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "request",
    question: "A page needs three files of 100,000 bytes from one server. For each file a browser \
        looks up the name, connects, waits for the first byte, and receives the rest; then the \
        connection is closed. With keep-alive (the default of HTTP/1.1) the connection stays open \
        for the next file, until it has been idle for a time that can be configured \
        (--idle-timeout, here 1 s). How much time does that save, and what does it depend on?",
    predict: Predict {
        question: "With a round trip of 100 ms, how many milliseconds does keep-alive save for \
            three files?",
        answer: Answer::Number("ms"),
    },
    takes_s: 10,
    model: Some("epoll"),
    run,
};

const FILES: [&str; 3] = ["a.js", "b.js", "c.js"];
/// More than TCP sends at once on a new connection (RFC 6928), so that slow start is seen too.
const PATH: &str = "/bytes/100000";
const NAME: &str = "www.example";
const ROUND_TRIPS_MS: [u32; 3] = [0, 20, 100];
const IDLE_TIMEOUT_MS: u32 = 1_000;

fn run(stage: &mut Stage) -> Result<(), Refused> {
    for rtt_ms in ROUND_TRIPS_MS {
        for keeps in [false, true] {
            let run = arrangement(stage, rtt_ms, keeps);
            let name = run.run.clone();
            let Some(site) = stage.start(run)? else { continue };
            let seen = fetch_all(&site, keeps)?;
            let accepted = site.stop()?.counter("connections_accepted")?;
            for span in seen {
                stage.span(Span { run: name.clone(), ..span });
            }
            stage.figure(&name, "rtt_ms", f64::from(rtt_ms));
            stage.figure(&name, "idle_timeout_ms", f64::from(IDLE_TIMEOUT_MS));
            stage.figure(&name, "connections_accepted", accepted);
        }
    }
    Ok(())
}

fn arrangement(stage: &Stage, rtt_ms: u32, keeps: bool) -> Run {
    let way = if keeps { "with keep-alive" } else { "without keep-alive" };
    let place = match rtt_ms {
        0 => "loopback".to_owned(),
        ms => format!("{ms} ms of round trip"),
    };
    let name = format!("{}-{rtt_ms}ms", if keeps { "keep-alive" } else { "close" });
    let link = (rtt_ms > 0).then(|| format!("rtt={rtt_ms}ms"));
    let arguments = vec!["--idle-timeout".to_owned(), format!("{IDLE_TIMEOUT_MS}ms")];
    Run { arguments, ..stage.arrangement(&name, &format!("{place}, {way}"), link.as_deref()) }
}

fn fetch_all(site: &Site, keeps: bool) -> Result<Vec<Span>, Refused> {
    let address = site.address();
    let names = site.beside_server(|| NameServer::start(address.ip()))??;
    Ok(site.as_client(|| Fetch::new(names.address, address.port()).all(keeps))??)
}

/// The client of one run.
struct Fetch {
    clock: Clock,
    names: SocketAddr,
    port: u16,
    seen: Vec<Span>,
    connections: u32,
}

impl Fetch {
    fn new(names: SocketAddr, port: u16) -> Fetch {
        Fetch { clock: Clock::start(), names, port, seen: Vec::new(), connections: 0 }
    }

    /// Fetches the files one after the other, then waits until the server closes.
    fn all(mut self, keeps: bool) -> Result<Vec<Span>, String> {
        let mut open = None;
        // ANCHOR: fetch
        for file in 0..FILES.len() {
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => self.connect(file)?,
            };
            let reply = connection.ask(PATH, !keeps)?;
            self.note(file, reply.wait);
            self.note(file, reply.transfer);
            match keeps && !reply.closes {
                true => open = Some(connection),
                false => self.note(file, connection.wait_for_end("close")?),
            }
        }
        // ANCHOR_END: fetch
        if let Some(connection) = open {
            self.note(FILES.len() - 1, connection.wait_for_end("idle")?);
        }
        Ok(self.seen)
    }

    fn connect(&mut self, file: usize) -> Result<Connection, String> {
        let (address, looked_up) = look_up(self.clock, self.names, NAME)?;
        let (connection, connected) = Connection::open(self.clock, (address, self.port).into())?;
        self.connections += 1;
        self.note(file, looked_up);
        self.note(file, connected);
        Ok(connection)
    }

    fn note(&mut self, file: usize, phase: Phase) {
        self.seen.push(Span {
            lane: FILES[file].to_owned(),
            kind: phase.kind.to_owned(),
            from_us: phase.from_us,
            to_us: phase.to_us,
            connection: Some(self.connections - 1),
            request: Some(file as u32),
            ..Span::default()
        });
    }
}
