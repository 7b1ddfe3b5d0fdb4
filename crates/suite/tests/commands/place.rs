//! A directory in which the commands of the texts find what they name: the programs of this build,
//! the committed result, and a server at PORT.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;

use suite::{Server, describe, guard, root, run_to_end};
use tempfile::TempDir;

use crate::how::How;

/// What a command is tried with; its path on success, `None`, or a reason to skip it.
type Tried = Result<Option<String>, String>;

/// What to do where nothing was built.
const REMEDY: &str = "run `cargo build --workspace` first";

pub struct Place {
    directory: TempDir,
    /// Where the programs are.
    built: PathBuf,
}

impl Place {
    pub fn new() -> Result<Place, String> {
        let test = std::env::current_exe().map_err(|error| error.to_string())?;
        let has_both = |at: &&Path| at.join("iolab").is_file() && at.join("serve-epoll").is_file();
        let built = test.ancestors().find(has_both).ok_or(REMEDY)?.to_owned();
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let place = Place { directory, built };
        let link = |to: &Path, name: &str| {
            let name = place.directory.path().join(name);
            let made = fs::create_dir_all(name.parent().unwrap_or(&name));
            made.and_then(|()| symlink(to, &name)).map_err(|error| error.to_string())
        };
        for profile in ["target/release", "target/debug"] {
            link(&place.built, profile)?;
        }
        link(&place.built.join("iolab"), "bin/iolab")?;
        for shared in ["book", "crates", "scripts"] {
            link(&root().join(shared), shared)?;
        }
        Ok(place)
    }

