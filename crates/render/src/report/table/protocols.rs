//! Tables of protocols: the cost per request relative to another protocol, and of 10,000 idle
//! connections; deliveries of a fan-out; TLS handshakes.

use record::Results;

use crate::text::{figure, thousands};
use verdict::statistics::BlockRatio;
use verdict::summary::{
    Figures, IdlePrice, Summary, WorkloadSummary, idle_prices, name_of, prices, steps,
};

use super::{Style, between, finish, measured_cells, new_table, short, times};

/// Fewest workloads of such a table: a single one cannot be compared.
const STEPS_MIN: usize = 2;

/// Models with data, in the order of the file, the floor last.
fn models(results: &Results, has: impl Fn(&str) -> bool) -> Vec<&str> {
    let is_floor = |label: &&str| results.floor.as_deref() == Some(*label);
    let labels = results.models.iter().map(|model| model.label.as_str());
    let (floors, others): (Vec<_>, Vec<_>) =
        labels.filter(|label| has(label)).partition(|label| is_floor(label));
    others.into_iter().chain(floors).collect()
}

fn cell<'a>(workload: &'a WorkloadSummary, model: &str) -> Option<&'a Figures> {
    let mut cells = workload.cells.iter().chain(&workload.floor);
    cells.find(|cell| cell.model == model)?.state.as_deref().ok()
}

/// Server CPU per request by protocol, in microseconds; empty with fewer than two protocols.
pub fn cpu(results: &Results, summary: &Summary, style: Style) -> String {
    let steps = steps(summary);
    let labels = models(results, |model| steps.iter().any(|(_, w)| cell(w, model).is_some()));
    if steps.len() < STEPS_MIN || labels.is_empty() {
        return String::new();
    }
    let mut table = new_table(style);
    table.set_header(std::iter::once("model").chain(steps.iter().map(|(step, _)| step.name)));
    for model in labels {
        let one = |workload: &WorkloadSummary| match cell(workload, model) {
            // If some connections were not served the cost is not comparable.
            Some(figures) if figures.stuck().is_none() => figure(figures.server_us().median),
            _ => "-".to_owned(),
        };
        let row = steps.iter().map(|(_, workload)| one(workload));
        table.add_row(std::iter::once(model.to_owned()).chain(row));
    }
    finish(table, &(1..=steps.len()).collect::<Vec<_>>(), style)
}

/// Server CPU per request relative to the workload without the protocol, paired by round: a column
/// for each pair.
pub fn ratios(results: &Results, summary: &Summary, style: Style) -> String {
    let all = |model: &str| prices(results, summary, model);
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for price in results.models.iter().flat_map(|model| all(&model.label)) {
        if !pairs.contains(&(price.workload, price.base)) {
            pairs.push((price.workload, price.base));
        }
    }
    if pairs.is_empty() {
        return String::new();
    }
    let mut table = new_table(style);
    let head = pairs.iter().map(|(one, base)| format!("{} : {}", name_of(one), name_of(base)));
    table.set_header(std::iter::once("model".to_owned()).chain(head));
    for model in models(results, |model| !all(model).is_empty()) {
        let prices = all(model);
        let of = |(workload, base): &(&str, &str)| {
            let price = prices.iter().find(|p| p.workload == *workload && p.base == *base);
            price.map_or("-".to_owned(), |price| ratio(&price.ratio))
        };
        table.add_row(std::iter::once(model.to_owned()).chain(pairs.iter().map(of)));
    }
    finish(table, &(1..=pairs.len()).collect::<Vec<_>>(), style)
}

fn ratio(ratio: &BlockRatio) -> String {
    format!("{} ({})", times(ratio.ratio), between(ratio))
}

/// Memory of 10,000 idle connections by protocol, in MiB: process + kernel.
pub fn idle(results: &Results, style: Style) -> String {
    let all = |model: &str| idle_prices(results, model);
    let mut protocols: Vec<&str> = Vec::new();
    for price in results.models.iter().flat_map(|model| all(&model.label)) {
        if !protocols.contains(&price.protocol) {
            protocols.push(price.protocol);
        }
    }
    if protocols.len() < STEPS_MIN {
        return String::new();
    }
    let mut table = new_table(style);
    table.set_header(["model", "sampled at"].into_iter().chain(protocols.iter().copied()));
    for model in models(results, |model| !all(model).is_empty()) {
        let prices = all(model);
        let mut at: Vec<u32> = prices.iter().map(|price| price.cost.connections).collect();
        at.sort_unstable();
        at.dedup();
        let at: Vec<String> = at.into_iter().map(|count| thousands(f64::from(count))).collect();
        let of = |protocol: &&str| {
            let price = prices.iter().find(|price| price.protocol == *protocol);
            price.map_or("-".to_owned(), mib)
        };
        let row = [model.to_owned(), at.join("; ")];
        table.add_row(row.into_iter().chain(protocols.iter().map(of)));
    }
    finish(table, &(1..=protocols.len() + 1).collect::<Vec<_>>(), style)
}

fn mib(price: &IdlePrice) -> String {
    let (own, kernel) = price.mib();
    let least = if price.cost.memory.kernel_kib.is_none() { ">=" } else { "" };
    format!("{}+{least}{}", short(own), short(kernel))
}

