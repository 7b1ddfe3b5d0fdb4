//! REPORT.md from its template: `{{marker argument ...}}` is replaced by what the result file says.
//! No figure stands in the template itself.
//!
//! Markers: `table W`, `ledger W`, `calls W`, `notes W`, `ratios W`, `deliveries W`,
//! `handshakes W`, `plot NAME`, `costs`, `prices`, `price-ratios`, `idle-prices`,
//! `value W MODEL FIELD`, `legend`, `doubts`, `env [FIELD]`, `describe MODEL`, `count WHAT`,
//! `include PATH ANCHOR`, `instrument [NAME FIELD]`, `instrument-rule N`, `instrument-place`.

mod checks;

use std::path::{Path, PathBuf};

use record::{Instrument, Results};

use crate::failure::Failure;
use crate::summary::{Summary, WorkloadSummary};
use crate::text::{figure, thousands};

use super::listing;
use super::plot::Plot;
use super::table::{self, Marks, Style, protocols};

/// The template that REPORT.md is rendered from.
pub const REPORT: &str = include_str!("../../report/REPORT.template.md");

/// What the markers can refer to.
pub struct Context<'a> {
    /// The result file.
    pub results: &'a Results,
    /// Its summary.
    pub summary: &'a Summary,
    /// The plots that were drawn from it.
    pub plots: &'a [Plot],
    /// Put in front of the plots' file names in links.
    pub plots_prefix: &'a str,
    /// Top of the checkout that listings come from; `None` outside of one.
    pub sources: Option<PathBuf>,
    /// What `iolab check-instrument` found; `None` without its file.
    pub instrument: Option<&'a Instrument>,
}

/// Replaces every marker. An unknown or wrong one is an error that names its line.
pub fn render(template: &str, context: &Context) -> Result<String, Failure> {
    let mut out = String::new();
    let mut rest = template;
    while let Some(begin) = rest.find("{{") {
        let line = template[..template.len() - rest.len() + begin].matches('\n').count() + 1;
        let failed = |why: String| Failure(format!("report template, line {line}: {why}"));
        let end = rest[begin..].find("}}").ok_or_else(|| failed("{{ without }}".into()))? + begin;
        out += &rest[..begin];
        out += replacement(&rest[begin + 2..end], context).map_err(failed)?.trim_end();
        rest = &rest[end + 2..];
    }
    Ok(out + rest)
}

/// Opens a region of a file that is rendered in place; its template follows, up to `-->`.
const REGION: &str = "<!-- rendered:";

/// Closes it.
const REGION_END: &str = "<!-- end rendered -->";

/// Renders the regions of `text`, each from the template in its own opening comment, and leaves the
/// rest as it is. Rendering twice changes nothing.
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
    let Context { results, summary, .. } = context;
    let words: Vec<&str> = marker.split_whitespace().collect();
    let of_workload = |name: &str, show: &dyn Fn(&WorkloadSummary) -> String| {
        known_workload(name)?;
        let workload = summary.workloads.iter().find(|w| w.workload.name == name);
        Ok(workload.map_or_else(|| "Not measured in this run.".to_owned(), show))
    };
    match words[..] {
        ["table", name] => of_workload(name, &|w| table::measured(w, summary, Style::Markdown)),
        ["notes", name] => {
            of_workload(name, &|w| table::notes(results, summary, w, Style::Markdown))
        }
        ["ledger", name] => of_workload(name, &|w| table::ledger(w, Style::Markdown)),
        ["calls", name] => of_workload(name, &|w| table::calls(w, Style::Markdown)),
        ["ratios", name] => {
            of_workload(name, &|w| table::ratios(w, &results.reference, Style::Markdown))
        }
        ["deliveries", name] => {
            of_workload(name, &|w| protocols::deliveries(w, summary, Style::Markdown))
        }
        ["handshakes", name] => {
            of_workload(name, &|w| protocols::handshakes(w, summary, Style::Markdown))
        }
        ["prices"] => Ok(measured(protocols::cpu(results, summary, Style::Markdown))),
        ["price-ratios"] => Ok(measured(protocols::ratios(results, summary, Style::Markdown))),
        ["idle-prices"] => Ok(measured(protocols::idle(results, Style::Markdown))),
        ["plot", name] => Ok(plot(name, context)),
        ["value", workload, model, field] => value(summary, workload, model, field),
        ["costs"] => Ok(table::costs(summary, Style::Markdown)),
        ["legend"] => Ok(table::LEGEND.to_owned()),
        ["doubts"] => {
            Ok(Marks::of(summary).legend().iter().map(|line| format!("- {line}\n")).collect())
        }
        ["env"] => {
            Ok(environment(results).iter().map(|(n, v)| format!("| {n} | {v} |\n")).collect())
        }
        ["env", field] => {
            let fields = environment(results);
            let found = fields.iter().find(|(name, _)| *name == field.replace('-', " "));
            found.map(|(_, value)| value.clone()).ok_or_else(|| format!("no env field {field:?}"))
        }
        ["describe", model] => {
            let found = results.models.iter().find(|m| m.label == model);
            Ok(found.map_or_else(|| "Not measured in this run.".into(), |m| m.description.clone()))
        }
        ["count", what] => count(results, summary, what),
        ["instrument"] => Ok(checks::all(context.instrument)),
        ["instrument", name, field] => checks::field(context.instrument, name, field),
        ["instrument-rule", rule] => {
            let rule = rule.parse().map_err(|_| format!("{rule:?} is no number of a rule"))?;
            Ok(checks::of_rule(context.instrument, rule))
        }
        ["instrument-place"] => Ok(checks::place(context.instrument)),
        ["include", path, anchor] => include(path, anchor, context.sources.as_deref()),
        _ => Err(format!("unknown marker {{{{{marker}}}}}")),
    }
}

