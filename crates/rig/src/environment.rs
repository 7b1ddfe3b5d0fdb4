//! Reads the description of the machine. A part that cannot be read stays empty in the result file
//! and does not fail the run.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use procfs::{Current, CurrentSI, FromRead};
use record::{Environment, Pressure};

use super::server::run_briefly;
use super::{calibrate, cgroup, counting};

/// Settings that affect measurements over loopback (tcp(7), socket(7), ip(7)).
const SYSCTLS: [&str; 10] = [
    "net.core.somaxconn",
    "net.core.rmem_default",
    "net.core.wmem_default",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_autocorking",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_max_syn_backlog",
    "kernel.io_uring_disabled",
];

/// Raises the soft limit of descriptors to the hard limit, for this process and its servers.
/// Returns the limit in force. 10,000 idle connections need more than the usual 1,024.
pub fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// The cores that this process may run on.
pub fn cores() -> Vec<u32> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&core| set.is_set(core) == Ok(true)).map(|c| c as u32).collect()
}

/// A core to pin the server to, and one for the client; both empty if there are not two.
pub fn server_and_client_cores() -> (Vec<u32>, Vec<u32>) {
    match cores()[..] {
        [server, client, ..] => (vec![server], vec![client]),
        _ => (Vec::new(), Vec::new()),
    }
}

/// The calibration runs on these cores.
pub fn read(server_core: Option<u32>, client_core: Option<u32>) -> Environment {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((0, 0));
    Environment {
        iolab_version: env!("CARGO_PKG_VERSION").into(),
        commit: commit(),
        started_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        host: host(),
        kernel: kernel(),
        cpu_model: procfs::CpuInfo::current()
            .ok()
            .and_then(|info| info.model_name(0).map(str::to_owned))
            .unwrap_or_default(),
        cores: cores().len() as u32,
        memory_kib: procfs::Meminfo::current().map_or(0, |memory| memory.mem_total / 1024),
        virtualisation: virtualisation(),
        mitigations: mitigations(),
        descriptors_soft: soft,
        descriptors_hard: hard,
        congestion_control: sysctl("net.ipv4.tcp_congestion_control").unwrap_or_default(),
        sysctls: SYSCTLS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), sysctl(name)?)))
            .collect(),
        load_average_1min: procfs::LoadAverage::current().ok().map(|load| f64::from(load.one)),
        pressure_cpu: pressure(),
        steal_since_boot_s: procfs::KernelStats::current()
            .ok()
            .and_then(|stats| stats.total.steal_duration())
            .map(|steal| steal.as_secs_f64()),
        counting_unavailable: counting::unavailable().map(|reason| reason.to_string()),
        kernel_memory_unavailable: cgroup::unavailable().map(|reason| reason.to_string()),
        calibration: calibrate::calibrate(server_core, client_core),
    }
}

/// Today's date in UTC: `2026-01-02`.
pub fn today() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()[..10].to_owned()
}

/// The host name, with characters that do not fit a folder's name replaced.
pub fn host() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let fit = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    let name: String = name.chars().map(fit).collect();
    if name.is_empty() { "unnamed".into() } else { name }
}

/// The value of a sysctl, with blanks in place of tabs.
pub fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn kernel() -> String {
    nix::sys::utsname::uname()
        .map(|name| {
            let (release, version) = (name.release(), name.version());
            format!("{} {}", release.to_string_lossy(), version.to_string_lossy())
        })
        .unwrap_or_default()
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(arguments);
        let said = run_briefly(command, Duration::from_secs(5)).ok()?;
        (said.code == Some(0)).then(|| said.stdout.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "-dirty" })
}

fn virtualisation() -> Option<String> {
    let product = fs::read_to_string("/sys/class/dmi/id/product_name").unwrap_or_default();
    let hypervisor = fs::read_to_string("/proc/cpuinfo")
        .unwrap_or_default()
        .lines()
        .any(|line| line.starts_with("flags") && line.split(' ').any(|flag| flag == "hypervisor"));
    match (hypervisor, product.trim()) {
        (false, _) => None,
        (true, "") => Some("virtual machine (CPU flag hypervisor)".into()),
        (true, product) => Some(format!("virtual machine ({product})")),
    }
}

fn mitigations() -> BTreeMap<String, String> {
    let entries = fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
    let read = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path()).ok()?.trim().to_owned();
        Some((entry.file_name().to_string_lossy().into_owned(), text))
    };
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(read)
        .filter(|(_, text)| text != "Not affected")
        .collect()
}

fn pressure() -> Option<Pressure> {
    let cpu = procfs::CpuPressure::from_file("/proc/pressure/cpu").ok()?;
    Some(Pressure {
        avg10_percent: f64::from(cpu.some.avg10),
        avg60_percent: f64::from(cpu.some.avg60),
    })
}
