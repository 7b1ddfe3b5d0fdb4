//! The four ways, on loopback and over a link.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use record::Span;
use rig::client::Client;
use rig::sample::Idling;

use super::{FAR_LINK, FAR_MESSAGES, FAR_PERIOD_MS, MESSAGES, PERIOD_MS, POLL_MS};
use crate::wire::{self, number};
use crate::{Clock, Refused, Stage};

/// Requests that find the server's clock. Each narrows the bounds of its start.
const PROBES: u32 = 300;

/// How a client learns the news.
#[derive(Clone, Copy)]
enum Way {
    Polling,
    LongPolling,
    Events,
    WebSocket,
}

const WAYS: [(Way, &str, &str); 4] = [
    (Way::Polling, "polling", "polling every 100 ms"),
    (Way::LongPolling, "long-polling", "long polling"),
    (Way::Events, "events", "server-sent events"),
    (Way::WebSocket, "websocket", "WebSocket"),
];

/// On loopback: when is a message known, and what did that cost?
pub(super) fn near(stage: &mut Stage) -> Result<(), Refused> {
    for (way, name, title) in WAYS {
        let Some(site) = stage.start(stage.arrangement(name, title, None))? else { continue };
        let clock = Clock::start();
        let address = site.address();
        let started_us = site.as_client(|| started(clock, address))??;
        let idling = Idling::begin(site.server());
        let news = (PERIOD_MS, MESSAGES);
        let follower = site.as_client(|| Follower::follow(clock, address, way, news))??;
        let cpu_us = idling.end().cpu_us;
        let Follower { client, begun_us, seen, requests, .. } = follower;
        let received: usize = client.arrivals().iter().map(|(_, bytes)| bytes).sum();
        let sent = client.bytes_sent();
        // A connection that is open would delay the stop.
        drop(client);
        site.stop()?;
        note(stage, name, (begun_us, started_us), &requests, &seen);
        stage.figure(name, "poll_interval_ms", POLL_MS as f64);
        stage.figure(name, "bytes_sent", sent as f64);
        stage.figure(name, "bytes_received", received as f64);
        stage.figure(name, "server_cpu_us", cpu_us as f64);
    }
    Ok(())
}

/// Over a round trip longer than the period: does each message arrive?
pub(super) fn far(stage: &mut Stage) -> Result<(), Refused> {
    let place = "a message every 50 ms, 100 ms of round trip";
    for (way, name, title) in &WAYS[1..3] {
        let (name, title) = (format!("{name}-far"), format!("{title}, {place}"));
        let run = stage.arrangement(&name, &title, Some(FAR_LINK));
        let Some(site) = stage.start(run)? else { continue };
        let (clock, address) = (Clock::start(), site.address());
        let news = (FAR_PERIOD_MS, FAR_MESSAGES);
        let seen =
            site.as_client(|| Follower::follow(clock, address, *way, news).map(|one| one.seen))??;
        site.stop()?;
        let numbers: Vec<u64> = seen.iter().map(|(number, _)| *number).collect();
        let due = numbers.last().zip(numbers.first()).map_or(0, |(last, first)| last - first + 1);
        stage.figure(&name, "messages_due", due as f64);
        stage.figure(&name, "messages_seen", numbers.len() as f64);
    }
    Ok(())
}

/// When the server's clock started, in microseconds of the client's. A reply with number n of
/// `/news/1` was made n to n + 1 ms after the start, and between request and arrival.
fn started(clock: Clock, address: SocketAddr) -> Result<f64, String> {
    let mut client = Client::open(address)?;
    let (mut earliest, mut latest) = (f64::NEG_INFINITY, f64::INFINITY);
    for _ in 0..PROBES {
        let from_us = clock.now_us();
        client.ask("/news/1", "")?;
        let (_, number) = wire::news(&mut client)?;
        let after_us = number.ok_or("/news/1 has no message")? as f64 * 1e3;
        earliest = earliest.max(from_us - after_us - 1e3);
        latest = latest.min(clock.now_us() - after_us);
    }
    Ok((earliest + latest) / 2.0)
}

/// A client that follows the news.
struct Follower {
    client: Client,
    clock: Clock,
    /// When the run begins, in microseconds: a message that is due later is one of it.
    begun_us: f64,
    period_ms: u64,
    /// Messages to wait for, by their numbers.
    count: u64,
    /// Number and arrival of each message, in microseconds.
    seen: Vec<(u64, f64)>,
    /// Begin and end of each request.
    requests: Vec<(f64, f64)>,
}

