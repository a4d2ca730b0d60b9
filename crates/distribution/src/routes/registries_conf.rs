//! `registries.conf`, after containers-registries.conf(5): which names a reference stands for. Version 2, and version 1 as far as it can say
//! the same. Pure.

use std::path::Path;

use model::reference::ImageReference;
use toml::de::DeTable;

use super::error::RouteError;
use super::short_names::{Alias, ShortNameMode, ShortNames};
use super::toml::{Text, Value, in_order};
use crate::place::Place;

/// What the file and its drop-ins say together.
#[derive(Debug, Clone, Default)]
pub struct RegistriesConf {
    registries: Vec<Registry>,
    /// What names without a registry stand for.
    pub short_names: ShortNames,
    /// Where credentials are looked for: names of helpers, `containers-auth.json` for the files. None: nothing is said.
    pub credential_helpers: Option<(Vec<String>, Place)>,
    /// Keys that mean nothing to this version.
    pub unknown: Vec<(Place, String)>,
    is_version_1: Option<Place>,
    is_version_2: Option<Place>,
}

/// One `[[registry]]`.
#[derive(Debug, Clone)]
pub struct Registry {
    pub place: Place,
    /// What references it is about begin with; or `*.` and the end of their hosts.
    pub prefix: String,
    /// What stands in the place of the prefix, unless it is empty.
    pub location: String,
    pub insecure: bool,
    pub blocked: bool,
    pub mirrors: Vec<Mirror>,
    mirror_by_digest_only: bool,
}

/// One `[[registry.mirror]]`.
#[derive(Debug, Clone)]
pub struct Mirror {
    pub place: Place,
    pub location: String,
    pub insecure: bool,
    only: Only,
}

/// Which references a mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Only {
    All,
    Digests,
    Tags,
}

/// A name that a reference stands for.
#[derive(Debug, Clone)]
pub struct Source {
    pub reference: ImageReference,
    pub insecure: bool,
    /// Whether it is a copy, and not what the administrator says the registry is.
    pub is_mirror: bool,
    pub place: Place,
}

/// Reads a file's bytes; `file` is what errors call it.
///
/// # Errors
/// [`RouteError`] with the line.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<RegistriesConf, RouteError> {
    let text = Text::new(file, bytes)?;
    let table = text.parse()?;
    let mut conf = RegistriesConf::default();
    for (key, value) in in_order(&table) {
        let place = text.place(key);
        let name = key.get_ref().as_ref();
        match name {
            "registry" => {
                for one in text.array(name, value)? {
                    let registry =
                        registry(text, text.place(one), text.table(name, one)?, &mut conf.unknown)?;
                    conf.registries.push(registry);
                }
                conf.is_version_2 = Some(place);
            }
            "unqualified-search-registries" => {
                conf.short_names.search = Some((hosts(text, name, value)?, place.clone()));
                conf.is_version_2 = Some(place);
            }
            "aliases" => conf.short_names.aliases = aliases(text, value)?,
            "short-name-mode" => {
                let written = text.string(name, value)?;
                let mode = ShortNameMode::parse(written).ok_or_else(|| {
                    let why = format!("{written:?} is none of enforcing, permissive and disabled");
                    RouteError::wrong(place, why)
                })?;
                conf.short_names.mode = Some(mode);
            }
            "credential-helpers" => {
                let names = text.strings(name, value)?.into_iter().map(str::to_owned).collect();
                conf.credential_helpers = Some((names, place));
            }
            "registries" => {
                version_1(text, text.table(name, value)?, &mut conf)?;
                conf.is_version_1 = Some(place);
            }
            other => conf.unknown.push((place, other.to_owned())),
        }
    }
    Ok(conf)
}

fn registry(
    text: Text<'_>,
    place: Place,
    table: &DeTable<'_>,
    unknown: &mut Vec<(Place, String)>,
) -> Result<Registry, RouteError> {
    let mut registry = Registry {
        place,
        prefix: String::new(),
        location: String::new(),
        insecure: false,
        blocked: false,
        mirrors: Vec::new(),
        mirror_by_digest_only: false,
    };
    for (key, value) in in_order(table) {
        let name = key.get_ref().as_ref();
        match name {
            "prefix" => registry.prefix = location(text, name, value)?,
            "location" => registry.location = location(text, name, value)?,
            "insecure" => registry.insecure = text.boolean(name, value)?,
            "blocked" => registry.blocked = text.boolean(name, value)?,
            "mirror-by-digest-only" => registry.mirror_by_digest_only = text.boolean(name, value)?,
            "mirror" => {
                for one in text.array(name, value)? {
                    registry.mirrors.push(mirror(text, text.place(one), text.table(name, one)?, unknown)?);
                }
            }
            "pull-from-mirror" => {
                return Err(RouteError::wrong(text.place(key), "pull-from-mirror belongs to a mirror"));
            }
            other => unknown.push((text.place(key), other.to_owned())),
        }
    }
    if registry.prefix.is_empty() {
        registry.prefix = registry.location.clone();
    }
    if registry.prefix.is_empty() {
        return Err(RouteError::wrong(registry.place, "a registry has neither a prefix nor a location"));
    }
    if registry.location.is_empty() && !registry.prefix.starts_with("*.") {
        let why = format!("the registry with prefix {:?} has no location", registry.prefix);
        return Err(RouteError::wrong(registry.place, why));
    }
    if let Some(mirror) = registry.mirrors.iter_mut().find(|mirror| mirror.only != Only::All)
        && registry.mirror_by_digest_only
    {
        let why = "pull-from-mirror and the registry's mirror-by-digest-only exclude each other";
        return Err(RouteError::wrong(mirror.place.clone(), why));
    }
    Ok(registry)
}

