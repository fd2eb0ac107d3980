//! `enrol`: creates a local identity for a tool. It prints the configuration to add, and does not change the file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::ArgMatches;
use sha2::{Digest as _, Sha256};

use super::print;
use crate::cli;
use crate::config::{is_client_name, network, read_client_certificate, read_whole};
use crate::library::{Error, Kind, Result, hex};

pub(super) fn run(matches: &ArgMatches) -> Result<()> {
    let name = cli::value(matches, "name").unwrap_or_default();
    if !is_client_name(name) {
        return Err(Error::new(Kind::Usage, "cannot enrol the client: a name has 1 to 40 letters, digits and . _ -")
            .hint("cba-gateway enrol finance --user etl"));
    }
    let (users, from) = (cli::values(matches, "user"), cli::values(matches, "from"));
    if users.is_empty() && from.is_empty() {
        return Err(Error::new(Kind::Usage, "cannot enrol the client: it needs --user, --from, or both")
            .hint("--user USER for a tool on this host, --from NET for one that connects over TLS"));
    }
    if from.iter().any(|text| network(text).is_none()) {
        return Err(
            Error::new(Kind::Usage, "cannot enrol the client: --from needs a network").hint("--from 10.1.2.0/24")
        );
    }
    let origin = ClientOrigin {
        keys: [key_line("users", &users), key_line("from", &from)].concat(),
        url: if users.is_empty() { "https://GATEWAY:8743" } else { "http://localhost:731" },
    };
    match cli::value(matches, "certificate") {
        Some(file) => enrol_certificate(name, file, matches.get_flag("transition"), &origin),
        None => enrol_password(name, cli::value(matches, "password-file"), &origin),
    }
}

/// The source from which a client logs in, as it is printed.
struct ClientOrigin {
    /// The lines of the configuration with the keys `users` and `from`.
    keys: String,
    /// The URL for the tool: plain HTTP on this host if it has users, otherwise TLS.
    url: &'static str,
}

fn enrol_password(name: &str, file: Option<&str>, ClientOrigin { keys, url }: &ClientOrigin) -> Result<()> {
    let file = file.map_or_else(|| PathBuf::from(format!("{name}.password")), PathBuf::from);
    let mut bytes = [0; 32];
    let random_error =
        |error: getrandom::Error| Error::new(Kind::Unexpected, format!("cannot generate a password: {error}"));
    getrandom::fill(&mut bytes).map_err(random_error)?;
    let password = URL_SAFE_NO_PAD.encode(bytes);
    write_secret(&file, &password)?;
    let sha256 = hex(&Sha256::digest(&password));
    let shown = file.display();
    print(&format!(
        "# 1. Add this to /etc/cba-gateway/config.toml, then: systemctl reload cba-gateway
[[client]]
name = \"{name}\"
password_sha256 = [\"{sha256}\"]
{keys}
# 2. The password is in {shown} (mode 0600). Give it to the tool, then delete the file.
# 3. Settings of common tools; the user name is {name}, the password is the one in the file.
#    curl               curl -u {name}:PASSWORD -X POST {url}/token/authenticate
#    Anaplan Connect    -auth {url} -user {name}:PASSWORD
#    Informatica        Auth URL {url}, user {name}
#    Azure Data Factory Web activity, URL https://GATEWAY:8743/token/authenticate, Basic authentication
#    Postman            auth_base_url = {url}, Basic authentication"
    ))
}

/// Writes the password into a new file. It never opens an existing one, which another process could have open.
fn write_secret(path: &Path, password: &str) -> Result<()> {
    let failed = |error: std::io::Error| {
        let shown = path.display();
        let hint = match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                format!("move {shown} away, or name another file with --password-file")
            }
            _ => "with --password-file, name a file in a directory that you can write".into(),
        };
        Error::new(Kind::Usage, format!("cannot write the password to {shown}: {error}")).hint(hint)
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(format!("{password}\n").as_bytes()).map_err(failed)
}

fn enrol_certificate(
    name: &str,
    file: &str,
    transition: bool,
    ClientOrigin { keys, url }: &ClientOrigin,
) -> Result<()> {
    let path = std::path::absolute(file)
        .map_err(|error| Error::new(Kind::Usage, format!("cannot find {file}: {error}")).hint("give a path"))?;
    let unreadable = |error: std::io::Error| {
        Error::new(Kind::Usage, format!("cannot read {}: {error}", path.display()))
            .hint(format!("check the path, and that you may read it: ls -l {}", path.display()))
    };
    let bytes = File::open(&path).and_then(read_whole).map_err(unreadable)?;
    read_client_certificate(&path, &bytes, transition)?;
    let path = path.display();
    let transition = if transition {
        "# Anaplan still accepts this certificate: a copy of its key logs in without the gateway. When the last job has moved,\n\
         # disable it in Anaplan and give the tool a new certificate.\ntransition = true\n"
    } else {
        ""
    };
    print(&format!(
        "# 1. Copy the certificate to a directory that only root can write to, and name it here.
# 2. Add this to /etc/cba-gateway/config.toml, then: systemctl reload cba-gateway
[[client]]
name = \"{name}\"
certificates = [\"{path}\"]
# v1 for Anaplan Connect and other tools that sign without a time; remove what the tool does not send.
payload_versions = [\"v1\", \"v2\"]
{transition}{keys}
# 3. Settings of common tools.
#    Anaplan Connect    -auth {url}, and its keystore as before
#    Informatica        Auth URL {url}, and its keystore as before
#    anaplanConnector   connection.endpoints.token = \"{url}/token/authenticate\""
    ))
}

fn key_line(key: &str, values: &[String]) -> String {
    if values.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("{key} = [{}]\n", quoted.join(", "))
}
