//! The document for a terminal: a table without colours.
//!
//! PURE.

use comfy_table::{ContentArrangement, Table, presets};

use super::report::Report;
use super::sections::{Section, first, others};

/// The document as text, without a newline at its end. `width` in columns; `None` is unlimited.
#[must_use]
pub(crate) fn text(report: &Report, width: Option<u16>) -> String {
    let run = &report.run;
    let verdict = if report.refusals.is_empty() { "ALLOWED" } else { "REFUSED" };
    let mut head = vec![format!("Key custody: {verdict}"), report.headline().to_owned()];
    head.extend(report.protection());
    head.push(format!("policy: {}", report.sources()));
    head.push(format!("{} on {}, cba-agent {}", run.time, run.host, run.agent));
    let mut parts = vec![head.join("\n")];
    let reasons = |word: &str, all: &[String]| all.iter().map(|reason| format!("{word}: {reason}")).collect::<Vec<_>>();
    let reasons = [reasons("refused", &report.refusals), reasons("warning", &report.warnings)].concat();
    if !reasons.is_empty() {
        parts.push(reasons.join("\n"));
    }
    parts.extend(first(report).iter().map(|section| facts(section, width)));
    let mut rules = table(width);
    rules.set_header(["Rule", "Verdict", "Meaning, requirement and finding"]);
    for row in &report.rules {
        let description = format!("{}\nrequires: {}; found: {}", row.means, row.requires, row.found);
        rules.add_row([row.rule.as_str(), row.verdict.word(), &description]);
    }
    parts.push(trimmed(&rules));
    parts.extend(others(report).iter().map(|section| facts(section, width)));
    parts.join("\n\n")
}

fn facts(section: &Section, width: Option<u16>) -> String {
    let mut facts = table(width);
    for (name, value) in &section.facts {
        facts.add_row([&format!(" {name}"), value]);
    }
    format!("{}\n{}", section.title, trimmed(&facts))
}

fn table(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table
}

fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
