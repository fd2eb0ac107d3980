//! SoftHSM2: a token in a directory, PINs never lock.

use std::process::Command;

use crate::fixture::{Fixture, softhsm_module};
use crate::stack::Stack;

pub(crate) struct SoftHsm2(Fixture);

impl SoftHsm2 {
    pub(crate) fn new() -> Self {
        let fixture = Fixture::new();
        fixture.generate_key("02", "always", &["--always-auth"]);
        Self(fixture)
    }
}

impl Stack for SoftHsm2 {
    fn fixture(&mut self) -> &mut Fixture {
        &mut self.0
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.0.command(arguments)
    }

    fn plain_key(&self) -> Vec<String> {
        vec!["--key-id".into(), "01".into()]
    }

    fn always_authenticate_key(&self) -> Vec<String> {
        vec!["--key-id".into(), "02".into()]
    }

    fn module(&self) -> String {
        softhsm_module()
    }

    fn tries(&self) -> Option<usize> {
        None
    }

    fn other(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.0.file("softhsm2.conf"));
        command
    }

    fn take_out(&mut self) {
        std::fs::rename(self.0.file("tokens"), self.0.file("away")).unwrap();
        std::fs::create_dir(self.0.file("tokens")).unwrap();
    }

    fn put_back(&mut self) {
        std::fs::remove_dir_all(self.0.file("tokens")).unwrap();
        std::fs::rename(self.0.file("away"), self.0.file("tokens")).unwrap();
    }
}
