//! The document as one HTML page for an auditor's folder: no script, no request, and printable.
//!
//! PURE. The template escapes every text.

use maud::{Markup, html};

use super::report::{CertificateReport, Report};
use super::rule_result::RuleVerdict;
use super::sections::{Section, first, others};
use crate::certificate::CertificateSummary;
use crate::html_page::Page;

/// The page, ended by a newline.
#[must_use]
pub(crate) fn html(report: &Report) -> String {
    let run = &report.run;
    let title = format!("Key custody of {}: {}", run.host, report.headline());
    let body = html! {
        header class=(report.verdict) {
            p class="kicker" { "Key custody" }
            h1 { (report.headline()) }
            @if let Some(protection) = report.protection() { p class="protection" { (protection) } }
            p { "Policy: " (report.sources()) }
            p { time datetime=(run.time) { (run.time) } " on " b { (run.host) } ", by cba-agent " (run.agent) }
        }
        main {
            (reasons("Refused because", &report.refusals, "broken"))
            (reasons("Warnings", &report.warnings, "warning"))
            div class="facts" { @for section in first(report) { (facts(&section)) } }
            @if let Some(certificate) = &report.certificate { (time_line(certificate, run.now)) }
            (rules(report))
            div class="facts" { @for section in others(report) { (facts(&section)) } }
        }
        footer {
            p {
                "These values come from the token, through the module named above. A module can report false values; an "
                "attestation that chains to its maker's root is the stronger proof. A value that the token does not report is not proven."
            }
        }
    };
    Page { title: &title, style: include_str!("page.css"), script: None, body }.render()
}

fn reasons(title: &str, all: &[String], class: &str) -> Markup {
    html! {
        @if !all.is_empty() {
            section class=(format!("reasons {class}")) {
                h2 { (title) }
                ul { @for reason in all { li { (reason) } } }
            }
        }
    }
}

fn rules(report: &Report) -> Markup {
    let class = |verdict| match verdict {
        RuleVerdict::Holds => "holds",
        RuleVerdict::Warning => "warning",
        RuleVerdict::Broken => "broken",
        RuleVerdict::NotRequired | RuleVerdict::NotRead => "quiet",
    };
    html! {
        section {
            h2 { "Rules" }
            table {
                thead { tr { th scope="col" { "Rule" } th scope="col" { "Verdict" } th scope="col" { "Requires" } th scope="col" { "Found" } } }
                tbody {
                    @for row in &report.rules {
                        tr class=(class(row.verdict)) {
                            th scope="row" { (row.means) br; code { (row.rule) } }
                            td { span class="verdict" { (row.verdict.word()) } }
                            td data-name="requires" { (row.requires) }
                            td data-name="found" { (row.found) }
                        }
                    }
                }
            }
        }
    }
}

fn facts(section: &Section) -> Markup {
    html! {
        section {
            h2 { (section.title) }
            dl {
                @for (name, value) in &section.facts {
                    div { dt { (name) } dd { (value) } }
                }
            }
        }
    }
}

/// The certificate's validity and today on a time line, in days.
fn time_line(certificate: &CertificateReport, now: u64) -> Markup {
    let (start, end) = certificate.validity;
    let CertificateSummary { not_before, not_after, .. } = &certificate.summary;
    // A faulty certificate may end before it begins.
    let (first, last) = (start.min(end).min(now), end.max(start).max(now));
    // Keep today's mark away from the ends, so that it is visible.
    let at = |time: u64| 2.0 + 96.0 * share(time - first, last - first);
    let (from, to, today) = (at(start), at(end), at(now));
    let days = |seconds: u64| seconds / 86_400;
    let words = if end < start {
        "never valid".to_owned()
    } else if now < start {
        format!("not valid for another {} days", days(start - now))
    } else if now > end {
        format!("ended {} days ago", days(now - end))
    } else {
        format!("{} of {} days left", days(end - now), days(end - start))
    };
    let percent = |value: f64| format!("{value:.2}%");
    let is_inside = (start..=end).contains(&now);
    html! {
        section {
            h2 { "Validity" }
            figure class="time" {
                svg role="img" aria-label=(format!("valid from {} until {}: {words}", not_before, not_after)) {
                    line class="axis" x1="0" x2="100%" y1="26" y2="26" {}
                    rect class="valid" x=(percent(from)) width=(percent((to - from).max(0.0))) y="18" height="16" rx="3" {}
                    @if is_inside {
                        rect class="past" x=(percent(from)) width=(percent(today - from)) y="18" height="16" rx="3" {}
                    }
                    line class="today" x1=(percent(today)) x2=(percent(today)) y1="10" y2="42" {}
                    text x=(percent(today)) y="8" text-anchor=(anchor(today)) { "today" }
                }
                figcaption {
                    span { time datetime=(not_before) { (day(not_before)) } }
                    b { (words) }
                    span { time datetime=(not_after) { (day(not_after)) } }
                }
            }
        }
    }
}

