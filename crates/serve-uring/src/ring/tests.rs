//! The names of operations, and the account of lent memory, against the real kernel.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::cqe::OPS;
use super::provided_buffers::{BUFFER_BYTES, BUFFERS};
use super::*;
use crate::msg_ring::Waker;
use crate::setup;

/// Long enough for anything that is going to happen; a test that waits so long has failed.
const SOON: Duration = Duration::from_secs(10);

const ME: Token = Token { slot: 3, generation: 7 };

/// Runs `test` on a ring, where this machine allows one.
fn with_ring(test: impl FnOnce(&mut Ring)) {
    if let Some(reason) = setup::unavailable() {
        println!("SKIP {reason}");
        return;
    }
    let mut uring = setup::uring().expect("the trial made one");
    let mut ring = Ring::new(&mut uring).expect("the trial made one");
    test(&mut ring);
}

/// The next completion, waited for.
fn next(ring: &mut Ring) -> Completion {
    loop {
        if let Some(completion) = ring.next() {
            return completion;
        }
        ring.enter(Some(SOON)).expect("io_uring_enter");
    }
}

fn sent(completion: Completion) -> usize {
    match completion {
        Completion::Sent { token: ME, result } => result.expect("send"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_come_back_as_they_went() {
    for (number, op) in OPS.into_iter().enumerate() {
        for slot in [0, 1, 0xff, 0x1234_5678, u32::MAX] {
            for generation in [0, 1, 0xff, GENERATIONS - 1] {
                let token = Token { slot, generation };
                let name = pack(op, token);
                assert_eq!(name & 0xff, number as u64);
                assert_eq!(unpack(name), Some((op, token)));
            }
        }
    }
    assert_eq!(unpack(OPS.len() as u64), None, "no such operation");
}

#[test]
fn a_message_points_to_its_chunks_and_to_no_more_than_fit() {
    let chunks: Vec<Bytes> =
        (0..SLICES_MAX + 2).map(|n| Bytes::from(vec![n as u8; n + 1])).collect();
    let message = SendMsg::new(chunks);
    assert_eq!(message.header.msg_iovlen, SLICES_MAX);
    assert_eq!(message.header.msg_iov.cast_const(), message.slices.as_ptr());
    for (n, slice) in message.slices.iter().enumerate() {
        assert_eq!(slice.iov_len, n + 1);
        assert_eq!(slice.iov_base.cast_const().cast(), message.chunks[n].as_ptr());
    }
}

#[test]
fn bytes_beyond_all_buffers_wait_until_some_are_given_back() {
    with_ring(|ring| {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
        // Every buffer is filled by one part, and one part is left.
        let parts = usize::from(BUFFERS) + 1;
        let writer = std::thread::spawn(move || {
            for n in 0..parts {
                theirs.write_all(&[n as u8; BUFFER_BYTES]).expect("write");
            }
        });
        ring.receive(ours.as_fd(), ME, Receive::Multishot, false);
        let mut filled = Vec::new();
        let mut starved = false;
        let mut received = 0;
        while received < parts * BUFFER_BYTES {
            let Completion::Received { token: ME, result, more, .. } = next(ring) else {
                panic!("not a receive");
            };
            match result {
                Ok(Some(buffer)) => {
                    for &byte in ring.bytes(&buffer) {
                        assert_eq!(byte, (received / BUFFER_BYTES) as u8, "byte {received}");
                        received += 1;
                    }
                    filled.push(buffer);
                }
                Ok(None) => panic!("end of stream after {received} bytes"),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
                    assert_eq!(filled.len(), usize::from(BUFFERS), "none was left");
                    starved = true;
                    filled.drain(..).for_each(|buffer| ring.give_back(buffer));
                }
            }
            if !more {
                ring.receive(ours.as_fd(), ME, Receive::Multishot, false);
            }
        }
        assert!(starved);
        writer.join().expect("writer");
        filled.drain(..).for_each(|buffer| ring.give_back(buffer));
    });
}

#[test]
fn one_shot_brings_one_completion_and_then_the_end() {
    with_ring(|ring| {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
        ring.receive(ours.as_fd(), ME, Receive::OneShot, true);
        theirs.write_all(b"abc").expect("write");
        match next(ring) {
            Completion::Received { token: ME, result: Ok(Some(buffer)), more: false, .. } => {
                assert_eq!(ring.bytes(&buffer), b"abc");
                ring.give_back(buffer);
            }
            other => panic!("{other:?}"),
        }
        assert!(ring.is_idle());
        drop(theirs);
        ring.receive(ours.as_fd(), ME, Receive::OneShot, true);
        let end = next(ring);
        assert!(matches!(end, Completion::Received { result: Ok(None), more: false, .. }));
    });
}

#[test]
fn chunks_leave_in_order_and_memory_comes_back_with_the_completion() {
    with_ring(|ring| {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
        for count in [1, 2, SLICES_MAX] {
            let chunks: Vec<Bytes> =
                (0..count).map(|n| Bytes::from(vec![b'a' + n as u8; 10])).collect();
            let expected: Vec<u8> = chunks.concat();
            ring.send(ours.as_fd(), ME, chunks.iter().cloned());
            assert!(!chunks[0].is_unique(), "lent");
            assert_eq!(sent(next(ring)), expected.len());
            assert!(chunks[0].is_unique(), "given back");
            let mut received = vec![0; expected.len()];
            theirs.read_exact(&mut received).expect("read");
            assert_eq!(received, expected);
        }
    });
}

#[test]
fn more_chunks_than_fit_are_left_for_the_next_send() {
    with_ring(|ring| {
        let (ours, _theirs) = UnixStream::pair().expect("socketpair");
        ring.send(ours.as_fd(), ME, (0..SLICES_MAX + 3).map(|_| Bytes::from_static(b"x")));
        assert_eq!(sent(next(ring)), SLICES_MAX);
    });
}

#[test]
fn a_cancelled_send_comes_back_and_an_abandoned_one_is_leaked() {
    const MORE_THAN_FITS: usize = 64 << 20;
    let memory = Bytes::from(vec![0; MORE_THAN_FITS]);
    with_ring(|ring| {
        let (ours, _theirs) = UnixStream::pair().expect("socketpair");
        ring.send(ours.as_fd(), ME, std::iter::once(memory.clone()));
        // What fits is sent at once, and the rest is a second send, which has to wait.
        let first = sent(next(ring));
        assert!(0 < first && first < MORE_THAN_FITS);
        ring.send(ours.as_fd(), ME, std::iter::once(memory.slice(first..)));
        ring.cancel(Op::Send, ME);
        match next(ring) {
            Completion::Sent { result: Err(error), .. } => {
                assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
            }
            other => panic!("{other:?}"),
        }
        assert!(ring.is_idle() && memory.is_unique());
        ring.send(ours.as_fd(), ME, std::iter::once(memory.slice(first..)));
    });
    // The ring is gone with a send in flight. Where there was no ring, nothing was lent.
    assert_eq!(memory.is_unique(), setup::unavailable().is_some());
}

#[test]
fn a_file_is_read_up_to_its_end() {
    with_ring(|ring| {
        let path = std::env::current_exe().expect("this test");
        let all = std::fs::read(&path).expect("this test");
        let file = File::open(&path).expect("this test");
        let mut read = |offset: usize| {
            ring.read_file(&file, ME, offset as u64, 1000);
            match next(ring) {
                Completion::FileRead { token: ME, result } => result.expect("read"),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(read(4096), all[4096..5096]);
        assert_eq!(read(all.len() - 10), all[all.len() - 10..]);
        assert!(read(all.len()).is_empty());
    });
}

#[test]
fn requests_beyond_the_queue_are_handed_over_later() {
    with_ring(|ring| {
        let room = ring.submissions.capacity();
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        for slot in 0..room as u32 + 10 {
            ring.receive(ours.as_fd(), Token { slot, generation: 0 }, Receive::OneShot, true);
        }
        assert_eq!(ring.backlog.len(), 10);
        drop(theirs);
        let mut ended = 0;
        while !ring.is_idle() {
            assert!(matches!(next(ring), Completion::Received { result: Ok(None), .. }));
            ended += 1;
        }
        assert_eq!(ended, room + 10);
    });
}

/// A loop on a thread of its own, that hears `wanted` rings before it ends.
fn listening(wanted: usize) -> Option<(Waker, std::thread::JoinHandle<Vec<Token>>)> {
    if let Some(reason) = setup::unavailable() {
        println!("SKIP {reason}");
        return None;
    }
    let (sender, waker) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || {
        let mut uring = setup::uring().expect("the trial made one");
        sender.send(Waker::of(&uring).expect("a descriptor")).expect("the test is there");
        let mut ring = Ring::new(&mut uring).expect("the trial made one");
        let mut heard = Vec::new();
        while heard.len() < wanted {
            match next(&mut ring) {
                Completion::WokenUp { token } => heard.push(token),
                other => panic!("{other:?}"),
            }
        }
        heard
    });
    Some((waker.recv().expect("the loop has begun"), listener))
}

/// Nothing but completions: what was told is then with the other ring.
fn finish(ring: &mut Ring) {
    while !ring.is_idle() {
        ring.enter(Some(SOON)).expect("io_uring_enter");
        assert!(ring.next().is_none(), "everything was delivered");
    }
}

#[test]
fn a_sleeping_loop_hears_every_ring() {
    const RINGS: u32 = 1000;
    let Some((waker, listener)) = listening(RINGS as usize) else { return };
    with_ring(|ring| {
        for slot in 0..RINGS {
            // One by one: the other loop sleeps in between, as often as not.
            ring.wake(waker.wake_up(pack(Op::WakeUp, Token { slot, generation: 7 })));
            finish(ring);
        }
    });
    let heard = listener.join().expect("the loop ends");
    let all = (0..RINGS).map(|slot| Token { slot, generation: 7 });
    assert!(heard.into_iter().eq(all), "lost or out of order");
}

#[test]
fn a_loop_that_has_ended_needs_no_messages() {
    let Some((waker, listener)) = listening(0) else { return };
    listener.join().expect("the loop ends");
    with_ring(|ring| {
        ring.wake(waker.wake_up(pack(Op::WakeUp, ME)));
        finish(ring);
        assert!(ring.messages.is_empty(), "its descriptor is still held");
    });
}
