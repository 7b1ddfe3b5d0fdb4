//! Places a model by its system calls, in two questions that must not be mixed. Where does a thread
//! sleep: in a call that accepts, receives or sends, in a call that only waits, or nowhere? And who
//! copies the bytes to the memory of the process: the thread, in a call such as recv(2), or the
//! kernel on its own, for io_uring?

use record::{Call, Recording, Run, SeenBy};

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Takes a connection from the listener.
    Accept,
    /// Copies bytes of a connection to the process.
    Receive,
    /// Copies bytes of the process to a connection.
    Send,
    /// Waits for several descriptors or operations, or for a signal.
    Wait,
    /// Waits for another thread of the server: futex(2). It is no wait for a client.
    Thread,
    /// Anything else.
    Other,
}

impl Kind {
    /// Of this call, or of this operation of a ring.
    pub fn of(call: &Call) -> Kind {
        let is_connection = call.object == "connection";
        match call.name.as_str() {
            "accept" | "accept4" | "ACCEPT" => Kind::Accept,
            "read" | "readv" | "recvfrom" | "recvmsg" | "RECV" | "RECVMSG" | "READ"
                if is_connection =>
            {
                Kind::Receive
            }
            "write" | "writev" | "sendto" | "sendmsg" | "sendfile" | "SEND" | "SENDMSG"
            | "WRITE" | "SEND_ZC"
                if is_connection =>
            {
                Kind::Send
            }
            "epoll_wait" | "epoll_pwait" | "epoll_pwait2" | "io_uring_enter" | "poll" | "ppoll"
            | "select" | "pselect6" | "rt_sigsuspend" | "rt_sigtimedwait" | "pause" => Kind::Wait,
            "futex" => Kind::Thread,
            _ => Kind::Other,
        }
    }

    /// Whether it moves a connection or its bytes.
    pub fn is_io(self) -> bool {
        matches!(self, Kind::Accept | Kind::Receive | Kind::Send)
    }
}

/// The name of a call as in a program, without what the kernel adds: `recv` for `recvfrom`. An
/// operation of a ring has the name of the call that does the same.
pub fn short(name: &str) -> String {
    match name {
        "accept4" => "accept",
        "recvfrom" => "recv",
        "sendto" => "send",
        "epoll_pwait" | "epoll_pwait2" => "epoll_wait",
        "ppoll" => "poll",
        "pselect6" => "select",
        "rt_sigtimedwait" => "sigtimedwait",
        "rt_sigsuspend" => "sigsuspend",
        name => return name.to_lowercase(),
    }
    .to_owned()
}

/// The threads that serve clients, in the order of their first call: those that made a call on the
/// listener, on a connection or on a ring. Others, such as the one that waits for SIGTERM, are no
/// part of the model.
pub fn threads(recording: &Recording, run: &str) -> Vec<u32> {
    let mut threads = Vec::new();
    for call in recording.calls.iter().filter(|call| call.run == run) {
        let serves = ["listener", "connection"].contains(&call.object.as_str());
        let serves = serves || call.name == "io_uring_enter";
        if serves && !threads.contains(&call.thread_id) {
            threads.push(call.thread_id);
        }
    }
    threads
}

/// The calls of the threads that serve clients, and the operations of their rings.
pub fn calls<'a>(recording: &'a Recording, run: &'a str) -> impl Iterator<Item = &'a Call> {
    let threads = threads(recording, run);
    let of_run = recording.calls.iter().filter(move |call| call.run == run);
    of_run.filter(move |call| threads.contains(&call.thread_id))
}

/// Whether it is a call of a thread, and no operation of a ring.
pub fn is_call(call: &Call) -> bool {
    call.seen_by == SeenBy::Ptrace
}

/// Where a thread sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// In a call that accepts, receives or sends.
    InIo,
    /// Only in calls that wait: its calls that accept, receive and send return at once.
    InWait,
    /// In no call.
    Never,
}

/// Who copies received bytes to the memory of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopiedBy {
    /// The thread, in its own call.
    Thread,
    /// The kernel, without a call of the thread.
    Kernel,
}

impl CopiedBy {
    /// The words of `--describe`, README.md and REPORT.md.
    pub fn words(self) -> &'static str {
        match self {
            CopiedBy::Thread => "the thread",
            CopiedBy::Kernel => "the kernel",
        }
    }
}

