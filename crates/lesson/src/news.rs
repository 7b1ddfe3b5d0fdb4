//! How a client learns what happens at a server: polling, long polling, server-sent events,
//! WebSocket; and what else a WebSocket is: one for all, both ways at once, across origins.

mod origin;
mod ways;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rig::client::Client;
use witness::websocket::{Opcode, client_frame};

use crate::wire::{self, number};
use crate::{Answer, Experiment, Predict, Refused, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "news",
    question: "A message is due at the server every 130 ms. The client learns it by polling every \
        100 ms, by long polling (the server answers when there is something new), by server-sent \
        events (a reply that does not end), or over a WebSocket. When does it know a message, and \
        what does that cost in requests, bytes and the server's CPU? And what is different about a \
        WebSocket: who hears what one client says, can both sides send at once, and may a page of \
        another site connect?",
    predict: Predict {
        question: "The client polls every 100 ms. How many milliseconds after a message is due \
            does it know it, on average?",
        answer: Answer::Number("ms"),
    },
    takes_s: 11,
    model: Some("epoll"),
    run,
};

/// Between two messages, in milliseconds. With [`POLL_MS`] the time from a message to the next
/// request takes ten values, evenly apart.
const PERIOD_MS: u64 = 130;
/// Between two requests of the client that polls, in milliseconds.
const POLL_MS: u64 = 100;
/// Messages of each run: each of the ten values comes once.
const MESSAGES: u64 = 10;
/// The period over the link: shorter than its round trip.
const FAR_PERIOD_MS: u64 = 50;
const FAR_LINK: &str = "rtt=100ms";
const FAR_MESSAGES: u64 = 20;
/// The period beside the flood, and how long that lasts.
const FLOOD_PERIOD_MS: u64 = 20;
const FLOOD_MESSAGES: u64 = 50;
/// Long enough for a message that is under way to arrive, so that silence means that none comes.
const SILENCE: Duration = Duration::from_millis(200);

fn run(stage: &mut Stage) -> Result<(), Refused> {
    ways::near(stage)?;
    ways::far(stage)?;
    post_office(stage)?;
    flood(stage)?;
    origin::run(stage)
}

/// Three clients each of `/ws/chat` and `/ws/echo`: the first says something. Who hears it?
fn post_office(stage: &mut Stage) -> Result<(), Refused> {
    for (name, path) in [("chat", "/ws/chat"), ("echo", "/ws/echo")] {
        let title = format!("three clients of {path}, one of which speaks");
        let Some(site) = stage.start(stage.arrangement(name, &title, None))? else { continue };
        let address = site.address();
        let heard = site.as_client(|| heard(address, path))?;
        let (own, others) = heard.map_err(|why| {
            format!("{title}: {why}; --model needs a model that serves several clients at once")
        })?;
        site.stop()?;
        stage.figure(name, "heard_by_speaker", own);
        stage.figure(name, "heard_by_others", others);
    }
    Ok(())
}

/// How often the speaker and the two others hear it.
fn heard(address: SocketAddr, path: &str) -> Result<(f64, f64), String> {
    let join = || wire::websocket(Client::open(address)?, path);
    let (mut speaker, mut others) = (join()?, [join()?, join()?]);
    speaker.send(&client_frame(Opcode::Text, b"hello"))?;
    let own = speaker.hears_within(SILENCE)?;
    let mut count = 0;
    for other in &mut others {
        count += u32::from(other.hears_within(SILENCE)?);
    }
    Ok((f64::from(u8::from(own)), f64::from(count)))
}

/// A client that sends without a pause while messages come the other way.
fn flood(stage: &mut Stage) -> Result<(), Refused> {
    let title = "a WebSocket whose client never stops sending";
    let Some(site) = stage.start(stage.arrangement("flood", title, None))? else { return Ok(()) };
    let address = site.address();
    let (seen, flood_bytes) = site.as_client(|| beside_flood(address))??;
    site.stop()?;
    stage.figure("flood", "messages_due", FLOOD_MESSAGES as f64);
    stage.figure("flood", "messages_seen", seen);
    stage.figure("flood", "flood_bytes", flood_bytes);
    Ok(())
}

fn beside_flood(address: SocketAddr) -> Result<(f64, f64), String> {
    let path = format!("/ws/clock/{FLOOD_PERIOD_MS}");
    let mut client = wire::websocket(Client::open(address)?, &path)?;
    let mut writer = client.writer()?;
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let pieces = client_frame(Opcode::Text, &[b'x'; 125]).repeat(500);
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) && writer.write_all(&pieces).is_ok() {
                sent.fetch_add(pieces.len() as u64, Relaxed);
            }
        });
        let seen = ticks(&mut client);
        over.store(true, Relaxed);
        seen
    })?;
    Ok((seen, sent.load(Relaxed) as f64))
}

/// How many of the next messages of the clock come.
fn ticks(client: &mut Client) -> Result<f64, String> {
    let mut next = || {
        let text = wire::message(client)?;
        number(text.as_bytes()).ok_or_else(|| format!("no message of the clock: {text:?}"))
    };
    let last = next()? + FLOOD_MESSAGES;
    let mut seen = 1.0;
    while next()? < last {
        seen += 1.0;
    }
    Ok(seen)
}
