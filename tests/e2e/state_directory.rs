//! The directory of the fuse's records: who can use it, and where it may be.

use std::fs;

use crate::deadline::Finish as _;
use crate::fuse::{stand, wrong};
use crate::stand::{Run, Stand, needs_root, same_environment};

#[test]
fn a_state_directory_that_cannot_be_written_refuses_before_any_login() {
    let stand = stand();
    stand.write("file", "");
    let inside_a_file = stand.file("file/state");
    let error = stand.sign(&["--state-dir", &inside_a_file]).failed(4);
    assert!(error.contains("wrong-PIN fuse") && error.contains("--state-dir DIR"), "{error}");
    let error = stand.sign(&["--state-dir", "/proc/nonexistent"]).failed(4);
    assert!(error.contains("wrong-PIN fuse"), "{error}");
    assert_eq!(stand.calls("C_Login"), 0);
}

#[test]
fn a_relative_state_directory_is_refused() {
    let mut stand = stand();
    stand.sign(&["--state-dir", "here"]).failed(2);
    stand.set("XDG_STATE_HOME", "here");
    stand.sign(&[]).ok();
    assert!(!stand.path().join("here").exists());
}

#[test]
fn no_link_in_the_state_directory_is_followed() {
    let stand = stand();
    wrong(&stand).failed(4);
    let state = stand.path().join("home/.local/state/cba-agent");
    let victim = stand.write("victim", "precious");
    for extension in ["lock", "new", "json"] {
        stand.run(&["pin-fuse", "--reset"]).ok();
        wrong(&stand).failed(4);
        stand.run(&["pin-fuse", "--reset"]).ok();
        let lock =
            fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some());
        let path = lock.unwrap().with_extension(extension);
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let error = wrong(&stand).failed(4);
        // A planted lock or record is refused. A planted new file is moved aside, and the login continues.
        let refused = if extension == "new" { "CKR_PIN_INCORRECT" } else { "cannot be stored" };
        assert!(error.contains(refused), "{extension}: {error}");
        assert_eq!(stand.read("victim"), "precious", "{extension}");
        let _ = fs::remove_file(&path);
    }
}

/// A stand with a directory of group 4545, whose token, call log and files every user may use.
fn shared_by_users(mode: &str, owner: &str) -> Stand {
    needs_root("it plays other users of the host");
    let mut stand = stand();
    let shared = stand.file("shared");
    stand.tool("install", &["-d", "-m", mode, "-o", owner, "-g", "4545", &shared]);
    stand.set("CBA_AGENT_STATE_DIR", &shared);
    stand.write("calls", "");
    stand.tool("chmod", &["-R", "a+rwX", &stand.file("tokens"), &stand.file("calls"), &stand.file("softhsm2.conf")]);
    crate::access::open_to_all(stand.path());
    stand
}

/// A run by a user of that group, with the user's own PIN file.
fn as_user(stand: &Stand, user: &str, pin: &str) -> Run {
    let own = stand.write(&format!("pin-{user}"), pin);
    stand.tool("chown", &[user, &own]);
    let sign = stand.command(&["sign", "--pin-source", &format!("file:{own}")]);
    let mut command = std::process::Command::new("setpriv");
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--groups=4545", "--"]);
    // The umask of the unit file.
    command.args(["sh", "-c", "umask 077; exec \"$@\"", "sh"]).arg(sign.get_program()).args(sign.get_args());
    same_environment(&mut command, &sign);
    Run::from_output(command.current_dir(stand.path()).finish())
}

#[test]
fn two_users_of_one_token_share_its_fuse_in_a_directory_of_their_group() {
    needs_root("it plays other users of the host");
    let stand = shared_by_users("2770", "root");
    as_user(&stand, "20001", "not-the-pin").failed(4);
    // A file other than the refused one gets one try, for any user.
    as_user(&stand, "20002", "not-the-pin").failed(4);
    for user in ["20001", "20002", "20003"] {
        let refused = as_user(&stand, user, &stand.pin()).failed(4);
        assert!(refused.contains("no login is tried"), "{refused}");
    }
    assert_eq!(stand.calls("C_Login"), 2);
}

#[test]
fn many_users_at_once_with_a_wrong_pin_spend_two_tries_at_most() {
    needs_root("it plays other users of the host");
    let stand = shared_by_users("2770", "root");
    std::thread::scope(|scope| {
        for user in 20001..20009 {
            let stand = &stand;
            scope.spawn(move || {
                let run = as_user(stand, &user.to_string(), "not-the-pin");
                // SoftHSM2 rewrites its token at a refused PIN. A process that reads it at that moment finds no token.
                assert!([3, 4].contains(&run.code) && run.stdout.is_empty(), "{run:?}");
            });
        }
    });
    assert!([1, 2].contains(&stand.calls("C_Login")), "{}", stand.read("calls"));
}

