//! `--tls`: the certificate of a server, and what it agrees to in a handshake.
//!
//! Without `--cert` all servers of a user have the same self-signed certificate, in one file that
//! is made at the first start. So a client can be told once to trust it (`curl --cacert FILE`),
//! for all models.

mod given;

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use conn::Protocol;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ServerSessionMemoryCache;
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig, ServerConnection};

/// Names by which a machine calls itself: a server for other machines needs `--cert`.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// How long a self-signed certificate is valid. Clients refuse more than 398 days.
const VALID_FOR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// It is valid from so long ago, for clients whose clock is late. It is replaced so long before it
/// expires, because the server is going to run for a while.
const VALID_MARGIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Sessions of TLS 1.2 that are kept for clients without tickets. All other sessions are resumed
/// by tickets, which take no memory of the server.
const SESSIONS_MAX: usize = 1024;

const FILE_NAME: &str = "self-signed.pem";

/// Which certificate a server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// That of `--cert`, with the key of `--key`.
    Files { cert: PathBuf, key: PathBuf },
    /// The one that is made at the first start.
    SelfSigned,
}

/// A certificate, its intermediate certificates, and its key.
#[derive(Debug)]
struct Certified {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What all workers agree to with their clients; `None` without TLS.
///
/// # Errors
/// A sentence that names flag and file.
pub(crate) fn config(
    identity: Option<&Identity>,
    protocol: Protocol,
) -> Result<Option<Arc<ServerConfig>>, String> {
    identity.map(|identity| config_of(identity, protocol)).transpose()
}

fn config_of(identity: &Identity, protocol: Protocol) -> Result<Arc<ServerConfig>, String> {
    let mut config = match identity {
        Identity::Files { cert, key } => from_files(cert, key)?,
        Identity::SelfSigned => {
            let directory = state_directory(|name| std::env::var_os(name))?;
            server_config(self_signed(&directory)?).map_err(|error| format!("--tls: {error}"))?
        }
    };
    // An echo server has one protocol, so it does not use ALPN.
    if protocol == Protocol::Http {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    config.ticketer = Ticketer::new().map_err(|error| format!("--tls: no tickets: {error}"))?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    let config = Arc::new(config);
    // An error of rustls that each connection would meet is found now.
    ServerConnection::new(Arc::clone(&config)).map_err(|error| format!("--tls: {error}"))?;
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

fn server_config(certified: Certified) -> Result<ServerConfig, rustls::Error> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certified.chain, certified.key)
}

fn from_files(cert: &Path, key: &Path) -> Result<ServerConfig, String> {
    let (cert_shown, key_shown) = (cert.display(), key.display());
    let readable = "give a PEM file that this user may read";
    let cert_pem = fs::read(cert)
        .map_err(|error| format!("--cert {cert_shown} cannot be read: {error}; {readable}"))?;
    let key_pem = fs::read(key)
        .map_err(|error| format!("--key {key_shown} cannot be read: {error}; {readable}"))?;
    let chain = certificates(&cert_pem)
        .ok_or_else(|| format!("--cert {cert_shown} {}", given::no_certificate(&cert_pem)))?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|_| format!("--key {key_shown} {}", given::no_key(&key_pem)))?;
    let wrong_date = wrong_date(&chain);
    let certified = Certified { chain, key: key.clone_key() };
    let config = server_config(certified).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "--key {key_shown} is not the key of the first certificate in --cert {cert_shown}; \
             give a certificate and a key that belong together"
        ),
        rustls::Error::InvalidCertificate(error) => {
            format!("--cert {cert_shown} {}", given::unusable_certificate(&error))
        }
        _ => format!("--key {key_shown} {}", given::unusable_key(&key)),
    })?;
    if let Some(date) = wrong_date {
        // The server starts nevertheless: a test of clients may need such a certificate. A closed
        // stderr is no error.
        let _ = writeln!(
            io::stderr(),
            "--cert {cert_shown} holds a certificate that {date}; clients that check it will \
             refuse it"
        );
    }
    Ok(config)
}

