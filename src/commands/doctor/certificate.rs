//! Checks a certificate file before somebody buys or imports the certificate: its form, and Anaplan's requirements.
//!
//! Runs in the parent.

use super::findings::Findings;
use crate::certificate::file_format::{self, CertificateFile, FileForm, HOLDS_A_PRIVATE_KEY, Oddity, quoted};
use crate::certificate::leaf::{self, Leaf, LeafError};
use crate::certificate::{Certificate, CertificateError};
use crate::commands::input::read_file;
use crate::config::Config;
use crate::error::Result;
use crate::os::clock::now;
use crate::policy::{self, Breach, Rule};

const FILE: &str = "file";
const PRIVATE_KEY: &str = "private key";

/// Checks only the file. It needs no token.
pub(super) fn check(path: &str, config: &Config, findings: &mut Findings) -> Result<()> {
    let bytes = read_file(path)?;
    let file = match file_format::read(&bytes) {
        Ok(file) => file,
        Err(what) => {
            if what.has_private_key() {
                findings.fail(PRIVATE_KEY, HOLDS_A_PRIVATE_KEY, "keep the file where only its owner can read it");
            }
            findings.fail(FILE, what.to_string(), what.remedy(path));
            return Ok(());
        }
    };
    let leaf = leaf::find(&file.certificates);
    form(&file, leaf.as_ref().map_or(1, |leaf| leaf.number), path, findings);
    match leaf {
        Ok(Leaf { certificate, .. }) => {
            findings.ok("certificate", format!("{}, issued by {}", certificate.subject, certificate.issuer));
            rules(&certificate, config, findings);
        }
        Err(LeafError::Broken { reason: CertificateError::NotRsa, .. }) => {
            findings.fail("key", "not RSA", "generate an RSA key of 2048 bits or more, and order a certificate for it");
        }
        Err(error @ LeafError::Several(_)) => {
            findings.fail(FILE, error.to_string(), "keep only the certificate of your key in the file");
        }
        Err(error) => findings.fail(FILE, error.to_string(), "ask the CA to issue it again"),
    }
    Ok(())
}

/// The form of the file, and how to convert it to the form for Anaplan: one PEM block.
fn form(file: &CertificateFile, leaf_number: usize, path: &str, findings: &mut Findings) {
    let convert = conversion(file, leaf_number, &quoted(path));
    if file.has_private_key {
        findings.fail(PRIVATE_KEY, HOLDS_A_PRIVATE_KEY, format!("use leaf.pem, made by: {convert}"));
    }
    let form = match file.form {
        FileForm::Pem => "PEM",
        FileForm::Der => "DER; Anaplan registers PEM",
        FileForm::Base64 => "base64 without PEM lines; Anaplan registers PEM",
        FileForm::Pkcs7Pem | FileForm::Pkcs7Der | FileForm::Pkcs7Base64 => "PKCS#7 (.p7b); Anaplan registers PEM",
    };
    let oddities: Vec<&str> = file.oddities.iter().map(|oddity| words(*oddity)).collect();
    let form = [vec![form], oddities].concat().join("; ");
    if file.form == FileForm::Pem && file.oddities.is_empty() {
        findings.ok(FILE, form);
    } else {
        findings.warn(FILE, form, convert.clone());
    }
    if file.certificates.len() > 1 {
        let found = format!("{} certificates; Anaplan registers only the leaf", file.certificates.len());
        findings.warn(FILE, found, convert);
    }
}

fn words(oddity: Oddity) -> &'static str {
    match oddity {
        Oddity::ByteOrderMark => "it begins with a byte order mark, which other software does not read",
        Oddity::Utf16(_) => "it is written in UTF-16, which other software does not read",
        Oddity::OtherText => "other text is around it, which Anaplan does not accept",
        Oddity::Trusted => "labelled TRUSTED CERTIFICATE, which only OpenSSL reads",
        Oddity::OldLabel => "labelled X509 CERTIFICATE, which not all software reads",
        Oddity::NoLines => "its lines are not in PEM form, which other software does not read",
        Oddity::Encoded => "encoded in base64 once more",
    }
}

