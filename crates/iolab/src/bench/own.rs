//! The user's own workloads: their files, and help on the keys.

use std::net::SocketAddr;
use std::path::PathBuf;

use record::{Preset, Workload};

use render::failure::Failure;
use render::text;

use rig::engine;

/// The keys of a scenario file, described by the schema of the result file.
pub fn keys_help() -> String {
    let schema = record::schema();
    let of_workload = &schema["$defs"]["Workload"]["properties"];
    let mut help =
        String::from("Keys of a scenario file (description and protocol are required):\n");
    for key in scenario::keys() {
        let told = of_workload[&key]["description"].as_str().unwrap_or_default();
        let told = told.replace('`', "").replace('\n', " ");
        // Wrapping counts the key as one word of the column's width.
        let line = text::wrap(&format!("~~{key:~<KEY_COLUMNS$} {told}"), KEY_COLUMNS + 3);
        help += &format!("{}\n", line.replace('~', " "));
    }
    help
}

/// Width of the column of keys: the longest is `idle_sample_connections`.
const KEY_COLUMNS: usize = 23;

/// Port of an address to which no connection is made: the discard service (RFC 863).
const DISCARD_PORT: u16 = 9;

/// Checks that the load generator supports the workload, without sending anything.
///
/// # Errors
/// One sentence: what is not supported, and what to write instead.
pub fn check(workload: &Workload) -> Result<(), String> {
    let address = SocketAddr::from(([127, 0, 0, 1], DISCARD_PORT));
    let settings = super::plan::settings(Preset::Default, 0);
    engine::plan(address, workload, &settings)
        .and_then(|plan| plan.check())
        .map_err(|e| e.to_string())
}

pub fn workloads(files: &[PathBuf]) -> Result<Vec<Workload>, Failure> {
    Ok(files.iter().map(|path| scenario::read(path, check)).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each key is explained, and each but `name` can be set.
    #[test]
    fn the_help_names_every_key() {
        let schema = record::schema();
        let of_workload = schema["$defs"]["Workload"]["properties"].as_object().unwrap();
        let mut known = scenario::keys();
        known.sort();
        let mut fields: Vec<_> = of_workload.keys().filter(|key| *key != "name").cloned().collect();
        fields.sort();
        assert_eq!(known, fields);
        let help = keys_help();
        for key in known {
            let line = help.lines().find(|line| line.trim_start().starts_with(&key)).unwrap();
            assert!(line.split_whitespace().count() > 2, "{line}");
        }
    }

    /// Each fault gets one sentence that names the line that it is on, and a way out.
    #[test]
    fn each_fault_is_told_with_its_line() {
        const HTTP: &str = "description = \"d\"\nprotocol = \"http\"\n";
        const H2: &str = "description = \"d\"\nprotocol = \"h2\"\n";
        const WS: &str = "description = \"d\"\nprotocol = \"websocket\"\n";
        const ECHO: &str = "description = \"d\"\nprotocol = \"echo\"\n";
        let cases = [
            (HTTP, "conections = 3", "line 3: unknown field `conections`, expected one of"),
            (HTTP, "connections = \"many\"", "line 3: invalid type: string \"many\", expected u32"),
            (HTTP, "connections = -1", "line 3: invalid value: integer `-1`, expected u32"),
            (HTTP, "connections = 0", "line 3: connections must be 1 to"),
            (HTTP, "connections = 3\nconnections = 4", "line 4: duplicate key"),
            (HTTP, "connections =", "line 3: "),
            ("", "protocol = \"http\"", "mine.toml: missing field `description`"),
            ("", "protocol = \"http\"\ndescription = \" \"", "line 2: describe the workload"),
            ("description = \"d\"\n", "protocol = \"spdy\"", "line 2: unknown variant `spdy`"),
            (HTTP, "\npipelining = 0", "line 4: pipelining must be 1 to"),
            (HTTP, "connect_per_request = true\npipelining = 2", "line 4: one request per"),
            (HTTP, "path = \"/x\"", "line 3: the length of the replies on this path"),
            (HTTP, "path = \"x y\"\npayload_bytes = 3", "line 3: cannot use"),
            (
                HTTP,
                "path = \"/bytes/9\"\npayload_bytes = 8",
                "line 4: the reply on this path has 9",
            ),
            (HTTP, "path = \"/files/a\"\npayload_bytes = 1", "line 3: the document root of a run"),
            (HTTP, "path = \"/echo\"\npayload_bytes = 1", "line 3: /echo needs POST"),
            (HTTP, "post = true\npath = \"/\"", "line 4: a POST needs the route"),
            (HTTP, "arrivals = \"poisson\"", "line 3: arrivals are for an open loop"),
            (HTTP, "rate_per_s = 0", "line 3: no request would ever fall due"),
            (HTTP, "streaming = true", "line 3: only echo messages can be streamed"),
            (ECHO, "streaming = true\nrate_per_s = 9", "line 4: a stream is as fast as the server"),
            (
                HTTP,
                "idle_connections = 9\nidle_sample_connections = 8",
                "line 4: the idle sample includes all idle connections: give at least 9",
            ),
            (ECHO, "streaming = true\npipelining = 2", "line 4: a stream has no pipeline"),
            (ECHO, "path = \"/\"", "line 3: an echo server has no paths"),
            (ECHO, "post = true", "line 3: a POST is measured over HTTP/1.1"),
            (H2, "post = true", "line 3: a POST is measured over HTTP/1.1"),
            (ECHO, "tls = true", "line 3: TLS needs HTTP or WebSocket"),
            (HTTP, "tls_resume = true", "line 3: without TLS there is no session"),
            (HTTP, "tls = true\ntls_resume = true", "line 4: a session is resumed by a new"),
            (HTTP, "tls = true\npost = true\npayload_bytes = 99_000", "line 5: over TLS a POST"),
            (HTTP, "fan_out = true", "line 3: a fan-out needs WebSockets"),
            (WS, "fan_out = true\npath = \"/ws/echo\"", "line 4: a fan-out needs the route"),
            (WS, "fan_out = true\nconnections = 1", "line 4: a chat needs a sender"),
            (WS, "path = \"/ws/chat\"", "line 3: /ws/chat sends a message to"),
            (WS, "path = \"/ws/clock/5\"", "line 3: /ws/clock sends without requests"),
            (WS, "payload_bytes = 70_000", "line 3: a message may have at most 65536 bytes"),
            (ECHO, "payload_bytes = 0", "line 3: an echo message needs at least 1 byte"),
            (ECHO, "payload_bytes = 99_000_000", "line 3: payload must be at most"),
        ];
        for (head, rest, words) in cases {
            let told =
                scenario::parse("mine", "mine.toml", &format!("{head}{rest}"), check).unwrap_err();
            assert!(told.starts_with("mine.toml") && told.contains(words), "{rest}: {told}");
            assert!(!told.contains('\n') && told.len() > words.len() + 10, "{rest}: {told}");
        }
    }

    #[test]
    fn the_load_generator_can_do_what_comes_with_iolab() {
        for scenario in &scenario::workload::BUILT_IN {
            scenario::parse(scenario.name, scenario.name, scenario.text, check).unwrap();
        }
    }
}
