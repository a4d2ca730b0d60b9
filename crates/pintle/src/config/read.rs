//! One configuration file's text, read onto a configuration.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Place, Problem};
use super::keys::{self, Config, RuntimeHandler, SECTIONS};
use super::nearest::nearest;
use super::shape::{HandlerName, describe};

/// The newest version of the file format that is understood. A file without `version` is of this one.
pub(super) const VERSION: u32 = 1;

/// Sets on `config` what `text` says. What is wrong is added to `problems`; what is right is set all the same.
pub(super) fn read(config: &mut Config, file: &Path, text: &str, problems: &mut Vec<Problem>) {
    let reading = Reading { file, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // After a syntax error a key may seem to stand in another table, so only the errors themselves are told, and not a flood of them.
        problems.extend(errors.iter().take(10).map(|error| reading.syntax(error)));
        return;
    }
    let table = table.into_inner();
    if let Some(problem) = reading.version(&table) {
        problems.push(problem);
        return;
    }
    for (name, value) in in_order(&table) {
        if name.get_ref() != "version" {
            reading.section(config, name, value, problems);
        }
    }
}

type Entry<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

/// The entries as the file has them; the map sorts them by name.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<Entry<'_, '_>> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

struct Reading<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Reading<'_> {
    fn section(
        &self,
        config: &mut Config,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        problems: &mut Vec<Problem>,
    ) {
        let place = self.place(name.span().start);
        let section = name.get_ref().as_ref();
        if section == "runtimes" {
            return self.handlers(config, place, value, problems);
        }
        let known = SECTIONS.iter().any(|(known, _)| *known == section);
        let Some(table) = value.get_ref().as_table() else {
            problems.push(match known {
                true => Problem::WrongValue {
                    place,
                    key: section.to_owned(),
                    takes: format!("a table, begun by a line `[{section}]`"),
                    found: describe(value.get_ref()),
                    meant: None,
                },
                false => unknown_at_top(place, section),
            });
            return;
        };
        if !known {
            problems.push(unknown_section(place, section));
            return;
        }
        for (key, value) in in_order(table) {
            let name = key.get_ref().as_ref();
            match keys::set(config, section, name, value.get_ref()) {
                Some(Ok(())) => {}
                // The plural is easily forgotten.
                None if section == "runtime" && value.get_ref().as_table().is_some() => {
                    problems.push(Problem::UnknownKey {
                        place: self.place(key.span().start),
                        key: format!("runtime.{}", shortened(name)),
                        meant: Some(format!("a section `[runtimes.{}]`", shortened(name))),
                        known: Vec::new(),
                    });
                }
                None => problems.push(unknown_key(self.place(key.span().start), section, name)),
                Some(Err(refusal)) => problems.push(Problem::WrongValue {
                    place: self.place(value.span().start),
                    key: format!("{section}.{name}"),
                    takes: takes(section, name),
                    found: refusal.found,
                    meant: refusal.meant,
                }),
            }
        }
    }

    fn handlers(
        &self,
        config: &mut Config,
        place: Place,
        value: &Spanned<DeValue<'_>>,
        problems: &mut Vec<Problem>,
    ) {
        let no_table = |place, key: &str, value: &DeValue<'_>| Problem::WrongValue {
            place,
            key: key.to_owned(),
            takes: "tables, each begun by a line `[runtimes.NAME]`".into(),
            found: describe(value),
            meant: None,
        };
        let Some(table) = value.get_ref().as_table() else {
            return problems.push(no_table(place, "runtimes", value.get_ref()));
        };
        for (name, value) in in_order(table) {
            let (place, name) = (self.place(name.span().start), name.get_ref().as_ref());
            match value.get_ref().as_table() {
                None => problems.push(no_table(place, "runtimes", value.get_ref())),
                Some(_) if !HandlerName::is_one(name) => {
                    problems.push(Problem::HandlerName { place, name: shortened(name) });
                }
                Some(table) => self.handler(config, name, table, problems),
            }
        }
    }

    fn handler(&self, config: &mut Config, name: &str, table: &DeTable<'_>, problems: &mut Vec<Problem>) {
        let handler = config.runtimes.entry(name.to_owned()).or_default();
        for (key, value) in in_order(table) {
            let setting = key.get_ref().as_ref();
            let known = RuntimeHandler::keys();
            match handler.set(setting, value.get_ref()) {
                Some(Ok(())) => {}
                None => problems.push(Problem::UnknownKey {
                    place: self.place(key.span().start),
                    key: format!("runtimes.{name}.{}", shortened(setting)),
                    meant: nearest(setting, known.iter().map(|key| key.name)).map(|name| format!("`{name}`")),
                    known: known.iter().map(|key| format!("`{}`", key.name)).collect(),
                }),
                Some(Err(refusal)) => problems.push(Problem::WrongValue {
                    place: self.place(value.span().start),
                    key: format!("runtimes.{name}.{setting}"),
                    takes: known
                        .into_iter()
                        .find(|key| key.name == setting)
                        .map(|key| key.takes)
                        .unwrap_or_default(),
                    found: refusal.found,
                    meant: refusal.meant,
                }),
            }
        }
    }

    fn version(&self, table: &DeTable<'_>) -> Option<Problem> {
        let value = table.get("version")?;
        let place = self.place(value.span().start);
        let number = value.get_ref().as_integer();
        match number.map(|n| u64::from_str_radix(n.as_str(), n.radix())) {
            Some(Ok(n)) if (1..=u64::from(VERSION)).contains(&n) => None,
            Some(Ok(n)) if n > u64::from(VERSION) => {
                Some(Problem::FromTheFuture { place, found: n.to_string(), newest: VERSION })
            }
            _ => Some(Problem::WrongValue {
                place,
                key: "version".into(),
                takes: format!("the number {VERSION}"),
                found: describe(value.get_ref()),
                meant: None,
            }),
        }
    }

    fn syntax(&self, error: &toml::de::Error) -> Problem {
        let at = error.span().map_or(0, |span| span.start);
        Problem::Syntax { place: self.place(at), why: error.message().trim().replace('\n', ", ") }
    }

    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