/// A table over several workloads is empty where none of them were run.
fn measured(table: String) -> String {
    if table.is_empty() { "Not measured in this run.".to_owned() } else { table }
}

/// A workload that no iolab knows is a slip in the template; one that was not run is not.
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

fn value(summary: &Summary, workload: &str, model: &str, field: &str) -> Result<String, String> {
    known_workload(workload)?;
    let cell = summary
        .workloads
        .iter()
        .find(|w| w.workload.name == workload)
        .and_then(|w| w.cells.iter().find(|cell| cell.model == model))
        .and_then(|cell| cell.state.as_ref().ok());
    let cost = summary.costs.get(model);
    let ratio = |r: Option<crate::statistics::Estimate>| r.map(|r| format!("{:.2}", r.median));
    let shown = match field {
        "rate" => cell.map(|f| thousands(f.rate.median)),
        "server_us" => cell.map(|f| figure(f.server_us.median)),
        "client_us" => cell.map(|f| figure(f.client_us.median)),
        "sum_us" => cell.map(|f| figure(f.sum_us.median)),
        "switches" => cell.map(|f| figure(f.switches)),
        "calls" => cell.and_then(|f| f.calls.as_ref()).map(|calls| figure(calls.total)),
        "p50_us" => cell.map(|f| figure(f.p50_us)),
        "p99_us" => cell.and_then(|f| f.p99_us).map(figure),
        "rate_ratio" => cell.and_then(|f| ratio(f.rate_ratio)),
        "cpu_ratio" => cell.and_then(|f| ratio(f.cpu_ratio)),
        "user_kib" => cost.map(|c| figure(c.memory.user_kib)),
        "kernel_kib" => cost.map(|c| figure(c.memory.kernel_part_kib())),
        "memory_kib" => cost.map(|c| figure(c.memory.user_kib + c.memory.kernel_part_kib())),
        "idle_percent" => cost.map(|c| format!("{:.1}", c.idle_busy * 100.0)),
        _ => return Err(format!("no value is called {field:?}")),
    };
    Ok(shown.unwrap_or_else(|| "(not measured)".into()))
}

/// How many there are of something, over the whole file.
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

