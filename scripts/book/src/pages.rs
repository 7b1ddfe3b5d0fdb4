//! The pages of an edition: the chapters of its report, and what stands beside the report.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Files beside the report that have a page of their own, where they exist: heading of the part,
/// and their places in the checkout.
const BESIDE: &[(&str, &[&str])] = &[
    ("For teachers", &["book/teaching.md", "book/assignment/README.md"]),
    ("The project", &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]),
];

/// One page.
pub struct Page {
    /// Its file in the site's sources.
    pub file: String,
    pub title: String,
    /// Heading of the part that begins with it.
    pub part: Option<&'static str>,
    /// The file that it was made of, from the checkout on.
    pub source: PathBuf,
    pub text: String,
}

/// All pages of the edition in `language` whose report is `report`, its links and pictures as they are there.
pub fn of(top: &Path, language: &str, report: &str) -> Result<Vec<Page>, String> {
    let mut pages = chapters(report, &read(&top.join(report))?);
    let mut beside = Vec::new();
    for (part, files) in BESIDE {
        let there = files.iter().filter(|file| top.join(file).is_file());
        beside
            .extend(there.enumerate().map(|(at, file)| ((at == 0).then_some(*part), file.into())));
    }
    if language == "zh" {
        beside.extend(below(top, "book/solutions/zh", "练习答案")?);
    }
    beside.extend(below(top, "book/solutions", "Solutions")?);
    beside.extend(tables(top)?);
    for (part, source) in beside {
        let text = read(&top.join(&source))?;
        let title = title(&text).unwrap_or_else(|| source.display().to_string());
        let file = source.with_extension("").display().to_string().replace('/', "-");
        pages.push(Page { file: format!("{file}.md"), title, part, source, text });
    }
    Ok(pages)
}

/// The Markdown files of a directory, which may be missing.
fn below(
    top: &Path,
    directory: &str,
    part: &'static str,
) -> Result<Vec<(Option<&'static str>, PathBuf)>, String> {
    let entries = fs::read_dir(top.join(directory)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|entry| Path::new(directory).join(entry.file_name())).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "md"));
    files.sort();
    Ok(files.into_iter().enumerate().map(|(at, file)| ((at == 0).then_some(part), file)).collect())
}

/// The tables of the result that is committed.
fn tables(top: &Path) -> Result<Vec<(Option<&'static str>, PathBuf)>, String> {
    let report = read(&top.join("REPORT.md"))?;
    let named = links(&report).into_iter().find(|link| link.to.contains("/TABLES.md"));
    let file = named.map(|link| PathBuf::from(link.to.split('#').next().unwrap_or_default()));
    Ok(file.map(|file| (Some("All tables"), file)).into_iter().collect())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Text without the marks of code and emphasis.
fn plain(text: &str) -> String {
    text.replace(['`', '*'], "")
}

fn title(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("# ")).map(plain)
}

/// What is before the first `## ` is the first page; then a page for each.
fn chapters(report: &str, text: &str) -> Vec<Page> {
    let page = |file: String, title: String| Page {
        file,
        title,
        part: None,
        source: PathBuf::from(report),
        text: String::new(),
    };
    let first = title(text).unwrap_or_else(|| report.to_owned());
    let mut pages = vec![page("index.md".to_owned(), first)];
    let mut in_code = false;
    for line in text.lines() {
        in_code ^= line.starts_with("```");
        let mut line = line;
        if let Some(heading) = line.strip_prefix("## ").filter(|_| !in_code) {
            pages.push(page(format!("{:02}.md", pages.len() - 1), plain(heading)));
        }
        let is_first = pages.len() == 1;
        let Some(page) = pages.last_mut() else { continue };
        if !in_code && !is_first && line.starts_with("##") {
            line = &line[1..];
        }
        page.text.push_str(line);
        page.text.push('\n');
    }
    pages
}

/// A link or a picture.
pub struct Link {
    pub to: String,
    pub is_picture: bool,
    /// Where it stands in the text.
    pub range: std::ops::Range<usize>,
}

fn parser(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

/// The links and pictures of a text, in order.
pub fn links(text: &str) -> Vec<Link> {
    let found = parser(text).into_offset_iter().filter_map(|(event, range)| match event {
        Event::Start(Tag::Link { dest_url, .. }) => {
            Some(Link { to: dest_url.into_string(), is_picture: false, range })
        }
        Event::Start(Tag::Image { dest_url, .. }) => {
            Some(Link { to: dest_url.into_string(), is_picture: true, range })
        }
        _ => None,
    });
    found.collect()
}

/// The anchors of a text, in order: as GitHub makes them, and so does mdBook.
fn anchors(text: &str) -> Vec<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let (mut heading, mut found): (Option<String>, _) = (None, Vec::new());
    for event in parser(text) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(words) | Event::Code(words) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&words);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let name = slug(&heading.take().unwrap_or_default());
                let count = counts.entry(name.clone()).or_default();
                found.push(if *count == 0 { name } else { format!("{name}-{count}") });
                *count += 1;
            }
            _ => {}
        }
    }
    found
}

fn slug(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Where each place of the sources is in the site.
pub struct Map<'p> {
    pages: &'p [Page],
    /// Of each source with several pages: an anchor of the whole, and its page and anchor there.
    anchors: HashMap<(&'p Path, String), (&'p str, String)>,
}

impl<'p> Map<'p> {
    pub fn new(pages: &'p [Page]) -> Map<'p> {
        let mut anchors_of = HashMap::new();
        let mut counts: HashMap<(&Path, String), usize> = HashMap::new();
        for page in pages {
            let mut own: HashMap<String, usize> = HashMap::new();
            for here in anchors(&page.text) {
                // The number that GitHub adds counts in the whole file, that of mdBook in a page.
                let base = base(&here, &own);
                *own.entry(base.clone()).or_default() += 1;
                let count = counts.entry((&page.source, base.clone())).or_default();
                let whole = if *count == 0 { base } else { format!("{base}-{count}") };
                *count += 1;
                anchors_of.insert((page.source.as_path(), whole), (page.file.as_str(), here));
            }
        }
        Map { pages, anchors: anchors_of }
    }

    /// The page, and the anchor in it, for a place in a source; `None`: it has no page.
    pub fn page(&self, source: &Path, anchor: Option<&str>) -> Option<String> {
        match anchor {
            None => {
                let page = self.pages.iter().find(|page| page.source == source)?;
                Some(page.file.clone())
            }
            Some(anchor) => {
                let (file, here) = self.anchors.get(&(source, anchor.to_owned()))?;
                Some(format!("{file}#{here}"))
            }
        }
    }
}

/// An anchor without the number that makes it differ from earlier ones of its page.
fn base(anchor: &str, earlier: &HashMap<String, usize>) -> String {
    let numbered = anchor.rsplit_once('-').filter(|(base, number)| {
        earlier.get(*base).is_some_and(|count| number.parse() == Ok(*count))
    });
    numbered.map_or(anchor, |(base, _)| base).to_owned()
}

/// A path without `.` and `..`.
pub fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}
