//! Pages for people: one file each, that asks for nothing, works from a file and prints.
//!
//! PURE. The page itself forbids whatever would leave it; of scripts, only the one that it was made with may run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

/// What a page is made of; style and script are texts of this program.
#[derive(Debug)]
pub struct Page<'a> {
    /// The title.
    pub title: &'a str,
    /// Style beside the one that all pages share.
    pub style: &'static str,
    /// The one script that may run.
    pub script: Option<&'static str>,
    /// What is in it.
    pub body: Markup,
}

impl Page<'_> {
    /// The document, ended by a newline.
    #[must_use]
    pub fn render(self) -> String {
        let script =
            self.script.map(|script| format!("; script-src 'sha256-{}'", STANDARD.encode(Sha256::digest(script))));
        let forbidden = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'";
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(format!("{forbidden}{}", script.unwrap_or_default()));
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="referrer" content="no-referrer";
                    meta name="generator" content=(concat!("cba-agent ", env!("CARGO_PKG_VERSION")));
                    title { (self.title) }
                    style { (PreEscaped(include_str!("html_page/base.css"))) (PreEscaped(self.style)) }
                }
                body { (self.body) @if let Some(script) = self.script { script { (PreEscaped(script)) } } }
            }
        };
        page.into_string() + "\n"
    }
}
