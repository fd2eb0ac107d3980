//! A request as an HTML page for people who paste it: header, body and curl command, each with a copy button, and the age.
//!
//! PURE.

use maud::{Markup, html};

use super::{LoginRequest, RequestFormat, message};
use crate::certificate::{Certificate, utc};
use crate::html_page::Page;

/// The age in seconds at which the page calls a v2 payload stale. The service's own limit is not documented.
const STALE_AFTER: u64 = 300;

/// The page, ended by a newline.
pub(crate) fn page(request: &LoginRequest, certificate: &Certificate) -> serde_json::Result<String> {
    let made = request.is_v2().then(|| message::time_of(&request.message())).flatten();
    let email = certificate.emails.first().map_or("no e-mail address in the certificate", String::as_str);
    let parts = [
        ("header", "Header", request.render(RequestFormat::Header)?),
        ("body", "Body", request.render(RequestFormat::Body)?),
        ("curl", "curl command", request.curl_command()?),
    ];
    let body = html! {
        header class="age" data-made=[made] data-stale=(STALE_AFTER) {
            p class="kicker" { "Anaplan login with a certificate" }
            h1 { (email) }
            p { (freshness(made, certificate)) }
        }
        main {
            dl {
                div { dt { "method" } dd { code { "POST" } } }
                div { dt { "URL" } dd { code { (request.url()) } } }
                div { dt { "content type" } dd { code { "application/json" } } }
                div { dt { "certificate" } dd { (certificate.subject) } }
                div { dt { "valid until" } dd { time datetime=(utc(certificate.not_after)) { (utc(certificate.not_after)) } } }
            }
            @for (id, title, text) in &parts {
                section {
                    h2 { (title) }
                    button type="button" data-of=(id) aria-label=(format!("Copy {title}")) { "Copy" }
                    pre id=(id) tabindex="0" { (text) }
                }
            }
            p role="status" id="said" {}
        }
        footer {
            p { "Signed inside the token. Nothing here leaves this page, and no private key is in it." }
        }
    };
    let (style, script) = (include_str!("login_page.css"), Some(include_str!("login_page.js")));
    Ok(Page { title: "Anaplan login request", style, script, body }.render())
}

fn freshness(made: Option<u64>, certificate: &Certificate) -> Markup {
    html! {
        @if let Some(made) = made {
            "A v2 payload for one login, made " time datetime=(utc(made)) { (utc(made)) }
            b id="age" {}
        } @else {
            b { "A v1 payload: anybody who has it can log in with it until " (utc(certificate.not_after)) ". Protect it like a password." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cba::{AuthUrl, VerifiedPayload, Version};
    use crate::certificate::HeaderEncoding;
    use crate::certificate::tests::leaf;

    fn shown(version: Version, certificate: &Certificate) -> String {
        let message = [&1_750_736_826_u64.to_be_bytes()[..], &[7; 92]].concat();
        let sent = VerifiedPayload::of_test(version, &message, &[2; 256]);
        let request = LoginRequest::new(&AuthUrl::default(), (certificate, HeaderEncoding::Der), &sent);
        page(&request, certificate).unwrap()
    }

    #[test]
    fn a_page_shows_header_body_and_command_and_how_old_they_are() {
        let page = shown(Version::V2, &leaf());
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"), "{page}");
        for part in [
            "integration@example.com",
            "data-made=\"1750736826\" data-stale=\"300\"",
            "2025-06-24T03:47:06Z",
            "id=\"header\" tabindex=\"0\">Authorization: CACertificate MII",
            "id=\"curl\" tabindex=\"0\">curl -X POST",
            "Copy Body",
            "script-src 'sha256-",
            "default-src 'none'",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("A v1 payload"));
    }

    #[test]
    fn a_v1_page_has_no_age_and_warns() {
        let mut certificate = leaf();
        certificate.emails.clear();
        let page = shown(Version::V1, &certificate);
        assert!(
            page.contains("A v1 payload: anybody who has it") && page.contains(&utc(certificate.not_after)),
            "{page}"
        );
        assert!(!page.contains("data-made") && page.contains("no e-mail address in the certificate"), "{page}");
    }
}