/// A model's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// First question.
    pub blocks: Blocks,
    /// The calls in which its threads slept, in the order in which they were seen.
    pub blocks_in: Vec<String>,
    /// Second question; `None` if no received byte was seen.
    pub copied_by: Option<CopiedBy>,
    /// The calls or operations that copied.
    pub copied_in: Vec<String>,
    /// Calls that found nothing (EAGAIN).
    pub fruitless: usize,
}

/// The place of this run's model.
pub fn place(recording: &Recording, run: &str) -> Place {
    let (mut io, mut waits, mut copied_in) = (Vec::new(), Vec::new(), Vec::new());
    let mut fruitless = 0;
    let (mut by_thread, mut by_kernel) = (false, false);
    let note = |names: &mut Vec<String>, call: &Call| {
        let name = short(&call.name);
        if !names.contains(&name) {
            names.push(name);
        }
    };
    for call in calls(recording, run) {
        let kind = Kind::of(call);
        let slept = is_call(call) && call.slept == Some(true);
        match kind {
            Kind::Wait if slept => note(&mut waits, call),
            kind if kind.is_io() && slept => note(&mut io, call),
            _ => {}
        }
        if kind == Kind::Receive && call.result.is_some_and(|bytes| bytes > 0) {
            note(&mut copied_in, call);
            *(if is_call(call) { &mut by_thread } else { &mut by_kernel }) = true;
        }
        fruitless += usize::from(is_call(call) && call.result == Some(EAGAIN));
    }
    let blocks = match (io.is_empty(), waits.is_empty()) {
        (false, _) => Blocks::InIo,
        (true, false) => Blocks::InWait,
        (true, true) => Blocks::Never,
    };
    // A server that copies one byte itself is not asynchronous.
    let copied_by = match (by_thread, by_kernel) {
        (true, _) => Some(CopiedBy::Thread),
        (false, true) => Some(CopiedBy::Kernel),
        (false, false) => None,
    };
    let blocks_in = io.into_iter().chain(waits).collect();
    Place { blocks, blocks_in, copied_by, copied_in, fruitless }
}

/// EAGAIN as a result (errno(3)).
pub const EAGAIN: i64 = -11;

impl Place {
    /// The calls of the first answer: `accept, recv`, or `nothing`.
    pub fn blocks_in(&self) -> String {
        match self.blocks {
            Blocks::Never => "nothing".to_owned(),
            Blocks::InIo | Blocks::InWait => self.blocks_in.join(", "),
        }
    }

    /// In what the trace contradicts the answers that a server gives of itself in `--describe`;
    /// `None` if in nothing. A call in which no thread happened to sleep, such as send, is no
    /// contradiction.
    pub fn contradicts(&self, blocks_in: &[&str], copied_by: &str) -> Option<String> {
        let stranger = self.blocks_in.iter().find(|call| !blocks_in.contains(&call.as_str()));
        if let Some(call) = stranger {
            return Some(format!("it does not say that it blocks in {call}"));
        }
        if self.blocks == Blocks::Never && !blocks_in.is_empty() {
            return Some(format!("it says that it blocks in {}", blocks_in.join(", ")));
        }
        let seen = self.copied_by.map(CopiedBy::words)?;
        (seen != copied_by).then(|| format!("it says that {copied_by} copies, and {seen} does"))
    }

