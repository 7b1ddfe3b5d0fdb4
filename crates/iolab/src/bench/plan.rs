//! What will be measured, in what order: presets and randomised complete blocks.

use record::{Model, Preset, Role, Settings, Skip, Slot, SplitMix64, Workload};
use serde_json::Value;

use crate::failure::Failure;

use super::discover::BESIDE;
use super::workload;

/// Descriptors that a server needs beside its connections (listener, epoll, files, stdio), with
/// room.
const DESCRIPTORS_SPARE: u64 = 64;

/// Shortest window that a budget may ask for, in seconds. Measured with this program, 120 windows
/// of each length interleaved on a busy machine: CPU per request spreads by 20 % over 0.2 s, 18 %
/// over 0.25 s and 16 % over 0.5 s (coefficients of variation, mean of four cells). So the length
/// of a window is not what decides, and the time of a long one gives more as a second round.
/// Below 0.2 s an open loop of 5,000 requests/s has too few of them for a 99th percentile.
pub const WINDOW_MIN_S: f64 = 0.2;

/// Shortest warm-up, in seconds: some thousand requests fill caches, branch predictors and TCP
/// windows.
pub const WARM_UP_MIN_S: f64 = 0.05;

/// Window of a counting pass, in seconds: system calls per request are steady to a fraction of a
/// percent over some thousand requests.
const COUNTING_WINDOW_S: f64 = 0.1;

/// The settings that belong to a preset. Rounds and seed can be set apart. See [`WINDOW_MIN_S`]
/// for why windows are short.
pub fn settings(preset: Preset, seed: u64) -> Settings {
    let (rounds, warm_up_s, window_s, idle_sample_rounds, counting_rounds) = match preset {
        Preset::Quick => (3, WARM_UP_MIN_S, WINDOW_MIN_S, 1, 1),
        Preset::Default => (7, WARM_UP_MIN_S, WINDOW_MIN_S, 3, 1),
        Preset::Thorough => (20, 0.15, 0.5, 6, 3),
    };
    Settings {
        preset,
        seed,
        rounds,
        warm_up_s,
        window_s,
        idle_sample_s: 0.3,
        idle_sample_rounds,
        counting_rounds,
        budget_s: None,
        server_cores: Vec::new(),
        client_cores: Vec::new(),
    }
}

/// The settings of one trial. Its seed belongs to its round, so that in an open loop requests fall
/// due at the same times for every model of a round, and at other times in the next round.
pub fn settings_of_trial(settings: &Settings, slot: &Slot) -> Settings {
    let mut random = SplitMix64::new(settings.seed ^ u64::from(slot.round));
    let mut settings = Settings { seed: random.next_u64(), ..settings.clone() };
    if slot.role == Role::Counting {
        settings.window_s = settings.window_s.min(COUNTING_WINDOW_S);
        settings.warm_up_s = settings.warm_up_s.min(WARM_UP_MIN_S);
    }
    settings
}

/// Whether a trial takes the idle sample.
pub fn takes_idle_sample(slot: &Slot, workload: &Workload, settings: &Settings) -> bool {
    workload.idle_sample_connections > 0
        && slot.role == Role::Timed
        && slot.round <= settings.idle_sample_rounds
}

/// The workloads to run: those asked for by name, or those of the preset and the user's own.
pub fn workloads(
    preset: Preset,
    own: Vec<Workload>,
    names: &[String],
) -> Result<Vec<Workload>, Failure> {
    let built_in = workload::all()?;
    for (at, workload) in own.iter().enumerate() {
        let name = &workload.name;
        if built_in.iter().any(|other| other.name == *name) {
            return Err(Failure(format!(
                "--scenario: iolab has a workload {name} of its own: rename {name}.toml"
            )));
        }
        if own[..at].iter().any(|other| other.name == *name) {
            return Err(Failure(format!(
                "--scenario: two files are called {name}.toml: rename one of them"
            )));
        }
    }
    let is_known = |name: &String| built_in.iter().chain(&own).any(|w| w.name == *name);
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        let known: Vec<_> = built_in.iter().chain(&own).map(|w| w.name.as_str()).collect();
        return Err(Failure(format!(
            "--workloads: no workload is called {name:?}; there are {}",
            known.join(", ")
        )));
    }
    let of_preset = |w: &Workload| match preset {
        Preset::Quick => workload::QUICK.contains(&w.name.as_str()),
        Preset::Default | Preset::Thorough => !workload::ON_DEMAND.contains(&w.name.as_str()),
    };
    let named = |w: &Workload| names.contains(&w.name);
    let none_named = names.is_empty();
    // Who gives a file wants that one measured; others join it by name.
    let all = |w: &Workload| own.is_empty() && of_preset(w);
    let built_in = built_in
        .into_iter()
        .filter(|w| if none_named { all(w) } else { named(w) })
        .collect::<Vec<_>>();
    let own = own.into_iter().filter(|w| none_named || named(w));
    Ok(built_in.into_iter().chain(own).collect())
}

