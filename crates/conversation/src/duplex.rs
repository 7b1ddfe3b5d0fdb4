//! A connection on a blocking socket, and two threads: one reads, one writes.
//!
//! A thread that is blocked in recv(2) cannot write, and one that is blocked in send(2) cannot
//! read: a conversation on one thread is half duplex. With two it is full duplex, and the writer,
//! which sleeps on a condition variable while there is nothing to write, can be woken by other
//! threads. The price is a second stack, and for every reply a switch from the reader, which
//! received the request, to the writer, which must send.
//!
//! What each thread does, so that they never wait for each other:
//! - The reader blocks in recv(2), and in nothing else while the connection wants input. It never
//!   writes. What it has told the connection may be work for the writer, so it then touches the
//!   wake-up.
//! - The writer does everything else: output, file reads, FIN, deadlines, stopping. It never
//!   reads. After it has made room for input it wakes the reader. There is one exception: a
//!   deadline that input would move. The writer then interrupts the reader, which reads once more
//!   and decides.
//! - The connection is behind one lock, which is never held during a system call that may block:
//!   output is taken as counted handles, written, and then reported as sent. Only the writer takes
//!   from the front of the output, so what was taken is what was sent.
//! - The wake-up has a lock of its own, which is taken last and held for a few instructions: a
//!   thread that wakes this connection may hold the lock of another one.
//! - The thread that first sees the end shuts the socket down both ways: that ends the recv(2) or
//!   send(2) of the other. An error of the socket is told to the connection, which then ends.
//!
//! Man pages: shutdown(2), recv(2), send(2), pthread_cond_timedwait(3).

use std::io::{self, ErrorKind, IoSlice, Read};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conn::{Conn, Wants};

use kit::{SLICES_MAX, Tracked, WAKE_INTERVAL, Worker, late, look_at_output, unread, write_slices};

use crate::conversation::Conversation;
use crate::thread::builder;
use crate::wake_up::WakeUp;

/// Longest sleep without a deadline: any time will do, the thread then looks and sleeps again.
pub(crate) const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A connection between its two threads.
pub(crate) struct Duplex<'c> {
    worker: &'c Worker,
    stream: &'c TcpStream,
    /// The thread that reads.
    reader: &'c Tracked,
    wake_up: &'c WakeUp,
    shared: Mutex<Shared>,
    /// The connection wants input again, or nothing any more.
    readable: Condvar,
}

struct Shared {
    conn: Conn,
    /// Kept here because to notify a condition variable is a system call
    /// even if no thread waits.
    reader_waits: bool,
    /// The connection was told that the server is to stop.
    draining: bool,
    /// A deadline is due that input would move: the reader is to look for it.
    look: bool,
}

/// Serves the connection to its end: the calling thread reads, a new one writes. Where it cannot
/// be started, although it was counted, the connection is cut, and others go on.
pub(crate) fn converse(conversation: Conversation, scratch: &mut [u8]) {
    let Conversation { worker, stream, tracked, wake_up, conn, .. } = conversation;
    let shared = Shared { conn, reader_waits: false, draining: false, look: false };
    let duplex = Duplex {
        worker,
        stream: &stream,
        reader: &tracked,
        wake_up: &wake_up,
        shared: Mutex::new(shared),
        readable: Condvar::new(),
    };
    thread::scope(|scope| match builder().spawn_scoped(scope, || duplex.write_to_the_end()) {
        Ok(_) => duplex.read_to_the_end(scratch),
        Err(_) => duplex.lock().conn.exhausted(),
    });
}

