//! The book: chapters of `book/LANGUAGE`, rendered one after the other into one report.
//!
//! A chapter is a template. Its first line is `# Title`; the report numbers it by the name of its
//! file (`03-visitors.md` is chapter 3) and moves all of its headings down one level. `front.md` is
//! the text before the first chapter.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::failure::{Failure, because};

use super::template::{self, Context};

include!(concat!(env!("OUT_DIR"), "/book.rs"));

/// Name, without `.md`, of the text before the first chapter.
const FRONT: &str = "front";

/// An edition of the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// English.
    En,
    /// Chinese.
    Zh,
}

/// One chapter.
pub struct Chapter {
    /// The name of its file, without `.md`.
    pub name: String,
    /// Its template.
    pub text: String,
}

impl Chapter {
    /// Its number; `None` for a name that does not begin with one.
    pub fn number(&self) -> Option<u32> {
        self.name.split('-').next()?.parse().ok()
    }

    /// Its heading in the report: `3. The 51st visitor`.
    fn heading(&self) -> String {
        let title = self.text.lines().next().unwrap_or_default().trim_start_matches('#').trim();
        self.number().map_or(title.to_owned(), |number| format!("{number}. {title}"))
    }

    /// A link to it, in the same file, with this text.
    fn link(&self, text: &str) -> String {
        format!("[{text}](#{})", anchor(&self.heading()))
    }
}

/// A text of the program's own, in both languages.
pub struct Said {
    /// In English.
    pub en: &'static str,
    /// In Chinese.
    pub zh: &'static str,
}

impl Said {
    /// In the language of this book.
    pub fn of(&self, book: &Book) -> String {
        match book.language {
            Language::En => self.en.to_owned(),
            Language::Zh => self.zh.to_owned(),
        }
    }
}

impl Language {
    fn code(self) -> &'static str {
        match self {
            Language::En => "en",
            Language::Zh => "zh",
        }
    }
}

/// One edition.
pub struct Book {
    /// Its language.
    pub language: Language,
    /// The text before the first chapter.
    pub front: String,
    /// In order.
    pub chapters: Vec<Chapter>,
}

impl Book {
    /// The edition as it was when this program was built.
    pub fn built_in(language: Language) -> Book {
        let files = match language {
            Language::En => EN,
            Language::Zh => ZH,
        };
        Book::of(language, files.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())))
    }

    /// The edition in a checkout, so that a change of the text needs no build; else the one that is
    /// built in.
    ///
    /// # Errors
    /// A chapter that cannot be read.
    pub fn read(language: Language, checkout: Option<&Path>) -> Result<Book, Failure> {
        let place = checkout.map(|top| top.join("book").join(language.code()));
        let Some(listed) = place.as_ref().and_then(|place| fs::read_dir(place).ok()) else {
            return Ok(Book::built_in(language));
        };
        let mut files: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "md"));
        files.sort();
        let text = |file: PathBuf| {
            let text = fs::read_to_string(&file)
                .map_err(because(format!("cannot read {}", file.display())))?;
            Ok((file.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text))
        };
        let files: Vec<_> = files.into_iter().map(text).collect::<Result<_, Failure>>()?;
        Ok(Book::of(language, files.into_iter()))
    }

    fn of(language: Language, files: impl Iterator<Item = (String, String)>) -> Book {
        let mut book = Book { language, front: String::new(), chapters: Vec::new() };
        for (name, text) in files {
            match name.as_str() {
                FRONT => book.front = text,
                _ => book.chapters.push(Chapter { name, text }),
            }
        }
        book
    }

    /// A link to the chapter of this number.
    pub fn link_to(&self, number: &str) -> Result<String, String> {
        let wanted = number.parse().ok();
        let found = self.chapters.iter().find(|chapter| chapter.number() == wanted);
        let found = found.filter(|_| wanted.is_some());
        let text = match self.language {
            Language::En => format!("chapter {number}"),
            Language::Zh => format!("第 {number} 章"),
        };
        let link = found.map(|chapter| chapter.link(&text));
        link.ok_or_else(|| format!("there is no chapter {number:?}"))
    }

    /// The place of a file in the language of this book: solutions are there in each.
    pub fn own(&self, path: &str) -> String {
        match self.language {
            Language::En => path.to_owned(),
            Language::Zh => path.replace("book/solutions/", "book/solutions/zh/"),
        }
    }

    /// Links to all chapters, as a list.
    pub fn contents(&self) -> String {
        let link = |chapter: &Chapter| format!("- {}\n", chapter.link(&chapter.heading()));
        self.chapters.iter().map(link).collect()
    }
}

/// Renders the book. An edition that lacks chapters of the English one is an error that names them.
pub fn render(context: &Context) -> Result<String, Failure> {
    let book = context.book;
    let place = format!("book/{}", book.language.code());
    let english = Book::read(Language::En, context.sources.as_deref())?;
    let has = |name: &str| book.chapters.iter().any(|chapter| chapter.name == name);
    let names = english.chapters.iter().map(|chapter| chapter.name.as_str());
    let missing: Vec<_> = names.filter(|name| !has(name)).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(Failure(format!("{place} is not complete yet; it lacks {missing}")));
    }
    let of = |name: &str, text: &str| {
        template::render(text, context)
            .map_err(|Failure(why)| Failure(format!("{place}/{name}.md: {why}")))
    };
    let mut out = of(FRONT, &book.front)?;
    for chapter in &book.chapters {
        let body = of(&chapter.name, &chapter.text)?;
        let body = body.split_once('\n').map_or("", |(_, body)| body);
        out += &format!("\n## {}\n{}", chapter.heading(), one_level_down(body));
    }
    Ok(out)
}

