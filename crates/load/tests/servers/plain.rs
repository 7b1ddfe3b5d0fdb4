//! Echo and HTTP/1.1.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use load::{
    Error, ExpectedBody, Length, Live, Method, Observer, Pace, Plan, Silent, Stage, run, run_live,
};
use record::{Arrivals, LoadOutcome, OpenLoop};

use crate::support::{TIME_LIMIT, Test, assert_exact, echo, http, ok, plan, server};

#[test]
fn echo_messages_of_all_sizes_and_depths() -> Test {
    let address = server(echo)?;
    for (payload_bytes, pipelining) in
        [(1, 1), (64, 1), (64, 16), (300, 7), (65_536, 1), (300_000, 3)]
    {
        let plan = Plan { payload_bytes, pipelining, ..plan("tcp", address, "", 203)? };
        let outcome = run(&plan, &mut Silent)?;
        assert_exact(&outcome, 203);
        assert_eq!(outcome.bytes_sent, 203 * payload_bytes as u64);
        assert_eq!(outcome.bytes_received, outcome.bytes_sent);
        assert!(outcome.mean_in_flight <= 8.0 * f64::from(pipelining) + 1e-6, "{outcome:?}");
    }
    Ok(())
}

#[test]
fn one_echo_per_connection() -> Test {
    let address = server(echo)?;
    let plan = Plan { reconnect: true, ..plan("tcp", address, "", 1_000)? };
    let outcome = run(&plan, &mut Silent)?;
    assert_exact(&outcome, 1_000);
    assert_eq!(outcome.connects, 1_000);
    // A connection that was answered is followed by a new one at once. A pause, which is for
    // servers that refuse clients, would leave most of the eight without a request.
    assert!(outcome.mean_in_flight > 4.0, "{outcome:?}");
    Ok(())
}

#[test]
fn several_threads_share_requests_and_connections() -> Test {
    let address = server(echo)?;
    let plan = Plan { threads: 3, ..plan("tcp", address, "", 1_000)? };
    let outcome = run(&plan, &mut Silent)?;
    assert_exact(&outcome, 1_000);
    assert_eq!((outcome.connections, outcome.threads), (8, 3));
    Ok(())
}

#[test]
fn requests_are_exact_after_a_warm_up_too() -> Test {
    let address = server(echo)?;
    let warmup = Duration::from_millis(20);
    for pipelining in [1, 5] {
        let plan = Plan { warmup, pipelining, ..plan("tcp", address, "", 100)? };
        assert_exact(&run(&plan, &mut Silent)?, 100);
    }
    Ok(())
}

#[test]
fn http_bodies_of_all_framings() -> Test {
    let large: Vec<u8> = (0..3_000_000_u32).map(|k| (k >> 7) as u8).collect();
    let long = ok(&large);
    let address = server(move |_, stream| {
        http(stream, |_, head, body| {
            let path = head.split(' ').nth(1).unwrap_or_default();
            Some(match path {
                "/large" => long.clone(),
                "/chunked" => {
                    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                    format!("{head}3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n").into_bytes()
                }
                "/bytes/70" => {
                    let rule = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-\n";
                    ok(&[rule.as_slice(), b"012345"].concat())
                }
                "/echo" => ok(body),
                _ if head.starts_with("HEAD") => {
                    b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n".to_vec()
                }
                _ => ok(b"Hello, world!"),
            })
        })
    })?;
    for path in ["/", "/chunked", "/bytes/70", "/large"] {
        for (reconnect, pipelining) in [(false, 1), (false, 4), (true, 1)] {
            let plan = Plan { reconnect, pipelining, ..plan("http", address, path, 40)? };
            let outcome = run(&plan, &mut Silent)?;
            assert_exact(&outcome, 40);
            assert_eq!(outcome.connects, if reconnect { 40 } else { 0 });
        }
    }
    let post =
        Plan { method: Method::Post, payload_bytes: 5_000, ..plan("http", address, "/echo", 40)? };
    let outcome = run(&post, &mut Silent)?;
    assert_exact(&outcome, 40);
    assert!(outcome.verification.contains("request's body"), "{}", outcome.verification);
    let head = Plan { method: Method::Head, pipelining: 3, ..plan("http", address, "/", 40)? };
    assert_exact(&run(&head, &mut Silent)?, 40);
    Ok(())
}

#[test]
fn a_body_that_ends_with_the_connection() -> Test {
    let address = server(|_, stream| {
        let mut served = false;
        http(stream, |_, _, _| {
            let first = !std::mem::replace(&mut served, true);
            first.then(|| b"HTTP/1.0 200 OK\r\n\r\nuntil the end".to_vec())
        })
    })?;
    // The server closes at the second request: only a client that reconnects can continue.
    let plan = Plan { reconnect: true, ..plan("http", address, "/", 30)? };
    assert_exact(&run(&plan, &mut Silent)?, 30);
    Ok(())
}

