//! The bytes of a TCP connection that wait in the kernel: proc_pid_net(5), `/proc/net/tcp`.

use std::net::SocketAddr;

use procfs::net::TcpState;

/// Bytes that wait at one end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    /// Written here and not acknowledged by the other end: they are in the send buffer.
    pub unacknowledged: u64,
    /// Arrived here and not read: they are in the receive buffer.
    pub unread: u64,
}

/// Of the end with the address `own`, in this network namespace. `None` if there is none: it has
/// closed.
pub fn of(own: SocketAddr, peer: SocketAddr) -> Option<Queues> {
    let entries = match own {
        SocketAddr::V4(_) => procfs::net::tcp(),
        SocketAddr::V6(_) => procfs::net::tcp6(),
    };
    let is_open = |state: &TcpState| matches!(state, TcpState::Established | TcpState::CloseWait);
    let mut entries = entries.ok()?.into_iter();
    let found = entries.find(|entry| {
        entry.local_address == own && entry.remote_address == peer && is_open(&entry.state)
    })?;
    let (unacknowledged, unread) = (found.tx_queue.into(), found.rx_queue.into());
    Some(Queues { unacknowledged, unread })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn unread_bytes_are_counted_until_the_end_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        one.write_all(b"twelve bytes").unwrap();
        let (own, peer) = (other.local_addr().unwrap(), other.peer_addr().unwrap());
        assert_eq!(of(own, peer), Some(Queues { unacknowledged: 0, unread: 12 }));
        drop(other);
        assert_eq!(of(own, peer), None);
    }
}
