//! `iolab bench --against GITREF`: compares the CPU per request with that of another commit.
//!
//! The servers of that commit are built in a worktree under target/. In slices, in alternation,
//! three processes are loaded: old, a second old one as control, and new. Each epoch has new
//! processes.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use record::{Preset, Workload};
use rig::discover::{self, Found, directories};
use rig::environment;
use scenario::workload;

use crate::slices::standing;
use render::failure::{Failure, because};
use render::text;
use verdict::statistics::Finding;

use super::contest::{self, Rules};
use super::{Arguments, EXIT_INTERRUPTED, handle_interrupts, interrupted};
use super::{own, plan, temporary_place};

/// Workloads without `--workloads`: the common case, and HTTP/2.
const WORKLOADS: [&str; 2] = ["http-keepalive", "h2-streams"];

/// Number of epochs for each server and workload, and the time of one. The placement of code and
/// data in memory differs between processes and changes a figure by a percent or two. So many short
/// epochs are more precise than a few long ones.
const EPOCHS: usize = 18;
const EPOCH: Duration = Duration::from_millis(250);

const SEED: u64 = 1;

/// Length of the part of the commit's hash that names the folder.
const COMMIT_DIGITS: usize = 12;

pub fn margin(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let margin = number.trim().parse::<f64>().map(|number| number / unit);
    let fits = |margin: &f64| (0.001..=1.0).contains(margin);
    margin.ok().filter(fits).ok_or_else(|| "give a share from 0.1% to 100%, such as 2%".into())
}

struct Compared {
    label: String,
    workload: String,
    standings: Vec<standing::Standing>,
}

/// Builds, compares and prints. The exit code is 1 if any server now uses more CPU.
pub fn run(commit: &str, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let names = match (&arguments.workloads[..], &arguments.scenario[..]) {
        ([], []) => WORKLOADS.map(str::to_owned).to_vec(),
        (names, _) => names.to_vec(),
    };
    let workloads = plan::workloads(Preset::Default, own::workloads(&arguments.scenario)?, &names)?;
    if let Some(open) = workloads.iter().find(|workload| workload.rate_per_s.is_some()) {
        return Err(Failure(format!(
            "--against: {} has a fixed rate, but only closed loops can be compared in slices: \
             name other --workloads",
            open.name
        )));
    }
    let descriptors = environment::raise_descriptor_limit();
    let found = new_servers(arguments)?;
    handle_interrupts()?;
    let old = built(commit, &found)?;
    let place = temporary_place(&workloads)?;
    let root = place.path().join(workload::DOCUMENTS);
    let awake = arguments.awake.hold()?;
    if awake.is_none() {
        eprintln!("iolab: note: the processors may sleep while the servers are compared");
    }
    let (mut compared, mut failed) = (Vec::new(), false);
    for new in &found {
        let Some(old) = old_of(&old, new) else {
            eprintln!("SKIP {}: {commit} has no such server", new.model.label);
            continue;
        };
        for workload in &workloads {
            let skips = plan::skips(
                std::slice::from_ref(&new.model),
                std::slice::from_ref(workload),
                descriptors,
            );
            if interrupted() {
                break;
            }
            let name = format!("{} {}", new.model.label, workload.name);
            if let Some(skip) = skips.first() {
                eprintln!("SKIP {name}: {}", skip.reason);
                continue;
            }
            eprintln!("{name}");
            match compare(&old, new, workload, &root, arguments.margin) {
                Ok(one) => compared.push(one),
                // The other servers are compared nevertheless.
                Err(why) => {
                    eprintln!("iolab: {why}");
                    failed = true;
                }
            }
        }
    }
    if compared.is_empty() && !interrupted() {
        return Err(Failure("--against: nothing was compared, for the reasons above".to_owned()));
    }
    let dearer = tell(commit, &compared, arguments.margin)?;
    Ok(match (interrupted(), dearer || failed) {
        (true, _) => ExitCode::from(EXIT_INTERRUPTED),
        (_, true) => ExitCode::FAILURE,
        (_, false) => ExitCode::SUCCESS,
    })
}

/// The servers as they are now.
fn new_servers(arguments: &Arguments) -> Result<Vec<Found>, Failure> {
    let places = directories(arguments.servers.as_deref());
    let (found, unable) = discover::servers(&places, &arguments.models)?;
    unable.iter().for_each(|skip| eprintln!("SKIP {}: {}", skip.model, skip.reason));
    match found.iter().find_map(changed_since) {
        None => Ok(found),
        Some((server, source)) => Err(Failure(format!(
            "--against: {} was changed after {} was built, and would not be measured: build again \
             (make build)",
            source.display(),
            server.display()
        ))),
    }
}

/// A server that was built before one of its sources was changed, and that source. cargo writes
/// their list beside it (`serve-NAME.d`); without it nothing is known.
fn changed_since(server: &Found) -> Option<(&Path, PathBuf)> {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    let list = std::fs::read_to_string(server.executable.with_extension("d")).ok()?;
    let built = changed(&server.executable)?;
    let mut sources = list.split_once(": ")?.1.split_whitespace().map(PathBuf::from);
    let newer = sources.find(|source| changed(source).is_some_and(|time| time > built))?;
    Some((&server.executable, newer))
}

