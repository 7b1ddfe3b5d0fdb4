//! `--protocol echo`: every byte back (RFC 862).

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use suite::{Client, Server, Variant, pattern};

/// More than all buffers between two programs on loopback can hold (tcp_wmem and tcp_rmem end at
/// 4 and 6 MiB each way): what goes beyond is in the server's memory.
const UNBOUNDED_BYTES: usize = 64 << 20;

/// What a server's peak may grow by for one connection: buffers, a thread's stack, the allocator's
/// rounding. Two orders below what an unbounded queue would take.
const GROWTH_KIB_MAX: u64 = 8 << 10;

fn start(variant: &Variant) -> Server {
    Server::start(variant, &["--protocol", "echo"])
}

#[track_caller]
fn echoes(client: &mut Client, bytes: &[u8]) {
    client.send(bytes);
    assert_eq!(client.read_exact(bytes.len()), bytes);
}

pub fn bytes_come_back(variant: &Variant) {
    let server = start(variant);
    let mut client = server.connect();
    echoes(&mut client, b"hello");
    let all_values: Vec<u8> = (0..=255).collect();
    echoes(&mut client, &all_values);
    // A buffer's length less one, itself and one more, for the usual lengths.
    for len in [1, 4095, 4096, 4097, 16 << 10, (64 << 10) - 1, 64 << 10, (64 << 10) + 1] {
        echoes(&mut client, &pattern(len, len));
    }
    drop(client);
    let counters = server.stop();
    assert_eq!(counters["bytes_received"], counters["bytes_sent"]);
}

pub fn byte_at_a_time(variant: &Variant) {
    let server = start(variant);
    let mut client = server.connect();
    for byte in pattern(0, 300) {
        echoes(&mut client, &[byte]);
    }
    drop(client);
    server.stop();
}

pub fn mebibyte_while_reading(variant: &Variant) {
    let server = start(variant);
    let mut client = server.connect();
    let mut writer = client.second_handle();
    let writing = thread::spawn(move || {
        for at in (0..1 << 20).step_by(10_000) {
            let len = ((1 << 20) - at).min(10_000);
            writer.write_all(&pattern(at, len)).expect("the server takes a MiB");
        }
    });
    assert!(client.read_exact(1 << 20) == pattern(0, 1 << 20), "other bytes came back");
    writing.join().expect("the writer");
    echoes(&mut client, b"and on");
    drop(client);
    server.stop();
}

pub fn half_close(variant: &Variant) {
    let server = start(variant);
    let mut client = server.connect();
    client.send(b"last words");
    client.finish_sending();
    assert_eq!(client.read_to_end(), b"last words");
    let mut client = server.connect();
    client.finish_sending();
    client.expect_end();
    drop(client);
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["completed"], 2, "{counters}");
}

/// The FIN waits behind more than the server's own output limit: everything still comes back.
pub fn half_close_behind_unread_output(variant: &Variant) {
    let server = start(variant);
    let mut client = server.connect();
    let patience = Duration::from_millis(200);
    let sent = client.send_until_stalled(pattern, 2 << 20, patience);
    client.finish_sending();
    let back = client.read_to_end();
    assert_eq!(back.len(), sent);
    assert!(back == pattern(0, sent), "other bytes came back");
    drop(client);
    server.stop();
}

/// The server must stop reading from one who does not read, and go on when he does.
pub fn client_that_only_writes(variant: &Variant) {
    let server = start(variant);
    let mut client = server.connect();
    echoes(&mut client, b"warm");
    let before = server.process().memory_peak_kib();
    let patience = Duration::from_millis(300);
    let sent = client.send_until_stalled(pattern, UNBOUNDED_BYTES, patience);
    assert!(sent < UNBOUNDED_BYTES, "took {sent} bytes of output that nobody reads");
    let growth = server.process().memory_peak_kib() - before;
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB for one client that does not read");
    if !variant.model.one_at_a_time() {
        let mut other = server.connect();
        echoes(&mut other, b"and the others?");
    }
    client.finish_sending();
    let back = client.read_to_end();
    assert_eq!(back.len(), sent);
    assert!(back == pattern(0, sent), "other bytes came back");
    drop(client);
    server.stop();
}

pub fn many_connections(variant: &Variant) {
    const CLIENTS: usize = 200;
    let own = variant.model.flags_for(CLIENTS);
    let own = own.iter().map(String::as_str);
    let flags: Vec<&str> = ["--protocol", "echo"].into_iter().chain(own).collect();
    let server = Server::start(variant, &flags);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("client {number:3}").as_bytes());
    }
    if variant.model.one_at_a_time() {
        // Each is served when the one before has left.
        for (number, mut client) in clients.into_iter().enumerate() {
            assert_eq!(client.read_exact(10), format!("client {number:3}").as_bytes());
        }
    } else {
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.read_exact(10), format!("client {number:3}").as_bytes());
        }
        // All are still there, and can be asked in any order.
        for client in clients.iter_mut().rev() {
            echoes(client, b"again");
        }
        drop(clients);
    }
    let counters = server.stop();
    assert_eq!(counters["connections_accepted"], 200);
    assert_eq!(counters["connections_open"], 0);
}

/// Clients that leave at once, with FIN or with RST, before or after a word.
pub fn hang_ups_and_resets(variant: &Variant) {
    let server = start(variant);
    for round in 0..40 {
        let mut client = server.connect();
        if round % 4 >= 2 {
            client.send(b"word");
        }
        if round % 2 == 1 {
            client.reset();
        }
    }
    let mut client = server.connect();
    echoes(&mut client, b"still here");
    drop(client);
    let counters = server.stop();
    assert_eq!(counters["connections_open"], 0, "{counters}");
}

pub fn idle_timeout(variant: &Variant) {
    let server = Server::start(variant, &["--protocol", "echo", "--idle-timeout", "150ms"]);
    let begun = Instant::now();
    let mut client = server.connect();
    client.expect_end();
    assert!(begun.elapsed() >= Duration::from_millis(150), "early: {:?}", begun.elapsed());
    drop(client);
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["idle_timeout"], 1, "{counters}");
}
