//! Renders a template: `{{marker argument ...}}` is replaced by data of the result file, or of the
//! recordings beside it. The template itself has no figures.
//!
//! Tables: `table W`, `ledger W`, `calls W`, `notes W`, `deliveries W`, `handshakes W`,
//! `map FIGURE`, `costs`, `prices`, `price-ratios`, `idle-prices`, `million MODEL ...` (rows),
//! `doubts`, `env`, `instrument`, `instrument-rule N`, `workloads` (all tables of all workloads).
//!
//! Pictures: `plot NAME`, `lesson EXPERIMENT`, `trace SERVER`.
//!
//! Text: `said EXPERIMENT` (its conclusion), `matrix` (of the traces), `legend`,
//! `tables` (a link), `env FIELD`, `count WHAT`,
//! `instrument NAME FIELD`, `instrument-place`, `include PATH ANCHOR`, `link PATH`, `chapter N`,
//! `contents`.
//!
//! Figures: `value W MODEL FIGURE`, `ratio W MODEL FIGURE OTHER`.
//!
//! Predicates: `claim ...` (see [`claims`]), then the text, then `{{end}}`. Between may stand
//! `{{else}}` and the text for where the claim does not hold.

mod checks;
mod claims;

use std::path::{Path, PathBuf};

use record::{Instrument, Results};

use crate::failure::Failure;
use crate::text::{figure, thousands};
use verdict::summary::{Summary, WorkloadSummary};

use super::TABLES_FILE;
use super::book::{Book, Said};
use super::lessons::Lessons;
use super::listing;
use super::map::{self, By};
use super::plot::Plot;
use super::table::{self, Style, doubts, protocols};
use claims::Answer;

const MARKDOWN: Style = Style::Markdown;

/// Text in place of missing data.
const NOT_MEASURED: Said = Said { en: "Not measured in this run.", zh: "（本次运行未测）" };

/// Text in place of a recording that is not there; COMMAND makes one.
const NOT_RECORDED: Said = Said {
    en: "(This result has no recording of it; `iolab COMMAND` shows it.)",
    zh: "（这次的结果里没有它的录像；运行 `iolab COMMAND` 就能看到。）",
};

/// The template of TABLES.md.
pub const TABLES: &str = include_str!("../../report/TABLES.template.md");

/// Width of a block of text.
const COLUMNS: usize = 100;

/// The data of the markers.
pub struct Context<'a> {
    /// The result file.
    pub results: &'a Results,
    /// Its summary.
    pub summary: &'a Summary,
    /// The plots that were drawn from it.
    pub plots: &'a [Plot],
    /// The recordings beside it.
    pub lessons: &'a Lessons,
    /// The edition of the book.
    pub book: &'a Book,
    /// Prefix of the plots' file names in links.
    pub plots_prefix: &'a str,
    /// Prefix of links to files of the checkout; `None` outside of one.
    pub sources_prefix: Option<&'a str>,
    /// Top of the checkout from which listings are included; `None` outside of one.
    pub sources: Option<PathBuf>,
    /// The result of `iolab check-instrument`; `None` without its file.
    pub instrument: Option<&'a Instrument>,
    /// Whether a claim that does not hold is an error. If not, for the report of a user's own run,
    /// the data replace it.
    pub strict: bool,
}

/// Replaces all markers. A wrong marker is an error that names its line.
pub fn render(template: &str, context: &Context) -> Result<String, Failure> {
    let mut out = String::new();
    render_from(template, 1, context, &mut out)?;
    Ok(out)
}