/// The text with each heading a level deeper. Lines of code that begin with `#` stay.
fn one_level_down(text: &str) -> String {
    let mut in_code = false;
    let line = |line: &str| {
        in_code ^= line.starts_with("```");
        let is_heading = !in_code && line.starts_with('#');
        format!("{}{line}\n", if is_heading { "#" } else { "" })
    };
    text.lines().map(line).collect()
}

/// The name by which GitHub links to a heading: lower case, blanks as hyphens, and of other
/// characters only letters, digits, hyphens and underscores.
pub fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments of all markers in a text, sorted, so that sentences may have another order.
    fn markers(text: &str) -> Vec<&str> {
        let mut found: Vec<_> =
            text.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0)).collect();
        found.sort_unstable();
        found
    }

    /// The lines of shell blocks without comments.
    fn commands(text: &str) -> Vec<String> {
        let mut in_shell = false;
        let mut found = Vec::new();
        for line in text.lines() {
            if line.starts_with("```") {
                in_shell = line == "```sh";
            } else if in_shell {
                found.push(line.split(" #").next().unwrap_or_default().trim().to_owned());
            }
        }
        found
    }

    #[test]
    fn every_chapter_has_a_number_in_order_and_one_title() {
        let english = Book::built_in(Language::En);
        let numbers: Vec<_> = english.chapters.iter().map(Chapter::number).collect();
        assert_eq!(numbers, (0..english.chapters.len() as u32).map(Some).collect::<Vec<_>>());
        assert!(!english.front.is_empty());
        for chapter in english.chapters {
            let titles = one_level_down(&chapter.text).matches("\n# ").count();
            assert!(chapter.text.starts_with("# ") && titles == 0, "{}", chapter.name);
        }
    }

    /// The form of a chapter. The first is a summary, and the last has answers.
    #[test]
    fn every_chapter_asks_shows_and_ends_with_an_exercise() {
        let english = ["**Question.**", "**Predict.**", "**Exercise.**", "**Sources.**"];
        let chinese = ["**问题**：", "**先猜**：", "**练习**：", "**出处**："];
        for (language, parts) in [(Language::En, english), (Language::Zh, chinese)] {
            let chapters = Book::built_in(language).chapters;
            for Chapter { name, text } in &chapters[1..chapters.len() - 1] {
                for part in parts {
                    assert_eq!(text.matches(part).count(), 1, "{name}: {part}");
                }
            }
        }
        let chapters = Book::built_in(Language::En).chapters;
        for Chapter { name, text } in &chapters[1..chapters.len() - 1] {
            assert!(!commands(text).is_empty(), "{name} has no command");
            let markers = markers(text);
            let has = |kinds: &[&str]| {
                let mut all = markers.iter().filter_map(|marker| marker.split_once(' '));
                all.any(|(kind, _)| kinds.contains(&kind))
            };
            assert!(has(&["lesson", "trace", "plot", "include"]), "{name} shows nothing");
            let solution = markers.iter().filter(|of| of.starts_with("link book/solutions/"));
            assert_eq!(solution.count(), 1, "{name} names no solution");
        }
    }

    /// Both editions show the same.
    #[test]
    fn the_editions_have_the_same_chapters_figures_commands_and_predicates() {
        let [english, chinese] = [Language::En, Language::Zh].map(Book::built_in);
        assert_eq!(chinese.chapters.len(), english.chapters.len());
        for (one, other) in english.chapters.iter().zip(&chinese.chapters) {
            let name = &one.name;
            assert_eq!(name, &other.name);
            assert_eq!(markers(&one.text), markers(&other.text), "{name}");
            assert_eq!(commands(&one.text), commands(&other.text), "{name}");
            let headings = |text: &str| {
                one_level_down(text).lines().filter(|line| line.starts_with("##")).count()
            };
            assert_eq!(headings(&one.text), headings(&other.text), "{name}");
        }
        assert_eq!(markers(&english.front), markers(&chinese.front));
        assert_eq!(commands(&english.front), commands(&chinese.front));
    }

    #[test]
    fn what_an_edition_shows_is_found() {
        assert_eq!(markers("a {{plot x}} {{claim b}}c{{end}}"), ["claim b", "end", "plot x"]);
        let text = "```sh\niolab laws   # all\n```\n```rust\nlet a = 1;\n```\n";
        assert_eq!(commands(text), ["iolab laws"]);
    }

    #[test]
    fn headings_move_down_and_code_does_not() {
        let text = "## A\n```sh\n# B\n```\n";
        assert_eq!(one_level_down(text), "### A\n```sh\n# B\n```\n");
        assert_eq!(anchor("3. The 51st visitor?"), "3-the-51st-visitor");
        assert_eq!(anchor("7. select、poll 和 epoll"), "7-selectpoll-和-epoll");
        let book = Book::built_in(Language::En);
        assert!(book.link_to("99").is_err() && book.link_to("x").is_err());
        let chinese = Book::built_in(Language::Zh);
        assert_eq!(book.own("book/solutions/a.md"), "book/solutions/a.md");
        assert_eq!(chinese.own("book/solutions/a.md"), "book/solutions/zh/a.md");
        assert_eq!(chinese.own("crates/a.rs"), "crates/a.rs");
    }
}
