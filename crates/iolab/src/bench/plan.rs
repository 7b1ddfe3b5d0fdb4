//! The plan of a run: presets, skipped cells, and the schedule.

use record::{Model, Preset, Protocol, Role, Settings, Skip, Slot, SplitMix64, Workload};
use serde_json::Value;

use render::failure::Failure;

use super::workload;
use rig::discover::BESIDE;
use rig::epoch::enough_places;

/// Descriptors of a server besides its connections (listener, epoll, files, stdio), with a margin.
const DESCRIPTORS_SPARE: u64 = 64;

/// How long a server is loaded in an epoch of a closed loop, in seconds: forty of the shortest
/// slices. The slices of an epoch differ more than the epochs do, and an epoch takes most of its
/// time for the start of its processes, so more slices narrow an interval at less cost than more
/// epochs.
const WINDOW_S: f64 = 0.2;

/// The same at a fixed rate, in seconds: one slice, long enough for a 99th percentile at the lowest
/// rate that comes with iolab (5,000 requests/s).
const OPEN_WINDOW_S: f64 = 0.25;

/// Warm-up and window of a counting pass, in seconds: over some thousand requests the system calls
/// per request vary by less than a percent.
const COUNTING_WARM_UP_S: f64 = 0.05;
const COUNTING_WINDOW_S: f64 = 0.1;

/// From so many silent connections on, to open them for every server takes longer than all that is
/// measured with them.
const IDLE_MANY: u32 = 5_000;

/// The settings that belong to a preset. Rounds and seed can be set apart.
pub fn settings(preset: Preset, seed: u64) -> Settings {
    let (rounds, window_s, idle_sample_rounds, counting_rounds) = match preset {
        Preset::Quick => (5, WINDOW_S / 2.0, 1, 0),
        Preset::Default => (7, WINDOW_S, 3, 1),
        Preset::Thorough => (40, WINDOW_S, 6, 3),
    };
    Settings {
        preset,
        seed,
        rounds,
        warm_up_s: COUNTING_WARM_UP_S,
        window_s,
        idle_sample_s: 0.3,
        idle_sample_rounds,
        counting_rounds,
        budget_s: None,
        awake: false,
        server_cores: Vec::new(),
        client_cores: Vec::new(),
    }
}

/// The settings of one workload in one round. The seed depends on the round: so in an open loop the
/// due times are the same for all models of an epoch, and different in the next round.
pub fn settings_of(settings: &Settings, slot: &Slot, workload: &Workload) -> Settings {
    let mut random = SplitMix64::new(settings.seed ^ u64::from(slot.round));
    let window_s = match (slot.role, workload.rate_per_s) {
        (Role::Counting, _) => COUNTING_WINDOW_S,
        (_, Some(_)) => settings.window_s.max(OPEN_WINDOW_S),
        (_, None) => settings.window_s,
    };
    Settings { seed: random.next_u64(), window_s, ..settings.clone() }
}

/// Whether an epoch of this workload takes the idle sample in a round. In other protocols than
/// HTTP/1.1 idle connections take longer to open (a handshake each) and are sampled for their
/// memory alone, which hardly differs from process to process: one round is enough.
pub fn takes_idle_sample(round: u32, workload: &Workload, settings: &Settings) -> bool {
    let plain = workload.protocol == Protocol::Http1 && !workload.tls;
    let rounds = settings.idle_sample_rounds.min(if plain { u32::MAX } else { 1 });
    workload.idle_sample_connections > 0 && round <= rounds
}

/// A workload is measured in every round, or in every second one because an epoch of it takes
/// long.
fn period(workload: &Workload) -> u32 {
    if workload.idle_connections >= IDLE_MANY { 2 } else { 1 }
}

/// Whether slices with two clients are measured in a round.
pub fn is_doubled(round: u32) -> bool {
    !round.is_multiple_of(2)
}

/// Whether system calls are counted under a workload. Of workloads that differ only in the number
/// of active connections one is enough. Very many idle connections take longer to open than all
/// other counting passes together.
fn is_counted(workload: &Workload) -> bool {
    let with_others =
        workload.protocol == Protocol::Http1 && workload.connections != workload::CONNECTIONS;
    let of_map = workload.path.as_deref() == Some("/") && !workload.tls;
    let quick = workload.idle_connections < IDLE_MANY && !workload.processors_sleep;
    !(with_others && of_map) && quick
}