/// Renders a part of a template that begins at this line of it.
fn render_from(
    template: &str,
    first_line: usize,
    context: &Context,
    out: &mut String,
) -> Result<(), Failure> {
    let mut rest = template;
    while let Some(begin) = rest.find("{{") {
        let at = template.len() - rest.len() + begin;
        let line = template[..at].matches('\n').count() + first_line;
        let failed = |why: String| Failure(format!("template, line {line}: {why}"));
        let end = rest[begin..].find("}}").ok_or_else(|| failed("{{ without }}".into()))? + begin;
        let (marker, behind) = (&rest[begin + 2..end], &rest[end + 2..]);
        *out += &rest[..begin];
        rest = behind;
        let Some(claim) = marker.trim().strip_prefix("claim ") else {
            *out += replacement(marker, context).map_err(failed)?.trim_end();
            continue;
        };
        let claimed_end =
            behind.find(CLAIM_END).ok_or_else(|| failed("claim without end".into()))?;
        rest = &behind[claimed_end + CLAIM_END.len()..];
        let claimed = &behind[..claimed_end];
        let (claimed, instead) = match claimed.split_once(CLAIM_ELSE) {
            Some((claimed, instead)) => (claimed, Some(instead)),
            None => (claimed, None),
        };
        let words: Vec<&str> = claim.split_whitespace().collect();
        match claims::ask(&words, context).map_err(failed)? {
            Answer::Holds => render_from(claimed, line, context, out)?,
            Answer::NotMeasured => *out += &NOT_MEASURED.of(context.book),
            Answer::Fails(why) => match instead {
                Some(instead) => render_from(instead, line, context, out)?,
                None if context.strict => {
                    let sentence = claimed.trim();
                    return Err(failed(format!("{sentence:?} does not hold: {why}")));
                }
                None => *out += &format!("(Not so in this run: {why}.)"),
            },
        }
    }
    *out += rest;
    Ok(())
}

/// The end marker of a claim.
const CLAIM_END: &str = "{{end}}";

/// What stands before the text for where the claim does not hold.
const CLAIM_ELSE: &str = "{{else}}";

/// The start of a region that is rendered in place. Its template follows, up to `-->`.
const REGION: &str = "<!-- rendered:";

/// The end of a region.
const REGION_END: &str = "<!-- end rendered -->";

/// Renders the regions of `text`, each from the template in its opening comment, and leaves the
/// rest unchanged. To render twice changes nothing.
pub fn fill(text: &str, context: &Context) -> Result<String, Failure> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find(REGION) {
        let open = |what: &str| Failure(format!("a `{REGION}` comment without `{what}`"));
        let template_end = rest[begin..].find("-->").ok_or_else(|| open("-->"))? + begin;
        let end = rest[template_end..].find(REGION_END).ok_or_else(|| open(REGION_END))?;
        let template = rest[begin + REGION.len()..template_end].trim();
        out += &rest[..template_end];
        out += &format!("-->\n\n{}\n\n{REGION_END}", render(template, context)?.trim_end());
        rest = &rest[template_end + end + REGION_END.len()..];
    }
    Ok(out + rest)
}

fn replacement(marker: &str, context: &Context) -> Result<String, String> {
    let words: Vec<&str> = marker.split_whitespace().collect();
    let kinds = [of_workload, of_run, of_lessons, of_book];
    let found = kinds.iter().find_map(|kind| kind(&words, context));
    found.unwrap_or_else(|| Err(format!("unknown marker {{{{{marker}}}}}")))
}

/// The text of a marker; `None` for a marker of another kind.
type Replacement = Option<Result<String, String>>;

/// Markers about one workload.
fn of_workload(words: &[&str], context: &Context) -> Replacement {
    let Context { results, summary, .. } = context;
    let show: &dyn Fn(&WorkloadSummary) -> String = match words {
        ["table", _] => &|w| table::measured(w, MARKDOWN),
        ["notes", _] => &|w| table::notes(results, w, MARKDOWN, false),
        ["ledger", _] => &|w| table::ledger(w, MARKDOWN),
        ["calls", _] => &|w| table::calls(w, MARKDOWN),
        ["deliveries", _] => &|w| protocols::deliveries(w, MARKDOWN),
        ["handshakes", _] => &|w| protocols::handshakes(w, MARKDOWN),
        ["value", name, model, figure] => {
            return Some(
                claims::value(summary, name, model, figure).map(|v| or_not_measured(v, context)),
            );
        }
        ["ratio", name, model, figure, other] => {
            let ratio = claims::ratio([name, model, figure, other], context);
            return Some(ratio.map(|ratio| or_not_measured(ratio, context)));
        }
        _ => return None,
    };
    let workload = summary.workloads.iter().find(|w| w.workload.name == words[1]);
    let shown = || or_not_measured(workload.map(show), context);
    Some(known_workload(words[1]).map(|()| shown()))
}

