//! Which crates may depend on which, by what cargo itself says of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use suite::root;

use crate::{assert_kept, files_below, read, shown};

/// One crate of the workspace.
struct Package {
    /// `(name, is a dev-dependency)`.
    dependencies: Vec<(String, bool)>,
    metadata: Value,
}

impl Package {
    fn depends_on(&self, name: &str) -> bool {
        self.dependencies.iter().any(|(dependency, _)| dependency == name)
    }
}

fn packages() -> BTreeMap<String, Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--offline"];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output();
    let output = output.expect("cargo metadata can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 5, "cargo names only {} crates", packages.len());
    packages.iter().map(|package| (text(&package["name"]), parse(package))).collect()
}

fn parse(package: &Value) -> Package {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    let dependencies = dependencies.map(|d| (text(&d["name"]), d["kind"] == "dev")).collect();
    Package { dependencies, metadata: package.clone() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn is_model(name: &str) -> bool {
    name.starts_with("serve-")
}

/// Each crate of the workspace that `from` depends on, directly or not, tests included.
fn reachable(packages: &BTreeMap<String, Package>, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(package) = open.pop().and_then(|name| packages.get(&name)) {
        for (name, _) in &package.dependencies {
            if packages.contains_key(name) && found.insert(name.clone()) {
                open.push(name.clone());
            }
        }
    }
    found
}

#[test]
fn measuring_side_never_links_the_serving_side() {
    let packages = packages();
    let mut broken = Vec::new();
    for name in MEASURING_SIDE.iter().map(|(name, _)| *name).chain(["iolab", "suite"]) {
        assert!(packages.contains_key(name), "there is no crate {name}");
        for other in reachable(&packages, name) {
            if BELOW_MODELS.contains(&other.as_str()) && other != "features" || is_model(&other) {
                broken.push(format!("crates/{name}: depends on {other}"));
            }
        }
    }
    assert_kept("the measuring side knows servers by their sockets only", &broken);
}

/// What each crate of the measuring side may depend on, beside crates of others; tests may use
/// more.
const MEASURING_SIDE: &[(&str, &[&str])] = &[
    ("record", &[]),
    ("scenario", &["record"]),
    ("fixture", &["record", "scenario"]),
    ("verdict", &["record"]),
    ("render", &["record", "scenario", "verdict"]),
    ("link", &["record"]),
    ("load", &["record"]),
    ("witness", &[]),
    ("rig", &["load", "record", "scenario", "witness"]),
    ("lesson", &["link", "load", "record", "rig", "scenario", "witness"]),
    ("law", &["link", "load", "record", "rig", "scenario", "verdict"]),
    ("responder", &["features"]),
];

/// Crates that compute and write text: what they say is a function of a file.
const WITHOUT_SOCKETS: &[&str] = &["record", "scenario", "fixture", "verdict", "render"];

#[test]
fn crates_of_the_measuring_side_depend_on_no_others() {
    let packages = packages();
    let mut broken = Vec::new();
    for (name, allowed) in MEASURING_SIDE {
        let package = packages.get(*name).unwrap_or_else(|| panic!("there is no crate {name}"));
        for (other, dev) in &package.dependencies {
            let is_ours = packages.contains_key(other);
            let opens = WITHOUT_SOCKETS.contains(name) && DOES_IO.contains(&other.as_str());
            if !dev && (opens || is_ours && !allowed.contains(&other.as_str())) {
                broken.push(format!("crates/{name}: depends on {other}"));
            }
        }
    }
    assert_kept("record <- verdict <- render, and no socket among them", &broken);
}

#[test]
fn suite_is_a_client_of_its_own() {
    let packages = packages();
    let mut broken: Vec<_> = reachable(&packages, "suite").into_iter().collect();
    broken.retain(|name| name != "witness");
    let generator = reachable(&packages, "load").into_iter();
    broken.extend(generator.filter(|name| name == "witness").map(|name| format!("load: {name}")));
    assert_kept("the suite shares no code with what it tests, nor with the generator", &broken);
}

/// What a model may be built from.
const BELOW_MODELS: &[&str] = &["conn", "kit", "readiness", "conversation", "features"];

#[test]
fn no_model_depends_on_another() {
    let packages = packages();
    let mut broken = Vec::new();
    let models: Vec<_> = packages.keys().filter(|name| is_model(name)).collect();
    assert!(!models.is_empty());
    for model in models {
        for other in reachable(&packages, model) {
            if !BELOW_MODELS.contains(&other.as_str()) {
                broken.push(format!("crates/{model}: depends on {other}"));
            }
        }
    }
    assert_kept("conn <- kit <- readiness, conversation <- serve-*, and nothing else", &broken);
}

/// The crates of the serving side that are not models, and all that each may depend on.
const SERVING_SIDE: &[(&str, &[&str])] = &[
    ("kit", &["conn", "features"]),
    ("readiness", &["conn", "kit", "features"]),
    ("conversation", &["conn", "kit", "features"]),
];

#[test]
fn the_core_depends_on_no_other_crate_and_kit_on_the_core() {
    let packages = packages();
    let mut broken: Vec<_> = reachable(&packages, "conn").into_iter().collect();
    for (name, below) in SERVING_SIDE {
        assert!(packages.contains_key(*name), "there is no crate {name}");
        let others = reachable(&packages, name).into_iter();
        broken.extend(others.filter(|other| !below.contains(&other.as_str())));
    }
    broken.extend(reachable(&packages, "record"));
    assert_kept("conn and record depend on no other crate, kit on conn alone", &broken);
}

/// Each crate in a build of `packages`, with its features, as cargo prints it.
fn built_with(packages: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .arg("tree")
        .args(packages)
        .args(["--edges", "normal,build", "--no-dedupe", "--locked", "--offline"])
        .args(["--prefix", "none", "--format", "{p} with {f}"])
        .current_dir(root())
        .output();
    let output = output.expect("cargo tree can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn an_executable_is_the_same_whether_built_alone_or_with_all() {
    let all = built_with(&["--workspace"]);
    let packages = packages();
    let others = ["iolab", "responder"];
    let executables = packages.keys().filter(|name| is_model(name) || others.contains(&&***name));
    let mut broken = Vec::new();
    for name in executables {
        let alone = built_with(&["--package", name]);
        assert!(alone.len() > 30, "cargo names only {} crates below {name}", alone.len());
        broken.extend(alone.difference(&all).map(|what| format!("{name} alone: {what}")));
    }
    assert_kept("crates/features asks for every feature that any executable has", &broken);
}

/// Crates by which a socket can be opened.
const DOES_IO: &[&str] = &[
    "async-std",
    "io-uring",
    "libc",
    "mio",
    "nix",
    "polling",
    "rustix",
    "smol",
    "socket2",
    "tokio",
];

#[test]
fn core_links_nothing_that_does_io() {
    let packages = packages();
    let dependencies = packages["conn"].dependencies.iter().filter(|(_, dev)| !dev);
    let broken: Vec<_> = dependencies
        .filter(|(name, _)| DOES_IO.contains(&name.as_str()))
        .map(|(name, _)| format!("crates/conn: depends on {name}"))
        .collect();
    assert_kept("the core does no I/O", &broken);
}

#[test]
fn each_mechanism_stays_in_its_model() {
    // The micro-benchmarks measure the wait primitives themselves.
    let allowed_for = [
        ("io-uring", ["serve-uring", "load", "iolab-benches"].as_slice()),
        // The tests of the core use its traits, for the other side of HTTP/2.
        ("tokio", ["serve-tokio", "conn", "features"].as_slice()),
    ];
    let mut broken = Vec::new();
    for (name, package) in packages() {
        for (mechanism, allowed) in allowed_for {
            if package.depends_on(mechanism) && !allowed.contains(&name.as_str()) {
                broken.push(format!("{name}: depends on {mechanism}"));
            }
        }
    }
    assert_kept("io_uring and a runtime are what one model each is about", &broken);
}

#[test]
fn a_model_is_a_library_and_an_executable_of_its_name() {
    let mut broken = Vec::new();
    for (name, package) in packages().into_iter().filter(|(name, _)| is_model(name)) {
        let targets = package.metadata["targets"].as_array().cloned().unwrap_or_default();
        let has = |kind: &str, wanted: &str| {
            targets.iter().any(|target| target["kind"][0] == kind && target["name"] == wanted)
        };
        if !has("lib", &name.replace('-', "_")) || !has("bin", &name) {
            broken.push(format!("crates/{name}: wants a library and an executable {name}"));
        }
        let manifest = text(&package.metadata["manifest_path"]);
        if !manifest.ends_with(&format!("/crates/{name}/Cargo.toml")) {
            broken
                .push(format!("{manifest}: the directory has another name than the crate {name}"));
        }
        let main = root().join("crates").join(&name).join("src/main.rs");
        if read(&main).lines().count() > 8 {
            broken.push(format!("{}: longer than one call", shown(&main)));
        }
    }
    assert_kept("directory = crate = executable, and main is one call", &broken);
}

#[test]
fn versions_and_license_are_chosen_in_one_place() {
    let mut broken = Vec::new();
    for manifest in files_below(&root(), "Cargo.toml") {
        if manifest == root().join("Cargo.toml") {
            continue;
        }
        let text = read(&manifest);
        // A workspace of its own (scripts/peers/rust) chooses for itself.
        if text.lines().any(|line| line.trim() == "[workspace]") {
            continue;
        }
        for inherited in ["license", "edition", "rust-version", "version", "publish"] {
            if !text.lines().any(|line| line.trim() == format!("{inherited}.workspace = true")) {
                broken.push(format!("{}: {inherited} is not the workspace's", shown(&manifest)));
            }
        }
        let mut in_dependencies = false;
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
            } else if in_dependencies && line.contains('=') && !line.trim().starts_with('#') {
                let inherits = line.contains("workspace = true");
                if !inherits {
                    broken.push(format!("{}:{}: {line}", shown(&manifest), number + 1));
                }
            }
        }
    }
    assert_kept("what the workspace says once, no crate says again", &broken);
}

#[test]
fn releases_are_stable() {
    let mut broken = Vec::new();
    for package in packages().values() {
        for dependency in package.metadata["dependencies"].as_array().into_iter().flatten() {
            let wanted = text(&dependency["req"]);
            // A pre-release is written 1.2.3-name; a star is no choice at all.
            if wanted.contains('-') || wanted == "*" && dependency["path"].is_null() {
                broken.push(format!("{} {wanted}", text(&dependency["name"])));
            }
        }
    }
    assert_kept("stable releases only", &broken);
}

#[test]
fn licenses_are_there() {
    for (file, says) in [("LICENSE-MIT", "MIT License"), ("LICENSE-APACHE", "Apache License")] {
        assert!(read(&root().join(file)).contains(says), "{file} is not the {says}");
    }
    let broken: Vec<_> = packages()
        .into_iter()
        .filter(|(_, package)| package.metadata["license"] != "MIT OR Apache-2.0")
        .map(|(name, _)| name)
        .collect();
    assert_kept("MIT OR Apache-2.0", &broken);
}
