//! The interface between a scenario and a stack.

use std::process::Command;

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, Run};

/// A token of one kind, with all differences between kinds.
pub(crate) trait Stack {
    /// The directory and the environment of every run.
    fn fixture(&mut self) -> &mut Fixture;

    /// A run of the agent where this stack's token can be reached.
    fn command(&self, arguments: &[&str]) -> Command;

    /// Options that select the key with one login.
    fn plain_key(&self) -> Vec<String>;

    /// Options that select the key with a login for each signature.
    fn always_authenticate_key(&self) -> Vec<String>;

    /// The module, for other programs.
    fn module(&self) -> String;

    /// The number of wrong PINs that lock the token; `None` if it never locks.
    fn tries(&self) -> Option<usize>;

    /// Another program on the agent's host.
    fn other(&self, program: &str) -> Command;

    /// Takes the token away.
    fn take_out(&mut self);

    /// Puts it back.
    fn put_back(&mut self);

    fn run(&self, arguments: &[&str]) -> Run {
        Run::from_output(self.command(arguments).finish())
    }

    /// `sign` with the key of these flags and the PIN of this source.
    fn sign(&self, key: &[String], source: &str, more: &[&str]) -> Run {
        let mut arguments = vec!["sign", "--pin-source", source];
        arguments.extend(key.iter().map(String::as_str));
        arguments.extend(more);
        self.run(&arguments)
    }
}

/// A CA for [`Fixture::issue`], if none was provisioned.
pub(crate) fn make_ca(fixture: &Fixture) {
    let files = ["-subj", "/CN=test CA", "-days", "30", "-keyout", "ca.key", "-out", "ca.pem"];
    fixture.tool("openssl", &[&["req", "-x509", "-newkey", "rsa:2048", "-nodes"][..], &files].concat());
}
