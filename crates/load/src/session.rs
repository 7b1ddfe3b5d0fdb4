//! One server's connections, kept open and loaded a slice at a time: how servers take turns on one
//! machine within the noise instead of beside it.
//!
//! A session has a thread of its own, which sleeps between its slices. So many servers can be alive
//! at once, each with its own open and warm connections, and the caller says whose turn it is.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use record::LoadOutcome;

use crate::cpu::Clocks;
use crate::{Error, Live, Plan, run};

/// What one slice came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Requests that were answered, rightly.
    pub requests: u64,
    /// Requests that were not.
    pub errors: u64,
    /// From the first request to the last reply, in nanoseconds.
    pub elapsed_ns: u64,
    /// CPU time of the client's thread, in nanoseconds.
    pub client_cpu_ns: u64,
    /// CPU time of the server's processes, in nanoseconds; `None` where none was named.
    pub server_cpu_ns: Option<u64>,
    /// Requests that were on their way at once, at most.
    pub in_flight_max: u64,
    /// Why the server cannot be asked any more, if it cannot.
    pub ended: Option<String>,
}

impl Slice {
    /// The mean time of a request with so many on their way (Little's law), in nanoseconds.
    pub fn round_trip_ns(&self) -> f64 {
        self.elapsed_ns as f64 * self.in_flight_max as f64 / self.requests.max(1) as f64
    }
}

/// What the session's thread is asked for.
pub(crate) enum Order {
    /// A slice of this length.
    Slice(Duration),
    /// So long without a request.
    Rest(Duration),
    /// To forget the slices so far: they were a warm-up.
    Forget,
    /// To make the outcome of the slices so far: those that follow are in none.
    Conclude,
}

/// The connections to one server. Dropped, it closes them.
#[derive(Debug)]
pub struct Session {
    orders: Option<Sender<Order>>,
    slices: Receiver<Slice>,
    thread: Option<JoinHandle<Result<LoadOutcome, Error>>>,
}

impl Session {
    /// Asks the server once, as every run does, and opens the plan's connections, silent ones too.
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

    /// Asks for `length`, waits for what is on its way, and says what that came to.
    ///
    /// # Errors
    /// What failed in the client; a server that fails is in the slice.
    pub fn slice(&mut self, length: Duration) -> Result<Slice, Error> {
        self.order(Order::Slice(length));
        self.answer()
    }

    /// Asks for nothing for so long, and says what CPU time was used meanwhile.
    ///
    /// # Errors
    /// As [`Session::slice`].
    pub fn rest(&mut self, length: Duration) -> Result<Slice, Error> {
        self.order(Order::Rest(length));
        self.answer()
    }

    /// The slices so far were a warm-up: the outcome will not have them.
    pub fn forget(&mut self) {
        self.order(Order::Forget);
    }

    /// The outcome will have the slices so far, and none that follow. In a closed loop only: what
    /// falls due by the clock ends with its counts.
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

    /// Closes the connections. The outcome is that of one run whose window is all slices together.
    ///
    /// # Errors
    /// What failed in the client.
    pub fn finish(mut self) -> Result<LoadOutcome, Error> {
        self.end()
    }

    fn order(&mut self, order: Order) {
        // A thread that has ended says why in its result, which `answer` and `end` look at.
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