fn or_not_measured(shown: Option<String>, context: &Context) -> String {
    shown.unwrap_or_else(|| NOT_MEASURED.of(context.book))
}

/// Markers about the whole run.
fn of_run(words: &[&str], context: &Context) -> Replacement {
    let Context { results, summary, .. } = context;
    Some(match *words {
        ["prices"] => Ok(measured(protocols::cpu(results, summary, MARKDOWN), context)),
        ["price-ratios"] => Ok(measured(protocols::ratios(results, summary, MARKDOWN), context)),
        ["idle-prices"] => Ok(measured(protocols::idle(results, MARKDOWN), context)),
        ["million", ref models @ ..] => Ok(million(context, models)),
        ["costs"] => Ok(measured(table::costs(results, summary, MARKDOWN), context)),
        ["workloads"] => Ok(table::markdown(results, summary)),
        ["map", by] => {
            let by = By::named(by).ok_or_else(|| format!("there is no map by {by:?}"));
            by.map(|by| or_not_measured(map::markdown(summary, by), context))
        }
        ["plot", name] => Ok(plot(name, context)),
        ["legend"] => Ok(table::LEGEND.to_owned()),
        ["doubts"] => {
            Ok(doubts::of_run(summary).iter().map(|line| format!("- {line}\n")).collect())
        }
        ["env"] => {
            Ok(environment(results).iter().map(|(n, v)| format!("| {n} | {v} |\n")).collect())
        }
        ["env", field] => {
            let fields = environment(results);
            let found = fields.iter().find(|(name, _)| *name == field.replace('-', " "));
            found.map(|(_, value)| value.clone()).ok_or_else(|| format!("no env field {field:?}"))
        }
        ["count", what] => count(results, summary, what),
        ["instrument"] => Ok(checks::all(context.instrument)),
        ["instrument", name, field] => checks::field(context.instrument, name, field),
        ["instrument-rule", rule] => {
            let rule = rule.parse().map_err(|_| format!("{rule:?} is no number of a rule"));
            rule.map(|rule| checks::of_rule(context.instrument, rule))
        }
        ["instrument-place"] => Ok(checks::place(context.instrument)),
        _ => return None,
    })
}

/// Markers about recordings.
fn of_lessons(words: &[&str], context: &Context) -> Replacement {
    let Context { lessons, plots_prefix, .. } = context;
    let shown = match *words {
        ["lesson", name] => lessons.picture(name, plots_prefix).map(Ok),
        ["said", name] => lessons.conclusion(name, COLUMNS).map(Ok),
        ["trace", run] => lessons.trace_picture(run, plots_prefix).map(Ok),
        ["matrix"] => lessons.matrix().map(Ok),
        _ => return None,
    };
    let command = match *words {
        ["matrix"] => "trace all".to_owned(),
        ["trace", run] => format!("trace {run}"),
        _ => format!("experiment {}", words[1]),
    };
    let absent = || Ok(NOT_RECORDED.of(context.book).replace("COMMAND", &command));
    Some(shown.unwrap_or_else(absent))
}

/// Markers about the text itself.
fn of_book(words: &[&str], context: &Context) -> Replacement {
    Some(match *words {
        ["end"] => Ok(String::new()),
        ["tables"] => Ok(format!("[{TABLES_FILE}]({}{TABLES_FILE})", context.plots_prefix)),
        ["include", path, anchor] => include(path, anchor, context.sources.as_deref()),
        ["link", path] => link(&context.book.own(path), context),
        ["chapter", number] => context.book.link_to(number),
        ["contents"] => Ok(context.book.contents()),
        _ => return None,
    })
}

