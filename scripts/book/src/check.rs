//! Checks a site that was built: links, anchors, pictures, and that nothing is fetched from afar.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use scraper::{Html, Selector};

use crate::pages::normal;

/// Pages that repeat others.
const REPEATS: [&str; 3] = ["print.html", "toc.html", "404.html"];

/// What one page has and where it leads.
struct Seen {
    ids: HashSet<String>,
    /// `href` of links.
    links: Vec<String>,
    /// `src` and `href` of what the browser loads.
    loads: Vec<String>,
    /// `src` and `alt` of pictures.
    pictures: Vec<(String, String)>,
}

/// A line that says how much was checked.
pub fn site(directory: &Path) -> Result<String, String> {
    let mut pages: HashMap<PathBuf, Seen> = HashMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".html") && !REPEATS.contains(&name.as_str()) {
            let text =
                fs::read_to_string(entry.path()).map_err(|error| format!("{name}: {error}"))?;
            pages.insert(entry.path(), seen(&text)?);
        }
    }
    let mut wrong = Vec::new();
    for (path, page) in &pages {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        for link in &page.links {
            if !leads(directory, path, link, &pages) {
                wrong.push(format!("{name}: the link {link} leads nowhere"));
            }
        }
        for load in &page.loads {
            if load.contains("//") || !is_file(directory, load) {
                wrong.push(format!("{name}: loads {load}, which is not in the site"));
            }
        }
        for (picture, alternative) in &page.pictures {
            if alternative.trim().is_empty() || !is_file(directory, picture) {
                wrong.push(format!("{name}: {picture} is missing or has no text alternative"));
            }
        }
    }
    wrong.sort();
    if !wrong.is_empty() {
        return Err(format!(
            "{} places of the site are wrong:\n  {}",
            wrong.len(),
            wrong.join("\n  ")
        ));
    }
    let links: usize = pages.values().map(|page| page.links.len()).sum();
    let pictures: usize = pages.values().map(|page| page.pictures.len()).sum();
    Ok(format!("{} pages, {links} links, {pictures} pictures", pages.len()))
}

fn is_file(directory: &Path, link: &str) -> bool {
    normal(&directory.join(link.split(['?', '#']).next().unwrap_or(link))).is_file()
}

fn leads(directory: &Path, from: &Path, link: &str, pages: &HashMap<PathBuf, Seen>) -> bool {
    if link.contains("://") || link.starts_with("mailto:") {
        return true;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let place = if path.is_empty() { from.to_owned() } else { directory.join(path) };
    let has_anchor = |page: &Seen| anchor.is_empty() || page.ids.contains(anchor);
    // A link to the checkout leads out of the site.
    pages.get(&place).map_or_else(|| place.exists(), has_anchor)
}

fn seen(text: &str) -> Result<Seen, String> {
    let page = Html::parse_document(text);
    let all = |selector: &str, attribute: &str| -> Result<Vec<String>, String> {
        let selector = Selector::parse(selector).map_err(|error| error.to_string())?;
        let values = page.select(&selector).filter_map(|one| one.value().attr(attribute));
        Ok(values.map(str::to_owned).collect())
    };
    let pictures = Selector::parse(".content img").map_err(|error| error.to_string())?;
    let pictures = page.select(&pictures).map(|picture| {
        let value = |name| picture.value().attr(name).unwrap_or_default().to_owned();
        (value("src"), value("alt"))
    });
    Ok(Seen {
        ids: all("[id]", "id")?.into_iter().collect(),
        links: all("main a[href]", "href")?.iter().map(|link| percent_decoded(link)).collect(),
        loads: [all("script[src]", "src")?, all("link[rel=stylesheet]", "href")?].concat(),
        pictures: pictures.collect(),
    })
}

/// Anchors of Chinese headings are percent-encoded in links, and not in ids.
fn percent_decoded(link: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = link.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten();
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
