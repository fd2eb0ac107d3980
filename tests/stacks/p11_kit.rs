//! p11-kit remote: a SoftHSM2 token behind a server's socket, as on another host or outside a container.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, Run, faulty_module, softhsm_module, tool};
use crate::softhsm2::SoftHsm2;
use crate::stack::Stack;

pub(crate) struct Remote {
    token: SoftHsm2,
    server: Option<Child>,
}

impl Remote {
    pub(crate) fn new() -> Self {
        let mut token = SoftHsm2::new();
        let socket = token.fixture().file("p11-kit.sock");
        token.fixture().set("P11_KIT_SERVER_ADDRESS", format!("unix:path={socket}"));
        let mut remote = Self { token, server: None };
        let module = remote.module();
        remote.fixture().use_module(Some(&module));
        remote.put_back();
        remote
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.take_out();
    }
}

impl Stack for Remote {
    fn fixture(&mut self) -> &mut Fixture {
        self.token.fixture()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.token.command(arguments)
    }

    fn plain_key(&self) -> Vec<String> {
        self.token.plain_key()
    }

    fn always_authenticate_key(&self) -> Vec<String> {
        self.token.always_authenticate_key()
    }

    fn module(&self) -> String {
        let usual = ["/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so", "/usr/lib64/pkcs11/p11-kit-client.so"];
        let found = usual.into_iter().find(|path| Path::new(path).exists());
        found.expect("p11-kit-client.so is not installed: apt-get install p11-kit-modules").to_owned()
    }

    fn tries(&self) -> Option<usize> {
        None
    }

    fn other(&self, program: &str) -> Command {
        let mut command = self.token.other(program);
        let socket = self.token.command(&[]).get_current_dir().unwrap().join("p11-kit.sock");
        command.env("P11_KIT_SERVER_ADDRESS", format!("unix:path={}", socket.display()));
        command
    }

    fn take_out(&mut self) {
        if let Some(mut server) = self.server.take() {
            // The server has a process for each client. All are in its process group.
            tool(Command::new("kill").args(["-KILL", "--", &format!("-{}", server.id())]));
            server.wait().unwrap();
        }
    }

    /// The server prints its address when it listens.
    fn put_back(&mut self) {
        self.serve(&softhsm_module());
    }
}

impl Remote {
    fn serve(&mut self, provider: &str) {
        let socket = self.fixture().file("p11-kit.sock");
        let _ = std::fs::remove_file(&socket);
        let mut command = self.token.other("p11-kit");
        command.args(["server", "-f", "--provider", provider, "-n", &socket, "pkcs11:"]).process_group(0);
        command.env("FAULTY", "C_Sign=hang").env("FAULTY_MODULE", softhsm_module());
        command.env("FAULTY_LOG", self.fixture().file("calls"));
        let mut server = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("apt-get install p11-kit");
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("P11_KIT_SERVER_ADDRESS"), "{line}");
        self.server = Some(server);
    }
}

#[test]
fn a_server_killed_while_it_signs_is_exit_6_at_once() {
    let mut remote = Remote::new();
    let source = remote.fixture().pin_source();
    remote.take_out();
    remote.serve(&faulty_module().display().to_string());
    let arguments = ["sign", "--key-id", "01", "--pin-source", &source, "--timeout", "60s"];
    let child = remote.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    remote.fixture().await_calls("C_Sign", 1);
    remote.take_out();
    let error = Run::from_output(child.finish()).failed(6);
    assert!(error.contains("C_Sign: CKR_"), "{error}");
    remote.put_back();
    remote.sign(&remote.plain_key(), &source, &[]).ok();
}
