//! Epochs with the example server, which has a thread per connection.

use std::path::{Path, PathBuf};

use record::{Measured, Model, Settings, Slices, Workload};
use rig::epoch::{self, Entry, Part, Setting, Stop};
use rig::{cgroup, environment};

/// The server of the tests: an example of the package iolab.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/serve-example");
    assert!(example.is_file(), "{} is missing: cargo build -p iolab --examples", example.display());
    example
}

fn settings() -> Settings {
    Settings {
        warm_up_s: 0.02,
        window_s: 0.15,
        idle_sample_s: 0.02,
        awake: false,
        server_cores: Vec::new(),
        client_cores: Vec::new(),
        ..fixture::results().settings
    }
}

/// The example with this fault.
fn model(fault: &str) -> Model {
    let arguments = vec!["--fault".to_owned(), fault.to_owned()];
    Model { arguments, ..fixture::model("example") }
}

fn part(workload: &Workload, members: usize) -> Part<'_> {
    let idle_sample = workload.idle_sample_connections > 0;
    Part { workload, members: (0..members).collect(), idle_sample, doubled: true }
}

fn run(servers: &[(&Path, &Model)], workloads: Vec<Part>) -> Result<epoch::Outcomes, Stop> {
    environment::raise_descriptor_limit();
    epoch::run(&Setting {
        members: servers.iter().map(|&(executable, model)| Entry { executable, model }).collect(),
        workloads,
        settings: &settings(),
        root: Path::new("."),
        seed: 1,
        interrupted: &|| false,
    })
}

/// All columns have equally many slices, none of which is empty. Returns their number.
#[track_caller]
fn check(slices: &Slices) -> usize {
    let columns =
        [&slices.requests, &slices.elapsed_ns, &slices.server_cpu_ns, &slices.client_cpu_ns];
    assert!(columns.iter().all(|column| column.len() == slices.requests.len()), "{slices:?}");
    assert!(columns.iter().all(|column| column.iter().all(|&figure| figure > 0)), "{slices:?}");
    slices.requests.len()
}

/// The sums over the slices are at most the totals.
#[track_caller]
fn check_sums(measured: &Measured) {
    let Measured { load, server, slices, .. } = measured;
    assert!(slices.requests.iter().sum::<u64>() <= load.requests);
    assert!(slices.server_cpu_ns.iter().sum::<u64>() / 1_000 <= server.cpu_us);
    assert!(slices.elapsed_ns.iter().sum::<u64>() as f64 / 1e9 <= load.duration_s + 1e-9);
    let ours_s = (server.cpu_us + load.client_cpu_us) as f64 / 1e6;
    assert!(measured.machine.busy_s >= ours_s - 1e-3, "{:?} {ours_s}", measured.machine);
}

#[test]
fn two_servers_take_turns_and_their_slices_are_pairs() {
    let (example, none) = (example(), model("none"));
    let workload = fixture::small_workload(Some("/"));
    let outcomes = run(&[(&*example, &none); 2], vec![part(&workload, 2)]).unwrap();
    let [Ok(first), Ok(second)] = &outcomes[0][..] else { panic!("{outcomes:?}") };
    let blocks = check(&first.slices);
    assert!(blocks > 0 && check(&second.slices) == blocks);
    for measured in [first, second] {
        check_sums(measured);
        assert_eq!((measured.load.errors, measured.load.errors_in_warmup), (0, 0));
        assert_eq!((&measured.load.ended_early, measured.exit.code), (&None, Some(0)));
        assert!(measured.load.warmup_s > 0.0 && measured.load.latency.samples > 0);
        assert!(measured.server.memory.threads >= workload.connections);
        assert!(measured.calls.is_none() && measured.idle.is_none());
        // The example sets none, so its end has the machine's default; the client's has reno.
        let default = environment::sysctl("net.ipv4.tcp_congestion_control").unwrap();
        assert!(measured.server.congestion_control.as_ref().is_none_or(|name| *name == default));
        assert_eq!(measured.load.congestion_control, "reno");
    }
}

