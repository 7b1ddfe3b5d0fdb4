//! The `priority` field (RFC 9218): which streams have their turns first.
//!
//! A lower urgency is served before a higher one. Within one urgency, streams that are incremental,
//! or do not say, take turns; one that says that it is not incremental is served whole before them.

/// RFC 9218 section 4.1.
const URGENCY_DEFAULT: u8 = 3;

/// Order of turns: smaller is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Priority {
    urgency: u8,
    /// The stream that is served whole, or the largest number.
    stream: u32,
}

impl Default for Priority {
    fn default() -> Priority {
        Priority { urgency: URGENCY_DEFAULT, stream: u32::MAX }
    }
}

impl Priority {
    /// The members that are understood, of a dictionary (RFC 8941 section 3.2). Others are ignored.
    pub(super) fn parse(value: &[u8], stream: u32) -> Priority {
        let mut priority = Priority { stream, ..Priority::default() };
        for member in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            match member {
                [b'u', b'=', digit @ b'0'..=b'7'] => priority.urgency = digit - b'0',
                b"i" | b"i=?1" => priority.stream = u32::MAX,
                b"i=?0" => priority.stream = stream,
                _ => {}
            }
        }
        priority
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_the_dictionary() {
        let default = Priority::default();
        assert_eq!(Priority::parse(b"i", 1), default);
        assert_eq!(Priority::parse(b"u=9, i=?1, x", 1), default);
        assert!(Priority::parse(b"u=2, i", 9) < default);
        assert!(Priority::parse(b"u=4", 1) > default);
        assert!(Priority::parse(b"", 1) < Priority::parse(b"u=3", 3));
        assert!(Priority::parse(b"i=?0", 3) < default);
    }
}
