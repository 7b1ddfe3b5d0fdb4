//! System calls per request by name, as bars. The colour shows the purpose of a call.

use crate::report::table::found;
use crate::text::figure;
use verdict::summary::{CallsPerRequest, Cell, WorkloadSummary};

use super::Plot;
use super::bars::{Bar, Chart, Part};
use super::colour::CALL_FAMILIES;
use super::data;
use super::page::Head;

/// Index of ring operations among the families.
const RING: usize = 5;
/// Index of the family of all other calls.
const REST: usize = 4;

/// Calls that wait (and, for io_uring, submit).
const WAITING: &[&str] = &[
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "io_uring_enter",
    "poll",
    "ppoll",
    "pselect6",
    "rt_sigtimedwait",
    "select",
];
/// Calls that receive bytes.
const INPUT: &[&str] = &["pread64", "preadv", "read", "readv", "recvfrom", "recvmmsg", "recvmsg"];
/// Calls that send bytes.
const OUTPUT: &[&str] =
    &["pwrite64", "sendfile", "sendmmsg", "sendmsg", "sendto", "splice", "write", "writev"];
/// Calls that open, watch and close connections.
const CONNECTIONS: &[&str] = &[
    "accept",
    "accept4",
    "close",
    "epoll_ctl",
    "fcntl",
    "getsockopt",
    "setsockopt",
    "shutdown",
    "socket",
];

fn family(call: &str) -> usize {
    let families = [WAITING, INPUT, OUTPUT, CONNECTIONS];
    families.iter().position(|family| family.contains(&call)).unwrap_or(REST)
}

/// The plot of one workload; `None` if its calls were not counted.
pub fn plot(workload: &WorkloadSummary) -> Option<Plot> {
    let counted = |cell: &'_ Cell| {
        let calls = cell.state.as_ref().ok()?.calls.as_ref()?;
        Some((cell.model.clone(), calls.clone()))
    };
    let counted: Vec<(String, CallsPerRequest)> =
        data::cells(workload).filter_map(counted).collect();
    let totals = counted.iter().map(|(model, calls)| (model.clone(), calls.total));
    let bars: Vec<Bar> = counted.iter().flat_map(|(model, calls)| bars(model, calls)).collect();
    let name = &workload.workload.name;
    let key = CALL_FAMILIES
        .into_iter()
        .filter(|(_, ink)| bars.iter().any(|bar| bar.parts.iter().any(|part| part.ink == *ink)));
    let head = Head {
        name: format!("calls-{name}"),
        finding: found::range("a request takes", "system calls", totals),
        subject: format!("system calls per request, {name}"),
        key: key.map(|(name, ink)| (name, ink, 1.0)).collect(),
        ..Head::default()
    };
    let axis = "calls per request, counted in passes of their own".to_owned();
    Chart { head, axis, bars, floor: None }.plot()
}

/// A bar of a model's calls, in the order of the families, and one of its ring operations.
fn bars(model: &str, calls: &CallsPerRequest) -> Vec<Bar> {
    let parts = |counts: &[(String, f64)], family: &dyn Fn(&str) -> usize| {
        let mut parts: Vec<(usize, &String, f64)> =
            counts.iter().map(|(name, each)| (family(name), name, *each)).collect();
        parts.sort_by(|a, b| a.0.cmp(&b.0).then(b.2.total_cmp(&a.2)));
        let part = |(family, name, value): (usize, &String, f64)| part(family, name, value);
        parts.into_iter().map(part).collect::<Vec<_>>()
    };
    let bar = |name: String, parts: Vec<Part>, total: f64| {
        let label = figure(total);
        (!parts.is_empty()).then_some(Bar { name, parts, intervals: Vec::new(), label })
    };
    let mut system = parts(&calls.by_name, &family);
    let others = calls.total - system.iter().map(|part| part.value).sum::<f64>();
    if others > 0.0 {
        system.push(part(REST, "others", others));
    }
    let ring = parts(&calls.ring_by_name, &|_| RING);
    let ring = bar(format!("in {model}'s ring"), ring, calls.ring_operations);
    bar(model.to_owned(), system, calls.total).into_iter().chain(ring).collect()
}

fn part(family: usize, name: &str, value: f64) -> Part {
    Part { name: name.to_owned(), value, ink: CALL_FAMILIES[family].1, opacity: Some(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verdict::summary::summarise;

    #[test]
    fn calls_without_a_name_are_not_lost() {
        let by_name = [("write", 1.0), ("epoll_wait", 0.25)].map(|(n, each)| (n.to_owned(), each));
        let calls = CallsPerRequest {
            total: 2.0,
            by_name: by_name.into(),
            ring_operations: 0.0,
            ring_by_name: Vec::new(),
        };
        let bars = bars("epoll", &calls);
        let parts: Vec<_> = bars[0].parts.iter().map(|p| (p.name.as_str(), p.value)).collect();
        // In the order of the families, not of the alphabet.
        assert_eq!(parts, [("epoll_wait", 0.25), ("write", 1.0), ("others", 0.75)]);
    }

    #[test]
    fn ring_operations_stand_beside_the_calls() {
        let results = fixture::rich();
        let plot = plot(&summarise(&results).workloads[0]).unwrap();
        assert_eq!(plot.name, "calls-http-keepalive");
        for words in ["epoll_wait", "io_uring_enter", "in uring's ring: 2.00", "ring operations"] {
            assert!(plot.svg.contains(words), "{words}");
        }
    }
}
