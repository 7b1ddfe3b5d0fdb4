//! Finds servers as git finds subcommands: by executables named `serve-NAME`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use record::{Model, Protocol, Skip};
use serde::Deserialize;
use serde_json::Value;

use super::executable::{self, Watched};
use super::server::{run_briefly, tail};

const PREFIX: &str = "serve-";

/// Time limit of `--describe`, which does no work. It allows for a slow disk.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The order in which models are shown. Others follow by name.
const READING_ORDER: [&str; 11] = [
    "serial", "prefork", "threads", "pool", "busy", "select", "poll", "epoll", "sigio", "tokio",
    "uring",
];

/// The role of the floor: a server that sends canned replies without parsing requests. Its cost is
/// that of the sockets alone.
const FLOOR: &str = "floor";

/// Flavours that also take part when no models are named, each with the protocol in which it
/// differs from its model. A second thread per connection matters if both directions carry data
/// independently.
pub const BESIDE: [(&str, Protocol); 1] = [("threads+duplex=on", Protocol::WebSocket)];

/// A server's answer to `--describe`. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
struct Description {
    name: String,
    #[serde(default)]
    description: String,
    protocols: Vec<Value>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    flavours: Vec<Flavour>,
    #[serde(default)]
    unavailable: Option<String>,
    #[serde(default)]
    build: Option<String>,
    /// The purpose of a server that is no model.
    #[serde(default)]
    role: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Limits {
    connections_max: Option<u64>,
    connections_max_reason: Option<String>,
}

/// A flag that selects a variant of a server. `values` is a list of words, or a range of numbers:
/// `{"from": 1, "to": 300}`.
#[derive(Debug, Clone, Deserialize)]
struct Flavour {
    flag: String,
    #[serde(default)]
    values: Value,
}

impl Flavour {
    /// Whether the flag accepts this value. If the form of `values` is unknown, the server decides.
    fn takes(&self, flag: &str, value: &str) -> bool {
        self.flag == flag
            && match &self.values {
                Value::Array(words) => words.iter().any(|word| word == value),
                Value::Object(range) => {
                    let bound = |name: &str| range.get(name).and_then(Value::as_i64);
                    let number: Option<i64> = value.parse().ok();
                    number.is_some_and(|n| {
                        bound("from").is_none_or(|from| from <= n)
                            && bound("to").is_none_or(|to| n <= to)
                    })
                }
                _ => true,
            }
    }

