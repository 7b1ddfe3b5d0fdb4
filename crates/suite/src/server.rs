//! One server process, from its first line to its last.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::panic::panic_any;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Client, IS_QUIET, Process, Variant, get, guard};

/// How the first line looks.
const FIRST_LINE: &str = "the first line is `listening ADDR:PORT model=NAME pid=PID`";

/// A running server. Killed when dropped, by its process id.
#[derive(Debug)]
pub struct Server {
    /// What runs.
    pub variant: Variant,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its first line on stdout.
    pub first_line: String,
    child: Child,
    /// Locked, so that cases on several threads can share a server.
    stdout: Mutex<Receiver<String>>,
    stderr: Arc<Mutex<String>>,
    stderr_reader: Option<JoinHandle<()>>,
}

/// How a server ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` after a deadly signal.
    pub code: Option<i32>,
    /// Lines on stdout after the first.
    pub stdout: Vec<String>,
    /// All of stderr.
    pub stderr: String,
}

impl Server {
    /// Starts `variant` on a free port of loopback and waits for its first line.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(variant: &Variant, flags: &[&str]) -> Server {
        let command = Command::new(&variant.model.executable);
        Server::spawn(command, variant, flags)
    }

    /// The same, with one more variable in its environment.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start_with_variable(
        variant: &Variant,
        flags: &[&str],
        (name, value): (&str, &Path),
    ) -> Server {
        let mut command = Command::new(&variant.model.executable);
        command.env(name, value);
        Server::spawn(command, variant, flags)
    }

    /// The same, with at most `descriptors` open at once.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start_with_descriptors(variant: &Variant, flags: &[&str], descriptors: u32) -> Server {
        Server::spawn(limited(variant, "-n", descriptors), variant, flags)
    }

    /// The same, with a queue for at most so many signals (RLIMIT_SIGPENDING). By prlimit(1),
    /// because not every shell has this limit.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start_with_signals(variant: &Variant, flags: &[&str], signals: u32) -> Server {
        let mut command = Command::new("prlimit");
        command.arg(format!("--sigpending={signals}")).arg(&variant.model.executable);
        Server::spawn(command, variant, flags)
    }

    /// The same, with at most so much address space (RLIMIT_AS), in KiB.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start_with_addresses(variant: &Variant, flags: &[&str], kib: u32) -> Server {
        Server::spawn(limited(variant, "-v", kib), variant, flags)
    }

    /// What `--describe` says with as much address space, in KiB.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn describe_with_addresses(variant: &Variant, flags: &[&str], kib: u32) -> Value {
        let mut command = limited(variant, "-v", kib);
        command.args(&variant.flags).args(flags).arg("--describe");
        let output = run_to_end(&mut command);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("--describe: {error}; {output:?}"))
    }

    /// The same, traced by strace(1), which runs beside it (`-D`), so that the process is the
    /// server's own.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start_traced(variant: &Variant, flags: &[&str], tracing: &[&str]) -> Server {
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-qq"]).args(tracing).arg(&variant.model.executable);
        Server::spawn(command, variant, flags)
    }

    #[track_caller]
    fn spawn(mut command: Command, variant: &Variant, flags: &[&str]) -> Server {
        command.args(&variant.flags).args(["--listen", "127.0.0.1:0"]).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(what) = not_offered(variant, flags) {
            panic_any(NotOffered(what));
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = Arc::new(Mutex::new(String::new()));
        let stderr_reader = child.stderr.take().map(|pipe| collect(pipe, Arc::clone(&stderr)));
        let stdout = child.stdout.take().map(lines).expect("stdout is a pipe");
        let first_line = stdout.recv_timeout(guard());
        let mut server = Server {
            variant: variant.clone(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            first_line: String::new(),
            child,
            stdout: Mutex::new(stdout),
            stderr,
            stderr_reader,
        };
        match first_line {
            Ok(line) => server.first_line = line,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no line on stdout within {:?}; {FIRST_LINE}, and is flushed", guard())
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = server.child.wait().expect("waiting for the server");
                panic!("no line on stdout; {FIRST_LINE}; {status}; stderr: {:?}", server.told())
            }
        }
        let words = server.first_line.strip_prefix("listening ");
        let address = words.and_then(|words| words.split(' ').next()?.parse().ok());
        server.address =
            address.unwrap_or_else(|| panic!("{:?} on stdout; {FIRST_LINE}", server.first_line));
        server
    }

    /// What the kernel knows of it.
    pub fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// A new connection.
    ///
    /// # Panics
    /// When there is none to be had.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A newcomer is served: HTTP.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn serves(&self) {
        let mut client = self.connect();
        client.send(&get("/"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.as_slice()), (200, b"Hello, world!".as_slice()));
    }

    /// `/stats`, asked on a connection of its own.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn stats(&self) -> Value {
        let mut client = self.connect();
        client.send(b"GET /stats HTTP/1.1\r\nHost: suite\r\nConnection: close\r\n\r\n");
        let reply = client.reply();
        assert_eq!(reply.status, 200, "/stats");
        serde_json::from_slice(&reply.body).expect("/stats is JSON")
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is an i32"));
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to the server: {error}"));
        // Its children are told by their parent, but of this it is not told itself.
        if matches!(signal, Signal::SIGSTOP | Signal::SIGCONT) {
            for Process(child) in self.process().children() {
                let pid = Pid::from_raw(i32::try_from(child).expect("a pid is an i32"));
                // Fails for one that has ended.
                let _ = kill(pid, signal);
            }
        }
    }

    /// Waits for its end, which something has already brought about.
    ///
    /// # Panics
    /// When it goes on for longer than [`guard`].
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + guard();
        let mut stdout = Vec::new();
        let lines = self.stdout.get_mut().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => stdout.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still running after {:?}", guard()),
            }
        }
        // Its stdout is closed: it is ending, or has ended.
        let code = self.child.wait().expect("waiting for the server").code();
        let stderr = self.told();
        Ended { code, stdout, stderr }
    }

    /// SIGTERM, and the counters of the last line.
    ///
    /// # Panics
    /// When it does not exit with 0, or its last line is not one JSON object.
    #[track_caller]
    pub fn stop(self) -> Value {
        self.signal(Signal::SIGTERM);
        self.wait().counters()
    }

    /// All of stderr, of a server that has ended.
    fn told(&mut self) -> String {
        if let Some(reader) = self.stderr_reader.take() {
            // Its panic would have lost text only.
            let _ = reader.join();
        }
        self.stderr()
    }

    fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Of a wrapper script, the server itself is a child. Each fails only where one has ended.
        for Process(child) in self.process().children() {
            let _ = kill(Pid::from_raw(i32::try_from(child).unwrap_or(0)), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() && !IS_QUIET.load(Relaxed) {
            eprintln!("  the server was {}, stderr: {:?}", self.variant.label, self.stderr());
        }
    }
}