    /// Both answers as a sentence.
    pub fn finding(&self, run: &Run) -> String {
        let name = &run.run;
        let first = match self.blocks {
            Blocks::InIo => format!("{name} blocks in {}", self.blocks_in()),
            Blocks::InWait => format!("{name} blocks in {} and nowhere else", self.blocks_in()),
            Blocks::Never => {
                format!("{name} never blocks: {} of its calls found nothing", self.fruitless)
            }
        };
        let copied_in = self.copied_in.join(", ");
        let second = match self.copied_by {
            Some(CopiedBy::Thread) => format!("the thread copies the bytes, in {copied_in}"),
            Some(CopiedBy::Kernel) => {
                "the kernel copies the bytes, and no call of the thread receives".to_owned()
            }
            None => "who copies the bytes was not seen".to_owned(),
        };
        format!("{first}; {second}")
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn call(name: &str, slept: bool, result: i64) -> Call {
        Call { slept: Some(slept), result: Some(result), ..fixture::call("x", name) }
    }

    fn placed(calls: Vec<Call>) -> Place {
        let mut recording = fixture::recording("trace");
        recording.runs.push(Run { run: "x".into(), ..Run::default() });
        recording.calls = calls;
        place(&recording, "x")
    }

    /// An operation of a ring has no thread that slept in it.
    fn operation(name: &str, result: i64) -> Call {
        Call { slept: None, seen_by: SeenBy::Ring, ..call(name, false, result) }
    }

    #[test]
    fn a_wait_and_a_read_that_returns_at_once() {
        let place = placed(vec![
            call("epoll_wait", true, 1),
            call("recvfrom", false, 16),
            call("recvfrom", false, EAGAIN),
        ]);
        assert_eq!((place.blocks, place.blocks_in().as_str()), (Blocks::InWait, "epoll_wait"));
        assert_eq!((place.copied_by, place.fruitless), (Some(CopiedBy::Thread), 1));
        let run = Run { run: "x".into(), ..Run::default() };
        let finding = "x blocks in epoll_wait and nowhere else; \
                       the thread copies the bytes, in recv";
        assert_eq!(place.finding(&run), finding);
    }

    #[test]
    fn an_epoll_that_blocks_in_recv_is_not_taken_for_one_that_does_not() {
        let place = placed(vec![call("epoll_wait", true, 1), call("recvfrom", true, 16)]);
        assert_eq!((place.blocks, place.blocks_in().as_str()), (Blocks::InIo, "recv, epoll_wait"));
    }

    #[test]
    fn what_a_server_says_of_itself_is_held_against_its_calls() {
        let epoll = placed(vec![call("epoll_wait", true, 1), call("recvfrom", false, 16)]);
        assert_eq!(epoll.contradicts(&["epoll_wait"], "the thread"), None);
        let told = epoll.contradicts(&["epoll_wait"], "the kernel").unwrap();
        assert_eq!(told, "it says that the kernel copies, and the thread does");
        let told = epoll.contradicts(&[], "the thread").unwrap();
        assert_eq!(told, "it does not say that it blocks in epoll_wait");
        let busy = placed(vec![call("recvfrom", false, 16)]);
        assert_eq!(busy.contradicts(&[], "the thread"), None);
        let told = busy.contradicts(&["poll"], "the thread").unwrap();
        assert_eq!(told, "it says that it blocks in poll");
        // No thread happened to sleep in send.
        let blocking = placed(vec![call("recvfrom", true, 16), call("sendto", false, 16)]);
        assert_eq!(blocking.contradicts(&["accept", "recv", "send"], "the thread"), None);
    }

    #[test]
    fn a_server_that_tries_never_blocks_whatever_its_other_threads_do() {
        let mut calls = vec![call("recvfrom", false, EAGAIN), call("recvfrom", false, 16)];
        // The thread that waits for SIGTERM serves no client.
        let signals =
            Call { thread_id: 2, object: String::new(), ..call("rt_sigtimedwait", true, 15) };
        calls.push(signals);
        // A page that is read from disk, say.
        calls.push(Call { object: "file".into(), ..call("pread64", true, 16) });
        let place = placed(calls);
        assert_eq!((place.blocks, place.blocks_in().as_str()), (Blocks::Never, "nothing"));
    }

    #[test]
    fn a_ring_copies_unless_the_thread_receives_too() {
        let ring = vec![call("io_uring_enter", true, 1), operation("RECV", 16)];
        let place = placed(ring.clone());
        assert_eq!((place.blocks, place.copied_by), (Blocks::InWait, Some(CopiedBy::Kernel)));
        let place = placed([ring, vec![call("recvfrom", false, 1)]].concat());
        assert_eq!(place.copied_by, Some(CopiedBy::Thread));
        // Readiness by a ring: the completion of POLL_ADD copies nothing.
        let place = placed(vec![call("io_uring_enter", true, 1), operation("POLL_ADD", 1)]);
        assert_eq!(place.copied_by, None);
    }

    #[test]
    fn an_end_of_the_stream_is_no_copy_and_a_futex_no_wait_for_a_client() {
        let place = placed(vec![call("recvfrom", false, 0), call("futex", true, 0)]);
        assert_eq!((place.copied_by, place.blocks), (None, Blocks::Never));
    }
}