/// Rows: the memory of one silent connection of each model, own and of the kernel in KiB, and that
/// of a million in GiB.
fn million(context: &Context, models: &[&str]) -> String {
    const CONNECTIONS: f64 = 1e6;
    let row = |model: &&str| {
        let memory = &context.summary.costs.get(*model)?.memory;
        let (own, kernel) = (memory.user_kib, memory.kernel_kib);
        let all = (own + kernel.unwrap_or(0.0)) * CONNECTIONS / 1024.0 / 1024.0;
        let kernel = kernel.map_or("n/a".to_owned(), figure);
        Some(format!("| {model} | {} | {kernel} | {} |\n", figure(own), figure(all)))
    };
    measured(models.iter().filter_map(row).collect(), context)
}

/// A link to a file of the checkout, which must be there; outside of a checkout its name.
fn link(path: &str, context: &Context) -> Result<String, String> {
    let (Some(sources), Some(prefix)) = (&context.sources, context.sources_prefix) else {
        return Ok(format!("`{path}`"));
    };
    match sources.join(path).exists() {
        true => Ok(format!("[{path}]({prefix}{path})")),
        false => Err(format!("there is no file {path}")),
    }
}

/// A table over several workloads is empty if none of them was run.
fn measured(table: String, context: &Context) -> String {
    if table.is_empty() { NOT_MEASURED.of(context.book) } else { table }
}

/// An unknown workload is an error in the template; one that was not run is not.
fn known_workload(name: &str) -> Result<(), String> {
    let all = scenario::workload::names();
    if all.iter().any(|known| known == name) {
        return Ok(());
    }
    Err(format!("no workload is called {name:?}; there are {}", all.join(", ")))
}

fn plot(name: &str, context: &Context) -> String {
    match context.plots.iter().find(|plot| plot.name == name) {
        Some(plot) => format!("![{}]({}{name}.svg)", plot.title, context.plots_prefix),
        None => format!("(No data for the plot {name} in this run.)"),
    }
}

/// Numbers over the whole file.
fn count(results: &Results, summary: &Summary, what: &str) -> Result<String, String> {
    let cells = || {
        let all = summary.workloads.iter().flat_map(|w| &w.cells);
        all.filter_map(|cell| cell.state.as_ref().ok())
    };
    let count = match what {
        "trials" => results.trials.len(),
        "cells" => cells().count(),
        "doubtful" => cells().filter(|figures| !figures.doubts.is_empty()).count(),
        "unranked" => cells().filter(|f| f.doubts.iter().any(|doubt| doubt.unranks())).count(),
        _ => return Err(format!("{what:?} is not counted")),
    };
    Ok(thousands(count as f64))
}

/// The description of the machine, as (name, value).
fn environment(results: &Results) -> Vec<(&'static str, String)> {
    let e = &results.environment;
    let (c, s) = (&e.calibration, &results.settings);
    let list = |items: &std::collections::BTreeMap<String, String>| {
        items.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ")
    };
    let cores = |cores: &[u32]| match cores {
        [] => "not pinned".to_owned(),
        cores => cores.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    };
    vec![
        ("started", e.started_at.clone()),
        ("host", e.host.clone()),
        ("kernel", e.kernel.clone()),
        ("cpu", e.cpu_model.clone()),
        ("cores", e.cores.to_string()),
        ("memory", format!("{} MiB", thousands(e.memory_kib as f64 / 1024.0))),
        ("virtualisation", e.virtualisation.clone().unwrap_or_else(|| "none seen".into())),
        ("mitigations", list(&e.mitigations)),
        ("descriptors", format!("{} (hard limit {})", e.descriptors_soft, e.descriptors_hard)),
        ("congestion control", format!("{} by default", e.congestion_control)),
        ("sysctls", list(&e.sysctls)),
        ("null syscall", format!("{} ns", figure(c.null_syscall_ns))),
        ("clock read", format!("{} ns", figure(c.clock_read_ns))),
        ("wake up", format!("{} us", figure(c.wake_up_us))),
        ("loopback round trip", format!("{} us", figure(c.loopback_round_trip_us))),
        ("server core", cores(&s.server_cores)),
        ("client core", cores(&s.client_cores)),
        ("reference", results.reference.clone()),
        ("preset", format!("{:?}", s.preset).to_lowercase()),
        ("rounds", s.rounds.to_string()),
        ("window", format!("{} s after {} s of warm-up", s.window_s, s.warm_up_s)),
        ("seed", s.seed.to_string()),
        ("iolab", e.iolab_version.clone()),
        ("commit", e.commit.clone().unwrap_or_else(|| "unknown".into())),
    ]
}

