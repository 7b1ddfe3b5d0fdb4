//! What will be measured, in what order: presets and randomised complete blocks.

use record::{Model, Preset, Role, Settings, Skip, Slot, Workload};
use serde_json::Value;

use crate::failure::Failure;
use crate::statistics::Random;

use super::workload;

/// Descriptors that a server needs beside its connections (listener, epoll, files, stdio), with
/// room.
const DESCRIPTORS_SPARE: u64 = 64;

/// The settings that belong to a preset. Rounds and seed can be set apart.
///
/// CPU per request is as steady over 0.5 s as over 2 s (measured while this was planned), so time
/// is better spent on rounds than on long windows.
pub fn settings(preset: Preset, seed: u64) -> Settings {
    let (rounds, warm_up_s, window_s, idle_sample_rounds) = match preset {
        Preset::Quick => (3, 0.1, 0.25, 1),
        Preset::Default => (6, 0.15, 0.5, 3),
        Preset::Thorough => (20, 0.2, 0.5, 6),
    };
    Settings {
        preset,
        seed,
        rounds,
        warm_up_s,
        window_s,
        idle_sample_s: 0.5,
        idle_sample_rounds,
        counting_rounds: 0,
        budget_s: None,
        server_cores: Vec::new(),
        client_cores: Vec::new(),
    }
}

/// The workloads asked for by name, or those of the preset.
pub fn workloads(preset: Preset, names: &[String]) -> Result<Vec<Workload>, Failure> {
    let all = workload::all();
    if let Some(name) = names.iter().find(|name| all.iter().all(|w| w.name != **name)) {
        let known: Vec<_> = all.iter().map(|w| w.name.as_str()).collect();
        return Err(Failure(format!(
            "--workloads: no workload is called {name:?}; there are {}",
            known.join(", ")
        )));
    }
    let wanted = |w: &Workload| match (names.is_empty(), preset) {
        (true, Preset::Quick) => workload::QUICK.contains(&w.name.as_str()),
        (true, _) => true,
        (false, _) => names.contains(&w.name),
    };
    Ok(all.into_iter().filter(wanted).collect())
}

/// The cells that cannot be measured, known from what the servers say about themselves and from the
/// limit of descriptors. Only idle connections are counted against a server's limit: a server that
/// cannot serve 64 at once is measured, and the table shows what became of the others.
pub fn skips(models: &[Model], workloads: &[Workload], descriptors: u64) -> Vec<Skip> {
    let mut skips = Vec::new();
    for model in models {
        for workload in workloads {
            let reason = if !model.protocols.contains(&workload.protocol) {
                Some(format!("does not speak {}", workload.protocol))
            } else {
                other_paths(model, workload)
                    .or_else(|| too_many_connections(model, workload, descriptors))
            };
            if let Some(reason) = reason {
                let (model, workload) = (model.label.clone(), Some(workload.name.clone()));
                skips.push(Skip { model, workload, reason });
            }
        }
    }
    skips
}

/// A server that says which paths it answers (`paths` in `--describe`) answers no others. A path
/// that ends in `*` stands for all that begin so; a method before it, for that method instead of
/// GET. Without the list a server answers all paths that the workloads know.
///
/// One that says `"closes_when_asked": false` leaves a connection open on which the client asked for
/// its end (RFC 9112, section 9.6), as a request with a connection of its own does.
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

/// Every trial of the run: in each round each cell once, in fresh random order, the reference model
/// a second time as sentinel. Complete blocks, so that whatever changes from round to round
/// (another tenant, a warmer CPU) meets all models alike.
pub fn schedule(
    models: &[Model],
    workloads: &[Workload],
    skips: &[Skip],
    reference: &str,
    settings: &Settings,
) -> Vec<Slot> {
    let mut random = Random::new(settings.seed);
    let mut slots: Vec<Slot> = Vec::new();
    for round in 1..=settings.rounds {
        let mut block = Vec::new();
        for workload in workloads {
            for model in models {
                if skips.iter().any(|s| is_cell(s, &model.label, &workload.name)) {
                    continue;
                }
                block.push((workload.name.clone(), model.label.clone(), Role::Timed));
                if model.label == reference {
                    block.push((workload.name.clone(), model.label.clone(), Role::Sentinel));
                }
            }
        }
        random.shuffle(&mut block);
        for (workload, model, role) in block {
            slots.push(Slot { round, position: slots.len() as u32, workload, model, role });
        }
    }
    slots
}

