//! A request as an HTML page for people who paste it: header, body and curl command, each with a copy button, and the age.
//!
//! PURE.

use maud::{Markup, html};

use super::{Format, Request, message};
use crate::certificate::{Certificate, utc};
use crate::html_page::Page;

/// The age in seconds at which the page calls a v2 payload stale. The service's own limit is not documented.
const STALE_AFTER: u64 = 300;

/// The page, ended by a newline.
///
/// # Errors
/// As [`Request::render`].
pub fn page(request: &Request, certificate: &Certificate) -> serde_json::Result<String> {
    let made = request.is_v2().then(|| message::time_of(&request.message())).flatten();
    let email = certificate.emails.first().map_or("no e-mail address in the certificate", String::as_str);
    let parts = [
        ("header", "Header", request.render(Format::Header)?),
        ("body", "Body", request.render(Format::Body)?),
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
