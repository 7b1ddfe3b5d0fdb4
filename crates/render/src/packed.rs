//! Files of results, plain or packed by gzip.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::failure::{Failure, because};

const ENDING: &str = "gz";

/// The file of this name, or the packed one beside it (`results.json.gz`); `None` if neither is
/// there.
pub fn find(path: &Path) -> Option<PathBuf> {
    let mut packed = OsString::from(path);
    packed.push(format!(".{ENDING}"));
    [path.to_owned(), PathBuf::from(packed)].into_iter().find(|file| file.is_file())
}

/// The text of a file, unpacked if its name ends in `.gz` or if only the packed one is there.
///
/// # Errors
/// With the path: it cannot be read, or holds no text.
pub fn read(path: &Path) -> Result<String, Failure> {
    let path = find(path).unwrap_or_else(|| path.to_owned());
    let text = || -> io::Result<String> {
        let (mut file, mut text) = (BufReader::new(File::open(&path)?), String::new());
        match path.extension().is_some_and(|ending| ending == ENDING) {
            true => MultiGzDecoder::new(file).read_to_string(&mut text)?,
            false => file.read_to_string(&mut text)?,
        };
        Ok(text)
    };
    text().map_err(because(format!("cannot read {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    #[test]
    fn a_packed_file_is_read_by_either_name() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, packed) = (folder.path().join("a.json"), folder.path().join("a.json.gz"));
        let mut encoder = GzEncoder::new(File::create(&packed).unwrap(), Compression::best());
        encoder.write_all(b"packed").unwrap();
        encoder.finish().unwrap();
        assert_eq!([read(&plain), read(&packed)], [Ok("packed".into()), Ok("packed".into())]);
        std::fs::write(&plain, "plain").unwrap();
        assert_eq!(read(&plain).unwrap(), "plain");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let why = |name: &str| read(&folder.path().join(name)).unwrap_err().0;
        assert!(why("none.json").contains("none.json: No such file"));
        std::fs::write(folder.path().join("cut.gz"), [0x1f, 0x8b, 8]).unwrap();
        assert!(why("cut.gz").contains("cut.gz"));
    }
}