fn mirror(
    text: Text<'_>,
    place: Place,
    table: &DeTable<'_>,
    unknown: &mut Vec<(Place, String)>,
) -> Result<Mirror, RouteError> {
    let mut mirror = Mirror { place, location: String::new(), insecure: false, only: Only::All };
    for (key, value) in in_order(table) {
        let name = key.get_ref().as_ref();
        match name {
            "location" => mirror.location = location(text, name, value)?,
            "insecure" => mirror.insecure = text.boolean(name, value)?,
            "pull-from-mirror" => {
                mirror.only = match text.string(name, value)? {
                    "" | "all" => Only::All,
                    "digest-only" => Only::Digests,
                    "tag-only" => Only::Tags,
                    other => {
                        let why = format!("{other:?} is none of all, digest-only and tag-only");
                        return Err(RouteError::wrong(text.place(value), why));
                    }
                };
            }
            other => unknown.push((text.place(key), other.to_owned())),
        }
    }
    if mirror.location.is_empty() {
        return Err(RouteError::wrong(mirror.place, "a mirror has no location"));
    }
    Ok(mirror)
}

/// `host[:port][/path]`, without a scheme.
fn location(text: Text<'_>, key: &str, value: &Value<'_>) -> Result<String, RouteError> {
    let written = text.string(key, value)?.trim_end_matches('/');
    if written.is_empty() || written.contains("://") {
        let why = format!("{key} takes host[:port][/path], without a scheme, and not {written:?}");
        return Err(RouteError::wrong(text.place(value), why));
    }
    Ok(written.to_owned())
}

/// A list of `host[:port]`.
fn hosts(text: Text<'_>, key: &str, value: &Value<'_>) -> Result<Vec<String>, RouteError> {
    let mut found = Vec::new();
    for one in text.array(key, value)? {
        let host = location(text, key, one)?;
        if host.contains('/') || named(&format!("{host}/x")).is_err() {
            return Err(RouteError::wrong(text.place(one), format!("{host:?} is not host[:port]")));
        }
        found.push(host);
    }
    Ok(found)
}

fn aliases(text: Text<'_>, value: &Value<'_>) -> Result<Vec<Alias>, RouteError> {
    let mut found = Vec::new();
    for (key, value) in in_order(text.table("aliases", value)?) {
        let wrong = |why: String| RouteError::wrong(text.place(key), why);
        let (name, target) = (key.get_ref().as_ref(), text.string("an alias", value)?);
        if !ShortNames::is_short(name) || name.contains([':', '@']) {
            return Err(wrong(format!("{name:?} is no short name: it has a registry, a tag or a digest")));
        }
        // An empty one takes back what an earlier file said.
        if !target.is_empty() && (named(target).is_err() || target.contains('@') || has_tag(target)) {
            return Err(wrong(format!("{target:?} is no whole name of a repository")));
        }
        found.push(Alias { name: name.to_owned(), target: target.to_owned(), place: text.place(key) });
    }
    Ok(found)
}

fn has_tag(name: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'))
}

/// `[registries.search]`, `[registries.insecure]` and `[registries.block]`, each with a list of registries.
fn version_1(text: Text<'_>, table: &DeTable<'_>, conf: &mut RegistriesConf) -> Result<(), RouteError> {
    for (key, value) in in_order(table) {
        let section = key.get_ref().as_ref();
        let section_table = text.table(section, value)?;
        let Some(list) = section_table.get("registries") else { continue };
        if section == "search" {
            conf.short_names.search = Some((hosts(text, "registries", list)?, text.place(key)));
            continue;
        }
        for one in text.array("registries", list)? {
            let prefix = location(text, "registries", one)?;
            let at = conf.registries.iter().position(|known| known.prefix == prefix);
            let at = at.unwrap_or_else(|| {
                conf.registries.push(Registry {
                    place: text.place(one),
                    location: prefix.clone(),
                    prefix,
                    insecure: false,
                    blocked: false,
                    mirrors: Vec::new(),
                    mirror_by_digest_only: false,
                });
                conf.registries.len() - 1
            });
            match section {
                "insecure" => conf.registries[at].insecure = true,
                "block" => conf.registries[at].blocked = true,
                other => conf.unknown.push((text.place(key), format!("registries.{other}"))),
            }
        }
    }
    Ok(())
}

