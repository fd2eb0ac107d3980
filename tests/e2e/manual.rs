//! The manual pages, checked by man, groff and mandoc.

use std::fs;
use std::process::Command;

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, Run};

/// The pages in a directory, by name.
fn pages(fixture: &Fixture) -> Vec<(String, String)> {
    fs::create_dir(fixture.path().join("man")).unwrap();
    fixture.run(&["man", &fixture.file("man")]).ok();
    let mut pages: Vec<(String, String)> = fs::read_dir(fixture.path().join("man"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect();
    pages.sort();
    assert!(pages.len() >= 15, "{pages:?}");
    pages
}

/// The output of another program about a page.
fn check_with(fixture: &Fixture, program: &[&str], page: &str) -> Run {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(fixture.file(&format!("man/{page}")));
    command.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80").env("MANROFFOPT", "").env("MANPAGER", "cat");
    Run::from_output((&mut command).finish())
}

#[test]
fn every_page_passes_the_checks_of_man_groff_and_mandoc() {
    let fixture = Fixture::empty();
    for (page, _) in pages(&fixture) {
        for program in [
            &["man", "--warnings", "-E", "UTF-8", "-Tutf8", "-l"][..],
            &["groff", "-ww", "-man", "-Tutf8", "-z"],
            &["mandoc", "-T", "lint", "-W", "style"],
        ] {
            let run = check_with(&fixture, program, &page);
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{program:?} {page}: {run:?}");
            assert!(program[0] != "mandoc" || run.stdout.is_empty(), "{page}: {}", run.stdout);
        }
    }
}

#[test]
fn the_page_of_anaplan_token_passes_them_and_names_each_variable() {
    let fixture = Fixture::empty();
    let root = env!("CARGO_MANIFEST_DIR");
    let page = fs::read_to_string(format!("{root}/deploy/package/anaplan-token.1")).unwrap();
    fs::create_dir(fixture.path().join("man")).unwrap();
    // The date of the build.
    fixture.write("man/anaplan-token.1", page.replacen("\"\"", "2026-01-02", 1));
    for program in [&["groff", "-ww", "-man", "-T", "utf8", "-z"][..], &["mandoc", "-T", "lint", "-W", "style"]] {
        let run = check_with(&fixture, program, "anaplan-token.1");
        assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""), "{program:?}");
    }
    let script = fs::read_to_string(format!("{root}/examples/shell/anaplan-token")).unwrap();
    for name in ["CBA_AGENT", "ANAPLAN_TOKEN_CACHE", "ANAPLAN_CURL_CONFIG", "ANAPLAN_PATIENCE"] {
        assert!(script.contains(name) && page.contains(name), "{name}");
    }
}

#[test]
fn every_page_has_its_sections_and_keeps_the_lines_of_its_examples() {
    let fixture = Fixture::empty();
    for (page, text) in pages(&fixture) {
        let rendered = check_with(&fixture, &["man", "-E", "UTF-8", "-l"], &page).ok();
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "SEE ALSO"]
        {
            assert!(rendered.lines().any(|line| line == section), "{page} has no {section}: {rendered}");
        }
        assert!(!text.contains(".SH EXTRA"), "{page}");
        // `cba-agent-audit-verify.1` is the page of `audit verify`; `pin-fuse` is one word.
        let words =
            page.trim_start_matches("cba-agent").trim_start_matches('-').trim_end_matches(".1").trim_end_matches('.');
        let words = words.replace("pin-fuse", "pin_fuse").replace('-', " ").replace("pin_fuse", "pin-fuse");
        let command: Vec<&str> = words.split_whitespace().chain(["--help"]).collect();
        let help = fixture.run(&command).ok();
        let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
        for example in examples.lines().map(str::trim).filter(|line| !line.is_empty()) {
            assert!(rendered.lines().any(|line| line.trim() == example), "{page}: {example}: {rendered}");
        }
        assert!(page == "cba-agent.1" || !examples.is_empty(), "{page}");
    }
}

#[test]
fn the_pages_name_the_exit_codes_that_the_docs_name() {
    let fixture = Fixture::empty();
    let documented = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/exit-codes.md")).unwrap();
    let rendered = pages(&fixture).into_iter().find(|(page, _)| page == "cba-agent.1").unwrap().1;
    for code in 0..=9 {
        assert!(documented.contains(&format!("\n| {code} | ")), "{code}");
        assert!(rendered.contains(&format!(".TP\n\\fB{code}\\fR\n")), "{code}");
    }
    let sign = check_with(&fixture, &["man", "-E", "UTF-8", "-l"], "cba-agent-sign.1").ok();
    assert!(sign.contains("Never retry this unattended.") && sign.contains("CREDENTIALS_DIRECTORY"), "{sign}");
}
