//! The identity of a server's executable. It is hashed when the server is found and checked before
//! each trial, because a build during the run may replace it. The rounds before and after would
//! then be of two servers with the same name.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use record::Executable;
use ring::digest::{SHA256, digest};

/// Changes whenever the file is replaced or written. Reading it takes microseconds and the hash
/// some milliseconds, so the hash is computed only if this has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Stamp> {
        let meta = std::fs::metadata(path)?;
        Ok(Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// The present file. `build`: from the server's `--describe`.
pub fn identify(path: &Path, build: Option<String>) -> io::Result<Executable> {
    let content = std::fs::read(path)?;
    let hash = digest(&SHA256, &content);
    let sha256 = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Executable { sha256, bytes: content.len() as u64, build })
}

/// An executable that must not change during the run.
#[derive(Debug)]
pub struct Watched {
    /// Path of the executable.
    pub path: PathBuf,
    sha256: String,
    /// `None` until the first check, which computes the hash: the file may have changed after
    /// `--describe`.
    stamp: Option<Stamp>,
}

impl Watched {
    /// `sha256`: the hash when the server was found.
    pub fn new(path: PathBuf, sha256: String) -> Watched {
        Watched { path, sha256, stamp: None }
    }

    /// Checks the file.
    ///
    /// # Errors
    /// The sentence that ends the run.
    pub fn check(&mut self) -> Result<(), String> {
        let shown = self.path.display();
        let gone = |error| format!("{shown} can no longer be read ({error})");
        let stamp = Stamp::of(&self.path).map_err(gone)?;
        if self.stamp.as_ref() == Some(&stamp) {
            return Ok(());
        }
        let now = identify(&self.path, None).map_err(gone)?.sha256;
        if now != self.sha256 {
            return Err(format!(
                "{shown} has changed since the start of the run (SHA-256 {}..., then \
                 {}...): build first, then start a new run",
                &now[..12],
                &self.sha256[..12],
            ));
        }
        self.stamp = Some(stamp);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha_256() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("serve-abc");
        std::fs::write(&path, "abc").unwrap();
        let found = identify(&path, Some("release".into())).unwrap();
        // The first test vector of FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((found.sha256.as_str(), found.bytes), (expected, 3));
    }

    #[test]
    fn a_file_that_is_replaced_is_seen_and_one_that_is_copied_is_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("serve-abc");
        std::fs::write(&path, "abc").unwrap();
        let mut watched = Watched::new(path.clone(), identify(&path, None).unwrap().sha256);
        assert_eq!(watched.check(), Ok(()));
        // As cargo does: a new file replaces it. The same bytes are the same server.
        let replace = |content: &str| {
            let new = place.path().join("new");
            std::fs::write(&new, content).unwrap();
            std::fs::rename(&new, &path).unwrap();
        };
        replace("abc");
        assert_eq!(watched.check(), Ok(()));
        replace("abd");
        let told = watched.check().unwrap_err();
        assert!(told.contains("serve-abc has changed"), "{told}");
        std::fs::remove_file(&path).unwrap();
        assert!(watched.check().unwrap_err().contains("can no longer be read"));
    }
}
