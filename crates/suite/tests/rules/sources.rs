//! How the sources are written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use proc_macro2::extra::DelimSpan;
use proc_macro2::{Spacing, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

use suite::root;

use crate::{assert_kept, files_below, read, shown};

/// A function fits a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// A line fits beside another.
const LINE_CHARS_MAX: usize = 100;
/// A file of a model is read in one sitting.
const MODEL_FILE_LINES_MAX: usize = 250;
/// So are all files of a model together, tests not counted.
const MODEL_LINES_MAX: usize = 300;
/// Two models bring their own table, timers or wake-ups, which the others share. Signals take more
/// calls than a list that the kernel is asked about.
const MODEL_LINES_MAX_OF: &[(&str, usize)] =
    &[("serve-sigio", 350), ("serve-tokio", 500), ("serve-uring", 1_800)];

/// Crates that may have `unsafe`, in one module each (a file and the directory of its name); all
/// others in none.
const UNSAFE_CRATES: &[&str] = &[
    "benches",
    "kit",
    "link",
    "load",
    "rig",
    "serve-epoll",
    "serve-poll",
    "serve-prefork",
    "serve-select",
    "serve-sigio",
    "serve-uring",
];

/// One file of Rust.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    text: String,
    tokens: Vec<Token>,
    /// Name, first and last line, of every function.
    functions: Vec<(String, usize, usize)>,
    /// First and last line of modules that are compiled for tests only.
    test_modules: Vec<(usize, usize)>,
}

/// One token, brackets and groups flattened away.
struct Token {
    line: usize,
    kind: Kind,
}

enum Kind {
    /// A word, or one punctuation mark (`::` is one).
    Word(String),
    /// A literal, with its quotes; doc comments are none.
    Literal(String),
}

/// All sources, parsed once for all tests.
pub(crate) fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let files =
            ["crates", "benches"].map(|directory| files_below(&root().join(directory), ".rs"));
        let sources: Vec<_> = files.concat().into_iter().map(parse).collect();
        assert!(sources.len() > 30, "only {} files were found", sources.len());
        sources
    })
}

#[track_caller]
fn parse(path: PathBuf) -> Source {
    let text = read(&path);
    let stream: TokenStream =
        text.parse().unwrap_or_else(|error| panic!("{}: {error}", shown(&path)));
    let syntax: syn::File =
        syn::parse2(stream.clone()).unwrap_or_else(|error| panic!("{}: {error}", shown(&path)));
    let mut tokens = Vec::new();
    flatten(stream, &mut tokens);
    let mut functions = Functions::default();
    functions.visit_file(&syntax);
    Source { path, text, tokens, functions: functions.0, test_modules: test_modules(&syntax) }
}

fn test_modules(syntax: &syn::File) -> Vec<(usize, usize)> {
    let modules = syntax.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.attrs.iter().any(is_cfg_test) => module.content.as_ref(),
        _ => None,
    });
    let lines = |span: &DelimSpan| (span.open().start().line, span.close().end().line);
    modules.map(|(braces, _)| lines(&braces.span)).collect()
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
}

fn flatten(stream: TokenStream, into: &mut Vec<Token>) {
    let mut previous_colon = false;
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let line = tree.span().start().line;
        let mut colon = false;
        match tree {
            TokenTree::Punct(mark) if mark.as_char() == '#' => {
                // `#[doc = "..."]` or `#![doc = "..."]`: a comment.
                let inner =
                    matches!(trees.peek(), Some(TokenTree::Punct(mark)) if mark.as_char() == '!');
                if inner {
                    trees.next();
                }
                let is_doc = matches!(trees.peek(), Some(TokenTree::Group(group))
                    if group.stream().into_iter().next().is_some_and(|t| t.to_string() == "doc"));
                if is_doc {
                    trees.next();
                }
            }
            TokenTree::Punct(mark) if mark.as_char() == ':' && previous_colon => {
                if let Some(Token { kind: Kind::Word(word), .. }) = into.last_mut() {
                    word.push(':');
                }
            }
            TokenTree::Punct(mark) => {
                colon = mark.as_char() == ':' && mark.spacing() == Spacing::Joint;
                into.push(Token { line, kind: Kind::Word(mark.as_char().to_string()) });
            }
            TokenTree::Ident(ident) => {
                into.push(Token { line, kind: Kind::Word(ident.to_string()) });
            }
            TokenTree::Literal(literal) => {
                into.push(Token { line, kind: Kind::Literal(literal.to_string()) });
            }
            TokenTree::Group(group) => flatten(group.stream(), into),
        }
        previous_colon = colon;
    }
}

impl Source {
    /// The crate that it belongs to: the name of its directory.
    fn package(&self) -> String {
        let path = shown(&self.path);
        let mut parts = path.split('/');
        let first = parts.next().unwrap_or_default();
        if first == "crates" { parts.next().unwrap_or_default() } else { first }.to_owned()
    }

