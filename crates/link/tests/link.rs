//! Real namespaces, real TCP: what a link carries, what it loses, and what is left of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Trial};
use link::{Accuracy, Counters, Direction, Link, Refused};

/// For a machine that is loaded. No case waits so long where it succeeds.
const LIMIT: Duration = Duration::from_secs(30);

type Case = (&'static str, fn());

const CASES: [Case; 8] = [
    ("a_round_trip_takes_the_time_asked_for", a_round_trip_takes_the_time_asked_for),
    ("bytes_are_whole_although_packets_are_lost", bytes_are_whole_although_packets_are_lost),
    ("each_packet_is_accounted_for", each_packet_is_accounted_for),
    ("a_full_queue_drops", a_full_queue_drops),
    ("a_child_starts_in_its_namespace", a_child_starts_in_its_namespace),
    ("a_child_ends_with_the_thread_that_started_it", a_child_ends_with_its_thread),
    ("nothing_is_left", nothing_is_left),
    ("accuracy_is_measured", accuracy_is_measured),
];

/// The namespaces are made before libtest starts a thread; see [`link::prepare`].
fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let refused = Link::up(&link::Profile::default()).err();
    let trials = CASES.map(|(name, case)| {
        let refused = refused.clone();
        Trial::ignorable_test(name, move || Ok(run(case, refused.as_ref())))
    });
    // One at a time: a case looks which descriptors and threads this process has.
    let arguments = Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

fn run(case: fn(), refused: Option<&Refused>) -> Completion {
    match refused {
        Some(refused) => Completion::ignored_with(format!("SKIP {refused}")),
        None => {
            case();
            Completion::Completed
        }
    }
}

fn up(profile: &str) -> Link {
    Link::up(&profile.parse().unwrap()).unwrap()
}

/// A server that sends everything back, for one connection, and a connection to it.
fn echo(link: &Link) -> TcpStream {
    let listener = link.server().run(|| TcpListener::bind((link.server().address(), 0)));
    let listener = listener.unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut writer = stream.try_clone().unwrap();
        // Ends with the client, or with the link.
        let _ = std::io::copy(&mut stream, &mut writer);
    });
    let stream = link.client().run(|| TcpStream::connect_timeout(&address, LIMIT));
    let stream = stream.unwrap().unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn a_round_trip_takes_the_time_asked_for() {
    let rtt = Duration::from_millis(40);
    let link = up("rtt=40ms");
    let before = Instant::now();
    let mut stream = echo(&link);
    assert!(before.elapsed() >= rtt, "connected within {:?}", before.elapsed());
    for _ in 0..3 {
        let before = Instant::now();
        stream.write_all(b"ping").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        let took = before.elapsed();
        assert!((rtt..LIMIT).contains(&took), "{took:?}");
    }
    assert_eq!(link.failure(), None);
}

fn bytes_are_whole_although_packets_are_lost() {
    let link = up("rtt=2ms,rate=200mbit,loss=2%,seed=5");
    let mut stream = echo(&link);
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| (i * 7 / 3) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let mut back = vec![0; bytes.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&bytes).unwrap());
        stream.read_exact(&mut back).unwrap();
    });
    assert!(back == bytes, "the bytes that came back are others");
    for direction in [Direction::ToServer, Direction::ToClient] {
        let counters = link.counters(direction);
        assert!(counters.lost > 0 && counters.delivered_bytes > 1_000_000, "{counters:?}");
    }
}

