//! `iolab doctor`: what can be measured on this machine, and how to enable the rest.

mod over_link;
mod ring;

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets};
use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;

use render::failure::{Failure, because};
use render::grid;
use render::text;
use rig::discover::{describe, directories, executables};
use rig::environment::{cores, sysctl};
use rig::slices::Awake;
use rig::{cgroup, counting};

/// Descriptors beside those of idle connections: 64 active connections, and a margin.
const DESCRIPTORS_SPARE: u64 = 200;

/// Idle connections of the largest workload.
const IDLE_WANTED: u64 = 10_000;

/// Idle connections that a process can have within 20,000 descriptors, the limit of many
/// containers.
const IDLE_MOST: u64 = 19_000;

/// Backlog that the servers ask for. The kernel silently reduces it to somaxconn.
const BACKLOG_WANTED: u64 = 4_096;

/// Ports of one client address: twice 12,000 idle connections and the active ones, because
/// connect(2) first tries the ports of one parity, and is slow when these are used up.
const PORTS_WANTED: u64 = 24_200;

/// Locked memory, in KiB: io_uring needs it before Linux 5.12, and for zero-copy.
const MEMLOCK_WANTED_KIB: u64 = 8 * 1024;

/// Signals in the queue: one for each idle connection of the largest workload, and as many again.
const SIGNALS_WANTED: u64 = 2 * IDLE_WANTED;

/// Arguments of `iolab doctor`.
#[derive(Args)]
pub struct Arguments {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Further directories with servers (executables named serve-NAME), separated by colons.
    #[arg(long, value_name = "DIRS")]
    servers: Option<String>,
    /// Try io_uring in this process and print the result; `iolab doctor` runs itself with this.
    #[arg(long, hide = true)]
    probe_io_uring: bool,
    /// Try to make a link in this process and print the result; likewise.
    #[arg(long, hide = true)]
    probe_link: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Availability {
    Ok,
    /// Works with a restriction.
    Limited,
    /// Does not work here.
    Missing,
}

#[derive(Debug, Clone, Serialize)]
pub struct Capability {
    pub name: &'static str,
    pub verdict: Availability,
    pub found: String,
    /// How to enable it; empty if there is nothing to do.
    pub remedy: String,
}

impl Capability {
    /// `trouble`: availability and remedy if it is not [`Availability::Ok`].
    fn new(name: &'static str, found: String, trouble: Option<(Availability, &str)>) -> Capability {
        let (verdict, remedy) = trouble.unwrap_or((Availability::Ok, ""));
        Capability { name, verdict, found, remedy: remedy.to_owned() }
    }
}

/// Runs the subcommand. The exit code is 0 even if a capability is missing.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.probe_io_uring {
        return text::print(&ring::probe_here());
    }
    if arguments.probe_link {
        return text::print(&over_link::probe_here());
    }
    let checks = vec![
        descriptors(),
        ring::check(),
        system_calls(),
        kernel_memory(),
        switches(),
        cores_and_pinning(),
        sleep(),
        congestion_control(),
        ports(),
        backlog(),
        locked_memory(),
        queued_signals(),
        over_link::check(),
        servers(arguments.servers.as_deref())?,
        connections(arguments.servers.as_deref())?,
    ];
    if arguments.json {
        let json = serde_json::to_string_pretty(&checks).map_err(because("cannot write JSON"))?;
        return text::print(&(json + "\n"));
    }
    text::print(&table(&checks))
}

