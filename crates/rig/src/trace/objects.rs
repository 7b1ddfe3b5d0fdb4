//! What a descriptor of the server is: the listener, a client's connection, or something else.
//!
//! For a socket a copy of the descriptor is taken for a moment (pidfd_getfd(2)) and asked. So it
//! does not matter by which call the server got it: accept(2), io_uring or sendmsg(2).

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use nix::unistd::Pid;
use socket2::Socket;

use crate::sys;

/// What a descriptor is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Object {
    /// A word for a reader; empty if not known.
    pub(super) name: String,
    /// Port of the client, if it is a connection.
    pub(super) peer: Option<u16>,
}

/// The descriptors of all processes of the server, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pidfds: HashMap<Pid, Option<OwnedFd>>,
    known: HashMap<(Pid, i32), Object>,
}

impl Objects {
    /// What this descriptor is now. Its process has stopped.
    pub(super) fn of(&mut self, process: Pid, number: i32) -> Object {
        if let Some(known) = self.known.get(&(process, number)) {
            return known.clone();
        }
        let object = self.look(process, number);
        // A socket without peer may become a listener.
        if object.name != "socket" && !object.name.is_empty() {
            self.known.insert((process, number), object.clone());
        }
        object
    }

    /// The number is free, or means something else now.
    pub(super) fn forget(&mut self, process: Pid, number: i32) {
        self.known.remove(&(process, number));
    }

    fn look(&mut self, process: Pid, number: i32) -> Object {
        let named = |name: &str| Object { name: name.to_owned(), peer: None };
        // proc_pid_fd(5): `socket:[INODE]`, `anon_inode:[eventpoll]`, `pipe:[INODE]`, or a path.
        let link = std::fs::read_link(format!("/proc/{process}/fd/{number}"));
        let Ok(link) = link.map(|path| path.to_string_lossy().into_owned()) else {
            return Object::default();
        };
        match link.split_once(':') {
            Some(("socket", _)) => self.socket(process, number).unwrap_or(named("socket")),
            Some(("anon_inode", kind)) => named(kind.trim_matches(['[', ']'])),
            Some((kind, _)) if !kind.contains('/') => named(kind),
            _ => named("file"),
        }
    }

    fn socket(&mut self, process: Pid, number: i32) -> Option<Object> {
        let pidfd = self.pidfds.entry(process).or_insert_with(|| sys::pidfd(process).ok());
        let socket = Socket::from(sys::descriptor_of(pidfd.as_ref()?, number).ok()?);
        if socket.is_listener().ok()? {
            return Some(Object { name: "listener".to_owned(), peer: None });
        }
        let peer = socket.peer_addr().ok()?.as_socket()?.port();
        Some(Object { name: "connection".to_owned(), peer: Some(peer) })
    }
}
