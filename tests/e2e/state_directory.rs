//! The directory of the fuse's records: who can use it, and where it may be.

use std::fs;

use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run, needs_root, other_user};
use crate::fuse::{fixture, wrong};

#[test]
fn a_state_directory_that_cannot_be_written_refuses_before_any_login() {
    let fixture = fixture();
    fixture.write("file", "");
    let inside_a_file = fixture.file("file/state");
    let error = fixture.sign(&["--state-dir", &inside_a_file]).failed(4);
    assert!(error.contains("wrong-PIN fuse") && error.contains("--state-dir DIR"), "{error}");
    let error = fixture.sign(&["--state-dir", "/proc/nonexistent"]).failed(4);
    assert!(error.contains("wrong-PIN fuse"), "{error}");
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn a_relative_state_directory_is_refused() {
    let mut fixture = fixture();
    fixture.sign(&["--state-dir", "here"]).failed(2);
    fixture.set("XDG_STATE_HOME", "here");
    fixture.sign(&[]).ok();
    assert!(!fixture.path().join("here").exists());
}

#[test]
fn no_link_in_the_state_directory_is_followed() {
    let fixture = fixture();
    wrong(&fixture).failed(4);
    let state = fixture.path().join("home/.local/state/cba-agent");
    let victim = fixture.write("victim", "precious");
    for extension in ["lock", "new", "json"] {
        fixture.run(&["pin-fuse", "--reset"]).ok();
        wrong(&fixture).failed(4);
        fixture.run(&["pin-fuse", "--reset"]).ok();
        let lock =
            fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some());
        let path = lock.unwrap().with_extension(extension);
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let error = wrong(&fixture).failed(4);
        // A planted lock or record is refused. A planted new file is moved aside, and the login continues.
        let refused = if extension == "new" { "CKR_PIN_INCORRECT" } else { "cannot be stored" };
        assert!(error.contains(refused), "{extension}: {error}");
        assert_eq!(fixture.read("victim"), "precious", "{extension}");
        let _ = fs::remove_file(&path);
    }
}

/// A fixture with a directory of group 4545, whose token, call log and files every user may use.
fn shared_by_users(owner: &str) -> Fixture {
    let mut fixture = fixture();
    let shared = fixture.file("shared");
    fixture.tool("install", &["-d", "-m", "2770", "-o", owner, "-g", "4545", &shared]);
    fixture.set("CBA_AGENT_STATE_DIR", &shared);
    fixture.write("calls", "");
    fixture.tool(
        "chmod",
        &["-R", "a+rwX", &fixture.file("tokens"), &fixture.file("calls"), &fixture.file("softhsm2.conf")],
    );
    crate::access::open_to_all(fixture.path());
    fixture
}

/// A run by a user of that group, with the user's own PIN file.
fn as_user(fixture: &Fixture, user: &str, pin: &str) -> Run {
    let own = fixture.write(&format!("pin-{user}"), pin);
    fixture.tool("chown", &[user, &own]);
    let mut command = fixture.program("setpriv");
    command.args(other_user(user, "4545"));
    // The umask of the unit file.
    command.args(["sh", "-c", "umask 077; exec \"$@\"", "sh", BINARY, "sign", "--pin-source", &format!("file:{own}")]);
    Run::from_output(command.finish())
}

#[test]
fn two_users_of_one_token_share_its_fuse_in_a_directory_of_their_group() {
    needs_root("it acts as other users of the host");
    let fixture = shared_by_users("root");
    as_user(&fixture, "20001", "not-the-pin").failed(4);
    // A file other than the refused one gets one try, for any user.
    as_user(&fixture, "20002", "not-the-pin").failed(4);
    for user in ["20001", "20002", "20003"] {
        let refused = as_user(&fixture, user, &fixture.pin()).failed(4);
        assert!(refused.contains("no login is tried"), "{refused}");
    }
    assert_eq!(fixture.calls("C_Login"), 2);
}

#[test]
fn many_users_at_once_with_a_wrong_pin_spend_two_tries_at_most() {
    needs_root("it acts as other users of the host");
    let fixture = shared_by_users("root");
    std::thread::scope(|scope| {
        for user in 20001..20009 {
            let fixture = &fixture;
            scope.spawn(move || {
                let run = as_user(fixture, &user.to_string(), "not-the-pin");
                // SoftHSM2 rewrites its token at a refused PIN. A process that reads it at that moment finds no token.
                assert!([3, 4].contains(&run.code) && run.stdout.is_empty(), "{run:?}");
            });
        }
    });
    assert!([1, 2].contains(&fixture.calls("C_Login")), "{}", fixture.read("calls"));
}