impl Duplex<'_> {
    fn read_to_the_end(&self, scratch: &mut [u8]) {
        let mut shared = self.lock();
        while let Some(wants) = shared.conn.wants() {
            if !wants.read {
                shared.reader_waits = true;
                shared = self.readable.wait(shared).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(shared);
            let result = (&*self.stream).read(scratch);
            let now = Instant::now();
            shared = self.lock();
            match result {
                Ok(n @ 1..) => shared.conn.receive(&scratch[..n], now),
                Ok(_) => {
                    self.catch_up_with_stop(&mut shared, now);
                    shared.conn.receive_eof(now);
                }
                Err(error) if is_passing(&error) => {}
                Err(_) => {
                    self.catch_up_with_stop(&mut shared, now);
                    shared.conn.abort();
                }
            }
            self.look_round(&mut shared, scratch);
            // Not under the lock: the writer would wake up only to wait for it.
            drop(shared);
            self.wake_up.touch();
            shared = self.lock();
        }
        drop(shared);
        end(self.stream);
        self.wake_up.touch();
    }

    /// What the reader may have been interrupted for. It holds no bytes of the connection's here.
    fn look_round(&self, shared: &mut Shared, scratch: &mut [u8]) {
        if mem::take(&mut shared.look) {
            shared.late(self.stream, scratch);
        }
        self.look_for_stop(shared);
    }

    /// To be called by the reader, or while it waits for the connection: at any other time it may
    /// hold bytes that are neither in the socket nor with the connection.
    fn look_for_stop(&self, shared: &mut Shared) {
        if let Some(at) = self.worker.stop.requested_at()
            && !shared.draining
        {
            shared.draining = true;
            self.reader.told();
            shared.conn.drain(unread(self.stream), at);
        }
    }

    fn write_to_the_end(&self) {
        let mut chunks: [Bytes; SLICES_MAX] = std::array::from_fn(|_| Bytes::new());
        let mut shared = self.lock();
        loop {
            let now = Instant::now();
            if self.wake_up.take() {
                shared.conn.resume(now);
            }
            if shared.reader_waits {
                self.look_for_stop(&mut shared);
            }
            let wants = shared.conn.wants();
            self.let_read(&mut shared, wants.as_ref());
            let Some(wants) = wants else { break };
            let due = wants.deadline.is_some_and(|at| at <= now);
            shared.look = due && shared.conn.input_is_late(now);
            if shared.look {
                // It may have come in time, and the reader not have had the processor since.
                self.reader.wake();
                drop(shared);
                self.wake_up.wait(WAKE_INTERVAL);
                shared = self.lock();
            } else if due {
                look_at_output(&mut shared.conn, self.stream, now);
                shared.conn.timeout(now);
            } else if let Some(part) = &wants.file {
                drop(shared);
                let read = self.worker.files.read(part);
                shared = self.lock();
                match read {
                    Ok(bytes) => shared.conn.file_read(bytes, now),
                    Err(_) => shared.conn.file_failed(now),
                }
            } else if wants.write {
                shared = self.write(shared, &mut chunks);
            } else if wants.shutdown {
                shared.finish(self.stream, now);
            } else if wants.turn {
                shared.conn.resume(now);
            } else {
                drop(shared);
                let until = wants.deadline.map(|at| at.saturating_duration_since(now));
                self.wake_up.wait(until.unwrap_or(FOREVER));
                shared = self.lock();
            }
        }
        drop(shared);
        end(self.stream);
    }

    /// One send(2), which may block: meanwhile the connection is the reader's.
    fn write<'s>(
        &'s self,
        mut shared: MutexGuard<'s, Shared>,
        chunks: &mut [Bytes; SLICES_MAX],
    ) -> MutexGuard<'s, Shared> {
        let mut filled = 0;
        for (chunk, slot) in shared.conn.chunks().zip(chunks.iter_mut()) {
            *slot = chunk;
            filled += 1;
        }
        drop(shared);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        for (slice, chunk) in slices.iter_mut().zip(&chunks[..filled]) {
            *slice = IoSlice::new(chunk);
        }
        let result = write_slices(self.stream, &slices[..filled]);
        chunks[..filled].fill(Bytes::new());
        let now = Instant::now();
        let mut shared = self.lock();
        match result {
            Ok(n) => shared.conn.sent(n, now),
            Err(error) => {
                // What is due comes first: the error may be our own cut, at the end of draining.
                self.catch_up_with_stop(&mut shared, now);
                look_at_output(&mut shared.conn, self.stream, now);
                shared.conn.timeout(now);
                // WouldBlock is SO_SNDTIMEO, inherited from the listener.
                if !is_passing(&error) {
                    shared.conn.abort();
                }
            }
        }
        shared
    }

    /// Wakes the reader where it waits for room and there is some, or for the end and it is here.
    fn let_read(&self, shared: &mut Shared, wants: Option<&Wants>) {
        if shared.reader_waits && wants.is_none_or(|wants| wants.read) {
            shared.reader_waits = false;
            self.readable.notify_one();
        }
    }

    /// The end of the stream, or an error, may be the server's own cut at the end of draining:
    /// then that is why the connection ends, and no word of the peer's.
    fn catch_up_with_stop(&self, shared: &mut Shared, now: Instant) {
        if self.worker.stop.is_over(now) {
            self.look_for_stop(shared);
            shared.conn.timeout(now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// A deadline is due that input would move. Only the reader may look for that input, or bytes
    /// would change their order. It also decides, and closes, before it unlocks: what comes in
    /// while a decision waits for the other thread to run would be lost.
    fn late(&mut self, stream: &TcpStream, scratch: &mut [u8]) {
        let now = Instant::now();
        late(&mut self.conn, stream, scratch, now);
        match self.conn.wants() {
            Some(wants) if wants.shutdown => self.finish(stream, now),
            Some(_) => {}
            None => end(stream),
        }
    }

    /// Sends the FIN.
    fn finish(&mut self, stream: &TcpStream, now: Instant) {
        // A peer that is gone already makes this fail; the reader will tell.
        let _ = stream.shutdown(Shutdown::Write);
        self.conn.shutdown_done(now);
    }
}

/// Wakes the other thread out of its system call. What was sent is still delivered.
fn end(stream: &TcpStream) {
    // ENOTCONN: the peer was faster.
    let _ = stream.shutdown(Shutdown::Both);
}

/// SO_RCVTIMEO, SO_SNDTIMEO, or a signal: nothing has happened to the connection.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::Arc;

    use conn::{Address, Clock, Common, Counters, Limits, Protocol, Service};

    use super::*;

    /// A connection whose idle time is over, its socket, and its peer's.
    fn idle_too_long() -> (Shared, TcpStream, TcpStream) {
        let counters: &Counters = Box::leak(Box::default());
        let started = Instant::now();
        let clock = Clock { started, started_unix: Duration::ZERO };
        let common = Common::new(Arc::new(()), clock);
        let service = Service::new(Protocol::Http, Limits::default(), counters, common);
        let long_ago = started.checked_sub(Duration::from_secs(3600)).expect("the clock goes back");
        let conn = Conn::new(&Arc::new(service), Address::alone(), long_ago);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("its address")).expect("a peer");
        let (stream, _) = listener.accept().expect("the peer");
        (Shared { conn, reader_waits: false, draining: false, look: true }, stream, peer)
    }

    #[test]
    fn what_came_in_time_is_read_before_the_reader_decides() {
        let (mut shared, stream, mut peer) = idle_too_long();
        peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("a request");
        // Blocks until it is there.
        assert_eq!(stream.peek(&mut [0]).expect("a byte"), 1);
        shared.late(&stream, &mut [0; 1024]);
        let wants = shared.conn.wants().expect("it goes on");
        assert!(wants.write && !wants.shutdown, "{wants:?}");
    }

    /// Nothing is left for the writer to decide: a request would be lost that comes before it
    /// does.
    #[test]
    fn where_nothing_came_the_reader_itself_closes() {
        let (mut shared, stream, mut peer) = idle_too_long();
        shared.late(&stream, &mut [0; 1024]);
        assert!(shared.conn.wants().is_none(), "it is over");
        assert_eq!(peer.read(&mut [0]).expect("an end"), 0, "FIN");
    }
}
