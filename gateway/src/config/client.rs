//! `[[client]]`: a local identity, its allowed payload versions, and the users and networks that may use it.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use nix::unistd::User;

use super::file::{RawClient, RawUser};
use super::{FileRules, absolute_path, config_error};
use crate::library::{
    Certificate, Error, Kind, MAX_RSA_BITS, MIN_RSA_BITS, Result, Version, file_format, leaf, now, parse_hex, utc,
};

/// The default number of logins that a client may make in a minute.
const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(30).expect("30 is not 0"); // invariant: 30 is not 0

/// A client, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalClient {
    /// The name. It is also the user name of the passwords.
    pub name: String,
    /// The SHA-256 of each password.
    pub passwords: Vec<[u8; 32]>,
    pub certificates: Vec<ClientCertificate>,
    /// The payload versions that the client may send.
    pub versions: Vec<Version>,
    /// The users of this host who may log in as this client.
    pub users: Vec<u32>,
    /// The networks from which the client may connect over TLS.
    pub from: Vec<IpNet>,
    /// The number of logins allowed in a minute.
    pub rate_per_minute: NonZeroU32,
    /// Whether the client is revoked.
    pub disabled: bool,
    /// Whether the client's certificate is one that Anaplan still accepts.
    pub transition: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// The path that it was read from.
    pub path: PathBuf,
    pub certificate: Certificate,
}

impl LocalClient {
    /// Whether the client may connect from this network address.
    #[must_use]
    pub(crate) fn admits_address(&self, ip: IpAddr) -> bool {
        self.from.iter().any(|network| network.contains(&ip))
    }

    pub(super) fn resolve(file: &Path, raw: RawClient, files: &mut FileRules) -> Result<Self> {
        let name = raw.name;
        if !is_client_name(&name) {
            return Err(config_error(file, "a client's name must be 1 to 40 letters, digits and . _ -"));
        }
        let invalid = |what: String| config_error(file, format_args!("client {name}: {what}"));
        let mut certificates = Vec::new();
        for path in raw.certificates {
            let path = absolute_path(file, &format!("client {name}: certificates"), path)?;
            let certificate = read_client_certificate(&path, &files.read(&path)?, raw.transition)?;
            if now() > certificate.not_after {
                files.warn(format!("the certificate {} ended on {}", path.display(), utc(certificate.not_after)));
            }
            if raw.transition && !raw.disabled {
                files.warn(format!(
                    "client {name} is in transition: a copy of the key of {} logs in at Anaplan without this gateway; \
                     disable that certificate in Anaplan and give the tool a new local identity",
                    path.display()
                ));
            }
            certificates.push(ClientCertificate { path, certificate });
        }
        let passwords = raw.password_sha256.iter().map(|text| {
            let bytes = parse_hex(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            bytes.ok_or_else(|| {
                invalid("password_sha256 must be 64 hexadecimal digits".into())
                    .hint("`cba-gateway enrol` generates a password and prints its SHA-256")
            })
        });
        let passwords = passwords.collect::<Result<Vec<_>>>()?;
        if passwords.is_empty() && certificates.is_empty() {
            return Err(invalid("it needs password_sha256 or certificates".into()));
        }
        if raw.users.is_empty() && raw.from.is_empty() {
            return Err(invalid("it needs users (to be served on loopback) or from (to be served over TLS)".into()));
        }
        if certificates.is_empty() {
            let without_effect = [("transition", raw.transition), ("payload_versions", raw.payload_versions.is_some())];
            for (key, _) in without_effect.into_iter().filter(|(_, is_set)| *is_set) {
                files.warn(format!("client {name}: {key} has no effect without certificates"));
            }
        }
        let versions = raw.payload_versions.unwrap_or_else(|| vec!["v2".into()]);
        if versions.is_empty() {
            return Err(invalid("payload_versions is empty; it must contain v1, v2 or both".into()));
        }
        let versions = versions.iter().map(|text| match text.as_str() {
            "v1" => Ok(Version::V1),
            "v2" => Ok(Version::V2),
            _ => Err(invalid("payload_versions must contain only v1 and v2".into())),
        });
        let networks = raw.from.iter().map(|text| {
            network(text).ok_or_else(|| invalid(format!("from: '{text}' is not a network such as 10.1.2.0/24")))
        });
        let rate = raw.rate_limit_per_minute.map_or(Some(DEFAULT_RATE), NonZeroU32::new);
        Ok(Self {
            passwords,
            versions: versions.collect::<Result<_>>()?,
            users: raw.users.iter().map(user_id).collect::<Result<_>>()?,
            from: networks.collect::<Result<_>>()?,
            rate_per_minute: rate.ok_or_else(|| invalid("rate_limit_per_minute must be at least 1".into()))?,
            disabled: raw.disabled,
            transition: raw.transition && !certificates.is_empty(),
            certificates,
            name,
        })
    }
}

/// Parses a network, or an address as a network of one. IPv4 callers of an IPv6 listener count as IPv4, so IPv4-mapped
/// networks (RFC 4291 section 2.5.5.2) do, too.
#[must_use]
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let IpNet::V6(v6) = network else { return Some(network) };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    mapped.map_or(Some(network), |(address, length)| Ipv4Net::new(address, length).ok().map(IpNet::V4))
}

