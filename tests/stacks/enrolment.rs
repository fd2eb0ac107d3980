//! Every command of `docs/enrolment.md`, exactly as printed, typed by a person who has only that page.

use std::process::Command;

use crate::deadline::Finish as _;
use crate::fixture::{BINARY, EXTENSIONS, Fixture, other_user, tool};
use crate::piv_card::Card;
use crate::stack::make_ca;

/// The commands in the page's blocks with any of these marks, in order.
fn commands(marks: &[&str]) -> String {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/enrolment.md")).unwrap();
    let mut found = String::new();
    for block in guide.split("\n```sh ").skip(1) {
        let (head, rest) = block.split_once('\n').unwrap();
        if head.split(' ').any(|mark| marks.contains(&mark)) {
            found.push_str(rest.split("\n```").next().unwrap());
            found.push('\n');
        }
    }
    found
}

/// The host and user of the guide's reader.
enum Place {
    /// SoftHSM2.
    Host,
    /// SoftHSM2, for a user without special groups.
    AsUser(&'static str),
    /// A host with a YubiKey in the reader.
    Card(Card),
}

struct Newcomer {
    fixture: Fixture,
    place: Place,
    typed: String,
}

impl Newcomer {
    fn with_softhsm2() -> Self {
        Self::prepared(Fixture::empty(), |_| Place::Host)
    }

    fn with_yubikey() -> Self {
        Self::prepared(Fixture::empty(), |fixture| Place::Card(Card::fresh(fixture)))
    }

    fn prepared(fixture: Fixture, place: impl FnOnce(&Fixture) -> Place) -> Self {
        make_ca(&fixture);
        for (name, secret) in [
            ("so-pin", "87654321"),
            ("pin", "424242"),
            ("old-pin", "123456"),
            ("puk", "87654321"),
            ("old-puk", "12345678"),
            ("password", "changeit\nchangeit\n"),
        ] {
            fixture.write(name, secret);
        }
        let place = place(&fixture);
        Self { fixture, place, typed: String::new() }
    }

    /// An old key with a certificate, in all usual file forms.
    fn with_old_files(self) -> Self {
        let fixture = &self.fixture;
        fixture.tool("openssl", &["genrsa", "-aes256", "-passout", "file:password", "-out", "old.key", "2048"]);
        fixture.tool("openssl", &["rsa", "-in", "old.key", "-passin", "file:password", "-pubout", "-out", "old.pub"]);
        fixture.issue("old", "old.pub", EXTENSIONS, &["-days", "9"]);
        let secret = ["-passin", "file:password", "-passout", "file:password", "-name", "anaplan"];
        let export = ["pkcs12", "-export", "-in", "old.pem", "-inkey", "old.key", "-out", "old.p12"];
        fixture.tool("openssl", &[&export[..], &secret].concat());
        let store = ["-importkeystore", "-srckeystore", "old.p12", "-destkeystore", "old.jks", "-deststoretype", "JKS"];
        let secret = ["-srcstorepass:file", "password", "-deststorepass:file", "password"];
        fixture.tool("keytool", &[&store[..], &secret].concat());
        self
    }

    /// Types the commands of the next blocks into the same shell.
    fn types(mut self, marks: &[&str]) -> Self {
        let commands = commands(marks);
        assert!(!commands.is_empty(), "{marks:?}");
        self.typed.push_str(&commands);
        self
    }