#[test]
fn a_state_directory_of_another_user_gets_a_warning() {
    needs_root("it plays other users of the host");
    let stand = shared_by_users("2770", "20009");
    let run = as_user(&stand, "20001", &stand.pin());
    assert!(run.stderr.contains("belongs to another user"), "{run:?}");
    run.ok();
}

/// A directory in memory, removed at the end.
pub(crate) fn in_memory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cba-agent-test").tempdir_in("/dev/shm").unwrap()
}

#[test]
fn every_command_refuses_a_state_directory_in_memory() {
    let stand = stand();
    let (shm, source) = (in_memory(), stand.pin_source());
    let state = shm.path().join("made/later").display().to_string();
    let socket = stand.file("agent.sock");
    for command in [
        &["sign"][..],
        &["custody"],
        &["list", "--login"],
        &["certificate", "--login"],
        &["serve", "--socket", &socket, "--allow-users", "0"],
    ] {
        let error = stand.run(&[command, &["--pin-source", &source, "--state-dir", &state]].concat()).failed(4);
        assert!(error.contains("is in memory (tmpfs)") && error.contains("--state-dir DIR"), "{command:?}: {error}");
    }
    for variable in ["STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"] {
        let mut command = stand.command(&["sign", "--pin-source", &source]);
        command.env_remove("HOME").env(variable, shm.path());
        assert!(Run::from_output(command.finish()).failed(4).contains("is in memory (tmpfs)"), "{variable}");
    }
    let doctor = stand.run(&["doctor", "--pin-source", &source, "--state-dir", &state]);
    assert!(doctor.code == 8 && doctor.stdout.contains("is in memory (tmpfs)"), "{doctor:?}");
    stand.run(&["pin-fuse", "--state-dir", &state]).failed(4);
    assert_eq!(stand.calls("C_Login"), 0);
    assert_eq!(fs::read_dir(shm.path()).unwrap().count(), 0, "nothing is made there");
}

#[test]
fn a_state_directory_that_every_user_can_change_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let stand = stand();
    for mode in [0o777, 0o1777, 0o702] {
        let state = stand.file(&format!("state-{mode:o}"));
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        let error = stand.sign(&["--state-dir", &state]).failed(4);
        assert!(error.contains("every user of this host can change"), "{mode:o}: {error}");
        assert_eq!(stand.calls("C_Login"), 0);
        assert!(stand.run(&["doctor", "--state-dir", &state]).stdout.contains("every user of this host can change"));
        // The hint makes this directory for this user only.
        let inside = format!("{state}/cba-agent");
        assert!(error.contains(&format!("--state-dir {inside}")), "{error}");
        let run = stand.sign(&["--state-dir", &inside]);
        assert_eq!(run.stderr.contains("every user can replace"), mode == 0o777 || mode == 0o702, "{mode:o}: {run:?}");
        run.ok();
        assert_eq!(fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);
        let chmod = crate::hints::one_command(&error, "chmod ");
        stand.tool("sh", &["-c", &chmod]);
        stand.sign(&["--state-dir", &state]).ok();
        fs::remove_file(stand.file("calls")).unwrap();
    }
}

#[test]
fn a_container_that_would_forget_the_fuse_gets_a_warning() {
    needs_root("it makes a mount namespace");
    let stand = Stand::new();
    for layer in ["lower", "upper", "work", "merged"] {
        fs::create_dir(stand.file(layer)).unwrap();
    }
    let inside = |arguments: &[&str]| {
        let mount = "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && exec \"$@\"";
        let run = stand.command(arguments);
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", mount, "sh"]).arg(run.get_program()).args(run.get_args());
        same_environment(&mut command, &run);
        Run::from_output(command.current_dir(stand.path()).finish())
    };
    let (source, state) = (stand.pin_source(), stand.file("merged/state"));
    let run = inside(&["sign", "--pin-source", &source, "--state-dir", &state]);
    assert!(run.stderr.contains("overlay file system") && run.stderr.contains("use a volume"), "{run:?}");
    run.ok();
    let doctor = inside(&["doctor", "--pin-source", &source, "--state-dir", &state]);
    assert!(doctor.stdout.contains("overlay file system"), "{doctor:?}");
    doctor.ok();
}
