//! The document root: scanned once at start, every file opened then, so that a request can neither
//! name a path outside nor meet a file that another has replaced meanwhile.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use conn::{FileRead, FileTable, FileTableBuilder};

use crate::sys;

/// Most files of a root. Each holds a descriptor for the life of the server.
const FILES_MAX: usize = 4096;

/// The open files, in the order of their [`conn::FileId`].
#[derive(Debug, Default)]
pub struct Files {
    files: Vec<File>,
}

impl Files {
    /// pread(2) of one part. A regular file is always "ready": no readiness call ever waits for it,
    /// so where the page cache misses, this call blocks the thread, in every model but io_uring.
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

    /// Opens everything under `root`. Hidden files, symbolic links and special files are left out:
    /// the first are not meant to be seen, the others are ways out of the root.
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
        let modified = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified_unix_ns = modified.map_or(0, |at| at.as_nanos() as u64);
        let content_type = mime_guess::from_path(path).first_or_octet_stream();
        table.add(path, meta.len(), modified_unix_ns, content_type.essence_str());
        self.files.push(file);
        Ok(())
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("cannot read {} under --root: {error}; choose a directory you may read", path.display())
}