impl Follower {
    /// Connects, and waits for this many messages of this period.
    fn follow(
        clock: Clock,
        address: SocketAddr,
        way: Way,
        (period_ms, count): (u64, u64),
    ) -> Result<Follower, String> {
        let client = Client::open(address)?;
        let (begun_us, seen, requests) = (clock.now_us(), Vec::new(), Vec::new());
        let mut one = Follower { client, clock, begun_us, period_ms, count, seen, requests };
        match way {
            Way::Polling => one.poll()?,
            Way::LongPolling => one.poll_long()?,
            Way::Events => one.events()?,
            Way::WebSocket => one.websocket()?,
        }
        Ok(one)
    }

    fn now_us(&self) -> f64 {
        self.clock.now_us()
    }

    /// Notes a message. Returns whether more are to come.
    fn note(&mut self, number: u64) -> bool {
        self.seen.push((number, self.now_us()));
        number + 1 < self.seen[0].0 + self.count
    }

    fn poll(&mut self) -> Result<(), String> {
        let path = format!("/news/{}", self.period_ms);
        // What the server knew before is no news.
        let mut known = self.ask(&path, "")?.1.unwrap_or(0);
        self.client.forget();
        self.requests.clear();
        let begun = Instant::now();
        self.begun_us = self.now_us();
        for turn in 1.. {
            let due = begun + Duration::from_millis(turn * POLL_MS);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (_, number) = self.ask(&path, &format!("If-None-Match: \"{known}\"\r\n"))?;
            let Some(number) = number else { continue };
            known = number;
            if !self.note(number) {
                break;
            }
        }
        Ok(())
    }

    fn poll_long(&mut self) -> Result<(), String> {
        // A number that no server has: the first reply comes with the next message.
        let mut known = u64::MAX;
        loop {
            let (status, number) = self.ask(&format!("/news/{}/{known}", self.period_ms), "")?;
            known = number.ok_or_else(|| format!("the news came with status {status}"))?;
            if !self.note(known) {
                return Ok(());
            }
        }
    }

    fn ask(&mut self, path: &str, fields: &str) -> Result<(u16, Option<u64>), String> {
        let from_us = self.now_us();
        self.client.ask(path, fields)?;
        let reply = wire::news(&mut self.client)?;
        self.requests.push((from_us, self.now_us()));
        Ok(reply)
    }

    fn events(&mut self) -> Result<(), String> {
        let from_us = self.now_us();
        self.client.ask(&format!("/events/{}", self.period_ms), "")?;
        self.client.head()?;
        loop {
            let number = wire::event(&mut self.client)?;
            if !self.note(number) {
                break;
            }
        }
        self.requests.push((from_us, self.now_us()));
        Ok(())
    }

    fn websocket(&mut self) -> Result<(), String> {
        let from_us = self.now_us();
        let path = format!("/ws/clock/{}", self.period_ms);
        match wire::upgrade(&mut self.client, &path, "")? {
            101 => {}
            status => return Err(format!("the WebSocket was answered with status {status}")),
        }
        loop {
            let text = wire::message(&mut self.client)?;
            let number = number(text.as_bytes()).ok_or("a message without its number")?;
            if !self.note(number) {
                break;
            }
        }
        self.requests.push((from_us, self.now_us()));
        Ok(())
    }
}

/// Records the requests and messages of a run that begins at `begun_us`.
fn note(
    stage: &mut Stage,
    run: &str,
    (begun_us, started_us): (f64, f64),
    requests: &[(f64, f64)],
    seen: &[(u64, f64)],
) {
    let mut span = |lane: &str, kind: &str, (from, to): (f64, f64), note: String| {
        stage.span(Span {
            run: run.to_owned(),
            lane: lane.to_owned(),
            kind: kind.to_owned(),
            from_us: from - begun_us,
            to_us: to - begun_us,
            note,
            ..Span::default()
        });
    };
    for &request in requests {
        span("requests", "request", request, String::new());
    }
    for &(number, arrived_us) in seen {
        let due_us = started_us + (number * PERIOD_MS * 1_000) as f64;
        span("messages", "late", (due_us, arrived_us), format!("message {number}"));
    }
    stage.figure(run, "requests", requests.len() as f64);
    stage.figure(run, "messages_due", MESSAGES as f64);
    stage.figure(run, "messages_seen", seen.len() as f64);
}