/// The directory of the servers of `commit`, after building them.
fn built(commit: &str, found: &[Found]) -> Result<PathBuf, Failure> {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).stderr(Stdio::null()).output();
        let output = output.map_err(because("--against: git cannot be run"))?;
        let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok::<_, Failure>(output.status.success().then_some(told))
    };
    let unknown = || {
        Failure(format!(
            "--against: {commit:?} is no commit of a repository here: run this in iolab's \
             repository, and name a commit, branch or tag"
        ))
    };
    let full = format!("{commit}^{{commit}}");
    let hash = git(&["rev-parse", "--verify", "--quiet", &full])?.ok_or_else(unknown)?;
    let top = git(&["rev-parse", "--show-toplevel"])?.ok_or_else(unknown)?;
    let against = Path::new(&top).join("target").join("against");
    let source = against.join(&hash[..COMMIT_DIGITS.min(hash.len())]);
    if !source.join("Cargo.toml").is_file() {
        let path = source.display().to_string();
        git(&["worktree", "prune"])?;
        git(&["worktree", "add", "--force", "--detach", &path, &hash])?.ok_or_else(|| {
            Failure(format!("--against: git cannot make a worktree of {commit} in {path}"))
        })?;
    }
    // The same for all commits, so that third-party crates are built once.
    let target = against.join("build");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&source).args(["build", "--release", "--locked", "--target-dir"]);
    cargo.arg(&target);
    for server in found {
        let package = format!("serve-{}", server.model.name);
        // A server of another workspace, or one that did not exist then, is not built.
        if source.join("crates").join(&package).is_dir() {
            cargo.args(["-p", &package]);
        }
    }
    eprintln!("building the servers of {commit} in {}", source.display());
    let status = cargo.status().map_err(because("--against: cargo cannot be run"))?;
    match status.success() {
        true => Ok(target.join("release")),
        false => Err(Failure(format!("--against: the servers of {commit} cannot be built"))),
    }
}

/// The old server with the same flavour.
fn old_of(directory: &Path, new: &Found) -> Option<Found> {
    let (found, _) =
        discover::servers(&[directory.to_owned()], std::slice::from_ref(&new.model.label)).ok()?;
    found.into_iter().next()
}

fn compare(
    old: &Found,
    new: &Found,
    workload: &Workload,
    root: &Path,
    margin: f64,
) -> Result<Compared, Failure> {
    let rules = Rules { epochs: EPOCHS, epoch: EPOCH, seed: SEED };
    let epochs = contest::run(&[old, old, new], workload, root, &rules).map_err(Failure)?;
    let labels = ["old", "old again", "new"].map(str::to_owned);
    let standings = standing::standings(&labels, &epochs, margin);
    Ok(Compared { label: new.model.label.clone(), workload: workload.name.clone(), standings })
}

/// Prints the comparison. Returns whether any server uses more CPU, beyond the margin.
fn tell(commit: &str, compared: &[Compared], margin: f64) -> Result<bool, Failure> {
    let found = |finding| move |one: &&Compared| one.ratio().is_some_and(|told| told.is(finding));
    let names = |list: &[&Compared]| {
        let names = list.iter().map(|one| format!("{} {}", one.label, one.workload));
        names.collect::<Vec<_>>().join(", ")
    };
    let of = |finding| compared.iter().filter(found(finding)).collect::<Vec<_>>();
    let beyond = |one: &&Compared| one.ratio().is_some_and(|told| told.ratio > 1.0 + margin);
    let (dearer, a_little): (Vec<_>, Vec<_>) = of(Finding::More).into_iter().partition(beyond);
    let percent = format!("{:.1} %", 100.0 * margin);
    let mut sentences = vec![match dearer.len() {
        0 => format!("No server was shown to use over {percent} more CPU than at {commit}."),
        _ => format!("Over {percent} more CPU than at {commit}: {}.", names(&dearer)),
    }];
    if !a_little.is_empty() {
        sentences.push(format!("More CPU, but within the margin: {}.", names(&a_little)));
    }
    let cheaper = of(Finding::Less);
    if !cheaper.is_empty() {
        sentences.push(format!("Less CPU: {}.", names(&cheaper)));
    }
    let equal = of(Finding::Equal).len();
    sentences.push(format!("Equal within {percent}: {equal} of {}.", compared.len()));
    let open: Vec<_> = compared
        .iter()
        .filter(|one| one.ratio().is_none_or(|told| told.is(Finding::Unknown)))
        .collect();
    if !open.is_empty() {
        sentences.push(format!("Undecided: {} (a further run may decide).", names(&open)));
    }
    let lines: String = compared.iter().map(Compared::line).collect();
    let head = format!(
        "{:<32} {:>9} {:>9} {:>9}  {:<16} {}\n",
        "CPU per request", "old us", "new us", "new : old", "99 %", "control"
    );
    text::print(&format!("{head}{lines}\n{}\n", text::wrap(&sentences.join(" "), 0)))?;
    Ok(!dearer.is_empty())
}

impl Compared {
    fn ratio(&self) -> Option<&standing::Told> {
        self.standings.last()?.cpu.as_ref()
    }

    fn line(&self) -> String {
        let name = format!("{} {}", self.label, self.workload);
        let us = |at: usize| {
            let figure = self.standings.get(at).and_then(|one| one.server_us);
            figure.map_or("-".to_owned(), text::figure)
        };
        let Some(told) = self.ratio() else { return format!("{name:<32} too few epochs\n") };
        let control = self.standings.get(1).and_then(|one| one.cpu.as_ref());
        format!(
            "{name:<32} {:>9} {:>9} {:>9.3}  {:<16} {}\n",
            us(0),
            us(2),
            told.ratio,
            format!("{:.3}-{:.3} {}", told.low, told.high, told.finding.word()),
            control.map_or("-".to_owned(), |control| format!("{:.3}", control.ratio)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_margin_is_a_share() {
        assert_eq!(margin("2%"), Ok(0.02));
        assert_eq!(margin("0.05"), Ok(0.05));
        for wrong in ["", "%", "-1%", "0", "200%", "two"] {
            assert!(margin(wrong).is_err(), "{wrong}");
        }
    }
}