/// Whether a text is a valid client name. The name is part of the agent's audit job.
#[must_use]
pub(crate) fn is_client_name(text: &str) -> bool {
    (1..=40).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Reads the certificate in a client's file, in any form that the agent reads. Rejects a certificate that Anaplan could
/// accept.
///
/// # Errors
/// When the certificate cannot be used, or the file also contains a private key.
pub(crate) fn read_client_certificate(path: &Path, bytes: &[u8], transition: bool) -> Result<Certificate> {
    let shown = path.display();
    let invalid = |what: String| Error::new(Kind::Config, format!("cannot use the certificate {shown}: {what}"));
    let file = file_format::read(bytes).map_err(|what| {
        use file_format::FormatError::{OtherBlocks, PrivateKey, PublicKey, Request};
        let remedy = match what {
            // The error of the agent's library mentions a certificate of a CA, but a tool's certificate is self-signed.
            PrivateKey | PublicKey | Request | OtherBlocks(_) => {
                "name the tool's certificate; docs/gateway.md shows how to make it with its key".into()
            }
            _ => what.remedy(&shown.to_string()),
        };
        invalid(format!("it is {what}")).hint(remedy)
    })?;
    if file.has_private_key {
        let only_certificate = format!("openssl x509 -in {} -out tool.pem", file_format::quoted(&shown.to_string()));
        return Err(invalid("it contains a private key, which the gateway must not have".into())
            .hint(format!("name a file that contains only the certificate: `{only_certificate}`")));
    }
    let leaf = leaf::find(&file.certificates).map_err(|error| {
        invalid(error.to_string()).hint("name a file that contains only the tool's certificate, as PEM or DER")
    })?;
    let certificate = leaf.certificate;
    let bits = certificate.bits();
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        let hint = format!("make a certificate with an RSA key of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits");
        return Err(invalid(format!("its RSA key has {bits} bits")).hint(hint));
    }
    let may_be_accepted = !certificate.emails.is_empty() || !certificate.is_self_issued();
    if may_be_accepted && !transition {
        let why = if certificate.emails.is_empty() { "an issuer other than itself" } else { "an e-mail address" };
        return Err(invalid(format!("it has {why}, so Anaplan may accept it")).hint(
            "use a self-signed certificate without an e-mail address, or set transition = true while you migrate",
        ));
    }
    Ok(certificate)
}

/// Returns the ID of a user. An ID is allowed even if this host has no such user.
fn user_id(raw: &RawUser) -> Result<u32> {
    let name = match raw {
        RawUser::Number(number) => return Ok(*number),
        RawUser::Name(name) => name,
    };
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let unknown = |what: String| {
        Error::new(Kind::Config, what)
            .hint(format!("`getent passwd {name}` must show the user; a number is also accepted"))
    };
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(unknown(format!("cannot serve the user '{name}': this host has no such user"))),
        Err(error) => Err(unknown(format!("cannot look up the user '{name}': {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv4_mapped_addresses_is_one_of_ipv4() {
        for (text, wanted) in [
            ("10.1.2.0/24", "10.1.2.0/24"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.0/120", "10.1.2.0/24"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("fd00::/8", "fd00::/8"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text).map(|network| network.to_string()).as_deref(), Some(wanted), "{text}");
        }
        assert_eq!(network("10.1.2"), None);
    }
}
