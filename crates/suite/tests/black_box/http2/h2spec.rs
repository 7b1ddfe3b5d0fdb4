//! h2spec's cases (github.com/summerwind/h2spec), each with the row that asks the same here.
//!
//! It is written in Go, and no registry has a source of it to build; so the cases are
//! spoken by the suite, on every model and flavour. The sections are those of its own list, which
//! follows RFC 7540 and RFC 7541; the rows follow RFC 9113.

use super::rows;

/// A section of h2spec, and for each of its cases, in order, how the name of the row begins.
const CASES: &[(&str, &[&str])] = &[
    ("generic 1", &["3.4 the server begins with SETTINGS"]),
    (
        "generic 2",
        &[
            "6.3 PRIORITY on an idle stream changes nothing",
            "6.9 WINDOW_UPDATE on a half-closed stream is welcome",
            "5.1 half closed (remote): PRIORITY and RST_STREAM are welcome",
            "5.1 half closed (remote): PRIORITY and RST_STREAM are welcome",
            "5.1 closed: PRIORITY and RST_STREAM are no errors",
        ],
    ),
    (
        "generic 3.1",
        &[
            "4.2 a frame of 16384 bytes is accepted",
            "8.1.1 Content-Length that is right",
            "6.1 padding is taken off",
        ],
    ),
    (
        "generic 3.2",
        &[
            "8.3.1 Host instead of :authority",
            "6.2 HEADERS with padding and priority",
            "6.2 HEADERS with padding and priority",
        ],
    ),
    (
        "generic 3.3",
        &[
            "6.3 PRIORITY of every weight and kind",
            "6.3 PRIORITY of every weight and kind",
            "6.3 PRIORITY of every weight and kind",
            "6.3 PRIORITY of every weight and kind",
            "6.3 PRIORITY on an idle stream changes nothing",
        ],
    ),
    ("generic 3.4", &["6.4 RST_STREAM ends a stream and no other"]),
    ("generic 3.5", &["6.5.3 each SETTINGS is acknowledged, and once"]),
    ("generic 3.7", &["6.7 PING is answered with its own bytes"]),
    ("generic 3.8", &["6.8 what is under way when the client says GOAWAY is finished"]),
    (
        "generic 3.9",
        &["6.9.1 the largest windows are accepted", "6.9 WINDOW_UPDATE on a half-closed stream"],
    ),
    (
        "generic 3.10",
        &[
            "6.10 HEADERS that are empty, and all in CONTINUATION",
            "6.10 a field block in five pieces",
        ],
    ),
    (
        "generic 4",
        &[
            "requests: all routes are as in HTTP/1.1",
            "requests: all routes are as in HTTP/1.1",
            "requests: all routes are as in HTTP/1.1",
            "8.1 trailers are accepted",
        ],
    ),
    (
        "generic 5",
        &[
            "7541 6.1 fields of the static table",
            "7541 6.2 every form of a literal",
            "7541 6.2 every form of a literal",
            "7541 6.2 every form of a literal",
            "7541 6.2 every form of a literal",
            "7541 6.2 every form of a literal",
            "7541 6.2 every form of a literal",
            "7541 6.2 every form of a literal",
            "7541 6.2 every form of a literal",
            "7541 6.2 every form of a literal",
            "7541 6.2 every form of a literal",
            "7541 6.2 every form of a literal",
            "7541 6.2 every form of a literal",
            "7541 6.3 a size update is obeyed",
            "7541 6.3 a size update is obeyed",
        ],
    ),
    (
        "hpack 2.3.3",
        &[
            "7541 2.3.3 an index beyond both tables",
            "7541 2.3.3 the index of a name beyond both tables",
        ],
    ),
    ("hpack 4.2", &["7541 4.2 a size update at the end of a block"]),
    (
        "hpack 5.2",
        &["7541 5.2 padding of 8 bits", "7541 5.2 padding of zeros", "7541 5.2 EOS in a string"],
    ),
    ("hpack 6.1", &["7541 6.1 index 0"]),
    ("hpack 6.3", &["7541 6.3 a size update beyond the limit"]),
    ("3.5", &["3.4 the server begins with SETTINGS", "3.4 a preface that goes wrong"]),
    (
        "4.1",
        &[
            "4.1 a frame of unknown type is ignored",
            "4.1 a flag that nobody defined is ignored",
            "4.1 the reserved bit is ignored",
        ],
    ),
    (
        "4.2",
        &[
            "4.2 a frame of 16384 bytes is accepted",
            "4.2 DATA larger than MAX_FRAME_SIZE",
            "4.2 HEADERS larger than MAX_FRAME_SIZE",
        ],
    ),
    (
        "4.3",
        &[
            "4.3 a field block that is none",
            "4.3 PRIORITY inside of a field block",
            "4.3 HEADERS inside of a field block",
        ],
    ),
    (
        "5.1",
        &[
            "5.1 idle: DATA",
            "6.4 RST_STREAM on an idle stream",
            "6.9 WINDOW_UPDATE on an idle stream",
            "5.1 idle: CONTINUATION",
            "5.1 half closed (remote): DATA",
            "5.1 half closed (remote): HEADERS",
            "5.1 half closed (remote): CONTINUATION",
            "5.1 closed by RST_STREAM: DATA",
            "5.1 closed by RST_STREAM: HEADERS",
            "5.1 closed by RST_STREAM: CONTINUATION",
            "5.1 closed: DATA",
            "5.1 closed: HEADERS",
            "5.1 closed: CONTINUATION",
        ],
    ),
    ("5.1.1", &["5.1.1 an even identifier", "5.1.1 an identifier below one that was used"]),
    ("5.1.2", &["5.1.2 more streams than allowed"]),
    (
        "5.3.1",
        &[
            "5.3 HEADERS that depend on their own stream",
            "5.3 PRIORITY that depends on its own stream",
        ],
    ),
    ("5.4.1", &["6.7 PING of 6 bytes", "6.7 PING of 6 bytes"]),
    (
        "5.5",
        &[
            "5.5 an unknown frame on a stream is ignored",
            "5.5 an unknown frame inside of a field block",
        ],
    ),
    ("6.1", &["6.1 DATA on stream 0", "5.1 closed: DATA", "6.1 padding as long as the payload"]),
    (
        "6.2",
        &[
            "4.3 PRIORITY inside of a field block",
            "4.3 HEADERS inside of a field block",
            "6.2 HEADERS on stream 0",
            "6.2 padding as long as the payload",
        ],
    ),
    ("6.3", &["6.3 PRIORITY on stream 0", "6.3 PRIORITY of 4 bytes"]),
    (
        "6.4",
        &[
            "6.4 RST_STREAM on stream 0",
            "6.4 RST_STREAM on an idle stream",
            "6.4 RST_STREAM of 3 bytes",
        ],
    ),
    (
        "6.5",
        &[
            "6.5 an acknowledgement with a payload",
            "6.5 SETTINGS on a stream",
            "6.5 SETTINGS of 5 bytes",
        ],
    ),
    (
        "6.5.2",
        &[
            "6.5.2 ENABLE_PUSH of 2",
            "6.5.2 INITIAL_WINDOW_SIZE above the largest window",
            "6.5.2 MAX_FRAME_SIZE below 2^14",
            "6.5.2 MAX_FRAME_SIZE above 2^24-1",
            "6.5.2 a setting that nobody defined is ignored",
        ],
    ),
    (
        "6.5.3",
        &["6.5.3 the last of two values counts", "6.5.3 each SETTINGS is acknowledged, and once"],
    ),
    (
        "6.7",
        &[
            "6.7 PING is answered with its own bytes",
            "6.7 an answer to PING is not answered",
            "6.7 PING on a stream",
            "6.7 PING of 6 bytes",
        ],
    ),
    ("6.8", &["6.8 GOAWAY on a stream"]),
    (
        "6.9",
        &[
            "6.9 WINDOW_UPDATE of 0 on the connection",
            "6.9 WINDOW_UPDATE of 0 on a stream",
            "6.9 WINDOW_UPDATE of 3 bytes",
        ],
    ),
    (
        "6.9.1",
        &[
            "6.9.1 no more comes than the stream's window",
            "6.9.1 the connection's window beyond 2^31-1",
            "6.9.1 a stream's window beyond 2^31-1",
        ],
    ),
    (
        "6.9.2",
        &[
            "6.9.2 a new initial window is one for open streams too",
            "6.9.2 a window may become negative",
            "6.5.2 INITIAL_WINDOW_SIZE above the largest window",
        ],
    ),
    (
        "6.10",
        &[
            "6.10 a field block in five pieces",
            "6.10 DATA behind a CONTINUATION that does not end the block",
            "6.10 CONTINUATION on stream 0",
            "6.10 CONTINUATION behind the end of the block",
            "6.10 a second CONTINUATION behind the end of the block",
            "6.10 CONTINUATION behind DATA",
        ],
    ),
    (
        "7",
        &[
            "7 GOAWAY with a code that nobody defined",
            "7 RST_STREAM with a code that nobody defined",
        ],
    ),
    ("8.1", &["8.1 a second HEADERS frame that does not end the stream"]),
    ("8.1.2", &["8.2.1 a name in upper case"]),
    (
        "8.1.2.1",
        &[
            "8.3 a pseudo-header field that nobody defined",
            "8.3 a pseudo-header field of replies",
            "8.3 a pseudo-header field in trailers",
            "8.3 a pseudo-header field behind a regular one",
        ],
    ),
    ("8.1.2.2", &["8.2.2 Connection", "8.2.2 TE other than trailers"]),
    (
        "8.1.2.3",
        &[
            "8.3.1 an empty :path",
            "8.3.1 no :method",
            "8.3.1 no :scheme",
            "8.3.1 no :path",
            "8.3 :method twice",
            "8.3 :scheme twice",
            "8.3 :path twice",
        ],
    ),
    (
        "8.1.2.6",
        &["8.1.1 Content-Length above the one DATA frame", "8.1.1 Content-Length above the sum"],
    ),
    ("8.2", &["6.6 PUSH_PROMISE from a client"]),
];

/// Cases in its newest source; its last release runs 146 of them.
const COUNT: usize = 147;

/// Every case has its row.
///
/// # Panics
/// When a row that is named here is gone.
pub fn is_covered() {
    let rows = rows();
    let mut count = 0;
    for (section, names) in CASES {
        for (number, name) in names.iter().enumerate() {
            let known = rows.iter().any(|(row, _)| row.starts_with(name));
            assert!(known, "h2spec {section}, case {}: there is no row {name:?}", number + 1);
            count += 1;
        }
    }
    assert_eq!(count, COUNT, "a case of h2spec is missing");
}
