//! The connections to one server, kept open and loaded one slice at a time. So servers take turns
//! on one machine while its noise is the same for all.
//!
//! A session has its own thread, which sleeps between slices. Many servers can have open and warm
//! connections at once, and the caller decides which one gets load.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use record::LoadOutcome;

use crate::cpu::Clocks;
use crate::{Error, Live, Plan, run};

/// The result of one slice.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Requests that were answered correctly.
    pub requests: u64,
    /// Requests that failed.
    pub errors: u64,
    /// From the first request to the last reply, in nanoseconds.
    pub elapsed_ns: u64,
    /// CPU time of the client's thread, in nanoseconds.
    pub client_cpu_ns: u64,
    /// CPU time of the server's processes, in nanoseconds; `None` if no process was named.
    pub server_cpu_ns: Option<u64>,
    /// Most requests in flight.
    pub in_flight_max: u64,
    /// Why the server can get no more requests, if so.
    pub ended: Option<String>,
}

impl Slice {
    /// The mean time of a request with so many in flight (Little's law), in nanoseconds.
    pub fn round_trip_ns(&self) -> f64 {
        self.elapsed_ns as f64 * self.in_flight_max as f64 / self.requests.max(1) as f64
    }
}

/// An order for the session's thread.
pub(crate) enum Order {
    /// A slice of this length.
    Slice(Duration),
    /// So long without a request.
    Rest(Duration),
    /// Drop the slices so far, which were a warm-up.
    Forget,
    /// Make the outcome of the slices so far; later ones do not count.
    Conclude,
}

/// The connections to one server. Dropping it closes them.
#[derive(Debug)]
pub struct Session {
    orders: Option<Sender<Order>>,
    slices: Receiver<Slice>,
    thread: Option<JoinHandle<Result<LoadOutcome, Error>>>,
}

impl Session {
    /// Probes the server, as every run does, and opens the plan's connections, including idle ones.
    /// The plan's length, warm-up and threads are not used. `clocks`: those of the server.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn open(plan: Plan, clocks: Clocks) -> Result<Session, Error> {
        let (orders, received) = mpsc::channel();
        let (results, slices) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || run::sliced(&plan, &Live::default(), clocks, &received, &results))
            .map_err(Error::system("starting a thread"))?;
        let mut session = Session { orders: Some(orders), slices, thread: Some(thread) };
        // The first answer says that the connections are open.
        session.answer()?;
        Ok(session)
    }

    /// Sends requests for `length`, waits for those in flight, and returns the result.
    ///
    /// # Errors
    /// A failure of the client. A failure of the server is in the slice.
    pub fn slice(&mut self, length: Duration) -> Result<Slice, Error> {
        self.order(Order::Slice(length));
        self.answer()
    }

    /// Sends no request for this time, and returns the CPU time used meanwhile.
    ///
    /// # Errors
    /// As [`Session::slice`].
    pub fn rest(&mut self, length: Duration) -> Result<Slice, Error> {
        self.order(Order::Rest(length));
        self.answer()
    }

    /// The slices so far were a warm-up: the outcome does not have them.
    pub fn forget(&mut self) {
        self.order(Order::Forget);
    }

    /// The outcome has the slices so far, and none that follow. Only for a closed loop: an open
    /// loop's counts end with its requests.
    pub fn conclude(&mut self) {
        self.order(Order::Conclude);
    }

    /// A slice of each of two sessions with one server, both at once.
    ///
    /// # Errors
    /// As [`Session::slice`].
    pub fn slice_both(
        &mut self,
        other: &mut Session,
        length: Duration,
    ) -> Result<[Slice; 2], Error> {
        self.order(Order::Slice(length));
        other.order(Order::Slice(length));
        Ok([self.answer()?, other.answer()?])
    }

    /// Closes the connections. The outcome is that of a run whose window is all slices together.
    ///
    /// # Errors
    /// A failure of the client.
    pub fn finish(mut self) -> Result<LoadOutcome, Error> {
        self.end()
    }

    fn order(&mut self, order: Order) {
        // If the thread has ended, `answer` and `end` find the reason in its result.
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }

    fn answer(&mut self) -> Result<Slice, Error> {
        self.slices.recv().map_err(|_| match self.end() {
            Ok(_) => Error::Internal("a session ended before it was told to".to_owned()),
            Err(error) => error,
        })
    }

    fn end(&mut self) -> Result<LoadOutcome, Error> {
        self.orders = None;
        let gone = || Err(Error::Internal("a session's thread is gone".to_owned()));
        self.thread.take().map_or_else(gone, |thread| thread.join().unwrap_or_else(|_| gone()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ended = self.end();
        }
    }
}
