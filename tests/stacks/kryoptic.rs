//! kryoptic: a software token that really locks its PIN, at the tenth wrong one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::stack::{Stack, make_ca};
use crate::stand::{self, EXTENSIONS, Stand, tool};

pub(crate) struct Kryoptic {
    stand: Stand,
    module: PathBuf,
}

/// Builds a separate test crate for all stacks, and returns the output directory.
pub(crate) fn build(name: &str) -> PathBuf {
    stand::build(name, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("stacks"))
}

impl Kryoptic {
    pub(crate) fn new() -> Self {
        static MODULE: OnceLock<PathBuf> = OnceLock::new();
        let module = MODULE.get_or_init(|| build("kryoptic").join("libkryoptic_pkcs11.so")).clone();
        let mut stand = Stand::empty();
        let conf = format!("[[slots]]\nslot = 42\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", stand.file("token.sql"));
        let conf = stand.write("kryoptic.conf", conf);
        stand.set("KRYOPTIC_CONF", conf);
        stand.use_module(Some(&module.display().to_string()));
        stand.write("pin", "123456");
        let made = Self { stand, module };
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
        make_ca(&made.stand);
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
            made.stand.tool("openssl", &["rsa", "-pubin", "-inform", "DER", "-in", "spki", "-out", "pub.pem"]);
            made.stand.issue("leaf", "pub.pem", EXTENSIONS, &["-days", "9"]);
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
        tool(command.arg("--module").arg(&self.module).args(arguments).current_dir(self.stand.path()));
    }
}

impl Stack for Kryoptic {
    fn stand(&mut self) -> &mut Stand {
        &mut self.stand
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.stand.command(arguments)
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
        command.env("KRYOPTIC_CONF", self.stand.file("kryoptic.conf"));
        command
    }

    fn take_out(&mut self) {
        std::fs::rename(self.stand.file("token.sql"), self.stand.file("away")).unwrap();
    }

    fn put_back(&mut self) {
        std::fs::rename(self.stand.file("away"), self.stand.file("token.sql")).unwrap();
    }
}
