//! What every model that reads and writes by itself does with a socket, whoever says when.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Instant;

use conn::Conn;

use crate::{SLICES_MAX, sys};

/// Writes from the front of the connection's output. Returns the bytes written and those offered.
///
/// # Errors
/// What send(2) or writev(2) say.
pub fn write_output(stream: &TcpStream, conn: &Conn) -> io::Result<(usize, usize)> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let filled = conn.slices(&mut slices);
    let slices = &slices[..filled];
    let written = write_slices(stream, slices)?;
    Ok((written, slices.iter().map(|slice| slice.len()).sum()))
}

/// send(2) for one slice, writev(2) for more: send is the cheaper call, and a reply is one slice.
///
/// # Errors
/// What they say.
pub fn write_slices(mut stream: &TcpStream, slices: &[IoSlice]) -> io::Result<usize> {
    match slices {
        [one] => stream.write(one),
        many => stream.write_vectored(many),
    }
}

/// A deadline is due: tells the connection what its peer has acknowledged, if that makes a
/// difference. To be called before [`Conn::timeout`].
pub fn look_at_output(conn: &mut Conn, socket: &impl AsFd, now: Instant) {
    if conn.output_is_late(now) {
        conn.unacknowledged(sys::unacknowledged(socket), now);
    }
}

/// A deadline is due. Bytes may have arrived in time that the caller does not know of yet, so the
/// kernel is asked before the clock decides. Only where no other thread reads from the socket.
pub fn late(conn: &mut Conn, socket: &impl AsFd, scratch: &mut [u8], now: Instant) {
    if conn.input_is_late(now) {
        match sys::receive_now(socket, scratch) {
            Ok(0) => conn.receive_eof(Instant::now()),
            Ok(n) => conn.receive(&scratch[..n], Instant::now()),
            // EAGAIN: it is late. Any other error is reported to the next read.
            Err(_) => {}
        }
    }
    look_at_output(conn, socket, now);
    conn.timeout(now);
}
