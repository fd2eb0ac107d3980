//! The list of all messages with a command, and the trial of each. The test reads the source, so that no command is added without one.

use std::fs;
use std::path::Path;

/// Programs that may begin a message, or stand before an option.
pub(crate) const PROGRAMS: &[&str] = &[
    "apt-file",
    "apt-get",
    "base64",
    "bzip2",
    "cat",
    "cba-agent",
    "chgrp",
    "chmod",
    "chown",
    "cp",
    "date",
    "df",
    "findmnt",
    "fuser",
    "getent",
    "groupadd",
    "iconv",
    "install",
    "journalctl",
    "keytool",
    "ldconfig",
    "ldd",
    "ln",
    "ls",
    "mkdir",
    "mount",
    "mv",
    "od",
    "openssl",
    "p11tool",
    "pkcs11-tool",
    "printf",
    "rm",
    "sed",
    "setfacl",
    "softhsm2-util",
    "sysctl",
    "tail",
    "systemctl",
    "timedatectl",
    "tr",
    "ulimit",
    "unset",
    "useradd",
    "usermod",
    "yubico-piv-tool",
    "xz",
    "ykman",
    "zcat",
];

/// Each message with a command, by a part of it, and the trial of its commands: a test of this or another file, or the
/// reason why it cannot be tried here.
const TRIALS: &[(&str, &str)] = &[
    ("`usermod -aG {name} {own}`", "field_reports::a_user_outside_the_group_of_opencryptoki_sees_its_name"),
    ("`ykman piv info`", "untried: it needs a YubiKey"),
    ("`dpkg-query -W libp11-kit0`", "host_hints::commands_that_show_the_cause_run_and_show_it"),
    ("`apt changelog {PACKAGE}`", "untried: it asks the network"),
    (
        "`cba-agent help COMMAND`",
        "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed",
    ),
    ("`cba-agent --version`", "cli::help_and_version_go_to_standard_output"),
    (
        "`cba-agent help` lists the commands",
        "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed",
    ),
    (
        "`cba-agent help sign`",
        "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed",
    ),
    ("`cba-agent list", "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed"),
    ("`cba-agent doctor", "doctor::a_ready_host_passes_without_a_login"),
    (
        "`cba-agent health --socket",
        "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed",
    ),
    ("`getent {}`", "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed"),
    ("put the command first, as in `cba-agent sign", "cli::options_of_every_command_may_stand_before_the_command"),
    ("`cba-agent sign --format json`", "verify::accepts_what_sign_prints_in_every_form"),
    ("`cat /sys/kernel/security/lsm`", "untried: it needs a host with securityfs"),
    ("`cba-agent sign --pin-source prompt`", "terminal::a_prompt_names_the_token_and_echoes_nothing"),
    ("make a new request with `cba-agent sign`", "verify::names_the_rule_that_failed"),
    ("the socket of `cba-agent serve`", "untried: it names what must run, not a command to run"),
    ("`cba-agent pin-fuse`", "fuse::a_second_refusal_is_final_until_a_reset"),
    ("cba-agent pin-fuse --reset", "hints::the_hint_clears_a_blown_fuse_in_the_commands_state_directory"),
    ("`cba-agent audit verify {}`", "host_hints::an_audit_log_is_checked_by_the_command_that_a_message_offers"),
    ("| cba-agent audit verify -", "host_hints::an_audit_log_is_checked_by_the_command_that_a_message_offers"),
    ("`ls -ld {} {}`", "host_hints::an_audit_log_is_checked_by_the_command_that_a_message_offers"),
    ("`findmnt -T {place}`", "host_hints::a_read_only_file_system_is_named_with_its_mount"),
    ("`df -i {place}`", "narrow_limits::a_full_disk_is_named_as_the_cause"),
    ("`df -h {place}`", "host_hints::commands_that_show_the_cause_run_and_show_it"),
    ("`fuser -v {}`", "host_hints::commands_that_show_the_cause_run_and_show_it"),
    ("`chmod o-w {directory}`", "state_directory::a_state_directory_that_every_user_can_change_is_refused"),
    ("`rm {}`", "pin_fuse::the_hint_removes_a_damaged_record_of_an_unknown_token"),
    ("chmod o-rwx", "hints::the_hint_stops_other_users_from_reading_a_pin_file"),
    ("`chown root:root {path}", "host_hints::the_hint_gives_the_policy_file_back_to_root"),
    ("`chown {} {directory} {path}`", "host_hints::the_remedy_creates_directories_that_the_user_can_write"),
    ("`install -d -m {mode} -o {} {}`", "host_hints::the_remedy_creates_directories_that_the_user_can_write"),
    ("mkdir -p {}", "host_hints::the_hint_creates_the_directory_of_a_socket"),
    ("`usermod -aG {} {}`", "host_hints::an_allowed_user_reaches_the_socket_after_the_remedy"),
    ("`chmod o+x {}`", "host_hints::an_allowed_user_reaches_the_socket_after_the_remedy"),
    ("`chmod 644 {file}`", "untried: the file is root's, and who may read it is root's choice"),
    ("unset {}", "host_hints::the_remedy_removes_a_variable_of_the_loader"),
    ("openssl ", "hints::the_remedy_converts_a_certificate_in_another_format"),
    ("keytool -list", "hints::the_remedy_converts_a_certificate_in_another_format"),
    ("cat {path}", "hints::the_remedy_converts_a_certificate_in_another_format"),
    ("`systemd-ask-password", "terminal::the_hint_rewrites_a_pin_file_without_an_echo"),
    ("base64 -di", "hints::the_remedy_converts_a_certificate_in_another_format"),
    ("tail -c +4 {path}", "hints::the_remedy_converts_a_certificate_in_another_format"),
    ("iconv -f {name} -t UTF-8 {path}", "hints::the_remedy_converts_a_certificate_in_another_format"),
    ("iconv -f {encoding}", "pin::the_hint_for_a_refused_pin_file_repairs_it"),
    ("LC_ALL=C sed", "pin::the_hint_for_a_refused_pin_file_repairs_it"),
    ("tr -d '", "pin::the_hint_for_a_refused_pin_file_repairs_it"),
    ("tar -xvf {path}", "certificate_files::a_file_without_a_certificate_is_named_with_a_next_step"),
    ("gzip -dc < {path}", "certificate_files::a_file_without_a_certificate_is_named_with_a_next_step"),
    ("bzip2 -dc < {path}", "certificate_files::a_file_without_a_certificate_is_named_with_a_next_step"),
    ("xz -dc < {path}", "certificate_files::a_file_without_a_certificate_is_named_with_a_next_step"),
    ("[Bb][Ee][Gg][Ii][Nn]", "certificate_files::a_file_without_a_certificate_is_named_with_a_next_step"),
    ("grep -oE", "certificate_files::every_form_is_read_and_the_printed_command_converts_it_for_anaplan"),
    ("`mount -t proc proc /proc`", "narrow_limits::what_is_missing_in_a_bare_root_directory_is_named"),
    ("`ls -l /dev/null /proc/self/exe`", "narrow_limits::what_is_missing_in_a_bare_root_directory_is_named"),
    ("`ulimit -v`", "narrow_limits::a_limit_of_memory_is_named_as_the_cause"),
    ("`ulimit -u`", "narrow_limits::a_limit_of_processes_is_named_as_the_cause"),
    ("`ulimit -n`", "host_hints::commands_that_show_the_cause_run_and_show_it"),
    ("apt-get install libpcsclite1", "untried: it needs pcscd's host"),
    ("apt-get install --only-upgrade", "untried: it needs a booted systemd"),
    ("apt-get install {package}", "host_hints::every_package_that_a_hint_offers_exists"),
    ("`apt-get install pcscd", "host_hints::packages_that_doctor_offers_for_card_readers_exist"),
    ("`systemctl", "untried: it needs a booted systemd"),
    ("`journalctl", "untried: it needs a booted systemd"),
    ("timedatectl", "untried: it needs a booted systemd"),
    ("`date -u`", "host_hints::commands_that_show_the_cause_run_and_show_it"),
    ("`ls -ld {}`", "host_hints::commands_that_show_the_cause_run_and_show_it"),
    ("`pkcs11-tool {slot}--init-token", "hints::the_second_command_for_a_new_token_sets_its_pin"),
    ("`pkcs11-tool --login --login-type so --init-pin`", "hints::the_hints_prepare_a_new_token"),
    ("`pkcs11-tool --login --change-pin`", "hints::the_hint_changes_a_pin_that_must_be_changed"),
    ("`pkcs11-tool --login --type cert", "hints::the_hint_writes_the_missing_certificate_of_a_key"),
    ("`pkcs11-tool --list-mechanisms`", "complete_hints::another_programs_command_gets_module_and_slot"),
    ("`ldd -r`", "host_hints::the_hint_inspects_a_module_that_the_host_cannot_load"),
    ("`mount -o remount,exec", "host_hints::a_file_system_without_execution_is_remounted_by_the_hint"),
    ("`apt-file search {library}`", "untried: it asks an index on the network"),
    ("`ldconfig -p | grep -F {}`", "untried: the loader of glibc names each library by its path"),
    ("`ls -lL {}`", "host_hints::commands_that_show_the_cause_run_and_show_it"),
    ("with `chmod` or `setfacl`", "untried: which rights are right is the owner's choice"),
];

