//! The origins whose pages may open a WebSocket (RFC 6455 section 10.2).
//!
//! The same-origin policy of browsers does not cover WebSockets: any page may connect to any of
//! them. The browser sends the page's origin, so the server must check it.

#[derive(Debug, PartialEq, Eq)]
struct Origin<'a> {
    secure: bool,
    host: &'a str,
    port: u16,
}

const ANY: &str = "*";

/// The origin of a file or of a sandboxed frame (RFC 6454 section 7.1).
const NONE: &str = "null";

/// Checks one value of `--allow-origin`; the error says what is wrong with it.
pub fn check_origin(text: &str) -> Result<(), String> {
    if text == ANY || text == NONE || Origin::parse(text).is_some() {
        return Ok(());
    }
    Err(format!("{text} is no origin; want http://HOST[:PORT] or https://HOST[:PORT], or *"))
}

/// True if pages of `origin` may open a WebSocket of this server: if it is the server's own origin
/// (clients reach the server as `host`, with or without a port), or one of `allowed`.
pub(crate) fn is_allowed(origin: &str, host: &str, secure: bool, allowed: &[String]) -> bool {
    let page = Origin::parse(origin);
    let own = page
        .as_ref()
        .is_some_and(|page| Origin::served(host, secure).is_some_and(|own| own.same(page)));
    own || allowed.iter().any(|allowed| {
        let same = |page| Origin::parse(allowed).is_some_and(|allowed| allowed.same(page));
        allowed == ANY || page.as_ref().map_or(origin == NONE && allowed == NONE, same)
    })
}

impl Origin<'_> {
    /// Scheme, host and port of `http://host:port`, without a path.
    fn parse(text: &str) -> Option<Origin<'_>> {
        let (scheme, host) = text.split_once("://")?;
        let secure = scheme.eq_ignore_ascii_case("https");
        if !secure && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        Origin::served(host, secure)
    }

    /// The origin of a server that clients reach as `host[:port]`, with or without TLS.
    fn served(text: &str, secure: bool) -> Option<Origin<'_>> {
        // An IPv6 address contains colons, within brackets.
        let name_len = text.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match text[name_len..].find(':') {
            Some(at) => {
                let (host, port) = text.split_at(name_len + at);
                let digits = &port[1..];
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                (host, digits.parse().ok()?)
            }
            None => (text, if secure { 443 } else { 80 }),
        };
        let is_host = |byte: u8| byte.is_ascii_graphic() && !b"/?#@\\".contains(&byte);
        let whole = name_len == 0 || (host.starts_with('[') && host.len() == name_len);
        (!host.is_empty() && whole && host.bytes().all(is_host)).then_some(Origin {
            secure,
            host,
            port,
        })
    }

    fn same(&self, other: &Origin) -> bool {
        self.secure == other.secure
            && self.port == other.port
            && self.host.eq_ignore_ascii_case(other.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_origin_by_default() {
        for (origin, host, secure, same) in [
            ("http://a", "a", false, true),
            ("http://a:80", "a", false, true),
            ("http://a", "a:80", false, true),
            ("HTTP://A", "a", false, true),
            ("https://a", "a:443", true, true),
            ("http://a:8080", "a:8080", false, true),
            ("http://[::1]:8080", "[::1]:8080", false, true),
            ("http://[::1]", "[::1]:80", false, true),
            ("http://a:8080", "a:8081", false, false),
            ("http://a", "b", false, false),
            ("http://aa", "a", false, false),
            ("https://a", "a", false, false),
            ("http://a", "a", true, false),
            ("https://a:80", "a:80", false, false),
            ("http://a/", "a", false, false),
            ("http://x@a", "a", false, false),
            ("http://a:", "a", false, false),
            ("http://a:+80", "a", false, false),
            ("http://a:99999", "a:99999", false, false),
            ("http://", "", false, false),
            ("null", "null", false, false),
            ("", "", false, false),
            ("a", "a", false, false),
            ("file://a", "a", false, false),
        ] {
            assert_eq!(is_allowed(origin, host, secure, &[]), same, "{origin} on {host}");
        }
    }

    #[test]
    fn others_where_they_are_named() {
        let allowed = |origin: &str, list: &[&str]| {
            let list: Vec<String> = list.iter().map(|&text| text.to_owned()).collect();
            is_allowed(origin, "here", false, &list)
        };
        assert!(allowed("https://There", &["http://x", "https://there:443"]));
        assert!(!allowed("http://there", &["https://there"]));
        assert!(allowed("http://there", &["*"]));
        assert!(allowed("null", &["*"]) && allowed("null", &["null"]));
        assert!(!allowed("null", &["http://there"]));
        assert!(!allowed("nonsense", &["http://there", "null"]));
        assert!(allowed("http://here", &["http://there"]));
    }

    #[test]
    fn the_command_line_is_checked() {
        for good in ["*", "null", "http://a", "https://a:8443", "http://[::1]:1"] {
            assert_eq!(check_origin(good), Ok(()));
        }
        for bad in ["", "a", "a:80", "http://", "http://a/", "ws://a", "http://a b", "http://*:x"] {
            let sentence = check_origin(bad).expect_err(bad);
            assert!(sentence.contains("want http://HOST"), "{sentence}");
        }
    }
}
