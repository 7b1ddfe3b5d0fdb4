//! The document root. It is scanned once, at start, and every file is opened then. So a request
//! cannot name a path outside it, nor read a file that was put in the place of another.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use conn::{FileRead, FileTable, FileTableBuilder};

use crate::sys;

/// Most files of a root. Each takes a descriptor as long as the server runs.
const FILES_MAX: usize = 4096;

/// The open files, in the order of their [`conn::FileId`].
#[derive(Debug, Default)]
pub struct Files {
    files: Vec<File>,
}

impl Files {
    /// pread(2) of one part. A regular file is always "ready": no readiness call waits for it. So
    /// if the page cache does not hold the part, this call blocks the thread.
    ///
    /// # Errors
    /// What pread(2) says.
    pub fn read(&self, part: &FileRead) -> io::Result<Bytes> {
        sys::read_at(self.get(part)?, part.offset, part.len).map(Bytes::from)
    }

    /// The open file itself, for models that read it in their own way.
    ///
    /// # Errors
    /// `NotFound` for an id that is not of this root.
    pub fn get(&self, part: &FileRead) -> io::Result<&File> {
        self.files.get(part.file.0 as usize).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// How many descriptors the root holds.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// True without a document root.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Opens every file under `root`, but for hidden files, symbolic links and special files.
    /// Links can lead out of the root, and a special file can block the thread.
    pub(crate) fn scan(root: &Path) -> Result<(FileTable, Files), String> {
        let mut table = FileTableBuilder::default();
        let mut files = Files::default();
        let mut directories = vec![(root.to_path_buf(), String::new())];
        while let Some((directory, prefix)) = directories.pop() {
            let entries =
                fs::read_dir(&directory).map_err(|error| unreadable(&directory, &error))?;
            for entry in entries {
                let entry = entry.map_err(|error| unreadable(&directory, &error))?;
                let name = entry.file_name();
                let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                    continue;
                };
                let kind = entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?;
                let path = format!("{prefix}{name}");
                if kind.is_dir() {
                    directories.push((entry.path(), format!("{path}/")));
                } else if kind.is_file() {
                    files.open(&mut table, entry.path(), &path)?;
                }
            }
        }
        Ok((table.build(), files))
    }

    fn open(
        &mut self,
        table: &mut FileTableBuilder,
        from: PathBuf,
        path: &str,
    ) -> Result<(), String> {
        if self.files.len() == FILES_MAX {
            return Err(format!(
                "the document root holds more than {FILES_MAX} files, and each would stay open; \
                 choose a smaller --root"
            ));
        }
        let file = File::open(&from).map_err(|error| unreadable(&from, &error))?;
        let meta = file.metadata().map_err(|error| unreadable(&from, &error))?;
        let content_type = mime_guess::from_path(path).first_or_octet_stream();
        table.add(path, meta.len(), modified_unix_ns(&meta), content_type.essence_str());
        self.files.push(file);
        Ok(())
    }
}

/// When a file was modified last, but not later than now (RFC 9110 section 8.8.2.1).
fn modified_unix_ns(meta: &Metadata) -> u64 {
    let modified = meta.modified().ok().map(|at| at.min(SystemTime::now()));
    let modified = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    modified.map_or(0, |at| at.as_nanos() as u64)
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    let remedy = if crate::listener::is_exhausted(error) {
        "every file stays open: raise the limit (ulimit -n) or choose a smaller directory"
    } else {
        "choose a directory you may read"
    };
    format!("cannot read {} under --root: {error}; {remedy}", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use conn::FileId;

    use super::*;

    fn part(file: u32, offset: u64, len: usize) -> FileRead {
        FileRead { file: FileId(file), offset, len }
    }

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        fs::write(path, content).expect("a file");
    }

    #[test]
    fn a_part_is_read_as_far_as_the_file_goes() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "a.txt", "0123456789");
        let (_, files) = Files::scan(root.path()).expect("a root");
        assert_eq!(files.len(), 1);
        let read = |offset, len| files.read(&part(0, offset, len)).expect("a read");
        assert_eq!(read(0, 10), "0123456789");
        assert_eq!(read(3, 4), "3456");
        assert_eq!(read(8, 100), "89", "the end comes before the length");
        assert_eq!(read(10, 1), "", "at the end");
        assert_eq!(read(1_000, 1), "", "behind the end");
        assert_eq!(
            files.read(&part(0, u64::MAX, 1)).expect_err("no offset").kind(),
            io::ErrorKind::Other
        );
        assert_eq!(
            files.read(&part(1, 0, 1)).expect_err("no file").kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn no_file_was_modified_in_the_future() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "a.txt", "a");
        let file = File::options().write(true).open(root.path().join("a.txt")).expect("a file");
        let shown = |at: SystemTime| {
            file.set_modified(at).expect("its owner may");
            Duration::from_nanos(modified_unix_ns(&file.metadata().expect("an open file")))
        };
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let before = now();
        let future = shown(SystemTime::now() + Duration::from_secs(86_400));
        assert!(before <= future && future <= now(), "{future:?} is not the time of the look");
        let past = Duration::new(784_111_777, 5);
        assert_eq!(shown(UNIX_EPOCH + past), past);
        assert_eq!(shown(UNIX_EPOCH - Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn a_file_that_is_replaced_stays_the_one_that_was_opened() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "a.txt", "before");
        let (_, files) = Files::scan(root.path()).expect("a root");
        write(root.path(), "b.txt", "after!");
        fs::rename(root.path().join("b.txt"), root.path().join("a.txt")).expect("a rename");
        assert_eq!(files.read(&part(0, 0, 6)).expect("a read"), "before");
    }

    #[test]
    fn only_plain_files_below_the_root_are_opened() {
        let outside = tempfile::tempdir().expect("a directory");
        write(outside.path(), "secret.txt", "secret");
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "a.txt", "a");
        write(root.path(), "sub/deep/b.txt", "b");
        write(root.path(), "empty.txt", "");
        write(root.path(), ".hidden", "hidden");
        write(root.path(), ".git/config", "hidden too");
        symlink(outside.path(), root.path().join("out")).expect("a link");
        symlink(outside.path().join("secret.txt"), root.path().join("link.txt")).expect("a link");
        nix::unistd::mkfifo(&root.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU)
            .expect("a pipe, which would block the thread that opens it");
        let (_, files) = Files::scan(root.path()).expect("a root");
        let content = |id: usize| files.read(&part(id as u32, 0, 100)).expect("a read");
        let mut found: Vec<_> = (0..files.len()).map(content).collect();
        found.sort();
        assert_eq!(found, ["", "a", "b"]);
    }

    #[test]
    fn a_root_that_is_none_is_named_in_one_sentence() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "a.txt", "a");
        for path in ["missing", "a.txt"] {
            let path = root.path().join(path);
            let sentence = Files::scan(&path).expect_err("no directory");
            assert!(sentence.contains(&path.display().to_string()), "{sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    }
}
