//! Whether a link between two network namespaces can be made.
//!
//! Without root it takes a user namespace, in which this process would lose rights that the other
//! checks look for. So a child tries it: this executable with a hidden flag.

use std::process::Command;
use std::time::Duration;

use link::{Link, Profile, Refused};
use rig::server::run_briefly;

use super::{Availability, Capability};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Makes a link in this process. Returns `ok`, or a line each for what is refused and the remedy.
pub fn probe_here() -> String {
    match link::prepare().and_then(|()| Link::up(&Profile::default())) {
        Ok(_) => "ok\n".to_owned(),
        Err(Refused { why, remedy }) => format!("{why}\n{remedy}\n"),
    }
}

/// Makes a link in a child, and says what came of it.
pub fn check() -> Capability {
    let said = std::env::current_exe().map_err(|e| e.to_string()).and_then(|executable| {
        let mut command = Command::new(executable);
        command.args(["doctor", "--probe-link"]);
        run_briefly(command, TIMEOUT)
    });
    told(said.map(|said| said.stdout).as_deref())
}

fn told(said: Result<&str, &String>) -> Capability {
    let lines: Vec<&str> =
        said.map_or_else(|why| vec![why.as_str()], |said| said.lines().collect());
    let (found, remedy) = match lines[..] {
        ["ok"] => {
            let found = "--link works: network namespaces and TUN devices can be made";
            return Capability::new("link", found.into(), None);
        }
        [why, remedy] => (format!("--link does not work: {why}"), remedy),
        _ => (format!("could not be tried: {}", lines.join(" ")), "run iolab doctor again"),
    };
    Capability::new("link", found, Some((Availability::Missing, remedy)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_told_with_its_remedy() {
        assert_eq!(told(Ok("ok\n")).verdict, Availability::Ok);
        let refused = told(Ok("a TUN device is refused: EPERM\nrun as root\n"));
        assert_eq!((refused.verdict, &*refused.remedy), (Availability::Missing, "run as root"));
        assert!(refused.found.contains("a TUN device is refused: EPERM"));
        assert!(told(Err(&"it was killed".into())).found.contains("it was killed"));
        assert!(told(Ok("")).found.contains("could not be tried"));
    }
}
