//! The result for each server: figures, ratios to the reference, and the comparison in words.

use comfy_table::{CellAlignment, Table, presets};
use serde::{Serialize, Serializer};

use render::text;
use verdict::statistics::{BlockRatio, Finding};

use super::{ratio, typical};
use rig::slices::{Epoch, client_share, client_us, requests_per_s, server_share, server_us};

/// A side that is busy for a larger share of the time limits the requests/s. If that is the client
/// and not the server, the requests/s say nothing about the server.
const SHARE_MAX: f64 = 0.9;

/// From this ratio on "times as much" is easier to read than percent.
const TIMES_MIN: f64 = 1.5;

/// The result for one server. All figures are medians over the blocks.
#[derive(Debug, Serialize)]
pub struct Standing {
    pub label: String,
    /// CPU time of the server per request, in microseconds; `None` if unknown.
    pub server_us: Option<f64>,
    /// CPU time of the client per request, in microseconds.
    pub client_us: Option<f64>,
    pub requests_per_s: Option<f64>,
    /// The server's CPU time per request, relative to the reference.
    pub cpu: Option<Told>,
    pub rate: Option<Told>,
    pub client_bound: bool,
    pub blocks: usize,
    pub ended: Option<String>,
}

/// A ratio and what it shows.
#[derive(Debug, Serialize)]
pub struct Told {
    pub ratio: f64,
    /// Lower end of its 99 % interval.
    pub low: f64,
    /// Upper end of its 99 % interval.
    pub high: f64,
    /// `more`, `less`, `equal`, or `~`.
    #[serde(serialize_with = "as_word")]
    pub finding: Finding,
    pub epochs: Vec<f64>,
}

impl Told {
    fn of(ratio: BlockRatio, margin: f64) -> Told {
        Told {
            ratio: ratio.ratio,
            low: ratio.interval.low,
            high: ratio.interval.high,
            finding: ratio.finding(margin),
            epochs: ratio.epochs,
        }
    }

    fn cell(&self) -> String {
        format!("{:.3} {}", self.ratio, self.finding.word())
    }

    /// In words: `13 % more CPU per request (11-15 %)`.
    fn words(&self, what: &str) -> String {
        let percent = |ratio: f64| (ratio - 1.0).abs() * 100.0;
        let (one, other) = (percent(self.low), percent(self.high));
        let (low, high) = (one.min(other), one.max(other));
        let times = self.ratio >= TIMES_MIN;
        match self.finding {
            Finding::Equal => format!("as much {what} (within {high:.1} %)"),
            Finding::Unknown => {
                format!("{:.2} to {:.2} times as much {what}: undecided", self.low, self.high)
            }
            _ if times => {
                let Told { ratio, low, high, .. } = self;
                format!("{ratio:.2} times as much {what} ({low:.2}-{high:.2})")
            }
            Finding::More | Finding::Less => {
                let (part, word) = (percent(self.ratio), self.finding.word());
                format!("{part:.0} % {word} {what} ({low:.1}-{high:.1} %)")
            }
        }
    }

    pub fn is(&self, finding: Finding) -> bool {
        self.finding == finding
    }
}

fn as_word<S: Serializer>(finding: &Finding, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(finding.word())
}

/// The results of all entrants, in their order. The first is the reference. `margin`: a difference
/// that does not matter ([`verdict::statistics::MARGIN`]).
pub fn standings(labels: &[String], epochs: &[Epoch], margin: f64) -> Vec<Standing> {
    let told = |at: usize, figure| {
        let ratio = (at > 0).then(|| ratio(epochs, at, 0, figure)).flatten();
        ratio.map(|ratio| Told::of(ratio, margin))
    };
    let standing = |(at, label): (usize, &String)| Standing {
        label: label.clone(),
        server_us: typical(epochs, at, server_us),
        client_us: typical(epochs, at, client_us),
        requests_per_s: typical(epochs, at, requests_per_s),
        cpu: told(at, server_us),
        rate: told(at, requests_per_s),
        client_bound: is_client_bound(epochs, at),
        blocks: epochs
            .iter()
            .flat_map(|epoch| &epoch.blocks)
            .filter(|block| block[at].is_some())
            .count(),
        ended: epochs.iter().find_map(|epoch| epoch.ended.get(at)?.clone()),
    };
    labels.iter().enumerate().map(standing).collect()
}

/// Whether the client was busy all the time and the server was not.
fn is_client_bound(epochs: &[Epoch], at: usize) -> bool {
    let share = |figure| typical(epochs, at, figure);
    let limits = |share: f64| share > SHARE_MAX;
    share(client_share).is_some_and(limits) && !share(server_share).is_some_and(limits)
}