    /// All of it is compiled for tests only.
    pub(crate) fn is_test(&self) -> bool {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        shown(&self.path).contains("/tests/") || name == "tests" || name.ends_with("_tests")
    }

    fn is_test_at(&self, line: usize) -> bool {
        self.is_test() || self.test_modules.iter().any(|&(from, to)| (from..=to).contains(&line))
    }

    /// The module below the crate's root: of `ring.rs` and of `ring/sqe.rs` it is `ring`.
    fn module(&self) -> String {
        let path = shown(&self.path);
        let inside = path.rsplit_once("src/").map_or(&*path, |(_, inside)| inside);
        inside.split(['/', '.']).next().unwrap_or_default().to_owned()
    }

    fn lines_without_tests(&self) -> usize {
        if self.is_test() {
            return 0;
        }
        let tests = self.test_modules.iter().map(|(from, to)| to - from + 1);
        self.text.lines().count() - tests.sum::<usize>()
    }

    fn place(&self, line: usize) -> String {
        format!("{}:{line}", shown(&self.path))
    }

    /// Lines on which these words follow one another.
    pub(crate) fn occurrences(&self, wanted: &[&str]) -> Vec<usize> {
        let same =
            |token: &Token, wanted: &str| matches!(&token.kind, Kind::Word(w) if w == wanted);
        let windows = self.tokens.windows(wanted.len());
        let hits = windows.filter(|window| window.iter().zip(wanted).all(|(t, w)| same(t, w)));
        hits.map(|window| window[0].line).collect()
    }

    /// Whether the literal at `index` is the first argument of one of these functions: brackets are
    /// flattened away, so it then comes right behind the name.
    fn is_argument_of(&self, index: usize, functions: &[&str]) -> bool {
        let before = index.checked_sub(1).and_then(|before| self.tokens.get(before));
        matches!(before, Some(Token { kind: Kind::Word(word), .. })
            if functions.contains(&word.as_str()))
    }

    fn literals(&self) -> impl Iterator<Item = (usize, &str)> {
        self.tokens.iter().filter_map(|token| match &token.kind {
            Kind::Literal(text) => Some((token.line, text.as_str())),
            Kind::Word(_) => None,
        })
    }
}

#[test]
fn core_does_no_io_and_reads_no_clock() {
    // Single words, so that no grouped or renamed import gets by.
    const BANNED: &[&[&str]] = &[
        &["net"],
        &["thread"],
        &["fs"],
        &["process"],
        &["os"],
        &["SystemTime"],
        &["libc"],
        &["nix"],
        &["tokio"],
        &["unsafe"],
        &["Instant", "::", "now"],
    ];
    let mut broken = Vec::new();
    for source in sources().iter().filter(|s| s.package() == "conn" && !s.is_test()) {
        for words in BANNED {
            let places = source.occurrences(words);
            broken
                .extend(places.iter().map(|&l| format!("{}: {}", source.place(l), words.concat())));
        }
    }
    assert_kept("conn: bytes in, bytes out, a clock passed in", &broken);
}

#[test]
fn what_judges_and_renders_opens_no_socket() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let banned: &[&[&str]] = match source.package().as_str() {
            "record" | "verdict" => &[
                &["net"],
                &["thread"],
                &["fs"],
                &["process"],
                &["SystemTime"],
                &["Instant"],
                &["println"],
            ],
            "scenario" | "render" => &[&["net"], &["thread"], &["Command"], &["Instant"]],
            _ => continue,
        };
        for words in banned {
            let places = source.occurrences(words);
            broken
                .extend(places.iter().map(|&l| format!("{}: {}", source.place(l), words.concat())));
        }
    }
    assert_kept("what a result says is a function of its file", &broken);
}

#[test]
fn a_runtime_is_used_in_one_model_and_so_is_io_uring() {
    let mut broken = Vec::new();
    for source in sources() {
        let package = source.package();
        for (word, allowed) in [
            // Of the core, its tests only.
            ("tokio", ["serve-tokio", "conn"].as_slice()),
            ("io_uring", ["serve-uring", "load", "benches"].as_slice()),
        ] {
            if !allowed.contains(&package.as_str()) {
                let places = source.occurrences(&[word, "::"]);
                broken.extend(places.iter().map(|&line| format!("{}: {word}", source.place(line))));
            }
        }
    }
    assert_kept("each mechanism in its own model", &broken);
}

#[test]
fn each_file_says_what_it_is() {
    let sources = sources();
    let others = sources.iter().filter(|source| !source.text.starts_with("//! "));
    let broken: Vec<_> = others.map(|source| source.place(1)).collect();
    assert_kept("a file opens with a line that says what it shows", &broken);
}