    /// Tries a command.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn tries(&self, command: &str, how: How) -> Tried {
        let program = command.split_whitespace().next().unwrap_or_default();
        if !program.contains('/')
            && program != "alias"
            && self.shell(&format!("command -v {program}")).is_err()
        {
            return match program {
                "curl" | "nghttp" | "openssl" | "python3" | "nc" => {
                    Ok(Some(format!("{program} is not installed")))
                }
                _ => Err(format!("there is no program {program}")),
            };
        }
        match how {
            How::Nothing => Ok(None),
            How::Silent => Ok(Some("it says nothing until a person ends it".to_owned())),
            How::Make => self.make(command),
            How::Read => self.reads(command),
            How::Run { server, more } => {
                let (server, command) = self.beside(server, command)?;
                let run = self.shell(&format!("{command} {more}"));
                drop(server);
                run.map(|_| None)
            }
            How::Begin { server } => {
                let (server, command) = self.beside(server, command)?;
                let begun = self.begins(&command);
                drop(server);
                begun.map(|()| None)
            }
        }
    }

    /// A server, where the command wants one, and the command with names in the places of PORT, PID
    /// and the folders of results.
    fn beside(
        &self,
        flags: Option<&[&str]>,
        command: &str,
    ) -> Result<(Option<Server>, String), String> {
        let mut command = command.to_owned();
        for folder in ["results/DATE-HOST", "results/BEFORE", "results/AFTER"] {
            if command.contains(folder) {
                command = command.replace(folder, &self.results()?);
            }
        }
        let Some(flags) = flags else { return Ok((None, command)) };
        let model = Arc::new(describe(self.built.join("serve-epoll"))?);
        let state = self.directory.path().join(".local/state");
        let variable = ("XDG_STATE_HOME", state.as_path());
        let server = Server::start_with_variable(&model.plain(), flags, variable);
        let at = server.address.to_string();
        let port = server.address.port().to_string();
        let command = command.replace("http://localhost:PORT", &format!("http://{at}"));
        let command =
            command.replace("PORT", &port).replace("PID", &server.process().0.to_string());
        let command = command.replace("URL", &format!("http://{at}"));
        Ok((Some(server), command))
    }

    /// A copy of the result that is committed: some commands write beside it.
    fn results(&self) -> Result<String, String> {
        let folder = results()?;
        let to = self.directory.path().join(&folder);
        if !to.exists() {
            let (from, to) = (root().join(&folder).display().to_string(), to.display().to_string());
            self.shell(&format!("mkdir -p results && cp -r '{from}' '{to}'"))?;
        }
        Ok(folder)
    }

    fn bash(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        let own = self.directory.path().join("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(["-c", script]).current_dir(self.directory.path());
        command.env("PATH", format!("{}:{path}", own.display()));
        command.env("HOME", self.directory.path()).env_remove("XDG_STATE_HOME");
        command
    }

    /// Runs it to its end.
    fn shell(&self, command: &str) -> Result<String, String> {
        succeeded(&run_to_end(&mut self.bash(&format!("set -o pipefail; {command}"))))
    }

    /// Runs it until its first line, and ends it.
    fn begins(&self, command: &str) -> Result<(), String> {
        let mut bash = self.bash(&format!("exec {command}"));
        bash.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = bash.spawn().map_err(|error| error.to_string())?;
        let stdout = child.stdout.take().ok_or("no pipe")?;
        let (sender, first) = mpsc::channel();
        // The receiver is gone only when the guard was faster.
        thread::spawn(move || drop(sender.send(BufReader::new(stdout).lines().next())));
        let first = first.recv_timeout(guard());
        // Fails where it has ended by itself.
        let _ = child.kill();
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        match first {
            Ok(Some(Ok(line))) if !line.is_empty() => Ok(()),
            _ => Err(format!("says nothing: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// Has the program read its arguments.
    ///
    /// # Errors
    /// What it says of them.
    pub fn arguments(&self, command: &str) -> Result<(), String> {
        let command = command.split(" > ").next().unwrap_or(command);
        let command = command.replace("PORT", "1").replace("PID", "1");
        self.shell(&format!("{command} --help")).map(|_| ())
    }

    /// Has the program read its arguments, and looks up names.
    fn reads(&self, command: &str) -> Tried {
        let short = command.split(" > ").next().unwrap_or(command);
        if let Some(cargo) = short.strip_prefix("cargo ") {
            return self.reads_cargo(cargo).map(|()| None);
        }
        let (_, command) = self.beside(None, short)?;
        let command = command.replace("PORT", "1").replace("PID", "1");
        self.shell(&format!("{command} --help"))?;
        let words: Vec<&str> = command.split_whitespace().collect();
        let values = |flag: &str| -> Vec<String> {
            let at = words.iter().position(|word| *word == flag).map(|at| at + 1);
            let names = at.and_then(|at| words.get(at)).map_or("", |word| *word);
            names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        for model in values("--models") {
            self.has_server(&model)?;
        }
        for workload in values("--workloads") {
            self.shell(&format!("iolab bench --show {workload}"))?;
        }
        let positional = words.iter().skip(2).take_while(|word| !word.starts_with('-'));
        let positional = positional.filter(|word| **word != "all");
        match words.get(1).copied() {
            Some("trace") => positional.copied().try_for_each(|model| self.has_server(model))?,
            Some("experiment") => {
                self.lists(
                    "iolab experiment --json",
                    positional.map(|name| format!("\"{name}\"")),
                )?;
            }
            Some("laws") => {
                self.lists("iolab laws --list", positional.map(|law| format!("{law} ")))?;
            }
            Some("check-instrument") => {
                self.lists("iolab check-instrument --list", values("--only").into_iter())?;
            }
            _ => {}
        }
        Ok(None)
    }

    fn reads_cargo(&self, arguments: &str) -> Result<(), String> {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let help = self.shell(&format!("cargo {} --help", words.first().unwrap_or(&"")))?;
        let mut flags =
            words.iter().take_while(|word| **word != "--").filter(|w| w.starts_with("--"));
        match flags.find(|flag| !help.contains(**flag)) {
            Some(flag) => Err(format!("cargo does not know {flag}")),
            None => Ok(()),
        }
    }

    /// The output of `command` has all of `names`.
    fn lists(&self, command: &str, mut names: impl Iterator<Item = String>) -> Result<(), String> {
        let list = self.shell(command)?;
        let missing = names.find(|name| !list.contains(name.as_str()));
        missing.map_or(Ok(()), |name| Err(format!("`{command}` does not have {name}")))
    }

    fn has_server(&self, model: &str) -> Result<(), String> {
        let name = model.split('+').next().unwrap_or(model);
        // Those of others need what they are made of, and are found with --servers.
        let is_there = |directory: PathBuf| directory.join(format!("serve-{name}")).exists();
        let peers = ["scripts/peers", "scripts/peers/rust/src/bin"].map(|path| root().join(path));
        let peer = root().join(format!("scripts/peers/rust/src/bin/serve-{name}.rs")).exists();
        if name == "all" || peer || is_there(self.built.clone()) || peers.into_iter().any(is_there)
        {
            return Ok(());
        }
        Err(format!("there is no serve-{name}"))
    }

    /// `make --dry-run`: the target is there, and what it runs of iolab has arguments that iolab
    /// reads.
    fn make(&self, command: &str) -> Tried {
        let arguments = command.strip_prefix("make").unwrap_or_default();
        let top = root();
        let dry = format!("make --dry-run --directory {}{arguments}", top.display());
        let would = self.shell(&dry)?;
        let ours = would.lines().filter_map(|line| line.strip_prefix("target/release/iolab "));
        for line in ours.filter(|line| !line.contains("results.json")) {
            self.reads(&format!("iolab {line}"))?;
        }
        Ok(None)
    }
}

fn succeeded(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr)))
}

/// The result that is committed, from the workspace's directory on.
fn results() -> Result<String, String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "results/*/results.json*"]).current_dir(root());
    let output = succeeded(&run_to_end(&mut git))?;
    let folder = output.lines().next().and_then(|file| file.rsplit_once('/'));
    folder.map(|(folder, _)| folder.to_owned()).ok_or("no result is committed".to_owned())
}