/// The cells that cannot be measured, known from what the servers say about themselves and from the
/// limit of descriptors. Only idle connections are counted against a server's limit: a server that
/// cannot serve 64 at once is measured, and the table shows what became of the others.
pub fn skips(models: &[Model], workloads: &[Workload], descriptors: u64) -> Vec<Skip> {
    let mut skips = Vec::new();
    for model in models {
        for workload in workloads {
            let reason = other_protocols(model, workload)
                .or_else(|| other_paths(model, workload))
                .or_else(|| no_company(model, workload))
                .or_else(|| too_many_connections(model, workload, descriptors));
            if let Some(reason) = reason {
                let (model, workload) = (model.label.clone(), Some(workload.name.clone()));
                skips.push(Skip { model, workload, reason, by_design: false });
            }
        }
    }
    skips
}

/// The cells of flavours that take part beside their models (see [`BESIDE`]) where they would only
/// repeat them.
pub fn repeated(models: &[Model], workloads: &[Workload]) -> Vec<Skip> {
    let mut skips = Vec::new();
    for (label, protocol) in BESIDE {
        let others = || workloads.iter().filter(|workload| workload.protocol != protocol);
        if models.iter().any(|model| model.label == label) {
            skips.extend(others().map(|workload| Skip {
                model: label.to_owned(),
                workload: Some(workload.name.clone()),
                reason: format!("differs from its model under {protocol} only"),
                by_design: true,
            }));
        }
    }
    skips
}

/// What a server does not speak, by its own account: `protocols` and `tls` in `--describe`.
fn other_protocols(model: &Model, workload: &Workload) -> Option<String> {
    let name = match workload.protocol.as_str() {
        "h2" => "HTTP/2",
        "websocket" => "WebSocket",
        other => other,
    };
    if !model.protocols.contains(&workload.protocol) {
        return Some(format!("does not speak {name}"));
    }
    let tls = model.describe.get("tls").and_then(Value::as_bool) == Some(true);
    (workload.tls && !tls).then(|| "does not speak TLS".into())
}

/// Before a load over HTTP/2, WebSocket or kept TLS connections begins, each of them has been
/// greeted, and a chat needs all of its members: a server that holds fewer at once cannot have it.
/// That is its limit, and a result. (HTTP/1.1 and echo greet nobody, so there the table shows what
/// becomes of the others.)
fn no_company(model: &Model, workload: &Workload) -> Option<String> {
    let framed = ["h2", "websocket"].contains(&workload.protocol.as_str());
    if !framed && (!workload.tls || workload.connect_per_request) {
        return None;
    }
    // Its own words, where it has some.
    let cannot = model.describe.get("cannot").and_then(Value::as_array).into_iter().flatten();
    let mut cannot = cannot.filter_map(Value::as_str);
    if let Some(words) = cannot.find(|words| workload.fan_out && words.starts_with("chat")) {
        return Some(format!("cannot {words}"));
    }
    let needed = u64::from(workload.connections);
    let most = model.connections_max.filter(|&most| most < needed)?;
    let why = model.connections_max_reason.as_deref().unwrap_or("its own limit");
    let plural = if most == 1 { "" } else { "s" };
    Some(format!("holds {most} connection{plural} at once ({why}); this greets {needed} first"))
}

