//! A certificate's file before it is bought or imported: what it is, and what Anaplan wants of it.

use super::Findings;
use crate::certificate::container::{Container, recognise};
use crate::certificate::{Certificate, CertificateError, utc};
use crate::commands::input::read_file;
use crate::config::Config;
use crate::error::Result;
use crate::policy::{self, Breach, Rule};
use crate::reach::now;

/// Looks at the file alone; no token is needed.
pub(super) fn check(path: &str, config: &Config, findings: &mut Findings) -> Result<()> {
    const CHECK: &str = "file";
    let bytes = read_file(path)?;
    let convert = format!("openssl x509 -in '{path}' -out leaf.pem");
    let found = match recognise(&bytes) {
        Container::Pem(found, false) => {
            findings.ok(CHECK, "PEM");
            found
        }
        Container::Pem(found, true) => {
            findings.warn(CHECK, "PEM with other text above it, which Anaplan does not take", convert);
            found
        }
        Container::Der(der) => {
            findings.warn(CHECK, "DER; Anaplan registers PEM", format!("{convert} -inform DER"));
            vec![der]
        }
        Container::Base64(der) => {
            let remedy = format!("base64 -d '{path}' | openssl x509 -inform DER -out leaf.pem");
            findings.warn(CHECK, "base64 without the lines around it; Anaplan registers PEM", remedy);
            vec![der]
        }
        Container::Pkcs7(found) => {
            let form = if bytes.starts_with(b"-----") { "" } else { " -inform DER" };
            let remedy = format!("openssl pkcs7{form} -print_certs -in '{path}' -out all.pem, and keep the leaf");
            findings.warn(CHECK, "PKCS#7 (.p7b); Anaplan registers PEM", remedy);
            found
        }
        other => {
            no_certificate(&other, path, findings);
            return Ok(());
        }
    };
    if let Some(leaf) = leaf(&found, findings) {
        rules(&leaf, config, findings);
    }
    Ok(())
}

fn no_certificate(what: &Container, path: &str, findings: &mut Findings) {
    let (found, remedy) = match what {
        Container::Pkcs12 => (
            "PKCS#12 (.p12, .pfx): a key and its certificate under a password",
            format!("openssl pkcs12 -in '{path}' -clcerts -nokeys -out leaf.pem, and check leaf.pem"),
        ),
        Container::JavaKeystore => (
            "a Java keystore",
            format!("keytool -exportcert -rfc -keystore '{path}' -alias ALIAS -file leaf.pem, and check leaf.pem"),
        ),
        Container::PrivateKey => {
            ("a private key and no certificate", "the certificate is another file; give this one to nobody".into())
        }
        Container::Request => {
            ("a signing request and no certificate", "send it to the CA; the certificate is its answer".into())
        }
        _ => ("no certificate in any form that is known here", "ask for PEM".to_owned()),
    };
    findings.fail("file", found, remedy);
}

/// The one certificate that is no CA's.
fn leaf(found: &[Vec<u8>], findings: &mut Findings) -> Option<Certificate> {
    let parsed: Vec<_> = found.iter().map(|der| Certificate::from_der(der)).collect();
    if matches!(parsed.as_slice(), [Err(CertificateError::NotRsa)]) {
        findings.fail("key", "not RSA", "make an RSA key of 2048 bits and ask for a certificate of that one");
        return None;
    }
    let mut leaves = parsed.into_iter().filter_map(Result::ok);
    let (Some(first), rest) = (leaves.next(), leaves) else {
        findings.fail("file", "the certificate does not parse, or its key is not RSA", "ask for it again, as PEM");
        return None;
    };
    let all: Vec<Certificate> = std::iter::once(first).chain(rest).collect();
    let several = all.len() > 1;
    let mut own = all.iter().filter(|certificate| !certificate.is_ca);
    let leaf = match (own.next(), own.next()) {
        (Some(leaf), None) => leaf.clone(),
        (None, _) => all[0].clone(),
        (Some(_), Some(_)) => {
            findings.fail("file", "several certificates that are no CA's", "keep the one of your key in the file");
            return None;
        }
    };
    if several {
        let found = format!("{} certificates; Anaplan registers the leaf alone", all.len());
        findings.warn("file", found, "openssl x509 -in FILE -out leaf.pem, where the leaf stands first");
    }
    findings.ok("certificate", format!("{}, issued by {}", leaf.subject, leaf.issuer));
    Some(leaf)
}

/// Each rule with what to ask the CA for.
fn rules(leaf: &Certificate, config: &Config, findings: &mut Findings) {
    let now = now();
    let decision = policy::decide_certificate(&config.policy, leaf, now);
    let usages = leaf.extended_key_usage_names().map_or("not limited".into(), |all| all.join(", "));
    let email = leaf.emails.first().map_or("none", String::as_str).to_owned();
    let rows = [
        (Rule::MinRsaBits, "key", format!("RSA {}", leaf.bits())),
        (Rule::CertificateValidity, "validity", format!("{} to {}", utc(leaf.not_before), utc(leaf.not_after))),
        (Rule::KeyUsage, "key usage", "allows signatures".into()),
        (Rule::ExtendedKeyUsage, "extended usage", usages),
        (Rule::NoCa, "CA", "not a CA's".into()),
        (Rule::Email, "e-mail", email),
        (Rule::Issuer, "issuer", "somebody else's".into()),
    ];
    for (rule, check, found) in rows {
        let of = |breaches: &[Breach]| {
            let breach = breaches.iter().find(|breach| breach.rule() == rule);
            breach.map(|breach| (breach.reason(), breach.remedy()))
        };
        match (of(&decision.refusals), of(&decision.warnings)) {
            (Some((reason, remedy)), _) => findings.fail(check, reason, remedy),
            // Anaplan finds no user and takes no self-signed certificate: the owner should know before the purchase.
            (None, Some((reason, remedy))) if matches!(rule, Rule::Email | Rule::Issuer) => {
                findings.fail(check, reason, remedy);
            }
            (None, Some((reason, remedy))) => findings.warn(check, reason, remedy),
            (None, None) => findings.ok(check, found),
        }
    }
    if !leaf.emails.is_empty() && leaf.alternative_names.iter().all(|name| !name.starts_with("email:")) {
        let remedy = "at the next renewal ask for it in the subject alternative name, where it is looked for first";
        findings.warn("e-mail", "only in the subject", remedy);
    }
    if leaf.says_where_it_is_revoked {
        findings.ok("revocation", "it says where to ask");
    } else {
        let remedy = "ask for a CRL distribution point or an OCSP responder in it";
        findings.warn("revocation", "it does not say where to ask whether it was revoked", remedy);
    }
}
