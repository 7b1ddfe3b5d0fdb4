//! How a command is tried.

/// The ways to try a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// As it is, to its end, beside a server that these flags start; then more arguments.
    Run { server: Option<&'static [&'static str]>, more: &'static str },
    /// Until its first line on stdout.
    Begin { server: Option<&'static [&'static str]> },
    /// Its arguments are read, and its names are looked up.
    Read,
    /// `make` says what it would run.
    Make,
    /// Nothing to try.
    Nothing,
    /// It is silent until a person ends it.
    Silent,
}

/// Words of a load that ends after some requests, on however slow a machine.
const A_FEW: &str = "--requests 200";

const PLAIN: How = How::Run { server: None, more: "" };

/// How `command` is tried.
///
/// # Errors
/// A sentence, for a command that no rule covers.
pub fn of(command: &str) -> Result<How, String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let (program, arguments) = words.split_first().ok_or("an empty command")?;
    let has = |word: &str| arguments.contains(&word);
    let name = program.rsplit('/').next().unwrap_or(program);
    Ok(match name {
        "alias" | "cd" => How::Nothing,
        "make" => How::Make,
        "cargo" => How::Read,
        "curl" | "nghttp" | "openssl" | "ls" => client(command),
        "nc" => How::Silent,
        "python3" => How::Begin { server: None },
        "iolab" => iolab(arguments, command),
        _ if name.starts_with("serve-") && (has("--help") || has("--describe")) => PLAIN,
        _ if name.starts_with("serve-") => How::Begin { server: None },
        _ => return Err("this test does not know how to try it: see crates/suite/tests".into()),
    })
}

fn client(command: &str) -> How {
    let tls = command.contains("https://") || command.starts_with("openssl");
    let server: Option<&'static [_]> = Some(if tls { &["--tls"] } else { &[] });
    // A clock and events do not end.
    let endless = ["/ws/", "/events/"].iter().any(|path| command.contains(path));
    // A status of 400 and above is an error.
    let more = if command.starts_with("curl") { "--fail" } else { "" };
    if endless { How::Begin { server } } else { How::Run { server, more } }
}

fn iolab(arguments: &[&str], command: &str) -> How {
    let has = |word: &str| arguments.contains(&word);
    match arguments.first().copied().unwrap_or_default() {
        // The link needs namespaces, looking for a rate takes its time, and several servers are
        // compared by the clock.
        "load" if has("--link") || has("--find-rate") || command.contains("URL URL") => How::Read,
        "load" => {
            let server: &'static [_] = if command.contains("tcp://") {
                &["--protocol", "echo"]
            } else if command.contains("https://") || command.contains("wss://") {
                &["--tls"]
            } else {
                &[]
            };
            How::Run { server: Some(server), more: if has("--requests") { "" } else { A_FEW } }
        }
        "doctor" | "report" | "export" | "schema" => PLAIN,
        // Its exit code 1 says that something became worse.
        "compare" => How::Run { server: None, more: "|| [ $? = 1 ]" },
        "bench" if has("--show") => PLAIN,
        "experiment" | "laws" | "check-instrument" if has("--list") => PLAIN,
        "experiment" if arguments.len() == 1 => PLAIN,
        _ => How::Read,
    }
}