/// The command that writes the leaf of a file as PEM to `leaf.pem`.
fn conversion(file: &CertificateFile, leaf_number: usize, path: &str) -> String {
    let find_oddity = |wanted: fn(&Oddity) -> bool| file.oddities.iter().copied().find(wanted);
    let mut read = format!("cat {path}");
    if find_oddity(|oddity| *oddity == Oddity::Encoded).is_some() {
        read = format!("base64 -di {path}");
    }
    match find_oddity(|oddity| matches!(oddity, Oddity::ByteOrderMark | Oddity::Utf16(_))) {
        Some(Oddity::ByteOrderMark) => read = format!("tail -c +4 {path}"),
        Some(Oddity::Utf16(name)) => read = format!("iconv -f {name} -t UTF-8 {path}"),
        _ => {}
    }
    // All base64 forms have the same text between the PEM lines.
    let binary = || format!("{read} | sed 's/-----[A-Z0-9 #]*-----//g; s/\\\\[nr]//g' | base64 -di");
    // The block of one certificate among other text, wherever its lines break.
    let block = || {
        format!(
            "{read} | sed 's/\\\\[nr]//g' | tr -s '\\r\\n\\t' ' ' | grep -oE 'BEGIN [A-Z0-9 ]*CERTIFICATE-----[^-]*' | \
             sed -n '{leaf_number}s/^.*-//p' | base64 -di"
        )
    };
    let has_no_lines = find_oddity(|oddity| *oddity == Oddity::NoLines).is_some();
    let certificates = match file.form {
        FileForm::Pem if has_no_lines => return format!("{} | openssl x509 -inform DER -out leaf.pem", block()),
        FileForm::Base64 => format!("{} | openssl x509 -inform DER", binary()),
        FileForm::Der => return format!("openssl x509 -inform DER -in {path} -out leaf.pem"),
        FileForm::Pkcs7Pem | FileForm::Pkcs7Base64 => format!("{} | openssl pkcs7 -inform DER -print_certs", binary()),
        FileForm::Pkcs7Der => format!("openssl pkcs7 -inform DER -in {path} -print_certs"),
        FileForm::Pem if leaf_number == 1 && read.starts_with("cat ") => {
            return format!("openssl x509 -in {path} -out leaf.pem");
        }
        FileForm::Pem => read,
    };
    match leaf_number {
        1 => format!("{certificates} | openssl x509 -out leaf.pem"),
        // OpenSSL reads the first one of several.
        number => {
            format!("{certificates} | awk '/BEGIN .*CERTIFICATE-----/{{n++}} n=={number}' | openssl x509 -out leaf.pem")
        }
    }
}

/// Checks each rule, and says what to ask the CA for.
fn rules(leaf: &Certificate, config: &Config, findings: &mut Findings) {
    let now = now();
    let decision = policy::decide_certificate(&config.policy, leaf, now);
    let usages = leaf.extended_key_usage.as_ref().map_or("not limited".into(), |all| all.join(", "));
    let email = leaf.emails.first().map_or("none", String::as_str).to_owned();
    let rows = [
        (Rule::MinRsaBits, "key", format!("RSA {}", leaf.bits())),
        (Rule::CertificateValidity, "validity", format!("{} to {}", leaf.valid_from, leaf.valid_until)),
        (Rule::KeyUsage, "key usage", "allows signatures".into()),
        (Rule::ExtendedKeyUsage, "extended usage", usages),
        (Rule::NoCa, "CA", "not a CA's".into()),
        (Rule::Email, "e-mail", email),
        (Rule::Issuer, "issuer", "another issuer".into()),
        (Rule::Form, "form", "follows RFC 5280".into()),
    ];
    for (rule, check, found) in rows {
        let breach_of_rule = |breaches: &[Breach]| {
            let breach = breaches.iter().find(|breach| breach.rule() == rule);
            breach.map(|breach| (breach.reason(), breach.remedy()))
        };
        match (breach_of_rule(&decision.refusals), breach_of_rule(&decision.warnings)) {
            (Some((reason, remedy)), _) => findings.fail(check, reason, remedy),
            // Anaplan finds no user without an address, and accepts no self-signed certificate: the owner should know
            // before the purchase.
            (None, Some((reason, remedy))) if matches!(rule, Rule::Email | Rule::Issuer) => {
                findings.fail(check, reason, remedy);
            }
            (None, Some((reason, remedy))) => findings.warn(check, reason, remedy),
            (None, None) => findings.ok(check, found),
        }
    }
    if !leaf.emails.is_empty() && leaf.alternative_names.iter().all(|name| !name.starts_with("email:")) {
        let remedy = "at the next renewal, ask for it in the subject alternative name, where programs look first";
        findings.warn("e-mail", "only in the subject", remedy);
    }
    if leaf.says_where_it_is_revoked {
        findings.ok("revocation", "it names where to check");
    } else {
        let remedy = "ask the CA for a CRL distribution point or an OCSP responder in it";
        findings.warn("revocation", "it does not name where to check its revocation", remedy);
    }
}
