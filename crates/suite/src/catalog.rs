//! Finds the servers that were built, and what each says of itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use crate::server::run_bounded;

/// What to do when there is nothing, or something old, to test.
const REMEDY: &str = "run `cargo build --workspace` first (with --release for release tests)";

/// One server executable.
#[derive(Debug)]
pub struct Model {
    /// `NAME` of `serve-NAME`.
    pub name: String,
    /// Where it is.
    pub executable: PathBuf,
    /// The object that `--describe` prints.
    pub describe: Value,
}

/// A model with one choice of its own flags.
#[derive(Debug, Clone)]
pub struct Variant {
    /// The server.
    pub model: Arc<Model>,
    /// Its own flags for this variant.
    pub flags: Vec<String>,
    /// Model and choice in one word: `epoll`, `epoll-edge`.
    pub label: String,
}

impl Model {
    /// Why it cannot run on this machine, if so.
    pub fn unavailable(&self) -> Option<&str> {
        self.describe["unavailable"].as_str()
    }

    /// Most connections that it says it serves at once.
    pub fn connections_max(&self) -> usize {
        let max = self.describe["limits"]["connections_max"].as_u64();
        max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX))
    }

    /// What `--describe` says of one of its own flags.
    pub fn flavour(&self, flag: &str) -> Option<&Value> {
        self.describe["flavours"].as_array()?.iter().find(|flavour| flavour["flag"] == flag)
    }

    /// Whether it speaks a protocol, by its own word: `echo`, `http`, `h2`, `websocket` or `tls`.
    pub fn offers(&self, protocol: &str) -> bool {
        let protocols = self.describe["protocols"].as_array().into_iter().flatten();
        let has_tls = protocol == "tls" && self.describe["tls"] == true;
        has_tls || protocols.filter_map(Value::as_str).any(|name| name == protocol)
    }

    /// One connection at a time: everybody else waits for its end. This is the serial model's
    /// result, so the cases that need company assert the waiting instead.
    pub fn one_at_a_time(&self) -> bool {
        self.connections_max() == 1 || self.name == "serial"
    }

    /// Each client has a process to itself.
    pub fn has_processes(&self) -> bool {
        self.flavour("processes").is_some()
    }

    /// Its own flags for so many clients at once, where it has a fixed number of processes.
    pub fn flags_for(&self, clients: usize) -> Vec<String> {
        if self.has_processes() {
            vec!["--processes".to_owned(), clients.to_string()]
        } else {
            Vec::new()
        }
    }

    /// Its threads sleep in the calls of I/O itself: each serves one client at a time.
    pub fn blocks_in_io(&self) -> bool {
        let calls = self.describe["place"]["blocks_in"].as_array();
        calls.is_some_and(|calls| calls.iter().any(|call| call == "recv"))
    }

    /// The kernel copies what a client sent, without a call of a thread.
    pub fn kernel_copies(&self) -> bool {
        self.describe["place"]["copied_by"] == "the kernel"
    }

    /// Waits by never waiting, so it uses a whole core whatever happens.
    pub fn polls_busily(&self) -> bool {
        self.name == "busy"
    }

    /// `--workers N` gives N loops.
    pub fn has_loops(&self) -> bool {
        self.describe["workers"] == "loops"
    }

    /// The model with its defaults.
    pub fn plain(self: &Arc<Model>) -> Variant {
        Variant { model: Arc::clone(self), flags: vec![], label: self.name.clone() }
    }

    /// The model with its defaults, and once more for every other word that a flag of its own may
    /// be. Flags are varied one at a time.
    fn variants(self: Arc<Model>) -> Vec<Variant> {
        let mut variants = vec![self.plain()];
        for flavour in self.describe["flavours"].as_array().into_iter().flatten() {
            let flag = flavour["flag"].as_str().unwrap_or_default();
            let words = flavour["values"].as_array().into_iter().flatten();
            for word in words.filter_map(Value::as_str) {
                if flavour["default"] != word {
                    variants.push(Variant {
                        model: Arc::clone(&self),
                        flags: vec![format!("--{flag}"), word.to_owned()],
                        label: format!("{}-{word}", self.name),
                    });
                }
            }
        }
        variants
    }
}

/// All variants of all models beside the running test.
///
/// # Errors
/// A sentence: there is no server, one is older than its sources, or one does not describe itself.
pub fn catalog() -> Result<Vec<Variant>, String> {
    let test = std::env::current_exe().map_err(|error| format!("who am I: {error}"))?;
    // target/PROFILE/deps/TEST: the servers are in target/PROFILE.
    let built = test.ancestors().skip(1).find(|directory| !servers_in(directory).is_empty());
    let Some(built) = built else {
        return Err(format!("no serve-* executable was built; {REMEDY}"));
    };
    let mut variants = Vec::new();
    for executable in servers_in(built) {
        refuse_stale(&executable)?;
        let model = describe(executable).map_err(|what| format!("{what}; {REMEDY}"))?;
        // A server with another role is no model: it promises less (serve-floor parses nothing).
        if model.describe["role"].is_null() {
            variants.extend(Arc::new(model).variants());
        }
    }
    Ok(variants)
}

/// Executables are files called `serve-NAME`; what the build puts beside them has a suffix.
fn servers_in(directory: &Path) -> Vec<PathBuf> {
    let is_server = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix("serve-").is_some_and(|rest| !rest.contains('.')) && path.is_file()
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut servers: Vec<_> = entries.map(|entry| entry.path()).filter(is_server).collect();
    servers.sort();
    servers
}

/// `cargo test` does not build other crates' executables, so an old one could pass for the new.
/// The build lists each executable's sources in a file beside it (Makefile syntax).
fn refuse_stale(executable: &Path) -> Result<(), String> {
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
    let built_at = modified(executable).unwrap_or(SystemTime::UNIX_EPOCH);
    // No list: a server of another make, brought along, that no build here could refresh.
    let list = fs::read_to_string(executable.with_extension("d")).unwrap_or_default();
    let (_, sources) = list.split_once(": ").unwrap_or_default();
    for source in sources.split_whitespace() {
        if modified(Path::new(source)).is_ok_and(|at| at > built_at) {
            return Err(format!("{} is older than {source}; {REMEDY}", executable.display()));
        }
    }
    Ok(())
}

/// Asks a server what it is.
///
/// # Errors
/// A sentence: it cannot be started, does not end, or says no JSON with a name.
pub fn describe(executable: PathBuf) -> Result<Model, String> {
    let said = |what: &str| format!("{} --describe: {what}", executable.display());
    let output = run_bounded(Command::new(&executable).arg("--describe"))?;
    let describe: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
        let text = String::from_utf8_lossy(&output.stdout[..output.stdout.len().min(80)]);
        said(&format!("{text:?} on stdout is no JSON ({error})"))
    })?;
    let name = describe["name"].as_str().ok_or_else(|| said("it has no name"))?.to_owned();
    Ok(Model { name, executable, describe })
}
