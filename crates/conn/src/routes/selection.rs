//! `/files/...`: conditional requests and ranges (RFC 9110 sections 13 and 14).

use std::str;

use httpdate::HttpDate;

use super::{Conditions, Method, Request};
use crate::files::FileEntry;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    Whole,
    /// 206, from the first offset up to the second.
    Part(u64, u64),
    NotModified,
    PreconditionFailed,
    Unsatisfiable,
}

/// RFC 9110 section 15.4.5: without a body, so without a length.
pub(super) const NOT_MODIFIED: &str = "304 Not Modified";

/// Follows the precedence of RFC 9110 section 13.2.2.
pub(super) fn select(request: &Request, file: &FileEntry) -> Selection {
    let conditions = request.conditions();
    let as_it_should_be = match (&conditions.if_match[..], conditions.if_unmodified_since) {
        ([], None) => true,
        ([], Some(since)) => modified_since(since, file) != Some(true),
        (tags, _) => list_tag(tags, &file.etag, Comparison::Strong),
    };
    if !as_it_should_be {
        return Selection::PreconditionFailed;
    }
    let known_already = match (&conditions.if_none_match[..], conditions.if_modified_since) {
        ([], None) => false,
        ([], Some(since)) => modified_since(since, file) == Some(false),
        (tags, _) => list_tag(tags, &file.etag, Comparison::Weak),
    };
    if known_already {
        return Selection::NotModified;
    }
    match conditions.range {
        // Only GET has ranges (section 14.2).
        Some(range) if request.method == Method::Get && may_range(conditions, file) => {
            parse_range(range, file.len)
        }
        _ => Selection::Whole,
    }
}

/// The status of the reply if the conditions forbid a representation that has neither entity tag
/// nor date. Only `*` matches such a representation.
pub(super) fn untagged(conditions: &Conditions) -> Option<&'static str> {
    match (&conditions.if_match[..], &conditions.if_none_match[..]) {
        ([] | [b"*"], [b"*"]) => Some(NOT_MODIFIED),
        ([] | [b"*"], _) => None,
        _ => Some("412 Precondition Failed"),
    }
}

/// The same for a representation with an entity tag and without a date.
pub(super) fn tagged(conditions: &Conditions, etag: &str) -> Option<&'static str> {
    let (wanted, known) = (&conditions.if_match[..], &conditions.if_none_match[..]);
    if !wanted.is_empty() && !list_tag(wanted, etag, Comparison::Strong) {
        return Some("412 Precondition Failed");
    }
    list_tag(known, etag, Comparison::Weak).then_some(NOT_MODIFIED)
}

/// How tags compare (RFC 9110 section 8.8.3.2): If-Match strongly, If-None-Match weakly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// `*` matches any tag if it stands alone. Within a list it may be part of a tag, as a comma may.
fn list_tag(fields: &[&[u8]], etag: &str, comparison: Comparison) -> bool {
    if let [b"*"] = fields {
        return true;
    }
    let tags = fields.iter().flat_map(|field| field.split(|&b| b == b','));
    tags.map(<[u8]>::trim_ascii).any(|tag| {
        let tag = match comparison {
            Comparison::Strong => tag,
            Comparison::Weak => tag.strip_prefix(b"W/").unwrap_or(tag),
        };
        tag == etag.as_bytes()
    })
}

/// `None` if `since` is not a date; the field is then ignored. A date in the future is valid: RFC
/// 2616 ignored it, RFC 9110 section 13.1.3 does not. Nothing has been modified since then.
fn modified_since(since: &[u8], file: &FileEntry) -> Option<bool> {
    let since = str::from_utf8(since).ok()?;
    // The library does not accept the leap seconds of RFC 9110 section 5.6.7.
    let known = parse(since).or_else(|| parse(&since.replacen("23:59:60 ", "23:59:59 ", 1)));
    match known {
        Some(since) => Some(parse(&file.last_modified)? > since),
        None => is_before_1970(since).then_some(true),
    }
}

fn parse(text: &str) -> Option<HttpDate> {
    text.parse().ok()
}

/// True for a valid date before 1970, which the library does not accept. No file is as old.
fn is_before_1970(text: &str) -> bool {
    let year_at = if text.len() == ASCTIME_LEN { 20 } else { 12 };
    let Some(year) = text.get(year_at..year_at + 4) else { return false };
    if !year.bytes().all(|byte| byte.is_ascii_digit()) || year >= "1970" {
        return false;
    }
    // 2000 years later the calendar is the same.
    let later = year.parse().map_or(0, |year: u16| year + 2000);
    parse(&format!("{}{later}{}", &text[..year_at], &text[year_at + 4..])).is_some()
}

/// The length of the only date format with the year at its end.
const ASCTIME_LEN: usize = "Sun Nov  6 08:49:37 1994".len();

/// If-Range: the range is used only if the file still matches the validator strongly.
fn may_range(conditions: &Conditions, file: &FileEntry) -> bool {
    conditions.if_range.is_none_or(|validator| {
        validator == file.etag.as_bytes() || validator == file.last_modified.as_bytes()
    })
}

/// One byte range. With several ranges, another unit or a syntax error the field is ignored, as RFC
/// 9110 section 14.2 allows.
fn parse_range(range: &[u8], len: u64) -> Selection {
    let parse = || -> Option<Selection> {
        let (unit, spec) = str::from_utf8(range).ok()?.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = spec.split_once('-')?;
        let number = |text: &str| -> Option<u64> {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            // A number above `u64::MAX` lies beyond the end of any file.
            digits.then(|| text.parse().unwrap_or(u64::MAX))
        };
        if first.is_empty() {
            let suffix = number(last)?;
            let unsatisfiable = suffix == 0 || len == 0;
            let part = Selection::Part(len.saturating_sub(suffix), len);
            return Some(if unsatisfiable { Selection::Unsatisfiable } else { part });
        }
        let first = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        if last < first {
            return None;
        }
        Some(if first >= len {
            Selection::Unsatisfiable
        } else {
            Selection::Part(first, last.saturating_add(1).min(len))
        })
    };
    parse().unwrap_or(Selection::Whole)
}
