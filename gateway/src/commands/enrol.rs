//! `enrol`: creates a local identity for a tool. It prints the configuration to add, and does not change the file.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::ArgMatches;
use sha2::{Digest as _, Sha256};

use super::print;
use crate::cli;
use crate::config::{
    DEFAULT_PATH, FileRules, GatewayConfig, is_client_name, network, read_client_certificate, read_regular,
};
use crate::library::{Error, Kind, Result, file_format::quoted, hex};

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
    let config = absolute(cli::value(matches, "config").unwrap_or_default())?;
    let read = GatewayConfig::read(Path::new(&config), FileRules::new(true)).ok();
    let port = |addresses: Option<&Vec<SocketAddr>>, default: u16| {
        addresses.and_then(|addresses| addresses.first()).map_or(default, SocketAddr::port)
    };
    let plain_port = port(read.as_ref().map(|config| &config.listen), 731);
    let tls_port = port(read.as_ref().and_then(|config| Some(&config.tls.as_ref()?.listen)), 8743);
    let tls_url = format!("https://GATEWAY:{tls_port}");
    let next = NextSteps {
        apply: apply_steps(&config),
        keys: [key_line("users", &users), key_line("from", &from)].concat(),
        url: if users.is_empty() { tls_url.clone() } else { format!("http://localhost:{plain_port}") },
        tls_url,
        config,
    };
    match cli::value(matches, "certificate") {
        Some(file) => enrol_certificate(name, file, matches.get_flag("transition"), &next),
        None => enrol_password(name, cli::value(matches, "password-file"), &next),
    }
}

/// What the administrator does with the printed table.
struct NextSteps {
    /// The configuration file.
    config: String,
    /// The commands that check and apply the configuration.
    apply: String,
    /// The lines of the configuration with the keys `users` and `from`.
    keys: String,
    /// The URL for the tool: plain HTTP on this host if it has users, otherwise TLS.
    url: String,
    tls_url: String,
}

fn enrol_password(name: &str, file: Option<&str>, next: &NextSteps) -> Result<()> {
    let file = absolute(file.unwrap_or(&format!("{name}.password")))?;
    let mut bytes = [0; 32];
    let random_error =
        |error: getrandom::Error| Error::new(Kind::Unexpected, format!("cannot generate a password: {error}"));
    getrandom::fill(&mut bytes).map_err(random_error)?;
    let password = URL_SAFE_NO_PAD.encode(bytes);
    write_secret(Path::new(&file), &password)?;
    let sha256 = hex(&Sha256::digest(&password));
    let NextSteps { config, apply, keys, url, tls_url } = next;
    let quoted_file = quoted(&file);
    print(&format!(
        "# 1. Add this table to {config}. Then run:
#    {apply}
[[client]]
name = \"{name}\"
password_sha256 = [\"{sha256}\"]
{keys}
# 2. The password is in {file} (mode 0600). Give it to the tool, then delete the file:
#    rm {quoted_file}
# 3. Settings of common tools; the user name is {name}, the password is the one in the file.
#    curl               printf 'user = \"{name}:%s\"' \"$(cat {quoted_file})\" | curl -K - --noproxy localhost -X POST {url}/token/authenticate
#    Anaplan Connect    -auth {url} -user {name}:PASSWORD
#    Informatica        Auth URL {url}, user {name}
#    Azure Data Factory Web activity, URL {tls_url}/token/authenticate, Basic authentication
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

fn enrol_certificate(name: &str, file: &str, transition: bool, next: &NextSteps) -> Result<()> {
    let file = absolute(file)?;
    let (path, quoted_file) = (Path::new(&file), quoted(&file));
    let unreadable = |error: std::io::Error| {
        Error::new(Kind::Usage, format!("cannot read {file}: {error}"))
            .hint(format!("check the path, and that you may read it: ls -l {quoted_file}"))
    };
    let bytes = read_regular(path).map_err(unreadable)?;
    read_client_certificate(path, &bytes, transition)?;
    let transition = if transition {
        "# Anaplan still accepts this certificate: a copy of its key logs in without the gateway. When the last job has moved,\n\
         # disable it in Anaplan and give the tool a new certificate.\ntransition = true\n"
    } else {
        ""
    };
    let NextSteps { config, apply, keys, url, .. } = next;
    print(&format!(
        "# 1. If users other than root can change the certificate, copy it and name the copy below:
#    install -D -m 644 {quoted_file} /etc/cba-gateway/clients/{name}.pem
# 2. Add this table to {config}. Then run:
#    {apply}
[[client]]
name = \"{name}\"
{certificates}# v1 for Anaplan Connect and other tools that sign without a time; remove what the tool does not send.
payload_versions = [\"v1\", \"v2\"]
{transition}{keys}
# 3. Settings of common tools.
#    Anaplan Connect    -auth {url}, and its keystore as before
#    Informatica        Auth URL {url}, and its keystore as before
#    anaplanConnector   connection.endpoints.token = \"{url}/token/authenticate\"",
        certificates = key_line("certificates", std::slice::from_ref(&file)),
    ))
}

/// Returns the commands that check and apply a configuration. The units of the package use the files in /etc/cba-gateway.
fn apply_steps(config: &str) -> String {
    if config == DEFAULT_PATH {
        return "cba-gateway check && systemctl reload-or-restart cba-gateway".into();
    }
    let check = format!("cba-gateway check --config {}", quoted(config));
    let instance = config.strip_prefix("/etc/cba-gateway/").and_then(|file| file.strip_suffix(".toml"));
    match instance.filter(|instance| is_client_name(instance)) {
        Some(instance) => format!("{check} && systemctl reload-or-restart cba-gateway@{instance}"),
        None => format!("{check}\n# Then send SIGHUP to the gateway."),
    }
}

/// Returns a configuration key with a list of strings. Each string of JSON is also one of TOML.
fn key_line(key: &str, values: &[String]) -> String {
    if values.is_empty() { String::new() } else { format!("{key} = {}\n", serde_json::json!(values)) }
}

fn absolute(path: &str) -> Result<String> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::new(Kind::Usage, format!("cannot find {path}: {error}")).hint("give a path"))?;
    Ok(absolute.display().to_string())
}
