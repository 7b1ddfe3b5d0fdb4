//! The map: the best models, and those as good, for each number of active and of idle connections;
//! for latency, at each fixed rate.

use crate::text::thousands;
use verdict::summary::{Best, Figure, Summary, map};

/// The figure of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Least server CPU per request.
    Cpu,
    /// Most requests/s.
    Rate,
    /// Least memory.
    Memory,
    /// Least latency at fixed rates.
    Latency,
}

/// The points of one map.
pub struct Grid {
    /// The figure of the map.
    pub title: &'static str,
    /// Meaning of the columns.
    pub columns_name: &'static str,
    /// Heads of the columns.
    pub columns: Vec<String>,
    /// The head of each row, and the best models at each of its points.
    pub rows: Vec<(String, Vec<Option<Best>>)>,
}

impl By {
    /// From the word in a marker.
    pub fn named(word: &str) -> Option<By> {
        match word {
            "cpu" => Some(By::Cpu),
            "rate" => Some(By::Rate),
            "memory" => Some(By::Memory),
            "latency" => Some(By::Latency),
            _ => None,
        }
    }

    fn title(self) -> &'static str {
        match self {
            By::Cpu => "least server CPU per request",
            By::Rate => "most requests per second",
            By::Memory => "least memory of the server",
            By::Latency => "least latency (median) at a fixed rate",
        }
    }
}

/// The map by one figure; `None` if at no point two models could be compared.
pub fn grid(summary: &Summary, by: By) -> Option<Grid> {
    let grid = if by == By::Latency { of_rates(summary) } else { of_connections(summary, by) };
    grid.rows.iter().any(|(_, row)| row.iter().any(Option::is_some)).then_some(grid)
}

fn of_connections(summary: &Summary, by: By) -> Grid {
    let points = map(summary);
    let mut active: Vec<u32> = points.iter().map(|point| point.active).collect();
    let mut idle: Vec<u32> = points.iter().map(|point| point.idle).collect();
    for axis in [&mut active, &mut idle] {
        axis.sort_unstable();
        axis.dedup();
    }
    let at = |idle: u32, active: u32| {
        let point = points.iter().find(|point| (point.idle, point.active) == (idle, active))?;
        match by {
            By::Cpu => point.by_cpu.clone(),
            By::Rate => point.by_rate.clone(),
            _ => point.by_memory.clone(),
        }
    };
    let count = |count: u32| thousands(f64::from(count));
    let row = |idle: u32| {
        (format!("{} idle", count(idle)), active.iter().map(|of| at(idle, *of)).collect())
    };
    Grid {
        title: by.title(),
        columns_name: "active connections",
        columns: active.iter().map(|active| count(*active)).collect(),
        rows: idle.iter().map(|idle| row(*idle)).collect(),
    }
}

fn of_rates(summary: &Summary) -> Grid {
    let rate = |rate: u32| thousands(f64::from(rate));
    let (mut columns, mut row) = (Vec::new(), Vec::new());
    let mut open: Vec<_> = summary.workloads.iter().filter(|w| w.is_open()).collect();
    open.sort_by_key(|workload| workload.workload.rate_per_s);
    for workload in open {
        columns.extend(workload.workload.rate_per_s.map(rate));
        row.push(
            workload.pairs.get(&Figure::Latency).and_then(|pairs| pairs.best(Figure::Latency)),
        );
    }
    let rows = vec![("latency".to_owned(), row)];
    Grid { title: By::Latency.title(), columns_name: "requests due per second", columns, rows }
}

/// The map as a table in Markdown, with undecided models in italics.
pub fn markdown(summary: &Summary, by: By) -> Option<String> {
    let grid = grid(summary, by)?;
    let cell = |best: &Option<Best>| match best {
        None => "-".to_owned(),
        Some(best) if best.best.is_empty() => "*undecided*".to_owned(),
        Some(best) if best.undecided.is_empty() => best.best.join(", "),
        Some(best) => format!("{} *or {}*", best.best.join(", "), best.undecided.join(", ")),
    };
    let mut out = format!("| {} | {} |\n", grid.columns_name, grid.columns.join(" | "));
    out += &format!("|---{}|\n", "|---".repeat(grid.columns.len()));
    for (head, row) in &grid.rows {
        let row: Vec<String> = row.iter().map(cell).collect();
        out += &format!("| {head} | {} |\n", row.join(" | "));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use verdict::summary::summarise;

    #[test]
    fn a_table_has_idle_connections_down_and_active_ones_across() {
        let summary = summarise(&fixture::map());
        let text = markdown(&summary, By::Cpu).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| active connections | 1 | 8 | 64 | 512 |");
        assert_eq!(lines[2], "| 0 idle | threads | epoll, uring | epoll, uring | epoll, uring |");
        assert!(lines[4].starts_with("| 10,000 idle | epoll, uring | "), "{text}");
        let text = markdown(&summary, By::Memory).unwrap();
        assert!(text.contains("| epoll, poll *or uring* |"), "{text}");
    }

    #[test]
    fn latency_has_one_row_over_the_rates_and_nothing_measured_is_no_map() {
        let summary = summarise(&fixture::rich());
        let text = markdown(&summary, By::Latency).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| requests due per second | 10,000 | 20,000 | 40,000 |");
        assert!(lines[2].starts_with("| latency | epoll, threads, poll | "), "{text}");
        assert!(markdown(&summary, By::Memory).is_none());
        assert!(markdown(&summarise(&fixture::no_trials()), By::Cpu).is_none());
    }
}
