//! Counts the ends of request heads in a stream, across reads.

use memchr::memmem::Finder;

/// The end of a head (RFC 9112 section 2.1).
const END: &[u8; 4] = b"\r\n\r\n";

/// The end of a head whose last field asks to close the connection (RFC 9112 section 9.6). If
/// another field follows, this is not recognised: there is no parser.
const CLOSE: &[u8] = b"\r\nConnection: close\r\n\r\n";

/// Whether the last read ends with [`CLOSE`]. It is missed if it is split between two reads, but
/// requests here are far smaller than a read.
pub(crate) fn ask_to_close(bytes: &[u8]) -> bool {
    bytes.ends_with(CLOSE)
}

#[derive(Debug)]
pub(crate) struct Heads {
    finder: Finder<'static>,
}

impl Heads {
    pub(crate) fn new() -> Heads {
        Heads { finder: Finder::new(END) }
    }

    /// Counts the heads that end in `bytes`. `matched`: how many bytes of an end the stream before
    /// them has ended with; it is updated for the next call.
    pub(crate) fn count_ends(&self, matched: &mut usize, bytes: &[u8]) -> usize {
        let (mut count, mut rest) = (0, bytes);
        // An end that is split between reads is compared byte by byte.
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

    /// The count if the stream is split into pieces of `size`.
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
