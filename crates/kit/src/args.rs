//! The command line: the same flags for every model, and each model's own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Args, Command, FromArgMatches, ValueEnum, value_parser};
use conn::{Limits, Protocol};

use crate::tls::Identity;
use crate::{Flavour, Model, Values, Workers};

/// The flags of the command line.
#[derive(Debug, Args)]
pub(crate) struct Typed {
    /// Address to listen on. With port 0 the kernel picks a free port; the first line of output
    /// names it
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Protocol: echo sends every byte back, http is HTTP/1.1, HTTP/2 and WebSocket
    #[arg(long, value_enum, default_value_t = ProtocolName::Http)]
    protocol: ProtocolName,

    /// Number of workers, each with its own listener on the same port (SO_REUSEPORT)
    #[arg(
        long, value_name = "N", default_value_t = 1,
        value_parser = value_parser!(u16).range(1..=256)
    )]
    workers: u16,

    /// Serve the files of this directory under /files/
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Maximum number of connections at once. Further ones wait in the listener's backlog
    /// [default: as many as the limit of descriptors allows]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    conns_max: Option<u32>,

    /// Maximum memory of all connections together, in bytes or as 64MiB. Above it, the connections
    /// that hold the most memory are closed [default: a part of the control group's or the
    /// machine's memory]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory_max: Option<usize>,

    /// Close a connection that was idle for this long
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    idle_timeout: Duration,

    /// Answer 408 if a request head takes longer than this from its first byte
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    head_timeout: Duration,

    /// Answer 408 if no byte of a request body arrives for this long
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    body_timeout: Duration,

    /// Close a connection if the peer acknowledges none of the output for this long
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    write_timeout: Duration,

    /// After SIGTERM or Ctrl-C, give requests in progress this long to finish
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    drain_timeout: Duration,

    /// Use TLS (1.2 and 1.3; ALPN: h2, http/1.1). Without --cert the certificate is self-signed
    /// and is kept in ${XDG_STATE_HOME:-~/.local/state}/iolab/self-signed.pem
    #[arg(long)]
    tls: bool,

    /// Use TLS with the certificate in this PEM file, followed by its intermediate certificates
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// PEM file with the certificate's private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Close a connection if its TLS handshake takes longer than this
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    handshake_timeout: Duration,

    /// Also allow web pages of this origin to open a WebSocket; * allows all origins. May be
    /// repeated [default: only the server's own origin]
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    allow_origin: Vec<String>,

    /// Maximum number of open HTTP/2 streams per connection; further ones are refused
    #[arg(
        long, value_name = "N", default_value_t = 128,
        value_parser = value_parser!(u32).range(1..=10_000)
    )]
    streams_max: u32,

    /// Maximum size of a WebSocket message, in bytes; a larger one is answered with Close 1009
    #[arg(
        long, value_name = "BYTES", default_value_t = 1 << 20,
        value_parser = value_parser!(u32).range(125..=1 << 30)
    )]
    message_bytes_max: u32,

    /// Maximum number of unsent bytes for one member of the chat; a member that has more is closed
    /// with code 1013
    #[arg(
        long, value_name = "BYTES", default_value_t = 1 << 20,
        value_parser = value_parser!(u32).range(1024..=1 << 30)
    )]
    chat_backlog_bytes_max: u32,

    /// Close a connection after this number of requests; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    keepalive_requests: u64,

    /// Maximum size of a request head, in bytes; a larger one is answered with 431
    #[arg(
        long, value_name = "BYTES", default_value_t = 16 << 10,
        value_parser = value_parser!(u32).range(64..=1 << 20)
    )]
    head_bytes_max: u32,

    /// Maximum length of a request target, in bytes; a longer one is answered with 414
    #[arg(
        long, value_name = "BYTES", default_value_t = 8 << 10,
        value_parser = value_parser!(u32).range(16..=1 << 20)
    )]
    target_bytes_max: u32,

    /// Maximum size of a request body, in bytes; a larger one is answered with 413
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    body_bytes_max: u64,

    /// Stop reading from a connection while it has this many bytes of unsent output
    #[arg(
        long, value_name = "BYTES", default_value_t = 128 << 10,
        value_parser = value_parser!(u32).range(1024..=1 << 30)
    )]
    output_high_water_bytes: u32,

    /// Print a description of this server as one line of JSON, and exit
    #[arg(long)]
    describe: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolName {
    Echo,
    Http,
}