#[test]
fn a_state_directory_of_another_user_gets_a_warning() {
    needs_root("it acts as other users of the host");
    let fixture = shared_by_users("20009");
    let run = as_user(&fixture, "20001", &fixture.pin());
    assert!(run.stderr.contains("belongs to another user"), "{run:?}");
    run.ok();
}

/// A directory in memory, removed at the end.
pub(crate) fn in_memory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cba-agent-test").tempdir_in("/dev/shm").unwrap()
}

#[test]
fn every_command_refuses_a_state_directory_in_memory() {
    let fixture = fixture();
    let (shm, source) = (in_memory(), fixture.pin_source());
    let state = shm.path().join("made/later").display().to_string();
    let socket = fixture.file("agent.sock");
    for command in [
        &["sign"][..],
        &["custody"],
        &["list", "--login"],
        &["certificate", "--login"],
        &["serve", "--socket", &socket, "--allow-users", "0"],
    ] {
        let error = fixture.run(&[command, &["--pin-source", &source, "--state-dir", &state]].concat()).failed(4);
        assert!(error.contains("is in memory (tmpfs)") && error.contains("--state-dir DIR"), "{command:?}: {error}");
    }
    for variable in ["STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"] {
        let mut command = fixture.command(&["sign", "--pin-source", &source]);
        command.env_remove("HOME").env(variable, shm.path());
        assert!(Run::from_output(command.finish()).failed(4).contains("is in memory (tmpfs)"), "{variable}");
    }
    let doctor = fixture.run(&["doctor", "--pin-source", &source, "--state-dir", &state]);
    assert!(doctor.code == 8 && doctor.stdout.contains("is in memory (tmpfs)"), "{doctor:?}");
    fixture.run(&["pin-fuse", "--state-dir", &state]).failed(4);
    assert_eq!(fixture.calls("C_Login"), 0);
    assert_eq!(fs::read_dir(shm.path()).unwrap().count(), 0, "nothing is made there");
}

#[test]
fn a_state_directory_that_every_user_can_change_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = fixture();
    for mode in [0o777, 0o1777, 0o702] {
        let state = fixture.file(&format!("state-{mode:o}"));
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        let error = fixture.sign(&["--state-dir", &state]).failed(4);
        assert!(error.contains("every user of this host can change"), "{mode:o}: {error}");
        assert_eq!(fixture.calls("C_Login"), 0);
        assert!(fixture.run(&["doctor", "--state-dir", &state]).stdout.contains("every user of this host can change"));
        // The hint makes this directory for this user only.
        let inside = format!("{state}/cba-agent");
        assert!(error.contains(&format!("--state-dir {inside}")), "{error}");
        let run = fixture.sign(&["--state-dir", &inside]);
        assert_eq!(run.stderr.contains("every user can replace"), mode == 0o777 || mode == 0o702, "{mode:o}: {run:?}");
        run.ok();
        assert_eq!(fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);
        let chmod = crate::hints::one_command(&error, "chmod ");
        fixture.tool("sh", &["-c", &chmod]);
        fixture.sign(&["--state-dir", &state]).ok();
        fs::remove_file(fixture.file("calls")).unwrap();
    }
}

#[test]
fn a_container_that_would_forget_the_fuse_gets_a_warning() {
    needs_root("it makes a mount namespace");
    let fixture = Fixture::new();
    for layer in ["lower", "upper", "work", "merged"] {
        fs::create_dir(fixture.file(layer)).unwrap();
    }
    let inside = |arguments: &[&str]| {
        let mount = "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && exec \"$@\"";
        Run::from_output(fixture.in_mount_namespace(mount).args(arguments).finish())
    };
    let (source, state) = (fixture.pin_source(), fixture.file("merged/state"));
    let run = inside(&["sign", "--pin-source", &source, "--state-dir", &state]);
    assert!(run.stderr.contains("overlay file system") && run.stderr.contains("use a volume"), "{run:?}");
    run.ok();
    let doctor = inside(&["doctor", "--pin-source", &source, "--state-dir", &state]);
    assert!(doctor.stdout.contains("overlay file system"), "{doctor:?}");
    doctor.ok();
}