#[test]
fn a_polite_end_is_no_error() -> Test {
    let address = server(|_, mut stream| {
        let mut buffer = [0; 4096];
        for number in 0..5 {
            if stream.read(&mut buffer)? == 0 {
                return Ok(());
            }
            let close = if number == 4 { "Connection: close\r\n" } else { "" };
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{close}\r\nok");
            stream.write_all(reply.as_bytes())?;
        }
        Ok(())
    })?;
    let outcome = run(&plan("http", address, "/", 100)?, &mut Silent)?;
    assert_exact(&outcome, 100);
    assert!(outcome.closed_by_server >= 100 / 5 - 8, "{outcome:?}");
    assert!(outcome.connects >= 100 / 5 - 8, "{outcome:?}");
    Ok(())
}

#[test]
fn wrong_bytes_are_counted() -> Test {
    let replies = AtomicU64::new(0);
    let address = server(move |number, stream| {
        let replies = &replies;
        http(stream, |_, _, _| {
            let wrong = number > 2 && replies.fetch_add(1, SeqCst) % 10 == 9;
            Some(ok(if wrong { b"Hello, worlD!" } else { b"Hello, world!" }))
        })
    })?;
    let outcome = run(&plan("http", address, "/", 100)?, &mut Silent)?;
    assert_eq!((outcome.requests, outcome.errors_by_kind.wrong, outcome.errors), (90, 10, 10));
    assert!(outcome.first_error.is_some_and(|text| text.contains("byte 11 of the body")));
    Ok(())
}

#[test]
fn stale_echoes_are_counted() -> Test {
    let address = server(|number, mut stream| {
        if number == 0 {
            return echo(number, stream);
        }
        let (mut first, mut buffer) = ([0; 64], [0; 64]);
        stream.read_exact(&mut first)?;
        stream.write_all(&first)?;
        loop {
            stream.read_exact(&mut buffer)?;
            stream.write_all(&first)?;
        }
    })?;
    let outcome = run(&plan("tcp", address, "", 100)?, &mut Silent)?;
    assert!(outcome.errors_by_kind.wrong > 40, "{outcome:?}");
    assert_eq!(outcome.requests + outcome.errors, 100);
    Ok(())
}

#[test]
fn bytes_that_belong_to_no_request_are_wrong() -> Test {
    let address = server(|number, stream| {
        http(stream, |_, _, _| {
            Some(if number > 2 { [ok(b"hi"), ok(b"hi")].concat() } else { ok(b"hi") })
        })
    })?;
    let outcome = run(&plan("http", address, "/", 20)?, &mut Silent)?;
    assert!(outcome.errors_by_kind.wrong > 0, "{outcome:?}");
    Ok(())
}

#[test]
fn a_reply_cut_short_is_counted() -> Test {
    let address = server(|number, mut stream| {
        if number <= 2 {
            return http(stream, |_, _, _| Some(ok(b"Hello, world!")));
        }
        stream.read_exact(&mut [0; 20])?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello")?;
        stream.shutdown(Shutdown::Write)
    })?;
    let outcome = run(&plan("http", address, "/", 50)?, &mut Silent)?;
    assert_eq!((outcome.requests, outcome.errors), (0, 50), "{outcome:?}");
    assert_eq!(outcome.errors_by_kind.closed, 50);
    assert_eq!(outcome.connections_without_progress, 8);
    Ok(())
}

#[test]
fn a_server_that_never_answers_runs_into_the_time_limit() -> Test {
    let address = server(|number, mut stream| match number {
        0 => echo(number, stream),
        _ => io::copy(&mut stream, &mut io::sink()).map(drop),
    })?;
    let plan = Plan { request_timeout: TIME_LIMIT, ..plan("tcp", address, "", 16)? };
    let outcome = run(&plan, &mut Silent)?;
    assert_eq!((outcome.requests, outcome.errors_by_kind.timeout), (0, 16), "{outcome:?}");
    Ok(())
}

