//! Server news: polling, long polling, server-sent events. Those over HTTP/2 are rows of
//! [`crate::http2`].

use nix::sys::signal::Signal;
use suite::{Client, Server, Variant, get, request};

use crate::stop::NEVER;

/// The number of a message.
#[track_caller]
pub fn number(text: &str) -> u64 {
    let number = text.strip_prefix("tick ").and_then(|number| number.trim_end().parse().ok());
    number.unwrap_or_else(|| panic!("no news: {text:?}"))
}

/// The number of the next event, from its chunk.
#[track_caller]
fn next_event(client: &mut Client) -> u64 {
    let mut chunk = Vec::new();
    while !chunk.ends_with(b"\n\n\r\n") {
        chunk.extend(client.read_exact(1));
    }
    let chunk = String::from_utf8(chunk).expect("events are UTF-8");
    let (size, event) = chunk.split_once("\r\n").expect("a chunk begins with its size");
    let event = event.trim_end_matches("\r\n");
    assert_eq!(usize::from_str_radix(size, 16), Ok(event.len()), "{chunk:?}");
    let (id, data) = event.split_once('\n').expect("an event of two lines");
    let number = number(data.strip_prefix("data: ").unwrap_or(data));
    assert_eq!(id, format!("id: {number}"));
    number
}

#[track_caller]
fn begin_events(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(&get("/events/10"));
    let head = client.head();
    assert_eq!((head.status, head.field("content-type")), (200, Some("text/event-stream")));
    client
}

pub fn polling_and_long_polling(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    client.send(&get("/news/20"));
    let mut last = number(&String::from_utf8_lossy(&client.reply().body));
    for _ in 0..10 {
        client.send(&get(&format!("/news/20/{last}")));
        let next = number(&String::from_utf8_lossy(&client.reply().body));
        assert!(next > last, "message {next} after {last}");
        last = next;
    }
    client.send(&get("/news/60000"));
    let etag = client.reply().head.field("etag").map(str::to_owned).expect("an entity tag");
    client.send(&request("GET", "/news/60000", &format!("If-None-Match: {etag}\r\n")));
    let status = client.reply().status;
    // The first message of this period may be due between the two.
    assert!(status == 304 || etag == "\"0\"" && status == 200, "{status} for {etag}");
    drop(client);
    server.stop();
}

/// Events end with the client's input, and with the server.
pub fn events(variant: &Variant) {
    let server = Server::start(variant, &NEVER);
    let mut client = begin_events(&server);
    let mut last = 0;
    for _ in 0..10 {
        let next = next_event(&mut client);
        assert!(next > last, "message {next} after {last}");
        last = next;
    }
    client.finish_sending();
    assert!(client.read_to_end().ends_with(b"0\r\n\r\n"), "the body does not end");
    drop(client);
    let mut client = begin_events(&server);
    assert!(next_event(&mut client) > last, "one clock for all");
    server.signal(Signal::SIGTERM);
    assert!(client.read_to_end().ends_with(b"0\r\n\r\n"), "the body does not end");
    drop(client);
    let counters = server.wait().counters();
    let ended = &counters["connections_ended"];
    assert_eq!((&ended["completed"], &ended["retired"]), (&1.into(), &1.into()), "{counters}");
    assert_eq!(counters["requests"], 2, "{counters}");
}
