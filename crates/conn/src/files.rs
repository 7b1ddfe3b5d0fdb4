//! The table of files under `/files/`: metadata only.
//!
//! The program scans the document root once, before the first connection. A request can only name
//! an entry of this table, so no path needs to be normalised, and none leads out of the root.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use bytes::Bytes;

/// Index of an open file in the driver's list, in the order of [`FileTableBuilder::add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

#[derive(Debug)]
pub(crate) struct FileEntry {
    pub(crate) id: FileId,
    pub(crate) len: u64,
    pub(crate) content_type: String,
    /// A strong entity tag with its quotes (RFC 9110 section 8.8.3).
    pub(crate) etag: String,
    pub(crate) last_modified: String,
}

#[derive(Debug)]
pub(crate) enum Entry {
    File(FileEntry),
    Index(Bytes),
}

/// All files that a request can name. Built once, then only read.
#[derive(Debug, Default)]
pub struct FileTable {
    entries: HashMap<String, Entry>,
}

/// Collects files for a [`FileTable`].
#[derive(Debug, Default)]
pub struct FileTableBuilder {
    files: BTreeMap<String, FileEntry>,
    added: u32,
}

impl FileTable {
    /// `path` is relative to the root and percent-decoded. A directory ends with `/`; the root is
    /// "".
    pub(crate) fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }
}

impl FileTableBuilder {
    /// Adds the file at `path` (relative to the root, `/` between names). `modified_unix_ns` is the
    /// time of last modification. Returns the id that reads use.
    pub fn add(
        &mut self,
        path: &str,
        len: u64,
        modified_unix_ns: u64,
        content_type: &str,
    ) -> FileId {
        let id = FileId(self.added);
        self.added += 1;
        let modified = std::time::Duration::from_nanos(modified_unix_ns);
        let entry = FileEntry {
            id,
            len,
            content_type: content_type.to_owned(),
            etag: format!("\"{modified_unix_ns:x}-{len:x}\""),
            last_modified: httpdate::fmt_http_date(std::time::UNIX_EPOCH + modified),
        };
        self.files.insert(path.to_owned(), entry);
        id
    }

    /// The finished table. A directory is answered with its `index.html`, or with a listing if it
    /// has none.
    pub fn build(self) -> FileTable {
        let mut listings: BTreeMap<String, BTreeMap<String, Option<u64>>> = BTreeMap::new();
        listings.entry(String::new()).or_default();
        for (path, file) in &self.files {
            list_in_parents(&mut listings, path, file.len);
        }
        let mut entries: HashMap<String, Entry> = HashMap::new();
        for (directory, names) in &listings {
            let html = listing_html(directory, names);
            entries.insert(directory.clone(), Entry::Index(Bytes::from(html)));
        }
        for (path, file) in self.files {
            if let Some(directory) = path.strip_suffix("index.html")
                && (directory.is_empty() || directory.ends_with('/'))
            {
                let shown = FileEntry {
                    content_type: file.content_type.clone(),
                    etag: file.etag.clone(),
                    last_modified: file.last_modified.clone(),
                    ..file
                };
                entries.insert(directory.to_owned(), Entry::File(shown));
            }
            entries.insert(path, Entry::File(file));
        }
        FileTable { entries }
    }
}

/// Adds `path` to the listing of its directory, and every directory to that of its parent.
fn list_in_parents(
    listings: &mut BTreeMap<String, BTreeMap<String, Option<u64>>>,
    path: &str,
    len: u64,
) {
    let mut end = path.len();
    let mut size = Some(len);
    loop {
        let start = path[..end].trim_end_matches('/').rfind('/').map_or(0, |slash| slash + 1);
        let name = path[start..end].to_owned();
        listings.entry(path[..start].to_owned()).or_default().insert(name, size);
        if start == 0 {
            return;
        }
        (end, size) = (start, None);
    }
}

fn listing_html(directory: &str, names: &BTreeMap<String, Option<u64>>) -> String {
    let title = escape_html(&format!("/files/{directory}"));
    let mut html = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n\
         <title>{title}</title>\n<h1>{title}</h1>\n<ul>\n"
    );
    if !directory.is_empty() {
        html.push_str("<li><a href=\"../\">../</a>\n");
    }
    for (name, len) in names {
        let href: String =
            percent_encoding::utf8_percent_encode(name, &PATH_ESCAPES).collect::<String>();
        let size = len.map(|len| format!(" {len} bytes")).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(html, "<li><a href=\"./{href}\">{}</a>{size}", escape_html(name));
    }
    html.push_str("</ul>\n");
    html
}

/// Bytes to escape in a path segment of a link (RFC 3986 section 3.3), without `/`.
const PATH_ESCAPES: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