/// What is wrong with the dates of a certificate, if anything is.
fn wrong_date(chain: &[CertificateDer]) -> Option<&'static str> {
    let mut roots = RootCertStore::empty();
    let first = chain.first()?;
    // A certificate that cannot be read is refused elsewhere, by the server's part of rustls.
    roots.add(first.clone()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let name = ServerName::try_from(LOOPBACK_NAMES[0]).ok()?;
    // rustls checks the dates before names and signatures, so any root and any name will do.
    let verified =
        verifier.build().ok()?.verify_server_cert(first, &[], &name, &[], UnixTime::now());
    let Err(rustls::Error::InvalidCertificate(error)) = verified else { return None };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Some("has expired"),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("is not yet valid")
        }
        _ => None,
    }
}

/// All certificates of a PEM file; `None` if there are none, or not all of them can be read.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.ok().filter(|chain| !chain.is_empty())
}

/// Where a program keeps its state (XDG Base Directory Specification: a path that is not absolute
/// is ignored).
fn state_directory(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, String> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local").join("state")));
    state.map(|state| state.join("iolab")).ok_or_else(|| {
        "--tls keeps its certificate below $XDG_STATE_HOME or $HOME, but neither is an absolute \
         path; set one of them, or give files with --cert and --key"
            .to_owned()
    })
}

/// The certificate of `directory`. It is made if there is none, or none that is valid. Several
/// servers may start at once: one makes it, the others wait and read it.
fn self_signed(directory: &Path) -> Result<Certified, String> {
    let path = directory.join(FILE_NAME);
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        let path = path.display();
        format!("--tls {what} {path}: {error}; mend this, or give files with --cert and --key")
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| failed("cannot make the directory of", &error))?;
    let _turn = lock(directory).map_err(|error| failed("cannot lock", &error))?;
    let found = match fs::read(&path) {
        Ok(pem) => usable(&pem),
        Err(error) if error.kind() == ErrorKind::NotFound => Err("there was no file".to_owned()),
        Err(error) => return Err(failed("cannot read", &error)),
    };
    let reason = match found {
        Ok(certified) => return Ok(certified),
        Err(reason) => reason,
    };
    let pem = generate().map_err(|error| failed("cannot make", &error))?;
    write(directory, &path, pem.as_bytes()).map_err(|error| failed("cannot write", &error))?;
    // A closed stderr is no error.
    let _ = writeln!(
        io::stderr(),
        "--tls: made a new self-signed certificate in {} ({reason}); configure clients to trust it",
        path.display()
    );
    usable(pem.as_bytes()).map_err(|error| failed("cannot use", &error))
}