#[test]
fn a_server_that_dies_ends_the_run() -> Test {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || -> io::Result<()> {
        echo(0, listener.accept()?.0)?;
        let mut streams: Vec<_> = (0..8).map(|_| listener.accept()).collect::<Result<_, _>>()?;
        // The server dies: it stops listening, and every connection ends with its second message
        // unanswered.
        drop(listener);
        for (stream, _) in &mut streams {
            let mut buffer = [0; 64];
            stream.read_exact(&mut buffer)?;
            stream.write_all(&buffer)?;
            stream.read_exact(&mut buffer)?;
        }
        Ok(())
    });
    let length = Length::Window(Duration::from_secs(60));
    let outcome = run(&Plan { length, ..plan("tcp", address, "", 1)? }, &mut Silent)?;
    assert!(outcome.duration_s < 30.0, "{outcome:?}");
    assert_eq!(outcome.requests, 8);
    assert!(outcome.errors_by_kind.closed > 0 && outcome.errors_by_kind.connect > 0, "{outcome:?}");
    assert!(outcome.ended_early.is_some_and(|text| text.contains("died")));
    Ok(())
}

#[test]
fn nothing_is_timed_when_the_first_reply_is_wrong() -> Test {
    let address = server(|_, stream| http(stream, |_, _, _| Some(ok(b"surprise"))))?;
    let refused = run(&plan("http", address, "/bytes/8", 1)?, &mut Silent);
    assert!(matches!(&refused, Err(Error::Probe { reason, .. }) if reason.contains("learnt")));
    let learnt =
        Plan { expected_body: ExpectedBody::Learnt, ..plan("http", address, "/bytes/8", 9)? };
    assert_exact(&run(&learnt, &mut Silent)?, 9);
    let status = Plan { expected_status: 404, ..plan("http", address, "/", 1)? };
    let refused = run(&status, &mut Silent);
    assert!(matches!(&refused, Err(Error::Probe { reason, .. }) if reason.contains("status 200")));
    Ok(())
}

#[test]
fn bodies_that_change_need_to_be_allowed() -> Test {
    let counter = AtomicU64::new(0);
    let address = server(move |_, stream| {
        http(stream, |_, _, _| Some(ok(counter.fetch_add(1, SeqCst).to_string().as_bytes())))
    })?;
    let refused = run(&plan("http", address, "/", 1)?, &mut Silent);
    assert!(matches!(refused, Err(Error::Probe { reason, .. }) if reason.contains("different")));
    let any = Plan { expected_body: ExpectedBody::Any, ..plan("http", address, "/", 50)? };
    assert_exact(&run(&any, &mut Silent)?, 50);
    Ok(())
}

#[test]
fn no_server_at_the_address() -> Test {
    // A port that was free before, and is bound but not listening now.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let address = socket.local_addr()?.as_socket().ok_or("no address")?;
    let refused = run(&plan("tcp", address, "", 1)?, &mut Silent);
    let Err(error @ Error::Unreachable { .. }) = refused else {
        return Err("it was reached".into());
    };
    assert_eq!(error.to_string().lines().count(), 1);
    Ok(())
}

#[test]
fn idle_connections_are_held_and_missed() -> Test {
    let address = server(echo)?;
    let held = Plan { idle_connections: 300, ..plan("tcp", address, "", 10)? };
    let outcome = run(&held, &mut Silent)?;
    assert_exact(&outcome, 10);
    assert_eq!((outcome.idle_connections, outcome.idle_connections_asked), (300, 300));
    // Connections 1 to 20 are the idle ones; every second one is closed.
    let closing = server(|number, stream| match number {
        1..=20 if number % 2 == 0 => stream.shutdown(Shutdown::Both),
        _ => echo(number, stream),
    })?;
    let missed = Plan { idle_connections: 20, ..plan("tcp", closing, "", 100)? };
    let outcome = run(&missed, &mut Silent)?;
    assert_exact(&outcome, 100);
    assert_eq!((outcome.idle_connections, outcome.idle_connections_asked), (10, 20));
    Ok(())
}