/// The flags, in the types of the rest of the program.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) listen: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) tls: Option<Identity>,
    pub(crate) workers: usize,
    pub(crate) root: Option<PathBuf>,
    pub(crate) conns_max: Option<usize>,
    pub(crate) memory_max: Option<usize>,
    pub(crate) limits: Limits,
    pub(crate) origins_allowed: Vec<String>,
    pub(crate) describe: bool,
    pub(crate) flavours: Vec<(&'static str, String)>,
}

impl Setup {
    /// The value of one of the model's numeric flags.
    pub(crate) fn flavour_number(&self, flag: &str) -> Option<usize> {
        let (_, value) = self.flavours.iter().find(|(name, _)| *name == flag)?;
        value.parse().ok()
    }
}

/// The flags that all servers share.
pub(crate) fn shared_flags() -> Vec<String> {
    let command = Typed::augment_args(Command::new("serve"));
    command.get_arguments().filter_map(Arg::get_long).map(str::to_owned).collect()
}

/// Reads the command line. Exits with clap's text on `--help` and on a mistake.
pub(crate) fn parse(model: &'static Model) -> Setup {
    let matches = command(model).get_matches();
    let typed = Typed::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let flavours = model.flavours.iter().map(|flavour| {
        let value = matches.get_one::<String>(flavour.flag).cloned();
        (flavour.flag, value.unwrap_or_else(|| flavour.default.to_owned()))
    });
    let flavours = flavours.collect();
    if let Workers::One(reason) = model.workers
        && typed.workers > 1
    {
        let message =
            format!("--workers {}: serve-{} has one worker: {reason}\n", typed.workers, model.name);
        command(model).error(clap::error::ErrorKind::ValueValidation, message).exit();
    }
    Setup {
        listen: typed.listen,
        protocol: match typed.protocol {
            ProtocolName::Echo => Protocol::Echo,
            ProtocolName::Http => Protocol::Http,
        },
        tls: identity(&typed),
        workers: usize::from(typed.workers),
        limits: limits(&typed),
        origins_allowed: typed.allow_origin,
        root: typed.root,
        conns_max: typed.conns_max.map(|max| max as usize),
        memory_max: typed.memory_max,
        describe: typed.describe,
        flavours,
    }
}

/// The certificate to use; `None`: no TLS.
fn identity(typed: &Typed) -> Option<Identity> {
    match (&typed.cert, &typed.key) {
        (Some(cert), Some(key)) => Some(Identity::Files { cert: cert.clone(), key: key.clone() }),
        _ => typed.tls.then_some(Identity::SelfSigned),
    }
}

fn limits(typed: &Typed) -> Limits {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Limits {
        head_bytes_max: typed.head_bytes_max as usize,
        target_bytes_max: typed.target_bytes_max as usize,
        body_bytes_max: typed.body_bytes_max,
        output_high_water_bytes: typed.output_high_water_bytes as usize,
        push_high_water_bytes: 2 * typed.output_high_water_bytes as usize,
        streams_max: typed.streams_max,
        message_bytes_max: typed.message_bytes_max as usize,
        chat_backlog_bytes_max: typed.chat_backlog_bytes_max as usize,
        keepalive_requests_max: typed.keepalive_requests,
        handshake_timeout_ms: millis(typed.handshake_timeout),
        idle_timeout_ms: millis(typed.idle_timeout),
        head_timeout_ms: millis(typed.head_timeout),
        body_timeout_ms: millis(typed.body_timeout),
        write_timeout_ms: millis(typed.write_timeout),
        drain_timeout_ms: millis(typed.drain_timeout),
        ..Limits::default()
    }
}