fn anchor(percent: f64) -> &'static str {
    if percent < 10.0 {
        "start"
    } else if percent > 90.0 {
        "end"
    } else {
        "middle"
    }
}

fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}

#[allow(clippy::cast_precision_loss, reason = "a place on a line of a few hundred pixels")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / (whole.max(1)) as f64
}

#[cfg(test)]
mod tests {
    use super::super::{Criteria, Evidence, KeyEvidence, PolicySources, TrustedRoots};
    use super::*;
    use crate::cba::Version;
    use crate::certificate::{Certificate, tests::leaf};
    use crate::facts::{KeyClass, KeyDetail, KeyObject, Library, Mechanism};
    use crate::policy::{PayloadChoice, Policy};

    fn page(certificate: Certificate, label: &str, now: u64) -> String {
        let key = KeyObject {
            label: label.into(),
            id: vec![1],
            modulus: certificate.modulus.clone(),
            sign: Some(true),
            sensitive: Some(true),
            extractable: Some(false),
            ..KeyObject::unreported(0, KeyClass::Private)
        };
        let key_evidence = KeyEvidence {
            key,
            detail: KeyDetail::default(),
            copies: Vec::new(),
            certificate,
            from_file: false,
            mechanism: Mechanism::Sha512RsaPkcs,
            others: vec![b"\x30".to_vec()],
            same_id: Vec::new(),
            unreadable: Vec::new(),
        };
        let evidence = Evidence {
            module: "/m.so".into(),
            module_sha256: None,
            module_open: None,
            confinement: None,
            library: Library::default(),
            token: None,
            key: Some(key_evidence),
        };
        let (policy, trusted_roots) = (Policy::default(), TrustedRoots::default());
        let choice = PayloadChoice { version: Version::V2, by_flag: false };
        let sources = PolicySources::default();
        let criteria =
            Criteria { policy: &policy, sources, choice, trusted_roots: &trusted_roots, now, host: "h".into() };
        html(&Report::new(&evidence, &criteria))
    }

    #[test]
    fn text_of_a_token_stays_text() {
        let page = page(leaf(), "<script>alert(1)</script>\u{1b}\u{202e}&", 0);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
        assert!(!page.contains(['\u{1b}', '\u{202e}']));
    }

    #[test]
    fn the_time_line_fits_any_times() {
        let mut certificate = leaf();
        let (start, end) = (certificate.not_before, certificate.not_after);
        for (now, words) in [
            (0, "not valid for another"),
            (start, "days left"),
            (end, "0 of"),
            (end + 86_400 * 3, "ended 3 days ago"),
            (u64::MAX / 2, "ended"),
        ] {
            assert!(page(certificate.clone(), "", now).contains(words), "{now}");
        }
        (certificate.not_before, certificate.not_after) = (end, start);
        for now in [0, start, start + 1, end, end + 1] {
            assert!(page(certificate.clone(), "", now).contains("never valid"), "{now}");
        }
    }

    #[test]
    fn marks_stand_at_their_share_and_texts_stay_inside() {
        assert_eq!([share(0, 4), share(1, 4), share(4, 4), share(0, 0)], [0.0, 0.25, 1.0, 0.0]);
        for (percent, wanted) in
            [(2.0, "start"), (9.9, "start"), (10.0, "middle"), (90.0, "middle"), (90.1, "end"), (98.0, "end")]
        {
            assert_eq!(anchor(percent), wanted, "{percent}");
        }
        assert_eq!((day("2026-01-02T03:04:05Z"), day("x")), ("2026-01-02", "x"));
        let mut certificate = leaf();
        certificate.not_after = certificate.not_before;
        let now = certificate.not_before;
        assert!(page(certificate.clone(), "", now).contains("0 of 0 days left"));
        certificate.not_after -= 1;
        assert!(page(certificate, "", now).contains("never valid"));
    }
}