/// Records its calls.
#[derive(Default)]
struct Witness(Vec<&'static str>);

impl Observer for Witness {
    fn window_started(&mut self) {
        self.0.push("started");
    }
    fn window_ended(&mut self) {
        self.0.push("ended");
    }
}

#[test]
fn the_observer_sees_both_borders_once() -> Test {
    let address = server(echo)?;
    for threads in [1, 2] {
        let mut witness = Witness::default();
        let length = Length::Window(Duration::from_millis(200));
        let plan = Plan { threads, length, ..plan("tcp", address, "", 1)? };
        let outcome = run(&plan, &mut witness)?;
        assert_eq!(outcome.errors, 0);
        assert!(outcome.requests > 0 && outcome.duration_s >= 0.2, "{outcome:?}");
        assert_eq!(witness.0, ["started", "ended"]);
    }
    Ok(())
}

#[test]
fn errors_before_the_window_are_counted_apart() -> Test {
    let address = server(|number, stream| {
        http(stream, |_, _, _| Some(ok(if (3..11).contains(&number) { b"no" } else { b"ok" })))
    })?;
    // Connections 3 to 10 are the first eight that carry load: all are wrong, and given up at once.
    // A busy machine needs some of this time for them.
    let warmup = Duration::from_secs(1);
    let outcome = run(&Plan { warmup, ..plan("http", address, "/", 50)? }, &mut Silent)?;
    assert_exact(&outcome, 50);
    assert_eq!(outcome.errors_in_warmup, 8);
    Ok(())
}

/// An open loop with this rate and equal gaps.
fn open(rate_per_s: f64) -> Pace {
    Pace::Open { rate_per_s, arrivals: Arrivals::Constant, seed: 1 }
}

fn open_loop(outcome: &LoadOutcome) -> Result<&OpenLoop, String> {
    outcome.open_loop.as_ref().ok_or_else(|| format!("no open loop: {outcome:?}"))
}

#[test]
fn an_open_loop_sends_exactly_what_is_due() -> Test {
    let address = server(echo)?;
    for (pipelining, reconnect, threads) in
        [(1, false, 1), (3, false, 1), (1, true, 1), (1, false, 3)]
    {
        let pace = Pace::Open { rate_per_s: 4_000.0, arrivals: Arrivals::Poisson, seed: 5 };
        let warmup = Duration::from_millis(20);
        let plan = plan("tcp", address, "", 203)?;
        let plan = Plan { pace, pipelining, reconnect, threads, warmup, ..plan };
        let outcome = run(&plan, &mut Silent)?;
        assert_exact(&outcome, 203);
        let open = open_loop(&outcome)?;
        assert_eq!((open.due, open.sent, open.unanswered), (203, 203, 0), "{open:?}");
        assert_eq!((open.send_lag.samples, open.from_send.samples), (203, 203));
    }
    Ok(())
}

#[test]
fn every_server_is_asked_at_the_same_moments() -> Test {
    let pace = Pace::Open { rate_per_s: 3_000.0, arrivals: Arrivals::Poisson, seed: 9 };
    let due = |warmup| -> Result<u64, Box<dyn std::error::Error>> {
        let length = Length::Window(Duration::from_millis(150));
        let plan = Plan { pace, length, warmup, ..plan("tcp", server(echo)?, "", 1)? };
        let outcome = run(&plan, &mut Silent)?;
        let open = open_loop(&outcome)?;
        assert_eq!(open.due, outcome.latency.samples);
        Ok(open.due)
    };
    let first = due(Duration::ZERO)?;
    assert!(first > 300, "{first}");
    assert_eq!((due(Duration::ZERO)?, due(Duration::from_millis(30))?), (first, first));
    Ok(())
}

#[test]
fn a_stall_is_in_the_latency_of_all_waiting_requests() -> Test {
    // One connection, one message every 10 ms, and a server that does nothing for 400 ms.
    let address = server(|number, mut stream| {
        let mut message = [0; 64];
        for count in 0_u64.. {
            stream.read_exact(&mut message)?;
            if number > 0 && count == 30 {
                std::thread::sleep(Duration::from_millis(400));
            }
            stream.write_all(&message)?;
        }
        Ok(())
    })?;
    let length = Length::Window(Duration::from_secs(1));
    let plan = Plan { connections: 1, length, pace: open(100.0), ..plan("tcp", address, "", 1)? };
    let outcome = run(&plan, &mut Silent)?;
    let open = open_loop(&outcome)?;
    assert_eq!((open.due, open.unanswered), (100, 0), "{open:?}");
    // 10 of 100 were due in the first 100 ms of the stall and waited 300 ms or more. So p90 is at
    // least 300 ms on any machine. If the latency started at the send, one message would show the
    // stall.
    assert!(outcome.latency.p90_us >= 290_000.0, "{outcome:?}");
    assert!(open.from_send.max_us >= 399_000.0, "{open:?}");
    assert!(open.from_send.p90_us < outcome.latency.p90_us / 2.0, "{open:?}");
    Ok(())
}

#[test]
fn what_is_never_answered_is_in_the_latency_with_its_age() -> Test {
    let address = server(|number, mut stream| match number {
        0 => echo(number, stream),
        _ => io::copy(&mut stream, &mut io::sink()).map(drop),
    })?;
    let length = Length::Window(Duration::from_millis(200));
    let plan = Plan { length, pace: open(1_000.0), ..plan("tcp", address, "", 1)? };
    let outcome = run(&plan, &mut Silent)?;
    let open = open_loop(&outcome)?;
    assert_eq!((outcome.requests, outcome.errors), (0, 0), "{outcome:?}");
    // Eight connections have one request each and are never free again.
    assert_eq!((open.due, open.sent, open.unanswered), (200, 8, 200), "{open:?}");
    assert_eq!((outcome.latency.samples, open.from_send.samples), (200, 0));
    // The youngest was due just before the end, and may be answered for a second after it.
    assert!(outcome.latency.min_us >= 1e6, "{outcome:?}");
    Ok(())
}

#[test]
fn requests_of_an_open_loop_survive_a_polite_end_and_not_a_wrong_reply() -> Test {
    let address = server(|number, mut stream| {
        let mut buffer = [0; 4096];
        for count in 0..5 {
            if stream.read(&mut buffer)? == 0 {
                return Ok(());
            }
            let close = if count == 4 { "Connection: close\r\n" } else { "" };
            let body = if (number, count) == (3, 0) { "no" } else { "ok" };
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{close}\r\n{body}");
            stream.write_all(reply.as_bytes())?;
        }
        Ok(())
    })?;
    let plan = Plan { pace: open(2_000.0), ..plan("http", address, "/", 200)? };
    let outcome = run(&plan, &mut Silent)?;
    let open = open_loop(&outcome)?;
    assert_eq!((outcome.requests, outcome.errors_by_kind.wrong), (199, 1), "{outcome:?}");
    assert_eq!((open.due, open.unanswered, outcome.latency.samples), (200, 1, 200), "{open:?}");
    assert!(outcome.closed_by_server > 0);
    Ok(())
}

#[test]
fn streams_of_all_sizes_come_back_whole() -> Test {
    let address = server(echo)?;
    for payload_bytes in [1, 16, 1_000, 65_536, 300_000] {
        let plan = Plan { streaming: true, payload_bytes, ..plan("tcp", address, "", 5_000)? };
        let requests = (20_000_000 / payload_bytes as u64).min(5_000);
        let plan = Plan { length: Length::Requests(requests), ..plan };
        let outcome = run(&plan, &mut Silent)?;
        assert_exact(&outcome, requests);
        assert_eq!(outcome.bytes_received, requests * payload_bytes as u64);
        assert!(outcome.streaming && outcome.pipelining >= 2, "{outcome:?}");
        assert!(u64::from(outcome.pipelining) * payload_bytes as u64 <= 600_000, "{outcome:?}");
    }
    Ok(())
}

#[test]
fn a_stream_with_one_wrong_byte_is_caught() -> Test {
    let address = server(|number, mut stream| {
        let (mut buffer, mut passed) = (vec![0; 64 * 1024], 0);
        loop {
            let count = stream.read(&mut buffer)?;
            // Byte 1,000,000 of the first stream comes back wrong.
            if number == 1 && (passed..passed + count).contains(&1_000_000) {
                buffer[1_000_000 - passed] ^= 1;
            }
            passed += count;
            match count {
                0 => return Ok(()),
                count => stream.write_all(&buffer[..count])?,
            }
        }
    })?;
    let plan = Plan { streaming: true, payload_bytes: 1_024, ..plan("tcp", address, "", 20_000)? };
    let outcome = run(&plan, &mut Silent)?;
    assert_eq!((outcome.requests, outcome.errors_by_kind.wrong), (19_999, 1), "{outcome:?}");
    Ok(())
}

#[test]
fn a_run_can_be_seen_and_stopped_from_outside() -> Test {
    let address = server(echo)?;
    for pace in [Pace::Closed, open(2_000.0)] {
        for threads in [1, 2] {
            let live = Arc::new(Live::default());
            let stopper = std::thread::spawn({
                let live = Arc::clone(&live);
                move || {
                    let mut seen = live.progress();
                    while seen.stage != Stage::Measuring || seen.requests == 0 {
                        std::thread::yield_now();
                        seen = live.progress();
                    }
                    live.stop();
                }
            });
            let length = Length::Window(Duration::from_secs(60));
            let plan = Plan { pace, length, threads, ..plan("tcp", address, "", 1)? };
            let outcome = run_live(&plan, &mut Silent, &live)?;
            stopper.join().map_err(|_| "the other thread panicked")?;
            assert!(outcome.requests > 0 && outcome.duration_s < 30.0, "{outcome:?}");
            assert!(outcome.ended_early.is_some_and(|text| text.contains("stopped")));
        }
    }
    let live = Live::default();
    live.stop();
    let plan = Plan { idle_connections: 1, ..plan("tcp", address, "", 1)? };
    assert!(matches!(run_live(&plan, &mut Silent, &live), Err(Error::Interrupted)));
    Ok(())
}
