//! HTML pages for people: single files that make no request, work from a file, and can be printed.
//!
//! PURE. The page forbids all requests, and allows only its own script.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

/// The parts of a page. Style and script are constants of this program.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub title: &'a str,
    /// Its style, in addition to the common style.
    pub style: &'static str,
    /// The only allowed script.
    pub script: Option<&'static str>,
    pub body: Markup,
}

impl Page<'_> {
    /// The document, ended by a newline.
    #[must_use]
    pub(crate) fn render(self) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page(script: Option<&'static str>) -> String {
        Page { title: "a < b", style: "p { color: red }", script, body: html! { p { "<script>" } } }.render()
    }

    #[test]
    fn a_page_forbids_requests_and_every_script_except_its_own() {
        let plain = page(None);
        assert!(plain.starts_with("<!DOCTYPE html><html lang=\"en\">") && plain.ends_with("</html>\n"), "{plain}");
        assert!(plain.contains("default-src 'none'; base-uri 'none'") && !plain.contains("script-src"), "{plain}");
        assert!(plain.contains("<title>a &lt; b</title>") && plain.contains("p { color: red }"), "{plain}");
        assert!(plain.contains("<p>&lt;script&gt;</p>") && !plain.contains("<script"), "{plain}");
        let scripted = page(Some("alert(1 < 2)"));
        let digest = STANDARD.encode(Sha256::digest("alert(1 < 2)"));
        assert!(scripted.contains(&format!("; script-src 'sha256-{digest}'")), "{scripted}");
        assert!(scripted.contains("<script>alert(1 < 2)</script>"), "{scripted}");
    }
}