#[test]
fn every_command_in_a_message_has_a_trial() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("src")];
    let (mut used, mut found, mut untried) = (vec![false; TRIALS.len()], 0, Vec::<String>::new());
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.strip_prefix(root).unwrap().display().to_string();
        // Help and manual have examples. `complete_hints` has commands of its own.
        let is_left_out = [
            "src/cba/login_request.rs",
            "src/commands/completions.rs",
            "src/cli.rs",
            "src/cli/manual_page.rs",
            "src/session/complete_hints.rs",
            "src/commands/complete_hints.rs",
        ];
        let is_tests = name.ends_with("/tests.rs");
        if !name.ends_with(".rs") || is_tests || is_left_out.contains(&name.as_str()) {
            continue;
        }
        for literal in literals(&fs::read_to_string(&path).unwrap()).iter().filter(|literal| has_command(literal)) {
            found += 1;
            let trials: Vec<usize> = (0..TRIALS.len()).filter(|at| literal.contains(TRIALS[*at].0)).collect();
            if trials.is_empty() {
                untried.push(format!("{name}: {literal}"));
            }
            trials.iter().for_each(|at| used[*at] = true);
        }
    }
    assert!(untried.is_empty(), "commands that no trial runs (see TRIALS in tests/e2e/hint_trials.rs): {untried:#?}");
    assert!(found > 50, "{found}");
    for ((part, trial), used) in TRIALS.iter().zip(used) {
        assert!(used, "no message has '{part}' any more");
        if let Some((file, test)) = trial.split_once("::") {
            let places = [format!("tests/e2e/{file}.rs"), format!("src/session/{file}.rs")];
            let there = places.iter().filter_map(|place| fs::read_to_string(root.join(place)).ok());
            assert!(there.into_iter().any(|text| text.contains(&format!("fn {test}"))), "{trial} is not there");
        } else {
            assert!(trial.starts_with("untried: "), "{trial}");
        }
    }
}

