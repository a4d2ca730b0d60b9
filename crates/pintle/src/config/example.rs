//! The configuration as text for people: the example file, the reference page, and what is in force.

use super::declare::{Applies, Key};
use super::keys::{self, Config, RuntimeHandler, SECTIONS};
use super::read::VERSION;

/// A file with every setting explained and commented out at its default: as it stands it changes nothing.
pub fn example() -> String {
    let mut out = format!(
        "# Pintle's configuration. Every setting is optional and shown with its default.\n\
         # Files config.d/*.toml beside this one are read after it, by name; a later setting wins, and a list replaces a list.\n\
         # `systemctl reload pintle` (SIGHUP) applies what does not say \"at a restart\".\n\n\
         # The version of this file's format.\n\
         # version = {VERSION}\n"
    );
    let keys = keys::keys();
    let values = keys::written(&Config::default());
    for (section, doc) in SECTIONS {
        out += &format!("\n{}\n# [{section}]\n", commented(doc));
        for (key, value) in keys.iter().zip(&values).filter(|(key, _)| key.section == *section) {
            out += &one(key, value);
        }
    }
    out += &format!("\n{}\n# [runtimes.NAME]\n", commented(RuntimeHandler::DOC));
    for (key, value) in RuntimeHandler::keys().iter().zip(RuntimeHandler::default().written()) {
        out += &one(key, &value);
    }
    out
}

fn one(key: &Key, value: &str) -> String {
    let when = match key.applies {
        Applies::OnReload => "",
        Applies::AtRestart => " A change takes hold at a restart.",
    };
    format!("\n{}\n# Takes {}.{when}\n# {} = {value}\n", commented(key.doc), key.takes, key.name)
}

/// The reference page: a table for each section, in Markdown.
pub fn reference() -> String {
    let keys = keys::keys();
    let values = keys::written(&Config::default());
    let mut out = String::new();
    for (section, doc) in SECTIONS {
        out += &head(section, doc);
        for (key, value) in keys.iter().zip(&values).filter(|(key, _)| key.section == *section) {
            out += &row(key, value);
        }
        out.push('\n');
    }
    out += &head("runtimes.NAME", RuntimeHandler::DOC);
    for (key, value) in RuntimeHandler::keys().iter().zip(RuntimeHandler::default().written()) {
        out += &row(key, &value);
    }
    out
}

fn head(section: &str, doc: &[&str]) -> String {
    let columns = "| setting | default | what it is | takes | a change applies |\n|---|---|---|---|---|\n";
    format!("## `[{section}]`\n\n{}\n\n{columns}", flowing(doc))
}

fn row(key: &Key, value: &str) -> String {
    let when = match key.applies {
        Applies::OnReload => "on reload",
        Applies::AtRestart => "at a restart",
    };
    format!("| `{}` | `{value}` | {} | {} | {when} |\n", key.name, flowing(key.doc), key.takes)
}

impl Config {
    /// The configuration in force, as a file that would say the same.
    pub fn to_toml(&self) -> String {
        let keys = keys::keys();
        let values = keys::written(self);
        let mut out = format!("version = {VERSION}\n");
        for (section, _) in SECTIONS {
            out += &format!("\n[{section}]\n");
            for (key, value) in keys.iter().zip(&values).filter(|(key, _)| key.section == *section) {
                out += &format!("{} = {value}\n", key.name);
            }
        }
        for (name, handler) in &self.runtimes {
            out += &format!("\n[runtimes.{name}]\n");
            for (key, value) in RuntimeHandler::keys().iter().zip(handler.written()) {
                out += &format!("{} = {value}\n", key.name);
            }
        }
        out
    }
}

fn commented(doc: &[&str]) -> String {
    doc.iter().map(|line| format!("#{line}")).collect::<Vec<_>>().join("\n")
}

fn flowing(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
