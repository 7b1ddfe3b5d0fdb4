//! The open loop under a virtual clock.

use super::*;

/// One request per microsecond, from 1,000 ns on.
fn metronome(requests: u64) -> Result<OpenLoop, Error> {
    let mut open = OpenLoop::new(Arrivals::Constant, 1e6, 0, (0, 1), 4)?;
    open.start_window(1_000, u64::MAX, requests);
    Ok(open)
}

/// Sends the next request on a connection that was free since `free_ns`.
fn send(open: &mut OpenLoop, free_ns: u64, now_ns: u64) -> Option<Pending> {
    let ready = open.take(now_ns)?;
    Some(open.sending(ready, free_ns, now_ns).0)
}

#[test]
fn requests_fall_due_by_the_clock_and_in_order() -> Result<(), Error> {
    let mut open = metronome(3)?;
    assert!(!open.is_due(999) && open.is_due(1_000));
    let due = |open: &mut OpenLoop, now_ns| open.take(now_ns).map(|ready| ready.due_ns);
    // The client sleeps through two due times.
    assert_eq!(due(&mut open, 2_500), Some(1_000));
    assert_eq!(due(&mut open, 2_500), Some(2_000));
    assert_eq!(due(&mut open, 2_500), None);
    assert!(!open.is_spent());
    assert_eq!(due(&mut open, 9_000), Some(3_000));
    assert!(open.is_spent() && !open.is_due(u64::MAX - 1));
    Ok(())
}

#[test]
fn latency_counts_from_the_due_time_and_lag_from_the_free_connection() -> Result<(), Error> {
    let mut open = metronome(2)?;
    // Due at 1,000, free before, sent at 1,300: 300 ns of send lag.
    let first = send(&mut open, 0, 1_300).ok_or(Error::Plan("nothing is due".into()))?;
    // Due at 2,000, free from 5,000 on, sent at 5,100: 100 ns of send lag; the server caused the
    // other 3,000.
    assert!(open.answered(first, 5_000));
    let second = send(&mut open, 5_000, 5_100).ok_or(Error::Plan("nothing is due".into()))?;
    assert!(open.answered(second, 6_000));
    open.end_window(6_000);
    open.close(std::iter::empty(), 6_000);
    let counts = open.into_counts();
    assert_eq!((counts.due, counts.sent, counts.unanswered), (2, 2, 0));
    let ends = |latencies: &Latencies| (latencies.quantile_ns(0.0), latencies.quantile_ns(1.0));
    // Above 2,048 ns the histogram's steps are 2 ns wide. It returns a step's lower end for its
    // smallest sample and the upper end for all others.
    assert_eq!(ends(&counts.send_lag), (100, 300));
    assert_eq!(ends(&counts.from_send), (900, 3_701));
    assert_eq!(ends(&counts.latency), (4_000, 4_001));
    Ok(())
}

#[test]
fn a_dead_server_leaves_ages() -> Result<(), Error> {
    let mut open = metronome(u64::MAX)?;
    let on_its_way = send(&mut open, 0, 1_000);
    // The window ends at 11,000: 1,000 to 10,000 were due in it, one was sent.
    let waited_ns = open.end_window(11_000);
    assert_eq!(waited_ns, (1..=9).map(|k| k * 1_000).sum::<u64>());
    open.close(on_its_way.into_iter(), 21_000);
    let counts = open.into_counts();
    assert_eq!((counts.due, counts.sent, counts.unanswered), (10, 1, 10));
    assert_eq!(counts.latency.quantile_ns(0.0) / 10, 1_100);
    assert_eq!(counts.latency.quantile_ns(1.0) / 20, 1_000);
    assert_eq!(counts.from_send.quantile_ns(1.0), 0);
    Ok(())
}

#[test]
fn a_request_that_lost_its_connection_keeps_its_due_time() -> Result<(), Error> {
    let mut open = metronome(2)?;
    let first = send(&mut open, 0, 1_000).ok_or(Error::Plan("nothing is due".into()))?;
    open.give_back(first, 4_000);
    assert!(open.is_due(0));
    let ready = open.take(4_000).ok_or(Error::Plan("nothing came back".into()))?;
    assert_eq!((ready.due_ns, ready.since_ns), (1_000, 4_000));
    let (again, waited_ns) = open.sending(ready, 4_200, 4_300);
    assert_eq!((again.due_ns, again.sent_ns, waited_ns), (1_000, 4_300, 300));
    open.lost(again);
    open.end_window(5_000);
    open.close(std::iter::empty(), 5_000);
    let counts = open.into_counts();
    // One was sent twice, counted once, and lost; the other was never sent.
    assert_eq!((counts.due, counts.sent, counts.unanswered), (2, 1, 2));
    Ok(())
}

