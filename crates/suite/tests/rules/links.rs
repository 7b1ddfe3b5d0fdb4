//! Links, anchors and pictures of the Markdown files lead somewhere.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use suite::{root, texts};

use crate::{assert_kept, read};

/// What a file says of links.
#[derive(Default)]
struct Seen {
    /// Line, and place.
    links: Vec<(usize, String)>,
    anchors: Vec<String>,
    /// Pictures without a text alternative.
    mute: Vec<(usize, String)>,
}

fn seen(text: &str) -> Seen {
    let mut seen = Seen::default();
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut heading: Option<String> = None;
    let mut picture: Option<(usize, String, String)> = None;
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        let line = 1 + text[..range.start].matches('\n').count();
        match event {
            Event::Start(Tag::Link { dest_url, .. }) => {
                seen.links.push((line, dest_url.into_string()));
            }
            Event::Start(Tag::Image { dest_url, .. }) => {
                seen.links.push((line, dest_url.to_string()));
                picture = Some((line, dest_url.into_string(), String::new()));
            }
            Event::End(TagEnd::Image) => {
                let mute = picture.take().filter(|(_, _, alternative)| alternative.is_empty());
                seen.mute.extend(mute.map(|(line, place, _)| (line, place)));
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let name = anchor(&heading.take().unwrap_or_default());
                let count = counts.entry(name.clone()).or_default();
                let numbered = format!("{name}-{count}");
                seen.anchors.push(if *count == 0 { name } else { numbered });
                *count += 1;
            }
            Event::Text(words) | Event::Code(words) => {
                let words = words.into_string();
                if let Some(heading) = &mut heading {
                    heading.push_str(&words);
                }
                if let Some((_, _, alternative)) = &mut picture {
                    alternative.push_str(&words);
                }
            }
            _ => {}
        }
    }
    seen
}

/// The name by which GitHub links to a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Why a link of `file` leads nowhere, if so.
fn fault(file: &Path, link: &str, all: &HashMap<PathBuf, Seen>) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let directory = root().join(file.parent().unwrap_or(Path::new("")));
    let place = if path.is_empty() { root().join(file) } else { directory.join(path) };
    let Ok(place) = place.canonicalize() else { return Some("there is no such file") };
    let Ok(place) = place.strip_prefix(root().canonicalize().expect("the workspace")) else {
        return Some("it leads out of the workspace");
    };
    let page = all.get(place)?;
    let is_there = anchor.is_empty() || page.anchors.iter().any(|there| there == anchor);
    (!is_there).then_some("there is no such heading")
}

#[test]
fn links_of_the_texts_lead_somewhere() {
    let files = texts();
    let text = |file: &PathBuf| seen(&read(&root().join(file)));
    let all: HashMap<PathBuf, Seen> = files.iter().map(|file| (file.clone(), text(file))).collect();
    let links: usize = all.values().map(|seen| seen.links.len()).sum();
    assert!(files.len() >= 5 && links > 40, "only {links} links in {files:?} were found");
    let mut broken = Vec::new();
    for file in &files {
        for (line, link) in &all[file].links {
            if let Some(fault) = fault(file, link, &all) {
                broken.push(format!("{}:{line}: {link}: {fault}", file.display()));
            }
        }
        for (line, place) in &all[file].mute {
            broken.push(format!("{}:{line}: {place} has no text alternative", file.display()));
        }
    }
    assert_kept("a link leads to a file and a heading, and a picture says what it shows", &broken);
}

#[test]
fn broken_links_are_seen() {
    let text = "# A title: b\n# A title: b\n[x](#a-title-b-1) [y](none.md) ![](p.svg)\n";
    let page = seen(text);
    assert_eq!(page.anchors, ["a-title-b", "a-title-b-1"]);
    assert_eq!(page.mute, [(3, "p.svg".to_owned())]);
    let file = PathBuf::from("README.md");
    let all = HashMap::from([(file.clone(), page)]);
    assert_eq!(fault(&file, "#a-title-b-1", &all), None);
    assert_eq!(fault(&file, "https://example.com/", &all), None);
    for wrong in ["#none", "none.md", "../.."] {
        assert!(fault(&file, wrong, &all).is_some(), "{wrong}");
    }
}
