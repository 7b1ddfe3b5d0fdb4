//! The floor: a responder that parses nothing and sends canned replies. It is no competitor but the
//! physical line: what this machine's sockets cost when the server does nothing at all.
//!
//! It is built into this executable, which is that server when its file is called serve-floor: a
//! symbolic link is all that it takes to be started like any other.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::discover::{self, Found};

/// Label of the floor in a result file.
pub const LABEL: &str = "floor";

/// File name under which this executable is the floor.
const EXECUTABLE: &str = "serve-floor";

/// Makes the link in this directory and asks it to describe itself, like any server. The error is
/// the reason why there is no floor, for a table.
pub fn found_in(directory: &Path) -> Result<Found, String> {
    let cannot = |what: &str, error| format!("cannot {what}: {error}");
    let own = std::env::current_exe().map_err(|e| cannot("find this executable", e))?;
    let link = directory.join(EXECUTABLE);
    symlink(own, &link).map_err(|e| cannot("link to this executable", e))?;
    let mut found = discover::describe(&link)?;
    if let Some(reason) = found.unavailable {
        return Err(reason);
    }
    found.model.label = LABEL.to_owned();
    Ok(found)
}
