//! The workloads that come with iolab. Each is a scenario file (crates/scenario/scenarios), which
//! says why it is in the set.

use record::Workload;

/// Connections that send load at once, where a scenario does not say. Enough to keep one core busy,
/// few enough for select.
pub const CONNECTIONS: u32 = 64;

/// Size of the file: many socket buffers' worth, so that partial sends happen.
pub const FILE_BYTES: u64 = 100 * 1024;

/// Name of the file under the document root made for the run.
pub const FILE_NAME: &str = "100k.bin";

/// Where the documents are on a server.
pub const FILES_PATH: &str = "/files/";

/// Name of the document root, in the temporary directory of the run.
pub const DOCUMENTS: &str = "documents";

/// Body of `/`: the smallest reply that is still a real one.
pub const TEXT: &[u8] = b"Hello, world!";

/// Its length, in bytes.
pub const TEXT_BYTES: u64 = TEXT.len() as u64;

/// Repeated to fill files and to know `/bytes/N` in advance: byte k is `ALPHABET[k % 64]`.
pub const ALPHABET: &[u8; 64] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-\n";

/// One scenario that comes with iolab.
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

/// All of them, in the order in which they are shown.
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

/// The workloads of the quick preset: one of each kind of answer that takes little time.
pub const QUICK: [&str; 5] = ["active-1", "http-keepalive", "idle-1000", "h2-streams", "ws-echo"];

/// Those that run only when they are asked for by name: each is a step between two others, and a
/// run of everything has its time limit.
pub const ON_DEMAND: [&str; 7] = [
    "idle-100",
    "h2-one",
    "tls-resume",
    "https-keepalive",
    "h2-tls-streams",
    "echo-64k",
    "stream-64",
];

/// Where WebSockets send back what they hear.
pub const WS_ECHO: &str = "/ws/echo";

/// Where what one says reaches all others.
pub const WS_CHAT: &str = "/ws/chat";

/// Their names.
pub fn names() -> Vec<String> {
    BUILT_IN.iter().map(|scenario| scenario.name.to_owned()).collect()
}

/// All workloads that come with iolab, in the order in which they are shown.
///
/// # Errors
/// When one of them is wrong, which is a fault of iolab.
pub fn all() -> Result<Vec<Workload>, String> {
    let read = |scenario: &BuiltIn| {
        let file = format!("scenarios/{}.toml", scenario.name);
        // That the load generator can do what they ask for is tested where it is called.
        crate::parse(scenario.name, &file, scenario.text, |_| Ok(()))
    };
    BUILT_IN.iter().map(read).collect()
}

/// Whether the server needs the document root.
pub fn is_file(workload: &Workload) -> bool {
    workload.path.as_ref().is_some_and(|path| path.starts_with(FILES_PATH))
}

/// `count` bytes of the known pattern.
pub fn pattern(count: u64) -> Vec<u8> {
    ALPHABET.iter().copied().cycle().take(count as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two workloads that are set beside each other as the price of a protocol differ in the
    /// protocol (and in what is sampled of idle connections).
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

    /// The points of the map are one workload with more and more connections, and the ladder of
    /// rates is that workload at more and more requests a second.
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
