//! iolab's own workloads. Each is a scenario file (crates/scenario/scenarios) with a comment on its
//! purpose.

use record::Workload;

/// Default number of active connections: enough to keep one core busy, few enough for select.
pub const CONNECTIONS: u32 = 64;

/// Size of the file: larger than a socket buffer, so that partial sends occur.
pub const FILE_BYTES: u64 = 100 * 1024;

/// Name of the file in the document root of a run.
pub const FILE_NAME: &str = "100k.bin";

/// Path of the document root on a server.
pub const FILES_PATH: &str = "/files/";

/// Name of the document root in the run's temporary directory.
pub const DOCUMENTS: &str = "documents";

/// Body of `/`.
pub const TEXT: &[u8] = b"Hello, world!";

/// Its length, in bytes.
pub const TEXT_BYTES: u64 = TEXT.len() as u64;

/// The pattern of files and of `/bytes/N`: byte k is `ALPHABET[k % 64]`.
pub const ALPHABET: &[u8; 64] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-\n";

/// One of iolab's scenarios.
pub struct BuiltIn {
    /// Name of the workload, and of its file.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        [$(BuiltIn {
            name: $name,
            text: include_str!(concat!("../scenarios/", $name, ".toml")),
        }),*]
    };
}

/// All of them, in the order of the tables.
pub const BUILT_IN: [BuiltIn; 33] = built_in![
    "active-1",
    "active-1-asleep",
    "active-8",
    "http-keepalive",
    "active-512",
    "active-1-idle-1000",
    "active-8-idle-1000",
    "idle-1000",
    "active-512-idle-1000",
    "active-1-idle-10000",
    "active-8-idle-10000",
    "idle-10000",
    "active-512-idle-10000",
    "idle-100",
    "rate-5000",
    "rate-20000",
    "rate-40000",
    "rate-80000",
    "http-pipelined",
    "http-connect",
    "file-100k",
    "h2-streams",
    "h2-one",
    "ws-echo",
    "ws-chat",
    "tls-handshake",
    "tls-resume",
    "https-keepalive",
    "h2-tls-streams",
    "echo-64",
    "echo-64k",
    "stream-64",
    "stream-64k",
];

/// The workloads of the quick preset: one of each kind that takes little time.
pub const QUICK: [&str; 5] = ["active-1", "http-keepalive", "idle-1000", "h2-streams", "ws-echo"];

/// Workloads that run only if named, to save time: each lies between two others.
pub const ON_DEMAND: [&str; 7] = [
    "idle-100",
    "h2-one",
    "tls-resume",
    "https-keepalive",
    "h2-tls-streams",
    "echo-64k",
    "stream-64",
];

/// The WebSocket route that echoes.
pub const WS_ECHO: &str = "/ws/echo";

/// The WebSocket route of the chat.
pub const WS_CHAT: &str = "/ws/chat";

/// Their names.
pub fn names() -> Vec<String> {
    BUILT_IN.iter().map(|scenario| scenario.name.to_owned()).collect()
}

/// All of iolab's workloads, in the order of the tables.
///
/// # Errors
/// If one of them is wrong, which is a fault of iolab.
pub fn all() -> Result<Vec<Workload>, String> {
    let read = |scenario: &BuiltIn| {
        let file = format!("scenarios/{}.toml", scenario.name);
        // Whether the load generator supports them is tested in the package iolab.
        crate::parse(scenario.name, &file, scenario.text, |_| Ok(()))
    };
    BUILT_IN.iter().map(read).collect()
}

/// Whether the server needs the document root.
pub fn is_file(workload: &Workload) -> bool {
    workload.path.as_ref().is_some_and(|path| path.starts_with(FILES_PATH))
}

/// `count` bytes of [`ALPHABET`].
pub fn pattern(count: u64) -> Vec<u8> {
    ALPHABET.iter().copied().cycle().take(count as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two workloads that are compared for the cost of a protocol differ only in the protocol (and
    /// in the idle sample).
    #[test]
    fn siblings_differ_in_the_protocol_alone() {
        let all = all().unwrap();
        let of = |name: &str| {
            let workload = all.iter().find(|workload| workload.name == name).unwrap();
            let (name, protocol, tls, tls_resume) = Default::default();
            let (description, idle_sample_connections) = Default::default();
            Workload {
                name,
                description,
                protocol,
                tls,
                tls_resume,
                idle_sample_connections,
                ..workload.clone()
            }
        };
        assert_eq!(of("h2-one"), of("http-keepalive"));
        assert_eq!(of("https-keepalive"), of("http-keepalive"));
        assert_eq!(of("h2-tls-streams"), of("h2-streams"));
        assert_eq!(of("tls-resume"), of("tls-handshake"));
        assert_eq!(Workload { path: None, ..of("ws-echo") }, of("echo-64"));
    }

    #[test]
    fn what_comes_with_iolab_can_be_read_and_says_why_it_is_there() {
        let all = all().unwrap();
        assert_eq!(all.len(), BUILT_IN.len());
        let known = |name: &&str| all.iter().any(|workload| workload.name == **name);
        assert!(QUICK.iter().chain(&ON_DEMAND).all(known));
        assert!(QUICK.iter().all(|name| !ON_DEMAND.contains(name)));
        assert!(BUILT_IN.iter().all(|scenario| scenario.text.starts_with("# ")));
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios")).unwrap();
        assert_eq!(files.count(), BUILT_IN.len(), "every file in scenarios/ is in the set");
    }

    /// The points of the map differ only in the number of connections, and the rates only in the
    /// requests per second.
    #[test]
    fn what_is_drawn_together_differs_in_what_it_is_drawn_by() {
        let all = all().unwrap();
        let base = all.iter().find(|workload| workload.name == "http-keepalive").unwrap();
        let same = |workload: &&Workload| {
            let (name, description) = (base.name.clone(), base.description.clone());
            let Workload { connections, idle_connections, idle_sample_connections, .. } = *base;
            let Workload { rate_per_s, processors_sleep, .. } = *base;
            let like = Workload {
                name,
                description,
                connections,
                idle_connections,
                idle_sample_connections,
                rate_per_s,
                processors_sleep,
                ..(*workload).clone()
            };
            like == *base
        };
        let line = |prefix: &'static str| all.iter().filter(move |w| w.name.starts_with(prefix));
        assert_eq!(line("active-").filter(same).count(), 10);
        assert_eq!(line("idle-").filter(same).count(), 3);
        assert_eq!(line("rate-").filter(same).count(), 4);
        assert!(line("rate-").all(|w| w.name == format!("rate-{}", w.rate_per_s.unwrap())));
        assert!(line("idle-").all(|w| w.name == format!("idle-{}", w.idle_connections)));
        for workload in line("active-").filter(|workload| !workload.processors_sleep) {
            let idle = match workload.idle_connections {
                0 => String::new(),
                idle => format!("-idle-{idle}"),
            };
            assert_eq!(workload.name, format!("active-{}{idle}", workload.connections));
        }
    }
}