pub fn table(standings: &[Standing]) -> String {
    let knows_cpu = standings.iter().any(|standing| standing.server_us.is_some());
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let server: &[&str] = if knows_cpu { &["server us", ": first"] } else { &[] };
    let others = ["requests/s", ": first", "client us"];
    table.set_header(std::iter::once("").chain(server.iter().copied()).chain(others));
    for (at, standing) in standings.iter().enumerate() {
        let told = |told: &Option<Told>| match (told, at) {
            (_, 0) => String::new(),
            (Some(told), _) => told.cell(),
            (None, _) => "too few epochs".to_owned(),
        };
        let figure = |value: Option<f64>| value.map_or("-".to_owned(), text::figure);
        let rate = standing.requests_per_s.map_or("-".to_owned(), text::thousands);
        let mut row = vec![standing.label.clone()];
        if knows_cpu {
            row.extend([figure(standing.server_us), told(&standing.cpu)]);
        }
        row.extend([rate, told(&standing.rate), figure(standing.client_us)]);
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// A line for each server but the reference.
pub fn answer(standings: &[&Standing]) -> String {
    let Some((reference, others)) = standings.split_first() else { return String::new() };
    let bound = |one: &Standing| one.client_bound || reference.client_bound;
    let line = |one: &&Standing| {
        if let Some(why) = &one.ended {
            return format!("{} ended: {why}", one.label);
        }
        let cpu = one.cpu.as_ref().map(|told| told.words("CPU per request"));
        let rate = one.rate.as_ref().map(|told| match bound(one) {
            false => told.words("requests/s"),
            true => "requests/s not compared, because the client was busy all the time".to_owned(),
        });
        let all: Vec<_> = [cpu, rate].into_iter().flatten().collect();
        match all.is_empty() {
            true => format!("{}: too few epochs to compare", one.label),
            false => format!("{}: {}", one.label, all.join("; ")),
        }
    };
    let lines = others.iter().map(|one| text::wrap(&line(one), 2) + "\n");
    std::iter::once(format!("Compared with {}:\n", reference.label)).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use load::Slice;

    use super::*;
    use verdict::statistics::MARGIN;

    /// Epochs of two servers with 100 requests per slice. `cpu_ns`: CPU time per request; that of
    /// the second alternates by 20 up and down.
    fn epochs(cpu_ns: [u64; 2]) -> Vec<Epoch> {
        let slice = |cpu_ns: u64, wobble: u64| {
            let server_cpu_ns = Some(100 * (cpu_ns + wobble));
            let (elapsed_ns, client_cpu_ns) = (5_000_000, 1_000_000);
            Some(Slice {
                requests: 100,
                elapsed_ns,
                client_cpu_ns,
                server_cpu_ns,
                ..Slice::default()
            })
        };
        let block = |turn: u64| {
            let second = cpu_ns[1] - 20 + 40 * (turn % 2);
            move |at: u64| vec![slice(cpu_ns[0], at % 7), slice(second, at * 3 % 5)]
        };
        let epoch = |turn| Epoch {
            blocks: (0..20).map(block(turn)).collect(),
            discarded: 0,
            ended: vec![None, None],
            ..Epoch::default()
        };
        (0..4).map(epoch).collect()
    }

    fn told(cpu_ns: [u64; 2]) -> (Vec<Standing>, String) {
        let labels = ["127.0.0.1:50001/".to_owned(), "two".to_owned()];
        let standings = standings(&labels, &epochs(cpu_ns), MARGIN);
        let answer = answer(&standings.iter().collect::<Vec<_>>());
        (standings, answer)
    }

    #[test]
    fn a_dearer_server_is_more_and_said_to_be() {
        let (standings, answer) = told([10_000, 12_000]);
        assert!(standings[1].cpu.as_ref().unwrap().is(Finding::More));
        let (first, second) = answer.split_once('\n').unwrap();
        assert_eq!(first, "Compared with 127.0.0.1:50001/:");
        assert!(second.starts_with("two: 20 % more CPU per request ("), "{answer}");
        let table = table(&standings);
        assert!(table.contains("1.200 more"), "{table}");
        assert!(
            table.contains(" two ") && table.lines().all(|l| l.chars().count() <= 80),
            "{table}"
        );
    }

    #[test]
    fn equal_servers_are_equal() {
        let (standings, answer) = told([10_000, 10_005]);
        assert!(standings[1].cpu.as_ref().unwrap().is(Finding::Equal));
        assert!(answer.contains("as much CPU per request (within 0."), "{answer}");
    }

    #[test]
    fn without_its_processes_only_requests_are_compared() {
        let mut epochs = epochs([10_000, 10_000]);
        let blocks = epochs.iter_mut().flat_map(|epoch| &mut epoch.blocks);
        blocks.flatten().flatten().for_each(|slice| slice.server_cpu_ns = None);
        let standings = standings(&["a".to_owned(), "b".to_owned()], &epochs, MARGIN);
        assert!(standings[1].cpu.is_none() && standings[1].rate.is_some());
        assert!(!table(&standings).contains("server us"));
    }

    #[test]
    fn a_server_that_ended_is_said_to_have() {
        let mut epochs = epochs([10_000, 10_000]);
        epochs[1].ended[1] = Some("it is gone".to_owned());
        let standings = standings(&["a".to_owned(), "b".to_owned()], &epochs, MARGIN);
        assert_eq!(
            answer(&standings.iter().collect::<Vec<_>>()),
            "Compared with a:\nb ended: it is gone\n"
        );
    }
}