#[test]
fn lines_are_short() {
    let mut broken = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            let chars = line.chars().count();
            if chars > LINE_CHARS_MAX {
                broken.push(format!("{}: {chars} characters", source.place(number + 1)));
            }
        }
    }
    assert_kept("a line has 100 characters at most", &broken);
}

#[test]
fn models_are_short() {
    let mut broken = Vec::new();
    let mut all = BTreeMap::new();
    for source in sources().iter().filter(|source| source.package().starts_with("serve-")) {
        let lines = source.lines_without_tests();
        *all.entry(source.package()).or_insert(0) += lines;
        if source.path.ends_with("src/lib.rs") && lines > MODEL_FILE_LINES_MAX {
            broken.push(format!("{}: {lines} lines", shown(&source.path)));
        }
    }
    assert!(all.len() >= 10, "{all:?}");
    for (model, lines) in all {
        let own = MODEL_LINES_MAX_OF.iter().find(|(name, _)| *name == model);
        let max = own.map_or(MODEL_LINES_MAX, |(_, max)| *max);
        if lines > max {
            broken.push(format!("crates/{model}: {lines} lines in all its files, of {max}"));
        }
    }
    assert_kept(&format!("a model's lib.rs has {MODEL_FILE_LINES_MAX} lines at most"), &broken);
}

/// The functions of the models that ask which sockets are ready, in their order: put side by side,
/// two of them differ in what is inside.
const SIBLINGS_SHARE: &[&str] = &["serve", "new", "answers", "add", "modify", "delete", "answer"];
/// What one of them has beside those, and why the others do not need it.
const SIBLINGS_OWN: &[(&str, &[&str])] = &[
    // A bitmap has an end, and a timeout in microseconds.
    ("serve-select", &["fits", "timeout"]),
    ("serve-poll", &[]),
    // Changes to the list are system calls, and edge-triggering asks for another read.
    ("serve-epoll", &["control", "read_again"]),
    // A signal comes once, and one by one.
    ("serve-sigio", &["report_added", "answer_to", "read_again", "accept_again"]),
];

#[test]
fn siblings_have_the_same_functions_in_the_same_order() {
    let mut broken = Vec::new();
    for (model, own) in SIBLINGS_OWN {
        let path = root().join("crates").join(model).join("src/lib.rs");
        let source = sources().iter().find(|source| source.path == path);
        let functions = &source.unwrap_or_else(|| panic!("{} is missing", shown(&path))).functions;
        let names = functions.iter().map(|(name, ..)| name.as_str());
        let shared: Vec<_> = names.filter(|name| !own.contains(name)).collect();
        if shared != SIBLINGS_SHARE {
            broken.push(format!("{}: {shared:?}", shown(&path)));
        }
    }
    assert_kept(&format!("select, poll, epoll, sigio: {SIBLINGS_SHARE:?}"), &broken);
}

/// Functions with their first and last line, attributes and comments before them not counted.
#[derive(Default)]
struct Functions(Vec<(String, usize, usize)>);

impl Functions {
    fn note(&mut self, name: &syn::Ident, from: Span, to: Span) {
        self.0.push((name.to_string(), from.start().line, to.end().line));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.note(&item.sig.ident, item.sig.fn_token.span, item.block.brace_token.span.close());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.note(&item.sig.ident, item.sig.fn_token.span, item.block.brace_token.span.close());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.note(&item.sig.ident, item.sig.fn_token.span, block.brace_token.span.close());
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[test]
fn functions_fit_a_screen() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for source in sources() {
        seen += source.functions.len();
        for (name, from, to) in &source.functions {
            let lines = to - from + 1;
            if lines > FUNCTION_LINES_MAX {
                broken.push(format!("{}: fn {name} has {lines} lines", source.place(*from)));
            }
        }
    }
    assert!(seen > 300, "only {seen} functions were found");
    assert_kept("a function has 70 lines at most", &broken);
}

/// A line, or the comment right above it (attributes and parts of the same statement between them
/// included), says why it is sound.
fn is_argued(lines: &[&str], line: usize) -> bool {
    let above = lines[..line].iter().rev().take(8);
    let mut begun = false;
    for text in above {
        let trimmed = text.trim_start();
        if trimmed.contains("// SAFETY:") {
            return true;
        }
        // The line itself comes first; then comments; the first other line ends the search, unless
        // the statement began there.
        let is_comment = trimmed.starts_with("//") || trimmed.starts_with("#[");
        if begun && !is_comment && trimmed.ends_with([';', '{', '}']) {
            return false;
        }
        begun = true;
    }
    false
}

#[test]
fn unsafe_is_in_one_place_and_argued() {
    let mut broken = Vec::new();
    let mut modules: Vec<(String, String)> = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        let places = source.occurrences(&["unsafe"]);
        // A function that is unsafe to call says so in its own text; what it does is argued inside.
        let declared = source.occurrences(&["unsafe", "fn"]);
        let unargued = places.iter().filter(|line| !declared.contains(line));
        let unargued = unargued.filter(|&&line| !is_argued(&lines, line));
        broken.extend(unargued.map(|&line| format!("{}: no SAFETY line", source.place(line))));
        if let Some(&first) = places.first().filter(|_| !source.is_test()) {
            let package = source.package();
            if !UNSAFE_CRATES.contains(&package.as_str()) {
                broken.push(format!("{}: {package} needs no unsafe", source.place(first)));
            } else if let Some((_, module)) = modules.iter().find(|(other, _)| *other == package)
                && *module != source.module()
            {
                let place = source.place(first);
                broken.push(format!("{place}: {package} has its unsafe in {module}"));
            }
            modules.push((package, source.module()));
        }
    }
    assert_kept("unsafe is small, in one module of a crate, and each with a SAFETY line", &broken);
}

