//! More clients than there are descriptors, places, or bits in a set.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use suite::{Client, Server, Variant, get, until};

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
    let mut clients: Vec<Client> = (0..size).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&get("/"));
    }
    clients
}

/// The operator asked for more connections than the process may have descriptors.
pub fn descriptors_run_out(variant: &Variant) {
    let server = Server::start_with_descriptors(variant, &["--conns-max", "1000"], DESCRIPTORS);
    let clients = crowd_of(&server, CLIENTS);
    if !variant.model.one_at_a_time() {
        let exhausted = || server.process().descriptors() >= DESCRIPTORS as usize - 1;
        until("the server is out of descriptors", exhausted);
    }
    does_not_spin(&server);
    served_one_after_another(&server, clients);
    let counters = server.stop();
    assert_eq!(counters["connections_accepted"], CLIENTS + 5, "{counters}");
}

/// Left to itself, a server takes no more than it has descriptors for.
pub fn limit_follows_descriptors(variant: &Variant) {
    let server = Server::start_with_descriptors(variant, &[], DESCRIPTORS);
    let mut clients = crowd_of(&server, CLIENTS);
    assert_eq!(clients[0].reply().status, 200);
    clients[0].send(&get("/"));
    does_not_spin(&server);
    // Where the kernel accepts by itself (multishot), it may run ahead of being told to stop: what
    // then waits has a descriptor, and is served in its turn all the same.
    if variant.model.describe["place"]["synchronous"] == true {
        let descriptors = server.process().descriptors();
        assert!(descriptors < DESCRIPTORS as usize, "{descriptors} descriptors are open");
    }
    served_one_after_another(&server, clients);
    server.stop();
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

/// More connections than select(2) has bits. A model that can hold them holds them; one that has a
/// limit lets the rest wait or turns them away, counts them, and goes on serving.
pub fn crowd(variant: &Variant) -> Outcome {
    const CROWD: usize = 1100;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    if limit < 2 * CROWD as u64 {
        return Outcome::Skipped(format!(
            "{CROWD} clients need more descriptors than {limit}; raise `ulimit -n`"
        ));
    }
    let server = Server::start(variant, &[]);
    let places = variant.model.served_at_once();
    let clients = crowd_of(&server, CROWD);
    let (mut served, mut refused) = (0, 0);
    let mut staying = Vec::new();
    for client in clients {
        match told(&client) {
            Told::Served => {
                served += 1;
                if places >= CROWD {
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
    if variant.model.name == "select" {
        assert!(places < 1024, "select(2) has 1,024 bits, and says it holds {places}");
    }
    Outcome::Passed
}