/// No other process has the lock until the file is dropped (flock(2)). The kernel releases it if
/// the process ends.
fn lock(directory: &Path) -> io::Result<File> {
    let path = directory.join("self-signed.lock");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Writes the whole file or nothing, so that a process which reads it never finds a part.
fn write(directory: &Path, path: &Path, pem: &[u8]) -> io::Result<()> {
    let temporary = directory.join("self-signed.new");
    // A process that was killed may have left it.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(pem)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// Certificate and key of `pem`, if the certificate will be valid for some time; otherwise why
/// not.
fn usable(pem: &[u8]) -> Result<Certified, String> {
    let chain = certificates(pem).ok_or("the old file has no certificate")?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "the old file has no key")?;
    let certified = Certified { chain, key };
    let unusable = |error: rustls::Error| format!("the old certificate is unusable: {error}");
    server_config(Certified { chain: certified.chain.clone(), key: certified.key.clone_key() })
        .map_err(unusable)?;
    let mut roots = RootCertStore::empty();
    roots.add(certified.chain[0].clone()).map_err(unusable)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(now + VALID_MARGIN);
    for name in LOOPBACK_NAMES {
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        let [first, rest @ ..] = certified.chain.as_slice() else { continue };
        verifier.verify_server_cert(first, rest, &name, &[], at).map_err(unusable)?;
    }
    Ok(certified)
}

/// A new certificate (ECDSA P-256) and its key, as PEM.
fn generate() -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(LOOPBACK_NAMES.map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, "iolab, self-signed");
    params.key_usages.push(KeyUsagePurpose::DigitalSignature);
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let now = SystemTime::now();
    params.not_before = (now - VALID_MARGIN).into();
    params.not_after = (now + VALID_FOR).into();
    Ok(params.self_signed(&key)?.pem() + &key.serialize_pem())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    fn put(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, text).expect("a file can be written");
        path
    }

    /// Certificate and key, each alone.
    fn pair() -> (String, String) {
        let pem = generate().expect("a certificate can be made");
        let key = pem.find("-----BEGIN PRIVATE").expect("the key is behind it");
        (pem[..key].to_owned(), pem[key..].to_owned())
    }

    fn refused(cert: &Path, key: &Path) -> String {
        let identity = Identity::Files { cert: cert.to_owned(), key: key.to_owned() };
        config_of(&identity, Protocol::Http).expect_err("it is of no use")
    }

    /// A certificate that has expired.
    fn expired() -> String {
        valid_in(2001, 2002)
    }

    /// A certificate, and its key, between the beginnings of two years.
    fn valid_in(from: i32, to: i32) -> String {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(LOOPBACK_NAMES.map(str::to_owned)).expect("names");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        params.self_signed(&key).expect("a certificate").pem() + &key.serialize_pem()
    }

    #[test]
    fn a_certificate_with_a_wrong_date_is_named_and_served() {
        let directory = directory();
        for (pem, wrong) in [
            (expired(), Some("has expired")),
            (valid_in(2200, 2201), Some("is not yet valid")),
            (valid_in(2001, 2201), None),
        ] {
            let chain = certificates(pem.as_bytes()).expect("a certificate");
            assert_eq!(wrong_date(&chain), wrong);
            let file = put(directory.path(), "pem", &pem);
            let identity = Identity::Files { cert: file.clone(), key: file };
            assert!(config_of(&identity, Protocol::Http).is_ok(), "{wrong:?}");
        }
    }

    #[test]
    fn files_that_were_made_together_are_taken_together_or_in_one() {
        let directory = directory();
        let (cert, key) = pair();
        let both = put(directory.path(), "both", &(cert.clone() + &key));
        let (cert, key) = (put(directory.path(), "c", &cert), put(directory.path(), "k", &key));
        for (cert, key) in [(&cert, &key), (&both, &both), (&both, &key)] {
            let identity = Identity::Files { cert: cert.clone(), key: key.clone() };
            let http = config_of(&identity, Protocol::Http).expect("it is usable");
            assert_eq!(http.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
            assert!(http.ticketer.enabled());
            let echo = config_of(&identity, Protocol::Echo).expect("it is usable");
            assert!(echo.alpn_protocols.is_empty());
        }
    }

    #[test]
    fn every_file_that_is_of_no_use_is_named_with_its_flag() {
        let directory = directory();
        let (cert, key) = pair();
        let (_, other) = pair();
        let cut = cert[..cert.len() / 2].to_owned();
        let nonsense = "-----BEGIN CERTIFICATE-----\nbm8gY2VydA==\n-----END CERTIFICATE-----\n";
        let no_key = "-----BEGIN PRIVATE KEY-----\nbm8ga2V5\n-----END PRIVATE KEY-----\n";
        let file = |name: &str, text: &str| put(directory.path(), name, text);
        let (cert, key) = (file("cert", &cert), file("key", &key));
        let nowhere = directory.path().join("nowhere");
        for (cert, key, flag, says) in [
            (nowhere.clone(), key.clone(), "--cert", "cannot be read"),
            (cert.clone(), nowhere, "--key", "cannot be read"),
            (directory.path().to_owned(), key.clone(), "--cert", "cannot be read"),
            (file("text", "no PEM"), key.clone(), "--cert", "holds no certificate"),
            (file("cut", &cut), key.clone(), "--cert", "holds no certificate"),
            (key.clone(), key.clone(), "--cert", "holds no certificate"),
            (cert.clone(), file("words", "no PEM"), "--key", "holds no private key"),
            (cert.clone(), cert.clone(), "--key", "holds no private key"),
            (cert.clone(), file("other", &other), "--key", "is not the key"),
            (cert.clone(), file("bad", no_key), "--key", "cannot be used"),
            (file("nonsense", nonsense), key.clone(), "--cert", "cannot be used"),
        ] {
            let said = refused(&cert, &key);
            let file = if flag == "--cert" { &cert } else { &key };
            assert!(said.starts_with(&format!("{flag} {} ", file.display())), "{said}");
            assert!(said.contains(says) && !said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn the_state_directory_is_where_the_specification_says() {
        for (xdg, home, wanted) in [
            (Some("/state"), Some("/me"), Some("/state/iolab")),
            (None, Some("/me"), Some("/me/.local/state/iolab")),
            (Some(""), Some("/me"), Some("/me/.local/state/iolab")),
            (Some("state"), Some("/me"), Some("/me/.local/state/iolab")),
            (Some("/state"), None, Some("/state/iolab")),
            (None, None, None),
            (Some("state"), Some(""), None),
        ] {
            let variable = |name: &str| match name {
                "XDG_STATE_HOME" => xdg.map(OsString::from),
                "HOME" => home.map(OsString::from),
                _ => None,
            };
            let found = state_directory(variable);
            assert_eq!(found.as_deref().ok(), wanted.map(Path::new), "{xdg:?} {home:?}");
            if let Err(said) = found {
                assert!(said.contains("XDG_STATE_HOME") && said.contains("--cert"), "{said}");
            }
        }
    }

    #[test]
    fn a_certificate_is_made_once_and_is_its_users_alone() {
        let directory = directory();
        let state = directory.path().join("deep").join("iolab");
        let first = self_signed(&state).expect("it can be made");
        let second = self_signed(&state).expect("it can be read");
        assert_eq!(first.chain, second.chain);
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode();
        assert_eq!(mode(&state.join(FILE_NAME)) & 0o777, 0o600);
        assert_eq!(mode(&state) & 0o777, 0o700);
        let text = fs::read_to_string(state.join(FILE_NAME)).expect("it is text");
        assert_eq!(text.matches("-----BEGIN").count(), 2, "a certificate, and a key: {text}");
        assert!(text.starts_with("-----BEGIN CERTIFICATE"), "in this order: {text}");
    }

    #[test]
    fn servers_that_start_at_once_show_the_same_one() {
        let directory = directory();
        let state = directory.path();
        for _ in 0..5 {
            let found: Vec<_> = thread::scope(|scope| {
                let all: Vec<_> = (0..8).map(|_| scope.spawn(|| self_signed(state))).collect();
                all.into_iter().map(|one| one.join().expect("no panic")).collect()
            });
            let chains: Vec<_> =
                found.into_iter().map(|one| one.expect("it is usable").chain).collect();
            assert!(chains.iter().all(|chain| *chain == chains[0]), "several were made");
            fs::remove_file(state.join(FILE_NAME)).expect("it was there");
        }
    }

    #[test]
    fn one_of_no_use_is_made_anew() {
        let directory = directory();
        let (cert, key) = pair();
        let (_, other) = pair();
        let foreign = CertificateParams::new(["elsewhere.example".to_owned()]).expect("a name");
        let foreign_key = KeyPair::generate().expect("a key");
        let foreign = foreign.self_signed(&foreign_key).expect("a certificate").pem();
        for old in [
            String::new(),
            "no PEM".to_owned(),
            cert.clone(),
            key.clone(),
            cert + &other,
            expired(),
            foreign + &foreign_key.serialize_pem(),
        ] {
            let path = put(directory.path(), FILE_NAME, &old);
            assert!(usable(old.as_bytes()).is_err(), "{old}");
            self_signed(directory.path()).expect("another is made");
            let new = fs::read(&path).expect("it is there");
            assert!(usable(&new).is_ok() && new != old.as_bytes());
        }
    }

    #[test]
    fn where_nothing_can_be_kept_the_sentence_names_the_file() {
        let directory = directory();
        let file = put(directory.path(), "file", "");
        let under_a_file = self_signed(&file.join("iolab")).expect_err("it is no directory");
        fs::create_dir(directory.path().join(FILE_NAME)).expect("a directory in its place");
        let in_its_place = self_signed(directory.path()).expect_err("it is no file");
        for said in [under_a_file, in_its_place] {
            assert!(said.starts_with("--tls cannot ") && said.contains(FILE_NAME), "{said}");
            assert!(said.contains("--cert") && !said.contains('\n'), "{said}");
        }
    }
}
