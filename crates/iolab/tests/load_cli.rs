//! `iolab load` as a user meets it: exit codes, one sentence for bad input, JSON that can be read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use record::LoadOutcome;

type Test = Result<(), Box<dyn std::error::Error>>;

/// Runs `iolab load` with these arguments.
fn load(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_iolab")).arg("load").args(arguments).output()
}

/// An echo server that spoils every byte from its second connection on if told to.
fn echo(spoil: bool) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if spoil && number > 0 {
                        buffer.iter_mut().for_each(|byte| *byte ^= 1);
                    }
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

#[test]
fn a_clean_run_is_a_table_or_json_and_exit_0() -> Test {
    let url = format!("tcp://{}", echo(false)?);
    let output = load(&[&url, "-c", "4", "-n", "50", "--json"])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let outcome: LoadOutcome = serde_json::from_slice(&output.stdout)?;
    assert_eq!((outcome.requests, outcome.errors, outcome.connections), (50, 0, 4));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&value["requests"], &value["errors"]), (&50.into(), &0.into()));

    let output = load(&[&url, "-c", "4", "-n", "50", "--payload", "1000", "--pipelining", "3"])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("requests") && text.contains("p90") && text.contains("none"), "{text}");
    assert!(!text.contains('\x1b'), "colours on something that is no terminal: {text:?}");
    assert!(output.stderr.is_empty(), "a live line on something that is no terminal");
    Ok(())
}

#[test]
fn errors_are_named_and_exit_1() -> Test {
    let url = format!("tcp://{}", echo(true)?);
    let output = load(&[&url, "-c", "4", "-n", "50"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("50 wrong (first: byte 0 of the body"), "{text}");
    Ok(())
}

#[test]
fn bad_input_is_one_sentence_and_exit_2() -> Test {
    let url = format!("tcp://{}", echo(false)?);
    for arguments in [
        vec!["no-url"],
        vec!["tcp://127.0.0.1"],
        vec![&url, "-c", "0"],
        vec![&url, "--payload", "0"],
        vec![&url, "--threads", "100"],
        vec![&url, "--reconnect", "--pipelining", "2"],
        vec![&url, "--idle", "2000000"],
        vec!["http://127.0.0.1:1/", "-H", "no colon"],
    ] {
        let output = load(&arguments)?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let text = String::from_utf8(output.stderr)?;
        assert!(text.starts_with("iolab: ") && text.lines().count() == 1, "{arguments:?}: {text}");
        assert!(output.stdout.is_empty());
    }
    for arguments in [vec![], vec![&url, "-c", "many"], vec![&url, "-n", "5", "-d", "1s"]] {
        let output = load(&arguments)?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
    Ok(())
}
