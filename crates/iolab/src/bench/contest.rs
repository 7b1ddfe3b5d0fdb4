//! Compares servers in slices ([`crate::slices`]) with new processes in each epoch.

use std::path::Path;
use std::time::Duration;

use record::{Preset, Settings, SplitMix64, Workload};
use rig::discover::Found;
use rig::server::Server;
use rig::{engine, environment, trial};

use rig::slices::{self, Entrant, Epoch};

use super::{interrupted, plan};

pub struct Rules {
    pub epochs: usize,
    /// Time of one epoch, after its warm-up.
    pub epoch: Duration,
    pub seed: u64,
}

/// Measures these servers; a server that is listed twice has two processes. `root` is the document
/// root. After Ctrl-C there are fewer epochs than asked for.
///
/// # Errors
/// One sentence: which server failed, and why.
pub fn run(
    servers: &[&Found],
    workload: &Workload,
    root: &Path,
    rules: &Rules,
) -> Result<Vec<Epoch>, String> {
    let mut settings = plan::settings(Preset::Default, rules.seed);
    (settings.server_cores, settings.client_cores) = environment::server_and_client_cores();
    // The number of connections that each server can serve at once: further ones would only wait.
    let most = servers.iter().map(|found| found.connections_max()).min().unwrap_or(u32::MAX);
    let workload = &Workload { connections: workload.connections.min(most), ..workload.clone() };
    let mut random = SplitMix64::new(rules.seed);
    let mut epochs = Vec::new();
    while epochs.len() < rules.epochs && !interrupted() {
        let mut processes = Vec::new();
        let mut entrants = Vec::new();
        for found in servers {
            let started = start(found, workload, root, &settings);
            let (server, entrant) = started.map_err(|why| {
                format!("serve-{} with {}: {why}", found.model.label, workload.name)
            })?;
            processes.push(server);
            entrants.push(entrant);
        }
        let epoch = slices::epoch(&mut entrants, rules.epoch, &mut random, &interrupted);
        let epoch = epoch.map_err(|error| format!("{}: {error}", workload.name))?;
        let ended =
            servers.iter().zip(&epoch.ended).find_map(|(found, why)| Some((found, why.as_ref()?)));
        if let Some((found, why)) = ended {
            return Err(format!("serve-{} with {}: {why}", found.model.label, workload.name));
        }
        epochs.push(epoch);
        // The clients close first, so that the servers' last output is not lost.
        drop(entrants);
        processes.into_iter().for_each(|server| drop(server.stop()));
    }
    Ok(epochs)
}

/// Starts a process and opens the connections to it.
fn start(
    found: &Found,
    workload: &Workload,
    root: &Path,
    settings: &Settings,
) -> Result<(Server, Entrant), String> {
    let arguments = trial::server_arguments(workload, &found.model, root, 0);
    let server = Server::start(&found.executable, &arguments, &settings.server_cores)?;
    let mut plan = engine::plan(server.address, workload, settings).map_err(|e| e.to_string())?;
    plan.idle_connections = workload.idle_connections;
    let processes = server.processes();
    let entrant = Entrant::open(plan, &processes, true).map_err(|error| error.to_string())?;
    Ok((server, entrant))
}