#[test]
fn the_warm_up_does_not_count() -> Result<(), Error> {
    let mut open = OpenLoop::new(Arrivals::Constant, 1e6, 0, (0, 1), 4)?;
    open.warm_up(0);
    let warm = send(&mut open, 0, 0).ok_or(Error::Plan("nothing is due".into()))?;
    assert!(open.is_due(5_000));
    open.start_window(10_500, 12_000, u64::MAX);
    assert!(!open.is_due(10_499), "what the warm-up left unsent is forgotten");
    assert!(!open.answered(warm, 11_000));
    open.end_window(12_000);
    open.close(std::iter::empty(), 12_000);
    let counts = open.into_counts();
    assert_eq!((counts.due, counts.unanswered), (2, 2));
    Ok(())
}

#[test]
fn free_connections_take_turns() -> Result<(), Error> {
    let mut open = metronome(1)?;
    assert_eq!(open.wake_ns(), u64::MAX, "no connection is free: nothing to wake up for");
    (0..3).for_each(|slot| open.add_free(slot, 500 + u64::from(slot)));
    assert_eq!((open.wake_ns(), open.free_since_ns()), (1_000, 500));
    open.remove_free(1);
    assert_eq!([open.take_free(), open.take_free(), open.take_free()], [Some(0), Some(2), None]);
    open.add_free(1, 900);
    assert_eq!(open.free_since_ns(), 900);
    Ok(())
}

#[test]
fn what_fell_due_in_a_stop_is_marked_until_the_client_has_caught_up() -> Result<(), Error> {
    let mut open = metronome(u64::MAX)?;
    assert!(send(&mut open, 0, 1_000).is_some());
    // Stopped from 1,500 to 4,500; 2,000 to 4,000 were due.
    open.stopped(1_500, 4_500);
    while send(&mut open, 0, 4_600).is_some() {}
    open.caught_up();
    assert!(send(&mut open, 0, 5_000).is_some());
    // Stopped from 5,500 to 7,500, without catching up: as long again is marked, 6,000 to 9,000.
    open.stopped(5_500, 7_500);
    while send(&mut open, 0, 20_500).is_some() {}
    open.end_window(20_500);
    open.close(std::iter::empty(), 20_500);
    let counts = open.into_counts();
    assert_eq!((counts.due, counts.delayed), (20, 3 + 4));
    Ok(())
}

fn counts(lag_ns: u64, latency_ns: u64) -> Result<Counts, Error> {
    let mut counts = Counts::new()?;
    for _ in 0..1_000 {
        counts.send_lag.record(lag_ns);
        counts.latency.record(latency_ns);
    }
    Ok(counts)
}

#[test]
fn the_client_is_to_blame_only_where_it_matters() -> Result<(), Error> {
    let blamed = |lag_ns, latency_ns, busy| -> Result<bool, Error> {
        Ok(invalid(&counts(lag_ns, latency_ns)?, busy).is_some())
    };
    assert!(!blamed(50_000, 60_000, 0.5)?, "50 us late is as good as it gets");
    assert!(!blamed(150_000, 200_000, 0.5)?, "a shared machine wakes up so late");
    assert!(blamed(7_500_000, 10_000_000, 0.5)?, "three quarters of the median are ours");
    assert!(!blamed(9_000_000, 1_000_000_000, 0.5)?, "a server that takes a second");
    assert!(blamed(50_000_000, 60_000_000, 0.5)?);
    assert!(blamed(0, 60_000, 0.97)?, "no time to read replies");
    let mut tail = counts(0, 100_000)?;
    // Two in a hundred are 20 ms late, as when other threads have the core.
    (0..20).for_each(|_| tail.send_lag.record(20_000_000));
    (0..20).for_each(|_| tail.latency.record(21_000_000));
    assert_eq!(invalid(&tail, 0.5), None);
    // Then 80 ms late, which no time slice explains.
    (0..20).for_each(|_| tail.send_lag.record(80_000_000));
    (0..20).for_each(|_| tail.latency.record(81_000_000));
    assert!(invalid(&tail, 0.5).is_some_and(|why| why.contains("p99")));
    Ok(())
}