/// A server that says which paths it answers (`paths` in `--describe`) answers no others. A path
/// that ends in `*` stands for all that begin so; a method before it, for that method instead of
/// GET. Without the list a server answers all paths that the workloads know.
///
/// One that says `"closes_when_asked": false` leaves a connection open on which the client asked
/// for its end (RFC 9112, section 9.6), as a request with a connection of its own does.
fn other_paths(model: &Model, workload: &Workload) -> Option<String> {
    let closes = model.describe.get("closes_when_asked").and_then(Value::as_bool);
    if workload.connect_per_request && closes == Some(false) {
        return Some("does not close a connection when asked (Connection: close)".into());
    }
    let paths = model.describe.get("paths")?.as_array()?;
    let wanted = workload.path.as_deref()?;
    let request = if workload.post { format!("POST {wanted}") } else { wanted.to_owned() };
    let answers = |path: &str| match path.strip_suffix('*') {
        Some(beginning) => request.starts_with(beginning),
        None => request == path,
    };
    let known: Vec<_> = paths.iter().filter_map(Value::as_str).collect();
    (!known.iter().any(|path| answers(path)))
        .then(|| format!("does not answer {request}, only {}", known.join(", ")))
}

fn too_many_connections(model: &Model, workload: &Workload, descriptors: u64) -> Option<String> {
    if workload.idle_connections == 0 {
        return None;
    }
    let needed = u64::from(workload.idle_connections + workload.connections);
    if let Some(most) = model.connections_max.filter(|&most| most < needed) {
        let why = model.connections_max_reason.as_deref().unwrap_or("its own limit");
        let plural = if most == 1 { "" } else { "s" };
        return Some(format!(
            "holds {most} connection{plural} at once ({why}); this needs {needed}"
        ));
    }
    (needed + DESCRIPTORS_SPARE > descriptors).then(|| {
        format!(
            "needs {} descriptors and this process may open {descriptors}: raise `ulimit -n`",
            needed + DESCRIPTORS_SPARE
        )
    })
}

/// What a schedule is made from.
#[derive(Clone, Copy)]
pub struct Cells<'a> {
    /// The models, the floor among them.
    pub models: &'a [Model],
    /// The workloads.
    pub workloads: &'a [Workload],
    /// What is left out.
    pub skips: &'a [Skip],
    /// Label of the model that runs twice a round.
    pub reference: &'a str,
}

impl<'a> Cells<'a> {
    /// The models that are measured under a workload.
    fn models_of(self, workload: &'a str) -> impl Iterator<Item = &'a str> {
        let labels = self.models.iter().map(|model| model.label.as_str());
        labels.filter(move |model| !self.skips.iter().any(|skip| is_cell(skip, model, workload)))
    }
}

/// Every trial of the run: in each round each workload once, in fresh random order, and under it
/// each model once, in fresh random order too, the reference a second time as sentinel. The models
/// of a workload are a complete block of some seconds: what changes more slowly than that (another
/// tenant, a warmer CPU) meets all of them alike and is gone from their ratios. With all cells of a
/// round in one block, of a minute or two, two runs of one server differed twice as much.
///
/// The counting passes come last: what is timed does not wait for them, and a run that is
/// interrupted has its times first. The round of a counting trial only tells the passes apart.
pub fn schedule(cells: Cells, settings: &Settings) -> Vec<Slot> {
    let mut random = SplitMix64::new(settings.seed);
    let mut slots: Vec<Slot> = Vec::new();
    let mut append = |round: u32, roles: fn(bool) -> &'static [Role]| {
        let mut blocks: Vec<_> = cells.workloads.iter().map(|workload| &workload.name).collect();
        random.shuffle(&mut blocks);
        for name in blocks {
            let with_roles =
                |model| roles(model == cells.reference).iter().map(move |role| (model, *role));
            let mut block: Vec<_> = cells.models_of(name).flat_map(with_roles).collect();
            random.shuffle(&mut block);
            for (model, role) in block {
                let (position, workload) = (slots.len() as u32, name.clone());
                let model = model.to_owned();
                slots.push(Slot { round, position, workload, model, role });
            }
        }
    };
    for round in 1..=settings.rounds {
        append(round, |is_reference| match is_reference {
            true => &[Role::Timed, Role::Sentinel],
            false => &[Role::Timed],
        });
    }
    let passes = settings.counting_rounds.min(settings.rounds);
    for round in settings.rounds - passes + 1..=settings.rounds {
        append(round, |_| &[Role::Counting]);
    }
    slots
}