fn is_cell(skip: &Skip, model: &str, workload: &str) -> bool {
    skip.model == model && skip.workload.as_deref().is_none_or(|name| name == workload)
}

/// How long a trial should take, in seconds: for the time left, corrected by the pace so far.
pub fn expected_s(slot: &Slot, workloads: &[Workload], settings: &Settings) -> f64 {
    /// Start, verification and stop of a server.
    const OVERHEAD_S: f64 = 0.15;
    /// Opening, exercising and closing one idle connection.
    const IDLE_CONNECTION_S: f64 = 100e-6;
    let mut expected = OVERHEAD_S + settings.warm_up_s + settings.window_s;
    if let Some(workload) = workloads.iter().find(|w| w.name == slot.workload) {
        expected += f64::from(workload.idle_connections) * IDLE_CONNECTION_S;
        if workload.idle_sample_connections > 0 && slot.round <= settings.idle_sample_rounds {
            expected += settings.idle_sample_s;
        }
    }
    expected
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::fixture;

    fn plan(seed: u64) -> Vec<Slot> {
        let models = [fixture::model("epoll"), fixture::model("poll"), fixture::model("select")];
        let skips = skips(&models, &workload::all(), 20_000);
        let settings = settings(Preset::Default, seed);
        schedule(&models, &workload::all(), &skips, "epoll", &settings)
    }

    #[test]
    fn every_round_is_a_complete_block_in_an_order_of_its_own() {
        let slots = plan(1);
        let mut orders = BTreeSet::new();
        for round in 1..=6 {
            let block: Vec<_> = slots.iter().filter(|slot| slot.round == round).collect();
            let mut times = BTreeMap::new();
            for slot in &block {
                *times
                    .entry((&slot.workload, &slot.model, slot.role == Role::Sentinel))
                    .or_insert(0) += 1;
            }
            assert!(times.values().all(|&count| count == 1));
            // 7 workloads x (3 models + sentinel) - select cannot hold 1,000 and 10,000 idle ones.
            assert_eq!(times.len(), 7 * 4 - 2);
            orders.insert(block.iter().map(|s| (&s.workload, &s.model)).collect::<Vec<_>>());
        }
        assert_eq!(orders.len(), 6);
        assert!(slots.iter().enumerate().all(|(i, slot)| slot.position as usize == i));
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn what_cannot_be_held_is_skipped_with_its_reason() {
        let models = [fixture::model("select"), fixture::model("epoll")];
        let skips = skips(&models, &workload::all(), 4_096);
        let reasons: Vec<_> = skips.iter().map(|s| (s.model.as_str(), &s.reason)).collect();
        assert_eq!(reasons.len(), 3);
        assert!(reasons[0].1.contains("FD_SETSIZE") && reasons[0].0 == "select");
        assert!(reasons[2].1.contains("ulimit -n") && reasons[2].0 == "epoll");
    }

    #[test]
    fn a_server_that_names_its_paths_is_asked_for_no_others() {
        let mut model = fixture::model("floor");
        model.describe = serde_json::json!({"paths": ["/", "/files/*", "POST /echo"]});
        let answers = |path: Option<&str>, post| {
            let path = path.map(str::to_owned);
            let workload = Workload { path, post, ..workload::all().remove(0) };
            skips(std::slice::from_ref(&model), &[workload], 20_000).is_empty()
        };
        assert!(answers(None, false) && answers(Some("/"), false));
        assert!(answers(Some("/files/100k.bin"), false) && answers(Some("/echo"), true));
        assert!(!answers(Some("/bytes/64"), false) && !answers(Some("/"), true));
        let files = workload::all().pop().unwrap();
        let connect = Workload { connect_per_request: true, ..files.clone() };
        model.describe = serde_json::json!({"closes_when_asked": false});
        let reason = skips(std::slice::from_ref(&model), &[connect], 20_000).remove(0).reason;
        assert!(reason.contains("close"));
        model.describe = serde_json::json!({"paths": ["/"]});
        let skips = skips(&[model], &[files], 20_000);
        assert!(skips[0].reason.contains("does not answer /files/100k.bin, only /"));
    }

    #[test]
    fn an_unknown_workload_is_named() {
        let error = workloads(Preset::Quick, &["http-keepalife".into()]).unwrap_err();
        assert!(error.0.contains("http-keepalife") && error.0.contains("http-keepalive"));
        assert_eq!(workloads(Preset::Quick, &[]).unwrap().len(), 3);
    }
}