/// The workloads, grouped by those that can be measured with the same processes: they differ in
/// active connections, and in whether processors may sleep. In the order of the first of each
/// group.
pub fn setups(workloads: &[Workload]) -> Vec<Vec<&Workload>> {
    let like = |one: &Workload, other: &Workload| {
        let Workload { name, description, connections, .. } = one.clone();
        let Workload { idle_sample_connections, processors_sleep, .. } = *one;
        let other = Workload {
            name,
            description,
            connections,
            idle_sample_connections,
            processors_sleep,
            ..other.clone()
        };
        *one == other
    };
    let mut setups: Vec<Vec<&Workload>> = Vec::new();
    for workload in workloads {
        match setups.iter_mut().find(|setup| like(workload, setup[0])) {
            Some(setup) => setup.push(workload),
            None => setups.push(vec![workload]),
        }
    }
    setups
}

/// The workloads to run: the named ones, or those of the preset, or the user's own.
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
                "--scenario: iolab itself has a workload {name}: rename {name}.toml"
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
            "--workloads: unknown workload {name:?}; known are {}",
            known.join(", ")
        )));
    }
    let of_preset = |w: &Workload| match preset {
        Preset::Quick => workload::QUICK.contains(&w.name.as_str()),
        Preset::Default | Preset::Thorough => !workload::ON_DEMAND.contains(&w.name.as_str()),
    };
    let named = |w: &Workload| names.contains(&w.name);
    let none_named = names.is_empty();
    // With a scenario file the built-in workloads run only if named.
    let all = |w: &Workload| own.is_empty() && of_preset(w);
    let built_in = built_in
        .into_iter()
        .filter(|w| if none_named { all(w) } else { named(w) })
        .collect::<Vec<_>>();
    let own = own.into_iter().filter(|w| none_named || named(w));
    Ok(built_in.into_iter().chain(own).collect())
}

/// The cells that cannot be measured, according to `--describe` and the limit of descriptors.
pub fn skips(models: &[Model], workloads: &[Workload], descriptors: u64) -> Vec<Skip> {
    let mut skips = Vec::new();
    for model in models {
        for workload in workloads {
            let reason = other_protocols(model, workload)
                .or_else(|| other_paths(model, workload))
                .or_else(|| too_few_places(model, workload, descriptors));
            if let Some(reason) = reason {
                let (model, workload) = (model.label.clone(), Some(workload.name.clone()));
                skips.push(Skip { model, workload, reason, by_design: false });
            }
        }
    }
    skips
}

/// The cells of flavours in [`BESIDE`] that would only repeat their models.
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

/// Why a server does not support a workload's protocol (`protocols` and `tls` in `--describe`).
fn other_protocols(model: &Model, workload: &Workload) -> Option<String> {
    let protocol = workload.protocol;
    if !model.protocols.contains(&protocol) {
        return Some(format!("does not support {protocol}"));
    }
    let tls = model.describe.get("tls").and_then(Value::as_bool) == Some(true);
    (workload.tls && !tls).then(|| "does not support TLS".into())
}

/// Why a server, or this process, cannot have the connections of a workload.
fn too_few_places(model: &Model, workload: &Workload, descriptors: u64) -> Option<String> {
    // The server's own reason, if it has one.
    let cannot = model.describe.get("cannot").and_then(Value::as_array).into_iter().flatten();
    let mut cannot = cannot.filter_map(Value::as_str);
    if let Some(words) = cannot.find(|words| workload.fan_out && words.starts_with("chat")) {
        return Some(format!("cannot {words}"));
    }
    if let Err(why) = enough_places(model, workload) {
        return Some(why);
    }
    let active = if workload.connect_per_request { 0 } else { workload.connections };
    let needed = u64::from(workload.idle_connections + active) + DESCRIPTORS_SPARE;
    (needed > descriptors).then(|| {
        format!(
            "needs {needed} descriptors, but this process may open {descriptors}: raise `ulimit -n`"
        )
    })
}

