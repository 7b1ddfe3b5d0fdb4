//! Tests of `iolab-hold` as a process.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn hold(arguments: &[&str], orders: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iolab-hold"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Fails if it has ended before it reads them.
    let _ = child.stdin.take().unwrap().write_all(orders.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn it_says_what_it_is_and_what_is_wrong_in_a_sentence() {
    let help = hold(&["--help"], "");
    assert!(help.status.success() && said(&help).contains("Holds idle connections"), "{help:?}");
    assert_eq!(hold(&["--nothing"], "").status.code(), Some(2));
    let wrong = hold(&[], "nonsense\n");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(said(&wrong).starts_with("invalid order: "), "{wrong:?}");
    assert!(hold(&[], "").status.success());
}

#[test]
fn where_nothing_listens_it_says_so_and_ends() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let workload = fixture::small_workload(Some("/"));
    let opening = rig::hold::Opening { address, connections: 3, workload };
    let refused = hold(&[], &(serde_json::to_string(&opening).unwrap() + "\n"));
    assert_eq!(refused.status.code(), Some(1));
    let told = said(&refused);
    assert!(told.starts_with("answered 0 of the 3 idle connections, then: "), "{told}");
}
