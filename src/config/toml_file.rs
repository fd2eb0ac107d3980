//! The TOML file: only known keys, each with its line.
//!
//! Runs in the parent. Parsers quote the wrong text in their messages. This text could be a PIN, so errors only name the place.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::keys::{KEYS, Shape};
use super::origin::{Origin, Setting};

pub(crate) fn parse(path: &str, text: &str) -> Result<BTreeMap<&'static str, Setting>, ConfigError> {
    let place = |offset: usize| text.get(..offset).unwrap_or(text).matches('\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: place(error.span().map_or(0, |span| span.start)),
        what: "this is not TOML (strings need quotes; each key may appear only once)".into(),
    })?;
    let mut file = File { path, place: &place, settings: BTreeMap::new() };
    file.table("", table.get_ref())?;
    Ok(file.settings)
}

struct File<'a> {
    path: &'a str,
    place: &'a dyn Fn(usize) -> usize,
    settings: BTreeMap<&'static str, Setting>,
}

impl File<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let line = (self.place)(name.span().start);
            let key = format!("{prefix}{}", name.get_ref());
            let below = format!("{key}.");
            if let (DeValue::Table(inner), true) =
                (value.get_ref(), KEYS.iter().any(|known| known.path.starts_with(&below)))
            {
                self.table(&below, inner)?;
                continue;
            }
            let wrong = |wanted: &str| ConfigError::Value {
                by_flag: false,
                origin: format!("{} line {line}: {key}", self.path),
                wanted: wanted.into(),
            };
            let Some(known) = KEYS.iter().find(|known| known.path == key) else {
                // A PIN instead of the table has a hint of its own.
                if key != "pin" && KEYS.iter().any(|known| known.path.starts_with(&below)) {
                    return Err(wrong(&format!("must be a table: a line [{key}], and its keys below")));
                }
                return Err(ConfigError::UnknownKey { path: self.path.to_owned(), line, key: shown(&key) });
            };
            let (values, wanted) = match known.shape {
                Shape::Text => (one_text(value.get_ref()), "must be a string in quotes"),
                Shape::Number => (number(value.get_ref()), "must be a whole number"),
                Shape::List => (strings(value.get_ref()), "must be an array of strings"),
            };
            let values = values.ok_or_else(|| wrong(wanted))?;
            let origin = Origin::File { path: self.path.to_owned(), line };
            self.settings.insert(known.path, Setting { values, origin });
        }
        Ok(())
    }
}

/// The name of a key, if it can be one.
fn shown(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if key.chars().all(plain) && key.len() <= 64 { key.to_owned() } else { "(not shown)".into() }
}

fn one_text(value: &DeValue<'_>) -> Option<Vec<String>> {
    value.as_str().map(|text| vec![text.to_owned()])
}

fn number(value: &DeValue<'_>) -> Option<Vec<String>> {
    match value {
        DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Some(vec![number.to_string()]),
            // A negative or huge one: the error names the range of the key.
            Err(_) if number.radix() == 10 => Some(vec![number.as_str().to_owned()]),
            Err(_) => None,
        },
        other => one_text(other),
    }
}

fn strings(value: &DeValue<'_>) -> Option<Vec<String>> {
    let DeValue::Array(items) = value else { return None };
    items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_key_is_read_with_its_line() {
        let text = "module = \"softhsm2\"\n[token]\nslot = 0x10\n[policy]\nrequire = [\"local\"]\n";
        let settings = parse("c", text).unwrap();
        assert_eq!(settings["module"].values, ["softhsm2"]);
        assert_eq!(settings["token.slot"].values, ["16"]);
        assert_eq!(settings["policy.require"].origin, Origin::File { path: "c".into(), line: 5 });
    }

    #[test]
    fn unknown_keys_are_named_with_their_line_and_no_value_is_repeated() {
        for text in [
            "\n[pin]\nsource = SECRET1\n",
            "\n[pin]\nvalue = \"SECRET1\"\n",
            "\npin = \"SECRET1\"\n",
            "\npin = 5\n[token]\nlabel = [\"SECRET1\"]\n",
            "\n[pin]\nsource = [\"SECRET1\"]\n",
            "\n[token]\nslot = \"x\"\nslot = \"SECRET1\"\n",
        ] {
            let error = crate::error::Error::from(parse("c.toml", text).unwrap_err()).to_string();
            assert!(error.contains("c.toml line "), "{error}");
            assert!(!error.contains("SECRET1"), "{error}");
        }
        let error = parse("c.toml", "\n\n[token]\nserail = \"1\"\n").unwrap_err().to_string();
        assert_eq!(error, "c.toml line 4: there is no key 'token.serail'");
    }

    proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(text in "\\PC*") {
            let _ = parse("c", &text);
        }
    }
}