#[test]
fn idle_connections_are_held_by_a_separate_process_and_sampled() {
    let (example, none) = (example(), model("none"));
    let workload = Workload {
        idle_connections: 20,
        idle_sample_connections: 50,
        ..fixture::small_workload(Some("/"))
    };
    let outcomes = run(&[(&*example, &none); 2], vec![part(&workload, 2)]).unwrap();
    for measured in outcomes[0].iter().map(|one| one.as_ref().unwrap()) {
        let idle = measured.idle.unwrap();
        assert_eq!((idle.connections, measured.idle_connections_lost), (50, 0));
        assert!(idle.memory.threads >= idle.memory_before.threads + 49, "{idle:?}");
        // The example ends a connection's thread after the client has closed: 20 are kept.
        let before = measured.server.memory_before.threads;
        assert!((20..50).contains(&before), "{:?}", measured.server);
        assert!(measured.server.memory.threads >= 20 + workload.connections);
        match cgroup::unavailable() {
            Some(reason) => eprintln!("SKIP {reason}"),
            None => {
                let (before, with) = (idle.memory_before.kernel_kib, idle.memory.kernel_kib);
                // A kernel stack has 16 KiB on 64-bit Linux (8 KiB on some other architectures).
                assert!(with.unwrap() >= before.unwrap() + 50 * 8, "{idle:?}");
            }
        }
    }
}

#[test]
fn a_server_that_dies_costs_its_own_cell_and_is_named_as_the_cause() {
    let example = example();
    let models = ["none", "die", "start", "wrong", "none"].map(model);
    let servers = models.each_ref().map(|model| (&*example, model));
    let workload = fixture::small_workload(Some("/"));
    let outcomes = run(&servers, vec![part(&workload, 5)]).unwrap();
    let [first, died, start, wrong, last] = &outcomes[0][..] else { panic!("{outcomes:?}") };
    // It ends after 500 requests: in a slice, or before it on a fast machine.
    match died {
        Ok(measured) => {
            let why = measured.load.ended_early.as_ref().unwrap();
            assert!(why.contains("exit code 9") && why.contains("was too much"), "{why}");
            assert!(measured.load.requests > 0 && measured.exit.code == Some(9));
        }
        Err(reason) => assert!(reason.contains("exit code 9"), "{reason}"),
    }
    assert!(start.as_ref().unwrap_err().contains("the fault was asked for"), "{start:?}");
    assert!(wrong.as_ref().unwrap_err().contains("verification"), "{wrong:?}");
    let blocks = |one: &Result<Measured, String>| check(&one.as_ref().unwrap().slices);
    assert!(blocks(first) > 0 && blocks(first) == blocks(last));

    let held = Workload { idle_connections: 64, ..workload };
    let models = ["die-idle", "none"].map(model);
    let servers = models.each_ref().map(|model| (&*example, model));
    let outcomes = run(&servers, vec![part(&held, 2)]).unwrap();
    let reason = outcomes[0][0].as_ref().unwrap_err();
    assert!(reason.contains("of the 64 idle connections, then: "), "{reason}");
    assert!(reason.contains("; the server ended by itself with exit code 9: "), "{reason}");
    assert!(blocks(&outcomes[0][1]) > 0);
}

/// It hangs when the warm-up of three blocks is over: what the others have must not depend on how
/// far the first block was.
#[test]
fn a_server_that_hangs_costs_its_own_cell_only() {
    let place = tempfile::tempdir().unwrap();
    let now = place.path().join("now");
    let (example, none, hang) =
        (example(), model("none"), model(&format!("hang={}", now.display())));
    let workload = fixture::small_workload(Some("/"));
    // It is asked before each start and before each slice.
    let asked = std::cell::Cell::new(0);
    let interrupted = || {
        asked.set(asked.get() + 1);
        if asked.get() == 3 + 3 * 3 + 1 {
            std::fs::write(&now, "").unwrap();
        }
        false
    };
    let models = [&none, &hang, &none];
    let outcomes = epoch::run(&Setting {
        members: models.map(|model| Entry { executable: &example, model }).to_vec(),
        workloads: vec![part(&workload, 3), part(&workload, 3)],
        settings: &settings(),
        root: Path::new("."),
        seed: 1,
        interrupted: &interrupted,
    });
    let outcomes = outcomes.unwrap();
    for part in &outcomes {
        let blocks = |at: usize| check(&part[at].as_ref().unwrap().slices);
        assert!(blocks(0) > 0 && blocks(0) == blocks(2));
    }
    let hung = outcomes[0][1].as_ref().unwrap_err();
    assert!(hung.contains("wrong or missing replies, so it has no further slices"), "{hung}");
    assert!(outcomes[1][1].is_err(), "{:?}", outcomes[1][1]);
}