/// What a reader must know about the machine, as (name, value).
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
    use super::*;
    use crate::summary::summarise;

    fn rendered(template: &str, sources: Option<&Path>) -> Result<String, String> {
        let results = fixture::results();
        let summary = summarise(&results);
        let plots = super::super::plot::all(&results, &summary).unwrap();
        let sources = sources.map(Path::to_owned);
        let (results, summary, plots) = (&results, &summary, &plots[..]);
        let (plots_prefix, instrument) = ("x/", None);
        render(template, &Context { results, summary, plots, plots_prefix, sources, instrument })
            .map_err(|failure| failure.0)
    }

    #[test]
    fn regions_are_filled_in_place_and_stay() {
        let results = fixture::results();
        let summary = summarise(&results);
        let (results, summary) = (&results, &summary);
        let (plots_prefix, sources, instrument) = ("", None, None);
        let context = Context { results, summary, plots: &[], plots_prefix, sources, instrument };
        let text = "a <!-- rendered: {{env cores}} cores --> old <!-- end rendered --> b";
        let once = fill(text, &context).unwrap();
        let wanted = "<!-- rendered: {{env cores}} cores -->\n\n2 cores\n\n<!-- end rendered -->";
        assert_eq!(once, format!("a {wanted} b"));
        assert_eq!(fill(&once, &context).unwrap(), once);
        assert!(fill("<!-- rendered: x -->", &context).is_err());
    }

    #[test]
    fn markers_become_what_the_file_says() {
        assert_eq!(rendered("a {{env cores}} b", None).unwrap(), "a 2 b");
        assert!(rendered("{{table http-keepalive}}", None).unwrap().contains("| poll "));
        assert!(rendered("{{notes idle-10000}}", None).unwrap().contains("FD_SETSIZE"));
        assert!(rendered("{{ratios http-keepalive}}", None).unwrap().contains("0.90"));
        assert_eq!(rendered("{{value http-keepalive poll rate_ratio}}", None).unwrap(), "0.90");
        assert_eq!(rendered("{{value http-keepalive none rate}}", None).unwrap(), "(not measured)");
        let plot = rendered("{{plot rate-http-keepalive}}", None).unwrap();
        assert_eq!(plot, "![requests per second: http-keepalive](x/rate-http-keepalive.svg)");
        assert!(rendered("{{table file-100k}}", None).unwrap().contains("Not measured"));
        assert_eq!(rendered("{{instrument send-lag wrong}}", None).unwrap(), checks::NOT_TRIED);
    }

    /// In the fixture the machine's speed alternates, a doubt about each cell; unranked are serial
    /// (which starves) and threads (whose client was the limit, in both workloads).
    #[test]
    fn what_is_counted_is_counted_over_the_whole_file() {
        let results = fixture::results();
        let trials = results.trials.len().to_string();
        assert_eq!(rendered("{{count trials}}", None).unwrap(), trials);
        let count = |what: &str| rendered(&format!("{{{{count {what}}}}}"), None).unwrap();
        assert_eq!(["cells", "doubtful", "unranked"].map(count), ["10", "10", "3"]);
    }

    #[test]
    fn wrong_markers_name_their_line() {
        for (template, word) in [
            ("a\n\n{{tabel x}}", "line 3: unknown marker"),
            ("{{table nothing}}", "no workload is called"),
            ("{{env colour}}", "colour"),
            ("{{count sheep}}", "sheep"),
            ("{{instrument-rule five}}", "five"),
            ("{{instrument send-lags wrong}}", "send-lags"),
            ("{{value http-keepalive poll speed}}", "speed"),
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

    #[test]
    fn the_report_tells_of_every_rule_and_of_every_closed_workload() {
        for rule in 1..=13 {
            assert!(REPORT.contains(&format!("### Rule {rule}: ")), "rule {rule}");
            // What rule 12 asks for is counted in the result itself.
            let example = match rule {
                12 => "{{count doubtful}}".to_owned(),
                rule => format!("{{{{instrument-rule {rule}}}}}"),
            };
            assert!(REPORT.contains(&example), "rule {rule}");
        }
        for name in scenario::workload::names() {
            let tables = ["table", "deliveries"].map(|kind| format!("{{{{{kind} {name}}}}}"));
            let told = tables.iter().any(|table| REPORT.contains(table));
            // What runs by name only is asked for by the reader: the report says how.
            let by_name = scenario::workload::ON_DEMAND.contains(&&*name) && REPORT.contains(&name);
            assert!(told || by_name || name.starts_with("rate-"), "{name}");
        }
    }

    #[test]
    fn the_report_itself_renders_and_holds_no_figure_of_its_own() {
        let report = rendered(REPORT, None).unwrap();
        assert!(!report.contains("{{"));
        let figures = REPORT.lines().filter(|line| {
            let after_number = ["us", "req/s", "KiB", "%", "ns"].map(|unit| format!(" {unit}"));
            after_number.iter().any(|unit| {
                line.find(unit.as_str())
                    .is_some_and(|at| line[..at].ends_with(|c: char| c.is_ascii_digit()))
            })
        });
        assert_eq!(figures.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
