//! Places a model by its system calls, in two questions that must not be mixed. Where does a thread
//! sleep: in a call that accepts, receives or sends, in a call that only waits, or nowhere? And who
//! copies the bytes to the memory of the process: the thread, in a call such as recv(2), or the
//! kernel on its own, for io_uring?

use record::{Call, Recording, SeenBy};

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
    /// Waits for another thread: futex(2).
    Thread,
    /// Anything else.
    Other,
}

impl Kind {
    /// Of this call.
    pub fn of(call: &Call) -> Kind {
        let is_connection = call.object == "connection";
        match call.name.as_str() {
            "accept" | "accept4" => Kind::Accept,
            "read" | "readv" | "recvfrom" | "recvmsg" if is_connection => Kind::Receive,
            "write" | "writev" | "sendto" | "sendmsg" | "sendfile" if is_connection => Kind::Send,
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

/// The name of a call as in a program, without what the kernel adds: `recv` for `recvfrom`.
pub fn short(name: &str) -> &str {
    match name {
        "accept4" => "accept",
        "recvfrom" => "recv",
        "sendto" => "send",
        "epoll_pwait" | "epoll_pwait2" => "epoll_wait",
        "ppoll" => "poll",
        "pselect6" => "select",
        "rt_sigtimedwait" => "sigtimedwait",
        "rt_sigsuspend" => "sigsuspend",
        name => name,
    }
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

/// The calls of these threads, by time of entry. Operations of a ring are no calls.
pub fn calls<'a>(
    recording: &'a Recording,
    run: &'a str,
    threads: &'a [u32],
) -> impl Iterator<Item = &'a Call> {
    let of_threads = move |call: &&Call| threads.contains(&call.thread_id) && call.run == run;
    recording.calls.iter().filter(of_threads).filter(|call| call.seen_by == SeenBy::Ptrace)
}
