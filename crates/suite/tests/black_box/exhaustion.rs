//! More clients than there are descriptors, places, or bits in a set.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use suite::{Client, Opcode, Server, Variant, WebSocket, client_frame, get, until};

use crate::Outcome;

/// Descriptors of a server that is to run out of them.
const DESCRIPTORS: u32 = 100;

/// More clients than that.
const CLIENTS: usize = 150;

/// CPU time, in parts of the time that passes, that a server with nothing to do may use. A loop
/// that spins uses all of it.
const SPINNING_PART: u32 = 2;

/// How long a server is watched for spinning.
const WATCHED: Duration = Duration::from_millis(600);

#[track_caller]
fn does_not_spin(server: &Server) {
    let (begun, before) = (Instant::now(), server.process().cpu());
    std::thread::sleep(WATCHED);
    let (watched, burnt) = (begun.elapsed(), server.process().cpu() - before);
    let spins = burnt > watched / SPINNING_PART;
    // The busy model always does: that is its way of waiting.
    assert!(!spins || server.variant.model.polls_busily(), "burnt {burnt:?} in {watched:?}");
}

/// Whoever leaves makes room for the next: in the end all have been served.
#[track_caller]
fn served_one_after_another(server: &Server, clients: Vec<Client>) {
    for mut client in clients {
        assert_eq!(client.reply().status, 200);
    }
    for _ in 0..5 {
        server.serves();
    }
}

fn crowd_of(server: &Server, size: usize) -> Vec<Client> {
    let clients: Vec<Client> = (0..size).map(|_| server.connect()).collect();
    for client in &clients {
        // One that was turned away already may say so here; what it is told is looked at later.
        let _ = client.stream().write_all(&get("/"));
    }
    clients
}

/// The operator asked for more connections than the process may have descriptors.
pub fn descriptors_run_out(variant: &Variant) -> Outcome {
    if variant.model.one_at_a_time() {
        return Outcome::skipped(FEW_DESCRIPTORS);
    }
    if variant.model.has_processes() {
        return Outcome::skipped(LIMITS_OF_ITS_OWN);
    }
    let server = Server::start_with_descriptors(variant, &["--conns-max", "1000"], DESCRIPTORS);
    let clients = crowd_of(&server, CLIENTS);
    let exhausted = || server.process().descriptors() >= DESCRIPTORS as usize - 1;
    until("the server is out of descriptors", exhausted);
    does_not_spin(&server);
    served_one_after_another(&server, clients);
    let counters = server.stop();
    assert_eq!(counters["connections_accepted"], CLIENTS + 5, "{counters}");
    Outcome::Passed
}

/// There is no room for a single signal, so each one is lost, and SIGIO says only that it was.
pub fn signals_run_out(variant: &Variant) -> Outcome {
    if variant.model.name != "sigio" {
        return Outcome::skipped("its sockets send no signals");
    }
    if std::process::Command::new("prlimit").arg("--version").output().is_err() {
        return Outcome::skipped("prlimit(1) is not installed");
    }
    let server = Server::start_with_signals(variant, &[], 0);
    let clients = crowd_of(&server, CLIENTS);
    served_one_after_another(&server, clients);
    // More than a socket can hold: the loop must also be told that there is room again.
    let mut large = server.connect();
    large.send(&get("/bytes/4000000"));
    assert_eq!(large.reply().body.len(), 4_000_000);
    drop(large);
    does_not_spin(&server);
    let counters = server.stop();
    assert_eq!(counters["connections_accepted"], CLIENTS + 5 + 1, "{counters}");
    assert!(counters["signal_queue_overflows"].as_u64() > Some(0), "{counters}");
    Outcome::Passed
}

const FEW_DESCRIPTORS: &str = "it serves one at a time: its descriptors do not run out";

const LIMITS_OF_ITS_OWN: &str =
    "each client has a process, which has limits of its own and needs little";