/// Takes all timed rounds out of a schedule that have not begun at place `at`, which is the first
/// of a round: the counting passes follow at once, as many as there are rounds at most.
pub fn drop_rounds(schedule: &mut Vec<Slot>, settings: &mut Settings, at: usize) {
    let planned = settings.rounds;
    settings.rounds = schedule[..at].last().map_or(0, |slot| slot.round);
    let mut place = 0;
    schedule.retain(|slot| {
        place += 1;
        let kept_pass = slot.role == Role::Counting && slot.round + settings.rounds > planned;
        place <= at || kept_pass
    });
    for (position, slot) in schedule.iter_mut().enumerate().skip(at) {
        slot.position = position as u32;
        slot.round = slot.round + settings.rounds - planned;
    }
}

fn is_cell(skip: &Skip, model: &str, workload: &str) -> bool {
    skip.model == model && skip.workload.as_deref().is_none_or(|name| name == workload)
}

/// How long a trial should take, in seconds: for the time left, corrected by the pace so far.
pub fn expected_s(slot: &Slot, workloads: &[Workload], settings: &Settings) -> f64 {
    /// Start, verification and stop of a server take 20 ms on a quiet machine; the rest is the mean
    /// of what servers cost that answer late or never, such as serial with its full backlog.
    const OVERHEAD_S: f64 = 0.06;
    /// Opening, exercising and closing one idle connection.
    const IDLE_CONNECTION_S: f64 = 170e-6;
    /// A TLS handshake, both sides.
    const HANDSHAKE_S: f64 = 1e-3;
    let own = settings_of_trial(settings, slot);
    let mut expected = OVERHEAD_S + own.warm_up_s + own.window_s;
    if let Some(workload) = workloads.iter().find(|w| w.name == slot.workload) {
        let each = IDLE_CONNECTION_S + if workload.tls { HANDSHAKE_S } else { 0.0 };
        let mut held = workload.idle_connections;
        if takes_idle_sample(slot, workload, settings) {
            expected += settings.idle_sample_s;
            held = held.max(workload.idle_sample_connections);
        }
        expected += f64::from(held) * each;
        if workload.tls && !workload.connect_per_request {
            expected += f64::from(workload.connections) * HANDSHAKE_S;
        }
    }
    expected
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn plan(settings: &Settings) -> Vec<Slot> {
        let models = [fixture::model("epoll"), fixture::model("poll"), fixture::model("select")];
        let workloads = workloads(Preset::Default, Vec::new(), &[]).unwrap();
        let skips = skips(&models, &workloads, 20_000);
        let cells =
            Cells { models: &models, workloads: &workloads, skips: &skips, reference: "epoll" };
        schedule(cells, settings)
    }

    #[test]
    fn every_round_is_a_complete_block_in_an_order_of_its_own() {
        let settings = settings(Preset::Default, 1);
        let slots = plan(&settings);
        let (mut orders, mut first) = (BTreeSet::new(), BTreeSet::new());
        for round in 1..=settings.rounds {
            let is_timed = |slot: &&Slot| slot.round == round && slot.role != Role::Counting;
            let block: Vec<_> = slots.iter().filter(is_timed).collect();
            let mut times = BTreeMap::new();
            for slot in &block {
                *times
                    .entry((&slot.workload, &slot.model, slot.role == Role::Sentinel))
                    .or_insert(0) += 1;
            }
            assert!(times.values().all(|&count| count == 1));
            // 19 workloads x (3 models + sentinel) - select cannot hold 1,000 and 10,000 idle ones.
            assert_eq!(times.len(), 19 * 4 - 2);
            // A workload's models stand together, so that little time passes between them.
            let mut workloads: Vec<_> = block.iter().map(|slot| &slot.workload).collect();
            workloads.dedup();
            assert_eq!(workloads.len(), 19);
            orders.insert(block.iter().map(|s| (&s.workload, &s.model)).collect::<Vec<_>>());
            first.insert(workloads[0]);
        }
        assert_eq!(orders.len(), settings.rounds as usize);
        assert!(first.len() > 1, "the workloads come in an order of their own");
        assert!(slots.iter().enumerate().all(|(i, slot)| slot.position as usize == i));
    }

    #[test]
    fn the_seed_decides_the_order() {
        let of_seed = |seed| plan(&settings(Preset::Default, seed));
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
    }

    #[test]
    fn every_cell_is_counted_once_after_all_that_is_timed() {
        let settings = settings(Preset::Default, 1);
        let slots = plan(&settings);
        let first = slots.iter().position(|slot| slot.role == Role::Counting).unwrap();
        let (timed, counted) = slots.split_at(first);
        assert!(timed.iter().all(|slot| slot.role != Role::Counting));
        assert!(counted.iter().all(|slot| slot.role == Role::Counting));
        let cells: BTreeSet<_> = counted.iter().map(|s| (&s.workload, &s.model)).collect();
        assert_eq!((cells.len(), counted.len()), (19 * 3 - 2, 19 * 3 - 2));
        assert!(counted.iter().all(|slot| slot.round == settings.rounds));
        assert!(plan(&Settings { counting_rounds: 0, ..settings }).len() == timed.len());
    }

    #[test]
    fn a_round_has_its_own_due_times_and_all_its_trials_the_same() {
        let settings = settings(Preset::Default, 1);
        let slots = plan(&settings);
        let seed = |slot: &Slot| settings_of_trial(&settings, slot).seed;
        let seeds: BTreeMap<_, BTreeSet<_>> =
            slots.iter().fold(BTreeMap::new(), |mut seeds, slot| {
                seeds.entry(slot.round).or_insert_with(BTreeSet::new).insert(seed(slot));
                seeds
            });
        assert!(seeds.values().all(|of_round| of_round.len() == 1));
        let different: BTreeSet<_> = seeds.values().flatten().collect();
        assert_eq!(different.len(), settings.rounds as usize);
    }

    #[test]
    fn rounds_that_time_does_not_allow_are_taken_out_and_the_counting_stays() {
        let mut settings = settings(Preset::Default, 1);
        settings.counting_rounds = 2;
        let whole = plan(&settings);
        let at = whole.iter().position(|slot| slot.round == 4).unwrap();
        let counted = whole.iter().filter(|slot| slot.role == Role::Counting).count();
        let mut short = whole.clone();
        drop_rounds(&mut short, &mut settings, at);
        assert_eq!((settings.rounds, short.len()), (3, at + counted));
        assert_eq!(short[..at], whole[..at]);
        let rounds: BTreeSet<_> = short[at..].iter().map(|slot| slot.round).collect();
        assert_eq!(rounds, BTreeSet::from([2, 3]));
        assert!(short.iter().enumerate().all(|(i, slot)| slot.position as usize == i));
    }

    #[test]
    fn what_cannot_be_held_is_skipped_with_its_reason() {
        let models = [fixture::model("select"), fixture::model("epoll")];
        let skips = skips(&models, &workload::all().unwrap(), 4_096);
        let reasons: Vec<_> = skips.iter().map(|s| (s.model.as_str(), &s.reason)).collect();
        let idle = |(_, reason): &&(&str, &String)| reason.contains("needs");
        let reasons: Vec<_> = reasons.iter().filter(idle).collect();
        assert_eq!(reasons.len(), 3);
        assert!(reasons[0].1.contains("FD_SETSIZE") && reasons[0].0 == "select");
        assert!(reasons[2].1.contains("ulimit -n") && reasons[2].0 == "epoll");
    }

    #[test]
    fn what_a_server_does_not_speak_is_left_out_and_told() {
        let all = workload::all().unwrap();
        let of = |name: &str| all.iter().find(|workload| workload.name == name).unwrap().clone();
        let reason = |model: &Model, name: &str| {
            skips(std::slice::from_ref(model), &[of(name)], 20_000).pop().map(|skip| skip.reason)
        };
        let mut model = fixture::model("peer");
        model.protocols = vec!["http".into()];
        model.describe = serde_json::json!({});
        assert_eq!(reason(&model, "http-keepalive"), None);
        assert_eq!(reason(&model, "h2-streams").unwrap(), "does not speak HTTP/2");
        assert_eq!(reason(&model, "ws-echo").unwrap(), "does not speak WebSocket");
        assert_eq!(reason(&model, "https-keepalive").unwrap(), "does not speak TLS");
        model.protocols = ["http", "h2", "websocket"].map(str::to_owned).into();
        model.describe = serde_json::json!({"tls": true});
        for name in ["h2-streams", "ws-echo", "ws-chat", "h2-tls-streams", "tls-resume"] {
            assert_eq!(reason(&model, name), None);
        }
        model.describe = serde_json::json!({"tls": true, "cannot": ["push to two", "chat: alone"]});
        assert_eq!(reason(&model, "ws-chat").unwrap(), "cannot chat: alone");
        assert_eq!(reason(&model, "ws-echo"), None);
        model.describe = serde_json::json!({"tls": true});
        model.connections_max = Some(1);
        model.connections_max_reason = Some("one at a time".into());
        let told = reason(&model, "ws-chat").unwrap();
        assert_eq!(told, "holds 1 connection at once (one at a time); this greets 100 first");
        for name in ["h2-streams", "ws-echo", "https-keepalive", "h2-tls-streams"] {
            assert!(reason(&model, name).unwrap().contains("at once"), "{name}");
        }
        // Measured, and the table shows what became of the others.
        for name in ["http-keepalive", "http-connect", "tls-handshake"] {
            assert_eq!(reason(&model, name), None);
        }
    }

    #[test]
    fn a_flavour_that_joins_is_measured_where_it_differs() {
        let models = [fixture::model("threads"), fixture::model(BESIDE[0].0)];
        let workloads = workloads(Preset::Default, Vec::new(), &[]).unwrap();
        let repeated = repeated(&models, &workloads);
        assert!(repeated.iter().all(|skip| skip.by_design && skip.model == BESIDE[0].0));
        assert_eq!(repeated.len(), workloads.len() - 2);
        let named = |name: &str| repeated.iter().any(|s| s.workload.as_deref() == Some(name));
        assert!(!named("ws-echo") && !named("ws-chat") && named("http-keepalive"));
        assert!(super::repeated(&models[..1], &workloads).is_empty());
    }

    #[test]
    fn a_server_that_names_its_paths_is_asked_for_no_others() {
        let mut model = fixture::model("floor");
        model.describe = serde_json::json!({"paths": ["/", "/files/*", "POST /echo"]});
        let answers = |path: Option<&str>, post| {
            let path = path.map(str::to_owned);
            let workload = Workload { path, post, ..workload::all().unwrap().remove(0) };
            skips(std::slice::from_ref(&model), &[workload], 20_000).is_empty()
        };
        assert!(answers(None, false) && answers(Some("/"), false));
        assert!(answers(Some("/files/100k.bin"), false) && answers(Some("/echo"), true));
        assert!(!answers(Some("/bytes/64"), false) && !answers(Some("/"), true));
        let all = workload::all().unwrap();
        let files = all.into_iter().find(|workload| workload.name == "file-100k").unwrap();
        let connect = Workload { connect_per_request: true, ..files.clone() };
        model.describe = serde_json::json!({"closes_when_asked": false});
        let reason = skips(std::slice::from_ref(&model), &[connect], 20_000).remove(0).reason;
        assert!(reason.contains("close"));
        model.describe = serde_json::json!({"paths": ["/"]});
        let skips = skips(&[model], &[files], 20_000);
        assert!(skips[0].reason.contains("does not answer /files/100k.bin, only /"));
    }

    #[test]
    fn workloads_are_chosen_by_name_or_by_preset() {
        let own =
            |name: &str| Workload { name: name.into(), ..workload::all().unwrap().swap_remove(0) };
        let chosen = |own: &[Workload], names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let chosen = workloads(Preset::Quick, own.to_vec(), &names);
            chosen.map(|chosen| chosen.into_iter().map(|w| w.name).collect::<Vec<_>>())
        };
        let error = chosen(&[], &["http-keepalife"]).unwrap_err();
        assert!(error.0.contains("http-keepalife") && error.0.contains("http-keepalive"));
        assert_eq!(chosen(&[], &[]).unwrap(), workload::QUICK);
        assert_eq!(chosen(&[], &["tls-resume"]).unwrap(), ["tls-resume"]);
        let default = workloads(Preset::Default, Vec::new(), &[]).unwrap();
        assert!(default.iter().all(|w| !workload::ON_DEMAND.contains(&w.name.as_str())));
        assert_eq!(chosen(&[own("mine")], &[]).unwrap(), ["mine"]);
        assert_eq!(chosen(&[own("mine")], &["echo-64", "mine"]).unwrap(), ["echo-64", "mine"]);
        assert_eq!(chosen(&[own("mine"), own("other")], &["mine"]).unwrap(), ["mine"]);
        let clash = |names: [&str; 2]| chosen(&names.map(own), &[]).unwrap_err().0;
        assert!(clash(["mine", "echo-64"]).contains("a workload echo-64 of its own"));
        assert!(clash(["mine", "mine"]).contains("two files are called mine.toml"));
    }
}
