//! `/files/...`: content, conditions, ranges, and no way out of the root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use suite::{Reply, Server, Variant, get, pattern, request};
use tempfile::TempDir;

const SECRET: &str = "nobody was to see this";

/// What a server's peak may grow by for one connection, in KiB; see the echo cases.
const GROWTH_KIB_MAX: u64 = 8 << 10;

/// A document root inside of a directory that holds a secret.
struct Site {
    around: TempDir,
}

impl Site {
    fn new() -> Site {
        let around = tempfile::tempdir().expect("a temporary directory");
        let site = Site { around };
        site.write("secret.txt", SECRET.as_bytes());
        for (path, content) in [
            ("root/hello.txt", "hello from a file\n"),
            ("root/empty.bin", ""),
            ("root/a b&c<d>.txt", "an awkward name"),
            ("root/\u{fc}ber.txt", "a name beyond ASCII"),
            ("root/sub/page.html", "<p>a page</p>"),
            ("root/sub/deep/data.json", "{}"),
            ("root/with-index/index.html", "<p>its own index</p>"),
            ("root/.hidden", SECRET),
            ("root/.git/config", SECRET),
        ] {
            site.write(path, content.as_bytes());
        }
        let root = site.root();
        symlink("../secret.txt", root.join("link")).expect("a symbolic link");
        symlink(site.around.path(), root.join("way-out")).expect("a symbolic link");
        symlink("hello.txt", root.join("inner-link")).expect("a symbolic link");
        site
    }

    fn root(&self) -> std::path::PathBuf {
        self.around.path().join("root")
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.around.path().join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).expect("a directory");
        fs::write(path, content).expect("writing a file");
    }

    #[track_caller]
    fn serve(&self, variant: &Variant) -> Server {
        Server::start(variant, &["--root", &self.root().to_string_lossy()])
    }
}

#[track_caller]
fn ask(server: &Server, target: &str, fields: &str) -> Reply {
    let mut client = server.connect();
    client.send(&request("GET", target, fields));
    client.reply()
}

pub fn content_and_type(variant: &Variant) {
    let site = Site::new();
    let server = site.serve(variant);
    for (target, kind, content) in [
        ("/files/hello.txt", "text/plain", "hello from a file\n"),
        ("/files/hello.txt?query", "text/plain", "hello from a file\n"),
        ("/files/h%65llo.txt", "text/plain", "hello from a file\n"),
        ("/files/empty.bin", "application/octet-stream", ""),
        ("/files/a%20b%26c%3Cd%3E.txt", "text/plain", "an awkward name"),
        ("/files/%C3%BCber.txt", "text/plain", "a name beyond ASCII"),
        ("/files/sub/page.html", "text/html", "<p>a page</p>"),
        ("/files/sub/deep/data.json", "application/json", "{}"),
    ] {
        let reply = ask(&server, target, "");
        assert_eq!((reply.status, reply.body.as_slice()), (200, content.as_bytes()), "{target}");
        let told = reply.head.field("content-type").unwrap_or_default();
        assert!(told.starts_with(kind), "{target} is {told}");
        assert_eq!(reply.head.field("accept-ranges"), Some("bytes"));
        assert!(reply.head.field("etag").is_some_and(|tag| tag.starts_with('"')), "{target}");
        assert!(reply.head.field("last-modified").is_some(), "{target}");
    }
    for target in ["/files/nothing", "/files/hello.txt/", "/files/sub/nothing", "/files/HELLO.TXT"]
    {
        assert_eq!(ask(&server, target, "").status, 404, "{target}");
    }
    server.stop();
}

pub fn conditional(variant: &Variant) {
    let site = Site::new();
    let server = site.serve(variant);
    let plain = ask(&server, "/files/hello.txt", "");
    let tag = plain.head.field("etag").expect("an ETag").to_owned();
    let modified = plain.head.field("last-modified").expect("Last-Modified").to_owned();
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (fields, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: W/{tag}\r\n"), 304),
        (format!("If-None-Match: \"x\", {tag}\r\n"), 304),
        ("If-None-Match: *\r\n".to_owned(), 304),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200),
        (format!("If-Modified-Since: {modified}\r\n"), 304),
        (format!("If-Modified-Since: {past}\r\n"), 200),
        ("If-Modified-Since: yesterday\r\n".to_owned(), 200),
        // If-None-Match wins (RFC 9110 section 13.2.2).
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {modified}\r\n"), 200),
        (format!("Range: bytes=0-3\r\nIf-Range: {tag}\r\n"), 206),
        (format!("Range: bytes=0-3\r\nIf-Range: {modified}\r\n"), 206),
        ("Range: bytes=0-3\r\nIf-Range: \"x\"\r\n".to_owned(), 200),
        (format!("Range: bytes=0-3\r\nIf-Range: W/{tag}\r\n"), 200),
        (format!("Range: bytes=0-3\r\nIf-None-Match: {tag}\r\n"), 304),
    ] {
        let reply = ask(&server, "/files/hello.txt", &fields);
        assert_eq!(reply.status, status, "{fields:?}");
        assert_eq!(reply.head.field("etag"), Some(tag.as_str()), "{fields:?}");
    }
    // A 304 has no body: the next request on the connection is answered.
    let mut client = server.connect();
    let conditional = request("GET", "/files/hello.txt", "If-None-Match: *\r\n");
    client.send(&[conditional, get("/files/hello.txt")].concat());
    assert_eq!(client.reply().status, 304);
    assert_eq!(client.reply().body, b"hello from a file\n");
    drop(client);
    server.stop();
}