/// Sends so many numbered packets to the server at once. Returns the numbers that arrived.
fn flood(link: &Link, packets: u32, bytes: usize) -> (Vec<u32>, Counters) {
    let open = |namespace: &link::Namespace| {
        namespace.run(|| UdpSocket::bind((namespace.address(), 0))).unwrap().unwrap()
    };
    let (client, server) = (open(link.client()), open(link.server()));
    server.set_nonblocking(true).unwrap();
    let to = server.local_addr().unwrap();
    let (mut seen, mut sent) = (Vec::new(), 0);
    let mut buffer = [0; 1_500];
    let end = Instant::now() + LIMIT;
    let count = || link.counters(Direction::ToServer);
    loop {
        // In parts that a receive buffer holds, however late this thread reads it.
        let now = count();
        let gone = seen.len() as u64 + now.lost + now.dropped;
        if sent < packets && gone == u64::from(sent) {
            for _ in 0..100.min(packets - sent) {
                buffer[..4].copy_from_slice(&sent.to_be_bytes());
                client.send_to(&buffer[..bytes], to).unwrap();
                sent += 1;
            }
        }
        while let Ok(received) = server.recv(&mut buffer) {
            assert_eq!(received, bytes);
            seen.push(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
        }
        let now = count();
        if seen.len() as u64 + now.lost + now.dropped == u64::from(packets) {
            return (seen, now);
        }
        assert!(Instant::now() < end, "{} arrived; {now:?}", seen.len());
        std::thread::yield_now();
    }
}

fn each_packet_is_accounted_for() {
    let link = up("rtt=4ms,loss=10%,seed=3");
    let (seen, counters) = flood(&link, 2_000, 64);
    assert!(counters.lost > 100, "{counters:?}");
    assert_eq!((counters.sent, counters.dropped), (2_000, 0));
    assert_eq!(seen.len() as u64, 2_000 - counters.lost);
    assert_eq!(counters.delivered, seen.len() as u64);
    assert_eq!(counters.delivered_bytes, counters.delivered * (64 + 28));
    assert!(seen.is_sorted(), "in another order: {seen:?}");
    // The devices dropped nothing, so only what was asked for was lost.
    assert_eq!(link.overrun().unwrap(), 0);
    // The kernels sent nothing by themselves.
    assert_eq!(link.counters(Direction::ToClient), Counters::default());
}

fn a_full_queue_drops() {
    // 100 packets of 128 bytes take 100 ms, and 10 of them fit into the queue.
    let link = up("rtt=2ms,rate=1024kbit,queue=10p");
    let (seen, counters) = flood(&link, 100, 100);
    assert!(seen.len() >= 11 && counters.dropped > 0, "{counters:?}");
    assert_eq!((counters.sent, counters.lost), (100, 0));
    assert_eq!(seen.len() as u64, counters.delivered);
}

fn network_of(status: &str) -> String {
    fs::read_link(format!("/proc/{status}/ns/net")).unwrap().display().to_string()
}

fn a_child_starts_in_its_namespace() {
    let link = up("rtt=1ms");
    let mut command = Command::new("sh");
    command.args(["-c", "readlink /proc/$$/ns/net"]);
    link.server().place(&mut command).unwrap();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let of_child = String::from_utf8(output.stdout).unwrap();
    let [server, client] = [link.server(), link.client()]
        .map(|namespace| namespace.run(|| network_of("thread-self")).unwrap());
    assert_eq!(of_child.trim(), server);
    assert_ne!(server, client);
    assert_ne!(network_of("self"), server);
    // The thread that did the work has ended; this one was not moved.
    assert_eq!(network_of("self"), network_of("thread-self"));
}

fn a_child_ends_with_its_thread() {
    let link = up("rtt=1ms");
    let mut command = Command::new("sleep");
    command.arg("60").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    link.server().place(&mut command).unwrap();
    let mut child = std::thread::spawn(move || command.spawn().unwrap()).join().unwrap();
    let end = Instant::now() + LIMIT;
    let mut status = None;
    while status.is_none() && Instant::now() < end {
        status = child.try_wait().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    // So that nothing is left of a case that fails.
    let _ = child.kill();
    let _ = child.wait();
    assert!(status.is_some_and(|status| !status.success()), "it outlived its thread: {status:?}");
}

/// Namespaces and devices of other descriptors than those of this process's own namespace, and
/// threads of emulators.
fn held() -> Vec<String> {
    let names = |directory: &str| fs::read_dir(directory).unwrap().flatten();
    let links = names("/proc/self/fd").filter_map(|entry| fs::read_link(entry.path()).ok());
    let links = links.map(|link| link.display().to_string());
    let descriptors = links.filter(|link| link.starts_with("net:") || link.ends_with("/net/tun"));
    let comm = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("comm")).ok();
    let threads = names("/proc/self/task").filter_map(comm).filter(|name| name.trim() == "link");
    let networks = names("/proc/self/task").map(|entry| {
        let network = fs::read_link(entry.path().join("ns/net"));
        network.map(|network| network.display().to_string()).unwrap_or_default()
    });
    let own = network_of("self");
    let networks = networks.filter(|network| !network.is_empty() && *network != own);
    descriptors.chain(threads).chain(networks.collect::<Vec<_>>()).collect()
}

fn nothing_is_left() {
    let end = Instant::now() + LIMIT;
    let link = up("rtt=40ms,rate=1mbit");
    // Packets are on their way when it ends.
    let mut stream = echo(&link);
    stream.write_all(&[7; 10_000]).unwrap();
    assert!(held().len() >= 5, "{:?}", held());
    drop(link);
    // Threads of this process that have ended may still be listed.
    while !held().is_empty() {
        assert!(Instant::now() < end, "{:?}", held());
        std::thread::yield_now();
    }
    // What was on its way is gone with the link, and the connection with it.
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    stream.read_exact(&mut [0; 10_000]).unwrap_err();
}

/// Checks that it is measured, and not how exact a loaded machine is.
fn accuracy_is_measured() {
    let link = up("rtt=20ms,rate=5mbit,loss=3%");
    let seen = Accuracy::measure(&link, 300).unwrap();
    assert!(seen.rtt_ms.is_some_and(|ms| ms >= 20.0), "{seen:?}");
    assert!(seen.rate_mbit_s.is_some_and(|rate| rate > 0.0), "{seen:?}");
    let counters = [Direction::ToServer, Direction::ToClient].map(|way| link.counters(way));
    // By the packets that came out, as the emulator counts them.
    assert_eq!(seen.lost, counters.iter().map(|counters| counters.lost).sum::<u64>());
    assert!(seen.packets >= 300 && seen.lost > 0, "{seen:?}");
    let told = seen.to_string();
    for part in ["asked rtt=20ms,rate=5mbit,loss=3%", "round trip", "Mbit/s", "packets lost"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains('\n'), "{told}");

    let seen = Accuracy::measure(&up("rtt=0s"), 300).unwrap();
    assert_eq!((seen.rate_mbit_s, seen.lost), (None, 0), "{seen:?}");
    assert!(seen.rtt_ms.is_some());
}