#[test]
fn several_workloads_have_the_same_processes() {
    let (example, none) = (example(), model("none"));
    let one = Workload { connections: 1, idle_connections: 10, ..fixture::small_workload(None) };
    let (eight, all) = (Workload { connections: 8, ..one.clone() }, Workload { ..one.clone() });
    let mut parts = vec![part(&one, 2), part(&eight, 2), part(&all, 2)];
    // The second server takes part in two of them.
    parts[1].members = vec![1];
    let outcomes = run(&[(&*example, &none); 2], parts).unwrap();
    assert_eq!(outcomes.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 2]);
    let all: Vec<_> = outcomes.into_iter().flatten().map(Result::unwrap).collect();
    let connections: Vec<_> = all.iter().map(|measured| measured.load.connections).collect();
    assert_eq!(connections, [1, 1, 8, 1, 1]);
    all.iter().for_each(check_sums);
    // The totals of the process are the same in all its cells.
    assert_eq!(all[1].exit, all[2].exit);
    assert_eq!(all[2].exit, all[4].exit);
    assert_ne!(all[0].exit, all[1].exit);
}

#[test]
fn the_client_is_doubled_where_that_says_something() {
    let example = example();
    let (none, small) = (model("none"), Model { connections_max: Some(12), ..model("none") });
    let workload = fixture::small_workload(Some("/"));
    let servers = [(&*example, &none), (&*example, &small)];
    let outcomes = run(&servers, vec![part(&workload, 2)]).unwrap();
    let [Ok(first), Ok(second)] = &outcomes[0][..] else { panic!("{outcomes:?}") };
    let blocks = check(&first.doubled.single);
    assert!(blocks > 0 && check(&first.doubled.double) == blocks);
    assert_eq!(check(&second.doubled.single) + check(&second.doubled.double), 0);
    // Its slices are not in an outcome.
    check_sums(first);
    let seconds = first.load.duration_s;
    let in_slices = first.slices.elapsed_ns.iter().sum::<u64>() as f64 / 1e9;
    assert!(first.load.requests_per_s > 0.0 && seconds >= in_slices, "{seconds} {in_slices}");

    let open = Workload { rate_per_s: Some(400), ..workload };
    let outcomes = run(&servers, vec![part(&open, 2)]).unwrap();
    let [Ok(first), Ok(second)] = &outcomes[0][..] else { panic!("{outcomes:?}") };
    assert_eq!(check(&first.doubled.single), 0);
    let due = |measured: &Measured| measured.load.open_loop.as_ref().unwrap().due;
    assert!(due(first) > 0 && due(first) == due(second), "{} {}", due(first), due(second));
}

#[test]
fn an_interrupted_epoch_ends_its_servers_and_keeps_what_was_over() {
    let (example, none) = (example(), model("none"));
    let workload = fixture::small_workload(Some("/"));
    let asked = std::cell::Cell::new(0);
    let interrupted = || {
        asked.set(asked.get() + 1);
        asked.get() > 4
    };
    let stop = epoch::run(&Setting {
        members: vec![Entry { executable: &example, model: &none }; 2],
        workloads: vec![part(&workload, 2)],
        settings: &settings(),
        root: Path::new("."),
        seed: 1,
        interrupted: &interrupted,
    });
    assert!(matches!(&stop, Err(Stop::Interrupted(over)) if over.is_empty()), "{stop:?}");
}