fn command(model: &'static Model) -> Command {
    let name = format!("serve-{}", model.name);
    // `about` is set after `augment_args`, which sets it to the docstring of `Typed`.
    let mut command = Typed::augment_args(Command::new(name.clone()))
        .bin_name(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(model.summary)
        .long_about(format!("{}\n\n{}", model.summary, model.about))
        .after_help(AFTER_HELP);
    for flavour in model.flavours {
        command = command.arg(flavour_arg(flavour));
    }
    command
}

fn flavour_arg(flavour: &'static Flavour) -> Arg {
    let arg = Arg::new(flavour.flag)
        .long(flavour.flag)
        .help(flavour.help)
        .default_value(flavour.default)
        .help_heading("Flags of this model only");
    match flavour.values {
        Values::Words(words) => arg.value_parser(PossibleValuesParser::new(words)),
        Values::Number(from, to) => arg.value_name("N").value_parser(move |text: &str| {
            let number = text.parse::<u64>().ok().filter(|n| (from..=to).contains(n));
            number.map(|n| n.to_string()).ok_or(format!("give a number from {from} to {to}"))
        }),
    }
}

/// An origin that may open a WebSocket. It is checked at start, because a mistyped origin would
/// never match.
fn origin(text: &str) -> Result<String, String> {
    conn::check_origin(text).map(|()| text.to_owned())
}

/// A number of bytes such as 1000000, 512KiB, 64MiB or 2GiB. At least 1 MiB: that is enough for a
/// few connections.
fn bytes(text: &str) -> Result<usize, String> {
    const UNITS: [(&str, u32); 3] = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = UNITS.iter().find_map(|(name, shift)| Some((text.strip_suffix(name)?, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|&bytes| bytes >= 1 << 20).ok_or("give 1MiB or more, such as 64MiB".to_owned())
}

/// A time such as 30s, 500ms or 2m. The upper bound keeps the sum of the clock and a timeout from
/// an overflow.
fn duration(text: &str) -> Result<Duration, String> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; give a time such as 30s"))?;
    if duration < Duration::from_millis(1) || duration > DAY {
        return Err("give a time from 1ms to 1day".to_owned());
    }
    Ok(duration)
}

const AFTER_HELP: &str = "\
Examples. ADDR is the address in the first line of output:
  curl http://ADDR/                          13 bytes
  curl http://ADDR/bytes/100000              100,000 bytes
  curl --data hello http://ADDR/echo         the request's body
  curl http://ADDR/delay/500                 answers after 500 ms; do other clients wait too?
  curl http://ADDR/work/500000               uses the CPU for 500 ms; do other clients wait too?
  curl http://ADDR/news/1000                 polling: the newest message of one a second, at once
  curl http://ADDR/news/1000/7               long polling: the newest message, once it is not 7
  curl --no-buffer http://ADDR/events/1000   server-sent events: each message when it is due
  curl http://ADDR/stats                     the server's own counters, as JSON
HTTP/2 on the same port, without TLS only by prior knowledge:
  curl --http2-prior-knowledge http://ADDR/
  nghttp -v http://ADDR/delay/500 http://ADDR/    two streams at once: which answer is first?
WebSocket on the same port, with a client such as websocat or wscat, or in a browser's console:
  ws://ADDR/ws/echo                          sends every message back
  ws://ADDR/ws/clock/1000                    sends a message every 1000 ms
  ws://ADDR/ws/chat                          sends every message to all other members
With --tls, the same as https:// and wss://, and HTTP/2 if the client offers it by ALPN:
  curl --insecure https://ADDR/              does not check the certificate
  curl --cacert ~/.local/state/iolab/self-signed.pem https://ADDR/    checks it
Ctrl-C stops the server. The last line of output is a JSON object of its counters.";

#[cfg(test)]
mod tests {
    use clap::ArgMatches;

    use super::*;
    use crate::{Place, Serves, Values};

    const MODEL: Model = Model {
        name: "test",
        summary: "a model for tests",
        about: "Does not wait.",
        place: Place::IN_IO,
        nonblocking_sockets: false,
        workers: Workers::Loops,
        serves: Serves::Descriptors,
        cannot: &[],
        flavours: &[
            Flavour {
                flag: "trigger",
                values: Values::Words(&["level", "edge"]),
                default: "level",
                help: "a word",
            },
            Flavour {
                flag: "threads",
                values: Values::Number(1, 300),
                default: "8",
                help: "a number",
            },
        ],
        unavailable: Model::ALWAYS,
    };

    fn read(flags: &str) -> Result<(Typed, ArgMatches), clap::Error> {
        let words = ["serve-test"].into_iter().chain(flags.split_whitespace());
        let matches = command(&MODEL).try_get_matches_from(words)?;
        Ok((Typed::from_arg_matches(&matches)?, matches))
    }

    fn typed(flags: &str) -> Typed {
        read(flags).unwrap_or_else(|error| panic!("{flags}: {error}")).0
    }

    #[test]
    fn the_command_itself_is_well_formed() {
        command(&MODEL).debug_assert();
    }

    #[test]
    fn without_flags_the_limits_are_those_of_the_core() {
        assert_eq!(limits(&typed("")), Limits::default());
        let typed = typed("");
        assert!(typed.listen.ip().is_loopback() && typed.listen.port() == 0);
        assert_eq!((typed.protocol, typed.workers), (ProtocolName::Http, 1));
    }

    #[test]
    fn every_flag_of_a_limit_changes_that_limit_alone() {
        let defaults = Limits::default;
        for (flags, wanted) in [
            ("--idle-timeout 2m", Limits { idle_timeout_ms: 120_000, ..defaults() }),
            ("--head-timeout 500ms", Limits { head_timeout_ms: 500, ..defaults() }),
            ("--body-timeout 1s", Limits { body_timeout_ms: 1_000, ..defaults() }),
            ("--write-timeout 1s500ms", Limits { write_timeout_ms: 1_500, ..defaults() }),
            ("--drain-timeout 1ms", Limits { drain_timeout_ms: 1, ..defaults() }),
            ("--keepalive-requests 7", Limits { keepalive_requests_max: 7, ..defaults() }),
            ("--handshake-timeout 3s", Limits { handshake_timeout_ms: 3_000, ..defaults() }),
            ("--streams-max 7", Limits { streams_max: 7, ..defaults() }),
            ("--message-bytes-max 125", Limits { message_bytes_max: 125, ..defaults() }),
            (
                "--chat-backlog-bytes-max 1024",
                Limits { chat_backlog_bytes_max: 1024, ..defaults() },
            ),
            ("--head-bytes-max 64", Limits { head_bytes_max: 64, ..defaults() }),
            ("--target-bytes-max 16", Limits { target_bytes_max: 16, ..defaults() }),
            ("--body-bytes-max 0", Limits { body_bytes_max: 0, ..defaults() }),
            (
                "--output-high-water-bytes 1024",
                Limits { output_high_water_bytes: 1024, push_high_water_bytes: 2048, ..defaults() },
            ),
        ] {
            assert_eq!(limits(&typed(flags)), wanted, "{flags}");
        }
    }

    #[test]
    fn mistakes_are_refused_and_the_message_names_the_flag() {
        for flags in [
            "--listen localhost",
            "--listen 127.0.0.1",
            "--protocol gopher",
            "--workers 0",
            "--workers 257",
            "--conns-max 0",
            "--memory-max 64MB",
            "--memory-max 1023KiB",
            "--memory-max 99999999999GiB",
            "--idle-timeout 0s",
            "--idle-timeout 30",
            "--idle-timeout 2days",
            "--head-timeout soon",
            "--head-bytes-max 63",
            "--target-bytes-max 2000000",
            "--output-high-water-bytes 1023",
            "--keepalive-requests=-1",
            "--cert cert.pem",
            "--key key.pem --tls",
            "--handshake-timeout 0s",
            "--trigger both",
            "--threads 301",
            "--threads many",
            "--no-such-flag",
        ] {
            let error = read(flags).expect_err(flags);
            assert_eq!(error.exit_code(), 2, "{flags}");
            let flag = flags.split([' ', '=']).next().unwrap_or_default();
            assert!(error.to_string().contains(flag), "{flags}: {error}");
        }
    }

    #[test]
    fn memory_is_given_in_bytes_or_larger_units() {
        for (text, wanted) in [("1048576", 1 << 20), ("2048KiB", 2 << 20), ("64MiB", 64 << 20)] {
            assert_eq!(typed(&format!("--memory-max {text}")).memory_max, Some(wanted));
        }
    }

    #[test]
    fn tls_is_asked_for_in_two_ways() {
        let files = || Identity::Files { cert: "a".into(), key: "b".into() };
        for (flags, wanted) in [
            ("", None),
            ("--tls", Some(Identity::SelfSigned)),
            ("--tls --cert a --key b", Some(files())),
            ("--cert a --key b", Some(files())),
        ] {
            assert_eq!(identity(&typed(flags)), wanted, "{flags}");
        }
    }

    #[test]
    fn a_model_has_its_own_flags() {
        let value = |flags: &str, flag: &str| {
            let (_, matches) = read(flags).unwrap_or_else(|error| panic!("{flags}: {error}"));
            matches.get_one::<String>(flag).cloned().unwrap_or_default()
        };
        assert_eq!(value("", "trigger"), "level");
        assert_eq!(value("--trigger edge", "trigger"), "edge");
        assert_eq!(value("--threads 300", "threads"), "300");
        assert_eq!(value("--threads 007", "threads"), "7");
    }

    #[test]
    fn the_long_help_shows_the_model_and_what_to_try() {
        let help = command(&MODEL).render_long_help().to_string();
        for text in
            [MODEL.summary, MODEL.about, "--trigger", "http://ADDR/", "https://ADDR/", "ws://"]
        {
            assert!(help.contains(text), "{text}");
        }
    }
}
