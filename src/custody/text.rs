//! The document for a terminal: a calm table, and no colours.
//!
//! PURE.

use comfy_table::{ContentArrangement, Table, presets};

use super::Report;
use super::sections::sections;

/// The document as text, without a newline at its end; `width` in columns, unlimited where `None`.
#[must_use]
pub fn text(report: &Report, width: Option<u16>) -> String {
    let run = &report.run;
    let mut parts = vec![format!(
        "Key custody: {}\n{} on {}, cba-agent {}",
        report.verdict.to_uppercase(),
        run.time,
        run.host,
        run.agent
    )];
    let reasons = |word: &str, all: &[String]| all.iter().map(|one| format!("{word}: {one}")).collect::<Vec<_>>();
    let reasons = [reasons("refused", &report.refusals), reasons("warning", &report.warnings)].concat();
    if !reasons.is_empty() {
        parts.push(reasons.join("\n"));
    }
    let mut rules = table(width);
    rules.set_header(["Rule", "Verdict", "Asks for", "Found"]);
    for row in &report.rules {
        rules.add_row([row.rule.as_str(), row.verdict.word(), &row.asks, &row.found]);
    }
    parts.push(trimmed(&rules));
    for section in sections(report) {
        let mut facts = table(width);
        for (name, value) in &section.facts {
            facts.add_row([&format!(" {name}"), value]);
        }
        parts.push(format!("{}\n{}", section.title, trimmed(&facts)));
    }
    parts.join("\n\n")
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