/// Why a server does not support a workload's path. If `--describe` has `paths` it answers only
/// those. A path may end in `*`, for all paths with this beginning, and begin with a method other
/// than GET. Without `paths` it answers all.
///
/// A server with `"closes_when_asked": false` does not close a connection at the client's request
/// (RFC 9112 section 9.6), which a workload with a connection per request needs.
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

#[derive(Clone, Copy)]
pub struct Cells<'a> {
    pub models: &'a [Model],
    pub workloads: &'a [Workload],
    pub skips: &'a [Skip],
    /// Label of the reference, which has two processes.
    pub reference: &'a str,
}

impl<'a> Cells<'a> {
    /// The models that are measured under a workload.
    fn models_of(self, workload: &'a str) -> impl Iterator<Item = &'a str> {
        let labels = self.models.iter().map(|model| model.label.as_str());
        labels.filter(move |model| !self.skips.iter().any(|skip| is_cell(skip, model, workload)))
    }
}

/// All trials of a run. In each round each workload has one epoch, in random order; workloads that
/// share processes are together. All models take part, and a second process of the reference as
/// control. Workloads with long epochs are not in every round.
///
/// The counting passes come last, so that an interrupted run has its timed trials first. The round
/// of a counting trial is the number of its pass.
pub fn schedule(cells: Cells, settings: &Settings) -> Vec<Slot> {
    let mut random = SplitMix64::new(settings.seed);
    let mut slots: Vec<Slot> = Vec::new();
    let mut append = |round: u32, name: &str, roles: fn(bool) -> &'static [Role]| {
        for model in cells.models_of(name) {
            for role in roles(model == cells.reference) {
                let position = slots.len() as u32;
                let (workload, model) = (name.to_owned(), model.to_owned());
                slots.push(Slot { round, position, workload, model, role: *role });
            }
        }
    };
    for round in 1..=settings.rounds {
        let mut setups = setups(cells.workloads);
        setups.retain(|setup| (round - 1).is_multiple_of(period(setup[0])));
        random.shuffle(&mut setups);
        for setup in &mut setups {
            // Fewest connections first, so that memory that a server has allocated for more does
            // not count.
            setup.sort_by_key(|workload| workload.connections);
            for workload in setup {
                append(round, &workload.name, |is_reference| match is_reference {
                    true => &[Role::Timed, Role::Sentinel],
                    false => &[Role::Timed],
                });
            }
        }
    }
    let passes = settings.counting_rounds.min(settings.rounds);
    for round in settings.rounds - passes + 1..=settings.rounds {
        for workload in cells.workloads.iter().filter(|workload| is_counted(workload)) {
            append(round, &workload.name, |_| &[Role::Counting]);
        }
    }
    slots
}

/// The end of the epoch or counting trial that begins at `at`. An epoch has all slots of the
/// workloads that share processes.
pub fn end_of_epoch(schedule: &[Slot], at: usize, workloads: &[Workload]) -> usize {
    let first = &schedule[at];
    if first.role == Role::Counting {
        return at + 1;
    }
    let setups = setups(workloads);
    let holds = |setup: &&Vec<&Workload>| setup.iter().any(|w| w.name == first.workload);
    let setup = setups.iter().find(holds);
    let belongs = |slot: &&Slot| {
        let same = setup.is_some_and(|setup| setup.iter().any(|w| w.name == slot.workload));
        same && slot.round == first.round && slot.role != Role::Counting
    };
    (at + schedule[at..].iter().take_while(belongs).count()).max(at + 1)
}

/// The number of the `done` slots that belong to complete epochs. An interrupted epoch must be
/// measured again, because its processes have ended.
pub fn whole_epochs(schedule: &[Slot], done: usize, workloads: &[Workload]) -> usize {
    let mut at = 0;
    while at < done {
        let end = end_of_epoch(schedule, at, workloads);
        if end > done {
            break;
        }
        at = end;
    }
    at
}

/// Removes all timed rounds from place `at` on, which is the first slot of a round. The counting
/// passes follow, at most as many as there are rounds.
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