fn include(path: &str, anchor: &str, sources: Option<&Path>) -> Result<String, String> {
    let Some(sources) = sources else {
        return Ok(format!("(The listing is in `{path}`, between the anchors `{anchor}`.)"));
    };
    let source = std::fs::read_to_string(sources.join(path))
        .map_err(|e| format!("cannot read {path}: {e}"))?;
    let listing =
        listing::between_anchors(&source, anchor).map_err(|why| format!("{path} {why}"))?;
    Ok(format!("```rust\n{listing}```"))
}

#[cfg(test)]
mod tests {
    use super::super::book::Language;
    use super::*;
    use verdict::summary::summarise;

    fn rendered(template: &str, sources: Option<&Path>) -> Result<String, String> {
        rendered_from(&fixture::results(), template, sources)
    }

    fn rendered_from(
        results: &Results,
        template: &str,
        sources: Option<&Path>,
    ) -> Result<String, String> {
        with_context(results, sources, true, |context| render(template, context))
    }

    fn with_context(
        results: &Results,
        sources: Option<&Path>,
        strict: bool,
        render: impl Fn(&Context) -> Result<String, Failure>,
    ) -> Result<String, String> {
        let summary = summarise(results);
        let plots = super::super::plot::all(results, &summary);
        let context = Context {
            results,
            summary: &summary,
            plots: &plots,
            lessons: &Lessons::default(),
            book: &Book::built_in(Language::En),
            plots_prefix: "x/",
            sources_prefix: Some("../"),
            sources: sources.map(Path::to_owned),
            instrument: None,
            strict,
        };
        render(&context).map_err(|failure| failure.0)
    }

    #[test]
    fn regions_are_filled_in_place_and_stay() {
        let filled = |text: &str| {
            with_context(&fixture::results(), None, true, |context| fill(text, context))
        };
        let text = "a <!-- rendered: {{env cores}} cores --> old <!-- end rendered --> b";
        let once = filled(text).unwrap();
        let wanted = "<!-- rendered: {{env cores}} cores -->\n\n2 cores\n\n<!-- end rendered -->";
        assert_eq!(once, format!("a {wanted} b"));
        assert_eq!(filled(&once).unwrap(), once);
        assert!(filled("<!-- rendered: x -->").is_err());
    }

    #[test]
    fn markers_become_what_the_file_says() {
        assert_eq!(rendered("a {{env cores}} b", None).unwrap(), "a 2 b");
        assert!(rendered("{{table http-keepalive}}", None).unwrap().contains("| poll "));
        assert!(rendered("{{notes idle-10000}}", None).unwrap().contains("FD_SETSIZE"));
        let plot = rendered("{{plot rate-http-keepalive}}", None).unwrap();
        let wanted = "![requests per second, http-keepalive";
        assert!(
            plot.starts_with(wanted) && plot.ends_with("(x/rate-http-keepalive.svg)"),
            "{plot}"
        );
        assert_eq!(rendered("{{tables}}", None).unwrap(), "[TABLES.md](x/TABLES.md)");
        assert_eq!(rendered("{{instrument send-lag wrong}}", None).unwrap(), checks::NOT_TRIED);
    }

    /// Unranked are serial (which starves) and threads (whose client was the limit, in both
    /// workloads); busy spins.
    #[test]
    fn what_is_counted_is_counted_over_the_whole_file() {
        let results = fixture::results();
        let trials = results.trials.len().to_string();
        assert_eq!(rendered("{{count trials}}", None).unwrap(), trials);
        let count = |what: &str| rendered(&format!("{{{{count {what}}}}}"), None).unwrap();
        assert_eq!(["cells", "doubtful", "unranked"].map(count), ["10", "5", "3"]);
    }