    /// The flavour as on the command line.
    fn usage(&self) -> String {
        let values = match &self.values {
            Value::Array(words) => {
                words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|")
            }
            Value::Object(range) => {
                let bound = |name: &str| range.get(name).map(Value::to_string).unwrap_or_default();
                format!("{}..{}", bound("from"), bound("to"))
            }
            _ => "VALUE".to_owned(),
        };
        format!("{}={values}", self.flag)
    }
}

/// A server that answered `--describe`.
#[derive(Debug)]
pub struct Found {
    /// Path of the executable.
    pub executable: PathBuf,
    /// Its entry in the result file.
    pub model: Model,
    /// Why it cannot run here, from `--describe`.
    pub unavailable: Option<String>,
    /// Whether it is a model, so that it takes part when no models are named.
    pub is_model: bool,
    /// Whether it is the floor.
    pub is_floor: bool,
    flavours: Vec<Flavour>,
}

impl Found {
    /// The maximum number of connections, apart from the limit of descriptors.
    pub fn connections_max(&self) -> u32 {
        let most = self.model.connections_max.unwrap_or(u64::MAX);
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// Its executable, to be checked before each trial.
    pub fn watched(self) -> Watched {
        let sha256 = self.model.executable.map(|executable| executable.sha256);
        Watched::new(self.executable, sha256.unwrap_or_default())
    }
}

/// The directories to search: those of `list` (separated by `:`, like PATH), then that of this
/// executable, where `cargo build` puts the servers.
pub fn directories(list: Option<&str>) -> Vec<PathBuf> {
    let given = list.map(|l| std::env::split_paths(l).collect::<Vec<_>>()).unwrap_or_default();
    let own = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    given.into_iter().chain(own).collect()
}

/// Executables named `serve-NAME` in `directories`. The first of a name is taken, as in PATH.
pub fn executables(directories: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut found = BTreeMap::new();
    for directory in directories {
        let entries = std::fs::read_dir(directory).map_err(|error| {
            format!("cannot look for servers in {}: {error}", directory.display())
        })?;
        for entry in entries.flatten() {
            let path = entry.path();
            let name =
                path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(PREFIX));
            // Files with a dot are cargo's dependency files (serve-epoll.d).
            let Some(name) = name.filter(|name| !name.is_empty() && !name.contains('.')) else {
                continue;
            };
            let runs = std::fs::metadata(&path)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
            if runs && !found.contains_key(name) {
                found.insert(name.to_owned(), path);
            }
        }
    }
    Ok(found)
}

/// Runs `--describe` of an executable.
///
/// # Errors
/// The reason, for a table.
pub fn describe(executable: &Path) -> Result<Found, String> {
    describe_flavour(executable, &[])
}

/// Runs `--describe` with the flags of a flavour, which may have other limits.
fn describe_flavour(path: &Path, flags: &[String]) -> Result<Found, String> {
    let mut command = std::process::Command::new(path);
    command.arg("--describe").args(flags).stdin(Stdio::null());
    let output = run_briefly(command, DESCRIBE_TIMEOUT)?;
    if output.code != Some(0) {
        return Err(format!("--describe failed: {}", tail(&output.stderr)));
    }
    let describe: Value = serde_json::from_str(output.stdout.trim())
        .map_err(|error| format!("--describe is not one line of JSON: {error}"))?;
    let description: Description = serde_json::from_value(describe.clone())
        .map_err(|error| format!("--describe is incomplete: {error}"))?;
    let identity = executable::identify(path, description.build)
        .map_err(|error| format!("it cannot be read: {error}"))?;
    let model = Model {
        label: description.name.clone(),
        name: description.name,
        description: description.description,
        protocols: known(description.protocols),
        arguments: flags.to_vec(),
        connections_max: description.limits.connections_max,
        connections_max_reason: description.limits.connections_max_reason,
        describe,
        executable: Some(identity),
    };
    let (unavailable, flavours) = (description.unavailable, description.flavours);
    let is_floor = description.role.as_deref() == Some(FLOOR);
    let is_model = description.role.is_none();
    Ok(Found { executable: path.to_owned(), model, unavailable, is_model, is_floor, flavours })
}

/// The protocols that iolab speaks, of those that a server names.
fn known(protocols: Vec<Value>) -> Vec<Protocol> {
    protocols.into_iter().filter_map(|name| serde_json::from_value(name).ok()).collect()
}

/// Finds the `wanted` servers (`epoll`, `epoll+trigger=edge`), or all. Servers that cannot take
/// part are returned as skips.
///
/// # Errors
/// One sentence; also if a `wanted` server cannot take part.
pub fn servers(
    directories: &[PathBuf],
    wanted: &[String],
) -> Result<(Vec<Found>, Vec<Skip>), String> {
    let executables = executables(directories)?;
    let all = if wanted.is_empty() { everything(&executables) } else { Default::default() };
    if executables.is_empty() || wanted.is_empty() && all.0.is_empty() && all.1.is_empty() {
        let places: Vec<_> = directories.iter().map(|d| d.display().to_string()).collect();
        return Err(format!(
            "no executable named serve-NAME in {}; build the servers (cargo build --release) or \
             name their directory with --servers",
            places.join(", ")
        ));
    }
    if wanted.is_empty() {
        return Ok(all);
    }
    let mut found: Vec<Found> = Vec::new();
    for label in wanted {
        if found.iter().any(|server| server.model.label == *label) {
            return Err(format!("--models: {label} is named twice"));
        }
        found.push(by_label(&executables, label)?);
    }
    Ok((found, Vec::new()))
}

/// Finds the server whose `--describe` has the role of the floor.
///
/// # Errors
/// Why there is none, for a table.
pub fn floor(directories: &[PathBuf]) -> Result<Found, String> {
    let executables = executables(directories)?;
    let mut said = executables.iter().filter_map(|(name, path)| Some((name, describe(path).ok()?)));
    let (name, mut server) = said.find(|(_, server)| server.is_floor).ok_or(
        "no server here has the role of the floor; build serve-floor (cargo build --release)",
    )?;
    if let Some(reason) = server.unavailable {
        return Err(reason);
    }
    server.model.label.clone_from(name);
    Ok(server)
}

fn everything(executables: &BTreeMap<String, PathBuf>) -> (Vec<Found>, Vec<Skip>) {
    let (mut found, mut skips) = (Vec::new(), Vec::new());
    for (name, path) in executables {
        let skip = |reason| Skip { model: name.clone(), workload: None, reason, by_design: false };
        match describe(path) {
            Ok(Found { is_model: false, .. }) => {}
            Ok(Found { unavailable: Some(reason), .. }) | Err(reason) => skips.push(skip(reason)),
            Ok(mut server) => {
                server.model.label = name.clone();
                // A server without the flavour takes part without it.
                found.extend(beside(&server).filter_map(|l| by_label(executables, l).ok()));
                found.push(server);
            }
        }
    }
    found.sort_by_key(|server| {
        let Model { name, label, .. } = &server.model;
        let place = READING_ORDER.iter().position(|known| known == name);
        (place.unwrap_or(READING_ORDER.len()), name.clone(), label.clone())
    });
    (found, skips)
}

/// Labels of this server's flavours in [`BESIDE`].
fn beside(server: &Found) -> impl Iterator<Item = &'static str> {
    let offers = |label: &str| {
        let (name, flavour) = label.split_once('+')?;
        let (flag, value) = flavour.split_once('=')?;
        let known = server.flavours.iter().any(|flavour| flavour.takes(flag, value));
        (name == server.model.name && known).then_some(())
    };
    BESIDE.into_iter().map(|(label, _)| label).filter(move |label| offers(label).is_some())
}