/// Deliveries of a fan-out; empty for other workloads.
pub fn deliveries(workload: &WorkloadSummary, style: Style) -> String {
    let mut table = new_table(style);
    table.set_header([
        "model",
        "members",
        "messages/s",
        "deliveries/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "CPU us/delivery",
    ]);
    let or_none = |value: Option<f64>| value.map_or("-".to_owned(), short);
    let mut empty = true;
    for (cell, figures) in measured_cells(workload) {
        let Some(chat) = &figures.fan_out else { continue };
        table.add_row([
            cell.model.clone(),
            thousands(f64::from(chat.members)),
            thousands(chat.messages_per_s),
            thousands(figures.rate().median),
            or_none(chat.p50_us),
            or_none(chat.p99_us),
            or_none(chat.p999_us),
            figure(figures.server_us().median),
        ]);
        empty = false;
    }
    if empty { String::new() } else { finish(table, &[1, 2, 3, 4, 5, 6, 7], style) }
}

/// TLS handshakes; empty without TLS.
pub fn handshakes(workload: &WorkloadSummary, style: Style) -> String {
    let mut table = new_table(style);
    let header = ["model", "full/s", "resumed/s", "p50 us", "p99 us", "CPU us", "agreed on"];
    table.set_header(header);
    let or_none = |value: Option<f64>| value.map_or("-".to_owned(), short);
    let mut empty = true;
    for (cell, figures) in measured_cells(workload) {
        // With keep-alive the handshakes are made before the window.
        let tls = figures.tls.as_ref().filter(|tls| tls.resumed_share().is_some());
        let Some(tls) = tls else { continue };
        let agreed = [&tls.version, &tls.cipher_suite].map(String::as_str);
        let agreed = agreed.into_iter().chain(tls.alpn.as_deref()).collect::<Vec<_>>();
        table.add_row([
            cell.model.clone(),
            thousands(tls.full_per_s),
            thousands(tls.resumed_per_s),
            or_none(tls.p50_us),
            or_none(tls.p99_us),
            figure(figures.server_us().median),
            agreed.join(" "),
        ]);
        empty = false;
    }
    if empty { String::new() } else { finish(table, &[1, 2, 3, 4, 5], style) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::COLUMNS_MAX;
    use verdict::summary::summarise;

    fn row<'a>(table: &'a str, model: &str) -> Vec<&'a str> {
        let wanted = |line: &&str| line.split('|').nth(1).is_some_and(|cell| cell.trim() == model);
        let line = table.lines().find(wanted).unwrap_or_default();
        line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }

    #[test]
    fn prices_stand_beside_each_other_by_protocol() {
        let results = fixture::protocols();
        let summary = summarise(&results);
        let table = cpu(&results, &summary, Style::Markdown);
        let epoll = row(&table, "epoll");
        assert_eq!(epoll, ["epoll", "10.1", "10.1", "2.52", "11.1", "4.04", "505"], "{table}");
        // A flavour that would repeat its model has no figure.
        assert_eq!(row(&table, "threads+duplex=on")[1..3], ["-", "-"], "{table}");
        let table = ratios(&results, &summary, Style::Markdown);
        assert!(row(&table, "epoll").contains(&"0.25 (0.25-0.25)"), "{table}");
        assert!(table.contains("HTTP/2 x 32 : HTTP/1.1"), "{table}");
        assert!(
            cpu(&fixture::results(), &summarise(&fixture::results()), Style::Markdown).is_empty()
        );
    }

    #[test]
    fn idle_connections_are_told_for_ten_thousand() {
        let table = idle(&fixture::protocols(), Style::Markdown);
        let epoll = row(&table, "epoll");
        let wanted = ["epoll", "1,000", "9.8+20", "293+20", "20+20", "117+20"];
        assert_eq!(epoll, wanted, "{table}");
        assert!(idle(&fixture::results(), Style::Markdown).is_empty());
    }

    #[test]
    fn deliveries_and_handshakes_have_tables_of_their_own() {
        let results = fixture::protocols();
        let summary = summarise(&results);
        let of = |name: &str| {
            summary.workloads.iter().find(|workload| workload.workload.name == name).unwrap()
        };
        let chat = deliveries(of("ws-chat"), Style::Markdown);
        assert_eq!(row(&chat, "epoll")[1], "100", "{chat}");
        assert!(deliveries(of("ws-echo"), Style::Markdown).is_empty());
        let tls = handshakes(of("tls-handshake"), Style::Markdown);
        assert!(row(&tls, "epoll").contains(&"800"), "{tls}");
        assert!(tls.contains("TLSv1.3 TLS13_AES_256_GCM_SHA384 http/1.1"), "{tls}");
        assert!(handshakes(of("ws-echo"), Style::Markdown).is_empty());
    }

    #[test]
    fn all_of_it_fits_a_terminal() {
        let results = fixture::protocols();
        let text = super::super::terminal(&results, &summarise(&results), true);
        assert!(text.contains("price of each protocol"), "{text}");
        assert!(text.contains("deliveries") && text.contains("handshakes"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS_MAX, "{line}");
        }
        // The flavour is in the tables of its protocol only, and no line says why.
        assert!(!text.contains("differs from its model"), "{text}");
        assert!(text.contains("serial: not measured: holds 1 connection at once"), "{text}");
    }
}