    #[test]
    fn a_sentence_that_compares_is_held_against_the_data() {
        let claim =
            |of: &str| rendered(&format!("a\n{{{{claim {of}}}}}It is so.{{{{end}}}} b"), None);
        assert_eq!(claim("http-keepalive poll cpu more epoll").unwrap(), "a\nIt is so. b");
        assert_eq!(claim("http-keepalive epoll rate more poll").unwrap(), "a\nIt is so. b");
        assert_eq!(claim("http-keepalive select cpu equal epoll").unwrap(), "a\nIt is so. b");
        for absent in ["idle-1000 poll cpu more epoll", "http-keepalive uring cpu less epoll"] {
            assert_eq!(claim(absent).unwrap(), format!("a\n{} b", NOT_MEASURED.en));
        }
        let why = claim("http-keepalive poll cpu less epoll").unwrap_err();
        let wanted =
            "line 2: \"It is so.\" does not hold: server CPU us/req of poll : epoll is 1.11";
        assert!(why.contains(wanted), "{why}");
        // threads' client was the limit: its rate is not the server's.
        let why = claim("http-keepalive threads rate less epoll").unwrap_err();
        assert!(why.contains("not judged"), "{why}");
        for slip in ["http-keepalive poll cpu", "x poll cpu more epoll"] {
            assert!(claim(slip).unwrap_err().contains("line 2"));
        }
        assert!(claim("http-keepalive poll cpu over epoll").unwrap_err().contains("over"));
        assert!(rendered("{{claim http-keepalive poll cpu more epoll}}", None).is_err());
    }

    /// epoll makes two calls per request in http-keepalive, and no others were counted.
    #[test]
    fn a_claim_can_be_about_a_count_or_about_two_workloads() {
        let results = fixture::with_counts(fixture::results());
        let claim =
            |of: &str| rendered_from(&results, &format!("{{{{claim {of}}}}}So.{{{{end}}}}"), None);
        for holds in [
            "http-keepalive epoll calls above 1.9",
            "http-keepalive epoll calls:sendfile below 0.1",
            "http-keepalive epoll waits equal poll",
            "http-keepalive epoll waits below 0.5",
            "idle-10000 poll cpu equal http-keepalive",
        ] {
            assert_eq!(claim(holds).as_deref(), Ok("So."), "{holds}");
        }
        for (fails, why) in [
            ("http-keepalive epoll calls below 1.9", "calls of epoll is 2.04"),
            ("http-keepalive epoll waits more poll", "waits of epoll : poll is"),
            ("idle-10000 poll cpu more http-keepalive", "of poll : http-keepalive is"),
            ("http-keepalive epoll cpu above 3", "has an interval"),
            ("http-keepalive epoll waits above much", "not a number"),
        ] {
            let error = claim(fails).unwrap_err();
            assert!(error.contains(why), "{fails}: {error}");
        }
        assert_eq!(claim("http-keepalive poll calls above 1").as_deref(), Ok(NOT_MEASURED.en));
        assert_eq!(
            claim("http-keepalive epoll calls less echo-64").as_deref(),
            Ok(NOT_MEASURED.en)
        );
    }

