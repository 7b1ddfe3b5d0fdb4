//! The commands of README.md, REPORT.md, CONTRIBUTING.md and the book, each in a short form.
//!
//! A command that ends soon is run as it stands there. One that does not end is run until it says
//! something. One that measures for long has its arguments read by the program itself (`--help`
//! behind them), and its names (servers, workloads, experiments, laws) looked up. `make` says what
//! it would run, and that is looked at in the same way. A command of another kind fails: say here
//! how it is tried. What this machine lacks is SKIP.

mod how;
mod place;

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use suite::{root, set_guard, texts};

use place::Place;

/// A command and the first place where it stands.
struct Found {
    place: String,
    command: String,
    /// Within a sentence: there NAME and the like stand for names, so only arguments are read.
    in_a_sentence: bool,
}

/// The commands of the shell blocks of a text, with their lines.
fn commands(text: &str) -> Vec<(usize, String)> {
    let (mut in_shell, mut found) = (false, Vec::new());
    for (event, range) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                in_shell = &*language == "sh";
            }
            Event::End(TagEnd::CodeBlock) => in_shell = false,
            Event::Text(block) if in_shell => {
                let first = 1 + text[..range.start].matches('\n').count();
                found.extend(lines(&block).into_iter().map(|(at, line)| (first + at, line)));
            }
            _ => {}
        }
    }
    found
}

/// The commands of our own programs within sentences, with their lines.
fn in_sentences(text: &str) -> Vec<(usize, String)> {
    let code = Parser::new(text).into_offset_iter().filter_map(|(event, range)| match event {
        Event::Code(code) => {
            Some((1 + text[..range.start].matches('\n').count(), code.into_string()))
        }
        _ => None,
    });
    let is_ours = |code: &str| code.starts_with("iolab ") || code.starts_with("target/release/");
    code.filter(|(_, code)| is_ours(code) && code.contains(' ')).collect()
}

/// The lines of a block, without comments; one that goes on behind a backslash is one line.
fn lines(block: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (at, line) in block.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let (text, more) = line.strip_suffix('\\').map_or((line, false), |text| (text, true));
        match found.last_mut().filter(|_| goes_on) {
            Some((_, before)) => *before += text,
            None if text.is_empty() || text.starts_with('#') => {}
            None => found.push((at, text.to_owned())),
        }
        goes_on = more;
    }
    found
}

fn all() -> Vec<Found> {
    let (mut known, mut found) = (BTreeSet::new(), Vec::new());
    for file in texts() {
        let text = fs::read_to_string(root().join(&file)).expect("a text");
        let blocks = commands(&text).into_iter().map(|command| (command, false));
        let sentences = in_sentences(&text).into_iter().map(|command| (command, true));
        for ((line, command), in_a_sentence) in blocks.chain(sentences) {
            if known.insert(command.clone()) {
                let place = format!("{}:{line}", file.display());
                found.push(Found { place, command, in_a_sentence });
            }
        }
    }
    found
}

/// `None`, or why it is skipped.
fn tried(command: &str) -> Result<Option<String>, String> {
    Place::new()?.tries(command, how::of(command)?)
}

fn run(found: &Found) -> Result<Completion, Failed> {
    if found.in_a_sentence {
        let read = Place::new().and_then(|place| place.arguments(&found.command));
        return match read {
            Ok(()) => Ok(Completion::Completed),
            Err(sentence) => Err(format!("{}: {}: {sentence}", found.place, found.command).into()),
        };
    }
    match tried(&found.command) {
        Ok(None) => Ok(Completion::Completed),
        Ok(Some(reason)) => {
            println!("SKIP {}: {}: {reason}", found.place, found.command);
            Ok(Completion::ignored_with(reason))
        }
        Err(sentence) => Err(format!("{}: {}: {sentence}", found.place, found.command).into()),
    }
}

/// What rots is seen: each of these is a command that there is not.
fn wrong_commands_are_seen() -> Result<(), Failed> {
    for wrong in [
        "iolab load http://127.0.0.1:PORT/ --no-such-flag",
        "iolab bench --models no-such-model",
        "iolab bench --workloads no-such-workload",
        "iolab experiment no-such-experiment",
        "iolab laws L99",
        "iolab no-such-command",
        "make no-such-target",
        "curl --no-such-flag http://127.0.0.1:PORT/",
        "target/release/serve-nothing",
        "no-such-program",
    ] {
        if tried(wrong) == Ok(None) {
            return Err(format!("{wrong} was taken for right").into());
        }
    }
    Ok(())
}

fn blocks_are_read() -> Result<(), Failed> {
    let text =
        "# A\n\n```sh\nmake a   # why\n# a remark\ncurl \\\n    b\n```\n\n```rust\nlet a;\n```\n";
    let expected = vec![(4, "make a".to_owned()), (6, "curl b".to_owned())];
    if commands(text) != expected {
        return Err(format!("{:?}", commands(text)).into());
    }
    let sentence = "Try `iolab laws` and\n`iolab laws --list`, not `poll`.\n";
    match &in_sentences(sentence)[..] {
        [(1, first), (2, second)] if first == "iolab laws" && second == "iolab laws --list" => {
            Ok(())
        }
        other => Err(format!("{other:?}").into()),
    }
}

fn main() -> ExitCode {
    // A guard against hanging; it is longer than what the slowest machine takes to render a report.
    set_guard(600);
    let found = all();
    assert!(found.len() > 40, "only {} commands were found", found.len());
    let mut trials = vec![
        Trial::test("wrong_commands_are_seen", wrong_commands_are_seen),
        Trial::test("blocks_are_read", blocks_are_read),
    ];
    trials.extend(found.into_iter().map(|found| {
        let name = format!("{}: {}", found.place, found.command);
        Trial::ignorable_test(name, move || run(&found))
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
