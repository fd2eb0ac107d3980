//! kryoptic: a software token that really locks its PIN, at the tenth wrong one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::fixture::{self, EXTENSIONS, Fixture, tool};
use crate::stack::{Stack, make_ca};

pub(crate) struct Kryoptic {
    fixture: Fixture,
    module: PathBuf,
}

/// Builds a separate test crate for all stacks, and returns the output directory.
pub(crate) fn build(name: &str) -> PathBuf {
    fixture::build(name, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("stacks"))
}

impl Kryoptic {
    pub(crate) fn new() -> Self {
        static MODULE: OnceLock<PathBuf> = OnceLock::new();
        let module = MODULE.get_or_init(|| build("kryoptic").join("libkryoptic_pkcs11.so")).clone();
        let mut fixture = Fixture::empty();
        let conf = format!("[[slots]]\nslot = 42\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", fixture.file("token.sql"));
        let conf = fixture.write("kryoptic.conf", conf);
        fixture.set("KRYOPTIC_CONF", conf);
        fixture.use_module(Some(&module.display().to_string()));
        fixture.write("pin", "123456");
        let made = Self { fixture, module };
        made.pkcs11_tool(&["--slot", "42", "--init-token", "--label", "kryoptic", "--so-pin", "87654321"]);
        made.pkcs11_tool(&[
            "--slot",
            "42",
            "--init-pin",
            "--login",
            "--login-type",
            "so",
            "--so-pin",
            "87654321",
            "--new-pin",
            "123456",
        ]);
        make_ca(&made.fixture);
        for (id, more) in [("01", &[][..]), ("02", &["--always-auth"])] {
            let mut generate = vec![
                "--login",
                "--pin",
                "123456",
                "--keypairgen",
                "--key-type",
                "rsa:2048",
                "--id",
                id,
                "--label",
                "cba",
                "--usage-sign",
            ];
            generate.extend(more);
            made.pkcs11_tool(&generate);
            made.pkcs11_tool(&["--read-object", "--type", "pubkey", "--id", id, "--output-file", "spki"]);
            made.fixture.tool("openssl", &["rsa", "-pubin", "-inform", "DER", "-in", "spki", "-out", "pub.pem"]);
            made.fixture.issue("leaf", "pub.pem", EXTENSIONS, &["-days", "9"]);
            made.pkcs11_tool(&[
                "--login",
                "--pin",
                "123456",
                "--write-object",
                "leaf.der",
                "--type",
                "cert",
                "--id",
                id,
            ]);
        }
        made
    }

    fn pkcs11_tool(&self, arguments: &[&str]) {
        let mut command = self.other("pkcs11-tool");
        tool(command.arg("--module").arg(&self.module).args(arguments).current_dir(self.fixture.path()));
    }
}

impl Stack for Kryoptic {
    fn fixture(&mut self) -> &mut Fixture {
        &mut self.fixture
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.fixture.command(arguments)
    }

    fn plain_key(&self) -> Vec<String> {
        vec!["--key-id".into(), "01".into()]
    }

    fn always_authenticate_key(&self) -> Vec<String> {
        vec!["--key-id".into(), "02".into()]
    }

    fn module(&self) -> String {
        self.module.display().to_string()
    }

    fn tries(&self) -> Option<usize> {
        Some(10)
    }

    fn other(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KRYOPTIC_CONF", self.fixture.file("kryoptic.conf"));
        command
    }

    fn take_out(&mut self) {
        std::fs::rename(self.fixture.file("token.sql"), self.fixture.file("away")).unwrap();
    }

    fn put_back(&mut self) {
        std::fs::rename(self.fixture.file("away"), self.fixture.file("token.sql")).unwrap();
    }
}