impl Ended {
    /// The counters of the last line on stdout.
    ///
    /// # Panics
    /// When it did not exit with 0, or its last line is not one JSON object.
    #[track_caller]
    pub fn counters(&self) -> Value {
        assert_eq!(self.code, Some(0), "exit code after a signal; stderr: {:?}", self.stderr);
        assert_eq!(self.stdout.len(), 1, "lines after the first on stdout: {:?}", self.stdout);
        let counters: Value = serde_json::from_str(&self.stdout[0]).expect("the last line is JSON");
        assert!(counters.is_object(), "the last line is no object: {counters}");
        counters
    }
}

/// The server under a limit of the shell (ulimit), hard and soft. The shell sets the limit and then
/// becomes the server, so that nothing has to run between fork(2) and exec(2).
fn limited(variant: &Variant, limit: &str, value: u32) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {limit} {value} && exec \"$0\" \"$@\"")]);
    command.arg(&variant.model.executable);
    command
}

/// What a server is asked for that it does not offer; a case panics with it.
#[derive(Debug)]
pub struct NotOffered(pub String);

/// A flag that this server does not have, or a protocol that it does not speak, by its own word in
/// `--describe`. What it says nothing about is asked for.
fn not_offered(variant: &Variant, flags: &[&str]) -> Option<String> {
    let known = variant.model.describe["flags"].as_array();
    let known: Option<Vec<_>> = known.map(|flags| flags.iter().filter_map(Value::as_str).collect());
    let unknown = |flag: &&str| known.as_ref().is_some_and(|known| !known.contains(flag));
    let names = flags.iter().filter_map(|flag| flag.strip_prefix("--"));
    let missing = names.filter(|flag| unknown(flag) && variant.model.flavour(flag).is_none());
    let missing = missing.map(|flag| format!("--{flag}")).next();
    let echo = flags.windows(2).any(|pair| pair == ["--protocol", "echo"]);
    let protocol = [(echo, "echo"), (flags.contains(&"--tls"), "tls")].into_iter();
    let mut protocol = protocol.filter(|&(asked, name)| asked && !variant.model.offers(name));
    protocol.next().map(|(_, name)| name.to_owned()).or(missing)
}

/// Runs a command that ends by itself.
///
/// # Panics
/// When it cannot be started, or does not end within [`guard`].
#[track_caller]
pub fn run_to_end(command: &mut Command) -> Output {
    run_bounded(command).unwrap_or_else(|sentence| panic!("{sentence}"))
}

/// The same, where it may not end.
///
/// # Errors
/// A sentence, where [`run_to_end`] panics.
pub(crate) fn run_bounded(command: &mut Command) -> Result<Output, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid is an i32"));
    let (sender, ended) = mpsc::channel();
    // The receiver is gone only after a panic.
    thread::spawn(move || drop(sender.send(child.wait_with_output())));
    match ended.recv_timeout(guard()) {
        Ok(output) => output.map_err(|error| format!("{command:?}: {error}")),
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            Err(format!("{command:?} still runs after {:?}", guard()))
        }
    }
}

/// The lines of a pipe; the channel ends with the pipe.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn collect(pipe: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut text = into.lock().unwrap_or_else(PoisonError::into_inner);
            text.push_str(&line);
            text.push('\n');
        }
    })
}
