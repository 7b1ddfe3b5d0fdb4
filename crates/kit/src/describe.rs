//! `--describe`: one line of JSON, by which the measuring side knows a server. Any executable that
//! is named `serve-NAME` and prints such a line can be measured.

use conn::Limits;
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::{Setup, shared_flags};
use crate::machine::Bound;
use crate::{Model, Place, Serves, Values, Workers, processes};

#[derive(Serialize)]
struct Description<'a> {
    name: &'a str,
    description: &'a str,
    place: Place,
    protocols: [&'a str; 4],
    /// Takes --tls.
    tls: bool,
    workers: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    workers_reason: Option<&'a str>,
    limits: AllLimits<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cannot: &'a [&'a str],
    /// Those that all servers share; `flavours` has the model's own.
    flags: Vec<String>,
    flavours: Vec<Value>,
    unavailable: Option<String>,
    /// A debug build is for tests, not for measurements.
    build: &'a str,
}

#[derive(Serialize)]
struct AllLimits<'a> {
    #[serde(flatten)]
    limits: &'a Limits,
    /// Connections that are served at once, over all workers.
    connections_max: usize,
    connections_max_reason: String,
    /// Memory that all connections together may hold, in bytes.
    memory_max_bytes: usize,
    memory_max_reason: &'a str,
}

/// The limits of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections that it can hold.
    pub(crate) conns: Bound,
    /// Threads that it can start.
    pub(crate) threads: Bound,
    /// Bytes that its connections may hold.
    pub(crate) memory: Bound,
}

/// The line, without its end.
pub(crate) fn line(model: &Model, setup: &Setup, bounds: Bounds) -> String {
    let (workers, workers_reason) = match model.workers {
        Workers::Loops => ("loops", None),
        Workers::One(reason) => ("one", Some(reason)),
    };
    let (connections_max, reason) = connections_max(model, setup, bounds);
    let flavours = model.flavours.iter().map(|flavour| {
        let values = match flavour.values {
            Values::Words(words) => json!(words),
            Values::Number(from, to) => json!({ "from": from, "to": to }),
        };
        let (flag, default, help) = (flavour.flag, flavour.default, flavour.help);
        json!({ "flag": flag, "values": values, "default": default, "help": help })
    });
    let description = Description {
        name: model.name,
        description: model.summary,
        place: model.place,
        protocols: ["echo", "http", "h2", "websocket"],
        tls: true,
        workers,
        workers_reason,
        limits: AllLimits {
            limits: &setup.limits,
            connections_max,
            connections_max_reason: reason,
            memory_max_bytes: bounds.memory.max,
            memory_max_reason: bounds.memory.reason,
        },
        cannot: model.cannot,
        flags: shared_flags(),
        flavours: flavours.collect(),
        unavailable: (model.unavailable)(),
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
    };
    // Numbers and text only: this cannot fail.
    serde_json::to_string(&description).unwrap_or_default()
}

/// How many connections are served at once, and why no more.
pub(crate) fn connections_max(model: &Model, setup: &Setup, bounds: Bounds) -> (usize, String) {
    let Bounds { conns, threads, .. } = bounds;
    let by_threads = |each: usize| ((threads.max / each).max(1), threads.reason.to_owned());
    let by_model = match model.serves {
        Serves::Descriptors => None,
        Serves::Only(max, reason) => Some((max, reason.to_owned())),
        Serves::Flavour(flag, reason) => {
            let chosen = setup.flavour_number(flag).map(|max| (max, reason.to_owned()));
            chosen.into_iter().chain([by_threads(1)]).min()
        }
        Serves::Processes(flag, reason) => {
            let chosen = setup.flavour_number(flag).map(|max| (max, reason.to_owned()));
            chosen.into_iter().chain([by_threads(processes::THREADS)]).min()
        }
        Serves::Threads(flag, word) => {
            let two = setup.flavours.iter().any(|(name, value)| *name == flag && value == word);
            Some(by_threads(if two { 2 } else { 1 }))
        }
    };
    match by_model {
        Some((max, reason)) if max <= conns.max => (max, reason),
        _ => (conns.max, conns.reason.to_owned()),
    }
}
