//! Where laws are measured: finds and starts the servers.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use link::{Link, Profile};
use record::{Preset, Settings, Workload};
use rig::discover::{self, Found};
use rig::environment;
use rig::server::Server;
use scenario::workload;
use tempfile::TempDir;

use crate::Reason;
use crate::crowd::Crowd;

/// How long is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Epochs, each with fresh processes. An interval needs three.
    pub epochs: usize,
    /// The part of the usual times for which a server is loaded or watched.
    pub part: f64,
}

impl Pace {
    /// All laws in six minutes on two cores.
    pub const USUAL: Pace = Pace { epochs: 7, part: 1.0 };
}

/// Where laws are measured.
pub struct Lab {
    places: Vec<PathBuf>,
    instead: BTreeMap<String, (PathBuf, Vec<String>)>,
    known: RefCell<BTreeMap<String, Rc<Found>>>,
    crowd: OnceCell<Result<Crowd, Reason>>,
    folder: TempDir,
    settings: Settings,
    pace: Pace,
    interrupted: fn() -> bool,
}

impl Lab {
    /// Searches `places` for servers; see [`discover::directories`]. `interrupted`: whether the
    /// user wants the end.
    ///
    /// # Errors
    /// If there is no temporary folder.
    pub fn new(
        places: Vec<PathBuf>,
        pace: Pace,
        seed: u64,
        interrupted: fn() -> bool,
    ) -> Result<Lab, Reason> {
        environment::raise_descriptor_limit();
        let (server_cores, client_cores) = environment::server_and_client_cores();
        let settings = Settings {
            preset: Preset::Default,
            seed,
            rounds: 0,
            warm_up_s: 0.05 * pace.part,
            window_s: 0.2 * pace.part,
            idle_sample_s: 0.0,
            idle_sample_rounds: 0,
            counting_rounds: 0,
            budget_s: None,
            awake: false,
            server_cores,
            client_cores,
        };
        let (instead, known, crowd) = (BTreeMap::new(), RefCell::default(), OnceCell::new());
        let folder = tempfile::tempdir()?;
        Ok(Lab { places, instead, known, crowd, folder, settings, pace, interrupted })
    }

    /// Puts this executable, with these flags, in the place of a model. The flags that a law gives
    /// to the model are then left out: another server may not know them.
    #[must_use]
    pub fn with_model(mut self, model: &str, executable: &Path, flags: &[&str]) -> Lab {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.instead.insert(model.to_owned(), (executable.to_owned(), flags));
        self
    }

    /// A temporary folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The usual time, at this pace.
    pub fn time(&self, usual: Duration) -> Duration {
        usual.mul_f64(self.pace.part)
    }

    /// Epochs, each with fresh processes.
    pub fn epochs(&self) -> usize {
        self.pace.epochs
    }

    /// The seed of everything random.
    pub fn seed(&self) -> u64 {
        self.settings.seed
    }

    /// How a run is set up.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The measurement of a crowd, made once: several laws read it.
    pub(crate) fn crowd(
        &self,
        measure: impl FnOnce() -> Result<Crowd, Reason>,
    ) -> Result<&Crowd, Reason> {
        self.crowd.get_or_init(measure).as_ref().map_err(Clone::clone)
    }

    /// Ends a measurement between two of its steps after Ctrl-C.
    ///
    /// # Errors
    /// [`Reason::Interrupted`].
    pub fn go_on(&self) -> Result<(), Reason> {
        if (self.interrupted)() { Err(Reason::Interrupted) } else { Ok(()) }
    }

    /// Whether the user wants the end.
    pub fn interrupted(&self) -> fn() -> bool {
        self.interrupted
    }

    /// A server by its label (`pool+threads=4`), or what was put in its place.
    ///
    /// # Errors
    /// A model that is not built or cannot run here is a reason to skip.
    pub fn found(&self, label: &str) -> Result<Rc<Found>, Reason> {
        if let Some(found) = self.known.borrow().get(label) {
            return Ok(Rc::clone(found));
        }
        let name = label.split('+').next().unwrap_or_default();
        let found = match self.instead.get(name) {
            Some((executable, flags)) => {
                let mut found = discover::describe(executable).map_err(Reason::Fault)?;
                found.model.arguments.clone_from(flags);
                found
            }
            None => {
                let servers = discover::servers(&self.places, &[label.to_owned()]);
                let (mut found, _) = servers.map_err(|why| {
                    Reason::Skip(format!(
                        "{} (cargo build --release builds the servers)",
                        why.trim_start_matches("--models: ")
                    ))
                })?;
                found.pop().ok_or_else(|| Reason::Fault(format!("no server {label}")))?
            }
        };
        let found = Rc::new(found);
        self.known.borrow_mut().insert(label.to_owned(), Rc::clone(&found));
        Ok(found)
    }

    /// Starts a server with HTTP, on the server's core, with these flags beside those of its
    /// label. One that ends at once is not here.
    ///
    /// # Errors
    /// See [`Lab::found`]; also if it does not start.
    pub fn start(&self, label: &str, flags: &[&str]) -> Result<Server, Reason> {
        let flags: Vec<_> = ["--listen", "127.0.0.1:0"].iter().chain(flags).copied().collect();
        let start = self.starting(label, &flags)?;
        start().map_err(|why| Reason::NotHere(format!("{label} {why}")))
    }

    /// As [`Lab::start`], but to be called on another thread; the flags have the address.
    ///
    /// # Errors
    /// See [`Lab::found`].
    pub fn starting(
        &self,
        label: &str,
        flags: &[&str],
    ) -> Result<impl FnOnce() -> Result<Server, String> + Send + use<>, Reason> {
        self.go_on()?;
        let found = self.found(label)?;
        let common = ["--protocol", "http", "--drain-timeout", "2s"];
        let all = common.iter().chain(flags).map(|flag| (*flag).to_owned());
        let all: Vec<String> = all.chain(found.model.arguments.iter().cloned()).collect();
        let (executable, cores) = (found.executable.clone(), self.settings.server_cores.clone());
        Ok(move || Server::start(&executable, &all, &cores))
    }

    /// A link between two network namespaces.
    ///
    /// # Errors
    /// Where links are refused the law is skipped.
    pub fn link(&self, profile: &str) -> Result<Link, Reason> {
        self.go_on()?;
        let profile: Profile =
            profile.parse().map_err(|why| Reason::Fault(format!("{profile}: {why}")))?;
        Link::up(&profile).map_err(|refused| Reason::Skip(refused.to_string()))
    }

    /// A workload that comes with iolab.
    ///
    /// # Errors
    /// A name that does not exist is a fault.
    pub fn workload(&self, name: &str) -> Result<Workload, Reason> {
        let all = workload::all().map_err(Reason::Fault)?;
        let found = all.into_iter().find(|workload| workload.name == name);
        found.ok_or_else(|| Reason::Fault(format!("there is no workload {name}")))
    }
}
