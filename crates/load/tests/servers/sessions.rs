//! Sessions: servers that take turns.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use load::{Clocks, Error, Pace, Plan, Session};
use record::Arrivals;

use crate::support::{Test, http, ok, plan, server};

const SLICE: Duration = Duration::from_millis(5);

/// A server, and the number of requests that it has answered.
fn counting() -> std::io::Result<(std::net::SocketAddr, Arc<AtomicU64>)> {
    let answered = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&answered);
    let address = server(move |_, stream| {
        http(stream, |_, _, _| {
            count.fetch_add(1, SeqCst);
            Some(ok(b"hello"))
        })
    })?;
    Ok((address, answered))
}

fn unknown() -> Result<Clocks, Error> {
    Clocks::of(&[])
}

/// In every kind of session no request is in flight when a slice has ended, and none is sent
/// between slices.
#[test]
fn a_slice_belongs_to_one_server() -> Test {
    let ways: [fn(&mut Plan); 3] =
        [|_| {}, |plan| plan.pipelining = 7, |plan| plan.reconnect = true];
    for way in ways {
        let servers = [counting()?, counting()?];
        let mut sessions = Vec::new();
        for (address, _) in &servers {
            let mut plan = plan("http", *address, "/", 1)?;
            way(&mut plan);
            sessions.push(Session::open(plan, unknown()?)?);
        }
        let count = |at: usize| servers[at].1.load(SeqCst);
        for turn in [0, 1, 1, 0, 1] {
            let (mine, other) = (count(turn), count(1 - turn));
            let slice = sessions[turn].slice(SLICE)?;
            assert!(slice.requests > 0 && slice.errors == 0, "{slice:?}");
            assert!(slice.elapsed_ns >= SLICE.as_nanos() as u64 && slice.client_cpu_ns > 0);
            assert_eq!((slice.server_cpu_ns, slice.ended), (None, None));
            assert_eq!(count(turn) - mine, slice.requests);
            assert_eq!(count(1 - turn), other);
        }
    }
    Ok(())
}

#[test]
fn the_outcome_is_that_of_the_slices_after_the_warm_up() -> Test {
    let (address, _) = counting()?;
    let mut session = Session::open(plan("http", address, "/", 1)?, unknown()?)?;
    session.slice(SLICE)?;
    session.forget();
    let slices = [session.slice(SLICE)?, session.slice(SLICE)?];
    let outcome = session.finish()?;
    let requests = slices[0].requests + slices[1].requests;
    assert_eq!((outcome.requests, outcome.latency.samples), (requests, requests));
    let elapsed_ns = slices[0].elapsed_ns + slices[1].elapsed_ns;
    assert!((outcome.duration_s * 1e9 - elapsed_ns as f64).abs() < 1.0, "{outcome:?}");
    assert_eq!((outcome.errors, outcome.connections_without_progress), (0, 0));
    Ok(())
}

/// Longer than the loop's heartbeat, which publishes the counts.
const LONG: Duration = Duration::from_millis(150);

#[test]
fn slices_after_the_conclusion_are_in_no_outcome() -> Test {
    let (address, answered) = counting()?;
    let mut session = Session::open(plan("http", address, "/", 1)?, unknown()?)?;
    let mut second = Session::open(plan("http", address, "/", 1)?, unknown()?)?;
    let slice = session.slice(LONG)?;
    session.conclude();
    let before = answered.load(SeqCst);
    let [one, other] = session.slice_both(&mut second, LONG)?;
    assert!(one.requests > 0 && other.requests > 0, "{one:?} {other:?}");
    assert_eq!(answered.load(SeqCst) - before, one.requests + other.requests);
    let outcome = session.finish()?;
    assert_eq!((outcome.requests, outcome.latency.samples), (slice.requests, slice.requests));
    assert_eq!((outcome.errors, outcome.connections_without_progress), (0, 0));
    assert_eq!(second.finish()?.requests, other.requests);
    Ok(())
}

#[test]
fn what_falls_due_in_slices_is_all_accounted_for() -> Test {
    let (address, _) = counting()?;
    let pace = Pace::Open { rate_per_s: 4_000.0, arrivals: Arrivals::Constant, seed: 1 };
    let plan = Plan { pace, ..plan("http", address, "/", 1)? };
    let mut session = Session::open(plan, unknown()?)?;
    session.slice(Duration::from_millis(50))?;
    session.forget();
    let slices = (0..3).map(|_| session.slice(Duration::from_millis(50)));
    let slices = slices.collect::<Result<Vec<_>, _>>()?;
    let outcome = session.finish()?;
    let open = outcome.open_loop.ok_or("an open loop")?;
    assert_eq!(open.due, 600);
    assert_eq!(slices.iter().map(|slice| slice.requests).sum::<u64>(), outcome.requests);
    assert_eq!((outcome.requests + open.unanswered, outcome.latency.samples), (600, 600));
    Ok(())
}

/// Its connections end, and no more can be made.
#[test]
fn a_server_that_dies_is_reported() -> Test {
    let dead = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&dead);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take_while(|_| !seen.load(SeqCst)) {
            let seen = Arc::clone(&seen);
            let answer = move |_, _: &str, _: &[u8]| (!seen.load(SeqCst)).then(|| ok(b"hello"));
            std::thread::spawn(move || drop(http(stream, answer)));
        }
    });
    let mut session = Session::open(plan("http", address, "/", 1)?, unknown()?)?;
    assert_eq!(session.slice(SLICE)?.ended, None);
    dead.store(true, SeqCst);
    let slice = session.slice(Duration::from_secs(20))?;
    let told = slice.ended.ok_or("it has ended")?;
    assert!(told.contains("died: connections failed"), "{told}");
    Ok(())
}

#[test]
fn a_server_s_cpu_time_is_read_at_both_borders() -> Test {
    let (address, _) = counting()?;
    let this = i32::try_from(std::process::id())?;
    let mut session = Session::open(plan("http", address, "/", 1)?, Clocks::of(&[this])?)?;
    let slice = session.slice(SLICE)?;
    let cpu_ns = slice.server_cpu_ns.ok_or("a process was named")?;
    assert!(cpu_ns >= slice.client_cpu_ns && slice.client_cpu_ns > 0, "{slice:?}");
    // Another that has ended is left out.
    assert!(Clocks::of(&[this, 4_194_305]).is_ok());
    // The kernel gives no process a larger number than 4,194,304 (proc(5), pid_max).
    let missing = Clocks::of(&[4_194_305]).err().ok_or("no such process")?;
    assert!(missing.to_string().contains("process 4194305 cannot be read"), "{missing}");
    Ok(())
}

#[test]
fn where_nothing_answers_no_session_is_opened() -> Test {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    drop(listener);
    let error = Session::open(plan("http", address, "/", 1)?, unknown()?).err();
    assert!(matches!(error, Some(Error::Unreachable { .. })), "{error:?}");
    Ok(())
}
