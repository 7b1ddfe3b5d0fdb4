//! `iolab bench --against GITREF`: what became dearer since another commit.
//!
//! The servers of that commit are built in a worktree under target/, and take turns in slices with
//! those beside this executable: old, old once more (the control), new. Every epoch has processes
//! started anew.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use record::{Preset, Workload};
use rig::discover::{self, Found, directories};
use rig::environment;
use scenario::workload;

use crate::failure::{Failure, because};
use crate::slices::standing;
use crate::statistics::Finding;
use crate::text;

use super::contest::{self, Rules};
use super::{Arguments, EXIT_INTERRUPTED, handle_interrupts, interrupted};
use super::{own, plan, temporary_place};

/// Workloads where no other are named: what most requests go through, and HTTP/2.
const WORKLOADS: [&str; 2] = ["http-keepalive", "h2-streams"];

/// Epochs for each server and workload, and the time of one. Where code and data lie in memory
/// differs from process to process by a percent or two, so that many short epochs tell more than a
/// few long ones.
const EPOCHS: usize = 18;
const EPOCH: Duration = Duration::from_millis(250);

/// Seed of the order in blocks.
const SEED: u64 = 1;

/// Digits of a commit that name its folder.
const COMMIT_DIGITS: usize = 12;

/// `2%` or `0.02`.
pub fn margin(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let margin = number.trim().parse::<f64>().map(|number| number / unit);
    let fits = |margin: &f64| (0.001..=1.0).contains(margin);
    margin.ok().filter(fits).ok_or_else(|| "write a share from 0.1% to 100%, such as 2%".into())
}

/// One comparison.
struct Compared {
    label: String,
    workload: String,
    standings: Vec<standing::Standing>,
}

/// Builds, compares, and prints. Exit code 1 if anything became dearer.
pub fn run(commit: &str, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let names = match (&arguments.workloads[..], &arguments.scenario[..]) {
        ([], []) => WORKLOADS.map(str::to_owned).to_vec(),
        (names, _) => names.to_vec(),
    };
    let workloads = plan::workloads(Preset::Default, own::workloads(&arguments.scenario)?, &names)?;
    if let Some(open) = workloads.iter().find(|workload| workload.rate_per_s.is_some()) {
        return Err(Failure(format!(
            "--against: {} has a fixed rate, and slices are of closed loops: name others with \
             --workloads",
            open.name
        )));
    }
    let descriptors = environment::raise_descriptor_limit();
    let places = directories(arguments.servers.as_deref());
    let (found, unable) = discover::servers(&places, &arguments.models)?;
    unable.iter().for_each(|skip| eprintln!("SKIP {}: {}", skip.model, skip.reason));
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
            eprintln!("SKIP {}: there was none at {commit}", new.model.label);
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
                // The others are compared all the same.
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

/// The directory with the servers of `commit`, built if they are not there yet.
fn built(commit: &str, found: &[Found]) -> Result<PathBuf, Failure> {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).stderr(Stdio::null()).output();
        let output = output.map_err(because("--against: git cannot be run"))?;
        let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok::<_, Failure>(output.status.success().then_some(told))
    };
    let unknown = || {
        Failure(format!(
            "--against: {commit:?} is no commit of a repository here: run this in iolab's own, and \
             name a commit, a branch or a tag"
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
    // One for all commits, so that the crates of others are built once.
    let target = against.join("build");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&source).args(["build", "--release", "--locked", "--target-dir"]);
    cargo.arg(&target);
    for server in found {
        let package = format!("serve-{}", server.model.name);
        // One that is not of this workspace, or was not yet, is the same on both sides, or new.
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

/// The same server, flavour and all, among the old ones.
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

/// What became dearer, and what could not be told. Whether anything did, beyond the margin.
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
        0 => format!("Nothing was shown to be dearer than at {commit} by more than {percent}."),
        _ => format!("Dearer than at {commit} by more than {percent}: {}.", names(&dearer)),
    }];
    if !a_little.is_empty() {
        sentences.push(format!("Dearer by less: {}.", names(&a_little)));
    }
    let cheaper = of(Finding::Less);
    if !cheaper.is_empty() {
        sentences.push(format!("Cheaper: {}.", names(&cheaper)));
    }
    let equal = of(Finding::Equal).len();
    sentences.push(format!("Equal within {percent}: {equal} of {}.", compared.len()));
    let open: Vec<_> = compared
        .iter()
        .filter(|one| one.ratio().is_none_or(|told| told.is(Finding::Unknown)))
        .collect();
    if !open.is_empty() {
        sentences.push(format!("Undecided: {}: run it again.", names(&open)));
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
    /// New to old.
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