/// What follows `marker` in `text`, each time.
fn after<'a>(text: &'a str, marker: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(marker).map(move |(at, _)| &text[at + marker.len()..])
}

/// The port of each loopback or any-address in a literal; 0 picks one and 70000 is none.
fn ports(literal: &str) -> Vec<u16> {
    let hosts = ["127.0.0.1:", "localhost:", "0.0.0.0:", "[::1]:", "[::]:"];
    let behind = hosts.iter().flat_map(|host| after(literal, host));
    let digits =
        behind.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    digits.filter_map(|port| port.parse().ok()).filter(|&port| port != 0).collect()
}

#[test]
fn no_port_is_fixed() {
    let mut broken = Vec::new();
    for source in sources() {
        for (index, token) in source.tokens.iter().enumerate() {
            let Kind::Literal(literal) = &token.kind else { continue };
            // A test may parse an address, or connect to one where nothing listens; it may not
            // listen on one.
            let parsed_only =
                source.is_test_at(token.line) && !source.is_argument_of(index, LISTENS);
            if !is_sentence(literal) && !parsed_only {
                let place = source.place(token.line);
                broken.extend(ports(literal).iter().map(|port| format!("{place}: port {port}")));
            }
        }
    }
    assert_kept("a port is picked by the kernel or given on the command line", &broken);
}

/// Functions and flags that take an address to listen on.
const LISTENS: &[&str] = &["bind", "listen"];

/// For people, such as a text of help: nothing is opened by it.
fn is_sentence(literal: &str) -> bool {
    literal.split_whitespace().count() > 3
}

#[test]
fn no_path_of_a_machine() {
    const MACHINE: &[&str] = &["/home/", "/root/", "/tmp", "/usr/", "/opt/", "/var/", "/mnt/"];
    let mut broken = Vec::new();
    for source in sources() {
        for (line, literal) in source.literals() {
            let text = literal.trim_start_matches(['b', 'r', '#', '"']);
            if MACHINE.iter().any(|prefix| text.starts_with(prefix)) && !is_rule(&source.path) {
                broken.push(format!("{}: {literal}", source.place(line)));
            }
        }
    }
    let here = root().display().to_string();
    for suffix in [".rs", ".toml", ".md", ".json", "Makefile", "run"] {
        for path in files_below(&root(), suffix) {
            if read_lossy(&path).contains(&here) {
                broken.push(format!("{}: says {here}", shown(&path)));
            }
        }
    }
    assert_kept("no path of any one machine", &broken);
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// This file names what it forbids.
fn is_rule(path: &Path) -> bool {
    path.ends_with("tests/rules/sources.rs")
}

#[test]
fn no_address_beyond_loopback() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !is_rule(&source.path)) {
        for (line, literal) in source.literals() {
            for rest in after(literal, "http://").chain(after(literal, "https://")) {
                if is_far(rest) {
                    broken.push(format!("{}: {literal}", source.place(line)));
                }
            }
        }
    }
    assert_kept("nothing is opened beyond loopback unless the command line says so", &broken);
}

/// Whether what follows `http://` begins with the name or number of a real machine elsewhere.
fn is_far(rest: &str) -> bool {
    // A name space is no address, and the others are reserved (RFC 2606).
    const RESERVED: &[&str] = &["www.w3.org", ".example", "example.com", ".invalid", ".test"];
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".-@_".contains(c)));
    let authority = &rest[..end.unwrap_or(rest.len())];
    let host = authority.rsplit('@').next().unwrap_or_default();
    let near = host == "127.0.0.1" || RESERVED.iter().any(|name| host.ends_with(name));
    // A single word is a placeholder, or localhost.
    host.contains('.') && !near
}
