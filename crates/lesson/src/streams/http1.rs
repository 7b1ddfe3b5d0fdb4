//! The client of HTTP/1.1: some connections, each of which asks for the next when its reply has
//! ended.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rig::client::Client;

use super::{Asked, FIELDS, Fetched, arrivals};
use crate::Clock;

pub(super) fn fetch(
    clock: Clock,
    address: SocketAddr,
    asked: &[Asked],
    connections: usize,
) -> Result<Fetched, String> {
    let next = AtomicUsize::new(0);
    let fetched = std::thread::scope(|scope| {
        let one = |connection| {
            let next = &next;
            scope.spawn(move || on_one(clock, address, asked, next, connection))
        };
        let threads: Vec<_> = (0..connections).map(one).collect();
        let join = |thread: std::thread::ScopedJoinHandle<_>| {
            thread.join().unwrap_or_else(|_| Err("a client failed".to_owned()))
        };
        threads.into_iter().map(join).collect::<Result<Vec<Fetched>, String>>()
    })?;
    Ok(fetched.into_iter().fold(Fetched::default(), |mut sum, one| {
        sum.spans.extend(one.spans);
        sum.arrivals.extend(one.arrivals);
        sum.request_head_bytes += one.request_head_bytes;
        sum.reply_head_bytes += one.reply_head_bytes;
        sum
    }))
}

fn on_one(
    clock: Clock,
    address: SocketAddr,
    asked: &[Asked],
    next: &AtomicUsize,
    connection: usize,
) -> Result<Fetched, String> {
    let fields: String =
        FIELDS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut client = Client::open(address)?;
    let mut fetched = Fetched::default();
    loop {
        let request = next.fetch_add(1, Relaxed);
        let Some(Asked { path, bytes }) = asked.get(request) else { break };
        let sent_us = clock.now_us();
        client.ask(path, &fields)?;
        let head = client.head()?;
        let begun_us = clock.now_us();
        if head.status != 200 || head.length != Some(*bytes) {
            return Err(format!("{path} was answered with status {}", head.status));
        }
        client.body(*bytes)?;
        fetched.note(request, connection, [sent_us, begun_us, clock.now_us()]);
        fetched.reply_head_bytes += head.bytes as u64;
    }
    fetched.request_head_bytes = client.bytes_sent();
    fetched.arrivals = arrivals(clock, &client);
    Ok(fetched)
}
