//! Words for a shell: quoted values, the commands in a hint, and values that a shell should have expanded.
//!
//! PURE.

/// Quotes a text for a POSIX shell. Plain words stay unchanged; `Jo's pin` becomes `'Jo'\''s pin'`.
#[must_use]
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    // A first `=` or `%` is special in zsh and for jobs; a first `-` would be an option.
    let starts_plain = !text.starts_with(['=', '%', '-']);
    if !text.is_empty() && starts_plain && text.chars().all(is_plain) {
        return text.to_owned();
    }
    always_quoted(text)
}

/// The same, with quotes around plain words too.
#[must_use]
pub fn always_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The same for a path, which must not look like an option.
#[must_use]
pub(crate) fn quoted_path(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    quoted(&if text.starts_with('-') { format!("./{text}") } else { text })
}

/// Replaces each command in a hint, which is in backticks, by the result of `complete`.
pub(crate) fn in_commands(hint: &str, complete: impl Fn(&str) -> String) -> String {
    let part = |(at, part): (usize, &str)| if at % 2 == 1 { complete(part) } else { part.to_owned() };
    hint.split('`').enumerate().map(part).collect::<Vec<_>>().join("`")
}

/// The part of a path that a shell or systemd would have expanded: `~`, `$` or `%`.
#[must_use]
pub(crate) fn unexpanded(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    let begins_a_name = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'{');
    let has_variable = || bytes.windows(2).any(|pair| pair[0] == b'$' && begins_a_name(&pair[1]));
    let has_specifier = || bytes.first() == Some(&b'%') && bytes.get(2) == Some(&b'/');
    match bytes.first() {
        Some(b'~') => Some("~"),
        _ if has_variable() => Some("$"),
        _ if has_specifier() => Some("%"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_a_shell_or_systemd_would_expand_counts_as_unexpanded() {
        for text in ["~/pin", "~root/pin", "$HOME/pin", "/a/${HOME}/pin", "%h/pin", "%d/pin"] {
            assert!(unexpanded(text).is_some(), "{text}");
        }
        for text in ["/a~/pin", "/price$", "/a/$5", "100%/x", "/%h/x", ""] {
            assert!(unexpanded(text).is_none(), "{text}");
        }
    }

    #[test]
    fn only_plain_words_stay_unquoted() {
        for (text, wanted) in [
            ("/a.b_c-d+e,f:g@h%i=j", "/a.b_c-d+e,f:g@h%i=j"),
            ("", "''"),
            ("=a", "'=a'"),
            ("%a", "'%a'"),
            ("-a", "'-a'"),
            ("a b", "'a b'"),
            ("a;b", "'a;b'"),
            ("ä", "'ä'"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(quoted(text), wanted, "{text}");
        }
        for (path, wanted) in [("-a", "./-a"), ("a", "a"), ("/-a b", "'/-a b'")] {
            assert_eq!(quoted_path(std::path::Path::new(path)), wanted);
        }
    }

    #[test]
    fn only_the_commands_of_a_hint_are_completed() {
        let shout = |command: &str| command.to_uppercase();
        assert_eq!(in_commands("run `a b`, then `c`: d", shout), "run `A B`, then `C`: d");
        assert_eq!((in_commands("`a`", shout), in_commands("a", shout)), ("`A`".into(), "a".into()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_reads_the_same_word_back(text in "[ -~äé\n\t]{0,20}") {
            let script = format!("printf '%s\\0' {}", quoted(&text));
            let out = Command::new("sh").args(["-c", &script]).output().unwrap().stdout;
            prop_assert_eq!(out, format!("{text}\0").into_bytes());
        }
    }
}