/// Left to itself, a server takes no more than it has descriptors for.
pub fn limit_follows_descriptors(variant: &Variant) -> Outcome {
    if variant.model.one_at_a_time() {
        return Outcome::skipped(FEW_DESCRIPTORS);
    }
    if variant.model.has_processes() {
        return Outcome::skipped(LIMITS_OF_ITS_OWN);
    }
    let server = Server::start_with_descriptors(variant, &[], DESCRIPTORS);
    let mut clients = crowd_of(&server, CLIENTS);
    assert_eq!(clients[0].reply().status, 200);
    clients[0].send(&get("/"));
    does_not_spin(&server);
    // Where the kernel accepts by itself (multishot), it may run ahead of being told to stop: what
    // then waits has a descriptor, and is served in its turn all the same.
    if !variant.model.kernel_copies() {
        let descriptors = server.process().descriptors();
        assert!(descriptors < DESCRIPTORS as usize, "{descriptors} descriptors are open");
    }
    served_one_after_another(&server, clients);
    server.stop();
    Outcome::Passed
}

/// Address space, in KiB, in which some hundred threads have room.
const ADDRESSES_KIB: u32 = 256 << 10;

/// More clients than that, so that a thread for each cannot be started.
const MORE_THAN_THREADS: usize = 450;

/// More clients than threads can be started: the server knows that at its start, says how many it
/// serves, and lets the others wait. None is refused, and nothing ends the process.
pub fn threads_run_out(variant: &Variant) -> Outcome {
    if let Some(skipped) = no_threads_for_connections(variant) {
        return skipped;
    }
    let pool = variant.model.flavour("threads").is_some();
    let flags: &[&str] = if pool { &["--threads", "1000"] } else { &[] };
    let describe = Server::describe_with_addresses(variant, flags, ADDRESSES_KIB);
    let places = describe["limits"]["connections_max"].as_u64().unwrap_or_default() as usize;
    assert!(places < MORE_THAN_THREADS, "{}", describe["limits"]);
    let server = Server::start_with_addresses(variant, flags, ADDRESSES_KIB);
    let mut clients = crowd_of(&server, MORE_THAN_THREADS);
    let waiting = clients.split_off(places);
    for client in &mut clients {
        assert_eq!(client.reply().status, 200);
    }
    assert!(waiting.iter().all(Client::is_silent), "more than {places} are served at once");
    drop(clients);
    served_one_after_another(&server, waiting);
    let counters = server.stop();
    assert_eq!(counters["connections_accepted"], MORE_THAN_THREADS + 5, "{counters}");
    assert_eq!(counters["connections_refused"], 0, "{counters}");
    assert_eq!(counters["connections_ended"]["exhausted"], 0, "{counters}");
    Outcome::Passed
}

fn no_threads_for_connections(variant: &Variant) -> Option<Outcome> {
    if variant.model.has_processes() {
        return Some(Outcome::skipped(LIMITS_OF_ITS_OWN));
    }
    let has_threads = variant.model.blocks_in_io() && !variant.model.one_at_a_time();
    (!has_threads).then(|| Outcome::skipped("it has no thread for each connection"))
}

/// Members of a chat have two threads where threads block. With a connection in every place, a
/// member for which no second thread can be started is cut and counted, and the others go on.
pub fn second_threads_run_out(variant: &Variant) -> Outcome {
    if let Some(skipped) = no_threads_for_connections(variant) {
        return skipped;
    }
    if variant.flags.iter().any(|flag| flag == "--duplex") {
        return Outcome::skipped("each connection has its second thread from the start");
    }
    let describe = Server::describe_with_addresses(variant, &[], ADDRESSES_KIB);
    let places = describe["limits"]["connections_max"].as_u64().expect("a number");
    let server = Server::start_with_addresses(variant, &[], ADDRESSES_KIB);
    let mut clients: Vec<_> = (0..places).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&get("/"));
        assert_eq!(client.reply().status, 200);
    }
    // One after another: a member that was cut makes room for the second thread of a later one.
    let mut cut = clients.iter_mut().map(joins).filter(|joined| !joined).count();
    assert!(cut > 0, "{places} members have two threads each");
    drop(clients);
    until("there is a second thread again", || {
        // The threads of those that left may still be ending.
        let joined = joins(&mut server.connect());
        cut += usize::from(!joined);
        joined
    });
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["exhausted"], cut, "{counters}");
    Outcome::Passed
}

