//! `make book`: REPORT.md (and REPORT.zh.md) as a site that needs no network, by mdBook.
//!
//! A chapter of the report (`## `) becomes a page. Links between chapters become links between
//! pages, pictures are copied, and links to sources lead into the checkout that the site is built
//! in. After the build each link, each anchor and each picture's text alternative is checked.

mod check;
mod pages;
mod site;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

/// Builds the book as a site.
#[derive(Parser)]
#[command(name = "book", help_expected = true)]
struct Arguments {
    /// The checkout.
    #[arg(long, default_value = ".")]
    top: PathBuf,
}

/// An edition: its language, and its report in the checkout.
const EDITIONS: [(&str, &str); 2] = [("en", "REPORT.md"), ("zh", "REPORT.zh.md")];

/// Where the site goes, in the checkout.
const OUT: &str = "target/book";

fn main() -> ExitCode {
    let Arguments { top } = Arguments::parse();
    match build(&top) {
        Ok(lines) => {
            println!("{lines}");
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("book: {sentence}");
            ExitCode::from(2)
        }
    }
}

fn build(top: &Path) -> Result<String, String> {
    let out = top.join(OUT);
    let is_there = |(_, report): &&(&str, &str)| top.join(report).is_file();
    let editions: Vec<_> = EDITIONS.iter().filter(is_there).collect();
    if editions.is_empty() {
        return Err(format!("{} is no checkout of iolab: it has no REPORT.md", top.display()));
    }
    let mut lines = Vec::new();
    for (language, report) in &editions {
        let pages = pages::of(top, language, report)?;
        let edition = out.join(language);
        site::build(top, &edition, language, &pages)?;
    }
    // The editions link to each other, so all of them are built before one is checked.
    for (language, _) in &editions {
        let edition = out.join(language);
        let checked = check::site(&edition)?;
        lines.push(format!("{}/index.html: {checked}", edition.display()));
    }
    site::write_entry(&out, &editions.iter().map(|(language, _)| *language).collect::<Vec<_>>())?;
    Ok(lines.join("\n"))
}