/// The expected time of a slot, in seconds.
pub fn expected_s(slot: &Slot, workloads: &[Workload], settings: &Settings) -> f64 {
    /// Start, verification and stop of a server take 20 ms; the rest is the mean cost of servers
    /// that answer late or not at all, such as serial with a full backlog.
    const OVERHEAD_S: f64 = 0.05;
    /// Opening, using and closing an idle connection.
    const IDLE_CONNECTION_S: f64 = 220e-6;
    const HANDSHAKE_S: f64 = 1e-3;
    /// Servers of an epoch that share one idle sample: all but busy, so ten of the default eleven.
    const SAMPLED_TOGETHER: f64 = 10.0;
    /// Warm-up and idle time before an epoch, in closed and in open loops.
    const BEFORE_S: f64 = 0.03;
    const BEFORE_OPEN_S: f64 = 0.07;
    /// What is asked with twice the client, as a share of the window: 0.3, where it says
    /// something.
    const DOUBLED: f64 = 0.15;
    let Some(workload) = workloads.iter().find(|w| w.name == slot.workload) else { return 0.0 };
    let window_s = settings_of(settings, slot, workload).window_s;
    let (load_s, shared) = match (slot.role, workload.rate_per_s) {
        (Role::Counting, _) => (COUNTING_WARM_UP_S + window_s, 1),
        (_, Some(_)) => (BEFORE_OPEN_S + window_s, 1),
        (_, None) => {
            let setups = setups(workloads);
            let setup = setups.iter().find(|setup| setup.iter().any(|w| w.name == workload.name));
            (BEFORE_S + window_s * (1.0 + DOUBLED), setup.map_or(1, Vec::len))
        }
    };
    let each_s = IDLE_CONNECTION_S + if workload.tls { HANDSHAKE_S } else { 0.0 };
    let mut held = workload.idle_connections;
    let mut once_s = OVERHEAD_S;
    if slot.role != Role::Counting && takes_idle_sample(slot.round, workload, settings) {
        once_s += settings.idle_sample_s * shared as f64 / SAMPLED_TOGETHER;
        held = held.max(workload.idle_sample_connections);
    }
    once_s += f64::from(held) * each_s;
    let mut expected_s = load_s + once_s / shared as f64;
    if workload.tls && !workload.connect_per_request {
        expected_s += f64::from(workload.connections) * HANDSHAKE_S;
    }
    expected_s
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
    fn every_round_has_each_cell_once_in_an_order_of_its_own() {
        let settings = settings(Preset::Default, 1);
        let slots = plan(&settings);
        let mut orders = BTreeSet::new();
        for round in 1..=settings.rounds {
            let is_timed = |slot: &&Slot| slot.round == round && slot.role != Role::Counting;
            let block: Vec<_> = slots.iter().filter(is_timed).collect();
            let mut times = BTreeMap::new();
            for slot in &block {
                let cell = (&slot.workload, &slot.model, slot.role == Role::Sentinel);
                *times.entry(cell).or_insert(0) += 1;
            }
            assert!(times.values().all(|&count| count == 1));
            // 26 workloads, 4 of them long, x (3 models + sentinel), and select holds no 1,000 idle
            // connections.
            let (all, without_select) = if round % 2 == 1 { (26, 8) } else { (22, 4) };
            assert_eq!(times.len(), all * 4 - without_select);
            let mut workloads: Vec<_> = block.iter().map(|slot| &slot.workload).collect();
            workloads.dedup();
            assert_eq!(workloads.len(), all, "a workload's models stand together");
            orders.insert(workloads);
        }
        assert_eq!(orders.len(), settings.rounds as usize);
        assert!(slots.iter().enumerate().all(|(i, slot)| slot.position as usize == i));
    }

    #[test]
    fn an_epoch_is_all_that_shares_its_servers_and_a_schedule_is_whole_epochs() {
        let settings = settings(Preset::Default, 1);
        let (slots, all) = (plan(&settings), workloads(Preset::Default, Vec::new(), &[]).unwrap());
        let (mut at, mut of_map) = (0, 0);
        while at < slots.len() {
            let end = end_of_epoch(&slots, at, &all);
            let names: BTreeSet<_> = slots[at..end].iter().map(|slot| &*slot.workload).collect();
            if slots[at].role == Role::Counting {
                assert_eq!(end, at + 1);
            } else if names.contains("active-1") {
                let wanted = ["active-1", "active-1-asleep", "active-512", "active-8"];
                assert!(names.iter().copied().eq(wanted.into_iter().chain(["http-keepalive"])));
                of_map += 1;
            } else if !names.contains("idle-1000") && !names.contains("idle-10000") {
                assert_eq!(names.len(), 1, "{names:?}");
            }
            at = end;
        }
        assert_eq!((at, of_map), (slots.len(), settings.rounds));
        let first = end_of_epoch(&slots, 0, &all);
        assert_eq!(whole_epochs(&slots, first - 1, &all), 0);
        assert_eq!(whole_epochs(&slots, first + 1, &all), first);
        assert_eq!(whole_epochs(&slots, slots.len(), &all), slots.len());
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
        // The points of the map that have as many active connections as the other workloads.
        assert_eq!((cells.len(), counted.len()), (15 * 3 - 1, 15 * 3 - 1));
        assert!(counted.iter().all(|slot| slot.round == settings.rounds));
        assert!(plan(&Settings { counting_rounds: 0, ..settings }).len() == timed.len());
    }

    #[test]
    fn a_round_has_its_own_due_times_and_all_its_models_the_same() {
        let settings = settings(Preset::Default, 1);
        let all = workloads(Preset::Default, Vec::new(), &[]).unwrap();
        let open = all.iter().find(|workload| workload.rate_per_s.is_some()).unwrap();
        let slots = plan(&settings);
        let mut seeds = BTreeMap::new();
        for slot in slots.iter().filter(|slot| slot.workload == open.name) {
            let own = settings_of(&settings, slot, open);
            seeds.entry(slot.round).or_insert_with(BTreeSet::new).insert(own.seed);
        }
        assert!(seeds.values().all(|of_round| of_round.len() == 1));
        let different: BTreeSet<_> = seeds.values().flatten().collect();
        assert_eq!(different.len(), seeds.len());
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
        // The eight points of the map with 1,000 and 10,000 idle ones, and those with 10,000.
        assert_eq!(reasons.len(), 8 + 4);
        assert!(reasons[0].1.contains("FD_SETSIZE") && reasons[0].0 == "select");
        assert!(reasons[8].1.contains("ulimit -n") && reasons[8].0 == "epoll");
    }

    #[test]
    fn what_a_server_does_not_speak_is_left_out_and_told() {
        let all = workload::all().unwrap();
        let of = |name: &str| all.iter().find(|workload| workload.name == name).unwrap().clone();
        let reason = |model: &Model, name: &str| {
            skips(std::slice::from_ref(model), &[of(name)], 20_000).pop().map(|skip| skip.reason)
        };
        let mut model = fixture::model("peer");
        model.protocols = vec![Protocol::Http1];
        model.describe = serde_json::json!({});
        assert_eq!(reason(&model, "http-keepalive"), None);
        assert_eq!(reason(&model, "h2-streams").unwrap(), "does not support HTTP/2");
        assert_eq!(reason(&model, "ws-echo").unwrap(), "does not support WebSocket");
        assert_eq!(reason(&model, "https-keepalive").unwrap(), "does not support TLS");
        model.protocols = [Protocol::Http1, Protocol::Http2, Protocol::WebSocket].into();
        model.describe = serde_json::json!({"tls": true});
        for name in ["h2-streams", "ws-echo", "ws-chat", "h2-tls-streams", "tls-resume"] {
            assert_eq!(reason(&model, name), None);
        }
        model.describe = serde_json::json!({"tls": true, "cannot": ["push to two", "chat: alone"]});
        assert_eq!(reason(&model, "ws-chat").unwrap(), "cannot chat: alone");
        model.describe = serde_json::json!({"tls": true});
        model.connections_max = Some(1);
        model.connections_max_reason = Some("one at a time".into());
        let told = reason(&model, "ws-chat").unwrap();
        assert_eq!(told, "holds 1 connection at once (one at a time); this workload needs 100");
        for name in ["http-keepalive", "h2-streams", "ws-echo", "https-keepalive", "active-8"] {
            assert!(reason(&model, name).unwrap().contains("at once"), "{name}");
        }
        // One connection at a time is all that these need.
        for name in ["active-1", "http-connect", "tls-handshake"] {
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
        assert!(clash(["mine", "echo-64"]).contains("itself has a workload echo-64"));
        assert!(clash(["mine", "mine"]).contains("two files are called mine.toml"));
    }
}