fn by_label(executables: &BTreeMap<String, PathBuf>, label: &str) -> Result<Found, String> {
    let mut parts = label.split('+');
    let name = parts.next().unwrap_or_default();
    let Some(path) = executables.get(name) else {
        let known: Vec<_> = executables.keys().map(String::as_str).collect();
        return Err(format!(
            "--models: no server serve-{name} was found; found were {}",
            known.join(", ")
        ));
    };
    let unusable = |why| format!("--models: {} cannot be used: {why}", path.display());
    let mut server = describe(path).map_err(unusable)?;
    if let Some(reason) = &server.unavailable {
        return Err(format!("--models: serve-{name} cannot run here: {reason}"));
    }
    let mut flags = Vec::new();
    for part in parts {
        let (flag, value) = part
            .split_once('=')
            .ok_or_else(|| format!("--models: {part:?} in {label:?} is not FLAG=VALUE"))?;
        if !server.flavours.iter().any(|flavour| flavour.takes(flag, value)) {
            let known: Vec<_> = server.flavours.iter().map(Flavour::usage).collect();
            return Err(format!(
                "--models: serve-{name} has no flavour {part:?}; it has: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ));
        }
        flags.extend([format!("--{flag}"), value.to_owned()]);
    }
    if !flags.is_empty() {
        server = describe_flavour(path, &flags).map_err(unusable)?;
    }
    server.model.label = label.to_owned();
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with executables of one line of shell each.
    fn directory(files: &[(&str, u32, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, mode, body) in files {
            let path = directory.path().join(name);
            fixture::script(&path, body);
            std::fs::set_permissions(&path, PermissionsExt::from_mode(*mode)).unwrap();
        }
        directory
    }

    const GOOD: &str = r#"echo '{"name":"good","protocols":["echo"],"novelty":1,"flavours":[
        {"flag":"trigger","values":["level","edge"]},
        {"flag":"pool","values":{"from":1,"to":300}}]}'"#;

    fn failure(directory: &Path, label: &str) -> String {
        servers(&[directory.to_owned()], &[label.to_owned()]).unwrap_err()
    }

    #[test]
    fn only_executables_of_that_name_are_servers() {
        let dir = directory(&[
            ("serve-good", 0o755, GOOD),
            ("serve-notes", 0o644, ""),
            ("serve-good.d", 0o755, ""),
            ("other", 0o755, ""),
        ]);
        let found = executables(&[dir.path().to_owned()]).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["good"]);
    }

    #[test]
    fn the_first_directory_wins() {
        let (first, second) =
            (directory(&[("serve-a", 0o755, "")]), directory(&[("serve-a", 0o755, "")]));
        let found = executables(&[first.path().to_owned(), second.path().to_owned()]).unwrap();
        assert!(found["a"].starts_with(first.path()));
    }

    #[test]
    fn servers_that_cannot_take_part_are_skipped_with_their_reason() {
        let dir = directory(&[
            ("serve-good", 0o755, GOOD),
            ("serve-broken", 0o755, "echo no library >&2; exit 3"),
            ("serve-talk", 0o755, "echo hello"),
            ("serve-nameless", 0o755, r#"echo '{"protocols":["echo"]}'"#),
            (
                "serve-ring",
                0o755,
                r#"echo '{"name":"ring","protocols":[],"unavailable":"not permitted"}'"#,
            ),
        ]);
        let (found, skips) = servers(&[dir.path().to_owned()], &[]).unwrap();
        assert_eq!(found.len(), 1);
        let reasons: BTreeMap<_, _> = skips.iter().map(|s| (s.model.as_str(), &s.reason)).collect();
        assert!(reasons["broken"].contains("no library"));
        assert!(reasons["talk"].contains("JSON"));
        assert!(reasons["nameless"].contains("name"));
        assert_eq!(reasons["ring"], "not permitted");
        assert!(failure(dir.path(), "ring").contains("not permitted"));
    }

    /// By the role in `--describe`, not by the name.
    #[test]
    fn what_is_no_model_takes_part_only_where_it_is_asked_for() {
        let role = |role| format!(r#"echo '{{"name":"x","protocols":["echo"],"role":"{role}"}}'"#);
        let (line, faulty) = (role("floor"), role("faulty"));
        let files =
            [("serve-good", 0o755, GOOD), ("serve-a", 0o755, &line), ("serve-b", 0o755, &faulty)];
        let dir = directory(&files);
        let places = [dir.path().to_owned()];
        let labels = |wanted: &[String]| {
            let (found, skips) = servers(&places, wanted).unwrap();
            assert!(skips.is_empty());
            found.into_iter().map(|server| server.model.label).collect::<Vec<_>>()
        };
        assert_eq!(labels(&[]), ["good"]);
        assert_eq!(labels(&["b".to_owned()]), ["b"]);
        assert_eq!(floor(&places).unwrap().model.label, "a");
        let none = directory(&[("serve-b", 0o755, &faulty)]);
        let places = [none.path().to_owned()];
        assert!(floor(&places).unwrap_err().contains("serve-floor"));
        assert!(servers(&places, &[]).unwrap_err().contains("--servers"));
    }

    #[test]
    fn a_flavour_takes_part_beside_its_model_where_it_is_offered() {
        const THREADS: &str = r#"echo '{"name":"threads","protocols":["echo"],
            "flavours":[{"flag":"duplex","values":["off","on"]}]}'"#;
        let labels = |text| {
            let dir = directory(&[("serve-good", 0o755, GOOD), ("serve-threads", 0o755, text)]);
            let (found, _) = servers(&[dir.path().to_owned()], &[]).unwrap();
            found.into_iter().map(|server| server.model.label).collect::<Vec<_>>()
        };
        assert_eq!(labels(THREADS), ["threads", "threads+duplex=on", "good"]);
        let without = r#"echo '{"name":"threads","protocols":["echo"]}'"#;
        assert_eq!(labels(without), ["threads", "good"]);
    }

    #[test]
    fn flavours_become_flags() {
        let dir = directory(&[("serve-good", 0o755, GOOD)]);
        let labels = ["good+pool=300".to_owned(), "good+trigger=edge".to_owned()];
        let (found, _) = servers(&[dir.path().to_owned()], &labels).unwrap();
        assert_eq!(found[1].model.arguments, ["--trigger", "edge"]);
        assert_eq!(found[1].model.label, "good+trigger=edge");
    }

    #[test]
    fn bad_names_get_one_sentence() {
        let dir = directory(&[("serve-good", 0o755, GOOD)]);
        assert!(failure(dir.path(), "good+pool=301").contains("pool=1..300"));
        assert!(failure(dir.path(), "epol").contains("found were good"));
        assert!(failure(dir.path(), "good+trigger=egde").contains("trigger=level|edge"));
        assert!(failure(dir.path(), "good+edge").contains("FLAG=VALUE"));
        let empty = tempfile::tempdir().unwrap();
        assert!(failure(empty.path(), "good").contains("--servers"));
        assert!(failure(Path::new("/no/such/directory"), "good").contains("/no/such/directory"));
    }
}