impl RegistriesConf {
    /// Puts a drop-in over it: registries of the same prefix and aliases of the same name are replaced, the rest is added.
    pub fn merge(&mut self, later: RegistriesConf) {
        for registry in later.registries {
            self.registries.retain(|known| known.prefix != registry.prefix);
            self.registries.push(registry);
        }
        self.short_names.merge(later.short_names);
        self.credential_helpers = later.credential_helpers.or(self.credential_helpers.take());
        self.unknown.extend(later.unknown);
        self.is_version_1 = later.is_version_1.or(self.is_version_1.take());
        self.is_version_2 = later.is_version_2.or(self.is_version_2.take());
    }

    /// What only all files together can have wrong.
    ///
    /// # Errors
    /// [`RouteError`] with the line.
    pub fn check(&self) -> Result<(), RouteError> {
        if let (Some(_), Some(place)) = (&self.is_version_2, &self.is_version_1) {
            let why = "[registries.*] is version 1 of this format, and cannot be mixed with version 2";
            return Err(RouteError::wrong(place.clone(), why));
        }
        for (at, registry) in self.registries.iter().enumerate() {
            let same = self.registries[..at].iter().find(|other| other.location == registry.location);
            let Some(other) = same.filter(|_| !registry.location.is_empty()) else { continue };
            for (differs, key) in [
                (other.insecure != registry.insecure, "insecure"),
                (other.blocked != registry.blocked, "blocked"),
            ] {
                if differs {
                    let (location, place) = (&registry.location, &other.place);
                    let why = format!("{location} is there twice with different {key}, first at {place}");
                    return Err(RouteError::wrong(registry.place.clone(), why));
                }
            }
        }
        Ok(())
    }

    /// The entry about a reference: that of the longest prefix.
    pub fn find(&self, reference: &ImageReference) -> Option<&Registry> {
        let text = reference.to_string();
        let about = self.registries.iter().filter(|registry| matched(&text, &registry.prefix).is_some());
        // Of equally long ones the first, as in the original.
        about.reduce(|best, other| if other.prefix.len() > best.prefix.len() { other } else { best })
    }
}

impl Registry {
    /// The names that a reference stands for, in the order in which they are asked.
    ///
    /// # Errors
    /// [`RouteError::Blocked`]; or [`RouteError::LeadsNowhere`] where putting the location in place of the prefix makes no name.
    pub fn sources(&self, reference: &ImageReference) -> Result<Vec<Source>, RouteError> {
        if self.blocked {
            let reference = reference.to_string();
            return Err(RouteError::Blocked { reference, place: self.place.clone() });
        }
        let by_digest = reference.digest().is_some();
        let mut sources = Vec::new();
        for mirror in &self.mirrors {
            let fits = match mirror.only {
                Only::All => by_digest || !self.mirror_by_digest_only,
                Only::Digests => by_digest,
                Only::Tags => !by_digest,
            };
            if fits {
                let reference = self.rewritten(reference, &mirror.location, &mirror.place)?;
                let (insecure, place) = (mirror.insecure, mirror.place.clone());
                sources.push(Source { reference, insecure, is_mirror: true, place });
            }
        }
        let own = self.rewritten(reference, &self.location, &self.place)?;
        let (insecure, place) = (self.insecure, self.place.clone());
        sources.push(Source { reference: own, insecure, is_mirror: false, place });
        Ok(sources)
    }

    fn rewritten(
        &self,
        reference: &ImageReference,
        location: &str,
        place: &Place,
    ) -> Result<ImageReference, RouteError> {
        let text = reference.to_string();
        let rest = matched(&text, &self.prefix).unwrap_or(text.len());
        if location.is_empty() {
            return Ok(reference.clone());
        }
        let to = format!("{location}{}", &text[rest..]);
        named(&to).map_err(|why| RouteError::LeadsNowhere { place: place.clone(), reference: text, to, why })
    }
}

/// A name that begins with its registry: nothing is put before it.
fn named(text: &str) -> Result<ImageReference, String> {
    if ShortNames::is_short(text) {
        return Err("it does not begin with a registry".into());
    }
    ImageReference::parse(text).map_err(|why| why.to_string())
}

/// How much of a reference is what the prefix is about; none: the prefix is about others.
fn matched(reference: &str, prefix: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => {
            let at = reference.find(suffix)?;
            (!reference[..at].contains('/')).then_some(at + suffix.len())?
        }
        _ => reference.starts_with(prefix).then_some(prefix.len())?,
    };
    matches!(reference.as_bytes().get(end), None | Some(b':' | b'/' | b'@')).then_some(end)
}

#[cfg(test)]
mod tests;