    /// Ends the input, and returns the terminal's output.
    #[track_caller]
    fn done(self) -> String {
        let script = self.fixture.write("typed.sh", &self.typed);
        let mut command = match &self.place {
            Place::Host => Command::new("expect"),
            Place::AsUser(user) => as_user(&self.fixture, user),
            Place::Card(card) => card.on_host("expect"),
        };
        let exp = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stacks/guide.exp");
        command.args([exp, &script]);
        self.fixture.prepare(&mut command);
        // This user has no configuration.
        command.env_remove("CBA_AGENT_MODULE").env_remove("SOFTHSM2_CONF");
        let directory = std::path::Path::new(BINARY).parent().unwrap().display().to_string();
        command.env("PATH", format!("{directory}:{}", std::env::var("PATH").unwrap()));
        let output = command.finish();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
        assert!(shown.contains("valid: v2"), "{shown}");
        assert!(shown.contains("Key custody: ALLOWED"), "{shown}");
        assert!(!shown.contains("challengePassword"), "{shown}");
        assert!(!shown.contains("424242") && !shown.contains("changeit"), "{shown}");
        let registered =
            self.fixture.tool("openssl", &["x509", "-in", "register.pem", "-noout", "-ext", "subjectAltName"]);
        assert!(registered.contains("email:integration@example.com"), "{registered}");
        shown
    }
}

/// `expect`, run by a user who owns everything in the fixture.
fn as_user(fixture: &Fixture, user: &str) -> Command {
    tool(Command::new("chown").args(["-R", user]).arg(fixture.path()));
    for place in [fixture.path(), std::path::Path::new(BINARY)] {
        for part in place.ancestors().take_while(|part| part.parent().is_some()) {
            tool(Command::new("chmod").arg("o+x").arg(part));
        }
    }
    let mut command = Command::new("setpriv");
    command.args(other_user(user, "")).arg("expect");
    command
}

#[test]
fn a_key_made_in_softhsm2_becomes_a_verified_request() {
    let mut newcomer = Newcomer::with_softhsm2();
    // Outside the group softhsm, which owns the directory of Debian's package.
    newcomer.place = Place::AsUser("20001");
    let shown = newcomer.types(&["softhsm2", "ca", "check", "finish"]).done();
    assert!(shown.contains("CKM_RSA_PKCS_KEY_PAIR_GEN"), "{shown}");
}

#[test]
fn openssls_engine_makes_the_request_too() {
    let all = commands(&["softhsm2", "openssl", "engine", "ca", "check", "finish"]);
    let mut newcomer = Newcomer::with_softhsm2();
    // Instead of GnuTLS, and before the CA must sign.
    let (before, rest) = all.split_once("certtool ").unwrap();
    let rest = rest.split_once("anaplan.csr\n").unwrap().1;
    let (ca, rest) = rest.split_once("cat > anaplan.cnf").unwrap();
    let (request, rest) = rest.split_once("anaplan.csr\n").unwrap();
    newcomer.typed = format!("{before}cat > anaplan.cnf{request}anaplan.csr\n{ca}{rest}");
    newcomer.done();
}

#[test]
fn making_the_token_a_second_time_erases_no_key() {
    let mut newcomer = Newcomer::with_softhsm2().types(&["softhsm2", "ca", "check"]);
    newcomer.typed += "softhsm2-util --init-token --free --label another\n";
    newcomer.typed += "export CBA_AGENT_TOKEN_LABEL=anaplan\n";
    newcomer.types(&["finish"]).done();
}

#[test]
fn a_key_made_in_a_yubikey_becomes_a_verified_request() {
    Newcomer::with_yubikey().types(&["yubikey", "ca", "check", "finish"]).done();
}

/// The commands that make a SoftHSM2 token, without the one that makes a key.
fn empty_token() -> String {
    let all = commands(&["softhsm2"]);
    let (made, _) = all.split_once("pkcs11-tool --module \"$module\" --token-label anaplan --login \\\n").unwrap();
    made.to_owned()
}

/// The part of step 3 that writes a certificate.
fn written(mark: &str) -> String {
    let all = commands(&[mark]);
    let from = if mark == "yubikey" { "yubico-piv-tool -a import-certificate" } else { "openssl x509 -in anaplan.pem" };
    all[all.rfind(from).unwrap()..].to_owned()
}

#[test]
fn an_old_p12_moves_into_softhsm2_and_is_no_longer_called_local() {
    let mut newcomer = Newcomer::with_softhsm2().with_old_files();
    newcomer.typed = empty_token();
    let mut newcomer = newcomer.types(&["p12-softhsm2"]);
    newcomer.typed += &written("softhsm2");
    let shown = newcomer.types(&["finish", "destroy"]).done();
    assert!(shown.contains("require.local") && shown.contains("generated in the token        no"), "{shown}");
}

#[test]
fn an_old_pem_moves_into_softhsm2() {
    let mut newcomer = Newcomer::with_softhsm2().with_old_files();
    newcomer.typed = format!("{}cp old.pem anaplan.pem\n", empty_token());
    let mut newcomer = newcomer.types(&["pem-softhsm2"]);
    newcomer.typed += &written("softhsm2");
    newcomer.types(&["finish"]).done();
}

#[test]
fn a_person_with_only_a_p12_reaches_a_verified_request_on_a_yubikey() {
    let mut newcomer = Newcomer::with_yubikey().with_old_files();
    let all = commands(&["yubikey"]);
    newcomer.typed = all.split_once("yubico-piv-tool -a generate").unwrap().0.to_owned();
    newcomer.types(&["p12-yubikey"]).types(&["finish", "destroy"]).done();
}

#[test]
fn an_old_java_keystore_moves_into_a_yubikey_and_an_old_pem_too() {
    let all = commands(&["yubikey"]);
    let start = all.split_once("yubico-piv-tool -a generate").unwrap().0.to_owned();
    let mut newcomer = Newcomer::with_yubikey().with_old_files();
    tool(Command::new("rm").arg(newcomer.fixture.file("old.p12")));
    newcomer.typed = start.clone();
    newcomer.types(&["jks"]).types(&["p12-yubikey"]).types(&["finish"]).done();
    let mut newcomer = Newcomer::with_yubikey().with_old_files();
    newcomer.typed = format!("{start}cp old.pem anaplan.pem\n");
    let mut newcomer = newcomer.types(&["pem-yubikey"]);
    newcomer.typed += &written("yubikey");
    newcomer.types(&["finish"]).done();
}
