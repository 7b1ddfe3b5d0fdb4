//! may_minihttp: stackful coroutines, one worker thread.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};
use peers::{HELLO, Peer, REQUESTS, Version};
use socket2::SockRef;

/// It binds a port itself and does not say which: one that was free a moment ago is tried.
const TRIES: usize = 10;

fn main() -> ExitCode {
    peers::run(&Peer {
        name: "may",
        description: "may_minihttp, a stackful coroutine per connection on one worker thread",
        // It does not look at the Connection field at all.
        closes_when_asked: false,
        can_http2: false,
        start,
    })
}

fn start(listen: SocketAddr, _http1: Version) -> io::Result<SocketAddr> {
    may::config().set_workers(1);
    let mut tried = 0;
    loop {
        tried += 1;
        let address = TcpListener::bind(listen)?.local_addr()?;
        match Hellos.start(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tried < TRIES => {}
            started => return started.map(|_| address),
        }
    }
}

struct Hellos;

impl HttpServiceFactory for Hellos {
    type Service = Hello;

    /// `id` is the connection's descriptor.
    fn new_service(&self, id: usize) -> Hello {
        // SAFETY: may_minihttp owns the descriptor and keeps it open until this has returned.
        let socket = unsafe { BorrowedFd::borrow_raw(id as i32) };
        // The options that the models' sockets have; where one is refused the default stays.
        let _ = SockRef::from(&socket).set_tcp_nodelay(true);
        let _ = SockRef::from(&socket).set_tcp_congestion(b"reno");
        Hello
    }
}

struct Hello;

impl HttpService for Hello {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        if request.method() == "GET" && request.path() == "/" {
            response.header("Content-Type: text/plain").body_mut().extend_from_slice(HELLO);
        } else {
            response.status_code(404, "Not Found");
        }
        Ok(())
    }
}