/// Asks for the chat: whether the connection becomes a member or is cut.
fn joins(client: &mut Client) -> bool {
    client.send(&WebSocket::opening("/ws/chat"));
    match client.stream().peek(&mut [0]) {
        Ok(1) => {
            assert_eq!(client.head().status, 101);
            true
        }
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) => panic!("neither opened nor cut: {error}"),
    }
}

/// Memory that connections may hold, and its flag: a few messages that are not finished.
const MEMORY_MAX: u64 = 8 << 20;
const MEMORY_FLAGS: [&str; 2] = ["--memory-max", "8MiB"];

/// Clients whose messages together are several times that.
const HOLDERS: usize = 20;

/// Clients begin large messages and never end them: all together they may hold what the server was
/// given, the largest are ended for it, and a newcomer is served.
pub fn memory_is_bounded(variant: &Variant) -> Outcome {
    if variant.model.one_at_a_time() {
        return Outcome::skipped("one connection alone cannot pass the bound");
    }
    let server = Server::start(variant, &MEMORY_FLAGS);
    let mut said = client_frame(Opcode::Binary, &vec![7; 1 << 20]);
    said.truncate(900 << 10);
    let holders: Vec<_> = (0..HOLDERS)
        .map(|_| {
            let (mut holder, said) = (WebSocket::ask(&server, "/ws/echo"), said.clone());
            thread::spawn(move || {
                // An error: it was among those that had to go.
                let _ = holder.client().stream().write_all(&said);
                holder
            })
        })
        .collect();
    let holders: Vec<_> =
        holders.into_iter().map(|holder| holder.join().expect("a client")).collect();
    server.serves();
    assert_eq!(server.stats()["memory_max"], MEMORY_MAX);
    // What the clients have written may still be on its way through the kernel.
    until("the largest have gone, and the rest keeps to the bound", || {
        let stats = server.stats();
        let ended = stats["connections_ended"]["exhausted"].as_u64();
        ended > Some(0) && stats["memory_held"].as_u64() <= Some(MEMORY_MAX)
    });
    drop(holders);
    let few = 4 * (64 << 10);
    until("memory is given back", || server.stats()["memory_held"].as_u64() < Some(few));
    server.serves();
    server.stop();
    Outcome::Passed
}

/// Clients that make a server hold much, and all leave: the system has the memory again. Blocks in
/// between are still in use, so the allocator does not give it back by itself.
pub fn memory_is_given_back(variant: &Variant) -> Outcome {
    if variant.model.one_at_a_time() {
        return Outcome::skipped("one connection alone does not hold much");
    }
    if variant.model.has_processes() {
        let reason = "each process keeps what malloc(3) keeps free of its one client, for the next";
        return Outcome::skipped(reason);
    }
    const CLIENTS: usize = 100;
    const MIB: u64 = 1 << 10;
    let server = Server::start(variant, &["--memory-max", "1GiB"]);
    let mut said = client_frame(Opcode::Binary, &vec![7; 1 << 20]);
    said.truncate(900 << 10);
    server.serves();
    let process = server.process();
    let before = process.memory_kib();
    let mut staying = Vec::new();
    let holders: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut holder = WebSocket::ask(&server, "/ws/echo");
            holder.client().send(&said);
            staying.push(WebSocket::open(&server, "/ws/echo"));
            holder
        })
        .collect();
    until("much is held", || process.memory_kib() > before + 80 * MIB);
    drop(holders);
    until("it is given back", || process.memory_kib() < before + 40 * MIB);
    drop(staying);
    server.stop();
    Outcome::Passed
}

/// A crowd comes, and leaves without having asked much: the tables that were made for it go too.
/// They are most of what a connection at rest takes.
pub fn tables_of_a_crowd_are_given_back(variant: &Variant) -> Outcome {
    const CLIENTS: usize = 2_500;
    // All are descriptors of this process: one variant after another.
    static ONE_CROWD: Mutex<()> = Mutex::new(());
    let places = variant.model.connections_max();
    if variant.model.blocks_in_io() {
        return Outcome::skipped("it has threads and no table of connections");
    }
    if places < CLIENTS + 100 {
        return Outcome::Skipped(format!("it holds {places} connections: too few to be seen"));
    }
    if let Some(skipped) = too_few_descriptors(CLIENTS) {
        return skipped;
    }
    let _alone = ONE_CROWD.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(variant, &["--workers", "1"]);
    let process = server.process();
    let visit = |size: usize| {
        let clients: Vec<_> = (0..size).map(|_| server.connect()).collect();
        until("all are here", || server.stats()["connections_open"].as_u64() > Some(size as u64));
        let full = process.memory_kib();
        drop(clients);
        until("all have left", || server.stats()["connections_open"].as_u64() == Some(1));
        full
    };
    // What is made once, for all crowds.
    visit(100);
    let before = process.memory_kib();
    let full = visit(CLIENTS);
    until("most of it is given back", || process.memory_kib() < before.midpoint(full));
    server.stop();
    Outcome::Passed
}