pub fn ranges(variant: &Variant) {
    const LEN: usize = 200_000;
    let site = Site::new();
    site.write("root/data.txt", &pattern(0, LEN));
    let server = site.serve(variant);
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=0-65535", 0, 65_535),
        ("bytes=65535-65536", 65_535, 65_536),
        ("bytes=100000-", 100_000, LEN - 1),
        ("bytes=-1", LEN - 1, LEN - 1),
        ("bytes=-200000", 0, LEN - 1),
        ("bytes=-999999", 0, LEN - 1),
        ("bytes=199999-999999", LEN - 1, LEN - 1),
        ("bytes=5-99999999999999999999", 5, LEN - 1),
    ] {
        let reply = ask(&server, "/files/data.txt", &format!("Range: {range}\r\n"));
        assert_eq!(reply.status, 206, "{range}");
        let content_range = format!("bytes {first}-{last}/{LEN}");
        assert_eq!(reply.head.field("content-range"), Some(content_range.as_str()), "{range}");
        assert!(reply.body == pattern(first, last - first + 1), "{range}: wrong bytes");
    }
    for range in ["bytes=200000-", "bytes=999999-", "bytes=-0"] {
        let reply = ask(&server, "/files/data.txt", &format!("Range: {range}\r\n"));
        assert_eq!(reply.status, 416, "{range}");
        assert_eq!(reply.head.field("content-range"), Some("bytes */200000"), "{range}");
    }
    let unsatisfiable = ask(&server, "/files/empty.bin", "Range: bytes=0-\r\n");
    assert_eq!(unsatisfiable.status, 416);
    // What is no valid range is ignored (RFC 9110 section 14.2).
    for range in
        ["bytes=5-3", "bytes=", "bytes=-", "bytes=a-b", "bytes 0-1", "lines=0-1", "bytes=+1-2"]
    {
        let reply = ask(&server, "/files/data.txt", &format!("Range: {range}\r\n"));
        assert_eq!((reply.status, reply.body.len()), (200, LEN), "{range}");
    }
    server.stop();
}

pub fn head_and_methods(variant: &Variant) {
    let site = Site::new();
    let server = site.serve(variant);
    let mut client = server.connect();
    client.send(&request("HEAD", "/files/hello.txt", ""));
    let head = client.head();
    assert_eq!((head.status, head.field("content-length")), (200, Some("18")));
    client.send(&request("HEAD", "/files/hello.txt", "Range: bytes=0-3\r\n"));
    // Range is for GET alone (RFC 9110 section 14.2).
    assert_eq!(client.head().status, 200);
    client.send(&request("HEAD", "/files/", ""));
    assert_eq!(client.head().status, 200);
    client.send(&request("PUT", "/files/hello.txt", ""));
    let reply = client.reply();
    assert_eq!((reply.status, reply.head.field("allow")), (405, Some("GET, HEAD, OPTIONS")));
    client.send(&get("/files"));
    let reply = client.reply();
    assert_eq!((reply.status, reply.head.field("location")), (301, Some("/files/")));
    client.send(&get("/files/hello.txt"));
    assert_eq!(client.reply().body, b"hello from a file\n");
    drop(client);
    server.stop();
}

/// Every link of a listing leads to something, and nothing in it is markup that a name smuggled in.
pub fn index(variant: &Variant) {
    let site = Site::new();
    let server = site.serve(variant);
    let own = ask(&server, "/files/with-index/", "");
    assert_eq!(own.body, b"<p>its own index</p>");
    let listing = ask(&server, "/files/", "");
    assert!(listing.head.field("content-type").is_some_and(|t| t.starts_with("text/html")));
    let html = String::from_utf8(listing.body).expect("a listing is UTF-8");
    assert!(html.contains("a b&amp;c&lt;d&gt;.txt") && !html.contains("<d>"), "{html}");
    for unseen in ["hidden", ".git", "link", "way-out", "secret"] {
        assert!(!html.contains(unseen), "{unseen} in {html}");
    }
    let links: Vec<&str> =
        html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(links.len(), 6, "four files and two directories: {html}");
    for link in links {
        let target = format!("/files/{}", link.trim_start_matches("./"));
        assert_eq!(ask(&server, &target, "").status, 200, "{target}");
    }
    server.stop();
}