    #[test]
    fn wrong_markers_name_their_line() {
        for (template, word) in [
            ("a\n\n{{tabel x}}", "line 3: unknown marker"),
            ("{{table nothing}}", "no workload is called"),
            ("{{env colour}}", "colour"),
            ("{{count sheep}}", "sheep"),
            ("{{map beauty}}", "beauty"),
            ("{{instrument-rule five}}", "five"),
            ("{{instrument send-lags wrong}}", "send-lags"),
            ("{{env", "without"),
        ] {
            let error = rendered(template, None).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn listings_come_from_the_sources_or_fail() {
        let sources = tempfile::tempdir().unwrap();
        let text = "// ANCHOR: wait\nwait();\n// ANCHOR_END: wait\n";
        std::fs::write(sources.path().join("a.rs"), text).unwrap();
        let good = rendered("{{include a.rs wait}}", Some(sources.path())).unwrap();
        assert_eq!(good, "```rust\nwait();\n```");
        let error = rendered("{{include a.rs weit}}", Some(sources.path())).unwrap_err();
        assert!(error.contains("a.rs has no line") && error.contains("weit"), "{error}");
        let error = rendered("{{include b.rs wait}}", Some(sources.path())).unwrap_err();
        assert!(error.contains("cannot read b.rs"), "{error}");
        assert!(rendered("{{include b.rs wait}}", None).unwrap().contains("between the anchors"));
    }

    /// A figure of a result that is typed: a number before a unit in which results are given.
    fn typed(text: &str) -> Vec<&str> {
        let is_typed = |line: &&str| {
            let units =
                ["us", "req/s", "KiB", "MiB", "%", "ns", "times", "微秒", "纳秒", "倍", "次/秒"];
            units.iter().any(|unit| {
                let unit = format!(" {unit}");
                line.match_indices(unit.as_str())
                    .any(|(at, _)| line[..at].ends_with(|c: char| c.is_ascii_digit()))
            })
        };
        text.lines().filter(is_typed).collect()
    }

    #[test]
    fn the_book_renders_and_holds_no_figure_of_its_own() {
        let results = fixture::results();
        let book = |context: &Context| super::super::book::render(context);
        let book = with_context(&results, None, false, book).unwrap();
        assert!(!book.contains("{{"));
        let wide =
            |line: &&str| line.starts_with('|') && line.replace("\\|", "").matches('|').count() > 7;
        assert_eq!(book.lines().filter(wide).collect::<Vec<_>>(), Vec::<&str>::new());
        for language in [Language::En, Language::Zh] {
            for chapter in Book::built_in(language).chapters {
                assert_eq!(typed(&chapter.text), Vec::<&str>::new(), "{}", chapter.name);
            }
        }
        let tables = |context: &Context| render(TABLES, context);
        let tables = with_context(&results, None, false, tables).unwrap();
        assert!(!tables.contains("{{") && tables.contains("## idle-10000"));
        let text = "20 % and\n5 laws\n3.1 us\n慢 10 倍";
        assert_eq!(typed(text), ["20 % and", "3.1 us", "慢 10 倍"]);
    }

    #[test]
    fn where_a_claim_does_not_hold_its_other_text_stands() {
        let of = |claim: &str| {
            rendered(
                &format!("{{{{claim {claim}}}}}A.{{{{else}}}}B {{{{env cores}}}}.{{{{end}}}} C"),
                None,
            )
        };
        assert_eq!(of("http-keepalive poll cpu more epoll").unwrap(), "A. C");
        assert_eq!(of("http-keepalive poll cpu less epoll").unwrap(), "B 2. C");
        // An experiment without a recording.
        assert_eq!(of("shown crowd finding").unwrap(), format!("{} C", NOT_MEASURED.en));
        assert!(of("shown crowd").is_err());
    }

    #[test]
    fn what_was_not_recorded_names_its_command() {
        for (marker, command) in [
            ("lesson crowd", "experiment crowd"),
            ("said crowd", "experiment crowd"),
            ("trace epoll", "trace epoll"),
            ("matrix", "trace all"),
        ] {
            let told = rendered(&format!("{{{{{marker}}}}}"), None).unwrap();
            assert!(told.contains(&format!("`iolab {command}`")), "{told}");
        }
    }

    #[test]
    fn figures_stand_in_sentences() {
        let figure = |of: &str| rendered(&format!("{{{{{of}}}}}"), None);
        assert_eq!(figure("ratio http-keepalive poll cpu epoll").unwrap(), "1.11");
        assert!(figure("value http-keepalive poll cpu").unwrap().starts_with(char::is_numeric));
        assert_eq!(figure("value idle-1000 poll cpu").unwrap(), NOT_MEASURED.en);
        assert!(figure("value http-keepalive poll beauty").unwrap_err().contains("beauty"));
    }

    #[test]
    fn links_lead_to_files_that_are_there() {
        let sources = tempfile::tempdir().unwrap();
        std::fs::write(sources.path().join("a.rs"), "").unwrap();
        assert_eq!(rendered("{{link a.rs}}", Some(sources.path())).unwrap(), "[a.rs](../a.rs)");
        assert!(rendered("{{link b.rs}}", Some(sources.path())).unwrap_err().contains("b.rs"));
        assert_eq!(rendered("{{link b.rs}}", None).unwrap(), "`b.rs`");
    }
}