/// The string literals of a file, without its tests and comments.
fn literals(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let (mut found, mut literal, mut escaped) = (Vec::new(), None::<String>, false);
    let mut characters = code.chars().peekable();
    while let Some(c) = characters.next() {
        match (&mut literal, c) {
            (None, '\'') => {
                // A character literal: the quotation mark in '"' does not begin a string.
                let mut ahead = characters.clone();
                if ahead.next() == Some('"') && ahead.next() == Some('\'') {
                    characters.nth(1);
                }
            }
            (None, '"') => literal = Some(String::new()),
            (None, _) => {}
            (Some(text), '\n') if escaped => {
                // A continued line.
                while characters.peek().is_some_and(|c| c.is_whitespace()) {
                    characters.next();
                }
                text.pop();
                escaped = false;
            }
            (Some(text), '"') if !escaped => {
                found.push(std::mem::take(text));
                literal = None;
            }
            (Some(text), c) => {
                text.push(c);
                escaped = c == '\\' && !escaped;
            }
        }
    }
    found
}

/// Whether a text contains a command: a program before an option, a program in backticks, or a program at the
/// beginning.
fn has_command(text: &str) -> bool {
    let is_program = |word: &str| {
        PROGRAMS.contains(&word) || ["/usr/bin", "/usr/sbin"].iter().any(|path| Path::new(path).join(word).is_file())
    };
    let plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
    };
    let words: Vec<&str> = text.split([' ', '\n']).collect();
    let before_option = words.windows(2).any(|pair| {
        let name = pair[0].rsplit(['`', '(', '$']).next().unwrap_or_default();
        let option = pair[1].trim_start_matches('-');
        pair[1].starts_with('-')
            && option.starts_with(|c: char| c.is_ascii_alphabetic())
            && plain(name)
            && is_program(name)
    });
    let in_backticks = text.split('`').skip(1).step_by(2).any(|command| {
        let name = command.split(' ').next().unwrap_or_default();
        plain(name) && is_program(name)
    });
    // "mkdir it first" is English: a command has a path or an option.
    let begins = words[0] != "install"
        && PROGRAMS.contains(&words[0])
        && words.iter().skip(1).any(|word| word.starts_with(['{', '/', '-']));
    let piped = words.windows(2).any(|pair| pair[0] == "|" && PROGRAMS.contains(&pair[1]));
    before_option || in_backticks || begins || piped
}