fn takes(section: &str, name: &str) -> String {
    let key = keys::keys().into_iter().find(|key| key.section == section && key.name == name);
    key.map(|key| key.takes).unwrap_or_default()
}

/// A key outside any section. If a section has it, that is what was meant.
fn unknown_at_top(place: Place, key: &str) -> Problem {
    let keys = keys::keys();
    let names = keys.iter().map(|key| key.name);
    let meant = nearest(key, names).and_then(|name| keys.iter().find(|key| key.name == name));
    let meant = meant.map(|key| format!("`{}` in the section `[{}]`", key.name, key.section));
    let known = SECTIONS.iter().map(|(section, _)| format!("`[{section}]`")).collect();
    Problem::UnknownKey { place, key: shortened(key), meant, known }
}

fn unknown_section(place: Place, section: &str) -> Problem {
    let names = SECTIONS.iter().map(|(name, _)| *name).chain(["runtimes"]);
    let meant = nearest(section, names).map(|name| format!("`[{name}]`"));
    let known = SECTIONS.iter().map(|(section, _)| format!("`[{section}]`")).collect();
    Problem::UnknownSection { place, section: shortened(section), meant, known }
}

/// A key that its section does not have: the nearest there, else the nearest of any section.
fn unknown_key(place: Place, section: &str, key: &str) -> Problem {
    let keys = keys::keys();
    let here = || keys.iter().filter(|key| key.section == section).map(|key| key.name);
    let meant = nearest(key, here()).map(|name| format!("`{name}`")).or_else(|| {
        let name = nearest(key, keys.iter().map(|key| key.name))?;
        let key = keys.iter().find(|key| key.name == name)?;
        Some(format!("`{}` in the section `[{}]`", key.name, key.section))
    });
    let known = here().map(|name| format!("`{name}`")).collect();
    Problem::UnknownKey { place, key: format!("{section}.{}", shortened(key)), meant, known }
}

fn shortened(name: &str) -> String {
    let mut short: String = name.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
    if name.chars().nth(64).is_some() {
        short.push('…');
    }
    short
}
