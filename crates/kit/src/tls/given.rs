//! What is wrong with the files of `--cert` and `--key`, and how to mend it. The TLS library's own
//! errors do not say what kind of file it was given.

use rustls::CertificateError;
use rustls::pki_types::PrivateKeyDer;

/// Makes a certificate and a key that current clients accept.
const MAKE_ANOTHER: &str = "make a new pair with `openssl req -x509 -newkey ec -pkeyopt \
     ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=localhost -addext \
     subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out cert.pem`";

/// Why `bytes` hold no certificate.
pub(super) fn no_certificate(bytes: &[u8]) -> String {
    match Form::of(bytes) {
        Form::Empty => format!("holds no certificate: it is empty; {MAKE_ANOTHER}"),
        Form::Pkcs12 => "holds no certificate in PEM: its format is PKCS#12; convert it with \
                         `openssl pkcs12 -in FILE -nokeys -out cert.pem`"
            .to_owned(),
        Form::Der => "holds no certificate in PEM: its format is DER; convert it with `openssl \
                      x509 -inform DER -in FILE -out cert.pem`"
            .to_owned(),
        Form::Other if has(bytes, "PRIVATE KEY-----") && !has(bytes, "CERTIFICATE-----") => {
            "holds no certificate: it holds a private key; give that with --key".to_owned()
        }
        Form::Other => "holds no certificate: a PEM file has a section that begins with \
                        -----BEGIN CERTIFICATE-----"
            .to_owned(),
    }
}

/// Why `bytes` hold no private key.
pub(super) fn no_key(bytes: &[u8]) -> String {
    match Form::of(bytes) {
        Form::Empty => format!("holds no private key: it is empty; {MAKE_ANOTHER}"),
        Form::Pkcs12 => "holds no private key in PEM: its format is PKCS#12; convert it with \
                         `openssl pkcs12 -in FILE -nocerts -nodes -out key.pem`"
            .to_owned(),
        Form::Der => "holds no private key in PEM: its format is DER; convert it with `openssl \
                      pkey -inform DER -in FILE -out key.pem`"
            .to_owned(),
        Form::Other if has(bytes, "BEGIN ENCRYPTED PRIVATE KEY") || has(bytes, "4,ENCRYPTED") => {
            "holds an encrypted private key; remove its passphrase with `openssl pkey -in FILE \
             -out key.pem`"
                .to_owned()
        }
        Form::Other => "holds no private key: a PEM file without a passphrase has a section that \
                        begins with -----BEGIN PRIVATE KEY-----"
            .to_owned(),
    }
}

/// Why the TLS library refuses a certificate.
pub(super) fn unusable_certificate(error: &CertificateError) -> String {
    let why = match error {
        // An error of webpki, which is not a dependency of this crate: its type has no name here.
        CertificateError::Other(inner)
            if format!("{inner:?}").contains("UnsupportedCertVersion") =>
        {
            "it is X.509 version 1, and TLS needs version 3".to_owned()
        }
        CertificateError::BadEncoding => "it is truncated or damaged".to_owned(),
        error => format!("{error:?}"),
    };
    format!("holds a certificate that cannot be used: {why}; {MAKE_ANOTHER}")
}

/// The kind of a key that the TLS library refuses.
pub(super) fn unusable_key(key: &PrivateKeyDer) -> String {
    let kind = match key {
        PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(key) => pkcs8(key.secret_pkcs8_der()),
        PrivateKeyDer::Sec1(key) => Some(ec(key.secret_sec1_der())),
        _ => None,
    };
    let kind = kind.unwrap_or_else(|| "damaged or of an unknown kind".to_owned());
    format!(
        "cannot be used: it is {kind}; use ECDSA (P-256, P-384), RSA (2048 to 4096 bits) or \
         Ed25519; {MAKE_ANOTHER}"
    )
}

/// Object identifiers, encoded in DER.
const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const OTHERS: [(&[u8], &str); 4] = [
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a", "RSA-PSS"),
    (b"\x2a\x86\x48\xce\x38\x04\x01", "DSA"),
    (b"\x2b\x65\x71", "Ed448"),
    (b"\x2b\x65\x6e", "X25519, which cannot sign"),
];
const CURVES: [(&[u8], &str); 4] = [
    (b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", "P-256"),
    (b"\x06\x05\x2b\x81\x04\x00\x22", "P-384"),
    (b"\x06\x05\x2b\x81\x04\x00\x23", "P-521"),
    (b"\x06\x05\x2b\x81\x04\x00\x0a", "secp256k1"),
];

/// RFC 5208 section 5: a version, an algorithm with its parameters, the key.
fn pkcs8(der: &[u8]) -> Option<String> {
    let (fields, _) = element(der)?;
    let (_version, fields) = element(fields)?;
    let (algorithm, fields) = element(fields)?;
    let (name, parameters) = element(algorithm)?;
    match name {
        RSA => rsa(element(fields)?.0),
        EC => Some(ec(parameters)),
        name => OTHERS.iter().find(|(oid, _)| *oid == name).map(|(_, kind)| (*kind).to_owned()),
    }
}

/// RFC 8017 appendix A.1.2: a version, the modulus, and more.
fn rsa(der: &[u8]) -> Option<String> {
    let (fields, _) = element(der)?;
    let (_version, fields) = element(fields)?;
    let (modulus, _) = element(fields)?;
    let first = modulus.iter().position(|&byte| byte != 0)?;
    let bits = (modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize;
    Some(format!("RSA with {bits} bits"))
}

/// The key contains the object identifier of its curve (RFC 5915 section 3).
fn ec(der: &[u8]) -> String {
    let named = CURVES.iter().find(|(oid, _)| der.windows(oid.len()).any(|part| part == *oid));
    let curve = named.map_or("an unknown curve", |(_, name)| name);
    format!("ECDSA on {curve}")
}

/// The content of the first element of `der`, and the bytes after it (X.690 section 8.1).
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&short, rest) = der.get(1..)?.split_first()?;
    let (len, rest) = if short < 0x80 {
        (usize::from(short), rest)
    } else {
        let (long, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
        // A length of more than four bytes exceeds any file that is read here.
        let len = long.iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
        ((1..=4).contains(&long.len()).then_some(len)?, rest)
    };
    rest.split_at_checked(len)
}

/// The format of a file that is not the PEM file that was expected.
enum Form {
    Empty,
    Pkcs12,
    Der,
    Other,
}

impl Form {
    fn of(bytes: &[u8]) -> Form {
        if bytes.trim_ascii().is_empty() {
            return Form::Empty;
        }
        const SEQUENCE: u8 = 0x30;
        match element(bytes) {
            Some((content, [])) if bytes[0] == SEQUENCE => {
                // RFC 7292 section 4: PKCS#12 begins with its version, the integer 3.
                let is_pkcs12 = content.starts_with(b"\x02\x01\x03");
                if is_pkcs12 { Form::Pkcs12 } else { Form::Der }
            }
            _ => Form::Other,
        }
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}
