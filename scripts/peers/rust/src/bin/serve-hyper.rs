//! hyper on one tokio loop (epoll): HTTP/1.1, pipelined replies flushed together; or HTTP/2.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use peers::{BACKLOG, HELLO, Peer, REQUESTS, Version};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

fn main() -> ExitCode {
    peers::run(&Peer {
        name: "hyper",
        description: "hyper 1.x on one current_thread tokio loop",
        closes_when_asked: true,
        can_http2: true,
        start,
    })
}

fn start(listen: SocketAddr, version: Version) -> io::Result<SocketAddr> {
    let listener = listener(listen)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::spawn(move || runtime.block_on(accept(listener, version)));
    Ok(address)
}

/// The options that the models' sockets have.
fn listener(listen: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    // Where reno may not be chosen the default stays, as in the models.
    let _ = socket.set_tcp_congestion(b"reno");
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn accept(listener: std::net::TcpListener, version: Version) {
    let listener = TcpListener::from_std(listener).expect("inside the runtime");
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            loop {
                // No descriptor left, or a client that gave up: the next one may do.
                let Ok((stream, _)) = listener.accept().await else { continue };
                // A client that goes away is no fault.
                match version {
                    Version::Http1 => {
                        let serving = http1::Builder::new()
                            .pipeline_flush(true)
                            .serve_connection(TokioIo::new(stream), service_fn(answer));
                        tokio::task::spawn_local(async move { drop(serving.await) });
                    }
                    Version::Http2 => {
                        let serving = http2::Builder::new(Here)
                            .serve_connection(TokioIo::new(stream), service_fn(answer));
                        tokio::task::spawn_local(async move { drop(serving.await) });
                    }
                }
            }
        })
        .await
}

/// Puts the tasks of HTTP/2's streams on this thread's loop.
#[derive(Clone, Copy)]
struct Here;

impl<F: Future + 'static> Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    REQUESTS.fetch_add(1, Ordering::Relaxed);
    let hello = request.method() == Method::GET && request.uri().path() == "/";
    let mut response =
        Response::new(Full::new(Bytes::from_static(if hello { HELLO } else { b"" })));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if !hello {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(response)
}