fn table(checks: &[Capability]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for check in checks {
        let verdict = match check.verdict {
            Availability::Ok => "OK",
            Availability::Limited => "LIMITED",
            Availability::Missing => "MISSING",
        };
        let advice = if check.remedy.is_empty() { "" } else { "\n-> " };
        let text = format!("{}{advice}{}", check.found, check.remedy);
        table.add_row([verdict, check.name, &text]);
    }
    grid::fit(&mut table, text::columns());
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Whether processors can be kept out of idle states.
fn sleep() -> Capability {
    let held = Awake::hold();
    let found = match &held {
        Ok(_) => "/dev/cpu_dma_latency can be held at 0: no processor halts during a measurement"
            .to_owned(),
        Err(why) => why.clone(),
    };
    let trouble = held.is_err().then_some((
        Availability::Limited,
        "with few connections a latency is mostly the time that a halted processor takes to wake; \
         run as root, or compare only runs with --awake off",
    ));
    Capability::new("sleep", found, trouble)
}

fn descriptors() -> Capability {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((0, 0));
    let fits = |limit: u64, idle: u64| limit >= idle + DESCRIPTORS_SPARE;
    let trouble = match (fits(soft, IDLE_WANTED), fits(hard, IDLE_WANTED)) {
        (true, _) => None,
        // bench raises the soft limit itself.
        (false, true) => Some((
            Availability::Limited,
            "iolab bench raises the soft limit; elsewhere use ulimit -n",
        )),
        (false, false) => Some((
            Availability::Limited,
            "idle-10000 is skipped: raise the hard limit (nofile in /etc/security/limits.conf, or \
             docker run --ulimit nofile=20000)",
        )),
    };
    let word = |idle| if fits(hard, idle) { "possible" } else { "not possible" };
    let found = format!(
        "{soft} (soft), {hard} (hard): 10,000 idle connections {}, 19,000 {}",
        word(IDLE_WANTED),
        word(IDLE_MOST)
    );
    Capability::new("descriptors", found, trouble)
}

fn system_calls() -> Capability {
    let level = sysctl("kernel.perf_event_paranoid").unwrap_or_else(|| "unknown".into());
    let unavailable = counting::unavailable();
    let found = match &unavailable {
        None => format!("counted by tracepoints; perf_event_paranoid {level}"),
        Some(reason) => format!("not counted: {}; perf_event_paranoid {level}", reason.why),
    };
    let trouble =
        unavailable.as_ref().map(|reason| (Availability::Missing, reason.remedy.as_str()));
    Capability::new("system calls", found, trouble)
}

fn kernel_memory() -> Capability {
    let unavailable = cgroup::unavailable();
    let found = match &unavailable {
        None => format!("read from memory cgroups: {}", cgroup::described().unwrap_or_default()),
        Some(reason) => format!("not measured: {}", reason.why),
    };
    let trouble =
        unavailable.as_ref().map(|reason| (Availability::Missing, reason.remedy.as_str()));
    Capability::new("kernel memory", found, trouble)
}

/// Whether the kernel counts context switches and run-queue delay.
fn switches() -> Capability {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/{file}"));
    let switches = read("status").is_ok_and(|text| text.contains("\nvoluntary_ctxt_switches:"));
    // Three zeros: the kernel has the file but does not count.
    let delay = read("schedstat").is_ok_and(|text| text.split_whitespace().any(|n| n != "0"));
    let word = |there| if there { "counted" } else { "not counted" };
    let found = format!("wake-ups {}, run-queue delay {}", word(switches), word(delay));
    let trouble = match (switches, delay) {
        (true, true) => None,
        (false, _) => Some((Availability::Missing, "use a Linux kernel (2.6.23 or later)")),
        (true, false) => {
            Some((Availability::Limited, "use a kernel with CONFIG_SCHED_INFO (CONFIG_SCHEDSTATS)"))
        }
    };
    Capability::new("context switches", found, trouble)
}

fn cores_and_pinning() -> Capability {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let me = nix::unistd::Pid::from_raw(0);
    let cores = cores();
    // Setting the present affinity again changes nothing, and fails if it is not permitted.
    let pins = sched_getaffinity(me).and_then(|set: CpuSet| sched_setaffinity(me, &set)).is_ok();
    let found =
        format!("{} usable, pinning {}", cores.len(), if pins { "works" } else { "is refused" });
    let trouble = match (cores.len() >= 2, pins) {
        (true, true) => None,
        (false, _) => Some((
            Availability::Limited,
            "server and client share a core: use CPU per request, not requests per second",
        )),
        (true, false) => Some((Availability::Limited, "allow sched_setaffinity in the container")),
    };
    Capability::new("cores", found, trouble)
}

fn congestion_control() -> Capability {
    let current = sysctl("net.ipv4.tcp_congestion_control").unwrap_or_default();
    let allowed = sysctl("net.ipv4.tcp_allowed_congestion_control").unwrap_or_default();
    let paced = current == "bbr";
    let reno = allowed.split(' ').any(|name| name == "reno");
    let trouble = match (paced, reno) {
        (false, _) => None,
        (true, true) => Some((
            Availability::Limited,
            "bbr limits the rate over loopback; iolab and its servers choose reno for their \
             sockets, other servers may not: run in a network namespace, unshare -n sh -c 'ip \
             link set lo up; sysctl -w net.ipv4.tcp_congestion_control=reno; iolab bench'",
        )),
        (true, false) => Some((
            Availability::Limited,
            "bbr limits the rate over loopback: sysctl -w net.ipv4.tcp_congestion_control=cubic",
        )),
    };
    Capability::new("congestion control", format!("{current}; allowed: {allowed}"), trouble)
}

fn ports() -> Capability {
    let range = sysctl("net.ipv4.ip_local_port_range").unwrap_or_default();
    let reuse = sysctl("net.ipv4.tcp_tw_reuse").unwrap_or_default();
    let bounds: Vec<u64> = range.split(' ').filter_map(|bound| bound.parse().ok()).collect();
    let count = if let [low, high] = bounds[..] { (high + 1).saturating_sub(low) } else { 0 };
    let trouble = match (count < PORTS_WANTED, reuse == "0") {
        (true, _) => {
            Some((Availability::Limited, "sysctl -w net.ipv4.ip_local_port_range='32768 60999'"))
        }
        // 2 is the default: it reuses ports in TIME_WAIT on loopback only.
        (false, true) => Some((
            Availability::Limited,
            "a connection for each request uses up the ports: sysctl -w net.ipv4.tcp_tw_reuse=2",
        )),
        (false, false) => None,
    };
    let found = format!("{range} ({count} ports), tcp_tw_reuse {reuse}");
    Capability::new("client ports", found, trouble)
}

fn backlog() -> Capability {
    let somaxconn = sysctl("net.core.somaxconn").unwrap_or_default();
    let enough = somaxconn.parse::<u64>().is_ok_and(|most| most >= BACKLOG_WANTED);
    let remedy = "in a burst of connections some wait 1 s until their SYN is repeated: sysctl -w \
                  net.core.somaxconn=4096";
    Capability::new(
        "backlog (somaxconn)",
        somaxconn,
        (!enough).then_some((Availability::Limited, remedy)),
    )
}

fn locked_memory() -> Capability {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap_or((0, 0));
    let kib = soft / 1024;
    let found = if soft == u64::MAX { "unlimited".into() } else { format!("{kib} KiB") };
    let remedy = "io_uring may fail with ENOMEM: ulimit -l 8192";
    let trouble = (kib < MEMLOCK_WANTED_KIB).then_some((Availability::Limited, remedy));
    Capability::new("locked memory", found, trouble)
}

/// The limit counts the queues of all processes of a user (getrlimit(2)).
fn queued_signals() -> Capability {
    let (soft, _) = getrlimit(Resource::RLIMIT_SIGPENDING).unwrap_or((0, 0));
    let found = if soft == u64::MAX { "unlimited".into() } else { soft.to_string() };
    let remedy = "serve-sigio will lose signals and look at all descriptors: ulimit -i 20000";
    let trouble = (soft < SIGNALS_WANTED).then_some((Availability::Limited, remedy));
    Capability::new("queued signals", found, trouble)
}

fn servers(list: Option<&str>) -> Result<Capability, Failure> {
    let places = directories(list);
    let found = executables(&places)?;
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let shown: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    let none =
        (Availability::Missing, "build them (cargo build --release), or name their directory");
    let text = match names.is_empty() {
        true => format!("none in {}", shown.join(", ")),
        false => names.join(", "),
    };
    Ok(Capability::new("servers", text, names.is_empty().then_some(none)))
}

/// The maximum number of connections of each server, and its reason, from `--describe`.
fn connections(list: Option<&str>) -> Result<Capability, Failure> {
    let said = executables(&directories(list))?.into_iter().filter_map(|(name, path)| {
        let model = match describe(&path) {
            Ok(found) if !found.is_model => return None,
            Ok(found) => found.model,
            Err(why) => return Some(format!("{name}: {why}")),
        };
        let most = model.connections_max.map_or("unknown".to_owned(), |most| most.to_string());
        Some(format!("{name} {most}: {}", model.connections_max_reason.unwrap_or_default()))
    });
    Ok(Capability::new("connections at once", said.collect::<Vec<_>>().join("\n"), None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use render::text::COLUMNS_MAX;

    #[test]
    fn the_table_is_narrow_and_shows_remedies() {
        let long = "some words of a long sentence ".repeat(10);
        let checks = [
            Capability::new("first", "fine".into(), None),
            Capability::new("second", long, Some((Availability::Missing, "do this"))),
        ];
        let table = table(&checks);
        assert!(table.lines().all(|line| line.chars().count() <= COLUMNS_MAX), "{table}");
        assert!(table.contains("OK") && table.contains("MISSING") && table.contains("-> do this"));
    }

    #[test]
    fn every_check_of_this_machine_has_facts_and_a_remedy_where_needed() {
        let checks = [
            descriptors(),
            system_calls(),
            kernel_memory(),
            switches(),
            cores_and_pinning(),
            congestion_control(),
            ports(),
            backlog(),
            locked_memory(),
        ];
        for check in checks {
            assert!(!check.found.is_empty(), "{check:?}");
            assert_eq!(check.remedy.is_empty(), check.verdict == Availability::Ok, "{check:?}");
        }
    }
}
