//! Writes the sources of a site, and has mdBook build it.

use std::fs;
use std::path::Path;

use mdbook_driver::MDBook;

use crate::EDITIONS;
use crate::pages::{Link, Map, Page, links, normal};

/// From a page of the site back to the checkout: target/book/LANGUAGE.
const UP: &str = "../../..";

/// Pictures follow the theme of the page, also where that is not the system's. On a narrow screen
/// they are moved sideways, and not so small that nobody can read them; `checkbox-img` is
/// mdBook's: a click shows a picture over the page.
const CSS: &str = "\
.content img { max-width: 100%; height: auto; }
html.light .content img, html.rust .content img { color-scheme: light; }
html.navy .content img, html.coal .content img, html.ayu .content img { color-scheme: dark; }
@media (max-width: 640px) {
  .content p:has(img) { overflow-x: auto; }
  .content .checkbox-img:not(:checked) + img { max-width: none; width: 640px; }
}
.content table { display: block; overflow-x: auto; max-width: 100%; }
/* What a program printed has up to 98 columns, and a page has room for 88 in the usual size. */
code.language-text { font-size: 0.77em; }
";

/// Builds `pages` into `out`.
pub fn build(top: &Path, out: &Path, language: &str, pages: &[Page]) -> Result<(), String> {
    let work = out.with_extension("sources");
    let because = |what: &Path| {
        let what = what.display().to_string();
        move |error: std::io::Error| format!("{what}: {error}")
    };
    for directory in [&work, out] {
        if directory.exists() {
            fs::remove_dir_all(directory).map_err(because(directory))?;
        }
    }
    let write = |name: &str, text: &str| {
        let path = work.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&work)).map_err(because(&path))?;
        fs::write(&path, text).map_err(because(&path))
    };
    let title = pages.first().map_or("", |page| &page.title);
    write("book.toml", &configuration(title, language, out)?)?;
    write("site.css", CSS)?;
    write("src/SUMMARY.md", &summary(pages))?;
    let map = Map::new(pages);
    for page in pages {
        let text = page_text(top, &work, page, &map)?;
        write(&format!("src/{}", page.file), &text)?;
    }
    let book = MDBook::load(&work).map_err(|error| format!("mdBook: {error:#}"))?;
    book.build().map_err(|error| format!("mdBook: {error:#}"))
}

fn configuration(title: &str, language: &str, out: &Path) -> Result<String, String> {
    let out = std::path::absolute(out).map_err(|error| format!("{}: {error}", out.display()))?;
    Ok(format!(
        "[book]\ntitle = {title:?}\nlanguage = {language:?}\n\
         [build]\nbuild-dir = {:?}\ncreate-missing = false\n\
         [output.html]\ndefault-theme = \"light\"\npreferred-dark-theme = \"navy\"\n\
         no-section-label = true\n\
         additional-css = [\"site.css\"]\n",
        out.display().to_string()
    ))
}

fn summary(pages: &[Page]) -> String {
    let mut text = "# Summary\n\n".to_owned();
    for (at, page) in pages.iter().enumerate() {
        if let Some(part) = page.part {
            text += &format!("\n# {part}\n\n");
        }
        let dash = if at == 0 { "" } else { "- " };
        text += &format!("{dash}[{}]({})\n", page.title.replace(['[', ']'], ""), page.file);
        if at == 0 {
            text.push('\n');
        }
    }
    text
}

/// The text of a page with its links as they are in the site.
fn page_text(top: &Path, work: &Path, page: &Page, map: &Map) -> Result<String, String> {
    let mut text = page.text.clone();
    // From the end, so that the places before stay where they are. A picture inside a link is
    // inside its range.
    let mut found = links(&page.text);
    found.sort_by_key(|link| link.range.start);
    for link in found.iter().rev() {
        let to = target(top, work, page, map, link)?;
        let old = format!("]({}", link.to);
        let range = link.range.clone();
        if let Some(at) = text[range.clone()].rfind(&old) {
            let at = range.start + at;
            text.replace_range(at..at + old.len(), &format!("]({to}"));
        } else if to != link.to {
            let line = &text[range];
            return Err(format!(
                "{}: write this link as [text](place): {line}",
                page.source.display()
            ));
        }
    }
    Ok(text)
}

fn target(top: &Path, work: &Path, page: &Page, map: &Map, link: &Link) -> Result<String, String> {
    if link.to.contains("://") || link.to.starts_with("mailto:") {
        return Ok(link.to.clone());
    }
    let source = page.source.display();
    let (path, anchor) = link.to.split_once('#').unwrap_or((&link.to, ""));
    let anchor = (!anchor.is_empty()).then_some(anchor);
    let directory = page.source.parent().unwrap_or(Path::new(""));
    let place = if path.is_empty() { page.source.clone() } else { normal(&directory.join(path)) };
    if link.is_picture {
        let file = place.display().to_string().replace('/', "-");
        let (from, to) = (top.join(&place), work.join("src/pictures").join(&file));
        fs::create_dir_all(work.join("src/pictures"))
            .and_then(|()| fs::copy(&from, &to))
            .map_err(|error| format!("{source}: picture {}: {error}", from.display()))?;
        return Ok(format!("pictures/{file}"));
    }
    if let Some(page) = map.page(&place, anchor) {
        return Ok(page);
    }
    let edition = EDITIONS.iter().find(|(_, report)| Path::new(report) == place);
    if let (Some((language, _)), None) = (edition, anchor) {
        return Ok(format!("../{language}/index.html"));
    }
    let is_page = map.page(&place, None).is_some();
    if is_page || !top.join(&place).exists() {
        return Err(format!("{source}: the link {} leads nowhere", link.to));
    }
    if place.extension().is_some_and(|end| end == "md") {
        return Err(format!("{source}: {} has no page in the site", place.display()));
    }
    Ok(format!("{UP}/{}", place.display()))
}

/// The page that leads to the editions.
pub fn write_entry(out: &Path, languages: &[&str]) -> Result<(), String> {
    let name = |language: &str| if language == "zh" { "中文" } else { "English" };
    let links: String = languages
        .iter()
        .map(|l| format!("<p><a lang=\"{l}\" href=\"{l}/index.html\">{}</a></p>\n", name(l)))
        .collect();
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>iolab</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <style>:root{{color-scheme:light dark}}body{{font:1.2em sans-serif;margin:2em}}</style>\n\
         <h1>iolab</h1>\n{links}</html>\n"
    );
    let path = out.join("index.html");
    fs::write(&path, page).map_err(|error| format!("{}: {error}", path.display()))
}