/// What a client of the crowd was told.
enum Told {
    Served,
    /// Closed or reset without a word.
    Refused,
}

#[track_caller]
fn told(client: &Client) -> Told {
    let mut reply = [0; 4096];
    match client.stream().read(&mut reply) {
        Ok(0) => Told::Refused,
        Ok(n) => {
            let text = String::from_utf8_lossy(&reply[..n]);
            assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("Hello, world!"), "{text}");
            Told::Served
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Told::Refused,
        Err(error) => panic!("neither served nor refused: {error}"),
    }
}

/// Clients at once: more than select(2) has bits.
const CROWD: usize = 1100;

/// Descriptors that are taken before the first client comes.
const FILES: usize = 100;

/// A model that can hold them all holds them; one that has a limit lets the rest wait, and serves
/// each when another has left.
pub fn crowd(variant: &Variant) -> Outcome {
    if let Some(skipped) = too_few_descriptors(CROWD) {
        return skipped;
    }
    let server = Server::start(variant, &[]);
    let refused = visit_of_a_crowd(server);
    let places = variant.model.connections_max();
    if variant.model.name == "select" {
        // Descriptors that it was started with may take some of its places.
        assert!(places < 1024, "select(2) has 1,024 bits, and says that it holds {places}");
        assert!(refused < 200, "{refused} of {CROWD} were turned away");
    } else {
        assert_eq!(refused, 0, "clients were turned away where they could have waited");
    }
    Outcome::Passed
}

/// The same beside an open document root: now descriptors pass 1,024 before the places are taken.
/// To select(2) those are of no use: it turns them away, counts them, and goes on serving.
pub fn crowd_beside_files(variant: &Variant) -> Outcome {
    if let Some(skipped) = too_few_descriptors(CROWD) {
        return skipped;
    }
    let root = tempfile::tempdir().expect("a temporary directory");
    for number in 0..FILES {
        fs::write(root.path().join(number.to_string()), "x").expect("writing a file");
    }
    let server = Server::start(variant, &["--root", &root.path().to_string_lossy()]);
    let refused = visit_of_a_crowd(server);
    assert_eq!(refused > 0, variant.model.name == "select", "{refused} were turned away");
    Outcome::Passed
}

fn too_few_descriptors(clients: usize) -> Option<Outcome> {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let needed = 2 * clients as u64;
    let reason =
        || format!("{clients} clients need more descriptors than {limit}; raise `ulimit -n`");
    (limit < needed).then(|| Outcome::Skipped(reason()))
}

/// Returns how many were turned away, which the server has counted too.
#[track_caller]
fn visit_of_a_crowd(server: Server) -> u64 {
    let places = server.variant.model.connections_max();
    let (mut served, mut refused) = (0, 0);
    let mut staying = Vec::new();
    for client in crowd_of(&server, CROWD) {
        match told(&client) {
            Told::Served => {
                served += 1;
                // select refuses beyond its bitmap and lets no client wait, so those that it serves
                // can stay; if they left, their descriptors would serve the others.
                if places >= CROWD || server.variant.model.name == "select" {
                    staying.push(client);
                }
            }
            Told::Refused => refused += 1,
        }
    }
    for client in &mut staying {
        client.send(&get("/"));
        assert_eq!(client.reply().status, 200, "a client of the crowd is asked again");
    }
    drop(staying);
    server.serves();
    let counters = server.stop();
    assert_eq!(counters["connections_refused"], refused, "{counters}");
    assert_eq!(counters["connections_accepted"], served + 1, "{counters}");
    refused
}