pub fn no_way_out(variant: &Variant) {
    let site = Site::new();
    let server = site.serve(variant);
    let absolute = site.around.path().join("secret.txt").to_string_lossy().into_owned();
    let double = format!("/files/{absolute}");
    for target in [
        "/files/../secret.txt",
        "/files/%2e%2e/secret.txt",
        "/files/%2E%2E/secret.txt",
        "/files/..%2fsecret.txt",
        "/files/%2e%2e%2fsecret.txt",
        "/files/.%2e/secret.txt",
        "/files/sub/../../secret.txt",
        "/files/sub/%2e%2e/%2e%2e/secret.txt",
        "/files/....//secret.txt",
        "/files/..%5csecret.txt",
        "/files/..\\secret.txt",
        "/files/%252e%252e/secret.txt",
        "/files/hello.txt/../../secret.txt",
        "/files/%c0%ae%c0%ae/secret.txt",
        "/files/hello.txt%00",
        "/files/../secret.txt%00.txt",
        "/files/.hidden",
        "/files/%2ehidden",
        "/files/.git/config",
        "/files/./.hidden",
        "/files/link",
        "/files/way-out/secret.txt",
        "/files/way-out/",
        "/files/inner-link",
        "/files//etc/passwd",
        "/files/%2fetc/passwd",
        "/../secret.txt",
        "/%2e%2e/etc/passwd",
        "/files/..",
        "/files/../",
        "/files/%2e%2e/",
        "/files/%2e%2e",
        &absolute,
        &double,
    ] {
        let reply = ask(&server, target, "");
        let body = String::from_utf8_lossy(&reply.body);
        assert!((400..500).contains(&reply.status), "{target}: {} {body}", reply.status);
        assert!(!body.contains(SECRET) && !body.contains("root:"), "{target}: {body}");
    }
    // A bad percent-encoding is no crash.
    for target in ["/files/%", "/files/%2", "/files/%zz", "/files/%ff%fe"] {
        assert!((400..500).contains(&ask(&server, target, "").status), "{target}");
    }
    server.serves();
    server.stop();
}

/// Beyond every buffer on the way, to a reader that takes small sips.
pub fn large_file_is_intact(variant: &Variant) {
    const LEN: usize = 20_000_000;
    let site = Site::new();
    let content = pattern(0, LEN);
    site.write("root/large.bin", &content);
    let server = site.serve(variant);
    let mut client = server.connect();
    client.send(&get("/files/hello.txt"));
    client.reply();
    let before = server.process().memory_peak_kib();
    client.send(&get("/files/large.bin"));
    let head = client.head();
    assert_eq!(head.field("content-length"), Some(LEN.to_string().as_str()));
    for piece in content.chunks(7_777) {
        assert!(client.read_exact(piece.len()) == piece, "wrong bytes");
    }
    let growth = server.process().memory_peak_kib() - before;
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB for a file that streams");
    client.send(&get("/files/hello.txt"));
    assert_eq!(client.reply().body, b"hello from a file\n");
    drop(client);
    server.stop();
}

/// File reads of one request must not get into another's reply.
pub fn pipelined_files(variant: &Variant) {
    let site = Site::new();
    let sizes = [150_000, 1, 65_536, 65_537, 0, 300_000];
    for (number, size) in sizes.iter().enumerate() {
        site.write(&format!("root/{number}.bin"), &pattern(number, *size));
    }
    let server = site.serve(variant);
    let mut client = server.connect();
    let requests: Vec<u8> =
        (0..30).flat_map(|n| get(&format!("/files/{}.bin", n % sizes.len()))).collect();
    client.send(&requests);
    for n in 0..30 {
        let number = n % sizes.len();
        let reply = client.reply();
        assert!(reply.body == pattern(number, sizes[number]), "reply {n} has other bytes");
    }
    drop(client);
    server.stop();
}

/// There is less than was promised at start: the reply is cut, and must not look whole.
pub fn file_that_shrank(variant: &Variant) {
    let site = Site::new();
    site.write("root/data.bin", &pattern(0, 500_000));
    let server = site.serve(variant);
    site.write("root/data.bin", b"less");
    let mut client = server.connect();
    client.send(&get("/files/data.bin"));
    // With the head or without: it may have waited for the first bytes of the file.
    assert!(client.read_until_cut().len() < 500_000);
    drop(client);
    server.serves();
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["file_failed"], 1, "{counters}");
}
