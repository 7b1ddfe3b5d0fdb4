//! Counts the ends of request heads in a stream, however the network cut it.

use memchr::memmem::Finder;

/// What ends a head (RFC 9112, section 2.1).
const END: &[u8; 4] = b"\r\n\r\n";

/// How a head ends whose last field asks for the connection to be closed (RFC 9112, section 9.6).
/// A client with another field behind that one waits in vain: this is no parser.
const CLOSE: &[u8] = b"\r\nConnection: close\r\n\r\n";

/// Whether what was read last asks for the connection to be closed. A read that cuts such an end
/// hides it; requests here are far smaller than what one read takes.
pub(crate) fn ask_to_close(bytes: &[u8]) -> bool {
    bytes.ends_with(CLOSE)
}

/// Looks for the ends of heads.
#[derive(Debug)]
pub(crate) struct Heads {
    finder: Finder<'static>,
}

impl Heads {
    pub(crate) fn new() -> Heads {
        Heads { finder: Finder::new(END) }
    }

    /// How many heads end in `bytes`. `matched` is how much of an end the stream's bytes before
    /// these had closed with, and is kept up for the next call.
    pub(crate) fn count_ends(&self, matched: &mut usize, bytes: &[u8]) -> usize {
        let (mut count, mut rest) = (0, bytes);
        // An end that a read has cut is followed byte by byte until it is decided.
        while *matched > 0
            && let Some((&byte, after)) = rest.split_first()
        {
            rest = after;
            *matched =
                if byte == END[*matched] { *matched + 1 } else { usize::from(byte == END[0]) };
            if *matched == END.len() {
                *matched = 0;
                count += 1;
            }
        }
        let mut behind = 0;
        for at in self.finder.find_iter(rest) {
            count += 1;
            behind = at + END.len();
        }
        if *matched == 0 {
            let ends_so = |&n: &usize| rest[behind..].ends_with(&END[..n]);
            *matched = (1..END.len()).rev().find(ends_so).unwrap_or(0);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is counted when the stream is cut into pieces of `size`.
    fn count(stream: &[u8], size: usize) -> usize {
        let (heads, mut matched) = (Heads::new(), 0);
        stream.chunks(size).map(|piece| heads.count_ends(&mut matched, piece)).sum()
    }

    #[test]
    fn a_wish_to_close_is_seen_at_the_end_only() {
        assert!(ask_to_close(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"));
        assert!(!ask_to_close(b"GET / HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n"));
        assert!(!ask_to_close(b"GET / HTTP/1.1\r\n\r\n"));
    }

    #[test]
    fn every_cut_gives_the_same_count() {
        let streams: [(&[u8], usize); 6] = [
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 2),
            (b"\r\n\r\n\r\n\r\n", 2),
            (b"\r\r\n\r\r\n\r\n", 1),
            (b"\r\n\r\r\n\r\n\n\r\n\r\n", 2),
            (b"\r\n\r", 0),
            (b"", 0),
        ];
        for (stream, wanted) in streams {
            for size in 1..=stream.len().max(1) {
                assert_eq!(count(stream, size), wanted, "{stream:?} in pieces of {size}");
            }
        }
    }
}
